"""Runs: all of them in a table; open, rename, note, stop, resume, delete, and overlay curves."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.errors import TunesmithError
from core.jobs.runs import RunSummary, curves, list_runs, load_run
from core.jobs.submit import delete_run, note_run, rename_run, resume_run, stop_job
from webui import messages
from webui.charts import RUN_COLOURS, Line, chart, figure, run_colour
from webui.context import App, Shared
from webui.pick import find_run
from webui.run_table import CLICKS, RunTable

OVERLAYS = {
    "Loss": "loss",
    "Eval loss": "eval_loss",
    "Learning rate": "learning_rate",
    "Gradient norm": "grad_norm",
    "Tokens per second": "tokens_per_second",
}


def build(app: App, shared: Shared) -> None:
    # Components
    drawer = RunTable()
    order = gr.State({"by": "created", "descending": True})
    ticked = gr.State([])
    deleting = gr.State("")
    table = gr.HTML(
        elem_id="runs-table", js_on_load=CLICKS, apply_default_css=False, show_label=False
    )
    start = gr.Button("Go to Configure", variant="primary", visible=False, elem_id="runs-start")
    told = gr.HTML(elem_id="runs-told")
    with gr.Column(visible=False, elem_id="runs-detail", elem_classes="card") as detail:
        title = gr.HTML()
        with gr.Row():
            name = gr.Textbox(label="Name", max_length=80, elem_id="runs-name")
            note = gr.Textbox(
                label="Note", placeholder="What you tried, what you saw", elem_id="runs-note",
                scale=2,
            )
        with gr.Row(elem_classes="actions"):
            open_run = gr.Button("Open in Train", variant="primary", elem_id="runs-open")
            save = gr.Button("Save name and note", elem_id="runs-save")
            delete = gr.Button("Delete", variant="stop", elem_id="runs-delete")
            confirm = gr.Button(
                "Delete for good", variant="stop", visible=False, elem_id="runs-confirm"
            )
    with gr.Column(visible=False, elem_id="runs-overlay", elem_classes="card") as overlay:
        gr.HTML("<h3>Compare</h3>")
        with gr.Row():
            metric = gr.Radio(
                list(OVERLAYS), value="Loss", label="Curve", elem_id="runs-metric", scale=3
            )
            logarithmic = gr.Checkbox(label="Log scale", elem_id="runs-log", min_width=120)
        drawing = chart("Curves of the ticked runs", height=360, elem_id="runs-chart")

    # Handlers
    def draw(sort: dict[str, Any], ticks: list[str], run_id: str, shown: str):
        """The table as it is now; nothing is sent when the browser has it already."""
        runs = list_runs(app.workspace, app.store)
        if not runs:
            empty = messages.empty(
                "No runs yet", "Start the sample run in Configure: a few minutes on this machine."
            )
            return empty, gr.Button(visible=True)
        fresh = drawer.render(runs, **sort, ticked=ticks, selected=run_id)
        return gr.skip() if fresh == shown else fresh, gr.Button(visible=False)

    def show_detail(run_id: str):
        """Name, note and buttons of the selected run."""
        run = find_run(app, run_id)
        if run is None:
            return gr.Column(visible=False), "", "", "", gr.Button(visible=False), ""
        words = f"<h3>{messages.escape(run.job.name)} {messages.badge(run.state)}</h3>"
        words += f"<p class='soft'>{messages.escape(run.id)}</p>" + _outcome(run)
        return (
            gr.Column(visible=True), words, run.job.name, run.job.note,
            gr.Button(visible=False), "",
        )

    def sort_by(sort: dict[str, Any], event: gr.EventData):
        same = sort["by"] == event.sort
        return {"by": event.sort, "descending": not sort["descending"] if same else True}

    def select(event: gr.EventData):
        return event.run

    def tick(event: gr.EventData):
        return list(event.runs), gr.Column(visible=len(event.runs) > 0)

    def compare(ticks: list[str], which: str, log: bool):
        """The ticked runs' curves over one another."""
        runs = [run for run in list_runs(app.workspace, app.store) if run.id in ticks]
        lines = [
            Line(run.job.name, curves(run.folder.root).get(OVERLAYS[which], []), colour)
            for run, colour in zip(runs, _colours(runs), strict=True)
        ]
        return figure(lines, y=which, key=which, log=log)

    def act(event: gr.EventData):
        """A button in a row: stop, resume, or run next."""
        try:
            return _act(app, event.act, event.run)
        except TunesmithError as problem:
            return messages.error(problem)

    def save_words(run_id: str, new_name: str, new_note: str):
        try:
            rename_run(app.workspace, app.store, run_id, new_name)
            note_run(app.workspace, app.store, run_id, new_note)
        except TunesmithError as problem:
            return messages.error(problem)
        return messages.note("Saved.", "finished")

    def ask_delete(run_id: str):
        run = load_run(app.workspace, app.store, run_id)
        words = (
            f"This deletes {run.job.name} with its checkpoints, evaluations and exports "
            f"({messages.size(run.size_bytes)})."
        )
        return run_id, gr.Button(visible=True), messages.note(words, "stopped")

    def delete_now(asked: str, run_id: str):
        """Only the run that was asked about, should another have been selected since."""
        if asked != run_id:
            return gr.skip(), messages.note("Another run is selected now. Nothing was deleted.")
        try:
            delete_run(app.workspace, app.store, run_id)
        except TunesmithError as problem:
            return gr.skip(), messages.error(problem)
        return "", messages.note("Deleted.", "finished")

    # Wiring
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    seen = [order, ticked, shared.run, table]
    details = [detail, title, name, note, confirm, deleting]
    shared.on_show("runs", draw, seen, [table, start])
    shared.on_show("runs", show_detail, [shared.run], details)
    shared.ticker.tick(draw, seen, [table, start], **quiet)
    table.input(sort_by, order, order, **quiet).then(draw, seen, [table, start], **quiet)
    table.select(select, None, shared.run, **quiet)
    ticking = table.like(tick, None, [ticked, overlay], **quiet)
    compared = [ticked, metric, logarithmic]
    ticking.then(compare, compared, drawing, **quiet)
    gr.on([metric.input, logarithmic.input], compare, compared, drawing, **quiet)
    table.apply(act, None, told, **quiet).then(draw, seen, [table, start], **quiet)
    start.click(lambda: shared.go("configure"), None, shared.tabs, **quiet)
    open_run.click(lambda: shared.go("train"), None, shared.tabs, **quiet)
    save.click(save_words, [shared.run, name, note], told, **quiet).then(
        draw, seen, [table, start], **quiet
    )
    delete.click(ask_delete, shared.run, [deleting, confirm, told], **quiet)
    deleted = confirm.click(delete_now, [deleting, shared.run], [shared.run, told], **quiet)
    deleted.then(draw, seen, [table, start], **quiet)
    deleted.then(compare, compared, drawing, **quiet)


def _colours(runs: list[RunSummary]) -> list[str]:
    """Each run's own colour; where two would share one, the next free is taken."""
    taken: list[str] = []
    for run in runs:
        first = int(run_colour(run.id).removeprefix("run-"))
        ring = [f"run-{(first + offset) % RUN_COLOURS}" for offset in range(RUN_COLOURS)]
        taken.append(next((colour for colour in ring if colour not in taken), ring[0]))
    return taken


def _outcome(run: RunSummary) -> str:
    """Why a run ended before its end, and what to do."""
    return messages.error(run.job.error, run.job.advice or "") if run.job.error else ""


def _act(app: App, act: str, run_id: str) -> str:
    if act == "stop":
        job = stop_job(app.workspace, app.store, run_id)
        done = job.state == "stopped"
        return messages.note("Cancelled." if done else "Stopping; a checkpoint is being written.")
    if act == "resume":
        resume_run(app.workspace, app.store, run_id)
        return messages.note("Resumed; it goes on from its last checkpoint.", "running")
    app.store.reorder(run_id, 0)
    return messages.note("It runs next.")
