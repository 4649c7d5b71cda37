"""Clean and shape: the recorded steps of the chosen data set, one more, versions, the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.steps import parse_steps, read_recipe, with_step
from core.data.steps.base import Step
from core.data.versions import apply_steps, prune_versions, recorded_steps, undo, use_version
from core.errors import ConfigError, TunesmithError
from core.jobs.apart import call_apart
from webui import background, messages, shape_steps
from webui.context import App, Shared
from webui.step_form import StepForms
from webui.step_trial import StepTrial
from webui.works import Work, Works, version_of

_TO_PANEL = (
    "() => requestAnimationFrame(() => document.querySelector('#shape-panel')"
    "?.scrollIntoView({behavior: 'smooth', block: 'start'}))"
)

# In the browser, at once: the server's answer could come when the panel was opened again.
_CLOSE = """() => {
  const gone = { __type__: "update", visible: false };
  return [gone, gone, "", "", ""];
}"""


class ShapeView:
    """Its components, handlers and wiring."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.works, self.watches = Works(), background.Watches()
        self.trial = StepTrial(app)
        # By page: the work that came from the panel as it is, which its success closes.
        self.applied: dict[str, Work] = {}
        with gr.Row(elem_classes="toolbar shape-head"):
            self.head = gr.HTML(elem_classes="grow strip", apply_default_css=False)
            self.undo = gr.Button("Undo", scale=0, min_width=96, interactive=False)
            self.add = gr.Button("Add a step", variant="primary", scale=0, min_width=120)
        self.steps = gr.HTML(
            elem_id="steps", js_on_load=shape_steps.CLICKS, apply_default_css=False
        )
        self._build_panel()
        self.progress = gr.HTML(elem_id="shape-progress", apply_default_css=False)
        self.stop = gr.Button(
            "Stop", size="sm", visible=False, scale=0, min_width=96, elem_id="shape-stop"
        )
        with gr.Accordion("Versions", open=False, elem_classes="fold", elem_id="shape-versions"):
            self.versions = gr.HTML(js_on_load=shape_steps.CLICKS, apply_default_css=False)
            self.prune = gr.Button("Delete old versions", size="sm", scale=0, visible=False)
            self.pruned = gr.HTML(apply_default_css=False)
        with gr.Accordion("Recipe", open=False, elem_classes="fold", elem_id="shape-recipe"):
            self.recipe = gr.HTML(apply_default_css=False)
            self.bring = gr.UploadButton(
                "Apply a recipe", file_types=[".yaml", ".yml"], size="sm", scale=0, min_width=160
            )

    def _build_panel(self) -> None:
        # Which kind of step is filled in, and the place of the recorded one that is edited.
        self.op = gr.Textbox(visible="hidden", label="Kind of step")
        self.place = gr.Textbox(visible="hidden", label="Place of the step")
        with gr.Column(visible=False, elem_classes="card", elem_id="shape-panel") as self.panel:
            self.chooser = gr.HTML(
                elem_id="step-chooser", js_on_load=shape_steps.CLICKS, apply_default_css=False
            )
            with gr.Column(visible=False, elem_id="step-form") as self.form_area:
                self.about = gr.HTML(apply_default_css=False)
                self.forms = StepForms(self.app)
            with gr.Row(elem_classes="actions"):
                self.apply = gr.Button("Apply", variant="primary", visible=False, scale=0)
                self.trial.build_buttons()
                self.another = gr.Button("Another step", visible=False, scale=0)
                self.close = gr.Button("Close", scale=0)
            self.trial.build_result()

    # -- what is shown

    def show(self, dataset: str):
        """The steps, versions and recipe as they are now."""
        try:
            info = load_dataset_info(self.app.workspace, dataset)
        except TunesmithError as error:
            nothing = messages.error(error) if dataset else ""
            return "", nothing, gr.Button(interactive=False), "", gr.Button(visible=False), ""
        current = next((one for one in info.versions if one.number == info.version), None)
        can_undo = current is not None and current.parent not in (0, current.number)
        return (
            shape_steps.head(info),
            shape_steps.steps(info),
            gr.Button(interactive=can_undo),
            shape_steps.versions(info),
            gr.Button(visible=len(info.versions) > 2),
            shape_steps.recipe_link(info),
        )

    def turn(self, dataset: str, request: gr.Request) -> dict[Any, Any]:
        """Another data set: what was going on with the last one goes on, and is told there."""
        page = request.session_hash or ""
        if not self.watches.turn(page, dataset):
            return gr.skip()  # the panel was opened for it meanwhile
        self._leave_panel(page)
        return {self.progress: "", self.stop: gr.Button(visible=False)}

    def close_panel(self, request: gr.Request) -> dict[Any, Any]:
        self._leave_panel(request.session_hash or "")
        return self._closed()

    def _leave_panel(self, page: str, dataset: str = "") -> str:
        """The panel gets something else, for the data set that the page shows; gives the page."""
        if dataset:
            self.watches.turn(page, dataset)
        self.trial.end(page)
        self.applied.pop(page, None)
        return page

    def _closed(self) -> dict[Any, Any]:
        return {
            self.panel: gr.Column(visible=False), **self.trial.cleared(False), self.pruned: ""
        }

    def open_chooser(self, dataset: str, request: gr.Request) -> dict[Any, Any]:
        """Every kind of step that this data set can go through."""
        self._leave_panel(request.session_hash or "", dataset)
        try:
            info = load_dataset_info(self.app.workspace, dataset)
        except TunesmithError as error:
            return {self.progress: messages.error(error)}
        chooser = gr.HTML(shape_steps.chooser(info.form), visible=True)
        return {**self._framed(chosen=False), self.place: "", self.chooser: chooser}

    def choose(
        self, dataset: str, before: str, event: gr.EventData, request: gr.Request
    ) -> dict[Any, Any]:
        """One kind of step was chosen: its settings."""
        self._leave_panel(request.session_hash or "", dataset)
        info = load_dataset_info(self.app.workspace, dataset)
        return {**self._shown(event.at, before, info), self.place: ""}

    def _shown(
        self, op: str, before: str, info: DatasetInfo, record: Mapping[str, Any] | None = None
    ) -> dict[Any, Any]:
        """The panel with the controls of one kind of step."""
        return {
            **self.forms.show(op, info, record, before),
            **self._framed(chosen=True, editing=record is not None),
            self.op: op,
            self.chooser: gr.HTML(visible=False),
            self.about: self.forms.about(op, info),
        }

    def _framed(self, *, chosen: bool, editing: bool = False) -> dict[Any, Any]:
        """What stands around the list of kinds, or around the controls of the chosen one."""
        return {
            self.panel: gr.Column(visible=True),
            self.form_area: gr.Column(visible=chosen),
            self.apply: gr.Button("Apply the change" if editing else "Apply", visible=chosen),
            self.another: gr.Button(visible=chosen and not editing),
            **self.trial.cleared(chosen),
            self.progress: "",
        }

    # -- what is done

    def _filled_in(self, data: Mapping[Component, Any]) -> tuple[DatasetInfo, list[Step], int]:
        """The data set, the steps that were filled in, and the place of the edited one or -1."""
        info = load_dataset_info(self.app.workspace, data[self.shared.dataset])
        place = int(data[self.place]) if data[self.place] else -1
        return info, self.forms.read(data[self.op], data), place

    def _wrong(self, data: Mapping[Component, Any], error: TunesmithError) -> dict[Any, Any]:
        """What is wrong, at its field where it has one."""
        problems = error.problems if isinstance(error, ConfigError) else ()
        marks = self.forms.read_marks(data[self.op], data, problems)
        told = "" if problems else messages.error(error)
        return {self.forms.marks: marks, **self.trial.cleared(), self.trial.shown: told}

    def try_step(self, data: dict[Component, Any], request: gr.Request) -> Iterator[dict]:
        """What the step would do to the first rows."""
        page = request.session_hash or ""
        self.trial.end(page)
        try:
            info, added, place = self._filled_in(data)
            before = recorded_steps(info)[:place] if place >= 0 else []
        except TunesmithError as error:
            yield self._wrong(data, error)
            return
        yield {self.forms.marks: self.forms.read_marks(data[self.op], data)}
        yield from self.trial.run(info, [*before, *added], len(before), place >= 0, page)

    def apply_step(self, data: dict[Component, Any], request: gr.Request) -> dict[Any, Any]:
        """Starts to make a version with the step; `follow` says how far that is."""
        page = self._leave_panel(request.session_hash or "")
        try:
            info, added, place = self._filled_in(data)
            steps = recorded_steps(info)
            if place >= 0:
                steps[place : place + 1] = added
            else:
                for step in added:
                    steps = with_step(steps, step)
            what = "Changed" if place >= 0 else "Added"
            note = f"{what}: {', '.join(step.title for step in added)}"
            self.applied[page] = self._begin(info.id, added[0].title, steps, note)
        except TunesmithError as error:
            return self._wrong(data, error)
        marks = self.forms.read_marks(data[self.op], data)
        return {self.forms.marks: marks, **self.trial.cleared()}

    def _begin(self, dataset: str, title: str, steps: Sequence[Step], note: str) -> Work:
        workspace = self.app.workspace
        return self.works.begin(
            dataset,
            title,
            lambda task: call_apart(
                apply_steps, workspace, dataset, steps, note=note, tell=task.tell
            ),
        )

    def act(
        self, dataset: str, before: str, event: gr.EventData, request: gr.Request
    ) -> dict[Any, Any]:
        """A button at a step: edit it, or take it out."""
        self._leave_panel(request.session_hash or "", dataset)
        try:
            at = int(event.at)
            info = load_dataset_info(self.app.workspace, dataset)
            if event.act == "edit":
                record = info.steps[at].step
                return {**self._shown(record["op"], before, info, record), self.place: str(at)}
            steps = recorded_steps(info)
            gone = steps.pop(at)
            self._begin(dataset, f"Without {gone.title}", steps, f"Removed: {gone.title}")
        except TunesmithError as error:
            return {self.progress: messages.error(error)}
        return self._closed()

    def apply_recipe(self, dataset: str, file: str) -> dict[Any, Any]:
        """The steps of a YAML file in the place of those there are."""
        try:
            steps = parse_steps(read_recipe(Path(file))["steps"])
            self._begin(dataset, "Applying the recipe", steps, f"Recipe: {Path(file).name}")
        except TunesmithError as error:
            return {self.progress: messages.error(error)}
        return self._closed()

    def follow(self, dataset: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """How far the work on this data set is, and what came of it."""
        work = self.works.get(dataset)
        if work is None:
            yield gr.skip()
            return
        page = request.session_hash or ""
        with self.watches.watch(page, work.task, dataset) as watch:
            for _ in watch.glances():
                yield {self.progress: work.bar(), self.stop: gr.Button(visible=True)}
            yield self._ended(work, page) if watch.wanted else gr.skip()
            if watch.wanted:
                self.works.forget(dataset, work)

    def _ended(self, work: Work, page: str) -> dict[Any, Any]:
        ended = {self.stop: gr.Button(visible=False)}
        if work.task.error:
            return {**ended, self.progress: _failure(work.task.error)}
        if self.applied.get(page) is work:
            del self.applied[page]
            ended |= self._closed()
        made = f"{work.title}: version {work.task.result.version} is in use."
        return {**ended, self.progress: messages.note(made, "finished")}

    def go_back(self, dataset: str) -> dict[Any, Any]:
        """Undoes the last change."""
        return self._switch(lambda: undo(self.app.workspace, dataset))

    def use(self, dataset: str, event: gr.EventData) -> dict[Any, Any]:
        return self._switch(lambda: use_version(self.app.workspace, dataset, int(event.at)))

    def _switch(self, change: Any) -> dict[Any, Any]:
        try:
            info = change()
        except TunesmithError as error:
            return {self.progress: messages.error(error)}
        told = messages.note(f"Version {info.version} is in use.", "finished")
        return {**self._closed(), self.progress: told}

    def delete_old(self, dataset: str) -> str:
        """Deletes versions that neither an undo nor a waiting run needs."""
        try:
            gone = prune_versions(self.app.workspace, dataset, self.app.store)
        except TunesmithError as error:
            return messages.error(error)
        if not gone:
            return messages.note("Every version is still needed: by a run, by Undo, or in use.")
        numbers = ", ".join(map(str, gone))
        return messages.note(f"Deleted: version {numbers}.", "finished")

    # -- wiring

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        shown = [self.head, self.steps, self.undo, self.versions, self.prune, self.recipe]
        # What is asked for twice is answered twice: the watch of a page goes with the last one.
        each: dict[str, Any] = {"trigger_mode": "multiple", **quiet}
        closing = {self.panel, *self.trial.outputs, self.pruned, self.progress, self.stop}
        frame = {
            *closing, self.place, self.chooser, self.form_area, self.apply, self.another,
        }
        panel = {*frame, *self.forms.outputs, self.op, self.about}

        def followed(event: Any) -> None:
            """What comes after work was begun, or may have been begun before."""
            event.then(
                self.follow, dataset, closing, concurrency_limit=None, **each
            ).then(self.show, dataset, shown, **each).then(
                lambda chosen: version_of(self.app, chosen), dataset, shared.version, **each
            )

        shared.on_rows(self.show, [dataset], shown)
        dataset.change(
            None, None, [self.panel, self.stop, self.trial.shown, self.pruned, self.progress],
            js=_CLOSE, **quiet,
        )
        followed(dataset.change(self.turn, dataset, {self.progress, self.stop}, **each))
        followed(shared.part["shape"].select(lambda: None, None, None, **quiet))
        self.add.click(self.open_chooser, dataset, frame, **quiet).then(None, js=_TO_PANEL)
        self.another.click(self.open_chooser, dataset, frame, **quiet)
        self.close.click(self.close_panel, None, closing, **quiet)
        chosen = self.chooser.select(self.choose, [dataset, self.op], panel, **quiet)
        chosen.then(None, js=_TO_PANEL)
        acted = self.steps.select(self.act, [dataset, self.op], panel, **quiet)
        acted.then(None, js=_TO_PANEL)
        followed(acted)
        self._wire_form(followed, quiet)
        self.stop.click(self.works.stop, dataset, None, **quiet)
        followed(self.undo.click(self.go_back, dataset, closing, **quiet))
        followed(self.versions.select(self.use, dataset, closing, **quiet))
        self.prune.click(self.delete_old, dataset, self.pruned, **quiet).then(
            self.show, dataset, shown, **quiet
        )
        followed(self.bring.upload(self.apply_recipe, [dataset, self.bring], closing, **quiet))

    def _wire_form(self, followed: Any, quiet: dict[str, Any]) -> None:
        """The buttons and switches of the step that is filled in."""
        inputs = {*self.forms.inputs, self.op, self.place, self.shared.dataset}
        done = {self.forms.marks, *self.trial.outputs}
        for op, form in self.forms.forms.items():
            if form.switches:
                gr.on(
                    [switch.change for switch in form.switches],
                    lambda data, op=op: self.forms.read_marks(op, data),
                    set(form.fields.values()), self.forms.marks, trigger_mode="always_last",
                    **quiet,
                )
        self.trial.start.click(
            self.try_step, inputs, done, concurrency_limit=None, trigger_mode="multiple", **quiet
        )
        self.trial.stop.click(self.trial.stop_it, None, None, **quiet)
        followed(self.apply.click(self.apply_step, inputs, done, **quiet))


def _failure(error: TunesmithError) -> str:
    if isinstance(error, background.Stopped):
        return messages.note("Stopped. The data set is as it was.", "stopped")
    return messages.error(error)
