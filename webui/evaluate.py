"""Evaluate: the tuned model against its base on held-out rows; verdict, numbers, rows."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.errors import TunesmithError
from core.evaluation.report import Evaluation, has_base, kind_of, list_evaluations
from core.language import _
from core.rules import load_config
from core.runs.submit import submit_evaluation
from webui import messages
from webui.beginning import Beginning
from webui.choice import Dropdown
from webui.context import CHOICE, QUIET, App, Shared
from webui.job_progress import JobProgress
from webui.report import report
from webui.run_choice import find_run, run_picker, trained_runs

MOST_ROWS = 500


def build(app: App, shared: Shared) -> None:
    _Evaluate(app, shared).wire()


class _Evaluate:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.beginning = Beginning(
            app,
            shared,
            _("Nothing to evaluate yet"),
            _(
                "Train a model first. It is measured here on rows that it has not seen, and "
                "against its base where that can do the same."
            ),
        )
        with gr.Column(visible=False, elem_id="evaluate-form") as self.form:
            _run, self.checkpoint = run_picker(app, shared, "evaluate")
            with gr.Row(elem_classes="picker"):
                self.rows = gr.Slider(
                    10,
                    MOST_ROWS,
                    value=200,
                    step=10,
                    label=_("Rows at most"),
                    min_width=200,
                    info=_("More rows narrow the intervals and take longer."),
                    scale=3,
                    elem_id="evaluate-rows",
                )
                self.compare = gr.Checkbox(
                    True,
                    label=_("Compare with the base"),
                    elem_id="evaluate-base",
                    min_width=160,
                    info=_("Shows what the training changed; takes twice as long."),
                    scale=2,
                )
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button(_("Evaluate"), variant="primary", elem_id="evaluate-start")
        self.said = gr.HTML(elem_id="evaluate-said", apply_default_css=False)
        self.jobs = JobProgress(
            app, ("evaluate",), elem_id="evaluate-status", of="run_id", stop_id="evaluate-stop"
        )
        self.earlier = Dropdown(
            [], label=_("Report"), visible=False, elem_id="evaluate-earlier", min_width=200
        )
        self.shown = gr.HTML(elem_id="evaluate-report", apply_default_css=False)
        self.newest = gr.State("")

    # -- handlers

    def open(self, run_id: str):
        """What the selected run has: its newest report, or what to do first."""
        if not trained_runs(self.app):
            hidden = gr.Column(visible=False)
            no_report = gr.Dropdown(visible=False), "", ""
            return *self.beginning.show(True), hidden, gr.skip(), *no_report
        compare = gr.Checkbox(visible=_has_base(self.app, run_id))
        shown = gr.Column(visible=True), compare, *self._shown(run_id)
        return *self.beginning.show(False), *shown

    def begin(self, run_id: str, name: str, most: float, with_base: bool):
        params = {"checkpoint": name, "max_rows": int(most), "compare_base": with_base}
        try:
            submit_evaluation(self.app.workspace, self.app.store, run_id, params)
        except TunesmithError as problem:
            return messages.error(problem)
        return ""

    def refresh(self, run_id: str, known: str):
        """A report that has become ready is shown at once."""
        reports = _finished(self.app, run_id)
        if (reports[0].id if reports else "") == known:
            return gr.skip(), gr.skip(), gr.skip()
        return self._shown(run_id)

    def choose(self, run_id: str, chosen: str | None):
        return _report(_finished(self.app, run_id), chosen, _has_base(self.app, run_id))

    def _shown(self, run_id: str) -> tuple[Any, str, str]:
        reports = _finished(self.app, run_id)
        newest = reports[0].id if reports else ""
        choices = gr.Dropdown(_choices(reports), value=newest or None, visible=len(reports) > 1)
        return choices, _report(reports, None, _has_base(self.app, run_id)), newest

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        quiet = QUIET
        report_boxes = [self.earlier, self.shown, self.newest]
        parts = [*self.beginning.outputs, self.form, self.compare]
        shared.on_show("evaluate", self.open, [run], [*parts, *report_boxes])
        asked = [run, self.checkpoint, self.rows, self.compare]
        begun = self.start.click(self.begin, asked, self.said, **quiet)
        self.jobs.wire(shared, "evaluate", run, self.start, begun)
        shared.ticker.tick(self.refresh, [run, self.newest], report_boxes, **quiet)
        self.earlier.input(self.choose, [run, self.earlier], self.shown, **CHOICE)


def _has_base(app: App, run_id: str) -> bool:
    """Whether the run's base can do what the run learned; one with a new head cannot."""
    run = find_run(app, run_id)
    try:
        return run is None or has_base(kind_of(load_config(run.folder.config).method))
    except (TunesmithError, OSError):
        return True  # a run of another version: evaluating says what is wrong with it


def _finished(app: App, run_id: str) -> list[Evaluation]:
    run = find_run(app, run_id)
    return [item for item in list_evaluations(run.folder.root) if item.report] if run else []


def _choices(reports: list[Evaluation]) -> list[tuple[str, str]]:
    return [
        (
            _(
                "{when}, {model}, {rows} rows",
                when=messages.moment(item.created_at),
                model=messages.checkpoint(item.checkpoint),
                rows=item.report.rows if item.report else 0,
            ),
            item.id,
        )
        for item in reports
    ]


def _report(reports: list[Evaluation], chosen: str | None, with_base: bool) -> str:
    """The chosen report, else the newest."""
    for item in reports:
        if item.report and chosen in (None, item.id):
            return report(item.report)
    what = (
        _("Evaluate asks the tuned model and its base the same held-out questions and compares.")
        if with_base
        else _(
            "Evaluate asks the tuned model about the held-out rows. Its base cannot do what "
            "was learned, so there is nothing to compare with."
        )
    )
    return messages.empty(_("Not evaluated yet"), what)
