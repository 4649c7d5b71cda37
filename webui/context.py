"""What every tab gets: the server's own things (`App`) and the page's selection (`Shared`).

How a tab is written
    def build(app: App, shared: Shared) -> None, called inside its own `gr.Tab`. Three parts in this
    order: components, handlers, wiring. A handler is a verb, at most 20 lines, and calls one
    function of `core` with `app.workspace` and `app.store`. It never imports torch; what needs a
    tokenizer goes to `app.pool.submit(function, *args)`.

How a tab reads the selection
    `shared.run` and `shared.dataset` are hidden text boxes that hold an id or "". Give them as
    inputs to read, as outputs to select: `button.click(pick, outputs=[shared.run, shared.tabs])`
    with `return run_id, shared.go("evaluate")`. They live in the browser (and in the URL as ?run=
    and ?dataset=), so they outlast the server. They come from the URL: an id that does not exist is
    an empty state, not an error.

How a part of Data keeps up
    `shared.on_rows(refresh, inputs, outputs)` runs `refresh` when the part is opened, and while it
    is shown when another data set is chosen, the chosen one has got another version, or Configure
    has another model or cut. Whoever makes a version writes `stamp(info)` into `shared.version` (an
    output of that handler), and everyone follows.

How a tab keeps up
    `shared.on_show("chat", fn, inputs, outputs)` runs `fn` when the tab is opened, and while it is
    shown when another run is selected. `shared.on_tick(fn, inputs, outputs)` runs one when there
    may be something new while the tab is shown, at most once a second (`webui.pulse`). What a tab
    runs then is one event; each part returns a tuple, or a dictionary by component, with
    `gr.skip()` for what has not changed. A button that does nothing but open a tab is given to
    `shared.opens(tab, button)`.

How a tab offers the first run
    An empty state with a button appends it: `shared.sample_buttons.append(button)`. It then starts
    the sample run with the first settings, and Configure shows how far that is.

What a tab may not do
    Publish a handler: `webui.app.build` makes every listener private. An endpoint for programs is
    declared with `gr.api(function, api_name=..., api_visibility="public")` and named in
    `webui.app.PUBLISHED`. Write HTML in Python: it stands in webui/templates, where whatever a
    user or a model wrote is escaped by itself (`webui.html`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.data.registry import load_dataset_info
from core.errors import TunesmithError
from core.language import N_
from webui.live import LiveRuns

if TYPE_CHECKING:
    from core.chat.session import ChatSession
    from core.data.record import DatasetInfo
    from core.jobs.pool import Pool
    from core.jobs.scheduler import Scheduler
    from core.jobs.store import Store
    from core.models.hardware import Hardware
    from core.workspace import Workspace
    from webui.forms import Form

# The tabs in the order of the work: id (file name, URL) and label.
TABS = (
    ("data", N_("Data")),
    ("configure", N_("Configure")),
    ("train", N_("Train")),
    ("evaluate", N_("Evaluate")),
    ("chat", N_("Chat")),
    ("export", N_("Export")),
    ("runs", N_("Runs")),
)

# The parts of the chosen data set in Data: id and label.
DATA_PARTS = (
    ("rows", N_("Rows")),
    ("numbers", N_("Numbers")),
    ("shape", N_("Clean and shape")),
    ("drafts", N_("More rows")),
    ("manage", N_("Manage")),
)


# What handlers are registered with: nothing is drawn over the page while they work, and programs
# cannot call them. `show_progress_on` names nothing, because Gradio looks up each output of each
# event that ever ran at each event, also where no progress is shown. One that follows a choice
# answers each: who chooses A and then B on a slow machine would go on seeing A.
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],
    "api_visibility": "private",
}
CHOICE: dict[str, Any] = {**QUIET, "trigger_mode": "multiple"}
# A text box that only holds something. With as many lines as it may have: another measures itself
# each time, which has the browser lay out the page.
HIDDEN: dict[str, Any] = {"visible": "hidden", "container": False, "lines": 2, "max_lines": 2}


@dataclass
class App:
    """The things that live as long as the server."""

    workspace: Workspace
    store: Store
    scheduler: Scheduler
    pool: Pool
    hardware: Hardware
    chats: dict[str, ChatSession] = field(default_factory=dict)
    """Loaded chat sessions by the browser session's hash; each is a worker process."""
    answers: dict[tuple[Any, ...], Future[Any]] = field(default_factory=dict)
    """Token counts and rows as tokens, begun or done (webui.tokens)."""

    def __post_init__(self) -> None:
        self.live = LiveRuns(self.workspace)
        """The runs that somebody watches."""

    @classmethod
    def open(cls, workspace: Workspace) -> App:
        """The real things for `workspace`; nothing is started yet."""
        from core.jobs.pool import Pool
        from core.jobs.scheduler import Scheduler
        from core.jobs.store import Store
        from core.models.hardware import local_devices, probe

        store = Store.open(workspace)
        return cls(
            workspace=workspace,
            store=store,
            scheduler=Scheduler(workspace, store, local_devices()),
            pool=Pool(workspace.root),
            hardware=probe(),
        )

    def probe_again(self) -> None:
        """Looks again at the devices and their free memory."""
        from core.models.hardware import probe

        self.hardware = probe()

    def renew_workers(self) -> None:
        """Lets what starts from now on see packages that were installed meanwhile."""
        from core.jobs.process import context

        context().renew()
        self.pool.renew()

    def close(self) -> None:
        """Ends what belongs to the server. Runs go on: they are processes of their own."""
        for session in list(self.chats.values()):
            session.close()
        self.chats.clear()
        self.scheduler.close(stop_runs=False)
        self.pool.close()


@dataclass
class _Part:
    """A handler: what it calls, as Gradio would, and how."""

    fn: Callable[..., Any]
    inputs: Sequence[gr.components.Component] | set[gr.components.Component]
    outputs: Sequence[gr.blocks.Block] | set[gr.blocks.Block]
    how: dict[str, Any] = field(default_factory=dict)

    def call(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        given = {one: data[one] for one in self.inputs}
        said = self.fn(given) if isinstance(self.inputs, set) else self.fn(*given.values())
        if isinstance(said, dict) and "__type__" not in said:
            return said
        return dict(zip(self.outputs, said if isinstance(said, tuple) else [said], strict=True))


def _together(parts: Sequence[_Part]) -> tuple[Any, Any, Any]:
    """The handler, inputs and outputs that do what these do, in their order."""
    if len(parts) == 1:
        return parts[0].fn, parts[0].inputs, parts[0].outputs
    assert not any(part.how for part in parts), "How something runs is its own affair."

    def call(data: dict[Any, Any]) -> dict[Any, Any]:
        news: dict[Any, Any] = {}
        for part in parts:
            news |= part.call(data)
        return news

    inputs = {one for part in parts for one in part.inputs}
    return call, inputs, {one for part in parts for one in part.outputs}


@dataclass
class Shared:
    """The components that all tabs see."""

    tabs: gr.Tabs
    tab: dict[str, gr.Tab]
    run: gr.Textbox
    dataset: gr.Textbox
    version: gr.Textbox
    """The stamp of the rows that the chosen data set has now."""
    part: dict[str, gr.Tab]
    """The inner tabs of Data, which are shown one at a time."""
    lens: gr.Textbox
    """How rows become tokens by Configure's settings (core.tokens.lens.Lens)."""
    shown: dict[str, gr.HTML]
    """By tab and by part of Data: `select` happens when it is shown, or is shown and has to show
    another run or data set, other rows of it or other tokens, and `tick` when there may be
    something new meanwhile (assets/page.js)."""
    page: gr.Blocks | None = None
    """The whole page, once it is built; for what happens when it is opened."""
    building: str = ""
    """The tab, or the part of Data, that is being built."""
    sample_buttons: list[gr.Button] = field(default_factory=list)
    """Buttons of empty states that start the sample run; Configure answers them."""
    showing: dict[str, list[_Part]] = field(default_factory=dict)
    ticking: dict[str, list[_Part]] = field(default_factory=dict)
    openers: dict[str, list[gr.Button]] = field(default_factory=dict)
    finally_wire: list[Callable[[], None]] = field(default_factory=list)
    """What a tab wires when all tabs have been built."""
    settings: Form | None = None
    """Configure's form, once that is built."""

    @property
    def form(self) -> Form:
        """Configure's form. Another tab may fill in a field, once all tabs are built."""
        assert self.settings is not None
        return self.settings

    def go(self, tab: str) -> gr.Tabs:
        """The update that opens `tab`, for a handler that has `shared.tabs` as an output."""
        return gr.Tabs(selected=tab)

    def on_show(
        self,
        tab: str,
        fn: Callable[..., Any],
        inputs: Sequence[gr.components.Component] | set[gr.components.Component],
        outputs: Sequence[gr.blocks.Block] | set[gr.blocks.Block],
    ) -> None:
        """Runs `fn` when `tab` is opened and when another run is selected."""
        self.showing.setdefault(tab, []).append(_Part(fn, inputs, outputs))

    def on_tick(
        self,
        fn: Callable[..., Any],
        inputs: Sequence[gr.components.Component] | set[gr.components.Component],
        outputs: Sequence[gr.blocks.Block] | set[gr.blocks.Block],
        **how: Any,
    ) -> None:
        """Runs `fn` when there may be something new while the tab that is being built is shown, at
        most once a second."""
        self.ticking.setdefault(self.building, []).append(_Part(fn, inputs, outputs, how))

    def drawn(self, tab: str, event: Any) -> None:
        """`event` is the last of what happens when a tab is opened: it ticks from then on."""
        event.then(None, js=f"() => tunesmith.drawn('{tab}')", **QUIET)

    def opens(self, tab: str, *buttons: gr.Button) -> None:
        """A click on one of them opens `tab`."""
        self.openers.setdefault(tab, []).extend(buttons)

    def wire(self) -> None:
        """Once all tabs are built: one event for all that happens together, which is one request,
        and the browser looks at each event for each component."""
        for one in self.shown.values():
            one.render()
        for tab, parts in self.showing.items():
            self.drawn(tab, self.shown[tab].select(*_together(parts), **CHOICE))
        for tab, parts in self.ticking.items():
            how = {**QUIET, **parts[0].how, "trigger_mode": "always_last"}
            self.shown[tab].tick(*_together(parts), **how)
        for tab, buttons in self.openers.items():
            clicks = [button.click for button in buttons]
            gr.on(clicks, partial(self.go, tab), None, self.tabs, **QUIET)

    def on_rows(
        self,
        refresh: Callable[..., Any],
        inputs: Sequence[gr.components.Component] | set[gr.components.Component],
        outputs: Sequence[gr.blocks.Block] | set[gr.blocks.Block],
        **how: Any,
    ) -> Any:
        """Runs `refresh` when the part of Data that is being built is shown, or its rows may be
        others; gives the event, for `.then`. `how` goes to it."""
        how = {**CHOICE, **how}
        return self.shown[self.building].select(refresh, inputs, outputs, **how)


def unseen(value: Any, script: str | None = None) -> gr.HTML:
    """Holds a value for the browser. A text box that is hidden would be seen when what it stands in
    is shown again: Gradio then shows all that is in it."""
    return gr.HTML(
        value,
        render=False,
        html_template="",
        js_on_load=script,
        elem_classes="no-space",
        apply_default_css=False,
    )


def begun(name: str, **how: Any) -> gr.HTML:
    """Shows what the page begins with under this name, until its first event has been answered."""
    return gr.HTML(js_on_load=f"tunesmith.begin('{name}', props);", apply_default_css=False, **how)


def version_of(app: App, dataset: str) -> str:
    """The value of `shared.version`, which tells the other parts of the page which rows there are
    now."""
    try:
        return stamp(load_dataset_info(app.workspace, dataset))
    except TunesmithError:
        return ""


def stamp(info: DatasetInfo) -> str:
    """What `shared.version` holds for these rows: another text for others, and for another name."""
    return f"{info.id} {info.fingerprint} {info.name}"


def of_trigger(event: gr.EventData, choices: Mapping[Any, Any], other: Any) -> Any:
    """What is given for the component that told the event. Gradio makes another one, with another
    number, of one that was updated: it is known by its `elem_id`."""
    by_id = {block.elem_id: one for block, one in choices.items()}
    assert None not in by_id and len(by_id) == len(choices), "Each needs an elem_id of its own."
    return by_id.get(event.target.elem_id, other)
