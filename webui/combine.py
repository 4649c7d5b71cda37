"""The adapters of other runs that are taken into an export: which, how much of each, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.components import Component

from core.errors import Problem, TunesmithError
from core.export.combine import Way, differences, parse_combination, why_not_alone
from core.language import _
from core.models.trained import TrainedModel, find_trained
from core.runs.records import RunSummary
from webui.context import QUIET, App
from webui.data.step_form import first_values, groups, marks, read_fields, section_specs
from webui.forms import Form
from webui.html import html
from webui.run_choice import checkpoint_choices, find_run, run_choices, trained_runs

_SPECS = section_specs(Way, "combine")
# Of many runs that fit, the newest are offered; the shell takes each.
_MOST = 20

# Draws the table that came last; what is given in it is the part `held` of the value, by run.
_SCRIPT = """
let drawn = null;
const draw = () => {
  if (props.value.asked === drawn) return;
  drawn = props.value.asked;
  element.innerHTML = props.value.table;
};
draw();
watch('value', draw);
element.addEventListener('input', () => {
  const held = {};
  for (const row of element.querySelectorAll('tr[data-run]')) {
    const weight = row.querySelector('input').value.trim();
    if (weight) held[row.dataset.run] = {weight, checkpoint: row.querySelector('select').value};
  }
  props.value = {...props.value, held};
});
"""


class Combining:
    """A fold with a table of runs, which is shown where there are others that fit."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.form = Form("combine", first_values(_SPECS))
        with gr.Accordion(
            _("Combine with other runs"),
            open=False,
            visible=False,
            elem_classes="fold",
            elem_id="combine",
        ) as self.fold:
            self.table = gr.HTML(
                {"asked": "", "table": "", "held": {}},
                html_template="",
                js_on_load=_SCRIPT,
                elem_id="combine-runs",
                apply_default_css=False,
            )
            self.form.part(groups(_SPECS, "", ""))
        self.form.marks.render()

    @property
    def inputs(self) -> set[Component]:
        return {self.table, *self.form.parts}

    @property
    def outputs(self) -> set[Any]:
        return {self.fold, self.table, self.form.marks}

    def offer(self, run_id: str) -> dict[Any, Any]:
        """The runs whose adapters go with the selected one's."""
        rows = self._rows(run_id)
        table = html.combine.table(rows) if rows else ""
        return {
            self.fold: gr.Accordion(visible=bool(rows)),
            self.table: {"asked": uuid4().hex, "table": table, "held": {}},
            **self.marks(),
        }

    def read(self, data: Mapping[Component, Any]) -> dict[str, Any] | None:
        """What is combined; None where no other run has a weight. Raises ConfigError."""
        held = data[self.table]["held"]
        others = [{"run": run_id, **given} for run_id, given in held.items()]
        found = parse_combination({**read_fields(_SPECS, self.form.held(data)), "others": others})
        return found.as_dict() if found else None

    def marks(
        self,
        data: Mapping[Component, Any] | None = None,
        problems: tuple[Problem, ...] | None = (),
    ) -> dict[Component, Any]:
        """Which settings the way that is chosen has, and what is wrong with one."""
        values = read_fields(_SPECS, self.form.held(data)) if data else {}
        if problems:
            problems = tuple(replace(one, field=f"combine.{one.field}") for one in problems)
        return marks(self.form, _SPECS, values, problems)

    def change(self, data: dict[Component, Any]) -> dict[Component, Any]:
        return self.marks(data, None)

    def wire(self) -> None:
        last: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
        gr.on(self.form.edits, self.change, set(self.form.parts), {self.form.marks}, **last)

    def _rows(self, run_id: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """(label, id, checkpoints) of each run that fits."""
        own = find_run(self.app, run_id)
        points = checkpoint_choices(own)
        if own is None or not points:
            return []
        trained = find_trained(own.folder, points[0][1])
        if why_not_alone(trained):
            return []
        found = []
        others = [one for one in trained_runs(self.app) if one.id != run_id]
        for (label, other), run in zip(run_choices(others), others, strict=True):
            names = checkpoint_choices(run)
            if _fits(trained, run, names[0][1]):
                found.append((label, other, names))
        return found[:_MOST]


def _fits(trained: TrainedModel, run: RunSummary, checkpoint: str) -> bool:
    try:
        other = find_trained(run.folder, checkpoint)
        return not why_not_alone(other) and not next(differences(trained, other), "")
    except TunesmithError:
        return False
