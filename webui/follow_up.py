"""What can follow a run: a new one that begins with its model, the same one trained longer, or the
same one with half the batch."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.config import SPEC_BY_PATH
from core.errors import ConfigError, JobError, TunesmithError
from core.jobs.job import Job
from core.language import _
from core.models.checkpoints import checkpoints
from core.rules import load_config
from core.runs.extend import train_longer
from core.runs.lineage import values_to_continue
from core.runs.resume import can_halve
from webui import messages
from webui.choice import Dropdown
from webui.context import QUIET, App, Shared
from webui.html import html

_EPOCHS, _STEPS = "training.num_train_epochs", "training.max_steps"
_RATE = "training.learning_rate"


class FollowUp:
    """Buttons under a run that has ended, and the few settings of a longer training."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared

    def build_half(self) -> None:
        """The button beside Resume."""
        self.half = gr.Button(
            _("Go on with half the batch"),
            variant="primary",
            visible=False,
            min_width=200,
            scale=0,
            elem_id="half-batch",
        )

    def build(self) -> None:
        """The row under a run that left something, and the settings that it opens."""
        with gr.Row(visible=False, elem_classes="next-steps") as self.row:
            self.onward = gr.Button(
                _("Continue from this run"), scale=0, min_width=240, elem_id="continue-run"
            )
            self.longer = gr.Button(
                _("Train longer"), scale=0, min_width=140, elem_id="train-longer"
            )
        with gr.Column(visible=False, elem_classes="card", elem_id="longer") as self.panel:
            gr.HTML(html.follow_up.longer(), apply_default_css=False)
            with gr.Row():
                self.epochs = gr.Number(
                    label=_("Epochs in all"), minimum=0, elem_id="longer-epochs"
                )
                self.steps = gr.Number(
                    label=_("Steps in all"), precision=0, minimum=1, elem_id="longer-steps"
                )
                self.rate = gr.Textbox(label=_("Learning rate"), max_lines=1, elem_id="longer-rate")
                self.checkpoint = Dropdown([], label=_("From"), elem_id="longer-checkpoint")
            with gr.Row(elem_classes="actions"):
                self.begin = gr.Button(
                    _("Start training"), variant="primary", scale=0, elem_id="longer-start"
                )
                self.close = gr.Button(_("Close"), scale=0)
            self.told = gr.HTML(apply_default_css=False)

    @property
    def panes(self) -> list[Any]:
        """What depends on the state of the run, in the order of `shown`."""
        return [self.half, self.row, self.onward, self.longer, self.panel]

    def shown(self, job: Job | None) -> list[Any]:
        """Which of them make sense: for a run that ended and left a model or a checkpoint."""
        if job is None or not job.ended:
            return [gr.Button(visible=False), gr.Row(visible=False), *[gr.skip()] * 2, _hidden()]
        folder = self.app.workspace.run(job.id).root
        left = checkpoints(folder)
        return [
            gr.Button(visible=can_halve(job, folder)),
            gr.Row(visible=bool(left)),
            gr.Button(visible=any(item.name == "final" for item in left)),
            gr.Button(visible=any(item.name != "final" for item in left)),
            _hidden(),
        ]

    # -- handlers

    def go_on(self, run_id: str) -> dict[Component, Any]:
        """The run's settings in Configure, set to begin with its model."""
        try:
            config = values_to_continue(self.app.workspace, run_id)
        except TunesmithError as error:
            return {self.panel: gr.Column(visible=True), self.told: messages.error(error)}
        return {
            **self.shared.form.fill(config.values()),
            self.shared.dataset: config.data.dataset,
            self.shared.tabs: self.shared.go("configure"),
        }

    def ask(self, run_id: str) -> list[Any]:
        """Opens the settings of a longer training with those of the run."""
        try:
            training = load_config(self.app.workspace.run(run_id).config).training
        except TunesmithError as error:
            return [gr.Column(visible=True), *[gr.skip()] * 4, messages.error(error)]
        saved = checkpoints(self.app.workspace.run(run_id).root)
        names = [item.name for item in reversed(saved) if item.name != "final"]
        by_steps = training.max_steps > 0
        return [
            gr.Column(visible=True),
            gr.Number(training.num_train_epochs + 1, visible=not by_steps),
            gr.Number(training.max_steps * 2 if by_steps else None, visible=by_steps),
            f"{training.learning_rate:g}",
            gr.Dropdown(names, value=names[0] if names else None),
            "",
        ]

    def train_on(
        self, run_id: str, epochs: float | None, steps: float | None, rate: str, checkpoint: str
    ) -> tuple[Any, Any]:
        """Starts the longer training and shows it; what is wrong is said under its settings."""
        try:
            changes: dict[str, Any] = {_RATE: _number(rate)}
            changes |= {_STEPS: int(steps)} if steps else {_EPOCHS: epochs}
            job = train_longer(
                self.app.workspace, self.app.store, run_id, changes, checkpoint=checkpoint
            )
        except TunesmithError as error:
            return gr.skip(), _said(error)
        return job.id, ""

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        quiet = {**QUIET, "concurrency_limit": None}
        form = shared.form
        changed = {form.filled, shared.dataset, shared.tabs, self.panel, self.told}
        self.onward.click(self.go_on, run, changed, **quiet)
        asked = [self.panel, self.epochs, self.steps, self.rate, self.checkpoint, self.told]
        self.longer.click(self.ask, run, asked, **quiet)
        self.close.click(_hidden, None, self.panel, **quiet)
        given = [run, self.epochs, self.steps, self.rate, self.checkpoint]
        self.begin.click(self.train_on, given, [run, self.told], **quiet)


def _hidden() -> Any:
    return gr.Column(visible=False)


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise JobError(
            _("{text!r} is no learning rate.", text=text), _("Give a number such as 1e-4.")
        ) from error


def _said(error: TunesmithError) -> Markup:
    """Each problem under the name that its field has here."""
    if not isinstance(error, ConfigError):
        return messages.error(error)
    words = [f"{SPEC_BY_PATH[p.field].label}: {p.message}" for p in error.problems]
    return messages.error(" ".join(words))
