"""Models on the Hub or ModelScope in Configure: found by words, and one taken as the base model.

Nothing is asked there until somebody searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.errors import TunesmithError
from core.hub.search import Found, search, search_modelscope
from core.language import _
from core.models import modelscope
from core.setup.extras import Extra, missing
from webui import messages
from webui.context import CHOICE, QUIET, App
from webui.extras import ExtrasView
from webui.forms import Form
from webui.html import html
from webui.job_progress import CLICKS

FIELD = "model.model_name_or_path"
HUB, MODELSCOPE = "hub", "modelscope"


class ModelFinder:
    """Where to look, a field for words, and the models that have them in their name."""

    def __init__(self, app: App, form: Form) -> None:
        self.form = form
        with gr.Accordion(_("Find a model"), open=False, elem_classes="fold", elem_id="find-model"):
            places = [(_("Hugging Face Hub"), HUB), (_("ModelScope"), MODELSCOPE)]
            self.place = gr.Radio(
                places, value=HUB, label=_("Where to look"), elem_id="find-model-place"
            )
            self.extras = ExtrasView(app, "find-model-extras", self._lacking)
            self.words = gr.Textbox(
                label=_("Words in its name"),
                placeholder=_("such as qwen instruct"),
                max_lines=1,
                submit_btn=_("Search"),
                elem_id="find-model-words",
            )
            self.found = gr.HTML(elem_id="found-models", js_on_load=CLICKS, apply_default_css=False)

    # -- handlers

    def choose(self, place: str) -> dict[Any, Any]:
        return {**self.extras.follow(_lacking(place)), self.found: ""}

    def search(self, words: str, place: str) -> Markup:
        try:
            found = search_modelscope(words) if place == MODELSCOPE else search(words)
        except TunesmithError as problem:
            return messages.error(problem)
        if not found:
            told = _("No model that can be trained here has these words in its name.")
            return messages.note(told)
        return _table(found)

    def take(self, data: dict[Component, Any], event: gr.EventData) -> dict[Component, Any]:
        """The model of this row becomes the base model; a run fetches it when it starts."""
        return self.form.fill({FIELD: str(event.at)}, data=data)

    def _lacking(self, data: Mapping[Component, Any]) -> Sequence[Extra]:
        return _lacking(data[self.place])

    # -- wiring

    def wire(self) -> None:
        self.words.submit(
            lambda: messages.progress(None, _("Searching")), None, self.found, **QUIET
        ).then(self.search, [self.words, self.place], self.found, **QUIET)
        shown = self.extras.outputs | {self.found}
        self.place.input(self.choose, self.place, shown, **CHOICE)
        self.extras.wire({self.place}).then(  # what was said of the installation stays
            lambda place: gr.Column(visible=bool(_lacking(place))),
            self.place,
            self.extras.box,
            **QUIET,
        )
        form = self.form
        self.found.select(self.take, set(form.parts), {form.filled}, **CHOICE)


def _lacking(place: str) -> Sequence[Extra]:
    return missing([modelscope.EXTRA] if place == MODELSCOPE else [])


def _table(found: Sequence[Found]) -> Markup:
    rows = [
        (
            one,
            messages.size(one.size_bytes),
            messages.short(one.parameters),
            messages.count(one.downloads),
        )
        for one in found
    ]
    return html.find_model.table(rows)
