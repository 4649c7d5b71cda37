"""Evaluate: the tuned model against its base on held-out rows; verdict, numbers, rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.data.registry import list_datasets
from core.errors import TunesmithError
from core.evaluation.benchmark import read_benchmark
from core.evaluation.report import Evaluation, has_base, kind_of, list_evaluations
from core.evaluation.targets import Target
from core.export.reports import list_exports
from core.language import _, n_
from core.models.checkpoints import checkpoints
from core.models.starter import STARTER_MODELS
from core.models.trained import FINAL
from core.rules import load_config
from core.runs.submit import submit_evaluation
from webui import messages
from webui.answers import AnswersView
from webui.beginning import Beginning
from webui.choice import Dropdown
from webui.context import CHOICE, QUIET, App, Shared
from webui.evaluate_tasks import TasksView
from webui.job_progress import JobProgress
from webui.report import report
from webui.run_choice import find_run, run_choices, run_picker, trained_runs

MOST_ROWS = 500
Updates = dict[Component, Any]


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
                    1,
                    MOST_ROWS,
                    value=200,
                    step=1,
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
                    min_width=220,
                    info=_("Shows what the training changed; takes twice as long."),
                    scale=2,
                )
            self._build_more()
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
        self.answers = AnswersView(app)

    def _build_more(self) -> None:
        with gr.Accordion(_("Other rows, other models"), open=False, elem_id="evaluate-more"):
            with gr.Row(elem_classes="picker"):
                self.dataset = Dropdown(
                    [],
                    label=_("Rows of"),
                    info=_("The rows that the run held out, or those of another data set."),
                    elem_id="evaluate-dataset",
                    min_width=220,
                )
                self.against = gr.Dropdown(
                    [],
                    label=_("Other models"),
                    info=_(
                        "They answer the same rows. Also model:FOLDER, gguf:FILE or "
                        "endpoint:MODEL of the endpoint in the environment."
                    ),
                    multiselect=True,
                    allow_custom_value=True,
                    elem_id="evaluate-against",
                    min_width=260,
                )
                self.benchmark = gr.File(
                    label=_("Or a benchmark: a file of questions"),
                    elem_id="evaluate-benchmark",
                    height=136,
                    min_width=240,
                )
            self.wrong = gr.HTML(elem_id="evaluate-wrong", apply_default_css=False)
            self.tasks = TasksView(self.app)
            with gr.Row(elem_classes="picker"):
                self.pattern = gr.Textbox(
                    label=_("Pattern of a right answer"),
                    info=_("A regular expression; the share of answers that contain it."),
                    elem_id="evaluate-pattern",
                    max_lines=1,
                    min_width=220,
                )
                self.general = gr.Checkbox(
                    True,
                    label=_("General prompts too"),
                    info=_("Forty short ones, to see what the training broke."),
                    elem_id="evaluate-general",
                    min_width=220,
                )
            self._build_judge()

    def _build_judge(self) -> None:
        with gr.Row(elem_classes="picker"):
            self.judge = gr.Dropdown(
                [(_("None"), "")],
                value="",
                label=_("Judge"),
                info=_(
                    "Compares the answers in both orders: a model of this machine, or, by its "
                    "name, one of the endpoint in the environment."
                ),
                allow_custom_value=True,
                elem_id="evaluate-judge",
                min_width=220,
            )
            self.rubric = gr.Textbox(
                label=_("What counts for the judge"),
                placeholder=_(
                    "Correct, complete, to the point, in the form and language of the prompt; "
                    "length alone is no merit."
                ),
                elem_id="evaluate-rubric",
                lines=2,
                max_lines=6,
                min_width=260,
            )

    # -- handlers

    def open(self, data: Updates) -> Updates:
        """What the selected run has: its newest report, or what to do first."""
        run_id = data[self.shared.run]
        is_empty = not trained_runs(self.app)
        shown = dict(zip(self.beginning.outputs, self.beginning.show(is_empty), strict=True))
        if is_empty:
            nothing = {self.earlier: gr.Dropdown(visible=False), self.shown: "", self.newest: ""}
            return {**shown, self.form: gr.Column(visible=False), **nothing}
        kept = data[self.dataset] or ""
        sets = [
            (_("The run's own"), ""),
            *((i.name, i.id) for i in list_datasets(self.app.workspace)),
        ]
        return {
            **shown,
            self.form: gr.Column(visible=True),
            self.compare: gr.Checkbox(visible=_has_base(self.app, run_id)),
            self.dataset: gr.Dropdown(sets, value=kept if kept in dict(sets).values() else ""),
            self.against: gr.Dropdown(_others(self.app, run_id)),
            self.judge: gr.Dropdown(_judges(self.app)),
            **self._shown(run_id),
        }

    def look(self, file: str | None) -> Markup:
        """How many questions a file holds, and what is wrong with the other rows."""
        if not file:
            return Markup()
        try:
            found, problems = read_benchmark(Path(file))
        except TunesmithError as problem:
            return messages.error(problem)
        choosing = sum(bool(one.choices) for one in found)
        told = n_(
            "{n} question, {choosing} with choices. Base and tuned model are asked it.",
            "{n} questions, {choosing} with choices. Base and tuned model are asked them.",
            len(found),
            choosing=choosing,
        )
        if not problems:
            return messages.note(told)
        lost = n_(
            "{n} row is none: {reason}.",
            "{n} rows are none; the first: {reason}.",
            len(problems),
            reason=problems[0],
        )
        return messages.note(told) + messages.note(lost)

    def begin(self, data: Updates) -> Updates:
        params: dict[str, Any] = {
            "checkpoint": data[self.checkpoint],
            "max_rows": int(data[self.rows]),
            "compare_base": data[self.compare],
            "dataset": data[self.dataset] or None,
            "against": list(data[self.against] or []),
            "pattern": data[self.pattern].strip(),
            "general": data[self.general],
            "judge": (data[self.judge] or "").strip(),
            "rubric": data[self.rubric],
            "benchmark": data[self.benchmark],
        }
        try:
            params |= self.tasks.params(data)
            submit_evaluation(self.app.workspace, self.app.store, data[self.shared.run], params)
        except TunesmithError as problem:
            return {self.said: messages.error(problem)}
        return {self.said: "", self.wrong: "", self.benchmark: None, **self.tasks.clear()}

    def refresh(self, data: Updates) -> Updates:
        """A report that has become ready is shown at once."""
        run_id = data[self.shared.run]
        reports = _finished(self.app, run_id)
        if (reports[0].id if reports else "") == data[self.newest]:
            return {self.newest: gr.skip()}
        return self._shown(run_id)

    def choose(self, data: Updates) -> Updates:
        run_id, chosen = data[self.shared.run], data[self.earlier]
        return self._drawn(run_id, _finished(self.app, run_id), chosen)

    def _shown(self, run_id: str) -> Updates:
        reports = _finished(self.app, run_id)
        newest = reports[0].id if reports else ""
        choices = gr.Dropdown(_choices(reports), value=newest or None, visible=len(reports) > 1)
        return {self.earlier: choices, self.newest: newest, **self._drawn(run_id, reports, newest)}

    def _drawn(self, run_id: str, reports: list[Evaluation], chosen: str | None) -> Updates:
        """The chosen report, else what an evaluation would do."""
        found = next((one for one in reports if one.id == chosen), None)
        drawn = _report(found, _has_base(self.app, run_id))
        return {self.shown: drawn, **self.answers.show(run_id, found)}

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        quiet = QUIET
        drawn = {self.shown, *self.answers.outputs}
        boxes = {self.earlier, self.newest, *drawn}
        fields = {self.form, self.compare, self.dataset, self.against, self.judge}
        parts = {*self.beginning.outputs, *fields, *boxes}
        shared.on_show("evaluate", self.open, {run, self.dataset}, parts)
        asked = {run, self.checkpoint, self.rows, *fields, self.pattern, self.general}
        asked = (asked | {self.rubric, self.benchmark} | self.tasks.fields) - {self.form}
        told = {self.said, self.wrong, self.benchmark, *self.tasks.clear()}
        begun = self.start.click(self.begin, asked, told, **quiet)
        changed = [self.benchmark.upload, self.benchmark.clear]
        gr.on(changed, self.look, self.benchmark, self.wrong, **quiet)
        self.tasks.wire()
        self.jobs.wire(shared, "evaluate", run, self.start, begun)
        shared.on_tick(self.refresh, {run, self.newest}, boxes)
        self.earlier.input(self.choose, {run, self.earlier}, drawn, **CHOICE)
        self.answers.wire()


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


def _others(app: App, run_id: str) -> list[tuple[str, str]]:
    """Other models that can be asked the same: checkpoints of this run, its exports, other runs."""
    run = find_run(app, run_id)
    own: list[tuple[str, str]] = []
    if run is not None:
        own = [
            (messages.checkpoint(one.name), str(Target("run", run.id, one.name)))
            for one in reversed(checkpoints(run.folder.root))
            if one.name != FINAL
        ]
        for export in list_exports(run.folder.root):
            files = sorted(export.path.glob("*.gguf")) if export.path else []
            own += [(file.name, str(Target("gguf", str(file)))) for file in files]
            if export.path and export.format == "merged":
                own.append((_("Merged model"), str(Target("model", str(export.path)))))
    others = [(title, f"run:{name}") for title, name in run_choices(trained_runs(app))]
    return own + [(title, name) for title, name in others if name != f"run:{run_id}"]


def _judges(app: App) -> list[tuple[str, str]]:
    """Models that can judge: none, each run's, each base."""
    runs = trained_runs(app)
    bases = dict.fromkeys([*(run.job.model for run in runs), next(iter(STARTER_MODELS))])
    return [
        (_("None"), ""),
        *((title, str(Target("run", name))) for title, name in run_choices(runs)),
        *((_("Base: {name}", name=name), str(Target("model", name))) for name in bases),
    ]


def _report(found: Evaluation | None, with_base: bool) -> Markup:
    if found and found.report:
        return report(found.report, folder=found.folder)
    what = (
        _("Evaluate asks the tuned model and its base the same held-out questions and compares.")
        if with_base
        else _(
            "Evaluate asks the tuned model about the held-out rows. Its base cannot do what "
            "was learned, so there is nothing to compare with."
        )
    )
    return messages.empty(_("Not evaluated yet"), what)
