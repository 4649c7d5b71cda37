"""The endpoints for programs: few, typed, documented. Everything else on the page is private.

from gradio_client import Client
key = {"Authorization": "Bearer TOKEN"}  # the file `token` of the workspace holds it
client = Client("http://127.0.0.1:7860", headers=key)
client.predict("quickstart", "sample", {"training.learning_rate": 5e-4}, api_name="/train")
client.predict(api_name="/runs")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from core.errors import TunesmithError
from core.jobs.job import Job
from core.rules import parse_config
from core.rules.presets import load_preset
from webui import background
from webui.context import App

T = TypeVar("T")
PUBLISHED = frozenset({"runs", "train"})


def publish(app: App) -> None:
    """Adds the endpoints of PUBLISHED to the page that is being built."""

    def runs() -> list[dict[str, Any]]:
        """Every run, newest first: id, name, state, model, dataset, step, max_steps,
        best_eval_loss, created_at (seconds since the epoch), error and advice."""
        return _asked(lambda: [_plain(job) for job in app.store.list(kind="train")])

    def train(preset: str, dataset: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Puts a run in the queue and returns it as `runs` lists it. `settings` are values by
        dotted path that differ from the preset, such as {"training.learning_rate": 5e-4}. A base
        model that is not on this machine yet is fetched first."""
        return _asked(lambda: _plain(_train(app, preset, dataset, settings)))

    gr.api(runs, api_name="runs", api_visibility="public")
    gr.api(train, api_name="train", api_visibility="public")


def _train(app: App, preset: str, dataset: str, settings: dict[str, Any]) -> Job:
    base = load_preset(preset, app.workspace).config().values()
    config = parse_config({**base, "data.dataset": dataset, **settings})
    task = background.start_run(app.workspace, app.store, config)
    task.done.wait()
    if task.error is not None:
        raise task.error
    job: Job = task.result
    return job


def _asked(answer: Callable[[], T]) -> T:
    """What is wrong reaches the caller as it reaches a person: the message and what to do."""
    try:
        return answer()
    except TunesmithError as error:
        raise gr.Error(str(error)) from error


def _plain(job: Job) -> dict[str, Any]:
    shown = (
        "id name state model dataset step max_steps best_eval_loss created_at error advice"
    ).split()
    return {name: getattr(job, name) for name in shown}
