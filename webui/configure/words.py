"""Words of the data that would be worth a token of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.registry import load_dataset_info
from core.errors import TunesmithError
from core.language import _
from core.models.location import local_model
from webui import messages
from webui.context import CHOICE, QUIET, App
from webui.forms import Form

FIELD, DATASET, MODEL = "vocabulary.new_tokens", "data.dataset", "model.model_name_or_path"
PATIENCE = 120


@dataclass(frozen=True)
class Found:
    """Words that were found, in which data set and for which model."""

    of: tuple[str, str] | None = None
    words: tuple[str, ...] = ()


class WordFinder:
    """A button, and the words that it finds to tick."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.find = gr.Button(_("Find words in the data"), size="sm", elem_id="find-words")
        self.told = gr.HTML(elem_id="found-words-told", apply_default_css=False)
        self.words = gr.CheckboxGroup(
            [],
            label=_("Words that fall into many pieces"),
            info=_("Tick those that should become one token each."),
            elem_id="found-words",
            elem_classes="pills",
            visible=False,
        )
        # What was found: of which data set and model, and which words.
        self.known = gr.State(Found())

    @property
    def outputs(self) -> set[Any]:
        return {self.told, self.words, self.known}

    # -- handlers

    def search(self, form: Form, data: Mapping[Component, Any]) -> dict[Any, Any]:
        """The words of this data set for this model's tokenizer, those in use ticked."""
        held = form.held(data)
        dataset, model, chosen = held[DATASET], held[MODEL], held[FIELD]
        of = (dataset, model)
        nothing = {self.words: gr.CheckboxGroup(visible=False), self.known: Found(of)}
        try:
            folder = local_model(self.app.workspace, model or "")
            if folder is None:
                told = _("The model is not on this machine yet: the first run with it fetches it.")
                return {**nothing, self.told: messages.note(told)}
            info = load_dataset_info(self.app.workspace, dataset)
            asked = self.app.pool.submit(
                "core.worker.tokenizers:fragmented_words", self.app.workspace, info.id, model
            )
            found = asked.result(timeout=PATIENCE)
        except TunesmithError as error:
            return {**nothing, self.told: messages.error(error)}
        choices = [(_label(one), one["word"]) for one in found["words"]]
        if not choices:
            told = _("No word that comes often falls into three tokens or more.")
            return {**nothing, self.told: messages.note(told)}
        words = [word for _label, word in choices]
        ticked = [word for word in words if word in (chosen or [])]
        told = _("From {rows:,} of {total:,} rows.", rows=found["rows"], total=found["rows_total"])
        return {
            self.told: messages.note(told),
            self.words: gr.CheckboxGroup(choices, value=ticked, visible=True),
            self.known: Found(of, tuple(words)),
        }

    def follow(self, dataset: str, model: str, known: Found) -> dict[Any, Any]:
        """After every change of the settings: of another data set or model nothing is found."""
        if known.of in (None, (dataset, model)):
            return {self.known: gr.skip()}
        return {self.told: "", self.words: gr.CheckboxGroup(visible=False), self.known: Found()}

    def take(self, form: Form, data: Mapping[Component, Any]) -> dict[Component, Any]:
        """The new tokens, with those that are ticked and without those that are not."""
        known, chosen = data[self.known].words, form.held(data)[FIELD]
        words = [*(word for word in chosen or [] if word not in known), *data[self.words]]
        return form.fill({FIELD: words}, data=data)

    # -- wiring

    def wire(self, form: Form) -> None:
        quiet = QUIET
        self.find.click(
            lambda: messages.progress(None, _("Looking at the words")), None, self.told, **quiet
        ).then(partial(self.search, form), set(form.parts), self.outputs, **quiet)
        self.words.input(
            partial(self.take, form), {self.words, self.known, *form.parts}, {form.filled}, **CHOICE
        )


def _label(one: dict[str, Any]) -> str:
    return _(
        "{word}: {pieces} tokens, {times:,} times, saves {saved:,}",
        word=one["word"],
        pieces=one["pieces"],
        times=one["count"],
        saved=one["saved"],
    )
