"""Mappings that were kept: one that fits is offered, any can be taken, this one can be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.mappings import (
    DamagedMapping,
    SavedMapping,
    list_mappings,
    load_mapping,
    save_mapping,
)
from core.errors import TunesmithError
from webui import messages
from webui.context import App


class SavedMappings:
    """Its components and what they say; the import's choice wires them."""

    def __init__(self, app: App) -> None:
        self.app = app
        with gr.Row(visible=False, elem_classes="offer") as self.offered:
            self.offer_text = gr.HTML(apply_default_css=False)
            self.use = gr.Button("Use it", scale=0, min_width=80)
        self.fitting = gr.State("")

    def build_list(self) -> None:
        """Makes the list, and the field that keeps this mapping, where it is called."""
        with gr.Row(elem_classes="saved-mappings"):
            self.choice = gr.Dropdown(
                [], label="Use a saved mapping", min_width=200, visible=False
            )
            self.name = gr.Textbox(
                label="Save this mapping as", placeholder="a-name", max_lines=1,
                submit_btn="Save", min_width=200,
            )
        self.told = gr.HTML(apply_default_css=False)

    @property
    def inputs(self) -> list[Component]:
        return [self.choice, self.name, self.fitting]

    @property
    def outputs(self) -> set[Any]:
        return {
            self.offered, self.offer_text, self.choice, self.name, self.told, self.fitting
        }

    def offer(
        self, saved: SavedMapping | None, form: str | None, mapping: Mapping[str, str]
    ) -> dict[Any, Any]:
        """The list, and the mapping that fits unless it is what was recognised anyway."""
        other = saved is not None and (saved.form, saved.mapping) != (form, dict(mapping))
        name = saved.name if saved and other else ""
        text = f"The saved mapping <b>{messages.escape(name)}</b> fits these columns."
        return {
            self.fitting: name,
            self.offered: gr.Row(visible=bool(name)),
            self.offer_text: f"<p>{text}</p>" if name else "",
            self.told: "",
            self.choice: self._list(),
        }

    def load(self, data: Mapping[Any, Any]) -> SavedMapping:
        """The one that was chosen, or else the one on offer. Raises DataError."""
        return load_mapping(self.app.workspace, data[self.choice] or data[self.fitting])

    def used(self, saved: SavedMapping) -> dict[Any, Any]:
        """It is in the table now."""
        text = f"Read as saved in {saved.name}."
        return {
            self.offered: gr.Row(visible=False),
            self.told: f'<p class="aside">{messages.escape(text)}</p>',
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
        text = f"Saved as {name}; it is offered for rows with these columns."
        return {
            self.told: messages.note(text, "finished"), self.name: "", self.choice: self._list()
        }

    def _list(self) -> gr.Dropdown:
        found = list_mappings(self.app.workspace)
        names = [one.name for one in found if not isinstance(one, DamagedMapping)]
        return gr.Dropdown(names, value=None, visible=bool(names))
