"""Evaluate: not filled yet; says what belongs here."""

from __future__ import annotations

import gradio as gr

from webui import messages
from webui.context import App, Shared


def build(app: App, shared: Shared) -> None:
    gr.HTML(
        messages.empty(
            "Nothing to evaluate yet",
            "Train a model first. Evaluation then compares it with its base on the held-out rows.",
        )
    )
