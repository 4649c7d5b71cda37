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
from webui.import_sources import Sources, hub_source, look_at


class ImportForm:
    """Its components, handlers and wiring; `shared.dataset` is what it fills in."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.working = background.Tasks()
        self.sources = Sources()
        self.failure = gr.HTML(apply_default_css=False)
        self.stop = gr.Button("Stop", variant="stop", visible=False, scale=0, min_width=100)
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
        task = background.begin(lambda task: look_at(self.app.workspace, sources, task))
        for glance in self.working.watch(request.session_hash, task):
            told = messages.progress(None, glance.message or "Looking at what you brought")
            yield {self.failure: told, self.stop: gr.Button(visible=True)}
        done = {self.stop: gr.Button(visible=False)}
        if task.error:
            yield {**done, self.failure: messages.error(task.error)}
            return
        yield {**done, self.failure: "", **self._open(True), **self.choice.show(task.result)}

    def begin(
        self, data: dict[Component, Any], request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Imports, with its progress; then the new data set is the selected one."""
        task = background.begin(lambda task: self._import(data, task))
        for glance in self.working.watch(request.session_hash, task):
            yield {self.progress: _progress(glance), **self._busy(True)}
        if task.error:
            yield {**self._busy(False), self.progress: messages.error(task.error)}
            return
        yield {
            **self._busy(False),
            **self._open(False),
            self.sources.drop: None,
            self.sources.path: "",
            self.shared.dataset: task.result.id,
        }

    def _open(self, there: bool) -> dict[Any, Any]:
        return {self.panel: gr.Column(visible=there), self.progress: ""}

    def _busy(self, busy: bool) -> dict[Any, Any]:
        """The buttons while an import goes on, and before and after it."""
        word, look = ("Stop", "stop") if busy else ("Discard", "secondary")
        return {
            self.choice.go: gr.Button(interactive=not busy),
            self.discard: gr.Button(word, variant=look),
        }

    def _import(self, data: dict[Component, Any], task: background.Task) -> Any:
        """In a process of its own: it may take memory, and this one serves the page."""
        return call_apart(
            import_dataset,
            self.app.workspace,
            data[self.choice.found].sources,
            tell=task.tell,
            **self.choice.asked(data),
        )

    def stop_or_discard(self, request: gr.Request):
        """Stops the import that is going on; without one, what was brought is put away."""
        if self.working.stop(request.session_hash):
            return gr.skip(), gr.skip(), gr.skip()
        return gr.Column(visible=False), None, ""

    def stop_look(self, request: gr.Request) -> None:
        self.working.stop(request.session_hash)

    # -- wiring

    def wire(self) -> None:
        sources, choice = self.sources, self.choice
        work: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        seen = {self.failure, self.stop, self.panel, self.progress, *choice.outputs}
        sources.drop.upload(self.receive, sources.drop, seen, **work)
        sources.drop.clear(lambda: gr.Column(visible=False), None, self.panel, **quiet)
        sources.path.submit(self.receive_path, sources.path, seen, **work)
        gr.on(
            [sources.look.click, sources.hub_id.submit],
            self.receive_hub, sources.hub_fields, seen, **work,
        )
        self.stop.click(self.stop_look, None, None, **quiet)
        choice.wire()
        put_away = [self.panel, sources.drop, sources.path]
        self.discard.click(self.stop_or_discard, None, put_away, **quiet)
        self.choice.go.click(
            self.begin,
            choice.inputs,
            {self.progress, choice.go, self.discard, *put_away, self.shared.dataset},
            **work,
        )
        sources.sample.click(lambda: SAMPLE_ID, None, self.shared.dataset, **quiet)


def _progress(task: background.Task) -> str:
    left = task.left()
    more = "" if left is None else f", about {messages.duration(left)} left"
    return messages.progress(task.fraction, f"{task.message or 'Starting'}{more}")
