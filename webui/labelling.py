"""Predict and label: a classifier labels the texts of a data set; those it is unsure of are shown
one by one, labelled by a click or a key, and become rows of the data set it learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.data.registry import list_datasets
from core.errors import TunesmithError
from core.labelling.files import columns_learned, text_column
from core.labelling.predictions import (
    ENDINGS,
    FORMS,
    WAYS,
    Predicted,
    add_labelled,
    give_label,
    left_out_rows,
    list_predictions,
    read_labels,
    read_predictions,
    submit_prediction,
    uncertain,
)
from core.language import _, n_
from core.rules import load_config
from webui import messages
from webui.choice import Dropdown
from webui.context import CHOICE, QUIET, App, Shared
from webui.html import html
from webui.job_progress import JobProgress
from webui.run_choice import find_run

_SHOWN_BARS = 6
# A click on a label, or its number while the text has the focus; then the next text has it.
_SCRIPT = "tunesmith.labels(element, trigger);"
Updates = dict[Component, Any]


def build(app: App, shared: Shared) -> None:
    _Labelling(app, shared).wire()


class _Labelling:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        with gr.Column(visible=False, elem_id="labelling") as self.box:
            gr.HTML(html.labelling.heading())
            with gr.Row(elem_classes="picker"):
                self.dataset = Dropdown(
                    [],
                    label=_("Texts of"),
                    info=_("A data set, or the file beside it."),
                    elem_id="labelling-dataset",
                    min_width=220,
                )
                self.file = gr.File(
                    label=_("Or a file of texts (JSONL, CSV, Excel, Parquet, text)"),
                    elem_id="labelling-file",
                    height=136,
                    min_width=260,
                )
                self.done = Dropdown(
                    [], label=_("Labelled before"), elem_id="labelling-done", min_width=220
                )
            self.wrong = gr.HTML(elem_id="labelling-wrong", apply_default_css=False)
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button(_("Label them"), elem_id="labelling-start")
            self.said = gr.HTML(elem_id="labelling-said", apply_default_css=False)
            self.newest = gr.State("")
            self.jobs = JobProgress(
                app, ("predict",), elem_id="labelling-status", of="run_id", stop_id="labelling-stop"
            )
            self.links = gr.HTML(elem_id="labelling-links", apply_default_css=False)
            with gr.Column(visible=False) as self.choosing:
                with gr.Row(elem_classes="picker"):
                    self.way = gr.Radio(
                        [(_(title), way) for way, title in WAYS.items()],
                        value="range",
                        label=_("Show first"),
                        elem_id="labelling-way",
                        scale=3,
                        min_width=280,
                    )
                    self.low = gr.Slider(
                        0, 1, value=0.4, step=0.05, label=_("From"), min_width=160,
                        elem_id="labelling-low",
                    )  # fmt: skip
                    self.high = gr.Slider(
                        0, 1, value=0.6, step=0.05, label=_("To"), min_width=160,
                        elem_id="labelling-high",
                    )  # fmt: skip
                self.texts = gr.HTML(
                    elem_id="labelling-texts", apply_default_css=False, js_on_load=_SCRIPT
                )
                with gr.Row(elem_classes="actions"):
                    self.add = gr.Button(
                        _("Add to the data set it learned from"), elem_id="labelling-add"
                    )
                self.added = JobProgress(
                    app, ("prepare",), elem_id="labelling-added", of="dataset",
                    stop_id="labelling-add-stop",
                )  # fmt: skip

    # -- handlers

    def open(self, data: Updates) -> Updates:
        """What a classifier can be given, and what it labelled before."""
        run = find_run(self.app, data[self.shared.run])
        if run is None or self._learned_from(run.id) is None:
            return {self.box: gr.Column(visible=False)}
        sets = [
            (info.name, info.id) for info in list_datasets(self.app.workspace) if info.form in FORMS
        ]
        kept = data[self.dataset]
        known = [name for _title, name in sets]
        return {
            self.box: gr.Column(visible=True),
            self.dataset: gr.Dropdown(
                sets, value=kept if kept in known else next(iter(known), None)
            ),
            **self._offered(data),
        }

    def look(self, data: Updates) -> Markup:
        """Whether a file that was chosen can be read."""
        run = find_run(self.app, data[self.shared.run])
        if run is None or not data[self.file]:
            return Markup()
        try:
            learned = columns_learned(self.app.workspace, load_config(run.folder.config))
            column = text_column(Path(data[self.file]), learned)
        except TunesmithError as problem:
            return messages.error(problem)
        return messages.note(_("The texts are those of the column {column}.", column=column))

    def begin(self, data: Updates) -> Updates:
        source = Path(data[self.file]) if data[self.file] else data[self.dataset] or ""
        run_id = data[self.shared.run]
        try:
            submit_prediction(self.app.workspace, self.app.store, run_id, source)
        except TunesmithError as problem:
            told = self.wrong if data[self.file] else self.said
            return {told: messages.error(problem)}
        return {self.said: "", self.wrong: "", self.file: None}

    def refresh(self, data: Updates) -> Updates:
        """Texts that have just been labelled are shown at once."""
        found = self._all(data)
        newest = found[0].id if found else ""
        return {self.newest: gr.skip()} if newest == data[self.newest] else self._offered(data)

    def choose(self, data: Updates) -> Updates:
        found = self._one(data)
        return {self.links: _links(found) if found else "", self.texts: self._drawn(data, found)}

    def give(self, data: Updates, event: gr.EventData) -> Updates:
        """A person's label of a text."""
        found = self._one(data)
        place = str(event.id)
        if found is None or not place.isdecimal() or event.label not in found.labels:
            return {self.texts: gr.skip()}
        give_label(found.folder, int(place), str(event.label))
        return {self.texts: self._drawn(data, found)}

    def take_over(self, data: Updates) -> Updates:
        found, dataset = self._one(data), self._learned_from(data[self.shared.run])
        if found is None or dataset is None:
            return {self.said: messages.note(_("Label some texts first."))}
        try:
            add_labelled(self.app.workspace, self.app.store, found.folder, dataset)
        except TunesmithError as problem:
            return {self.said: messages.error(problem)}
        told = _("They become a new version of the data set: train again from Configure.")
        return {self.said: messages.note(told), self.shared.dataset: dataset}

    def _learned_from(self, run_id: str) -> str | None:
        """The data set of a run that gives labels; None for another run."""
        run = find_run(self.app, run_id)
        try:
            config = load_config(run.folder.config) if run else None
        except TunesmithError:
            return None
        if config is None or config.training_method.makes != "classifier":
            return None
        return config.data.dataset

    def _all(self, data: Updates) -> list[Predicted]:
        run = find_run(self.app, data[self.shared.run])
        return list_predictions(run.folder) if run else []

    def _one(self, data: Updates) -> Predicted | None:
        return next((one for one in self._all(data) if one.id == data[self.done]), None)

    def _offered(self, data: Updates) -> Updates:
        """What was labelled, the newest shown."""
        found = self._all(data)
        names = {info.id: info.name for info in list_datasets(self.app.workspace)}
        titles = [
            (f"{names.get(one.dataset, one.dataset)}, {messages.moment(one.created_at)}", one.id)
            for one in found
        ]
        newest = found[0] if found else None
        return {
            self.done: gr.Dropdown(titles, value=newest.id if newest else None),
            self.newest: newest.id if newest else "",
            self.choosing: gr.Column(visible=newest is not None),
            self.links: _links(newest) if newest else "",
            self.texts: self._drawn(data, newest),
        }

    def _drawn(self, data: Updates, found: Predicted | None) -> Markup:
        if found is None:
            return Markup()
        way, low, high = data[self.way], data[self.low], data[self.high]
        everything, labels = read_predictions(found.folder), read_labels(found.folder)
        shown = uncertain(everything, way, low, high)
        told = n_(
            "{shown} of {n} text to look at; {labelled} labelled.",
            "{shown} of {n} texts to look at; {labelled} labelled.",
            len(everything),
            shown=len(shown),
            labelled=len(labels),
        )
        rows = [
            (one.index, one.text, _surest(one.probabilities), labels.get(one.index))
            for one in shown
        ]
        return html.labelling.texts(told, rows, found.labels)

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        choosing = {run, self.done, self.way, self.low, self.high}
        offered = {self.done, self.newest, self.choosing, self.links, self.texts}
        shared.on_show(
            "chat", self.open, {*choosing, self.dataset}, {self.box, self.dataset, *offered}
        )
        told = {self.said, self.wrong, self.file}
        asked = {run, self.dataset, self.file}
        begun = self.start.click(self.begin, asked, told, **QUIET)
        gr.on([self.file.upload, self.file.clear], self.look, {run, self.file}, self.wrong, **QUIET)
        self.jobs.wire(shared, "chat", run, self.start, begun)
        shared.on_tick(self.refresh, {*choosing, self.newest}, offered)
        events = [self.done.input, self.way.input, self.low.release, self.high.release]
        gr.on(events, self.choose, choosing, {self.links, self.texts}, **CHOICE)
        self.texts.apply(self.give, choosing, {self.texts}, **CHOICE)
        taken = self.add.click(self.take_over, choosing, {self.said, shared.dataset}, **QUIET)
        self.added.wire(shared, "chat", shared.dataset, self.add, taken)


def _links(found: Predicted) -> Markup:
    """The labelled texts, to take along; and what is not among them."""
    place = f"tunesmith/predictions/{quote(found.folder.parents[1].name)}/{quote(found.id)}"
    told = _("Every text with its label and the probabilities:")
    links = html.report.downloads(told, ENDINGS, place, f"{Path(found.dataset).stem}-labelled")
    lost = messages.note(left_out_rows(found.left_out)) if found.left_out else Markup()
    return links + lost


def _surest(chances: dict[str, float]) -> list[tuple[str, float]]:
    """The likeliest labels of a text, with their probabilities."""
    return sorted(chances.items(), key=lambda one: -one[1])[:_SHOWN_BARS]
