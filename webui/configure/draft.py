"""What is typed in Configure outlasts a reload and comes back with its data set.

It is kept in the browser, for each workspace and in it for each data set by itself: what a person
changed since the preset was chosen, as the controls hold it, right or wrong (assets/form.js). The
data set is not among it: the page's address has that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from core.errors import TunesmithError
from core.rules.presets import DEFAULT, Preset, load_preset
from webui.context import QUIET, App, unseen
from webui.forms import READ_ONLY, Form

DATASET = "data.dataset"
_LEFT_OUT = READ_ONLY | {DATASET}


@dataclass(frozen=True)
class Kept:
    """A draft: `held` is what was changed since the preset was chosen, as the controls hold it."""

    preset: Preset
    held: dict[str, Any]
    at: int | None
    """The last change of the form when the draft was asked for: what is typed later stays."""
    came_back: bool
    """Whether it came back with its data set."""


class Draft:
    """The draft of one form."""

    def __init__(self, app: App, form: Form) -> None:
        self.app, self.form = app, form
        # Another workspace at the same address has drafts of its own.
        name = hashlib.sha256(str(app.workspace.root).encode()).hexdigest()[:16]
        self._key = f"tunesmith-draft-{name}"
        self.kept = unseen("")

    def wire(self, page: gr.Blocks, restore: Any, outputs: set[Component]) -> None:
        """Calls `restore` with the draft when the page is opened and when another data set is
        chosen, "" where there is none that differs."""
        self.kept.render()
        form = self.form
        given = f"'{form.name}', '{self._key}', '{DEFAULT}', '{DATASET}'"
        read = f"() => tunesmith.form.restore({given}, tunesmith.selectionFromUrl()[1])"
        page.load(None, None, self.kept, js=read, **QUIET)
        moved = [form.filled.change, *(part.select for part in form.parts)]
        recalled = f"() => tunesmith.form.recalled('{form.name}')"
        gr.on(moved, None, None, self.kept, js=recalled, trigger_mode="multiple", **QUIET)
        self.kept.change(restore, self.kept, outputs, **QUIET)

    def read(self, kept: Any) -> Kept | None:
        """A draft; None where there is none that can be used, such as one of a preset that was
        deleted."""
        try:
            draft = json.loads(kept or "{}")
            preset = load_preset(str(draft["preset"]), self.app.workspace)
            known = self.form.specs.keys() - _LEFT_OUT
            held = {path: value for path, value in dict(draft["held"]).items() if path in known}
        except (TunesmithError, KeyError, TypeError, ValueError):
            return None
        return Kept(preset, held, draft.get("at"), bool(draft.get("back")))
