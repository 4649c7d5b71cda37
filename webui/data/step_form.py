"""The settings of every kind of step as controls, generated from its declared fields.

All are in one form, of which the fields of one kind are shown. Paths of fields are `op.name`, so
that wrong values are marked at their control as in Configure. The table that renames labels writes
what is typed at once into the field of the step, as JSON, which is YAML too: it is another way to
write the same setting.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.config.fields import FieldSpec, Section, field_specs, knob
from core.data.build import named_columns
from core.data.languages import CODES
from core.data.record import DatasetInfo
from core.data.rowfile import label_counts
from core.data.steps import known_steps, parse_step
from core.data.steps.base import Step
from core.data.versions import imported_files
from core.errors import ConfigError, Problem
from core.language import N_, _
from core.models.location import local_model
from core.models.starter import STARTER_MODELS
from webui import forms, messages
from webui.context import App
from webui.forms import Form, Group
from webui.html import html

RENAME = "rename_labels"
NAMES, CAP = f"{RENAME}.names", f"{RENAME}.cap"


class _Beside(Section):
    """What stands beside the settings of rename_labels."""

    cap: int | None = knob(None, "Cap the rows of each class", level="basic")
    """Keeps at most so many rows of each new class, chosen by chance. Adds the step for it. Empty
    sets no cap."""


_CAP = field_specs(_Beside, f"{RENAME}.")[0]
# A step that a person does not write by hand.
MADE_ELSEWHERE = frozenset({"add_rows"})
_ONE_COLUMN, _COLUMNS = ("column", "group_by"), ("columns",)
# Of no use to rows without labels.
_OF_LABELS = ("stratify",)
_FORMULAS = ("condition", "template")
_NOTHING_HELD_OUT = N_(
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


def read_fields(specs: Iterable[FieldSpec], held: Mapping[str, Any]) -> dict[str, Any]:
    """The values by the field's name. Raises ConfigError for text that is no YAML."""
    return {spec.name: read_field(spec, held[spec.path]) for spec in specs}


def marks(
    form: Form,
    specs: Iterable[FieldSpec],
    values: Mapping[str, Any],
    problems: tuple[Problem, ...] | None = (),
) -> dict[Component, Any]:
    """Shows the fields of `specs` alone, but for those that do not matter with these `values` by
    name, and what is wrong with one. With None, after an edit, what was wrong with the other fields
    stays."""
    errors: dict[str, str] = {}
    for problem in problems or ():
        errors.setdefault(problem.field, forms.sentence(_(problem.message)))
    specs = list(specs)
    by_path = {spec.path: values.get(spec.name) for spec in specs}
    shown = {s.path for s in specs if s.shown(by_path) or s.path in errors}
    hidden = [path for path in form.specs if path not in shown]
    return form.mark({"hidden": hidden} | ({} if problems is None else {"errors": errors}))


def groups(specs: Iterable[FieldSpec], title: str, fold_id: str) -> list[Group]:
    """Basic fields first, the rest in a fold."""
    specs = list(specs)
    basic = [spec for spec in specs if spec.level == "basic"]
    folded = [spec for spec in specs if spec.level != "basic"]
    found = [Group(basic)] if basic else []
    return [*found, Group(folded, title, fold_id)] if folded else found


def first_values(specs: Iterable[FieldSpec]) -> dict[str, Any]:
    return {spec.path: spec.default for spec in specs}


class StepForms:
    """The settings of all kinds of steps, of which one is shown. `labels` is the table of
    rename_labels; beside it may stand how many rows of each class are kept at most."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.labels = label_table()
        self.steps = {op: one for op, one in known_steps().items() if op not in MADE_ELSEWHERE}
        self.specs = {op: section_specs(step, op) for op, step in self.steps.items()}
        self.specs[RENAME].append(_CAP)
        every = [spec for specs in self.specs.values() for spec in specs]
        listed = (*_ONE_COLUMN, *_COLUMNS, "model", "languages")
        choices: dict[str, list[Any]] = {s.path: [] for s in every if s.name in listed}
        self.form = Form("step", first_values(every), choices)
        self.form.part(
            [
                group
                for op, specs in self.specs.items()
                for group in groups(specs, _("More settings"), f"fold-step-{op}")
            ]
        )

    @property
    def outputs(self) -> set[Component]:
        """Everything that `show` fills in."""
        return {self.form.filled, self.form.marks, self.labels}

    def read(self, op: str, data: Mapping[Component, Any]) -> list[Step]:
        """The step as it was filled in, and the cap beside it. Raises ConfigError."""
        held = self.form.held(data)
        own = [spec for spec in self.specs[op] if spec is not _CAP]
        step = parse_step({"op": op, **read_fields(own, held)}, op)
        cap = read_field(_CAP, held[CAP])
        if op != RENAME or not cap:
            return [step]
        try:
            return [step, parse_step({"op": "cap_per_class", "most": cap})]
        except ConfigError as error:
            raise ConfigError([replace(p, field=CAP) for p in error.problems]) from error

    def read_marks(
        self,
        op: str,
        info: DatasetInfo,
        data: Mapping[Component, Any],
        editing: bool,
        problems: tuple[Problem, ...] | None = (),
    ) -> dict[Component, Any]:
        """Which settings of a kind of step matter now, and what is wrong with one."""
        held = self.form.held(data)
        values = {spec.name: held[spec.path] for spec in self.specs[op]}
        return marks(self.form, self._shown(op, info, values, editing), values, problems)

    def show(
        self, op: str, info: DatasetInfo, record: Mapping[str, Any] | None = None
    ) -> dict[Any, Any]:
        """The controls of one kind of step, with the values of a `record` or the first ones."""
        specs, given = self.specs[op], dict(record or {})
        values = {spec.name: given.get(spec.name, spec.default) for spec in specs}
        offered = {spec.path: self._choices(spec, info) for spec in specs}
        by_path = {spec.path: values[spec.name] for spec in specs}
        updates: dict[Any, Any] = {
            **self.form.fill(by_path, {p: list(c) for p, c in offered.items() if c is not None}),
            **marks(self.form, self._shown(op, info, values, record is not None), values),
            self.labels: "",
        }
        if op == RENAME:
            known = info.labels if record is None else _imported_labels(info)
            counts = before_renaming(known, values["names"])
            updates[self.labels] = render(counts, values["names"], forms.element_id(NAMES))
        return updates

    def _shown(
        self, op: str, info: DatasetInfo, values: Mapping[str, Any], editing: bool
    ) -> list[FieldSpec]:
        """The settings of a kind of step that make sense for these rows."""
        labelled = info.form == "labelled-text"
        return [
            spec
            for spec in self.specs[op]
            if (spec.name not in _OF_LABELS or labelled or values[spec.name])
            and not (spec is _CAP and editing)
        ]

    def _choices(self, spec: FieldSpec, info: DatasetInfo) -> list[Any] | None:
        if spec.name in _ONE_COLUMN:
            first = [(_("(none)"), "")] if spec.default == "" else []
            return [*first, *((name, name) for name in named_columns(info))]
        if spec.name in _COLUMNS:
            return list(info.columns)
        if spec.name == "languages":
            return sorted(CODES)
        return local_models(self.app) if spec.name == "model" else None

    def about(self, op: str, info: DatasetInfo) -> Markup:
        """Title and sentence of a kind of step, and the names that its settings may use."""
        step = self.steps.get(op)
        if step is None:
            return Markup()
        named = {spec.name for spec in self.specs[op]} & {*_ONE_COLUMN, *_COLUMNS, *_FORMULAS}
        nothing = step.after_split and len(info.parts) == 1
        return html.step_form.about(
            step.title,
            step.about(),
            named_columns(info) if named else None,
            messages.note(_NOTHING_HELD_OUT, "stopped") if nothing else "",
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
# the classes, in the words that the line has. `input` bubbles up from each cell.
_SCRIPT = """
const told = (rows, texts) => {
  const classes = new Map();
  let left = 0;
  for (const [, count, name] of rows) {
    if (name) classes.set(name, (classes.get(name) || 0) + count);
    else left += count;
  }
  const sorted = [...classes].sort((a, b) => b[1] - a[1]);
  const shown = sorted.slice(0, MOST).map(([name, count]) => `${name} ${count.toLocaleString()}`);
  const some = {names: shown.join(', '), n: sorted.length - MOST};
  const names = sorted.length > MOST ? tunesmith._(texts.more, some) : some.names;
  const kept = sorted.length === 1 ? texts.one : texts.many;
  const text = tunesmith._(kept, {n: sorted.length, names});
  return left ? tunesmith._(texts.gone, {text, n: left.toLocaleString()}) : text;
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
  if (line) line.textContent = told(rows, line.dataset);
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


def render(labels: Mapping[str, int], names: Mapping[str, str], field: str) -> Markup:
    """`labels` with their rows; `names` are the new names given so far; `field` is the element
    that holds them."""
    if not labels:
        return Markup()
    lower = {old.strip().lower(): new for old, new in names.items()}
    lines = [
        (label, count, lower.get(label.strip().lower(), label)) for label, count in labels.items()
    ]
    return html.step_form.labels(lines, field)


def before_renaming(now: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    """Labels that a table may be asked about: those there are, and those that were renamed."""
    found: Counter[str] = Counter(dict(now))
    for old in names:
        found.setdefault(old, 0)
    return dict(found)
