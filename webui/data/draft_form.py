"""The settings of new rows that a model writes, generated from their declared fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component

from core.config.fields import FieldSpec
from core.data.drafts.settings import DraftSettings, drafts_form
from core.data.record import DatasetInfo
from core.errors import ConfigError, Problem
from core.remote.endpoint import endpoint_host
from webui import forms
from webui.context import App
from webui.data import draft_cards
from webui.data.step_form import build_fields, local_models, marks, read_fields, section_specs
from webui.run_choice import run_choices, trained_runs

_SOURCE, _MODEL, _LABEL, _KIND = "drafts.source", "drafts.model", "drafts.only_label", "drafts.kind"


def _plain(spec: FieldSpec) -> FieldSpec:
    """Without a unit that the label says already."""
    said = bool(spec.unit) and spec.unit.rstrip("s") in spec.label.lower()
    return replace(spec, unit="" if said else spec.unit)


SPECS = [_plain(spec) for spec in section_specs(DraftSettings, "drafts")]


class DraftForm:
    """A card with every setting, and the buttons that begin or close."""

    def __init__(self, app: App) -> None:
        self.app = app
        with gr.Column(visible=False, elem_classes="card", elem_id="drafts-panel") as self.panel:
            self.endpoint = gr.HTML(apply_default_css=False)
            choices: dict[str, list[Any]] = {_MODEL: [], _LABEL: []}
            self.fields = build_fields(SPECS, choices, "More settings", "fold-drafts")
            self.marks = forms.marks_box("drafts")
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button("Start writing", variant="primary", scale=0)
                self.close = gr.Button("Close", scale=0)
            self.wrong = gr.HTML(apply_default_css=False)
        self.source, self.model = self.fields[_SOURCE], self.fields[_MODEL]
        self.switches = [self.fields[_SOURCE], self.fields[_KIND]]
        self.shown = {
            self.panel, self.endpoint, self.marks, self.wrong,
            *(self.fields[path] for path in (_KIND, _SOURCE, _LABEL, _MODEL)),
        }

    def show(self, info: DatasetInfo) -> dict[Any, Any]:
        """The card, open, with what the data set and this machine offer."""
        kinds = [(t, k) for k, t in draft_cards.KINDS.items() if _possible(k, info.form)]
        source = "endpoint" if endpoint_host() else "local"
        values = {spec.name: spec.default for spec in SPECS} | {"source": source}
        labels = [("all labels", ""), *((label, label) for label in info.labels)]
        return {
            self.panel: gr.Column(visible=True),
            self.endpoint: draft_cards.endpoint_note(),
            self.fields[_KIND]: gr.Radio(kinds, value=kinds[0][1]),
            self.source: source,
            self.fields[_LABEL]: gr.Dropdown(labels, value=""),
            self.model: self.offer_models(source),
            self.marks: _with_labels(marks(SPECS, values), info.labels),
            self.wrong: "",
        }

    def offer_models(self, source: str) -> Any:
        """The models of this machine and finished runs; an endpoint's must be typed."""
        if source == "endpoint":
            return gr.Dropdown([], value=None)
        runs = [(f"{name} (run)", run) for name, run in run_choices(trained_runs(self.app))]
        here = [*((name, name) for name in local_models(self.app)), *runs]
        return gr.Dropdown(here, value=here[0][1] if here else None)

    def read(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        """The settings by name. A list without a choice holds None: an empty text."""
        values = read_fields(SPECS, self.fields, data)
        texts = {spec.name for spec in SPECS if spec.kind == "str"}
        return {n: "" if v is None and n in texts else v for n, v in values.items()}

    def read_marks(
        self,
        data: Mapping[Component, Any],
        labels: Mapping[str, int],
        problems: tuple[Problem, ...] = (),
    ) -> dict[str, Any]:
        """Which settings matter now, and what is wrong with one."""
        values = {spec.name: data[self.fields[spec.path]] for spec in SPECS}
        named = tuple(replace(p, field=f"drafts.{p.field}") for p in problems)
        return _with_labels(marks(SPECS, values, named), labels)


def _with_labels(found: dict[str, Any], labels: Mapping[str, int]) -> dict[str, Any]:
    return found if labels else {**found, "hidden": [*found["hidden"], _LABEL]}


def _possible(kind: str, form: str) -> bool:
    try:
        drafts_form(DraftSettings.model_construct(kind=kind), form)
    except ConfigError:
        return False
    return True
