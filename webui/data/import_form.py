"""The upper half of Data: rows come in, are recognised, and become a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.jobs import submit_import
from core.data.record import SAMPLE_ID
from core.data.uploads import discard_uploads
from core.errors import JobError, TunesmithError
from core.jobs.job import Job
from core.jobs.queue import dismiss_job, stop_job
from core.language import _
from webui import background, messages
from webui.context import HIDDEN, QUIET, App, Shared
from webui.data.import_choice import ImportChoice
from webui.data.import_sources import Found, Sources, hub_source, look_at
from webui.job_progress import JobProgress, job_bar, job_end

# What came of the form's import is the selected data set, unless another was chosen meanwhile.
_TAKE_UP = """(mine, chosen) => {
  const [id, before, dataset] = mine.split("|");
  const taken = dataset && (!before || before === chosen);
  return taken ? [dataset, `${id}||*`] : [chosen, mine];
}"""


class ImportForm:
    """Its components, handlers and wiring; `shared.dataset` is what it fills in."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.looks = background.Watches()
        self.sources = Sources()
        self.jobs = JobProgress(app, ("import",), elem_id="imports")
        self.failure = gr.HTML(apply_default_css=False)
        self.stop = gr.Button(_("Stop"), visible=False, scale=0, min_width=100)
        # The import that the form shows: its id, the data set that was selected when it began, and
        # at its end the new one. Empty in a page that was reloaded: the import stands above then.
        self.mine = gr.Textbox(**HIDDEN, label="The import of this form")
        self.ended = gr.Textbox(**HIDDEN, label="The end of the import of this form")
        with gr.Column(visible=False, elem_classes="card", elem_id="import") as self.panel:
            self.choice = ImportChoice(app)
            with gr.Row(elem_classes="actions"):
                self.choice.go.render()
                self.discard = gr.Button(_("Discard"), scale=0, min_width=100)
            self.progress = gr.HTML(apply_default_css=False)

    # -- handlers

    def receive(self, files: list[str] | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Dropped files."""
        if files:
            yield from self._look(list(files), request)

    def look_again(
        self, files: list[str] | None, found: Found | None, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """One of the dropped files was taken out."""
        if files:
            yield from self._look(list(files), request)
        else:
            yield self.put_away(found, request)

    def receive_path(self, path: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """A file or folder on this machine."""
        if path and path.strip():
            yield from self._look([path.strip()], request)

    def receive_hub(
        self,
        name: str,
        config: str,
        split: str,
        revision: str,
        share: float | None,
        streaming: bool,
        request: gr.Request,
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
                for _glance in watch.glances():
                    told = messages.progress(None, task.message or _("Looking at what you brought"))
                    yield {self.failure: told, self.stop: gr.Button(visible=True)}
                yield self._seen(task) if watch.wanted else gr.skip()
        finally:
            task.stop()  # nobody waits for it any more

    def _seen(self, task: background.Task) -> dict[Any, Any]:
        """What was brought, in the panel. An import that the panel showed goes on above it."""
        done = {self.stop: gr.Button(visible=False)}
        if task.stopped:
            return {**done, self.failure: messages.note(_("Stopped."), "stopped")}
        if task.error:
            return {**done, self.failure: messages.error(task.error)}
        shown = {**self._busy(False), **self._open(True), **self.choice.show(task.result)}
        return {**done, self.failure: "", self.mine: "", **shown}

    def begin(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Imports. What comes next can be brought meanwhile."""
        found: Found = data[self.choice.found]
        try:
            asked = self.choice.asked(data)
            name = asked.pop("name") or found.name
            job = submit_import(self.app.workspace, self.app.store, found.sources, name, **asked)
        except TunesmithError as error:
            return {self.progress: messages.error(error), self.mine: ""}
        return {
            self.progress: job_bar(self.app, job),
            self.mine: f"{job.id}|{data[self.shared.dataset]}|",
            self.sources.drop: None,
            self.sources.path: "",
            **self._busy(True),
        }

    def news(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """How far the form's import is, and all others: begun elsewhere, or before a reload."""
        mine = self._mine(data[self.mine])
        updates = self.jobs.draw(data, without=mine.id if mine else "")
        drawn = data[self.progress] or ""
        if mine is None:
            # A late answer may have drawn it when the form had something else already.
            return {**updates, self.progress: ""} if "bar" in drawn else updates
        if mine.ended:
            return {**updates, self.ended: f"{mine.id}:{mine.state}"}
        bar = job_bar(self.app, mine)
        return updates if bar == drawn else {**updates, self.progress: bar}

    def _mine(self, text: str) -> Job | None:
        return self.app.store.find((text or "").partition("|")[0])

    def finish(self, mine: str, ended: str) -> dict[Any, Any]:
        """The form's import has ended. The browser then takes the new data set up."""
        job = self._mine(mine)
        if job is None or not ended.startswith(job.id):
            return {self.progress: gr.skip()}  # the form shows something else by now
        made = self.jobs.made(job)
        if made is not None:
            return {**self._busy(False), **self._open(False), self.mine: f"{mine}{made}"}
        dismiss_job(self.app.workspace, self.app.store, job.id)
        return {**self._busy(False), self.progress: job_end(self.app, job), self.mine: ""}

    def settle(self, mine: str, known: set[str]) -> Any:
        """A new data set that was taken up is not offered any more, also where a look that was on
        its way when the import began found it among the others."""
        job_id, _, rest = mine.partition("|")
        if rest == "|*":
            dismiss_job(self.app.workspace, self.app.store, job_id)
            known.discard(job_id)
        return gr.skip() if rest.endswith("|") else ""

    def _open(self, there: bool) -> dict[Any, Any]:
        return {self.panel: gr.Column(visible=there), self.progress: ""}

    @property
    def buttons(self) -> list[gr.Button]:
        """What `_busy` changes."""
        return [self.choice.go, self.discard]

    def _busy(self, busy: bool) -> dict[Any, Any]:
        """The buttons while an import goes on, and before and after it."""
        word, look = (_("Stop"), "stop") if busy else (_("Discard"), "secondary")
        return {
            self.choice.go: gr.Button(interactive=not busy),
            self.discard: gr.Button(word, variant=look),
        }

    def stop_or_discard(self, mine: str, found: Found | None) -> Any:
        """Stops the import that is going on; without one, what was brought is put away."""
        job = self._mine(mine)
        if job is None:
            self._throw_away(found)
            return gr.Column(visible=False), None, ""
        with suppress(JobError):  # it ended meanwhile
            stop_job(self.app.workspace, self.app.store, job.id)
        return gr.skip(), gr.skip(), gr.skip()

    def _throw_away(self, found: Found | None) -> None:
        sources = found.sources if found else []
        discard_uploads(self.app.workspace, self.app.store, sources)

    def put_away(self, found: Found | None, request: gr.Request) -> dict[Any, Any]:
        """The files were taken out; an import that has begun goes on above the form."""
        self._throw_away(found)
        self.looks.leave(request.session_hash or "")
        gone = {self.stop: gr.Button(visible=False), self.mine: "", self.failure: ""}
        return {**self._busy(False), **self._open(False), **gone}

    def stop_look(self, request: gr.Request) -> None:
        task = self.looks.watched(request.session_hash or "")
        if task is not None:
            task.stop()

    def act(self, known: set[str], event: gr.EventData) -> Any:
        """A button at one of the other imports."""
        return self.jobs.act(known, event) or gr.skip()

    # -- wiring

    def wire(self) -> None:
        sources, choice = self.sources, self.choice
        work = {**QUIET, "concurrency_limit": None}
        quiet = QUIET
        form = {self.panel, self.progress, self.mine, *self.buttons}
        seen = {self.failure, self.stop, *form, *choice.outputs}
        sources.drop.upload(self.receive, sources.drop, seen, **work)
        sources.drop.delete(self.look_again, [sources.drop, choice.found], seen, **work)
        sources.drop.clear(self.put_away, choice.found, {self.failure, self.stop, *form}, **quiet)
        sources.path.submit(self.receive_path, sources.path, seen, **work)
        gr.on(
            [sources.look.click, sources.hub_id.submit],
            self.receive_hub,
            sources.hub_fields,
            seen,
            **work,
        )
        self.stop.click(self.stop_look, None, None, **quiet)
        choice.wire()
        put_away = [self.panel, sources.drop, sources.path]
        self.discard.click(self.stop_or_discard, [self.mine, choice.found], put_away, **quiet)
        dataset = self.shared.dataset
        self.choice.go.click(
            self.begin,
            {*choice.inputs, dataset},
            {self.progress, *self.buttons, sources.drop, sources.path, self.mine},
            **quiet,
        )
        self.ended.change(self.finish, [self.mine, self.ended], form, **quiet).then(
            None, [self.mine, dataset], [dataset, self.mine], js=_TAKE_UP, **quiet
        ).then(self.settle, [self.mine, self.jobs.known], self.mine, **quiet)
        self.jobs.shown.select(self.act, self.jobs.known, dataset, trigger_mode="multiple", **quiet)
        sources.sample.click(lambda: SAMPLE_ID, None, self.shared.dataset, **quiet)

    @property
    def watched(self) -> tuple[set[Component], set[Component]]:
        """The inputs and outputs of `news`."""
        return (
            {self.mine, self.progress, *self.jobs.inputs},
            {self.progress, self.ended, *self.jobs.outputs},
        )
