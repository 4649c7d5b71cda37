"""The upper half of Data: a file comes in, is recognised, and becomes a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.formats import FORMS, Form
from core.data.prepare import import_dataset
from core.data.sources import SourceReport, inspect_source
from core.errors import TunesmithError
from webui import background, data_view, messages
from webui.context import App, Shared

FILES = [".json", ".jsonl", ".csv", ".parquet"]
SHARE, SECOND_FILE, NONE = "share", "file", "none"
UNUSED = "(none)"
SHOWN_ROWS = 3
# The most fields that a form has; each gets a list of columns.
MOST_FIELDS = max(len(form.fields) for form in FORMS.values())


class ImportForm:
    """Its components, handlers and wiring; `shared.dataset` is what it fills in."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.importing = background.Tasks()
        with gr.Row(elem_classes="bring", equal_height=True):
            self.drop = gr.File(
                label="Drop a file here: JSON, JSONL, CSV or Parquet",
                file_count="multiple",
                file_types=FILES,
                elem_id="drop",
                height=136,
                scale=3,
                min_width=300,
            )
            with gr.Column(scale=2, min_width=280):
                self.path = gr.Textbox(
                    label="or a path on this machine",
                    placeholder="data/tickets.jsonl",
                    max_lines=1,
                    submit_btn="Look",
                )
                self.sample = gr.Button("Use the sample: support tickets")
        self.sources = gr.State([])
        with gr.Column(visible=False, elem_classes="card", elem_id="import") as self.panel:
            self._build_panel()
        self.failure = gr.HTML(apply_default_css=False)

    def _build_panel(self) -> None:
        self.recognised = gr.HTML(apply_default_css=False)
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=3, min_width=300):
                self.form = gr.Radio([], label="Form")
                self.columns = [
                    gr.Dropdown([], label="Column", visible=False) for _ in range(MOST_FIELDS)
                ]
            with gr.Column(scale=2, min_width=280):
                self.name = gr.Textbox(label="Name of the data set", max_lines=1)
                self.split = gr.Radio(
                    [("a share", SHARE), ("a second file", SECOND_FILE), ("nothing", NONE)],
                    value=SHARE,
                    label="Hold out for evaluation",
                )
                with gr.Row() as self.share_row:
                    self.fraction = gr.Number(0.1, label="Share", min_width=100, step=0.05)
                    self.seed = gr.Number(42, label="Seed", precision=0, min_width=100)
                self.second = gr.File(
                    label="The held-out rows", file_types=FILES, visible=False, height=100
                )
                self.system = gr.Textbox(
                    label="System prompt for rows without one", lines=2, max_lines=4
                )
        self.preview = gr.HTML(apply_default_css=False)
        with gr.Row():
            self.go = gr.Button("Import", variant="primary", scale=0, min_width=140)
            self.discard = gr.Button("Discard", scale=0, min_width=100)
        self.progress = gr.HTML(apply_default_css=False)

    # -- handlers

    def receive(self, files: list[str] | None) -> dict[Component, Any]:
        """Dropped files: the first is looked at, all are imported together."""
        if not files:
            return {self.panel: gr.Column(visible=False)}
        return self._look(list(files))

    def receive_path(self, path: str) -> dict[Component, Any]:
        return self._look([path.strip()]) if path and path.strip() else {self.failure: ""}

    def _look(
        self, sources: list[str], form: str | None = None, mapping: Mapping[str, str] | None = None
    ) -> dict[Component, Any]:
        try:
            report = inspect_source(
                sources[0],
                form=form,
                mapping=mapping,
                limit=SHOWN_ROWS,
                workspace=self.app.workspace,
            )
        except TunesmithError as error:
            return {self.failure: messages.error(error), self.go: gr.Button(interactive=False)}
        return {
            self.sources: sources,
            self.failure: "",
            self.progress: "",
            self.panel: gr.Column(visible=True),
            self.recognised: data_view.recognised(report),
            self.preview: data_view.raw_rows(report.rows),
            self.go: gr.Button(interactive=report.form is not None),
            **({} if form else {self.name: gr.Textbox(report.path.stem)}),
            **self._form_fields(report),
        }

    def _form_fields(self, report: SourceReport) -> dict[Component, Any]:
        """The forms that are possible, and for each field of the chosen one its column."""
        possible = [(FORMS[name].title, name) for name in report.forms_possible]
        chosen = FORMS[report.form] if report.form else None
        updates: dict[Component, Any] = {self.form: gr.Radio(possible, value=report.form)}
        for place, slot in enumerate(self.columns):
            updates[slot] = _slot(chosen, place, report)
        return updates

    def choose_form(self, data: dict[Component, Any]) -> dict[Component, Any]:
        return self._look(data[self.sources], data[self.form])

    def choose_column(self, data: dict[Component, Any]) -> dict[Component, Any]:
        return self._look(data[self.sources], data[self.form], self._mapping(data))

    def _mapping(self, data: dict[Component, Any]) -> dict[str, str]:
        fields = FORMS[data[self.form]].fields
        chosen = (data[slot] for slot in self.columns)
        return {
            field: "" if column in (None, UNUSED) else column
            for field, column in zip(fields, chosen, strict=False)
        }

    def begin(
        self, data: dict[Component, Any], request: gr.Request
    ) -> Iterator[dict[Component, Any]]:
        """Imports, with its progress; then the new data set is the selected one."""
        task = background.begin(lambda task: self._import(data, task))
        for glance in self.importing.watch(request.session_hash, task):
            yield {
                self.progress: messages.progress(glance.fraction, glance.message),
                self.go: gr.Button(interactive=False),
            }
        ready = {self.go: gr.Button(interactive=True)}
        if task.error:
            yield {**ready, self.progress: messages.error(task.error)}
            return
        yield {
            **ready,
            self.progress: "",
            self.panel: gr.Column(visible=False),
            self.drop: None,
            self.path: "",
            self.shared.dataset: task.result.id,
        }

    def stop_or_discard(self, request: gr.Request):
        """Stops the import that is going on; without one, the file is put away."""
        if self.importing.stop(request.session_hash):
            return gr.skip(), gr.skip()
        return gr.Column(visible=False), None

    def _import(self, data: dict[Component, Any], task: background.Task) -> Any:
        second = data[self.second] if data[self.split] == SECOND_FILE else None
        if data[self.split] == SECOND_FILE and not second:
            raise TunesmithError("No second file was given.", "Drop one, or take a share.")
        return import_dataset(
            self.app.workspace,
            data[self.sources],
            name=data[self.name],
            form=data[self.form],
            mapping=self._mapping(data),
            eval_source=second,
            eval_fraction=(data[self.fraction] or 0.0) if data[self.split] == SHARE else 0.0,
            seed=int(data[self.seed] or 0),
            system_prompt=data[self.system] or "",
            progress=task.tell,
        )

    # -- wiring

    def wire(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        inputs = {
            self.sources, self.form, *self.columns, self.name, self.split, self.fraction,
            self.seed, self.second, self.system,
        }
        seen = {
            self.sources, self.failure, self.progress, self.panel, self.recognised, self.preview,
            self.go, self.name, self.form, *self.columns,
        }
        self.drop.upload(self.receive, self.drop, seen, **quiet)
        self.drop.clear(lambda: gr.Column(visible=False), None, self.panel, **quiet)
        self.path.submit(self.receive_path, self.path, seen, **quiet)
        self.form.input(self.choose_form, inputs, seen, **quiet)
        gr.on([slot.input for slot in self.columns], self.choose_column, inputs, seen, **quiet)
        self.split.change(
            lambda how: (gr.Row(visible=how == SHARE), gr.File(visible=how == SECOND_FILE)),
            self.split,
            [self.share_row, self.second],
            **quiet,
        )
        self.go.click(
            self.begin,
            inputs,
            {self.progress, self.go, self.panel, self.drop, self.path, self.shared.dataset},
            concurrency_limit=None,
            **quiet,
        )
        self.discard.click(self.stop_or_discard, None, [self.panel, self.drop], **quiet)
        self.sample.click(lambda: "sample", None, self.shared.dataset, **quiet)


def _slot(form: Form | None, place: int, report: SourceReport) -> Any:
    """The list of columns for the form's field at `place`, or nothing where it has no more."""
    if form is None or place >= len(form.fields):
        return gr.Dropdown(visible=False, value=None)
    field = form.fields[place]
    needed = field in form.required
    return gr.Dropdown(
        report.columns if needed else [UNUSED, *report.columns],
        value=report.mapping.get(field, None if needed else UNUSED),
        label=field if needed else f"{field} (optional)",
        visible=True,
    )
