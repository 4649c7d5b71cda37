"""Several data sets become one: which, how much of each, under what name."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.jobs import submit_combine
from core.data.registry import load_dataset_info
from core.errors import TunesmithError
from core.jobs.queue import dismiss_job
from core.language import _
from webui import messages
from webui.context import HIDDEN, QUIET, App, Shared
from webui.html import html
from webui.job_progress import JobProgress

MOST = 6


class Combining:
    """Its components, handlers and wiring; the table of data sets says which are ticked."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.chosen = gr.State([])
        with gr.Column(visible=False, elem_classes="card", elem_id="combine") as self.panel:
            gr.HTML(html.data_combine.head(), apply_default_css=False)
            with gr.Row():
                self.weights = [
                    gr.Number(1.0, label=_("Weight"), visible=False, min_width=140)
                    for _weight in range(MOST)
                ]
            with gr.Row():
                self.name = gr.Textbox(label=_("Name of the new data set"), max_lines=1, scale=2)
                self.seed = gr.Number(42, label=_("Seed"), precision=0, min_width=100)
            with gr.Row(elem_classes="actions"):
                self.go = gr.Button(_("Put together"), variant="primary", scale=0)
            self.told = gr.HTML(apply_default_css=False)
        self.jobs = JobProgress(app, ("combine",), elem_id="combine-progress")
        # The one that was begun in this page: what comes of it is selected.
        self.mine = gr.Textbox(**HIDDEN, label="What is put together")

    @property
    def outputs(self) -> list[Any]:
        """What `show` changes."""
        return [self.chosen, self.panel, self.name, self.told, *self.weights]

    # -- handlers

    def show(self, ticked: list[str]) -> Any:
        """A weight for each ticked data set; nothing with fewer than two."""
        infos = []
        for identity in ticked[:MOST]:
            try:
                infos.append(load_dataset_info(self.app.workspace, identity))
            except TunesmithError:
                continue  # it went away meanwhile; the table no longer shows it
        weights = [gr.Number(1.0, label=info.name, visible=True) for info in infos]
        weights += [gr.Number(1.0, visible=False)] * (MOST - len(infos))
        more = len(ticked) > MOST
        told = messages.note(_("The first {n} are taken.", n=MOST), "stopped") if more else ""
        title = f" {_('and')} ".join(info.name for info in infos)[:80]
        chosen = [info.id for info in infos]
        return chosen, gr.Column(visible=len(infos) > 1), title, told, *weights

    def combine(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Puts them together; the new data set is then the selected one."""
        pairs = list(zip(data[self.chosen], (data[one] for one in self.weights), strict=False))
        weighted = [(identity, 0.0 if weight is None else weight) for identity, weight in pairs]
        name, seed = data[self.name] or None, int(data[self.seed] or 0)
        try:
            job = submit_combine(self.app.workspace, self.app.store, weighted, name=name, seed=seed)
        except TunesmithError as error:
            return {self.told: messages.error(error)}
        return {self.told: "", self.mine: job.id}

    def news(self, data: dict[Component, Any]) -> dict[Any, Any]:
        return self.jobs.draw(data)

    @property
    def watched(self) -> tuple[set[Component], set[Component]]:
        """The inputs and outputs of `news`."""
        return self.jobs.inputs, self.jobs.outputs

    def take_up(self, told: str, mine: str) -> Any:
        """The new data set is the selected one, in the page that asked for it."""
        job = self.app.store.find(mine) if f"{mine}:finished" in told.split() else None
        if job is None:
            return gr.skip(), gr.skip()
        dismiss_job(self.app.workspace, self.app.store, job.id)
        return self.jobs.made(job), ""

    def act_on_job(self, known: set[str], event: gr.EventData) -> Any:
        """Stop it, open what it made, or put its end away."""
        return self.jobs.act(known, event) or gr.skip()

    # -- wiring

    def wire(self) -> None:
        quiet = QUIET
        self.go.click(
            self.combine,
            {self.chosen, self.name, self.seed, *self.weights},
            {self.told, self.mine},
            **quiet,
        ).then(self.jobs.at_once(self.news), self.jobs.inputs, self.jobs.outputs, **quiet)
        dataset = self.shared.dataset
        self.jobs.told.change(
            self.take_up, [self.jobs.told, self.mine], [dataset, self.mine], **quiet
        )
        self.jobs.shown.select(
            self.act_on_job, self.jobs.known, dataset, trigger_mode="multiple", **quiet
        )
