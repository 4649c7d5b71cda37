"""What is typed in Configure outlasts a reload: kept in the browser, for each workspace by itself.

Kept is what a person changed since the preset was chosen, as the controls hold it, right or wrong
(assets/form.js). The data set is not among it: the page's address has that.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import gradio as gr
from gradio.components import Component

from core.errors import TunesmithError
from core.rules.presets import DEFAULT, Preset, load_preset
from webui.context import QUIET, App
from webui.forms import READ_ONLY, Form, unseen

_LEFT_OUT = READ_ONLY | {"data.dataset"}


class Draft:
    """The draft of one form."""

    def __init__(self, app: App, form: Form) -> None:
        self.app, self.form = app, form
        # Another workspace at the same address has drafts of its own.
        name = hashlib.sha256(str(app.workspace.root).encode()).hexdigest()[:16]
        self._key = f"tunesmith-draft-{name}"
        self.kept = unseen("")

    def wire(self, page: gr.Blocks, restore: Any, outputs: set[Component]) -> None:
        """Calls `restore` with the draft when the page is opened and there is one."""
        self.kept.render()
        read = f"() => tunesmith.form.restore('{self.form.name}', '{self._key}', '{DEFAULT}')"
        page.load(None, None, self.kept, js=read, **QUIET)
        self.kept.change(restore, self.kept, outputs, **QUIET)

    def read(self, kept: Any) -> tuple[Preset, dict[str, Any]] | None:
        """(the preset, what was changed since it was chosen, as the controls hold it) of a draft;
        None where there is none that can be used, such as one of a preset that was deleted."""
        try:
            draft = json.loads(kept or "{}")
            preset = load_preset(str(draft["preset"]), self.app.workspace)
            held = dict(draft["held"])
        except (TunesmithError, KeyError, TypeError, ValueError):
            return None
        known = self.form.specs.keys() - _LEFT_OUT
        return preset, {path: value for path, value in held.items() if path in known}
