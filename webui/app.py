"""The page as a whole: its tabs in the order of the work, and what joins them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import gradio as gr
from markupsafe import escape

from core.data.uploads import sweep_uploads
from core.errors import TunesmithError, reason_of
from core.language import N_, _, language, speaking
from core.rules.presets import DEFAULT, load_preset
from core.tokens.lens import Lens
from core.workspace import Workspace
from webui import chat, evaluate, export, header, runs, train
from webui.api import publish
from webui.configure import tab as configure
from webui.context import DATA_PARTS, HIDDEN, QUIET, TABS, App, Shared, unseen
from webui.data import tab as data
from webui.gate import Hosts, Key
from webui.html import html
from webui.pulse import Pulse
from webui.server import FIRST_PORT, announce, keep_uploads, launch, wait

_BUILDERS = {
    "data": data.build,
    "configure": configure.build,
    "train": train.build,
    "evaluate": evaluate.build,
    "chat": chat.build,
    "export": export.build,
    "runs": runs.build,
}
log = logging.getLogger(__name__)
_FAULT = N_("This did not work: what was sent makes no sense here. The server's log says more.")
# What Gradio says, in English alone, of a number that its box does not take.
_OUT_OF_BOUNDS = re.compile(r"Value (.+) is (less|greater) than \w+ value (.+)\.")
# Events that follow what somebody chose.
_CHOICES = {"change", "input", "select"}


def build(app: App) -> gr.Blocks:
    """The whole page. `webui.server.launch` adds theme, style and script."""
    keep_uploads(app.workspace)
    with Page(title="Tunesmith", analytics_enabled=False, fill_width=True) as page:
        shared = _shared()
        shared.page = page
        _wire_selection(page, app, shared)
        header.build(app, shared)
        with shared.tabs.render():
            for name, title in TABS:
                shared.building = name
                with shared.tab[name].render():
                    heading = html.plain.title(_(title))
                    gr.HTML(heading, elem_classes="sr-only", apply_default_css=False)
                    _BUILDERS[name](app, shared)
        for wire in shared.finally_wire:
            wire()
        shared.wire()
        publish(app)
        for block in page.blocks.values():
            # In a fold that was never opened Gradio would hand on what no box can hold.
            if isinstance(block, gr.Textbox) and block.value is None:
                block.value = ""
    return page


class Page(gr.Blocks):
    """Its handlers speak the language that it was built in. What a handler raises reaches a person
    as a sentence: ours as it is, any other as a fault, whose traceback is in the server's log."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Gradio looks a thousand times a second whether there is an event, which takes 7 % of a
        # core for nothing.
        self._queue.sleep_when_free = 0.01
        self.language = language()

    def handle_streaming_diffs(self, *given: Any, **named: Any) -> list[Any]:
        """When a handler that yields has ended, Gradio sends its last answer once more: what was
        typed since would be lost."""
        data: list[Any] = super().handle_streaming_diffs(*given, **named)
        return [gr.skip()] * len(data) if named["final"] else data

    async def process_api(self, *given: Any, **named: Any) -> dict[str, Any]:
        with speaking(self.language), _plain_errors():
            answer: dict[str, Any] = await super().process_api(*given, **named)
            return answer


def _shared() -> Shared:
    """The selection, in the browser; the tabs are rendered where they belong."""
    return Shared(
        tabs=gr.Tabs(elem_id="tabs", overflow_behavior="wrap", render=False),
        tab={
            name: gr.Tab(_(title), id=name, elem_id=f"tab-{name}", render=False)
            for name, title in TABS
        },
        run=gr.Textbox(label="Selected run", **HIDDEN, elem_id="selected-run"),
        dataset=gr.Textbox(label="Selected data set", **HIDDEN, elem_id="selected-dataset"),
        version=gr.Textbox(label="Version of the rows", **HIDDEN),
        part={
            name: gr.Tab(_(title), id=name, elem_id=f"part-{name}", render=False)
            for name, title in DATA_PARTS
        },
        lens=gr.Textbox(Lens.of(load_preset(DEFAULT).config()).write(), label="Lens", **HIDDEN),
        shown={
            name: unseen("", f"tunesmith.hears('{name}', trigger, 'tick');")
            for name, _title in (*TABS, *DATA_PARTS)
        },
    )


def _wire_selection(page: gr.Blocks, app: App, shared: Shared) -> None:
    """The URL decides at the start; afterwards it follows. What is shown of which run or data set
    is read from the page itself: events may come in another order. Before all other handlers:
    Gradio calls those of an event one after the other, each when the one before was answered."""
    selection = [shared.run, shared.dataset, shared.tabs]
    page.load(None, None, selection, js="() => tunesmith.selectionFromUrl()")
    gr.on(
        [
            *(tab.select for tab in (*shared.tab.values(), *shared.part.values())),
            *(box.change for box in (shared.run, shared.dataset, shared.version, shared.lens)),
        ],
        None,
        [shared.run, shared.dataset, shared.version, shared.lens],
        None,
        js="(...given) => tunesmith.shown(...given)",
        trigger_mode="multiple",
        **QUIET,
    )


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except gr.Error as error:
        found = _OUT_OF_BOUNDS.fullmatch(str(error.message))
        if found is None:
            raise
        value, side, bound = found.groups()
        if side == "less":
            told = _("{value} is too little: {bound} is the least here.", value=value, bound=bound)
        else:
            told = _("{value} is too much: {bound} is the most here.", value=value, bound=bound)
        raise gr.Error(told) from error
    except TunesmithError as error:
        raise gr.Error(str(escape(str(error)))) from error  # it is drawn as HTML
    except OSError as error:
        reason = str(escape(reason_of(error).capitalize()))
        raise gr.Error(
            _(
                "{reason}. Look at the workspace's folder: its rights, and the room on its disk.",
                reason=reason,
            )
        ) from error
    except Exception as error:
        log.exception("a handler failed")
        raise gr.Error(_(_FAULT)) from error


def _looked_at(warm: Callable[[], None], pulse: Pulse) -> str:
    """What a page that is open is told each second. The fork server imports torch for the first
    worker meanwhile; it takes some seconds."""
    with suppress(OSError):  # whoever starts a worker says why there is none
        warm()
    return pulse.mark()


def serve(
    workspace: Workspace,
    *,
    host: str = "127.0.0.1",
    port: int = FIRST_PORT,
    secret: str = "",
    auth: tuple[str, str] | None = None,
    allow_hosts: Sequence[str] = (),
    open_browser: bool = True,
    root_path: str | None = None,
) -> None:
    """Serves the page until Ctrl-C, on the first free port from `port` on.

    Whoever opens it needs the token, which is `secret`, or with `auth` the name and the password;
    with neither, nothing. Runs go on when the server ends. Raises SetupError when the address
    cannot be had.
    """
    app = App.open(workspace)
    try:
        app.scheduler.start()
        tidy = partial(sweep_uploads, workspace, app.store)
        tidy()
        # One that died is begun anew for the next worker, not each second.
        once = cache(app.scheduler.warm)
        address = launch(
            partial(build, app),
            host=host,
            first_port=port,
            hosts=Hosts(host, tuple(allow_hosts)),
            key=Key(secret, auth) if secret else None,
            root_path=root_path,
            workspace=workspace,
            pulse=partial(_looked_at, once, Pulse(app.store)),
            first=partial(data.first_look, app),
        )
        token = "" if auth else secret
        app.scheduler.served_at(address, token)
        announce(workspace, address, token, open_browser=open_browser)
        stop_runs = partial(app.scheduler.close, stop_runs=True)
        wait(lambda: len(app.scheduler.mine()), stop_runs, each_hour=tidy)
    finally:
        workspace.opening.unlink(missing_ok=True)
        app.close()
