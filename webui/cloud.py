"""Training once more on a rented machine (Hugging Face Jobs): what it costs, begun, followed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.errors import ConfigError, TunesmithError
from core.export.reports import list_exports
from core.hub.cloud import (
    CloudSettings,
    Hardware,
    cloud_settings,
    follow_again,
    hardware,
    operations_of,
    submit_cloud,
    unfollowed,
)
from core.language import _
from webui import messages
from webui.context import CHOICE, QUIET, App, Shared
from webui.data.step_form import first_values, groups, marks, read_fields, section_specs
from webui.forms import Form
from webui.html import html
from webui.job_progress import JobProgress
from webui.run_choice import find_run

_SPECS = section_specs(CloudSettings, "cloud")


class CloudView:
    """A fold of Export, shown where the selected run has a script."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.form = Form("cloud", first_values(_SPECS), {"cloud.flavor": []})
        with gr.Accordion(
            _("Train in the cloud"), open=False, visible=False, elem_classes="fold", elem_id="cloud"
        ) as self.fold:
            told = _(
                "Sends the run's newest script with its rows to a private repository of yours, "
                "rents a machine from Hugging Face Jobs, and brings the trained model back as a "
                "run. You pay Hugging Face by the minute."
            )
            gr.HTML(html.plain.aside(told), apply_default_css=False)
            self.look = gr.Button(_("Show hardware and prices"), elem_id="cloud-look")
            self.prices = gr.HTML(elem_id="cloud-prices", apply_default_css=False)
            self.form.part(groups(_SPECS, "", ""))
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button(
                    _("Rent and train"), variant="primary", elem_id="cloud-start"
                )
                self.again = gr.Button(_("Follow it again"), visible=False, elem_id="cloud-again")
            self.said = gr.HTML(elem_id="cloud-said", apply_default_css=False)
        # Not in what is shown and hidden: Gradio would show what is hidden in it.
        self.jobs = JobProgress(
            app, ("cloud",), elem_id="cloud-status", of="run_id", stop_id="cloud-stop"
        )
        self.form.render()

    # -- handlers

    def open(self, run_id: str) -> dict[Any, Any]:
        run = find_run(self.app, run_id)
        found = [one for one in list_exports(run.folder.root) if one.path] if run else []
        lost = unfollowed(self.app.workspace, self.app.store, run_id) if run else None
        return {
            self.fold: gr.Accordion(visible=any(one.format == "script" for one in found)),
            self.again: gr.Button(visible=lost is not None),
            self.prices: "",
            self.said: "",
        }

    def show_prices(self, run_id: str) -> dict[Component, Any]:
        """What can be rented, and what the run would cost on it."""
        try:
            found = hardware(operations_of(self.app.workspace, run_id))
        except TunesmithError as problem:
            return {self.prices: messages.error(problem)}
        choices = {"cloud.flavor": [(f"{one.name}, {one.detail}", one.name) for one in found]}
        return {self.prices: _priced(found), **self.form.fill(choices=choices)}

    def begin(self, data: dict[Component, Any]) -> dict[Component, Any]:
        try:
            settings = cloud_settings(read_fields(_SPECS, self.form.held(data)))
            submit_cloud(self.app.workspace, self.app.store, data[self.shared.run], settings)
        except ConfigError as error:
            named = tuple(replace(one, field=f"cloud.{one.field}") for one in error.problems)
            return {self.said: "", **marks(self.form, _SPECS, {}, named)}
        except TunesmithError as problem:
            return {self.said: messages.error(problem), **marks(self.form, _SPECS, {})}
        return {self.said: "", **marks(self.form, _SPECS, {})}

    def resume(self, run_id: str) -> tuple[Any, str]:
        try:
            follow_again(self.app.workspace, self.app.store, run_id)
        except TunesmithError as problem:
            return gr.skip(), messages.error(problem)
        return gr.Button(visible=False), ""

    # -- wiring

    def wire(self, exported: gr.HTML) -> None:
        """`exported` changes when there is another export."""
        shared, run = self.shared, self.shared.run
        self.form.wire()
        opened = {self.fold, self.again, self.prices, self.said}
        shared.on_show("export", self.open, [run], opened)
        exported.change(self.open, run, opened, **CHOICE)
        self.look.click(self.show_prices, run, {self.prices, self.form.filled}, **QUIET)
        told = {self.said, self.form.marks}
        begun = self.start.click(self.begin, {run, *self.form.parts}, told, **QUIET)
        self.again.click(self.resume, run, [self.again, self.said], **QUIET)
        self.jobs.wire(shared, "export", run, self.start, begun)


def _priced(found: list[Hardware]) -> Markup:
    """Hardware, the price of a minute, and what the run takes and costs on it, as HTML."""
    return html.cloud.prices([(one, _minutes(one)) for one in found])


def _minutes(one: Hardware) -> str:
    return "-" if one.minutes is None else messages.duration(60 * one.minutes)
