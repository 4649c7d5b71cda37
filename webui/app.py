"""The page as a whole: its tabs in the order of the work, and what joins them."""

from __future__ import annotations

import inspect
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import gradio as gr

from core.data.uploads import sweep_uploads
from core.errors import TunesmithError, reason_of
from core.rules.presets import DEFAULT, load_preset
from core.tokens.lens import Lens
from core.workspace import Workspace
from webui import chat, evaluate, export, header, runs, train
from webui.api import PUBLISHED, publish
from webui.configure import tab as configure
from webui.context import DATA_PARTS, TABS, App, Shared
from webui.data import tab as data
from webui.gate import Hosts, Key
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
_LOOK = "Look at the workspace's folder: its rights, and the room on its disk."
_FAULT = "This did not work: what was sent makes no sense here. The server's log says more."
# Events that follow what somebody chose.
_CHOICES = {"change", "input", "select"}


def build(app: App) -> gr.Blocks:
    """The whole page. `webui.server.launch` adds theme, style and script."""
    keep_uploads(app.workspace)
    with gr.Blocks(title="Tunesmith", analytics_enabled=False, fill_width=True) as page:
        shared = _shared()
        shared.page = page
        _wire_selection(page, app, shared)
        header.build(app, shared)
        with shared.tabs.render():
            for name, _ in TABS:
                shared.building = name
                with shared.tab[name].render():
                    _BUILDERS[name](app, shared)
        for wire in shared.finally_wire:
            wire()
        publish(app)
    _make_private(page)
    _speak_plainly(page)
    _spare_status(page)
    _lose_no_choice(page)
    return page


def _shared() -> Shared:
    """The selection, in the browser; the tabs are rendered where they belong."""
    return Shared(
        tabs=gr.Tabs(elem_id="tabs", overflow_behavior="wrap", render=False),
        tab={
            name: gr.Tab(label, id=name, elem_id=f"tab-{name}", render=False)
            for name, label in TABS
        },
        run=gr.Textbox(label="Selected run", visible="hidden", elem_id="selected-run"),
        dataset=gr.Textbox(label="Selected data set", visible="hidden", elem_id="selected-dataset"),
        version=gr.Textbox(label="Version of the rows", visible="hidden"),
        part={
            name: gr.Tab(label, id=name, elem_id=f"part-{name}", render=False)
            for name, label in DATA_PARTS
        },
        lens=gr.Textbox(
            Lens.of(load_preset(DEFAULT).config()).write(), label="Lens", visible="hidden"
        ),
        tickers={name: gr.Timer(1, active=False) for name, _ in TABS},
        shown={
            name: gr.Textbox(label=f"What {label} shows", visible="hidden")
            for name, label in (*TABS, *DATA_PARTS)
        },
    )


def _wire_selection(page: gr.Blocks, app: App, shared: Shared) -> None:
    """The URL decides at the start; afterwards it follows. What is shown of which run or data set
    is read from the page itself: events may come in another order. Before all other handlers:
    Gradio calls those of an event one after the other, each when the one before was answered."""
    selection = [shared.run, shared.dataset, shared.tabs]
    page.load(None, None, selection, js="() => tunesmith.selectionFromUrl()")
    names = json.dumps(list(shared.shown))
    gr.on(
        [
            *(tab.select for tab in (*shared.tab.values(), *shared.part.values())),
            *(box.change for box in (shared.run, shared.dataset, shared.version, shared.lens)),
        ],
        None,
        [shared.run, shared.dataset, shared.version, shared.lens],
        [*shared.tickers.values(), *shared.shown.values()],
        js=f"(...given) => tunesmith.shown({names}, ...given)",
        trigger_mode="multiple",
        show_progress="hidden",
    )
    # The fork server imports torch for the first worker meanwhile; it takes some seconds.
    page.load(app.scheduler.warm, None, None, show_progress="hidden")


def _make_private(page: gr.Blocks) -> None:
    """Gradio publishes every handler unless told otherwise; here it is the other way round."""
    for function in page.fns.values():
        if function.api_name not in PUBLISHED:
            function.api_visibility = "private"


def _speak_plainly(page: gr.Blocks) -> None:
    """What a handler raises reaches a person as a sentence: ours as it is, any other as a fault,
    whose traceback is in the server's log."""
    for function in page.fns.values():
        if function.fn is not None:
            function.fn = _plain(function.fn)


def _plain(handler: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def steps(*given: Any, **named: Any) -> Any:
            with _plain_errors():
                yield from handler(*given, **named)

        return steps

    @wraps(handler)
    def answer(*given: Any, **named: Any) -> Any:
        with _plain_errors():
            return handler(*given, **named)

    return answer


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except TunesmithError as error:
        raise gr.Error(str(error)) from error
    except OSError as error:
        raise gr.Error(f"{reason_of(error).capitalize()}. {_LOOK}") from error
    except Exception as error:
        log.exception("a handler failed")
        raise gr.Error(_FAULT) from error


def _spare_status(page: gr.Blocks) -> None:
    """Gradio keeps a loading status for each output of an event and looks every one of them up in
    the whole page at each event, seen or not. Where it is hidden, none is kept: without this a
    click takes seconds on a page with this many settings."""
    for function in page.fns.values():
        if function.show_progress == "hidden":
            function.show_progress_on = []


def _lose_no_choice(page: gr.Blocks) -> None:
    """Gradio drops an event whose handler is still at work on the last one: who chooses A and then
    B on a slow machine goes on seeing A. Where a handler follows a choice, each is answered, in
    their order. What a click does stays as it is: it is not done twice.

    "always_last" is for a handler that has its event for itself: Gradio repeats the whole event,
    and two such handlers of one event would repeat each other without end.
    """
    shared = {at for at, number in Counter(_events(page)).items() if number > 1}
    for function in page.fns.values():
        at = {(source, event) for source, event in function.targets if source is not None}
        lasting = inspect.isgeneratorfunction(function.fn)
        in_order = function.concurrency_limit in (1, "default")
        if lasting or not in_order or not _follows(page, function):
            continue
        if function.trigger_mode == "once" or at & shared:
            function.trigger_mode = "multiple"


def _events(page: gr.Blocks) -> list[tuple[int | None, str]]:
    targets = [tuple(target) for function in page.fns.values() for target in function.targets]
    return [(source, event) for source, event in targets if source is not None]


def _follows(page: gr.Blocks, function: Any) -> bool:
    """Whether it answers nothing but choices."""
    return all(
        event in _CHOICES and not isinstance(page.blocks.get(source), gr.HTML)
        for source, event in function.targets
    )


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
        page = build(app)
        address = launch(
            page,
            host=host,
            first_port=port,
            hosts=Hosts(host, tuple(allow_hosts)),
            key=Key(secret, auth) if secret else None,
            root_path=root_path,
            workspace=workspace,
        )
        token = "" if auth else secret
        app.scheduler.served_at(address, token)
        announce(workspace, address, token, open_browser=open_browser)
        stop_runs = partial(app.scheduler.close, stop_runs=True)
        wait(lambda: len(app.scheduler.mine()), stop_runs, each_hour=tidy)
    finally:
        workspace.opening.unlink(missing_ok=True)
        app.close()
