"""Fills Configure's form in without undoing what a person typed meanwhile.

A handler that sets the controls itself sets them when its answer arrives, which on a busy machine
is seconds after the click. Here the answer is only a text, and the browser (assets/page.js) takes
over what is still as it was at the click.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components import Component

from core.config import RunConfig
from webui.forms import Form


class Filling:
    """Built beside the form; its handlers give `values` among what they answer."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.wanted = gr.Textbox(label="Values for the form", visible="hidden")

    def values(self, config: RunConfig) -> dict[Component, Any]:
        """What the form is to show, in the order of its fields."""
        shown = self.form.show(config)
        return {self.wanted: json.dumps([shown[field] for field in self.form.fields.values()])}

    def wire(
        self,
        listener: Callable[..., Any],
        handler: Callable[..., Any],
        inputs: set[Component],
        outputs: set[Component] = frozenset(),
    ) -> Any:
        """Answers `listener`, such as `button.click`; gives the event after which the form is
        filled in."""
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        fields = list(self.form.fields.values())
        listener(None, fields, None, js="(...held) => tunesmith.asked(held)", **quiet)
        answered = listener(handler, inputs, {self.wanted, *outputs}, **quiet)
        return answered.success(
            None,
            [self.wanted, *fields],
            fields,
            js="(wanted, ...held) => tunesmith.filled(wanted, held)",
            **quiet,
        )
