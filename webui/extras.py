"""The offer to install the packages that what was chosen needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from core.language import _
from core.setup import environment
from core.setup.extras import Extra
from webui import background, messages
from webui.context import QUIET, App
from webui.html import html

Lacking = Callable[[Mapping[Component, Any]], Sequence[Extra]]


class ExtrasView:
    """Shown while a choice lacks a package; `lacking` finds which, in what a handler got."""

    def __init__(self, app: App, elem_id: str, lacking: Lacking) -> None:
        self.app, self.lacking = app, lacking
        self.installing = background.Tasks()
        with gr.Column(visible=False, elem_id=elem_id, elem_classes="extras") as self.box:
            self.told = gr.HTML(apply_default_css=False)
            with gr.Row():
                self.button = gr.Button(
                    size="sm", scale=0, min_width=200, elem_id=f"install-{elem_id}"
                )
                self.stop = gr.Button(_("Stop"), size="sm", scale=0, visible=False)
        self.said = gr.HTML(elem_classes="extras", apply_default_css=False)
        self.outputs = {self.box, self.told, self.button, self.stop, self.said}

    def follow(self, lacking: Sequence[Extra]) -> dict[Component | gr.Column, Any]:
        """What is shown while these are missing."""
        if not lacking:
            return {self.box: gr.Column(visible=False)}
        sentences = " ".join(_(extra.sentence) for extra in lacking)
        return {
            self.box: gr.Column(visible=True),
            self.told: html.plain.aside(sentences),
            self.button: gr.Button(_("Install {packages}", packages=_titles(lacking))),
            self.said: "",
        }

    # -- handlers

    def install(
        self, data: Mapping[Component, Any], request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Installs what is lacking, and says how far that is."""
        lacking = self.lacking(data)
        task = background.begin(lambda task: self._install(lacking, task), _("Looking for pip"))
        for glance in self.installing.watch(request.session_hash, task):
            yield {
                self.said: messages.progress(glance.fraction, glance.message),
                self.button: gr.Button(interactive=False),
                self.stop: gr.Button(visible=True),
            }
        told = _(
            "{packages}: installed. Runs that start from now on have it.",
            packages=_titles(lacking),
        )
        done = messages.error(task.error) if task.error else messages.note(told, "finished")
        yield {
            self.said: done,
            self.button: gr.Button(interactive=True),
            self.stop: gr.Button(visible=False),
        }

    def _install(self, lacking: Sequence[Extra], task: background.Task) -> None:
        for extra in lacking:
            environment.install(extra.name, task.tell)
        task.fraction, task.message = 0.95, _("Making new workers ready")
        self.app.renew_workers()

    def end(self, request: gr.Request) -> None:
        self.installing.stop(request.session_hash)

    # -- wiring

    def wire(self, inputs: set[Component]) -> Any:
        """The event after which the packages are there, or it was said why they are not."""
        quiet = {**QUIET, "concurrency_limit": None}
        self.stop.click(self.end, None, None, **quiet)

        def install(data: dict[Component, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
            yield from self.install(data, request)

        outputs = self.outputs - {self.box, self.told}
        return self.button.click(install, inputs, outputs, **quiet)


def _titles(lacking: Sequence[Extra]) -> str:
    return ", ".join(extra.title for extra in lacking)
