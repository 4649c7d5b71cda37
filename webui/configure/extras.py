"""The offer beside Start to install the packages that the settings need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from core.language import _
from core.rules.machine import missing_extras
from core.setup import environment
from core.setup.extras import Extra
from webui import background, messages
from webui.context import QUIET, App
from webui.forms import Form

# The settings whose choices may need a package.
_PATHS = ("training.optim", "tracking.report_to")


class ExtrasView:
    """Shown while a choice lacks a package."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.installing = background.Tasks()
        with gr.Column(visible=False, elem_id="extras", elem_classes="extras") as self.box:
            self.told = gr.HTML(apply_default_css=False)
            with gr.Row():
                self.button = gr.Button(size="sm", scale=0, min_width=200, elem_id="install-extras")
                self.stop = gr.Button(_("Stop"), size="sm", scale=0, visible=False)
        self.said = gr.HTML(elem_classes="extras", apply_default_css=False)
        self.outputs = {self.box, self.told, self.button, self.stop, self.said}

    def follow(self, values: Mapping[str, Any]) -> dict[Component | gr.Column, Any]:
        """What is shown for these settings, by path."""
        lacking = _lacking(values)
        if not lacking:
            return {self.box: gr.Column(visible=False)}
        sentences = " ".join(_(extra.sentence) for extra in lacking)
        return {
            self.box: gr.Column(visible=True),
            self.told: f'<p class="aside">{messages.escape(sentences)}</p>',
            self.button: gr.Button(_("Install {packages}", packages=_titles(lacking))),
            self.said: "",
        }

    # -- handlers

    def install(
        self, form: Form, data: Mapping[Component, Any], request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Installs what is lacking, and says how far that is."""
        lacking = _lacking(form.gather(data)[0])
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

    def _install(self, lacking: list[Extra], task: background.Task) -> None:
        for extra in lacking:
            environment.install(extra.name, task.tell)
        task.fraction, task.message = 0.95, _("Making new workers ready")
        self.app.renew_workers()

    def end(self, request: gr.Request) -> None:
        self.installing.stop(request.session_hash)

    # -- wiring

    def wire(self, form: Form) -> Any:
        """The event after which the packages are there, or it was said why they are not."""
        quiet = {**QUIET, "concurrency_limit": None}
        self.stop.click(self.end, None, None, **quiet)
        outputs = self.outputs - {self.box, self.told}

        def install(data: dict[Component, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
            yield from self.install(form, data, request)

        return self.button.click(install, set(form.parts), outputs, **quiet)


def _lacking(values: Mapping[str, Any]) -> list[Extra]:
    found = [extra for path in _PATHS for extra in missing_extras(path, values.get(path))]
    return list(dict.fromkeys(found))


def _titles(lacking: list[Extra]) -> str:
    return ", ".join(extra.title for extra in lacking)
