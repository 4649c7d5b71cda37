"""Train."""

from __future__ import annotations

import gradio as gr

from webui import messages
from webui.context import App, Shared


def build(app: App, shared: Shared) -> None:
    gr.HTML(messages.empty("Train", "Being built."))
