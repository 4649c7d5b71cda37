"""Which column of a file is which field of a form: the table of them, and mappings that were kept,
of which one that fits is offered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.data.conversion import THOUGHT, UNASKED, WEIGHTS, WINNER
from core.data.forms import Form, check_field, is_template
from core.data.inspection import SourceReport
from core.data.mappings import (
    DamagedMapping,
    SavedMapping,
    list_mappings,
    load_mapping,
    save_mapping,
)
from core.data.values import columns_inside, root_of
from core.errors import DataError, TunesmithError
from core.language import N_, _
from webui import messages
from webui.choice import Dropdown
from webui.context import App, unseen
from webui.html import html

UNUSED, NOTHING = "", N_("none")
# Stands for a template in the list of columns: no column is called so, and it is no template.
TEMPLATE = "{}"
_MEANING = {
    "text": N_("The text itself."),
    "prompt": N_("What the model is asked: text, or a list of turns."),
    "completion": N_("What the model shall answer."),
    "instruction": N_("The task."),
    "output": N_("What the model shall answer."),
    "input": N_("What the task is about; goes after it."),
    "system": N_("Instructions that stand before the conversation."),
    "history": N_("Earlier questions and answers, as pairs."),
    "messages": N_("A list of turns with role and content."),
    "conversations": N_("A list of turns with from and value."),
    "tools": N_("The tools that the model may call, as a list."),
    THOUGHT: N_("The thought before the (last) answer: learned or only read, as the run chooses."),
    WEIGHTS: N_(
        "A list of numbers from 0 (only read) to 1 (learned), one for each turn or answer."
    ),
    "chosen": N_("The better answer."),
    "rejected": N_("The worse answer."),
    WINNER: N_("Which of the two is the better, by its column's name or the end of it."),
    "answer": N_("The answer to compare with; never learned."),
    "label": N_("The class: a name, a number, or a list."),
    "separator": N_("The sign between several labels in one cell."),
    UNASKED: N_("What becomes of conversations in which nobody asks."),
    "label_names": N_("Where a cell is a list of 0 and 1: the name of each place, in order."),
}
_BRACES = N_("Columns stand in braces; write {{ for a brace itself.")
# What a setting's values are called, and it is where it has none.
_SETTINGS = {"separator": N_("{value} between labels"), UNASKED: N_("keep them")}
_UNSET = {
    "separator": N_("none: one label in each cell"),
    "label_names": N_("none: the cells hold the labels themselves"),
    UNASKED: N_("drop them"),
}
# Where a field's name means something else in one form.
_MEANING_IN = {
    ("unpaired-preference", "label"): N_("Whether the answer is good: true or false, 1 or 0."),
    ("unpaired-preference", "completion"): N_("The answer that was judged."),
    ("prompt-only", "prompt"): N_("What the model is asked while it is trained on rewards."),
}


class MappingTable:
    """The table, and what it shows and says: `held` holds the fields and what is chosen for each
    (assets/mapping.js draws them), `told` what is wrong and some values, by field."""

    def __init__(self) -> None:
        self.held = gr.HTML(
            {"asked": "", "fields": [], "held": {}},
            html_template="",
            js_on_load="tunesmith.mapping.mount(element, props, trigger, watch);",
            elem_id="mapping",
            elem_classes="form-part",
            apply_default_css=False,
        )
        script = (
            "const tell = () => tunesmith.mapping.tell(props.value); tell(); watch('value', tell);"
        )
        self.told = unseen({}, script)
        self.told.render()

    def show(
        self, form: Form | None, report: SourceReport, mapping: Mapping[str, str]
    ) -> dict[Any, Any]:
        """Updates that put a form's fields into the table, with `mapping` chosen."""
        fields = [_field(form, name, report) for name in names_of(form)] if form else []
        chosen = {one["name"]: _chosen(one, mapping.get(one["name"], UNUSED)) for one in fields}
        shown = {"asked": uuid4().hex, "fields": fields, "held": chosen}
        return {self.held: shown, **self.tell(form, report, mapping)}

    def tell(
        self, form: Form | None, report: SourceReport, mapping: Mapping[str, str]
    ) -> dict[Any, Any]:
        """Updates that leave the choice alone: values of the columns, and what is wrong."""
        if form is None:
            return {self.told: {}}
        problems = problems_of(form, report.columns, mapping)
        told = {
            name: {
                "problem": html.mapping.problem(problems[name]) if problems.get(name) else "",
                "samples": _samples(mapping.get(name, UNUSED), report),
            }
            for name in names_of(form)
        }
        return {self.told: told}

    def read(self, data: Mapping[Any, Any], form: Form) -> dict[str, str]:
        """The mapping that is chosen; an empty value takes a field away."""
        held = data[self.held]["held"]
        return {name: _source(**held.get(name, {})) for name in names_of(form)}


def names_of(form: Form) -> list[str]:
    """What the table has a row for."""
    return [*form.fields, *form.settings]


def problems_of(form: Form, columns: list[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """What is wrong, by field; empty when the mapping can be used."""
    problems: dict[str, str] = {}
    for name in names_of(form):
        source = mapping.get(name, UNUSED)
        if not source:
            if name in form.required:
                problems[name] = _("Choose its column, or write a template.")
        elif source == TEMPLATE:
            problems[name] = (
                _("Write the names, separated by commas.")
                if _is_free(form, name)
                else _("Write a template with columns in braces, such as {question}.")
            )
        elif name in form.settings or root_of(source, columns) in columns or is_template(source):
            try:
                check_field(form, name, source, columns)
            except DataError as error:
                problems[name] = f"{error.message} {error.hint}"
        else:
            problems[name] = _("Put at least one column in braces, such as {question}.")
    return problems


def _field(form: Form, name: str, report: SourceReport) -> dict[str, Any]:
    """A row of the table: its column, and what is written where no column is enough."""
    needed = name in form.required
    free = _is_free(form, name)
    if free:
        choices: list[tuple[str, str]] = [(_("Names, separated by commas"), TEMPLATE)]
    elif name in form.settings:
        said = _(_SETTINGS[name])
        choices = [(said.format(value=value), value) for value in form.settings[name]]
    else:
        choices = [(column, column) for column in [*report.columns, *columns_inside(report.rows)]]
        choices.append((_("A template of several columns"), TEMPLATE))
    about = _MEANING_IN.get((form.name, name)) or _MEANING.get(name)
    if not needed:
        choices.insert(0, (_(_UNSET.get(name, NOTHING)), UNUSED))
    return {
        "name": name,
        "label": name if needed else _("{name} (optional)", name=name),
        "help": _(about) if about else "",
        "options": choices,
        "template": _("Names") if free else _("Template for {name}", name=name),
        "template_help": _("As many as the list has places.") if free else _(_BRACES),
    }


def _chosen(field: Mapping[str, Any], source: str) -> dict[str, str | None]:
    """What a row holds for a source."""
    offered = [value for _title, value in field["options"]]
    if source and source not in offered:
        return {"column": TEMPLATE, "template": source}
    return {"column": source if source in offered else None, "template": ""}


def _is_free(form: Form, name: str) -> bool:
    """Whether a setting is written, not chosen."""
    return name in form.settings and not form.settings[name]


def _source(column: str | None = None, template: str = "") -> str:
    if column != TEMPLATE:
        return column or UNUSED
    return template if template.strip() else TEMPLATE


def _wants_template(source: str) -> bool:
    return source == TEMPLATE or bool(source) and is_template(source)


def _samples(source: str, report: SourceReport) -> Markup:
    """A few values of the column; for a template, the columns it may name."""
    if source in report.samples:
        return html.mapping.samples(report.samples[source])
    return html.mapping.columns(report.columns) if _wants_template(source) else Markup()


class SavedMappings:
    """Its components and what they say; the import's choice wires them."""

    def __init__(self, app: App) -> None:
        self.app = app
        with gr.Row(visible=False, elem_classes="offer") as self.offered:
            self.offer_text = gr.HTML(apply_default_css=False)
            self.use = gr.Button(_("Use it"), scale=0, min_width=80)
        self.fitting = gr.State("")

    def build_list(self) -> None:
        """Makes the list, and the field that keeps this mapping, where it is called."""
        with gr.Row(elem_classes="saved-mappings"):
            self.choice = Dropdown([], label=_("Use a saved mapping"), min_width=200, visible=False)
            self.name = gr.Textbox(
                label=_("Save this mapping as"),
                placeholder="a-name",
                max_lines=1,
                submit_btn=_("Save"),
                min_width=200,
            )
        self.told = gr.HTML(apply_default_css=False)

    @property
    def inputs(self) -> list[Component]:
        return [self.choice, self.name, self.fitting]

    @property
    def outputs(self) -> set[Any]:
        return {self.offered, self.offer_text, self.choice, self.name, self.told, self.fitting}

    def offer(
        self, saved: SavedMapping | None, form: str | None, mapping: Mapping[str, str]
    ) -> dict[Any, Any]:
        """The list, and the mapping that fits unless it is what was recognised anyway."""
        other = saved is not None and (saved.form, saved.mapping) != (form, dict(mapping))
        name = saved.name if saved and other else ""
        return {
            self.fitting: name,
            self.offered: gr.Row(visible=bool(name)),
            self.offer_text: html.mapping.offer(name) if name else "",
            self.told: "",
            self.choice: self._list(),
        }

    def load(self, data: Mapping[Any, Any]) -> SavedMapping:
        """The one that was chosen, or else the one on offer. Raises DataError."""
        return load_mapping(self.app.workspace, data[self.choice] or data[self.fitting])

    def used(self, saved: SavedMapping) -> dict[Any, Any]:
        """It is in the table now."""
        text = _("Read as saved in {name}.", name=saved.name)
        return {
            self.offered: gr.Row(visible=False),
            self.told: html.plain.aside(text),
        }

    def save(
        self,
        data: Mapping[Any, Any],
        form: str,
        mapping: Mapping[str, str],
        system_prompt: str,
        columns: Sequence[str],
    ) -> dict[Any, Any]:
        """Keeps a mapping under the name that was typed."""
        name = (data[self.name] or "").strip()
        try:
            save_mapping(self.app.workspace, name, form, mapping, system_prompt, columns)
        except TunesmithError as error:
            return {self.told: messages.error(error)}
        text = _("Saved as {name}; it is offered for rows with these columns.", name=name)
        return {
            self.told: messages.note(text, "finished"),
            self.name: "",
            self.choice: self._list(),
        }

    def _list(self) -> gr.Dropdown:
        found = list_mappings(self.app.workspace)
        names = [one.name for one in found if not isinstance(one, DamagedMapping)]
        return gr.Dropdown(names, value=None, visible=bool(names))
