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
from core.language import _, speaking
from core.remote.endpoint import endpoint_host
from webui.context import App
from webui.data import draft_cards
from webui.data.step_form import (
    first_values,
    groups,
    local_models,
    marks,
    read_fields,
    section_specs,
)
from webui.forms import Form
from webui.run_choice import run_choices, trained_runs

_SOURCE, _MODEL, _LABEL, _KIND = "drafts.source", "drafts.model", "drafts.only_label", "drafts.kind"
# What they offer depends on the data set and the machine.
_LISTED = (_KIND, _MODEL, _LABEL)


def _plain(spec: FieldSpec) -> FieldSpec:
    """Without a unit that the label says already, in the words of their declaration."""
    with speaking("en"):
        said = bool(spec.unit) and str(spec.unit).rstrip("s") in str(spec.label).lower()
    return replace(spec, unit="" if said else spec.unit)


SPECS = [_plain(spec) for spec in section_specs(DraftSettings, "drafts")]


class DraftForm:
    """A card with every setting, and the buttons that begin or close."""

    def __init__(self, app: App) -> None:
        self.app = app
        with gr.Column(visible=False, elem_classes="card", elem_id="drafts-panel") as self.panel:
            self.endpoint = gr.HTML(apply_default_css=False)
            self.form = Form("drafts", first_values(SPECS), dict.fromkeys(_LISTED, []), [_SOURCE])
            self.form.part(groups(SPECS, _("More settings"), "fold-drafts"))
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button(_("Start writing"), variant="primary", scale=0)
                self.close = gr.Button(_("Close"), scale=0)
            self.wrong = gr.HTML(apply_default_css=False)
        self.form.render()
        self.shown = {
            self.panel,
            self.endpoint,
            self.form.marks,
            self.form.filled,
            self.wrong,
        }

    def show(self, info: DatasetInfo) -> dict[Any, Any]:
        """The card, open, with what the data set and this machine offer."""
        kinds = [(_(t), k) for k, t in draft_cards.KINDS.items() if _possible(k, info.form)]
        source = "endpoint" if endpoint_host() else "local"
        models = self._models(source)
        values = {spec.name: spec.default for spec in SPECS} | {"source": source}
        labels = [(_("all labels"), ""), *((label, label) for label in info.labels)]
        first = {_KIND: kinds[0][1], _SOURCE: source, _LABEL: "", _MODEL: _first(models)}
        return {
            self.panel: gr.Column(visible=True),
            self.endpoint: draft_cards.endpoint_note(),
            **self.form.fill(first, {_KIND: kinds, _LABEL: labels, _MODEL: models}),
            **self._mark(values, info.labels),
            self.wrong: "",
        }

    def offer_models(self, data: Mapping[Component, Any]) -> dict[Component, Any]:
        """The models for the source that was chosen."""
        models = self._models(self.form.held(data)[_SOURCE])
        return self.form.fill({_MODEL: _first(models)}, {_MODEL: models})

    def _models(self, source: str) -> list[tuple[str, str]]:
        """The models of this machine and finished runs; an endpoint's must be typed."""
        if source == "endpoint":
            return []
        runs = [
            (_("{name} (run)", name=name), run) for name, run in run_choices(trained_runs(self.app))
        ]
        return [*((name, name) for name in local_models(self.app)), *runs]

    def read(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        """The settings by name."""
        return read_fields(SPECS, self.form.held(data))

    def read_marks(
        self,
        data: Mapping[Component, Any],
        labels: Mapping[str, int],
        problems: tuple[Problem, ...] = (),
    ) -> dict[Component, Any]:
        """Which settings matter now, and what is wrong with one."""
        held = self.form.held(data)
        named = tuple(replace(p, field=f"drafts.{p.field}") for p in problems)
        return self._mark({spec.name: held[spec.path] for spec in SPECS}, labels, named)

    def _mark(
        self,
        values: Mapping[str, Any],
        labels: Mapping[str, int],
        problems: tuple[Problem, ...] = (),
    ) -> dict[Component, Any]:
        offered = [spec for spec in SPECS if labels or spec.path != _LABEL]
        return marks(self.form, offered, values, problems)


def _first(models: list[tuple[str, str]]) -> str:
    return models[0][1] if models else ""


def _possible(kind: str, form: str) -> bool:
    try:
        drafts_form(DraftSettings.model_construct(kind=kind), form)
    except ConfigError:
        return False
    return True
