"""What is typed in Configure outlasts a reload: kept in the browser, for each workspace by itself.

Kept is what differs from the chosen preset, as the controls hold it, right or wrong. The data set
is not among it: the page's address has that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from core.config import SPEC_BY_PATH, SPECS
from core.errors import TunesmithError
from core.rules.presets import DEFAULT, Preset, load_preset
from webui.context import App
from webui.forms import READ_ONLY, Form, write

_LEFT_OUT = READ_ONLY | {"data.dataset"}


class Draft:
    """`kept` is the draft in the browser; it is written once `opened` says that it was read."""

    def __init__(self, app: App, form: Form) -> None:
        self.app, self.form = app, form
        # Another workspace at the same address has drafts of its own.
        name = hashlib.sha256(str(app.workspace.root).encode()).hexdigest()[:16]
        self._key = json.dumps(f"tunesmith-draft-{name}")
        self.kept = gr.Textbox(label="Draft", visible="hidden")
        self.opened = gr.Textbox(label="Draft was read", visible="hidden")

    def wire(self, page: gr.Blocks, restore: Any, outputs: set[Component]) -> Any:
        """Calls `restore` with the draft when the page is opened; gives that event."""
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        write = f"text => {{ localStorage.setItem({self._key}, text) }}"
        self.kept.change(None, self.kept, None, js=write, **quiet)
        read = f'() => localStorage.getItem({self._key}) || ""'
        return page.load(restore, self.kept, outputs, js=read, **quiet)

    def keep(self, preset: Preset, data: Mapping[Component, Any]) -> dict[Component, Any]:
        """The draft of what the form holds, for what a handler answers."""
        if not data[self.opened]:
            return {self.kept: gr.skip()}
        before = preset.config().values()
        changed = {
            spec.path: data[self.form.fields[spec.path]]
            for spec in SPECS
            if spec.path not in _LEFT_OUT
            and data[self.form.fields[spec.path]] != write(spec, before[spec.path])
        }
        return {self.kept: json.dumps({"preset": preset.name, "held": changed})}

    def read(self, kept: Any) -> tuple[Preset, dict[Component, Any]] | None:
        """(the preset, what the controls are to hold that the page does not open with) of a draft;
        None where there is none that can be used, such as one of a preset that was deleted."""
        try:
            draft = json.loads(kept or "{}")
            preset = load_preset(str(draft["preset"]), self.app.workspace)
            held = dict(draft["held"])
        except (TunesmithError, KeyError, TypeError, ValueError):
            return None
        first, chosen = load_preset(DEFAULT).config().values(), preset.config().values()
        values = {
            spec.path: held.get(spec.path, write(spec, chosen[spec.path]))
            for spec in SPECS
            if spec.path not in _LEFT_OUT
        }
        return preset, {
            self.form.fields[path]: value
            for path, value in values.items()
            if value != write(SPEC_BY_PATH[path], first[path])
        }
