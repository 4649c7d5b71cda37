"""Runs: all of them in a table; open, rename, note, stop, resume, delete, and overlay curves."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.errors import TunesmithError
from core.jobs.queue import stop_job
from core.runs.curves import curves
from core.runs.lineage import built_on, lineage_text
from core.runs.records import RunSummary, delete_run, list_runs, load_run, note_run, rename_run
from core.runs.resume import resume_run
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
_NOTHING = messages.empty(
    "No runs yet", "Start the sample run: a few minutes on this machine, and nothing of yours."
)


def build(app: App, shared: Shared) -> None:
    _Runs(app, shared).wire()


class _Runs:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.drawer = RunTable()
        self.order = gr.State({"by": "created", "descending": True})
        self.ticked = gr.State([])
        self.deleting = gr.State("")
        self.table = gr.HTML(
            elem_id="runs-table", js_on_load=CLICKS, apply_default_css=False, show_label=False
        )
        with gr.Column(visible=False, elem_classes="nothing") as self.nothing:
            gr.HTML(_NOTHING, apply_default_css=False)
            sample = gr.Button("Start the sample run", variant="primary", scale=0)
            shared.sample_buttons.append(sample)
        self.told = gr.HTML(elem_id="runs-told")
        with gr.Column(visible=False, elem_id="runs-detail", elem_classes="card") as self.detail:
            self._build_detail()
        with gr.Column(visible=False, elem_id="runs-overlay", elem_classes="card") as self.overlay:
            self._build_overlay()

    def _build_detail(self) -> None:
        self.title = gr.HTML()
        with gr.Row():
            self.name = gr.Textbox(label="Name", max_length=80, elem_id="runs-name")
            self.note = gr.Textbox(
                label="Note",
                placeholder="What you tried, what you saw",
                elem_id="runs-note",
                scale=2,
            )
        with gr.Row(elem_classes="actions"):
            self.open = gr.Button("Open in Train", variant="primary", elem_id="runs-open")
            self.save = gr.Button("Save name and note", elem_id="runs-save")
            self.delete = gr.Button("Delete", variant="stop", elem_id="runs-delete")
            self.confirm = gr.Button(
                "Delete for good", variant="stop", visible=False, elem_id="runs-confirm"
            )

    def _build_overlay(self) -> None:
        gr.HTML("<h3>Compare</h3>")
        with gr.Row():
            self.metric = gr.Radio(
                list(OVERLAYS), value="Loss", label="Curve", elem_id="runs-metric", scale=3
            )
            self.log = gr.Checkbox(label="Log scale", elem_id="runs-log", min_width=120)
        self.drawing = chart("Curves of the ticked runs", height=360, elem_id="runs-chart")

    # -- handlers

    def draw(self, sort: dict[str, Any], ticks: list[str], run_id: str, shown: str):
        """The table as it is now; nothing is sent when the browser has it already."""
        runs = list_runs(self.app.workspace, self.app.store)
        fresh = self.drawer.render(runs, **sort, ticked=ticks, selected=run_id) if runs else ""
        if fresh == (shown or "") and runs:
            return gr.skip(), gr.skip()
        return fresh, gr.Column(visible=not runs)

    def show_detail(self, run_id: str):
        """Name, note and buttons of the selected run."""
        run, hidden = find_run(self.app, run_id), gr.Button(visible=False)
        if run is None:
            return gr.Column(visible=False), "", "", "", hidden, ""
        words = (
            f"<h3>{messages.escape(run.job.name)} {messages.badge(run.state)}</h3>"
            f"<p class='soft'>{messages.escape(run.id)} {messages.escape(lineage_text(run.folder))}"
            f"</p>{_outcome(run)}"
        )
        return gr.Column(visible=True), words, run.job.name, run.job.note, hidden, ""

    def sort_by(self, sort: dict[str, Any], event: gr.EventData):
        same = sort["by"] == event.sort
        return {"by": event.sort, "descending": not sort["descending"] if same else True}

    def select(self, event: gr.EventData):
        return event.run

    def tick(self, event: gr.EventData):
        return list(event.runs), gr.Column(visible=len(event.runs) > 0)

    def compare(self, ticks: list[str], which: str, log: bool):
        """The ticked runs' curves over one another."""
        runs = [run for run in list_runs(self.app.workspace, self.app.store) if run.id in ticks]
        lines = [
            Line(run.job.name, curves(run.folder.root).get(OVERLAYS[which], []), colour)
            for run, colour in zip(runs, _colours(runs), strict=True)
        ]
        return figure(lines, y=which, key=which, log=log)

    def act(self, event: gr.EventData):
        """A button in a row: stop, resume, or run next."""
        try:
            return _act(self.app, event.act, event.run)
        except TunesmithError as problem:
            return messages.error(problem)

    def save_words(self, run_id: str, new_name: str, new_note: str):
        try:
            rename_run(self.app.workspace, self.app.store, run_id, new_name)
            note_run(self.app.workspace, self.app.store, run_id, new_note)
        except TunesmithError as problem:
            return messages.error(problem)
        return messages.note("Saved.", "finished")

    def ask_delete(self, run_id: str):
        run = load_run(self.app.workspace, self.app.store, run_id)
        words = (
            f"This deletes {run.job.name} with its checkpoints, evaluations and exports "
            f"({messages.size(run.size_bytes)})."
        )
        later = [job.name for job in built_on(self.app.store, run_id)]
        if later:
            words += f" {', '.join(later)} began with it, and keep what they need of it."
        return run_id, gr.Button(visible=True), messages.note(words, "stopped")

    def delete_now(self, asked: str, run_id: str):
        """Only the run that was asked about, should another have been selected since."""
        if asked != run_id:
            return gr.skip(), messages.note("Another run is selected now. Nothing was deleted.")
        try:
            # Who asked has read what was built on it.
            delete_run(self.app.workspace, self.app.store, run_id, though_built_on=True)
        except TunesmithError as problem:
            return gr.skip(), messages.error(problem)
        return "", messages.note("Deleted.", "finished")

    # -- wiring

    def wire(self) -> None:
        shared, run, told = self.shared, self.shared.run, self.told
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        each: dict[str, Any] = {"trigger_mode": "multiple", **quiet}  # of two quick clicks, too
        redraw: dict[str, Any] = {
            "fn": self.draw,
            "inputs": [self.order, self.ticked, run, self.table],
            "outputs": [self.table, self.nothing],
            **quiet,
        }
        compared = [self.ticked, self.metric, self.log]
        details = [self.detail, self.title, self.name, self.note, self.confirm, self.deleting]
        shared.on_show("runs", self.draw, redraw["inputs"], redraw["outputs"])
        shared.on_show("runs", self.show_detail, [run], details)
        shared.ticker.tick(**redraw)
        self.table.input(self.sort_by, self.order, self.order, **each).then(**redraw)
        self.table.select(self.select, None, run, **each)
        ticking = self.table.like(self.tick, None, [self.ticked, self.overlay], **each)
        ticking.then(self.compare, compared, self.drawing, **quiet)
        gr.on([self.metric.input, self.log.input], self.compare, compared, self.drawing, **quiet)
        self.table.apply(self.act, None, told, **quiet).then(**redraw)
        self.open.click(lambda: shared.go("train"), None, shared.tabs, **quiet)
        self.save.click(self.save_words, [run, self.name, self.note], told, **quiet).then(**redraw)
        self.delete.click(self.ask_delete, run, [self.deleting, self.confirm, told], **quiet)
        deleted = self.confirm.click(self.delete_now, [self.deleting, run], [run, told], **quiet)
        deleted.then(**redraw)
        deleted.then(self.compare, compared, self.drawing, **quiet)


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
