"""Chat: not filled yet; says what belongs here."""

from __future__ import annotations

import gradio as gr

from webui import messages
from webui.context import App, Shared


def build(app: App, shared: Shared) -> None:
    gr.HTML(
        messages.empty(
            "No model to talk to yet",
            "Train a model first. It then answers here beside its base, from one prompt.",
        )
    )
