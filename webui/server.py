"""Serves a page: a free port, our own files beside Gradio's, the gate before them all, and an end
that is considerate of the runs, which do not need it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import gradio as gr
import uvicorn
from fastapi import FastAPI
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from core.errors import SetupError, TunesmithError
from core.evaluation.document import ENDINGS, document
from core.evaluation.report import ANSWERS, list_evaluations
from core.export.package import zip_pieces
from core.export.reports import list_exports
from core.labelling.predictions import labelled, list_predictions
from core.language import _, n_
from core.workspace import Workspace, write_atomic
from webui import theme
from webui.gate import ANY_ADDRESS, Gate, Hosts, Key
from webui.gradio_scripts import GradioScripts, announced, asset
from webui.html import html
from webui.pages import Pages

FIRST_PORT = 7860
TRIED_PORTS = 100
START_SECONDS = 60.0


def listening(host: str, first: int) -> socket.socket:
    """A socket that listens on the first free port from `first` on. Raises SetupError when there
    is none."""
    for port in range(first, min(first + TRIED_PORTS, 65536)):
        place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            if os.name != "nt":  # there it would let two servers have the same port
                place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind((host, port))
            place.listen()
        except OSError:
            place.close()
            continue
        return place
    raise SetupError(
        _(
            "No free port from {first} to {last} on {host}.",
            first=first,
            last=first + TRIED_PORTS - 1,
            host=host,
        ),
        _("Give another with --port, or --host if this address is not this machine's."),
    )


def keep_uploads(workspace: Workspace) -> None:
    """Uploads go to the workspace alone. Before any component is made: they look once."""
    workspace.uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.uploads)


def launch(
    make: Callable[[], gr.Blocks],
    *,
    host: str,
    first_port: int,
    hosts: Hosts,
    key: Key | None,
    root_path: str | None = None,
    workspace: Workspace | None = None,
    pulse: Callable[[], str] = str,
    first: Callable[[Mapping[str, str]], Mapping[str, Any]] = lambda query: {},
) -> str:
    """Starts serving in the background, on the first free port from `first_port` on, and returns
    the page's local address. `make` builds the page in the language in use.

    Whoever comes has to pass the gate: `hosts` and `key`. The page links to the exports of
    `workspace`, looks anew when `pulse` gives another text, and begins with what `first` has for
    its address's query. Raises SetupError when no port is free.
    """
    place = listening(host, first_port)
    port = place.getsockname()[1]
    root = "/" + root_path.strip("/") if root_path and root_path.strip("/") else ""

    def served() -> FastAPI:
        app = FastAPI(openapi_url=None, routes=own_routes(root, workspace, pulse))
        begins = partial(_begins, first)
        _mount(app, make(), begins, server_name=host, server_port=port, root_path=root)
        return app

    # No line for each request: the address that is opened first has the token in it.
    quiet: dict[str, Any] = {"log_level": "warning", "access_log": False}
    how = uvicorn.Config(Gate(Pages(served), hosts, key, root), proxy_headers=False, **quiet)
    server = uvicorn.Server(how)
    threading.Thread(target=server.run, args=([place],), name="page", daemon=True).start()
    begun = time.monotonic()
    while not server.started:
        if time.monotonic() - begun > START_SECONDS:
            raise SetupError(_("The page did not start."), _("Look above for the reason."))
        time.sleep(0.01)
    shown = "localhost" if host in ANY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def _begins(first: Callable[[Mapping[str, str]], Mapping[str, Any]], query: Any) -> Markup:
    return html.theme.first(first(query))


def _mount(
    app: FastAPI, page: gr.Blocks, begins: Callable[[Mapping[str, str]], str], **where: Any
) -> None:
    """Puts Gradio's page into `app`, below what is ours."""
    ours = (theme.head(), announced(page), theme.foot(), begins)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        app_kwargs={"middleware": [Middleware(GradioScripts, *ours)]},
        # Of an error only what webui.app lets through, never Python's own words.
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        theme=theme.theme(),
        head=theme.late_head(),
        favicon_path=str(theme.LOGO),
        **where,
    )
    # For links that hold a page's whole state, which nothing here makes, each session begins with a
    # copy of how every component is: a twentieth of a second in which all others wait, and a
    # megabyte that stays.
    page.state_holder.blocks = SimpleNamespace(default_config=page.default_config, blocks={})


# The page's own script and style, and plotly.js and the logo; no other file, and nothing of the
# user's. A browser keeps what is asked for by its mark (`webui.theme`).
_OWN_FILES: dict[str, Callable[[], Path]] = {
    "logo.svg": lambda: theme.LOGO,
    "plotly.js": theme.plotly_script,
}
_OWN_TEXTS = {"page.js": (theme.script, "text/javascript"), "page.css": (theme.style, "text/css")}


def _own_file(request: Request) -> FileResponse:
    find = _OWN_FILES[request.url.path.rpartition("/")[2]]
    return FileResponse(find(), headers={"Cache-Control": "no-cache"})


def _own_text(request: Request) -> Response:
    text, kind = _OWN_TEXTS[request.url.path.rpartition("/")[2]]
    kept = "max-age=31536000, immutable" if request.query_params.get("v") else "no-cache"
    return Response(text(), media_type=kind, headers={"Cache-Control": kept})


def own_routes(
    root_path: str = "", workspace: Workspace | None = None, pulse: Callable[[], str] = str
) -> list[BaseRoute]:
    """What the page loads beside Gradio's own, below the root path too: a proxy may leave it on."""

    async def alive(request: Request) -> Response:
        """The page asks whether the server is still there, and has something new to show."""
        return Response(pulse(), media_type="text/plain")

    def export(request: Request) -> StreamingResponse:
        """An export as a zip: what the page links to, and no other file of a run."""
        wanted = request.path_params
        try:
            exports = list_exports(workspace.run(wanted["run"]).root) if workspace else []
        except TunesmithError:
            exports = []
        folders = [one.path for one in exports if one.id == wanted["export"] and one.path]
        if not folders:
            raise HTTPException(404)
        name = quote(f"{folders[0].name}.zip")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return StreamingResponse(
            zip_pieces(folders[0]), media_type="application/zip", headers=headers
        )

    def evaluation(request: Request) -> Response:
        """An evaluation's report, as HTML, Markdown, JSON, or its rows."""
        wanted = request.path_params
        name = Path(wanted["file"])
        try:
            found = list_evaluations(workspace.run(wanted["run"]).root) if workspace else []
        except TunesmithError:
            found = []
        shown = next((one for one in found if one.id == name.stem and one.report), None)
        if shown is None or shown.report is None or name.suffix not in ENDINGS:
            raise HTTPException(404)
        if name.suffix == ".jsonl":
            return FileResponse(shown.folder / ANSWERS, filename=name.name)
        text = document(shown.folder, shown.report, name.suffix)
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.name)}"}
        return Response(text, media_type="text/plain; charset=utf-8", headers=headers)

    # By their whole names: with the root path /tunesmith, Gradio's own begin like them.
    packed = [Middleware(GZipMiddleware, compresslevel=5)]
    return [
        *(Route(f"{place}/assets/{{name}}", asset) for place in dict.fromkeys(("", root_path))),
        *(
            route
            for place in dict.fromkeys(("/tunesmith", f"{root_path}/tunesmith"))
            for route in (
                Route(f"{place}/alive", alive),
                Route(f"{place}/exports/{{run}}/{{export}}", export),
                Route(f"{place}/evaluations/{{run}}/{{file}}", evaluation),
                Route(f"{place}/predictions/{{run}}/{{file}}", partial(_prediction, workspace)),
                *(Route(f"{place}/{name}", _own_file, middleware=packed) for name in _OWN_FILES),
                *(Route(f"{place}/{name}", _own_text, middleware=packed) for name in _OWN_TEXTS),
            )
        ),
    ]


def _prediction(workspace: Workspace | None, request: Request) -> Response:
    """What a classifier said of texts, as JSON Lines or CSV."""
    wanted = request.path_params
    name = Path(wanted["file"])
    try:
        found = list_predictions(workspace.run(wanted["run"])) if workspace else []
        folder = next(one.folder for one in found if one.id == name.stem)
        text = labelled(folder, name.suffix)
    except (TunesmithError, StopIteration) as error:
        raise HTTPException(404) from error
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.name)}"}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)


def announce(workspace: Workspace, address: str, token: str, *, open_browser: bool) -> None:
    """Prints the address, with the token that opens it if there is one, and opens a browser where
    there is one."""
    link = f"{address}?token={token}" if token else address
    told = _("Tunesmith is at {link} (Ctrl-C ends the server).", link=link)
    print(told, file=sys.stderr, flush=True)
    if not (open_browser and _has_browser()):
        return
    if token:
        # By way of a file that only its owner can read: everybody sees what a browser is started
        # with.
        write_atomic(workspace.opening, html.server.opening(link))
        link = workspace.opening.as_uri()
    threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()


def _has_browser() -> bool:
    """A server without a screen must not start a text browser in the terminal."""
    return (
        os.name == "nt"
        or sys.platform == "darwin"
        or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    )


# How long a second Ctrl-C may take, in seconds.
PATIENCE = 10


def wait(
    runs_at_work: Callable[[], int],
    stop_runs: Callable[[], None],
    each_hour: Callable[[], None] = lambda: None,
) -> None:
    """Until Ctrl-C or a termination signal. A second Ctrl-C stops the runs with a checkpoint."""
    ended = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_signal: ended.set())
    tidied = time.monotonic()
    try:
        # A signal may reach another thread; this one answers it only when it looks up.
        while not ended.wait(1):
            if time.monotonic() - tidied >= 3600:
                each_hour()
                tidied = time.monotonic()
    except KeyboardInterrupt:
        _offer_to_stop(runs_at_work(), stop_runs)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _offer_to_stop(count: int, stop_runs: Callable[[], None]) -> None:
    if count == 0:
        print(f"\n{_('The server has ended. No run was at work.')}", file=sys.stderr)
        return
    told = n_(
        "{n} run goes on without the server. Press Ctrl-C again within {seconds} seconds to stop "
        "with a checkpoint; later: python launch.py runs stop ID.",
        "{n} runs go on without the server. Press Ctrl-C again within {seconds} seconds to stop "
        "with a checkpoint; later: python launch.py runs stop ID.",
        count,
        seconds=PATIENCE,
    )
    print(f"\n{told}", file=sys.stderr, flush=True)
    try:
        time.sleep(PATIENCE)
    except KeyboardInterrupt:
        told = _("Stopping; each run writes a checkpoint first.")
        print(f"\n{told}", file=sys.stderr, flush=True)
        stop_runs()
