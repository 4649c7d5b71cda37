"""The upper half of Data: rows come in, are recognised, and become a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.prepare import import_dataset
from core.data.record import SAMPLE_ID
from core.errors import TunesmithError
from core.jobs.apart import call_apart
from webui import background, messages
from webui.context import App, Shared
from webui.import_choice import ImportChoice
from webui.import_sources import Found, Sources, hub_source, look_at
from webui.imports import Import, Imports, failure
from webui.shape_steps import CLICKS
from webui.works import bar

# What came of the form's import is the selected data set, unless another was chosen meanwhile.
_TAKE_UP = """(made, chosen) => {
  const [key, before, dataset] = made.split("|");
  const taken = dataset && (!before || before === chosen);
  return taken ? [dataset, `${key}||`] : [chosen, made];
}"""


class ImportForm:
    """Its components, handlers and wiring; `shared.dataset` is what it fills in."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.imports = Imports()
        self.looks, self.watches = background.Watches(), background.Watches()
        self.sources = Sources()
        self.under_way = gr.HTML(elem_id="imports", js_on_load=CLICKS, apply_default_css=False)
        self.failure = gr.HTML(apply_default_css=False)
        self.stop = gr.Button("Stop", visible=False, scale=0, min_width=100)
        # Of an import that the form has told the end of: its key, the data set that was selected
        # when it began, and the new one.
        self.made = gr.Textbox(visible="hidden", label="What was imported")
        with gr.Column(visible=False, elem_classes="card", elem_id="import") as self.panel:
            self.choice = ImportChoice(app)
            with gr.Row(elem_classes="actions"):
                self.choice.go.render()
                self.discard = gr.Button("Discard", scale=0, min_width=100)
            self.progress = gr.HTML(apply_default_css=False)

    # -- handlers

    def receive(self, files: list[str] | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Dropped files."""
        if files:
            yield from self._look(list(files), request)

    def receive_path(self, path: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """A file or folder on this machine."""
        if path and path.strip():
            yield from self._look([path.strip()], request)

    def receive_hub(
        self, name: str, config: str, split: str, revision: str, share: float | None,
        streaming: bool, request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """A data set on the Hub."""
        try:
            source = hub_source(name, config, split, revision, share, streaming)
        except TunesmithError as error:
            yield {self.failure: messages.error(error)}
            return
        yield from self._look([source], request)

    def _look(self, sources: Sequence[str], request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Looks at what was brought while the page goes on, then shows what it is."""
        page = request.session_hash or ""
        task = background.begin(lambda task: look_at(self.app.workspace, sources, task))
        try:
            with self.looks.watch(page, task) as watch:
                for _ in watch.glances():
                    told = messages.progress(None, task.message or "Looking at what you brought")
                    yield {self.failure: told, self.stop: gr.Button(visible=True)}
                yield self._seen(task, page) if watch.wanted else gr.skip()
        finally:
            task.stop()  # nobody waits for it any more

    def _seen(self, task: background.Task, page: str) -> dict[Any, Any]:
        """What was brought, in the panel. An import that the panel showed goes on above it."""
        done = {self.stop: gr.Button(visible=False)}
        if isinstance(task.error, background.Stopped):
            return {**done, self.failure: messages.note("Stopped.", "stopped")}
        if task.error:
            return {**done, self.failure: messages.error(task.error)}
        self.watches.leave(page)
        shown = {**self._busy(False), **self._open(True), **self.choice.show(task.result)}
        return {**done, self.failure: "", **shown}

    def begin(
        self, data: dict[Component, Any], request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Imports, with its progress. The browser then takes the new data set up."""
        page, before = request.session_hash or "", data[self.shared.dataset]
        try:
            asked = self.choice.asked(data)
        except TunesmithError as error:
            yield {self.progress: messages.error(error), self.made: ""}
            return
        key, begun = self._import(data[self.choice.found], asked)
        with self.watches.watch(page, begun.work.task) as watch:
            # What comes next can be brought meanwhile.
            yield {**self._at_work(begun), self.sources.drop: None, self.sources.path: ""}
            for _ in watch.glances():
                yield self._at_work(begun)
            if watch.wanted:
                begun.told = page
            yield self._ended(key, begun, before) if watch.wanted else gr.skip()

    def _at_work(self, begun: Import) -> dict[Any, Any]:
        """All of it each time: of two answers close together, Gradio may lose the first."""
        told = {self.progress: bar(begun.work.task), self.panel: gr.Column(visible=True)}
        return {**told, **self._busy(True), self.made: ""}

    def _ended(self, key: str, ended: Import, before: str) -> dict[Any, Any]:
        task = ended.work.task
        if task.error:
            told = failure(task.error, ended.name)
            return {**self._busy(False), self.progress: told, self.made: f"{key}||"}
        return {
            **self._busy(False), **self._open(False),
            self.made: f"{key}|{before}|{task.result.id}",
        }

    def _open(self, there: bool) -> dict[Any, Any]:
        return {self.panel: gr.Column(visible=there), self.progress: ""}

    @property
    def buttons(self) -> list[gr.Button]:
        """What `_busy` changes."""
        return [self.choice.go, self.discard]

    def _busy(self, busy: bool) -> dict[Any, Any]:
        """The buttons while an import goes on, and before and after it."""
        word, look = ("Stop", "stop") if busy else ("Discard", "secondary")
        return {
            self.choice.go: gr.Button(interactive=not busy),
            self.discard: gr.Button(word, variant=look),
        }

    def _import(self, found: Found, asked: dict[str, Any]) -> tuple[str, Import]:
        """In a process of its own: it may take memory, and this one serves the page."""
        return self.imports.begin(
            asked["name"] or found.name,
            lambda task: call_apart(
                import_dataset, self.app.workspace, found.sources, tell=task.tell, **asked
            ),
        )

    def settle(self, made: str, request: gr.Request) -> None:
        """The end of the form's import was seen; what was not taken up is offered."""
        key, _, rest = made.partition("|")
        if rest.strip("|"):
            self.imports.offer(key)
        else:
            self.imports.close(key, request.session_hash or "")

    def stop_or_discard(self, request: gr.Request):
        """Stops the import that is going on; without one, what was brought is put away."""
        task = self.watches.watched(request.session_hash or "")
        if task is not None:
            task.stop()
            return gr.skip(), gr.skip(), gr.skip()
        return gr.Column(visible=False), None, ""

    def put_away(self, request: gr.Request) -> dict[Any, Any]:
        """The files were taken out; an import that has begun goes on above the form."""
        self.looks.leave(request.session_hash or "")
        self.watches.leave(request.session_hash or "")
        return {**self._busy(False), **self._open(False), self.stop: gr.Button(visible=False)}

    def stop_look(self, request: gr.Request) -> None:
        task = self.looks.watched(request.session_hash or "")
        if task is not None:
            task.stop()

    def show_others(self, drawn: str, request: gr.Request) -> Any:
        """Imports that this form does not show: begun elsewhere, or here before a reload."""
        page = request.session_hash or ""
        html = self.imports.html(page, self.watches.watched(page))
        return gr.skip() if html == (drawn or "") else html

    def act(self, event: gr.EventData, request: gr.Request):
        """A button at one of those: stop it, open what it made, or put its end away."""
        page, one = request.session_hash or "", self.imports.get(event.at)
        if one is not None and event.act == "stop":
            one.work.task.stop()
        elif one is not None:
            self.imports.close(event.at, page)
        opened = one is not None and event.act == "open"
        html = self.imports.html(page, self.watches.watched(page))
        return html, one.work.task.result.id if opened else gr.skip()

    # -- wiring

    def wire(self) -> None:
        sources, choice = self.sources, self.choice
        work: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        seen = {
            self.failure, self.stop, self.panel, self.progress, *self.buttons, *choice.outputs
        }
        sources.drop.upload(self.receive, sources.drop, seen, **work)
        sources.drop.clear(
            self.put_away, None, {self.panel, self.progress, self.stop, *self.buttons}, **quiet
        )
        sources.path.submit(self.receive_path, sources.path, seen, **work)
        gr.on(
            [sources.look.click, sources.hub_id.submit],
            self.receive_hub, sources.hub_fields, seen, **work,
        )
        self.stop.click(self.stop_look, None, None, **quiet)
        choice.wire()
        put_away = [self.panel, sources.drop, sources.path]
        self.discard.click(self.stop_or_discard, None, put_away, **quiet)
        dataset = self.shared.dataset
        self.choice.go.click(
            self.begin,
            {*choice.inputs, dataset},
            {self.progress, *self.buttons, *put_away, self.made},
            **work,
        ).then(
            None, [self.made, dataset], [dataset, self.made], js=_TAKE_UP, **quiet
        ).then(self.settle, self.made, None, **quiet)
        self.shared.ticker.tick(self.show_others, self.under_way, self.under_way, **quiet)
        self.under_way.select(
            self.act, None, [self.under_way, dataset], trigger_mode="multiple", **quiet
        )
        sources.sample.click(lambda: SAMPLE_ID, None, self.shared.dataset, **quiet)

