"""Export: not filled yet; says what belongs here."""

from __future__ import annotations

import gradio as gr

from webui import messages
from webui.context import App, Shared


def build(app: App, shared: Shared) -> None:
    gr.HTML(
        messages.empty(
            "Nothing to export yet",
            "Train a model first. Its adapter, or the merged model, can then be checked and downloaded here.",
        )
    )
