"""What stands in a tab that has nothing to show yet: what belongs there, and the step before it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.language import _
from webui import messages
from webui.context import App, Shared


class Beginning:
    """Buttons to the sample run and to Configure while there is no run, to Train once there is."""

    def __init__(self, app: App, shared: Shared, title: str, text: str) -> None:
        self.app = app
        with gr.Column(visible=False, elem_classes="nothing") as self.box:
            gr.HTML(messages.empty(title, text), apply_default_css=False)
            with gr.Row(elem_classes="actions"):
                self.sample = gr.Button(_("Start the sample run"), variant="primary")
                self.configure = gr.Button(_("Open Configure"))
                self.train = gr.Button(_("Open Train"), variant="primary", visible=False)
        shared.sample_buttons.append(self.sample)
        shared.opens("configure", self.configure)
        shared.opens("train", self.train)
        self.outputs = [self.box, self.sample, self.configure, self.train]

    def show(self, nothing: bool) -> list[Any]:
        """The `outputs`, where there is nothing to show yet or no longer."""
        begun = bool(self.app.store.list(kind="train"))
        first = gr.Button(visible=not begun)
        return [gr.Column(visible=nothing), first, first, gr.Button(visible=begun)]
