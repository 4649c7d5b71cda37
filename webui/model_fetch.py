"""A button that brings the chosen model to this machine, where a part of Data needs its tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.models.location import fetch_model
from core.tokens.lens import Lens
from webui import background, messages
from webui.context import App, Shared


class ModelFetch:
    """`offer` and `hide` are what a handler gives for `button`."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.fetching = background.Tasks()
        self.button = gr.Button("Fetch the model", visible=False, scale=0)
        self.stop = gr.Button("Stop the download", visible=False, scale=0)
        self.progress = gr.HTML(apply_default_css=False)

    @staticmethod
    def offer(wanted: bool = True) -> Any:
        return gr.Button(visible=wanted)

    # -- handlers

    def fetch(self, lens_text: str, request: gr.Request) -> Iterator[Any]:
        """Brings the model here, and says how far that is."""
        name, workspace = Lens.read(lens_text).model, self.app.workspace
        task = background.begin(
            lambda task: fetch_model(name, workspace, task.tell), "Looking for the model"
        )
        for glance in self.fetching.watch(request.session_hash, task):
            yield messages.progress(glance.fraction, glance.message), gr.Button(visible=True)
        yield messages.error(task.error) if task.error else "", gr.Button(visible=False)

    def end(self, request: gr.Request) -> None:
        self.fetching.stop(request.session_hash)

    # -- wiring

    def wire(self) -> Any:
        """The event after which the model is there, or it was said why it is not."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
        self.stop.click(self.end, None, None, **quiet)
        return self.button.click(
            self.fetch, self.shared.lens, [self.progress, self.stop], **quiet
        )
