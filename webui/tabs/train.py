"""Train: one run as it learns, or as it ended."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.errors import TunesmithError
from core.jobs.queue import stop_job
from core.jobs.store import QUEUED, Job
from core.runs.resume import resume_run
from webui import messages, run_view
from webui.context import App, Shared
from webui.go_on import GoOn

_NOTHING = messages.empty(
    "No runs yet",
    "While a run learns, its curves, speed and sample answers are shown here. The sample run needs "
    "nothing of yours and takes some minutes on a laptop.",
)
# Texts of a run in the order of the outputs; run_view.news gives them by these names.
_PARTS = ("headline", "outcome", "figures", "samples", "choices", "log")


def build(app: App, shared: Shared) -> None:
    _Train(app, shared).wire()


class _Train:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.after = GoOn(app, shared)
        self.choice = gr.Dropdown([], label="Run", elem_id="run-choice", visible=False)
        with gr.Column(visible=False, elem_classes="nothing") as self.nothing:
            gr.HTML(_NOTHING, apply_default_css=False)
            sample = gr.Button("Start the sample run", variant="primary", scale=0)
            shared.sample_buttons.append(sample)
        with gr.Column(visible=False, elem_id="run") as self.shown:
            self._build_run()
        self.cursor = gr.Textbox(visible="hidden", label="What is drawn")
        self.panes = [self.shown, self.nothing, self.stop, self.resume, self.next, self.choice]
        self.panes += self.after.panes
        self.texts = [getattr(self, name) for name in _PARTS]

    def _build_run(self) -> None:
        with gr.Row(elem_classes="toolbar"):
            self.headline = _html("grow")
            self.stop = gr.Button("Stop", variant="stop", visible=False, min_width=96, scale=0)
            self.resume = gr.Button(
                "Resume", variant="primary", visible=False, min_width=96, scale=0
            )
            self.after.build_half()
        self.outcome = _html()
        with gr.Row(visible=False, elem_classes="next-steps") as self.next:
            self.evaluate = gr.Button("Evaluate", variant="primary", scale=0, min_width=140)
            self.chat = gr.Button("Chat", scale=0, min_width=140)
            self.export = gr.Button("Export", scale=0, min_width=140)
        self.after.build()
        self.figures = _html("strip")
        with gr.Row(elem_classes="switches"):
            self.log_scale = gr.Checkbox(label="Log scale", container=False, min_width=110)
            self.raw = gr.Checkbox(True, label="Show each step", container=False, min_width=140)
            self.all = gr.Checkbox(label="All metrics", container=False, min_width=110)
        self.curves = gr.HTML(
            html_template=_curves_html(),
            js_on_load="tunesmith.live(element, () => props.value, watch);",
            elem_id="curves",
            apply_default_css=False,
        )
        self.samples = _html()
        self.choices = _html()
        with gr.Accordion("Log", open=False, elem_classes="fold", elem_id="run-log"):
            self.log = _html()

    # -- handlers

    def open(self, run_id: str):
        """The tab is opened or another run selected: the list, the run, whether it lives."""
        jobs = self.app.store.list(kind="train")
        if not jobs:
            return gr.Dropdown([], value=None, visible=False), ""
        chosen = next((job for job in jobs if job.id == run_id), None)
        chosen = chosen or next((job for job in jobs if job.active), jobs[0])
        listed = self._listed(jobs)
        # What is selected already is not selected again: by now it may be another.
        selected = gr.skip() if chosen.id == run_id else chosen.id
        return gr.Dropdown(listed, value=chosen.id, visible=len(jobs) > 1), selected

    def look(self, run_id: str, cursor: str):
        """What is new of the run since this browser last drew it."""
        job = self.app.store.find(run_id) if run_id else None
        if job is None:
            return [*self._panes(None, False), *([gr.skip()] * (len(_PARTS) + 1))]
        live = self.app.live.get(run_id)
        resumable = run_view.resumable(job, live.folder)
        news = run_view.news(job, live, resumable, run_view.read_cursor(cursor))
        if news is None:
            return [gr.skip()] * (len(self.panes) + len(_PARTS) + 1)
        panes = self._panes(job, resumable) if news.state_changed else [gr.skip()] * len(self.panes)
        texts = [news.texts.get(name, gr.skip()) for name in _PARTS]
        return [*panes, *texts, news.drawing]

    def _panes(self, job: Job | None, resumable: bool) -> list[Any]:
        jobs = self.app.store.list(kind="train")
        listed = gr.Dropdown(choices=self._listed(jobs), visible=len(jobs) > 1)
        return [*_panes(job, resumable), listed, *self.after.shown(job)]

    def _listed(self, jobs: list[Job]) -> list[tuple[str, str]]:
        """Each run with how it stands now."""
        return [
            (f"{job.name or job.id}: {messages.STATE_WORDS[job.state].lower()}", job.id)
            for job in jobs
        ]

    def stop_run(self, run_id: str):
        return self._ask(lambda: stop_job(self.app.workspace, self.app.store, run_id))

    def resume_run(self, run_id: str):
        return self._ask(lambda: resume_run(self.app.workspace, self.app.store, run_id))

    def _ask(self, what: Any):
        """Does it; what cannot be done is said where a run's outcome is said."""
        try:
            what()
        except TunesmithError as error:
            return messages.error(error)
        return gr.skip()

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
        look: dict[str, Any] = {
            "fn": self.look,
            "inputs": [run, self.cursor],
            "outputs": [*self.panes, *self.texts, self.curves],
            "js": "(run) => [run, tunesmith.cursor()]",
            **quiet,
        }
        in_order = {"show_progress": "hidden"}
        triggers = [shared.tab["train"].select, run.change]
        gr.on(triggers, self.open, run, [self.choice, run], **in_order).then(**look)
        shared.ticker.tick(**look)
        self.choice.input(lambda chosen: chosen, self.choice, run, **in_order)
        self.stop.click(self.stop_run, run, self.outcome, **quiet).then(**look)
        self.resume.click(self.resume_run, run, self.outcome, **quiet).then(**look)
        self.after.wire(self.outcome, look)
        steps = {"evaluate": self.evaluate, "chat": self.chat, "export": self.export}
        for tab, button in steps.items():
            button.click(lambda tab=tab: shared.go(tab), None, shared.tabs, **quiet)
        self.log_scale.input(None, self.log_scale, js="on => tunesmith.setLogScale(on)")
        self.raw.input(None, self.raw, js="on => tunesmith.setRaw(on)")
        self.all.input(None, self.all, js="on => tunesmith.setAll(on)")


def _panes(job: Job | None, resumable: bool) -> list[Any]:
    """Which parts are seen: the run, the empty state, Stop, Resume, what to do next."""
    state = job.state if job else ""
    return [
        gr.Column(visible=job is not None),
        gr.Column(visible=job is None),
        gr.Button(
            "Cancel" if state == QUEUED else "Stop",
            visible=state in (QUEUED, "starting", "running"),
        ),
        gr.Button(visible=resumable),
        gr.Row(visible=state == "finished"),
    ]


def _html(classes: str = "") -> gr.HTML:
    return gr.HTML("", apply_default_css=False, elem_classes=classes)


def _curves_html() -> str:
    """The large chart; the small ones are added as there is something to show in them."""
    return (
        '<div class="curves"><div class="chart large" data-curve="loss" role="img" '
        'aria-label="Loss"></div><div class="multiples"></div></div>'
    )
