"""The list of presets: those of one purpose at a time."""

from __future__ import annotations

from typing import Any

import gradio as gr
from markupsafe import Markup

from core.config import SPEC_BY_PATH
from core.language import N_, _
from core.methods import METHODS
from core.rules.presets import Preset, list_presets
from webui.choice import Radio
from webui.context import CHOICE, App
from webui.html import html

# As core.methods.Purpose has them.
PURPOSES = (N_("Answers"), N_("Labels"), N_("Plain text"), N_("Preferences"), N_("Rewards"))


class PresetChoice:
    """`field` holds the name of the chosen preset, `purpose` says which others are offered."""

    def __init__(self, app: App, first: Preset) -> None:
        self.app = app
        purpose = purpose_of(first)
        self.purpose = gr.Radio(
            [(_(title), title) for title in PURPOSES],
            value=purpose,
            label=_("Learn from"),
            elem_id="preset-purpose",
        )
        self.field = Radio(
            self._choices(purpose, first.name),
            value=first.name,
            label=_("Preset"),
            elem_id="preset",
            elem_classes="pills",
        )
        self.when = gr.HTML(when(first), apply_default_css=False)

    def offer(self, purpose: str, chosen: str) -> Any:
        """The presets of this purpose; the chosen one stays in the list."""
        return gr.Radio(choices=self._choices(purpose, chosen))

    def choose(self, preset: Preset) -> dict[Any, Any]:
        """This preset is chosen, whatever was offered before."""
        purpose = purpose_of(preset)
        return {
            self.purpose: purpose,
            self.field: gr.Radio(self._choices(purpose, preset.name), value=preset.name),
        }

    def _choices(self, purpose: str, chosen: str) -> list[tuple[str, str]]:
        return [
            (_(preset.title), preset.name)
            for preset in list_presets(self.app.workspace)
            if not preset.problem and (purpose_of(preset) == purpose or preset.name == chosen)
        ]

    def wire(self) -> None:
        self.purpose.input(self.offer, [self.purpose, self.field], self.field, **CHOICE)


def purpose_of(preset: Preset) -> str:
    return METHODS[preset.settings.get("method", SPEC_BY_PATH["method"].default)].purpose


def when(preset: Preset) -> Markup:
    """What a preset does and when to use it."""
    return html.plain.aside(" ".join(_(part) for part in (preset.description, preset.when) if part))
