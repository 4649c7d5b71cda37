"""The settings of every kind of step as controls, generated from its declared fields.

Each kind has a column of its own, of which one is shown. Paths of fields are `op.name`, so that
wrong values are marked at their control as in Configure. The table that renames labels writes what
is typed at once into the field of the step, as JSON, which is YAML too: it is another way to write
the same setting.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.components import Component

from core.config.fields import FieldSpec, field_specs
from core.data.build import named_columns
from core.data.languages import CODES
from core.data.record import DatasetInfo
from core.data.rowfile import label_counts
from core.data.steps import known_steps, parse_step
from core.data.steps.base import Step
from core.data.versions import imported_files
from core.errors import ConfigError, Problem
from core.models.location import local_model
from core.models.starter import STARTER_MODELS
from webui import forms, messages
from webui.context import App

RENAME = "rename_labels"
NAMES, CAP = f"{RENAME}.names", f"{RENAME}.cap"
NONE = ("(none)", "")
# A step that a person does not write by hand.
MADE_ELSEWHERE = frozenset({"add_rows"})
_ONE_COLUMN, _COLUMNS = ("column", "group_by"), ("columns",)
# Of no use to rows without labels.
_OF_LABELS = ("stratify",)
_FORMULAS = ("condition", "template")
_NOTHING_HELD_OUT = (
    "Nothing is held out yet, so this step would find nothing. Add the step Split first."
)
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")


def offered(form: str) -> dict[str, type[Step]]:
    """The steps that a person may add to a data set of this form, by their `op`."""
    return {
        op: step
        for op, step in known_steps().items()
        if op not in MADE_ELSEWHERE and (not step.forms or form in step.forms)
    }


def sentence(step: type[Step]) -> str:
    """What a step does, in the words of its class."""
    text = inspect.getdoc(step) or step.title
    return " ".join(text.split("\n\n")[0].split())


def section_specs(section: Any, prefix: str) -> list[FieldSpec]:
    """The fields of a section with `prefix` before their paths, also where one depends on
    another."""
    return [
        replace(spec, when={f"{prefix}.{path}": wanted for path, wanted in spec.when.items()})
        for spec in field_specs(section, f"{prefix}.")
    ]


def read_field(spec: FieldSpec, held: Any) -> Any:
    """What a control holds as the section's own check takes it; that says what is wrong."""
    if spec.kind in ("int", "float"):
        text = "" if held is None else str(held).strip()
        if _THOUSANDS.fullmatch(text):
            text = text.replace(",", "")
        return None if spec.optional and not text else text
    return forms.read(spec, held)


def read_fields(
    specs: list[FieldSpec], fields: Mapping[str, Component], data: Mapping[Component, Any]
) -> dict[str, Any]:
    """The values by the field's name. Raises ConfigError for text that is no YAML."""
    return {spec.name: read_field(spec, data[fields[spec.path]]) for spec in specs}


def marks(
    specs: list[FieldSpec], values: Mapping[str, Any], problems: tuple[Problem, ...] = ()
) -> dict[str, Any]:
    """For `forms.marks_box`: the fields that do not matter now, and what is wrong with one."""
    errors: dict[str, str] = {}
    for problem in problems:
        errors.setdefault(problem.field, problem.message[:1].upper() + problem.message[1:])
    by_path = {spec.path: values.get(spec.name) for spec in specs}
    hidden = [s.path for s in specs if not s.shown(by_path) and s.path not in errors]
    return {"hidden": hidden, "errors": errors, "changed": {}, "folds": {}}


def build_fields(
    specs: list[FieldSpec], choices: Mapping[str, list[Any]], title: str, fold_id: str
) -> dict[str, Component]:
    """A control for each field: basic ones first, the rest in a fold."""
    fields: dict[str, Component] = {}
    folded = [spec for spec in specs if spec.level != "basic"]
    with gr.Column(elem_classes="settings"):
        for spec in specs:
            if spec not in folded:
                fields[spec.path] = forms.control(spec, spec.default, choices.get(spec.path))
    if folded:
        with (
            gr.Accordion(title, open=False, elem_classes="fold", elem_id=fold_id),
            gr.Column(elem_classes="settings"),
        ):
            for spec in folded:
                fields[spec.path] = forms.control(spec, spec.default, choices.get(spec.path))
    return fields


@dataclass
class StepForm:
    """The controls of one kind of step, by the path of the field."""

    step: type[Step]
    specs: list[FieldSpec]
    panel: gr.Column
    fields: dict[str, Component]

    @property
    def switches(self) -> list[Component]:
        """Controls on which it depends whether others matter."""
        paths = {path for spec in self.specs for path in spec.when}
        return [self.fields[path] for path in paths]

    @property
    def names_columns(self) -> bool:
        names = {spec.name for spec in self.specs}
        return bool(names & {*_ONE_COLUMN, *_COLUMNS, *_FORMULAS})


class StepForms:
    """The forms of all steps. `labels` is the table of rename_labels, `cap` stands beside it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.forms: dict[str, StepForm] = {}
        for op, step in known_steps().items():
            if op not in MADE_ELSEWHERE:
                self.forms[op] = self._build(op, step)
        self.marks = forms.marks_box("step")

    def _build(self, op: str, step: type[Step]) -> StepForm:
        specs = section_specs(step, op)
        choices: dict[str, list[Any]] = {
            spec.path: []
            for spec in specs
            if spec.name in (*_ONE_COLUMN, *_COLUMNS, "model", "languages")
        }
        with gr.Column(visible=False, elem_id=f"step-{op}") as panel:
            if op == RENAME:
                self.labels = label_table()
            fields = build_fields(specs, choices, "More settings", f"fold-step-{op}")
            if op == RENAME:
                with gr.Column(elem_classes="settings", visible=False) as self.cap_row:
                    self.cap = gr.Textbox(
                        label="Cap the rows of each class",
                        info="Keeps at most so many rows of each new class, chosen by chance. "
                        "Adds the step for it. Empty sets no cap.",
                        elem_id=forms.element_id(CAP),
                        elem_classes=["field", "field-int"],
                        placeholder="no cap",
                    )
        return StepForm(step, specs, panel, fields)

    @property
    def inputs(self) -> list[Component]:
        return [*(c for form in self.forms.values() for c in form.fields.values()), self.cap]

    @property
    def outputs(self) -> list[Any]:
        """Everything that `show` fills in."""
        panels = [form.panel for form in self.forms.values()]
        return [*self.inputs, *panels, self.labels, self.cap_row, self.marks]

    def read(self, op: str, data: Mapping[Component, Any]) -> list[Step]:
        """The step as it was filled in, and the cap beside it. Raises ConfigError."""
        form = self.forms[op]
        step = parse_step({"op": op, **read_fields(form.specs, form.fields, data)}, op)
        cap = str(data[self.cap] or "").strip()
        if op != RENAME or not cap:
            return [step]
        try:
            most = cap.replace(",", "") if _THOUSANDS.fullmatch(cap) else cap
            return [step, parse_step({"op": "cap_per_class", "most": most})]
        except ConfigError as error:
            raise ConfigError([replace(p, field=CAP) for p in error.problems]) from error

    def read_marks(
        self, op: str, data: Mapping[Component, Any], problems: tuple[Problem, ...] = ()
    ) -> dict[str, Any]:
        """Which settings of a kind of step matter now, and what is wrong with one."""
        form = self.forms[op]
        values = {spec.name: data[form.fields[spec.path]] for spec in form.specs}
        return marks(form.specs, values, problems)

    def show(
        self, op: str, info: DatasetInfo, record: Mapping[str, Any] | None = None, before: str = ""
    ) -> dict[Any, Any]:
        """The controls of one kind of step, with the values of a `record` or the first ones, in
        the place of those of the kind `before`."""
        updates: dict[Any, Any] = {}
        # Only what changes: the browser takes its time for each control that it is told of.
        if before in self.forms and before != op:
            updates[self.forms[before].panel] = gr.Column(visible=False)
        updates[self.forms[op].panel] = gr.Column(visible=True)
        form, given = self.forms[op], dict(record or {})
        values = {spec.name: given.get(spec.name, spec.default) for spec in form.specs}
        for spec in form.specs:
            updates[form.fields[spec.path]] = gr.update(
                value=forms.write(spec, values[spec.name]), **self._choices(spec, info)
            )
            if spec.name in _OF_LABELS:
                labelled = info.form == "labelled-text" or bool(values[spec.name])
                updates[form.fields[spec.path]]["visible"] = labelled
        updates[self.marks] = marks(form.specs, values)
        if op == RENAME:
            known = info.labels if record is None else _imported_labels(info)
            counts = before_renaming(known, values["names"])
            place = forms.element_id(NAMES)
            updates[self.labels] = render(counts, values["names"], place)
            updates[self.cap] = ""
            updates[self.cap_row] = gr.Column(visible=record is None)
        return updates

    def _choices(self, spec: FieldSpec, info: DatasetInfo) -> dict[str, Any]:
        if spec.name in _ONE_COLUMN:
            first = [NONE] if spec.default == "" else []
            return {"choices": [*first, *((name, name) for name in named_columns(info))]}
        if spec.name in _COLUMNS:
            return {"choices": list(info.columns)}
        if spec.name == "languages":
            return {"choices": sorted(CODES)}
        return {"choices": local_models(self.app)} if spec.name == "model" else {}

    def about(self, op: str, info: DatasetInfo) -> str:
        """Title and sentence of a kind of step, and the names that its settings may use."""
        form = self.forms.get(op)
        if form is None:
            return ""
        names = ", ".join(f"<code>{messages.escape(n)}</code>" for n in named_columns(info))
        columns = f'<p class="aside">Columns: {names}</p>' if form.names_columns else ""
        if form.step.after_split and len(info.parts) == 1:
            columns += messages.note(_NOTHING_HELD_OUT, "stopped")
        return (
            f'<div class="step-about"><h3>{messages.escape(form.step.title)}</h3>'
            f'<p class="aside">{messages.escape(sentence(form.step))}</p>{columns}</div>'
        )


def _imported_labels(info: DatasetInfo) -> dict[str, int]:
    """The labels before any step, those of rows that are held out now among them."""
    return label_counts(imported_files(info)["train"])


def local_models(app: App) -> list[str]:
    """Names of the models on this machine."""
    here = [path.name for path in sorted(app.workspace.models.glob("[!.]*/"))]
    starters = [name for name in STARTER_MODELS if local_model(app.workspace, name)]
    return [*dict.fromkeys([*starters, *here])]


_TOLD_CLASSES = 12

# Writes the names that differ into the field with the id in data-field, and tells what becomes of
# the classes. `input` bubbles up from each cell.
_SCRIPT = """
const told = (rows) => {
  const classes = new Map();
  let left = 0;
  for (const [, count, name] of rows) {
    if (name) classes.set(name, (classes.get(name) || 0) + count);
    else left += count;
  }
  const sorted = [...classes].sort((a, b) => b[1] - a[1]);
  const shown = sorted.slice(0, MOST).map(([name, count]) => `${name} ${count.toLocaleString()}`);
  const more = sorted.length > MOST ? `, and ${sorted.length - MOST} more` : '';
  const kept = `${sorted.length} ${sorted.length === 1 ? 'class' : 'classes'}: `;
  const gone = left ? `; ${left.toLocaleString()} rows left out` : '';
  return kept + shown.join(', ') + more + gone;
};
const follow = () => {
  const cells = [...element.querySelectorAll('input[data-label]')];
  const rows = cells.map((cell) =>
    [cell.dataset.label, Number(cell.dataset.rows), cell.value.trim()]);
  for (const cell of cells) {
    const same = cell.value.trim() === cell.dataset.label;
    cell.closest('tr').classList.toggle('is-renamed', !same);
  }
  const line = element.querySelector('.classes');
  if (line) line.textContent = told(rows);
  return rows;
};
element.addEventListener('input', () => {
  const table = element.querySelector('table');
  const names = follow().filter(([label, , name]) => label !== name);
  const held = document.querySelector(`#${table.dataset.field} textarea`);
  if (!held) return;
  held.value = names.length
    ? JSON.stringify(Object.fromEntries(names.map(([label, , name]) => [label, name]))) : '';
  held.dispatchEvent(new Event('input', {bubbles: true}));
});
follow();
watch('value', follow);
""".replace("MOST", str(_TOLD_CLASSES))


def label_table() -> gr.HTML:
    return gr.HTML(
        js_on_load=_SCRIPT, elem_id="label-table", apply_default_css=False, show_label=False
    )


def render(labels: Mapping[str, int], names: Mapping[str, str], field: str) -> str:
    """`labels` with their rows; `names` are the new names given so far; `field` is the element
    that holds them."""
    if not labels:
        return ""
    lower = {old.strip().lower(): new for old, new in names.items()}
    rows = "".join(
        _row(label, count, lower.get(label.strip().lower(), label))
        for label, count in labels.items()
    )
    return (
        f'<table class="labels" data-field="{messages.escape(field)}"><thead><tr><th>Label</th>'
        f'<th class="num">Rows to learn</th><th>New name</th></tr></thead><tbody>{rows}</tbody>'
        '</table><p class="aside classes" aria-live="polite"></p>'
    )


def _row(label: str, count: int, name: str) -> str:
    shown = messages.escape(label)
    return (
        f'<tr><td>{shown}</td><td class="num">{count:,}</td><td><input type="text" '
        f'value="{messages.escape(name)}" data-label="{shown}" data-rows="{count}" '
        f'aria-label="New name of {shown}" placeholder="left out"></td></tr>'
    )


def before_renaming(now: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    """Labels that a table may be asked about: those there are, and those that were renamed."""
    found: Counter[str] = Counter(dict(now))
    for old in names:
        found.setdefault(old, 0)
    return dict(found)
