"""Train: one run as it learns, or as it ended: state, figures, samples, choices, log."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.config import RunConfig
from core.errors import TunesmithError
from core.estimate.summary import devices_text, step_text
from core.jobs.job import QUEUED, Job
from core.jobs.queue import stop_job
from core.language import _
from core.runs.cluster import place_text
from core.runs.lineage import lineage_text
from core.runs.records import RESUMABLE
from core.runs.resume import resume_run, resume_with_half
from core.workspace import RunFolder
from webui import messages
from webui.beginning import Beginning
from webui.choice import Dropdown
from webui.context import CHOICE, HIDDEN, QUIET, App, Shared, of_trigger
from webui.follow_up import FollowUp
from webui.forms import said, setting_label
from webui.html import html
from webui.live import LiveRun, Sample, completions

# Texts of a run in the order of the outputs; run_view.news gives them by these names.
_PARTS = ("headline", "outcome", "figures", "samples", "choices", "log")


def build(app: App, shared: Shared) -> None:
    _Train(app, shared).wire()


class _Train:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.after = FollowUp(app, shared)
        self.choice = Dropdown([], label=_("Run"), elem_id="run-choice", visible=False)
        text = _(
            "While a run learns, its curves, speed and sample answers are shown here. The sample "
            "run needs nothing of yours and takes some minutes on a laptop."
        )
        self.nothing = Beginning(app, shared, _("No runs yet"), text).box
        with gr.Column(visible=False, elem_id="run") as self.shown:
            self._build_run()
        self.cursor = gr.Textbox(**HIDDEN, label="What is drawn")
        self.panes = [self.shown, self.nothing, self.stop, self.resume, self.next, self.choice]
        self.panes += self.after.panes
        self.texts = [getattr(self, name) for name in _PARTS]

    def _build_run(self) -> None:
        with gr.Row(elem_classes="toolbar"):
            self.headline = _html("grow")
            self.stop = gr.Button(
                _("Stop"),
                variant="stop",
                visible=False,
                min_width=96,
                scale=0,
                elem_id="train-stop",
            )
            self.resume = gr.Button(
                _("Resume"),
                variant="primary",
                visible=False,
                min_width=96,
                scale=0,
                elem_id="train-resume",
            )
            self.after.build_half()
        self.outcome = _html()
        with gr.Row(visible=False, elem_classes="next-steps") as self.next:
            self.evaluate = gr.Button(
                _("Evaluate"), variant="primary", scale=0, min_width=140, elem_id="go-evaluate"
            )
            self.chat = gr.Button(_("Chat"), scale=0, min_width=140, elem_id="go-chat")
            self.export = gr.Button(_("Export"), scale=0, min_width=140, elem_id="go-export")
        self.after.build()
        self.figures = _html("strip")
        with gr.Row(elem_classes="switches"):
            self.log_scale = gr.Checkbox(label=_("Log scale"), container=False, min_width=110)
            self.raw = gr.Checkbox(True, label=_("Show each step"), container=False, min_width=140)
            self.all = gr.Checkbox(label=_("All metrics"), container=False, min_width=110)
        self.curves = gr.HTML(
            html_template=html.train.curves(),
            js_on_load="tunesmith.live(element, () => props.value, watch);",
            elem_id="curves",
            apply_default_css=False,
        )
        self.samples = _html()
        self.choices = _html()
        with gr.Accordion(_("Log"), open=False, elem_classes="fold", elem_id="run-log"):
            self.log = _html()

    # -- handlers

    def open(self, run_id: str) -> Any:
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

    def look(self, run_id: str, cursor: str) -> Any:
        """What is new of the run since this browser last drew it."""
        job = self.app.store.find(run_id) if run_id else None
        if job is None:
            return [*self._panes(None, False), *([gr.skip()] * (len(_PARTS) + 1))]
        live = self.app.live.get(run_id)
        resumable = is_resumable(job, live.folder)
        news = news_of(job, live, resumable, read_cursor(cursor))
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
            (_("{name}: {text}", name=job.name or job.id, text=_state(job)), job.id) for job in jobs
        ]

    def act(self, run_id: str, event: gr.EventData) -> Any:
        """Stops the run, resumes it, or goes on with half the batch; what cannot be done is said
        where a run's outcome is said."""
        acts: dict[Any, Any] = {self.stop: stop_job, self.resume: resume_run}
        try:
            of_trigger(event, acts, resume_with_half)(self.app.workspace, self.app.store, run_id)
        except TunesmithError as error:
            return messages.error(error)
        return gr.skip()

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        quiet = {**QUIET, "concurrency_limit": None}
        look: dict[str, Any] = {
            "fn": self.look,
            "inputs": [run, self.cursor],
            "outputs": [*self.panes, *self.texts, self.curves],
            "js": "(run) => [run, tunesmith.cursor()]",
            **quiet,
        }
        in_order = QUIET
        shown = shared.shown["train"]
        shared.drawn(
            "train", shown.select(self.open, run, [self.choice, run], **in_order).then(**look)
        )
        shared.on_tick(**look)
        self.choice.input(lambda chosen: chosen, self.choice, run, **CHOICE)
        acts = [self.stop.click, self.resume.click, self.after.half.click]
        gr.on(acts, self.act, run, self.outcome, **quiet).then(**look)
        self.after.wire()
        for tab in ("evaluate", "chat", "export"):
            shared.opens(tab, getattr(self, tab))
        self.log_scale.input(None, self.log_scale, js="on => tunesmith.setLogScale(on)")
        self.raw.input(None, self.raw, js="on => tunesmith.setRaw(on)")
        self.all.input(None, self.all, js="on => tunesmith.setAll(on)")


def _state(job: Job) -> str:
    return _(messages.STATE_WORDS[job.state]).lower()


def _panes(job: Job | None, resumable: bool) -> list[Any]:
    """Which parts are seen: the run, the empty state, Stop, Resume, what to do next."""
    state = job.state if job else ""
    return [
        gr.Column(visible=job is not None),
        gr.Column(visible=job is None),
        gr.Button(
            _("Cancel") if state == QUEUED else _("Stop"),
            visible=state in (QUEUED, "starting", "running"),
        ),
        gr.Button(visible=resumable),
        gr.Row(visible=state == "finished"),
    ]


def _html(classes: str = "") -> gr.HTML:
    return gr.HTML("", apply_default_css=False, elem_classes=classes)


# How much of worker.log is shown, in bytes from its end.
LOG_BYTES = 16_384


def headline(job: Job, came: str = "", config: RunConfig | None = None, place: str = "") -> Markup:
    """Name, state, what the run is made of and on how many devices; `came` says which runs it
    comes from, `place` which node of a cluster it is on."""
    return html.train.headline(
        name=job.name or job.id,
        badge=messages.badge(job.state, job.signal),
        made_of=_("{model} on {dataset}", model=job.model, dataset=job.dataset),
        came=came,
        devices=devices_text(config) if config else "",
        step=step_text(config) if config else "",
        place=place,
        id=job.id,
    )


def noticed(live: LiveRun) -> Markup:
    """What the run warned of: rows that are left out, a checkpoint that could not be used."""
    return html.train.noticed(live.warnings)


def outcome(job: Job, live: LiveRun, resumable: bool) -> Markup:
    """What a run that is not learning wants to be known: what it waits for, or why it ended."""
    if job.state == "queued":
        return messages.note(_("Waiting for its turn: the runs before it come first."))
    if job.state in ("starting", "running"):
        return _advance(live.progress)
    if job.state == "stopping":
        return messages.note(
            _("Stopping after this step; a checkpoint is being written."), "stopped"
        )
    resume = _("Resume goes on from the last checkpoint.") if resumable else ""
    if job.state == "stopped":
        stopped = _("Stopped at step {step}.", step=job.step)
        return messages.note(f"{stopped} {resume}".strip(), "stopped")
    if job.state == "died":
        if job.signal:
            cause = _("The worker was ended by signal {signal}.", signal=job.signal)
        else:
            cause = _("The worker was ended without a word.")
        return messages.error(job.error or cause, f"{job.advice or ''} {resume}".strip())
    if job.state == "failed":
        message = job.error or _("The run failed.")
        return messages.error(message, f"{job.advice or ''} {resume}".strip())
    return Markup()


def _advance(progress: Mapping[str, Any]) -> Markup:
    """What the worker is doing, with a bar as far as that can be said."""
    step, total = progress.get("step"), progress.get("max_steps")
    doing = str(progress.get("message") or "")
    if step and total:
        return messages.progress(step / total, doing or _("Training"))
    return messages.progress(progress.get("fraction"), doing or _("The worker is starting"))


def is_resumable(job: Job, folder: RunFolder) -> bool:
    """Whether the run ended early and left a checkpoint."""
    return job.state in RESUMABLE and any(folder.checkpoints.glob("checkpoint-*/"))


def figures(job: Job, live: LiveRun) -> Markup:
    """The strip: step, epoch, loss, eval loss, tokens per second, time."""
    progress = live.progress
    step = progress.get("step", job.step)
    total = progress.get("max_steps") or job.max_steps
    epoch = progress.get("epoch")
    speed = live.last("tokens_per_second")
    left = progress.get("eta_seconds")
    done = _("{step} of {total}", step=messages.count(step), total=messages.count(total))
    items: list[tuple[str, ...]] = [
        (_("Step"), done if total else str(step)),
        (_("Epoch"), f"{epoch:.2f}" if isinstance(epoch, int | float) else "-"),
        (_("Loss"), messages.loss(live.last("loss")), _("On the rows it is learning from")),
        (_("Eval loss"), messages.loss(live.last("eval_loss")), _("On the held-out rows")),
        (_("Tokens/s"), messages.count(speed), _("Real tokens, padding left out")),
    ]
    if job.active:
        items.append((_("Time left"), messages.duration(left)))
    else:
        items.append((_("Took"), messages.duration(job.seconds(time.time()))))
    return messages.figures(items)


def choices(live: LiveRun) -> Markup:
    """What `auto` became, each with its reason."""
    if not live.choices:
        return Markup()
    return html.train.choices(
        [
            (field, setting_label(field), said(choice.get("value")), choice.get("reason", ""))
            for field, choice in live.choices.items()
        ]
    )


# Of many prompts, and of many answers to one, the others open at a click.
OPEN_SAMPLES, LATEST_ANSWERS = 6, 4


def samples(live: LiveRun) -> Markup:
    """For each watched prompt its answers, the same prompt's under one another."""
    if not live.samples:
        return Markup()
    drawn = [_sample(live.samples[index]) for index in sorted(live.samples)]
    return html.train.samples(messages.folded(drawn, OPEN_SAMPLES))


def _sample(sample: Sample) -> Markup:
    wanted = None if sample.expected is None else sample.expected.strip()
    answers = [
        html.train.answer(step, text, text.strip() == wanted) for step, text in sample.answers
    ]
    folded = messages.folded(answers, 1, LATEST_ANSWERS)
    return html.train.sample(sample.question, folded, sample.expected)


def log_tail(path: Path) -> Markup:
    """The end of the worker's raw output."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return html.plain.aside(_("The worker has written nothing yet."))
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]
    return html.train.log("\n".join(lines[-200:]))


@dataclass(frozen=True)
class News:
    """What a browser lacks: texts by part (a part that is as shown is left out) and the drawing."""

    texts: dict[str, Markup]
    state_changed: bool
    drawing: dict[str, Any]


def news_of(job: Job, live: LiveRun, resumable: bool, cursor: Mapping[str, Any]) -> News | None:
    """What is new since `cursor`, the browser's word on what it shows; None when nothing is."""
    texts = {
        "headline": headline(
            job,
            lineage_text(live.folder),
            live.config(),
            place_text(live.node) if live.node else "",
        ),
        "outcome": outcome(job, live, resumable) + noticed(live),
        "figures": figures(job, live),
        "samples": completions(live.rollouts) + samples(live),
        "choices": choices(live),
        "log": log_tail(live.folder.log) if cursor.get("log_open") else Markup(),
    }
    digests = {name: zlib.crc32(text.encode()) for name, text in texts.items()}
    digests["state"] = zlib.crc32(f"{job.state} {resumable}".encode())
    seen = cursor.get("seen") if cursor.get("run") == job.id else None
    seen = seen if isinstance(seen, dict) else {}
    points = live.news(cursor)
    if points is None and seen == digests:
        return None
    fresh = {name: text for name, text in texts.items() if seen.get(name) != digests[name]}
    drawing = {**(points or {"run": job.id}), "seen": digests}
    return News(fresh, seen.get("state") != digests["state"], drawing)


def read_cursor(text: str) -> dict[str, Any]:
    """The browser's cursor; an unreadable one counts as none."""
    try:
        cursor = json.loads(text or "{}")
    except ValueError:
        return {}
    return cursor if isinstance(cursor, dict) else {}
