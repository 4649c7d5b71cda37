"""What a step would do to the first rows, before it is applied: its progress, its end, its stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from core.data.record import DatasetInfo
from core.data.steps.base import Step
from core.data.versions import TRIED_ROWS, try_in_order
from core.jobs.apart import call_apart
from webui import background, messages, shape_steps
from webui.context import App
from webui.job_progress import bar


class StepTrial:
    """Its components and handlers. A page has one trial; another one, or turning away, ends it."""

    def __init__(self, app: App) -> None:
        self.app, self.watches = app, background.Watches()

    def build_buttons(self) -> None:
        self.start = gr.Button("Try it", visible=False, scale=0)
        self.stop = gr.Button("Stop the trial", visible=False, scale=0, min_width=140)

    def build_result(self) -> None:
        self.shown = gr.HTML(elem_id="step-trial", apply_default_css=False)

    @property
    def outputs(self) -> set[Any]:
        return {self.start, self.stop, self.shown}

    # -- handlers

    def cleared(self, offered: bool = True) -> dict[Any, Any]:
        """No trial, and whether one can be begun."""
        return {
            self.start: gr.Button(visible=offered, interactive=True),
            self.stop: gr.Button(visible=False),
            self.shown: "",
        }

    def end(self, page: str) -> None:
        """Ends the trial of a page; afterwards it shows nothing more."""
        task = self.watches.leave(page)
        if task is not None:
            task.stop()

    def stop_it(self, request: gr.Request) -> None:
        """Stops the trial; the page goes on to say so."""
        task = self.watches.watched(request.session_hash or "")
        if task is not None:
            task.stop()

    def run(
        self, info: DatasetInfo, steps: Sequence[Step], first: int, imported: bool, page: str
    ) -> Iterator[dict[Any, Any]]:
        """Tries the steps and shows what those from `first` on do."""
        self.end(page)
        task = background.begin(
            lambda task: call_apart(
                try_in_order, self.app.workspace, info.id, steps, imported=imported, tell=task.tell
            ),
            "Trying",
        )
        title = f"At most {TRIED_ROWS:,} rows of a part"
        busy = {self.start: gr.Button(interactive=False), self.stop: gr.Button(visible=True)}
        try:
            with self.watches.watch(page, task) as watch:
                for _ in watch.glances():
                    yield {**busy, self.shown: bar(title, task.message, task.fraction, task.left())}
                if not watch.wanted:
                    yield gr.skip()
                    return
                yield {**self.cleared(), self.shown: _found(task, info, first)}
        finally:
            task.stop()  # nobody sees what comes of it


def _found(task: background.Task, info: DatasetInfo, first: int) -> str:
    """What a trial found, from the step at `first` on."""
    if task.stopped:
        return messages.note("Stopped. A trial changes nothing.", "stopped")
    if task.error:
        return messages.error(task.error)
    counts = info.counts
    there = max(counts.train, counts.eval, counts.test)
    if there <= TRIED_ROWS:
        there = counts.train + counts.eval + counts.test
    return shape_steps.trial(task.result[first:], TRIED_ROWS, there)
