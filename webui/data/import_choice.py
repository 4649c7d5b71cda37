"""How what was brought is read: its form, the column of each field, what is held out, a system
prompt, a recipe of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.config.fields import field_specs
from core.data.conversion import convert_all, unused_turn_keys
from core.data.detection import guess_mapping, unused_warnings
from core.data.forms import FORMS, Form, meta_of
from core.data.inspection import SourceReport
from core.data.mappings import best_mapping
from core.data.steps import parse_step, parse_steps, read_recipe, with_step
from core.data.steps.base import Step
from core.data.steps.split import Split
from core.data.turn_keys import note_keys
from core.errors import ConfigError, DataError, TunesmithError
from core.language import N_, _, n_
from webui import background, messages
from webui.choice import Dropdown
from webui.context import CHOICE, QUIET, App
from webui.data import import_sources
from webui.data.import_sources import Found, look_at, look_at_held_out
from webui.data.mapping import MappingTable, SavedMappings, problems_of
from webui.html import html

_NEXT = N_("Choose what the rows are, then a column or a template for each field.")


class ImportChoice:
    """Its components, handlers and wiring. `found` holds what was brought, while it is chosen."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.found = gr.State(None)
        self.recognised = gr.HTML(apply_default_css=False)
        self.saved = SavedMappings(app)
        with gr.Row(elem_classes="form-choice"):
            self.form = Dropdown([], label=_("What the rows are"), elem_id="form", scale=3)
            self.name = gr.Textbox(
                label=_("Name of the data set"),
                max_lines=1,
                scale=2,
                info=_("As it stands in lists; it can be changed later."),
            )
        self.table = MappingTable()
        self.saved.build_list()
        with gr.Row(elem_classes="split"):
            with gr.Column(min_width=300):
                self.hold_out = HoldOut()
            with gr.Column(min_width=300):
                self.system = gr.Textbox(
                    label=_("System prompt for rows without one"),
                    lines=2,
                    max_lines=4,
                    info=_("Goes before each conversation, in training and later in Chat."),
                )
                self.recipe = Recipe()
        self.drops = gr.HTML(apply_default_css=False)
        self.preview = gr.HTML(elem_id="import-preview", apply_default_css=False)
        self.go = gr.Button(_("Import"), variant="primary", scale=0, min_width=140, render=False)

    # -- handlers

    def show(self, found: Found) -> dict[Any, Any]:
        """All of the panel for something new."""
        report = found.report
        form = FORMS[report.form] if report.form else None
        saved = best_mapping(self.app.workspace, report.columns)
        return {
            self.found: found,
            self.recognised: import_sources.recognised(found),
            self.drops: import_sources.would_drop(report),
            self.name: gr.Textbox(found.name),
            self.form: _forms(report.forms_possible, form),
            **self.table.show(form, report, report.mapping),
            **self.saved.offer(saved, report.form, report.mapping),
            **self._after(found, form, report.mapping, "", fresh=True),
        }

    def _after(
        self,
        found: Found,
        form: Form | None,
        mapping: Mapping[str, str],
        system: str,
        *,
        fresh: bool = False,
    ) -> dict[Any, Any]:
        """What follows a choice: the preview, whether an import is possible, what can be held
        out. `fresh` when the form is another."""
        report = found.report
        if form is None:
            raw = messages.note(_NEXT) + import_sources.raw_rows(report.rows)
            return {self.preview: raw, self.go: gr.Button(interactive=False)}
        wrong = problems_of(form, report.columns, mapping)
        shown = (
            import_sources.raw_rows(report.rows)
            if wrong
            else import_sources.first_rows(report.rows, form.name, mapping, system)
        )
        warnings = unused_warnings(report.rows, form.name, mapping)
        shown = Markup().join(messages.note(one, "stopped") for one in warnings) + shown
        beside = dict.fromkeys(name for row in report.rows for name in meta_of(row, mapping))
        updates = {
            self.preview: shown,
            self.go: gr.Button(interactive=not wrong),
            **self.hold_out.groups(list(beside)),
        }
        if fresh:
            turns = has_turns(form.name)
            updates[self.system] = gr.Textbox(visible=turns)
            updates |= self.hold_out.fit(form.standard)
        return updates

    def choose_form(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Another form: its fields, with columns guessed by their names."""
        found: Found = data[self.found]
        form = FORMS[data[self.form]]
        mapping = guess_mapping(found.report.rows, form.name)
        return self._chosen(found, form, mapping, data[self.system] or "")

    def use_saved(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """A saved mapping takes the place of what was chosen."""
        found: Found = data[self.found]
        try:
            saved = self.saved.load(data)
        except TunesmithError as error:
            return {self.saved.told: messages.error(error)}
        form = FORMS[saved.form]
        system = saved.system_prompt or data[self.system] or ""
        return {
            **self._chosen(found, form, saved.mapping, system),
            self.system: gr.Textbox(system, visible=has_turns(form.name)),
            **self.saved.used(saved),
        }

    def save(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Keeps the mapping under a name."""
        form = FORMS.get(data[self.form] or "")
        mapping = self.table.read(data, form) if form else {}
        system = (data[self.system] or "") if form and has_turns(form.name) else ""
        columns = data[self.found].report.columns
        return self.saved.save(data, form.name if form else "", mapping, system, columns)

    def take_recipe(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Steps from a file; its form and mapping, where they fit these columns."""
        steps, recipe, told = self.recipe.read(data[self.recipe.file])
        updates: dict[Any, Any] = {self.recipe.steps: steps, self.recipe.told: told}
        found, name = data[self.found], recipe.get("form")
        mapping = recipe.get("mapping") or {}
        if name in FORMS and not problems_of(FORMS[name], found.report.columns, mapping):
            system = recipe.get("system_prompt") or data[self.system] or ""
            updates |= self._chosen(found, FORMS[name], mapping, system)
            updates[self.system] = gr.Textbox(system, visible=has_turns(name))
        return updates

    def _chosen(
        self, found: Found, form: Form, mapping: Mapping[str, str], system: str
    ) -> dict[Any, Any]:
        return {
            self.form: _forms(found.report.forms_possible, form),
            **self.table.show(form, found.report, mapping),
            **self._after(found, form, mapping, system, fresh=True),
        }

    def choose_column(self, data: dict[Component, Any]) -> Any:
        """Another column or template: what is wrong with it, and what the rows become."""
        found, form = data[self.found], FORMS.get(data[self.form] or "")
        if found is None or form is None:
            return gr.skip()
        mapping = self.table.read(data, form)
        return {
            **self.table.tell(form, found.report, mapping),
            **self._after(found, form, mapping, data[self.system] or ""),
        }

    def look_closer(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """What a choice means for all rows, and for those of a second file."""
        return {
            self.drops: self.count_drops(data),
            self.hold_out.problem: self.look_second(data),
        }

    def count_drops(self, data: dict[Component, Any]) -> str:
        """Which rows would be dropped with the choice made; of a Hub data set only the first."""
        found, form = data[self.found], FORMS.get(data[self.form] or "")
        if found is None or form is None:
            return ""
        mapping = self.table.read(data, form)
        if problems_of(form, found.report.columns, mapping):
            return ""
        if found.report.container == "hub":
            return import_sources.would_drop(_kept_looked_at(found.report, form, mapping))
        try:
            again = look_at(
                self.app.workspace, found.sources, background.Task(), form.name, mapping
            )
        except TunesmithError as error:
            return messages.error(error)
        return import_sources.would_drop(again.report)

    def look_second(self, data: dict[Component, Any]) -> str:
        """Whether the file with the held-out rows fits, before the import reads the first one."""
        held, form = self.hold_out, FORMS.get(data[self.form] or "")
        source = held.second_file(data)
        if source is None or form is None or data[self.found] is None:
            return held.about_second(data[held.how])
        mapping = self.table.read(data, form)
        try:
            report = look_at_held_out(
                self.app.workspace, source, background.Task(), form.name, mapping
            )
        except TunesmithError as error:
            return messages.error(error)
        return held.tell_second(report)

    def asked(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        """The arguments of `import_dataset` that say how to read. Raises DataError, ConfigError."""
        form = FORMS[data[self.form]]
        steps = parse_steps(data[self.recipe.steps])
        split = self.hold_out.step(data, form.standard)
        if split and not any(step.op == "split" for step in steps):
            steps = with_step(steps, split)
        return {
            "name": data[self.name],
            "form": form.name,
            "mapping": self.table.read(data, form),
            "eval_source": self.hold_out.second_source(data),
            "eval_fraction": 0.0,
            "system_prompt": (data[self.system] or "") if has_turns(form.name) else "",
            "steps": steps,
        }

    # -- wiring

    @property
    def inputs(self) -> set[Component]:
        return {
            self.found,
            self.form,
            self.name,
            self.system,
            self.recipe.file,
            self.recipe.steps,
            self.table.held,
            *self.hold_out.inputs,
            *self.saved.inputs,
        }

    @property
    def outputs(self) -> set[Any]:
        """What `show` may change."""
        return {
            self.found,
            self.recognised,
            self.form,
            self.name,
            self.system,
            self.drops,
            self.preview,
            self.go,
            self.recipe.file,
            self.recipe.steps,
            self.recipe.told,
            self.table.held,
            self.table.told,
            *self.hold_out.outputs,
            *self.saved.outputs,
        }

    def wire(self) -> None:
        quiet = QUIET
        latest: dict[str, Any] = {"trigger_mode": "always_last", **quiet}
        inputs, outputs = self.inputs, self.outputs
        saved = [self.saved.use.click, self.saved.choice.input]
        recipe = [self.recipe.file.upload, self.recipe.file.clear]
        columns = [self.table.held.input, self.system.blur]
        chosen = [
            self.form.select(self.choose_form, inputs, outputs, **latest),
            gr.on(saved, self.use_saved, inputs, outputs, **CHOICE),
            gr.on(recipe, self.take_recipe, inputs, outputs, **quiet),
            gr.on(columns, self.choose_column, inputs, outputs, **latest),
        ]
        looked = {self.drops, self.hold_out.problem}
        for event in chosen:
            event.then(self.look_closer, inputs, looked, **latest)
        self.saved.name.submit(self.save, inputs, outputs, **quiet)
        held = self.hold_out
        held.how.input(held.show, held.how, held.outputs, **CHOICE).then(
            self.look_second, inputs, held.problem, **latest
        )
        gr.on(
            [held.second.upload, held.second.clear],
            self.look_second,
            inputs,
            held.problem,
            **latest,
        )


def _forms(possible: Sequence[str], chosen: Form | None) -> gr.Dropdown:
    """All forms, those first that these columns have; a template can make the others."""
    names = [*possible, *(name for name in FORMS if name not in possible)]
    help = _(chosen.help) if chosen else _("Nothing was recognised; say what the rows are.")
    return gr.Dropdown(
        [(_(FORMS[name].title), name) for name in names],
        value=chosen.name if chosen else None,
        info=help,
    )


def _kept_looked_at(report: SourceReport, form: Form, mapping: Mapping[str, str]) -> SourceReport:
    """The report with what is wrong with the rows that are at hand."""
    problems = []
    unused: Counter[str] = Counter()
    for number, row in enumerate(report.rows, 1):
        made, reasons, _ = convert_all(row, form.name, mapping)
        if made:
            note_keys(unused, unused_turn_keys(row, mapping))
        else:
            problems.append({"line": number, "reason": reasons[0], "file": report.path.name})
    return replace(report, problems=problems, problem_count=len(problems), unused_keys=dict(unused))


SHARE, SECOND_FILE, NONE = "share", "file", "none"
NO_GROUP = ""
_ABOUT_SECOND = N_(
    "Any file that can be imported, with the same kind of rows. All of it is held out; a test "
    "share is taken from the first file."
)
_NO_TURNS = ("text", "labelled-text")


class HoldOut:
    """Which rows are not learned; it becomes the step `split`."""

    def __init__(self) -> None:
        self.how = gr.Radio(
            [(_("a share"), SHARE), (_("a second file"), SECOND_FILE), (_("nothing"), NONE)],
            value=SHARE,
            label=_("Hold out for evaluation"),
            info=_("Rows that are never trained on show when to stop."),
        )
        self.second = gr.File(
            label=_("The held-out rows"), visible=False, height=100, elem_id="second"
        )
        self.problem = gr.HTML(elem_id="second-told", apply_default_css=False)
        with gr.Row() as self.shares:
            self.fraction = gr.Number(0.1, label=_("Share"), min_width=90, step=0.05)
            self.test = gr.Number(0.0, label=_("Test share"), min_width=90, step=0.05)
            self.seed = gr.Number(42, label=_("Seed"), precision=0, min_width=90)
        self.stratify = gr.Checkbox(
            False,
            label=_("Keep the mix of labels"),
            visible=False,
            info=_("Each part gets its share of every label."),
        )
        self.group = Dropdown(
            [(_("nothing"), NO_GROUP)],
            label=_("Keep together by column"),
            value=NO_GROUP,
            info=_("Rows with the same value, such as one customer, land in one part."),
        )

    @property
    def inputs(self) -> list[Component]:
        return [
            self.how,
            self.fraction,
            self.test,
            self.seed,
            self.second,
            self.stratify,
            self.group,
        ]

    @property
    def outputs(self) -> set[Any]:
        return {self.shares, self.fraction, self.second, self.stratify, self.group, self.problem}

    def show(self, how: str) -> dict[Any, Any]:
        """Which of the settings matter for this choice."""
        return {
            self.shares: gr.Row(visible=how != NONE),
            self.fraction: gr.Number(visible=how == SHARE),
            self.second: gr.File(visible=how == SECOND_FILE),
            self.group: gr.Dropdown(visible=how != NONE),
            self.problem: self.about_second(how),
        }

    def about_second(self, how: str) -> Markup:
        """What a second file is for, until there is one."""
        return html.plain.aside(_ABOUT_SECOND) if how == SECOND_FILE else Markup()

    def fit(self, standard: str) -> dict[Any, Any]:
        """The settings for rows of a standard form."""
        labelled = standard == "labelled-text"
        return {self.stratify: gr.Checkbox(visible=labelled, value=labelled)}

    def groups(self, columns: Sequence[str]) -> dict[Any, Any]:
        """The columns that rows can be kept together by: those that stay beside a row."""
        choices = [(_("nothing"), NO_GROUP), *((name, name) for name in columns)]
        return {self.group: gr.Dropdown(choices)}

    def step(self, data: Mapping[Any, Any], standard: str) -> Step | None:
        """The split that was asked for. Raises DataError that names what is wrong."""
        how, share = data[self.how], data[self.fraction]
        if how == NONE:
            return None
        spec = {
            "op": "split",
            "eval_fraction": (0.0 if share is None else share) if how == SHARE else 0.0,
            "test_fraction": data[self.test] or 0.0,
            "seed": int(data[self.seed] or 0),
            "stratify": bool(data[self.stratify]) and standard == "labelled-text",
            "group_by": data[self.group] or "",
        }
        if not spec["eval_fraction"] and not spec["test_fraction"]:
            return None
        try:
            return parse_step(spec)
        except ConfigError as error:
            labels = {field.path: field.label for field in field_specs(Split)}
            raise DataError(_told(error, labels), _("Change it under Hold out.")) from error

    def tell_second(self, report: SourceReport) -> Markup:
        """What the second file holds."""
        name, rows, unusable = report.path.name, report.total_rows, report.problem_count
        told = _("{name}: its rows will be held out", name=name)
        if rows is not None:
            told = n_(
                "{name}: {n} row will be held out",
                "{name}: {n:,} rows will be held out",
                rows,
                name=name,
            )
        if not unusable:
            return messages.note(_("{told}.", told=told), "finished")
        first = report.problems[0]
        text = _(
            "{told}, less {n:,} that cannot be used (line {line}: {reason}).",
            told=told,
            n=unusable,
            line=first["line"],
            reason=first["reason"],
        )
        return messages.note(text, "stopped")

    def second_file(self, data: Mapping[Any, Any]) -> str | None:
        """The file with the held-out rows, if one is wanted and there."""
        wanted = data[self.how] == SECOND_FILE and data[self.second]
        return str(data[self.second]) if wanted else None

    def second_source(self, data: Mapping[Any, Any]) -> str | None:
        """The file with the held-out rows, if there is to be one. Raises DataError."""
        if data[self.how] == SECOND_FILE and not data[self.second]:
            raise DataError(_("No second file was given."), _("Drop one, or take a share."))
        return self.second_file(data)


class Recipe:
    """A list of steps from a file, done to the rows while they come in."""

    def __init__(self) -> None:
        with gr.Accordion(_("Apply a recipe of steps"), open=False, elem_classes="fold"):
            about = _(
                "A recipe is what Clean and shape recorded for another data set (Manage, Download "
                "the recipe), or a YAML file of your own. Its form and mapping are taken over "
                "where these columns allow it."
            )
            gr.HTML(html.plain.aside(about), apply_default_css=False)
            self.file = gr.File(label=_("Recipe (YAML)"), height=100)
            self.told = gr.HTML(apply_default_css=False)
        self.steps = gr.State([])

    def read(self, path: str | None) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
        """(records of the steps, the whole recipe, what is shown of it)."""
        if not path:
            return [], {}, ""
        try:
            recipe = read_recipe(Path(path))
            steps = parse_steps(recipe["steps"])
        except ConfigError as error:
            return [], {}, messages.error(_told(error), _("Mend the recipe and drop it again."))
        except TunesmithError as error:
            return [], {}, messages.error(error)
        if not steps:
            return [], recipe, messages.note(_("It has no steps."))
        has_split = any(step.op == "split" for step in steps)
        return [s.spec() for s in steps], recipe, html.import_choice.recipe(steps, has_split)


def has_turns(form: str) -> bool:
    """Whether rows of a source form have a place for a system prompt."""
    return FORMS[form].standard not in _NO_TURNS


def _told(error: ConfigError, labels: Mapping[str, str] | None = None) -> str:
    """Each problem after its field's name, or its label where `labels` knows one."""
    named = ((one.field.rpartition(".")[2], one.message) for one in error.problems)
    return "; ".join(f"{(labels or {}).get(name, name)}: {message}" for name, message in named)
