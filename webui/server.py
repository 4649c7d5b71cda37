"""Serves a page: a free port, our own files beside Gradio's, and an end that is considerate of the
runs, which do not need it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from core.errors import SetupError
from core.workspace import Workspace
from webui import theme

FIRST_PORT = 7860
TRIED_PORTS = 100


def free_ports(host: str, first: int) -> Iterator[int]:
    """The ports from `first` on that nobody listens on. Raises SetupError when there is no more."""
    for port in range(first, min(first + TRIED_PORTS, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        yield port
    raise SetupError(
        f"No free port from {first} to {first + TRIED_PORTS - 1} on {host}.",
        "Give another with --port, or --host if this address is not this machine's.",
    )


def keep_uploads(workspace: Workspace) -> None:
    """Uploads go to the workspace and nowhere else. Before any component is made: they look once.
    """
    workspace.uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.uploads)


def launch(
    page: gr.Blocks,
    *,
    host: str,
    first_port: int,
    auth: tuple[str, str] | None,
    root_path: str | None,
    downloads: Path | None = None,
) -> str:
    """Starts serving in the background, on the first free port from `first_port` on, and returns
    the page's local address.

    `downloads` is the folder whose files the page links to, for whoever is logged in. Raises
    SetupError when no port is free.
    """
    for port in free_ports(host, first_port):
        with suppress(OSError):  # another server that starts at this moment took it
            return _launch(page, host, port, auth, root_path, downloads)
    raise AssertionError("free_ports raises where it ends")


def _launch(
    page: gr.Blocks,
    host: str,
    port: int,
    auth: tuple[str, str] | None,
    root_path: str | None,
    downloads: Path | None,
) -> str:
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        auth=auth,
        auth_message="Tunesmith asks for the name and password it was started with.",
        root_path=root_path,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        share=False,
        allowed_paths=[str(downloads)] if downloads else None,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        theme=theme.theme(),
        css_paths=[theme.STYLE, theme.RESULTS, theme.DATA, theme.SHAPE, theme.NEED],
        head=theme.HEAD,
        favicon_path=theme.LOGO,
        app_kwargs={"routes": OWN_ROUTES},
    )
    return str(address)


def _own_file(request: Request) -> FileResponse:
    """The page's own script, picture and plotly.js; no other file, and nothing of the user's."""
    files: dict[str, Callable[[], Path]] = {
        "page.js": lambda: theme.ASSETS / "page.js",
        "charts.js": lambda: theme.ASSETS / "charts.js",
        "logo.svg": lambda: theme.LOGO,
        "plotly.js": theme.plotly_script,
    }
    find = files.get(request.path_params["name"])
    if find is None:
        raise HTTPException(404)
    return FileResponse(find(), headers={"Cache-Control": "no-cache"})


async def _alive(request: Request) -> Response:
    """The page asks whether the server is still there."""
    return Response(status_code=204)


OWN_ROUTES = [Route("/tunesmith/alive", _alive), Route("/tunesmith/{name}", _own_file)]


def announce(address: str, *, open_browser: bool) -> None:
    """Prints the address, and opens a browser where there is one."""
    print(f"Tunesmith is at {address} (Ctrl-C ends the server).", file=sys.stderr, flush=True)
    if open_browser and _has_browser():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _has_browser() -> bool:
    """A server without a screen must not start a text browser in the terminal."""
    return os.name == "nt" or sys.platform == "darwin" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


# How long a second Ctrl-C may take, in seconds.
PATIENCE = 10


def wait(runs_at_work: Callable[[], int], stop_runs: Callable[[], None]) -> None:
    """Until Ctrl-C or a termination signal. A second Ctrl-C stops the runs with a checkpoint."""
    ended = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        while not ended.wait(3600):
            pass
    except KeyboardInterrupt:
        _offer_to_stop(runs_at_work(), stop_runs)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _offer_to_stop(count: int, stop_runs: Callable[[], None]) -> None:
    if count == 0:
        print("\nThe server has ended. No run was at work.", file=sys.stderr)
        return
    runs = "1 run goes" if count == 1 else f"{count} runs go"
    print(
        f"\n{runs} on without the server. Press Ctrl-C again within {PATIENCE} seconds to stop "
        "with a checkpoint; later: python launch.py runs stop ID.",
        file=sys.stderr,
        flush=True,
    )
    try:
        time.sleep(PATIENCE)
    except KeyboardInterrupt:
        print("\nStopping; each run writes a checkpoint first.", file=sys.stderr, flush=True)
        stop_runs()
