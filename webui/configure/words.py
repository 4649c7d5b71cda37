"""Words of the data that would be worth a token of their own, in the fold of new tokens."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.data.registry import load_dataset_info
from core.errors import TunesmithError
from core.models.location import local_model
from webui import messages
from webui.context import App, Shared
from webui.forms import Form

FIELD, DATASET, MODEL = "vocabulary.new_tokens", "data.dataset", "model.model_name_or_path"
PATIENCE = 120


class WordFinder:
    """A button, and the words that it finds to tick."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.find = gr.Button("Find words in the data", size="sm", elem_id="find-words")
        self.told = gr.HTML(elem_id="found-words-told", apply_default_css=False)
        self.words = gr.CheckboxGroup(
            [],
            label="Words that fall into many pieces",
            info="Tick those that should become one token each.",
            elem_id="found-words",
            elem_classes="pills",
            visible=False,
        )
        self.known = gr.State([])

    # -- handlers

    def search(self, dataset: str, model: str, chosen: list[str]) -> dict[Any, Any]:
        """The words of this data set for this model's tokenizer, those in use ticked."""
        nothing = {self.words: gr.CheckboxGroup(visible=False), self.known: []}
        try:
            folder = local_model(self.app.workspace, model or "")
            if folder is None:
                told = "The model is not on this machine yet: the first run with it fetches it."
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
            told = "No word that comes often falls into three tokens or more."
            return {**nothing, self.told: messages.note(told)}
        words = [word for _, word in choices]
        ticked = [word for word in words if word in (chosen or [])]
        told = f"From {found['rows']:,} of {found['rows_total']:,} rows."
        return {
            self.told: messages.note(told),
            self.words: gr.CheckboxGroup(choices, value=ticked, visible=True),
            self.known: words,
        }

    def forget(self) -> dict[Any, Any]:
        """Another data set or model: what was found is not of it."""
        return {self.told: "", self.words: gr.CheckboxGroup(visible=False), self.known: []}

    def take(self, ticked: list[str], known: list[str], chosen: list[str]) -> list[str]:
        """The new tokens, with those that are ticked and without those that are not."""
        return [*(word for word in chosen or [] if word not in known), *ticked]

    # -- wiring

    def wire(self, form: Form, shared: Shared) -> None:
        field = form.fields[FIELD]
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        self.find.click(
            lambda: messages.progress(None, "Looking at the words"), None, self.told, **quiet
        ).then(
            self.search,
            [form.fields[DATASET], form.fields[MODEL], field],
            {self.told, self.words, self.known},
            **quiet,
        )
        gr.on(
            [form.fields[DATASET].change, form.fields[MODEL].change],
            self.forget,
            None,
            {self.told, self.words, self.known},
            **quiet,
        )
        taken = self.words.input(self.take, [self.words, self.known, field], field, **quiet)
        shared.follow_settings(taken)


def _label(one: dict[str, Any]) -> str:
    return (
        f"{one['word']}: {one['pieces']} tokens, {one['count']:,} times, saves {one['saved']:,}"
    )
