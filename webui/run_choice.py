"""The choice of a run and one of its checkpoints, at the top of Evaluate, Chat and Export."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.errors import TunesmithError
from core.language import _
from core.models.checkpoints import checkpoints
from core.runs.records import RunSummary, list_runs, load_run
from webui.choice import Dropdown
from webui.context import CHOICE, App, Shared

Listed = tuple[str, str | None]


def find_run(app: App, run_id: str) -> RunSummary | None:
    """The run with this id; None when the URL names one that is not there (any more)."""
    try:
        return load_run(app.workspace, app.store, run_id) if run_id else None
    except TunesmithError:
        return None


def trained_runs(app: App) -> list[RunSummary]:
    """Runs that left a model: a finished one or a checkpoint. Newest first."""
    return [run for run in list_runs(app.workspace, app.store) if checkpoints(run.folder.root)]


def run_choices(runs: list[RunSummary]) -> list[tuple[str, str]]:
    """Label and id of each run; two with the same name are told apart by their ids."""
    names = [run.job.name or run.id for run in runs]
    return [
        (name if names.count(name) == 1 else f"{name} ({run.id})", run.id)
        for name, run in zip(names, runs, strict=True)
    ]


def checkpoint_choices(run: RunSummary | None) -> list[tuple[str, str]]:
    """Label and name of each whole checkpoint, the finished model first, then newest first."""
    found = checkpoints(run.folder.root) if run else []
    return [
        (
            _("Finished model")
            if item.name == "final"
            else _("Checkpoint at step {step}", step=item.step),
            item.name,
        )
        for item in reversed(found)
    ]


def run_picker(app: App, shared: Shared, tab: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Two lists that follow the selection: the runs that left a model, and the checkpoints."""
    with gr.Row(elem_classes="picker"):
        run = Dropdown([], label=_("Run"), elem_id=f"{tab}-run", scale=3, min_width=200)
        checkpoint = Dropdown(
            [], label=_("Checkpoint"), elem_id=f"{tab}-checkpoint", scale=2, min_width=160
        )

    whose = gr.State(("", None))  # the run whose checkpoints are listed, and the first of them

    def offer(selected: str, shown: Listed, point: str | None) -> tuple[Any, Any, Any, Listed]:
        """The lists as they are now; without a selection the newest run is taken."""
        runs = trained_runs(app)
        known = {item.id: item for item in runs}
        run_id = selected or (runs[0].id if runs else "")
        points, listed = points_of(run_id, known.get(run_id), shown, point)
        return (
            gr.Dropdown(run_choices(runs), value=run_id if run_id in known else None),
            points,
            # What is selected already is not selected again: by now it may be another.
            gr.skip() if run_id == selected else run_id,
            listed,
        )

    def points_of(
        run_id: str, found: RunSummary | None, shown: Listed, point: str | None
    ) -> tuple[Any, Listed]:
        """The checkpoints, and which one: one that was chosen stays as long as its run does; where
        none was, the newest that there is by now."""
        points = checkpoint_choices(found)
        names = [name for _title, name in points]
        newest = next(iter(names), None)
        is_chosen = shown[0] == run_id and point in names and point != shown[1]
        return gr.Dropdown(points, value=point if is_chosen else newest), (run_id, newest)

    def follow(selected: str, shown: Listed, point: str | None) -> tuple[Any, Any]:
        """While the tab is open: a run at work has another checkpoint, or has ended."""
        points, listed = points_of(selected, find_run(app, selected), shown, point)
        return (points, listed) if selected and listed != shown else (gr.skip(), gr.skip())

    lists = [run, checkpoint, shared.run, whose]
    shared.on_show(tab, offer, [shared.run, whose, checkpoint], lists)
    shared.on_tick(follow, [shared.run, whose, checkpoint], [checkpoint, whose])
    run.input(lambda chosen: chosen or "", run, shared.run, **CHOICE)
    return run, checkpoint
