"""An editor for the reward functions of a run: choose a kind, fill in its options, try it.

What it makes goes as text into the field `reinforcement.rewards`, where it can be written by hand
as well; what stands there is what the run gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup
from pydantic import ValidationError

from core.config import SPEC_BY_PATH
from core.config.fields import FieldSpec
from core.config.reinforcement import ReinforcementSection
from core.errors import ConfigError, Problem, TunesmithError
from core.jobs.limits import Limit
from core.language import _
from core.methods import METHODS
from core.rewards.kinds import KINDS, Reward
from core.rewards.specs import FIELD, parse_reward, plain_reward
from webui import forms, messages
from webui.choice import Dropdown
from webui.context import CHOICE, QUIET, App
from webui.data.step_form import first_values, groups, marks, read_fields, section_specs
from webui.forms import Form
from webui.html import html

NEW = ""
# How long a function may take for one answer; a judge or a large reward model needs some.
PATIENCE = 300
_SHARED = tuple(Reward.model_fields)
_MODEL = "model.model_name_or_path"


class RewardEditor:
    """`box` is shown while the method learns from rewards; the field FIELD of the run's form holds
    the functions as text."""

    def __init__(self, app: App, run: Form) -> None:
        self.app, self.run = app, run
        self.shared_specs = section_specs(Reward, "reward")
        self.specs = {
            kind: [s for s in section_specs(section, f"reward.{kind}") if s.name not in _SHARED]
            for kind, section in KINDS.items()
        }
        with gr.Column(visible=False, elem_classes="card", elem_id="reward-editor") as self.box:
            gr.HTML(html.rewards.heading(), apply_default_css=False)
            self.listed = gr.HTML(apply_default_css=False, elem_id="reward-list")
            with gr.Row():
                self.entry = Dropdown(
                    [(_("A new function"), NEW)],
                    value=NEW,
                    label=_("Write or change"),
                    elem_id="reward-entry",
                )
                self.kind = gr.Dropdown(
                    [(_(section.title), kind) for kind, section in KINDS.items()],
                    value="json_valid",
                    label=_("Kind"),
                    elem_id="reward-kind",
                )
            self.about = gr.HTML(about("json_valid"), apply_default_css=False)
            self._build_form()
            with gr.Row(elem_classes="toolbar"):
                self.keep = gr.Button(_("Add this function"), elem_id="reward-add")
                self.remove = gr.Button(_("Remove it"), variant="stop", visible=False)
            self.said = gr.HTML(apply_default_css=False, elem_id="reward-said")
            self._build_trial()
        self.form.render()
        self.outputs = {self.box, self.listed, self.entry}
        self.shown = {self.kind, self.about, self.keep, self.remove, self.said}
        self.shown |= {self.form.marks, self.form.filled}

    def _build_form(self) -> None:
        """The settings of all kinds, of which those of one are shown."""
        every = [spec for specs in self.specs.values() for spec in specs] + self.shared_specs
        self.form = Form("reward", first_values(every))
        shown = [
            group
            for kind, specs in self.specs.items()
            for group in groups(specs, _("More settings"), f"fold-reward-{kind}")
        ]
        self.form.part([*shown, *groups(self.shared_specs, _("Its name"), "fold-reward-name")])
        first = {spec.name: spec.default for spec in self._specs("json_valid")}
        self.form.open_with(marks(self.form, self._specs("json_valid"), first))

    @property
    def inputs(self) -> set[Component]:
        chosen = {self.entry, self.kind, self.prompt, self.completion, self.answer}
        return {*self.run.parts, *self.form.parts, *chosen}

    def _build_trial(self) -> None:
        with gr.Accordion(_("Try it on one answer"), open=False, elem_classes="fold"):
            with gr.Row():
                self.prompt = gr.Textbox(label=_("Prompt"), lines=2, max_lines=6)
                self.completion = gr.Textbox(
                    label=_("Answer of the model"),
                    lines=2,
                    max_lines=6,
                    elem_id="reward-completion",
                )
                self.answer = gr.Textbox(
                    label=_("Reference answer"), lines=2, max_lines=6, placeholder=_("none")
                )
            self.trial = gr.Button(_("Try it"), elem_id="reward-try")
            self.tried = gr.HTML(apply_default_css=False, elem_id="reward-tried")

    # -- handlers

    def follow(self, held: Mapping[str, Any]) -> dict[Any, Any]:
        """After every change of the settings: whether it is shown, and the functions there are."""
        if not METHODS[held["method"]].generates:
            return {self.box: gr.Column(visible=False)}
        entries, problem = entries_in(held[FIELD])
        choices: list[tuple[str, str]] = [(_("A new function"), NEW)]
        choices += [(f"{n}: {_name(one)}", str(n)) for n, one in enumerate(entries, 1)]
        return {
            self.box: gr.Column(visible=True),
            self.listed: listing(entries, problem),
            self.entry: gr.Dropdown(choices),
        }

    def choose_kind(self, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """Another kind: its own options."""
        return {self.about: about(data[self.kind]), **self._mark(data), self.said: ""}

    def choose_entry(self, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """One of the functions there are, with its options, or a new one."""
        entries, _problem = entries_in(self.run.held(data)[FIELD])
        number = data[self.entry]
        is_new = number == NEW or not number.isdigit() or int(number) > len(entries)
        given = {"kind": data[self.kind]} if is_new else entries[int(number) - 1]
        kind = str(given.get("kind"))
        kind = kind if kind in KINDS else "json_valid"
        specs = [*self.specs[kind], *self.shared_specs]
        values = {spec.name: given.get(spec.name, spec.default) for spec in specs}
        return {
            self.kind: kind,
            self.about: about(kind),
            self.said: "",
            **self.form.fill({spec.path: values[spec.name] for spec in specs}),
            **marks(self.form, specs, values),
            self.keep: gr.Button(_("Add this function") if is_new else _("Keep the change")),
            self.remove: gr.Button(visible=not is_new),
        }

    def change(self, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """Which options matter now."""
        return self._mark(data, None)

    def add(self, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """Puts the function into the field, in the place of the one that was chosen."""
        entries, problem = entries_in(self.run.held(data)[FIELD])
        if problem:
            return {self.said: messages.error(problem, _("Mend the text of the field first."))}
        try:
            entry = self._entry(data)
        except ConfigError as error:
            return self._refused(error, data)
        number = data[self.entry]
        if number.isdigit() and int(number) <= len(entries):
            entries[int(number) - 1] = entry
        else:
            entries.append(entry)
        return {
            **self.run.fill({FIELD: entries}, data=data),
            self.said: messages.note(
                _("{function} is among them.", function=_name(entry)), "finished"
            ),
            **self._mark(data),
        }

    def take_out(self, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """Removes the chosen function."""
        entries, _problem = entries_in(self.run.held(data)[FIELD])
        number = int(data[self.entry] or 0)
        kept = [one for place, one in enumerate(entries, 1) if place != number]
        return {
            **self.run.fill({FIELD: kept}, data=data),
            self.entry: NEW,
            self.keep: gr.Button(_("Add this function")),
            self.remove: gr.Button(visible=False),
            self.said: "",
        }

    def try_it(self, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """What the function says of the answer; in a process of its own, for it may be any code."""
        try:
            entry = self._entry(data)
        except ConfigError as error:
            return self._refused(error, data)
        call = self.app.pool.submit(
            "core.worker.rewards:try_reward",
            self.app.workspace.root,
            entry,
            data[self.prompt] or "",
            data[self.completion] or "",
            data[self.answer] or None,
            self.run.held(data)[_MODEL] or "",
            within=Limit(PATIENCE),
        )
        try:
            found = call.result(timeout=PATIENCE)
        except TunesmithError as error:
            return {self.tried: messages.error(error), self.said: "", **self._mark(data)}
        except TimeoutError:
            told = _("It gave nothing within {seconds} seconds.", seconds=PATIENCE)
            return {self.tried: messages.error(told, _("Try a shorter answer."))}
        return {self.tried: result(found), self.said: "", **self._mark(data)}

    def _specs(self, kind: str) -> list[FieldSpec]:
        return [*self.specs[kind], *self.shared_specs]

    def _values(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        return read_fields(self._specs(data[self.kind]), self.form.held(data))

    def _entry(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        """The function as it was filled in. Raises ConfigError."""
        kind, options = parse_reward({"kind": data[self.kind], **self._values(data)})
        return plain_reward(kind, options.model_dump())

    def _mark(
        self, data: Mapping[Component, Any], problems: tuple[Problem, ...] | None = ()
    ) -> dict[Component, Any]:
        specs, held = self._specs(data[self.kind]), self.form.held(data)
        return marks(self.form, specs, {s.name: held[s.path] for s in specs}, problems)

    def _refused(self, error: ConfigError, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """What is wrong, at its option; above the button what concerns several."""
        kind = data[self.kind]
        at_options = tuple(
            replace(
                p, field=f"reward.{p.field}" if p.field in _SHARED else f"reward.{kind}.{p.field}"
            )
            for p in error.problems
            if p.field
        )
        whole = [p.message for p in error.problems if not p.field]
        text = " ".join(message[:1].upper() + message[1:] for message in whole)
        told = text or _("An option is not right; it says so itself.")
        return {self.said: messages.error(told), **self._mark(data, at_options)}

    # -- wiring

    def wire(self) -> None:
        quiet = QUIET
        run, form = self.run, self.form
        form.wire()
        self.kind.input(self.choose_kind, self.inputs, self.shown, **CHOICE)
        self.entry.input(self.choose_entry, self.inputs, self.shown, **CHOICE)
        gr.on(
            form.edits, self.change, self.inputs, {form.marks}, trigger_mode="always_last", **quiet
        )
        added = {run.filled, self.said, form.marks}
        removed = {run.filled, self.entry, self.keep, self.remove, self.said}
        self.keep.click(self.add, self.inputs, added, **quiet)
        self.remove.click(self.take_out, self.inputs, removed, **quiet)
        self.trial.click(
            self.try_it,
            self.inputs,
            {self.tried, self.said, form.marks},
            concurrency_limit=None,
            **{**QUIET, "show_progress": "minimal", "show_progress_on": self.tried},
        )


def entries_in(text: str) -> tuple[list[dict[str, Any]], str]:
    """(the functions that the field's text names, what is wrong with it or "")."""
    try:
        values = forms.read(SPEC_BY_PATH[FIELD], text or "")
        return list(ReinforcementSection(rewards=values).rewards), ""
    except ConfigError as error:
        return [], " ".join(problem.message for problem in error.problems)
    except ValidationError as error:
        return [], "; ".join(str(item["msg"]) for item in error.errors())


def listing(entries: list[dict[str, Any]], problem: str) -> Markup:
    """The functions as a list, with what is wrong with one beside it."""
    if problem:
        return messages.error(_("The text of the field cannot be read: {reason}", reason=problem))
    if not entries:
        return messages.note(_("There is none yet. Choose a kind, fill it in and add it."))
    lines: list[tuple[Markup, str, str]] = []
    for one in entries:
        kind = KINDS.get(str(one.get("kind")))
        told = kind.sentence() if kind else _("This kind is not known.")
        wrong = ""
        try:
            parse_reward(one)
        except ConfigError as error:
            wrong = error.message
        given = one.get("weight", 1)
        named = Markup(_("{function} times {weight}")).format(
            function=html.plain.strong(_name(one)),
            weight=f"{given:g}" if isinstance(given, int | float) else given,
        )
        lines.append((named, told, wrong))
    return html.rewards.listing(lines)


def about(kind: str) -> Markup:
    """What a kind rewards."""
    section = KINDS[kind]
    needs = _("The rows need reference answers.") if section.needs_answer else ""
    return html.plain.aside(f"{_(section.sentence())} {needs}".strip())


def result(found: Mapping[str, Any]) -> Markup:
    """What a function said of an answer."""
    reward, weighted = found["reward"], found["weighted"]
    if reward is None:
        told = _("None: it does not apply to this answer. Is the reference missing?")
        return messages.note(told)
    if weighted == reward:
        told = _("Reward {reward:.4g}", reward=reward)
    else:
        told = _(
            "Reward {reward:.4g}, with its weight {weighted:.4g}", reward=reward, weighted=weighted
        )
    return messages.note(told, "finished")


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry.get("function") or entry.get("kind") or "?")
