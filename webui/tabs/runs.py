"""Runs: not filled yet; says what belongs here."""

from __future__ import annotations

import gradio as gr

from webui import messages
from webui.context import App, Shared


def build(app: App, shared: Shared) -> None:
    gr.HTML(
        messages.empty(
            "No runs yet",
            "Start the sample run in Configure: one button, about five minutes on a laptop.",
        )
    )
