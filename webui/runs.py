"""Runs: all of them in a table, each with a tiny loss curve; open, rename, note, stop, resume,
delete, and overlay curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.errors import TunesmithError
from core.evaluation.document import spelled
from core.evaluation.metrics import METRICS
from core.evaluation.report import Report, list_evaluations
from core.jobs.queue import move_job, stop_job
from core.language import N_, _, n_
from core.rules import load_config
from core.runs.curves import CurveReader, curves, downsample
from core.runs.differences import differences
from core.runs.lineage import built_on, lineage_text
from core.runs.records import RunSummary, delete_run, list_runs, load_run, note_run, rename_run
from core.runs.resume import resume_run
from webui import messages, tables
from webui.beginning import Beginning
from webui.charts import RUN_COLOURS, Line, chart, figure, run_colour
from webui.context import CHOICE, QUIET, App, Shared
from webui.forms import said, setting_label
from webui.html import html
from webui.run_choice import find_run
from webui.sweeps import Sweeps

OVERLAYS = {
    "loss": N_("Loss"),
    "eval_loss": N_("Eval loss"),
    "learning_rate": N_("Learning rate"),
    "grad_norm": N_("Gradient norm"),
    "tokens_per_second": N_("Tokens per second"),
}


def build(app: App, shared: Shared) -> None:
    _Runs(app, shared).wire()


class _Runs:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.drawer = RunTable()
        self.order = gr.State(tables.NEWEST)
        self.ticked = gr.State([])
        self.deleting = gr.State("")
        self.table = gr.HTML(
            elem_id="runs-table",
            js_on_load=tables.CLICKS,
            apply_default_css=False,
            show_label=False,
        )
        text = _("Start the sample run: a few minutes on this machine, and nothing of yours.")
        self.nothing = Beginning(app, shared, _("No runs yet"), text).box
        self.told = gr.HTML(elem_id="runs-told")
        self.sweeps = Sweeps(app)
        with gr.Column(visible=False, elem_id="runs-detail", elem_classes="card") as self.detail:
            self._build_detail()
        with gr.Column(visible=False, elem_id="runs-overlay", elem_classes="card") as self.overlay:
            self._build_overlay()

    def _build_detail(self) -> None:
        self.title = gr.HTML()
        with gr.Row():
            self.name = gr.Textbox(label=_("Name"), max_length=80, elem_id="runs-name")
            self.note = gr.Textbox(
                label=_("Note"),
                placeholder=_("What you tried, what you saw"),
                elem_id="runs-note",
                scale=2,
            )
        with gr.Row(elem_classes="actions"):
            self.open = gr.Button(_("Open in Train"), variant="primary", elem_id="runs-open")
            self.again = gr.Button(_("Use these settings again"), elem_id="runs-again")
            self.save = gr.Button(_("Save name and note"), elem_id="runs-save")
            self.delete = gr.Button(_("Delete"), variant="stop", elem_id="runs-delete")
            self.confirm = gr.Button(
                _("Delete for good"), variant="stop", visible=False, elem_id="runs-confirm"
            )

    def _build_overlay(self) -> None:
        gr.HTML(html.runs.heading())
        with gr.Row():
            self.metric = gr.Radio(
                [(_(title), metric) for metric, title in OVERLAYS.items()],
                value="loss",
                label=_("Curve"),
                elem_id="runs-metric",
                scale=3,
            )
            self.log = gr.Checkbox(label=_("Log scale"), elem_id="runs-log", min_width=120)
        self.drawing = chart(_("Curves of the ticked runs"), height=360, elem_id="runs-chart")
        self.differing = gr.HTML(elem_id="runs-differing", apply_default_css=False)

    # -- handlers

    def draw(self, sort: dict[str, Any], ticks: list[str], run_id: str, shown: str) -> Any:
        """The table as it is now; nothing is sent when the browser has it already."""
        runs = list_runs(self.app.workspace, self.app.store)
        fresh = self.drawer.render(runs, **sort, ticked=ticks, selected=run_id) if runs else ""
        if fresh == (shown or "") and runs:
            return gr.skip(), gr.skip()
        return fresh, gr.Column(visible=not runs)

    def show_detail(self, run_id: str) -> Any:
        """Name, note and buttons of the selected run."""
        run, hidden = find_run(self.app, run_id), gr.Button(visible=False)
        if run is None:
            return gr.Column(visible=False), "", "", "", hidden, ""
        badge = messages.badge(run.state)
        words = html.runs.detail(
            run.job.name, badge, run.id, lineage_text(run.folder), _outcome(run)
        )
        return gr.Column(visible=True), words, run.job.name, run.job.note, hidden, ""

    def select(self, event: gr.EventData) -> Any:
        return event.id

    def tick(self, before: list[str], event: gr.EventData) -> Any:
        ticked = tables.tick(before, event)
        return ticked, gr.Column(visible=bool(ticked))

    def compare(self, ticks: list[str], which: str, log: bool) -> Any:
        """The ticked runs' curves over one another, and the settings in which they differ."""
        runs = [run for run in list_runs(self.app.workspace, self.app.store) if run.id in ticks]
        lines = [
            Line(run.job.name, curves(run.folder.root).get(which, []), colour)
            for run, colour in zip(runs, _colours(runs), strict=True)
        ]
        told = differing(runs) + evaluated(runs)
        return figure(lines, y=_(OVERLAYS[which]), key=which, log=log), told

    def use_again(self, run_id: str) -> dict[Any, Any]:
        """The run's settings in Configure, for another run with some of them changed."""
        try:
            config = load_config(self.app.workspace.run(run_id).config)
        except TunesmithError as problem:
            return {self.told: messages.error(problem)}
        config.name, config.data.dataset_fingerprint = "", ""
        return {
            **self.shared.form.fill(config.values()),
            self.shared.dataset: config.data.dataset,
            self.shared.tabs: self.shared.go("configure"),
        }

    def act(self, event: gr.EventData) -> Any:
        """A button in a row: stop, resume, or run next."""
        try:
            return _act(self.app, event.act, event.id)
        except TunesmithError as problem:
            return messages.error(problem)

    def save_words(self, run_id: str, new_name: str, new_note: str) -> Any:
        try:
            rename_run(self.app.workspace, self.app.store, run_id, new_name)
            note_run(self.app.workspace, self.app.store, run_id, new_note)
        except TunesmithError as problem:
            return messages.error(problem), gr.skip()
        _panel, title, *_rest = self.show_detail(run_id)
        return messages.note(_("Saved."), "finished"), title

    def ask_delete(self, run_id: str) -> Any:
        run = load_run(self.app.workspace, self.app.store, run_id)
        words: str = _(
            "This deletes {run} with its checkpoints, evaluations and exports ({size}).",
            run=run.job.name,
            size=messages.size(run.size_bytes),
        )
        later = [job.name for job in built_on(self.app.store, run_id)]
        if later:
            more = n_(
                "{runs} began with it, and keeps what it needs of it.",
                "{runs} began with it, and keep what they need of it.",
                len(later),
                runs=", ".join(later),
            )
            words = f"{words} {more}"
        return run_id, gr.Button(visible=True), messages.note(words, "stopped")

    def delete_now(self, asked: str, run_id: str) -> Any:
        """Only the run that was asked about, should another have been selected since."""
        if asked != run_id:
            return gr.skip(), messages.note(_("Another run is selected now. Nothing was deleted."))
        try:
            # Who asked has read what was built on it.
            delete_run(self.app.workspace, self.app.store, run_id, though_built_on=True)
        except TunesmithError as problem:
            return gr.skip(), messages.error(problem)
        return "", messages.note(_("Deleted."), "finished")

    # -- wiring

    def wire(self) -> None:
        shared, run, told = self.shared, self.shared.run, self.told
        quiet = QUIET
        each: dict[str, Any] = {"trigger_mode": "multiple", **quiet}  # of two quick clicks, too
        redraw: dict[str, Any] = {
            "fn": self.draw,
            "inputs": [self.order, self.ticked, run, self.table],
            "outputs": [self.table, self.nothing],
            **quiet,
        }
        compared = [self.ticked, self.metric, self.log]
        drawn = [self.drawing, self.differing]
        details = [self.detail, self.title, self.name, self.note, self.confirm, self.deleting]
        shared.on_show("runs", self.draw, redraw["inputs"], redraw["outputs"])
        shared.on_show("runs", self.show_detail, [run], details)
        shared.on_tick(self.draw, redraw["inputs"], redraw["outputs"])
        self.sweeps.wire(shared)
        self.table.input(tables.reorder, self.order, self.order, **each).then(**redraw)
        self.table.select(self.select, None, run, **each)
        ticking = self.table.like(self.tick, self.ticked, [self.ticked, self.overlay], **each)
        ticking.then(self.compare, compared, drawn, **quiet)
        gr.on([self.metric.input, self.log.input], self.compare, compared, drawn, **CHOICE)
        self.table.apply(self.act, None, told, **quiet).then(**redraw)
        shared.opens("train", self.open)
        begun = {shared.form.filled, shared.dataset, shared.tabs, told}
        self.again.click(self.use_again, run, begun, **quiet)
        words = [run, self.name, self.note]
        saved = self.save.click(self.save_words, words, [told, self.title], **quiet)
        saved.then(**redraw)
        self.delete.click(self.ask_delete, run, [self.deleting, self.confirm, told], **quiet)
        deleted = self.confirm.click(self.delete_now, [self.deleting, run], [run, told], **quiet)
        deleted.then(**redraw)
        deleted.then(self.compare, compared, drawn, **quiet)


def evaluated(runs: Sequence[RunSummary]) -> Markup:
    """What was measured of the runs on the same rows, by each one's newest evaluation of them."""
    same: dict[tuple[str, str, int], dict[str, Report]] = {}
    for run in runs:
        for one in reversed(list_evaluations(run.folder.root)):
            if report := one.report:
                rows = (report.dataset.fingerprint, report.part, report.rows)
                same.setdefault(rows, {})[run.id] = report
    reports = max(same.values(), key=len, default={})
    if len(reports) < 2:
        return html.runs.not_measured() if len(runs) > 1 else Markup()
    names = [run.job.name for run in runs if run.id in reports]
    found = [reports[run.id] for run in runs if run.id in reports]
    lines = [
        (metric.title, [spelled(one.number(key)) for one in found])
        for key, metric in METRICS.items()
        if any(one.number(key) for one in found)
    ]
    title = n_(
        "Measured on the same {n} row of {dataset}",
        "Measured on the same {n} rows of {dataset}",
        found[0].rows,
        dataset=found[0].dataset.name,
    )
    return html.runs.measured(title, names, lines)


def differing(runs: Sequence[RunSummary]) -> Markup:
    """The settings in which runs differ, a column each."""
    known = []
    for run in runs:
        with suppress(TunesmithError):  # what is torn has nothing to compare
            known.append((run, load_config(run.folder.config)))
    if len(known) < 2:
        return Markup()
    found = differences([config for _run, config in known])
    if not found:
        return messages.note(_("Their settings are the same."))
    names = [run.job.name or run.id for run, _config in known]
    lines = [
        (setting_label(path), [said(value) or _("none") for value in values])
        for path, values in found.items()
    ]
    return html.runs.differing(names, lines)


def _colours(runs: list[RunSummary]) -> list[str]:
    """Each run's own colour; where two would share one, the next free is taken."""
    taken: list[str] = []
    for run in runs:
        first = int(run_colour(run.id).removeprefix("run-"))
        ring = [f"run-{(first + offset) % RUN_COLOURS}" for offset in range(RUN_COLOURS)]
        taken.append(next((colour for colour in ring if colour not in taken), ring[0]))
    return taken


def _outcome(run: RunSummary) -> Markup:
    """Why a run ended before its end, and what to do."""
    return messages.error(run.job.error, run.job.advice or "") if run.job.error else Markup()


def _act(app: App, act: str, run_id: str) -> Markup:
    if act == "stop":
        job = stop_job(app.workspace, app.store, run_id)
        done = job.state == "stopped"
        return messages.note(
            _("Cancelled.") if done else _("Stopping; a checkpoint is being written.")
        )
    if act == "resume":
        resume_run(app.workspace, app.store, run_id)
        return messages.note(_("Resumed; it goes on from its last checkpoint."), "running")
    move_job(app.workspace, app.store, run_id, 0)
    return messages.note(_("It runs next."))


# Columns that can be sorted: key -> (label, value of a run, empty values last).
SORT_KEYS: dict[str, tuple[str, Callable[[RunSummary], Any]]] = {
    "name": (N_("Run"), lambda run: (run.job.name or run.id).casefold()),
    "state": (N_("State"), lambda run: run.state),
    "best": (N_("Best eval loss"), lambda run: run.job.best_eval_loss),
    "model": (N_("Model"), lambda run: run.job.model.casefold()),
    "data": (N_("Data"), lambda run: run.job.dataset.casefold()),
    "duration": (N_("Duration"), lambda run: run.duration_seconds),
    "size": (N_("Size"), lambda run: run.size_bytes),
    "created": (N_("Started"), lambda run: run.job.created_at),
}


def sort(runs: Sequence[RunSummary], by: str, descending: bool) -> list[RunSummary]:
    """The runs in the order of one column; those without a value come last either way."""
    value = SORT_KEYS.get(by, SORT_KEYS["created"])[1]
    known = [run for run in runs if value(run) is not None]
    unknown = [run for run in runs if value(run) is None]
    return sorted(known, key=value, reverse=descending) + unknown


def sparkline(points: Sequence[tuple[int, float]], width: int = 96, height: int = 24) -> Markup:
    """A curve as a small picture, scaled to its own lowest and highest value."""
    few = downsample(points, 48)
    if len(few) < 2:
        return html.runs.sparkline("", width, height, "")
    values = [value for _step, value in few]
    low, high = min(values), max(values)
    first, last = few[0][0], few[-1][0]
    spots = " ".join(
        f"{(step - first) / max(last - first, 1) * (width - 2) + 1:.1f},"
        f"{height - 2 - (value - low) / ((high - low) or 1) * (height - 4):.1f}"
        for step, value in few
    )
    told = _(
        "Loss from {first} to {last}",
        first=messages.loss(values[0]),
        last=messages.loss(values[-1]),
    )
    return html.runs.sparkline(spots, width, height, told)


class RunTable:
    """Renders the table; keeps a curve reader for each run, so that only new events are read."""

    def __init__(self) -> None:
        self._readers: dict[str, CurveReader] = {}
        self._origins: dict[str, str] = {}

    def loss(self, run: RunSummary) -> list[tuple[int, float]]:
        reader = self._readers.setdefault(run.id, CurveReader(run.folder.events))
        reader.update()
        return reader.curves.get("loss", [])

    def _came(self, run: RunSummary) -> str:
        """What the run began with, which never changes."""
        if run.id not in self._origins:
            self._origins[run.id] = lineage_text(run.folder)
        return self._origins[run.id]

    def render(
        self,
        runs: Sequence[RunSummary],
        *,
        by: str = "created",
        descending: bool = True,
        first: int = 0,
        ticked: Sequence[str] = (),
        selected: str = "",
    ) -> Markup:
        titles = [(key, _(label)) for key, (label, _value) in SORT_KEYS.items()]
        heads = tables.heads(titles, by, descending)
        shown, pager = tables.page(sort(runs, by, descending), first)
        rows = [self._row(run, run.id in ticked, run.id == selected) for run in shown]
        return html.runs.table(heads, dict(titles), rows, pager)

    def _row(self, run: RunSummary, ticked: bool, selected: bool) -> dict[str, Any]:
        """What the table's row has."""
        job = run.job
        return {
            "id": run.id,
            "name": job.name or run.id,
            "note": job.note,
            "came": self._came(run),
            "state": messages.badge(run.state, job.signal),
            "place": run.queue_position,
            "best": messages.loss(job.best_eval_loss),
            "model": job.model,
            "data": job.dataset,
            "duration": messages.duration(run.duration_seconds),
            "size": messages.size(run.size_bytes),
            "created": messages.moment(job.created_at),
            "loss": sparkline(self.loss(run)),
            "acts": _offered(run),
            "is_ticked": ticked,
            "is_selected": selected,
        }


def _offered(run: RunSummary) -> list[tuple[str, str]]:
    """The buttons that make sense in the run's state: (what a click does, word)."""
    offered: list[tuple[str, str]] = []
    if run.state == "queued":
        if (run.queue_position or 1) > 1:
            offered.append(("first", _("Run next")))
        offered.append(("stop", _("Cancel")))
    elif run.state in ("starting", "running"):
        offered.append(("stop", _("Stop")))
    elif run.resumable:
        offered.append(("resume", _("Resume")))
    return offered
