"""Several data sets become one: which, how much of each, under what name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.combine import combine_datasets
from core.data.registry import load_dataset_info
from core.errors import TunesmithError
from core.jobs.apart import call_apart
from webui import background, messages
from webui.context import App, Shared

MOST = 6


class Combining:
    """Its components, handlers and wiring; the table of data sets says which are ticked."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.working = background.Tasks()
        self.chosen = gr.State([])
        with gr.Column(visible=False, elem_classes="card", elem_id="combine") as self.panel:
            gr.HTML(
                "<h3>Put together</h3><p class='aside'>A weight of 1 takes every row once, 0.5 a "
                "random half, 2 every row twice. Rows that are held out stay so, and come whole."
                "</p>",
                apply_default_css=False,
            )
            with gr.Row():
                self.weights = [
                    gr.Number(1.0, label=f"Weight {place}", visible=False, min_width=140)
                    for place in range(1, MOST + 1)
                ]
            with gr.Row():
                self.name = gr.Textbox(label="Name of the new data set", max_lines=1, scale=2)
                self.seed = gr.Number(42, label="Seed", precision=0, min_width=100)
            with gr.Row(elem_classes="actions"):
                self.go = gr.Button("Put together", variant="primary", scale=0)
                self.stop = gr.Button("Stop", variant="stop", visible=False, scale=0)
            self.told = gr.HTML(apply_default_css=False)

    @property
    def outputs(self) -> list[Any]:
        """What `show` changes."""
        return [self.chosen, self.panel, self.name, self.told, *self.weights]

    # -- handlers

    def show(self, ticked: list[str]):
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
        told = messages.note(f"The first {MOST} are taken.", "stopped") if more else ""
        title = " and ".join(info.name for info in infos)[:80]
        chosen = [info.id for info in infos]
        return chosen, gr.Column(visible=len(infos) > 1), title, told, *weights

    def combine(
        self, data: dict[Component, Any], request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Puts them together; the new data set is the selected one."""
        pairs = list(zip(data[self.chosen], (data[one] for one in self.weights), strict=False))
        weighted = [(identity, 0.0 if weight is None else weight) for identity, weight in pairs]
        how = {"name": data[self.name] or None, "seed": int(data[self.seed] or 0)}
        task = background.begin(
            lambda task: call_apart(
                combine_datasets, self.app.workspace, weighted, tell=task.tell, **how
            )
        )
        for glance in self.working.watch(request.session_hash, task):
            told = messages.progress(glance.fraction, glance.message or "Starting")
            yield {self.told: told, self.stop: gr.Button(visible=True)}
        done = {self.stop: gr.Button(visible=False)}
        if task.error:
            yield {**done, self.told: messages.error(task.error)}
            return
        yield {**done, self.told: "", self.shared.dataset: task.result.id}

    def stop_work(self, request: gr.Request) -> None:
        self.working.stop(request.session_hash)

    # -- wiring

    def wire(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        self.go.click(
            self.combine,
            {self.chosen, self.name, self.seed, *self.weights},
            {self.told, self.stop, self.shared.dataset},
            concurrency_limit=None,
            **quiet,
        )
        self.stop.click(self.stop_work, None, None, **quiet)
