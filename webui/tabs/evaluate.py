"""Evaluate: the tuned model against its base on held-out rows; verdict, numbers, rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import gradio as gr

from core.errors import TunesmithError
from core.evaluation.reports import Report, list_evaluations
from core.jobs.submit import stop_job, submit_evaluation
from webui import messages
from webui.context import App, Shared
from webui.pick import find_run, run_picker, trained_runs
from webui.report_view import report
from webui.task_view import latest_task, task_status

MOST_ROWS = 500


def build(app: App, shared: Shared) -> None:
    # Components
    nothing = gr.HTML(apply_default_css=False)
    with gr.Column(visible=False, elem_id="evaluate-form") as form:
        _, checkpoint = run_picker(app, shared, "evaluate")
        with gr.Row(elem_classes="picker"):
            rows = gr.Slider(
                10, MOST_ROWS, value=200, step=10, label="Rows at most", elem_id="evaluate-rows",
                info="More rows narrow the intervals and take longer.", scale=3, min_width=200,
            )
            compare = gr.Checkbox(
                True, label="Compare with the base", elem_id="evaluate-base", min_width=160,
                info="Shows what the training changed; takes twice as long.", scale=2,
            )
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Evaluate", variant="primary", elem_id="evaluate-start")
            stop = gr.Button("Stop", visible=False, elem_id="evaluate-stop")
    status = gr.HTML(elem_id="evaluate-status", apply_default_css=False)
    earlier = gr.Dropdown(
        [], label="Report", visible=False, elem_id="evaluate-earlier", min_width=200
    )
    shown = gr.HTML(elem_id="evaluate-report", apply_default_css=False)

    # Handlers
    def open_tab(run_id: str):
        """What the selected run has: its newest report, or what to do first."""
        if not trained_runs(app):
            empty = messages.empty(
                "Nothing to evaluate yet",
                "Train a model in Configure. Its answers are measured here against its base's.",
            )
            return empty, gr.Column(visible=False), gr.Dropdown(visible=False), ""
        reports = _finished(app, run_id)
        choices = gr.Dropdown(
            _choices(reports), value=reports[0].id if reports else None, visible=len(reports) > 1
        )
        return "", gr.Column(visible=True), choices, _report(reports, None)

    def begin(run_id: str, name: str, most: float, with_base: bool):
        params = {"checkpoint": name, "max_rows": int(most), "compare_base": with_base}
        try:
            submit_evaluation(app.workspace, app.store, run_id, params)
        except TunesmithError as problem:
            return messages.error(problem), gr.skip(), gr.skip()
        return watch(run_id, "")

    def halt(run_id: str) -> None:
        job = latest_task(app, run_id, "evaluate")
        if job is not None and not job.ended:
            stop_job(app.workspace, app.store, job.id)

    def watch(run_id: str, drawn: str):
        """How far the evaluation is; nothing is sent when nothing is new."""
        text, busy = task_status(app, run_id, "evaluate", "Evaluation")
        if text == drawn:
            return gr.skip(), gr.skip(), gr.skip()
        return text, gr.Button(interactive=not busy), gr.Button(visible=busy)

    def refresh(run_id: str, chosen: str | None, known: str):
        """A report that has become ready is shown at once."""
        reports = _finished(app, run_id)
        newest = reports[0].id if reports else ""
        if newest == known:
            return gr.skip(), gr.skip(), gr.skip()
        return (
            gr.Dropdown(_choices(reports), value=newest or None, visible=len(reports) > 1),
            _report(reports, newest),
            newest,
        )

    def choose(run_id: str, chosen: str | None):
        return _report(_finished(app, run_id), chosen)

    # Wiring
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    newest = gr.State("")
    progress = [status, start, stop]
    shared.on_show("evaluate", open_tab, [shared.run], [nothing, form, earlier, shown])
    shared.on_show("evaluate", watch, [shared.run, status], progress)
    start.click(begin, [shared.run, checkpoint, rows, compare], progress, **quiet)
    stop.click(halt, shared.run, None, **quiet)
    shared.ticker.tick(watch, [shared.run, status], progress, **quiet)
    shared.ticker.tick(
        refresh, [shared.run, earlier, newest], [earlier, shown, newest], **quiet
    )
    earlier.input(choose, [shared.run, earlier], shown, **quiet)


def _finished(app: App, run_id: str) -> list[Report]:
    run = find_run(app, run_id)
    return [item for item in list_evaluations(run.folder.root) if item.result] if run else []


def _choices(reports: list[Report]) -> list[tuple[str, str]]:
    return [
        (
            f"{datetime.fromtimestamp(item.created_at):%d %b %H:%M}, "
            f"{'finished model' if item.checkpoint == 'final' else item.checkpoint}, "
            f"{item.result['rows'] if item.result else 0} rows",
            item.id,
        )
        for item in reports
    ]


def _report(reports: list[Report], chosen: str | None) -> str:
    """The chosen report, else the newest."""
    for item in reports:
        if item.result and chosen in (None, item.id):
            return report(item.result)
    return messages.empty(
        "Not evaluated yet",
        "Evaluate asks the tuned model and its base the same held-out questions and compares.",
    )
