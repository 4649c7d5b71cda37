"""The chat template: which one is used, and writing one's own; and what is learned of a
conversation.

They are the same settings as Configure's `data.chat_template`, `data.learn` and
`data.learn_thoughts`: what is chosen here goes into the fields there, and with them into the run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.config import SPEC_BY_PATH, FieldSpec
from core.errors import TunesmithError
from core.language import N_, _
from core.models.location import local_model
from core.tokens.chat_templates import (
    MODELS_OWN,
    TemplateProblem,
    check_template,
    delete_template,
    list_templates,
    load_template,
    save_template,
    template_of_model,
    template_remarks,
)
from core.tokens.lens import Lens
from webui import forms, messages
from webui.choice import Dropdown
from webui.context import CHOICE, HIDDEN, QUIET, App, Shared
from webui.html import html

FIELD = "data.chat_template"
LEARNED = ("data.learn", "data.learn_thoughts")
OWN_TITLE = N_("The model's own")
# Lines shown before and after the one that is wrong.
AROUND = 2


def template_choices(app: App) -> list[tuple[str, str]]:
    """Title and name of each template, the model's own first."""
    found = [(_title(one.name, one.title, one.source), one.name) for one in _listed(app)]
    return [(_(OWN_TITLE), MODELS_OWN), *found]


def _listed(app: App) -> list[Any]:
    return list_templates(app.workspace)


def _title(name: str, title: str, source: str) -> str:
    return _("{name} (yours)", name=name) if source == "own" else _(title)


class TemplateChoice:
    """A list of templates and an editor; `draft` holds the text of a sound one that is being
    written, and "" otherwise."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        with gr.Row(visible=False, elem_classes="toolbar template-bar") as self.bar:
            self.choice = Dropdown(
                template_choices(app),
                value=MODELS_OWN,
                label=_("Chat template"),
                scale=0,
                min_width=300,
                elem_id="template",
            )
            self.edit = gr.Button(_("Edit"), scale=0, min_width=80)
            self.learned = [self._choice_of(SPEC_BY_PATH[path]) for path in LEARNED]
            about = _(
                "How turns become one text, and what of it is learned. The run takes what is "
                "chosen here, and the trained model keeps the template."
            )
            gr.HTML(html.plain.aside(about), apply_default_css=False)
        with gr.Column(visible=False, elem_classes="card", elem_id="template-editor") as self.box:
            self._build_editor()
        self.draft = gr.Textbox("", **HIDDEN, label="Draft of a template")

    @staticmethod
    def _choice_of(spec: FieldSpec) -> gr.Dropdown:
        return gr.Dropdown(
            forms.options(spec),
            value=spec.default,
            label=_(spec.label),
            scale=0,
            min_width=200,
            elem_id=f"rows-{spec.name.replace('_', '-')}",
        )

    def _build_editor(self) -> None:
        self.text = gr.Code(
            label=_("Chat template (Jinja)"),
            language="jinja2",
            lines=8,
            max_lines=18,
            interactive=True,
            wrap_lines=True,
            elem_id="template-text",
            buttons=["copy"],
            visible=False,  # an editor's code is fetched when there is something to edit
        )
        self.problem = gr.HTML(apply_default_css=False, elem_id="template-problem")
        with gr.Row(elem_classes="toolbar"):
            self.name = gr.Textbox(
                label=_("Save it as"), max_lines=1, scale=0, min_width=240, elem_id="template-name"
            )
            self.save = gr.Button(_("Save and use"), variant="primary", scale=0, min_width=130)
            self.close = gr.Button(_("Close without saving"), scale=0, min_width=160)
            self.delete = gr.Button(
                _("Delete this template"), variant="stop", scale=0, min_width=160, visible=False
            )

    def title(self, lens: Lens) -> str:
        """How the template that `lens` names is called in a sentence."""
        if lens.chat_template == MODELS_OWN:
            return _("the model's own template")
        return _("the template {name}", name=lens.chat_template)

    # -- handlers

    @property
    def lists(self) -> list[gr.Dropdown]:
        return [self.choice, *self.learned]

    def follow(self, lens_text: str) -> dict[Any, Any]:
        """The lists as they are now, with what Configure has."""
        lens = Lens.read(lens_text)
        values = {"method": lens.method, **dict(zip(LEARNED, _learned(lens), strict=True))}
        now = [gr.Dropdown(template_choices(self.app), value=lens.chat_template)]
        for path in LEARNED:
            is_shown = SPEC_BY_PATH[path].shown(values)
            now.append(gr.Dropdown(value=values[path], visible=is_shown))
        return dict(zip(self.lists, now, strict=True))

    def learn(self, turns: Any, thoughts: Any, lens_text: str) -> tuple[str, ...]:
        """What is learned, for Configure's fields, and for how rows become tokens."""
        lens = replace(Lens.read(lens_text), learn=turns, learn_thoughts=thoughts)
        return self._filled(dict(zip(LEARNED, _learned(lens), strict=True))), lens.write()

    def choose(self, name: str, lens_text: str) -> tuple[str, str]:
        """Another template: for Configure's field, and for how rows become tokens."""
        return self._filled({FIELD: name}), _with_template(lens_text, name)

    def _filled(self, values: dict[str, Any], choices: list[Any] | None = None) -> str:
        """Configure's form with these values."""
        form = self.shared.form
        return str(form.fill(values, {FIELD: choices} if choices else None)[form.filled])

    def open(self, lens_text: str) -> tuple[Any, ...]:
        """The text of the chosen template, to be changed."""
        lens = Lens.read(lens_text)
        own = {one.name for one in _listed(self.app) if one.source == "own"}
        is_own = lens.chat_template in own
        try:
            text, note = self._text(lens), ""
        except TunesmithError as error:
            text, note = "", messages.error(error)
        name = lens.chat_template if is_own else _new_name(lens.chat_template, own)
        shown = gr.Code(text, visible=True)
        return gr.Column(visible=True), shown, name, note, gr.Button(visible=is_own)

    def _text(self, lens: Lens) -> str:
        if lens.chat_template != MODELS_OWN:
            return load_template(lens.chat_template, self.app.workspace)
        folder = local_model(self.app.workspace, lens.model)
        return template_of_model(folder) if folder else ""

    def check(self, text: str) -> tuple[Markup, str]:
        """What is wrong with the text, at its line; a sound one becomes the draft."""
        problem = check_template(text or "")
        if problem is None:
            fine = messages.note(_("It can be used. The rows below are shown with it."), "finished")
            remarks = (messages.note(one) for one in template_remarks(text))
            return fine + Markup().join(remarks), text
        return problem_at(text or "", problem), ""

    def keep(self, name: str, text: str, lens_text: str) -> tuple[Any, ...]:
        """Saves the text under a name and chooses it."""
        try:
            saved = save_template(self.app.workspace, (name or "").strip(), text or "")
        except TunesmithError as error:
            problem = check_template(text or "")
            said = problem_at(text or "", problem) if problem else messages.error(error)
            return said, *[gr.skip()] * 5
        choices = template_choices(self.app)
        return (
            "",
            gr.Dropdown(choices, value=saved.name),
            _with_template(lens_text, saved.name),
            "",
            gr.Column(visible=False),
            self._filled({FIELD: saved.name}, choices),
        )

    def remove(self, lens_text: str) -> tuple[Any, ...]:
        """Deletes the chosen template and goes back to the model's own."""
        try:
            delete_template(self.app.workspace, Lens.read(lens_text).chat_template)
        except TunesmithError as error:
            return messages.error(error), *[gr.skip()] * 5
        choices = template_choices(self.app)
        return (
            "",
            gr.Dropdown(choices, value=MODELS_OWN),
            _with_template(lens_text, MODELS_OWN),
            "",
            gr.Column(visible=False),
            self._filled({FIELD: MODELS_OWN}, choices),
        )

    # -- wiring

    def wire(self, look: gr.Radio, shown_for: str) -> None:
        """`look` shows the tokens when its value is `shown_for`."""
        shared = self.shared
        quiet = QUIET
        look.change(self.follow, shared.lens, {*self.lists}, **CHOICE)
        # By itself: an answer from before the click, which comes after it, would hide the bar.
        look.change(lambda how: gr.Row(visible=how == shown_for), look, self.bar, **CHOICE)
        self.edit.click(
            self.open,
            shared.lens,
            [self.box, self.text, self.name, self.problem, self.delete],
            **quiet,
        )
        self.text.input(
            self.check, self.text, [self.problem, self.draft], trigger_mode="always_last", **quiet
        )
        self.close.click(
            lambda: (gr.Column(visible=False), ""), None, [self.box, self.draft], **quiet
        )
        shared.finally_wire.append(self._wire_setting)

    def _wire_setting(self) -> None:
        """Configure's field is there only when all tabs have been built."""
        shared, filled = self.shared, self.shared.form.filled
        quiet = QUIET
        done = [self.problem, self.choice, shared.lens, self.draft, self.box, filled]
        self.choice.input(self.choose, [self.choice, shared.lens], [filled, shared.lens], **CHOICE)
        self.save.click(self.keep, [self.name, self.text, shared.lens], done, **quiet)
        self.delete.click(self.remove, shared.lens, done, **quiet)
        gr.on(
            [choice.input for choice in self.learned],
            self.learn,
            [*self.learned, shared.lens],
            [filled, shared.lens],
            **CHOICE,
        )


def problem_at(text: str, problem: TemplateProblem) -> Markup:
    """A template's problem, with the line it is at and those around it."""
    wrong = problem.line or 0
    said = _("Line {n}: {message}", n=wrong, message=problem.message) if wrong else problem.message
    first = max(wrong - 1 - AROUND, 0)
    around = text.splitlines()[first : wrong + AROUND]
    return html.template_choice.problem(said, list(enumerate(around, first + 1)), wrong)


def _learned(lens: Lens) -> tuple[str, str]:
    return lens.learn, lens.learn_thoughts


def _with_template(lens_text: str, name: str) -> str:
    return replace(Lens.read(lens_text), chat_template=name).write()


def _new_name(template: str, taken: set[str]) -> str:
    """A free name for a changed copy of a template."""
    base = "my-template" if template == MODELS_OWN else f"my-{template}"
    names = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)
