"""A verl job for PPO with a critic, written from the settings of Configure; nothing is run here."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.errors import TunesmithError
from core.language import _, n_
from core.methods import METHODS
from core.verl.settings import Cluster
from core.workspace import new_id
from webui import messages
from webui.context import QUIET, App
from webui.forms import Form
from webui.html import html


class VerlView:
    """Shown for methods that learn from rewards."""

    def __init__(self, app: App) -> None:
        self._app = app
        with gr.Column(visible=False, elem_id="verl") as self.box:
            about = _(
                "PPO with a critic is not in TRL. These settings can be written as a job folder "
                "for verl on a Ray cluster; it is not run here."
            )
            gr.HTML(html.plain.aside(about), apply_default_css=False)
            with gr.Row(equal_height=True):
                self.nodes = gr.Number(1, label=_("Machines"), precision=0, minimum=1, min_width=90)
                self.gpus = gr.Number(
                    8, label=_("GPUs of each"), precision=0, minimum=1, min_width=90
                )
                self.button = gr.Button(_("Write a verl job"), min_width=140, elem_id="verl-write")
            self.said = gr.HTML(apply_default_css=False, elem_id="verl-said")

    def wire(self, form: Form, inputs: set[Component]) -> None:
        quiet = QUIET
        self.button.click(
            lambda data: self.write(form, data),
            {*inputs, self.nodes, self.gpus},
            self.said,
            **quiet,
        )

    def follow(self, method: str) -> dict[Any, Any]:
        return {self.box: gr.Column(visible=METHODS[method].generates)}

    def write(self, form: Form, data: dict[Component, Any]) -> Markup:
        """Writes the job into the workspace and says where."""
        from core.verl.job import write_job

        folder = self._app.workspace.root / "verl" / new_id()
        try:
            cluster = Cluster(int(data[self.nodes] or 1), int(data[self.gpus] or 1))
            job = write_job(self._app.workspace, form.config(data), folder, cluster)
        except TunesmithError as error:
            return messages.error(error)
        rows = ", ".join(
            n_("{n} {part} row", "{n} {part} rows", count, part=part)
            for part, count in job.rows.items()
        )
        told = _(
            "Written to {folder}: {rows}, keys of verl {version}. Its README.md says how to start "
            "it.",
            folder=job.folder,
            rows=rows,
            version=job.checked.version,
        )
        return messages.note(told, "finished")
