"""Searches over settings, in Runs: how far one is, its runs with the best first, and a chart of all
of them over their settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup, escape

from core.errors import TunesmithError
from core.jobs.job import Job
from core.jobs.queue import dismiss_job, stop_job
from core.language import _, n_
from core.runs.sweep import Trial, find_sweep, go_on, list_sweeps, metric_of, ranked, trials
from webui import messages
from webui.charts import chart, parallel
from webui.choice import Dropdown
from webui.context import CHOICE, App, Shared
from webui.forms import said, setting_label
from webui.html import html
from webui.job_progress import CLICKS, job_bar, job_end

# Of more runs the best are shown; the shell lists all.
_MOST = 50
# From such a ratio on values are drawn by their magnitude.
_DECADES = 30.0


class Sweeps:
    """Shown where there has been a search."""

    def __init__(self, app: App) -> None:
        self.app = app
        with gr.Column(visible=False, elem_id="sweeps", elem_classes="card") as self.box:
            self.choice = Dropdown([], label=_("Search"), elem_id="sweep-choice")
            self.shown = gr.HTML(elem_id="sweep-shown", js_on_load=CLICKS, apply_default_css=False)
            self.drawing = chart(_("Runs of the search over their settings"), elem_id="sweep-chart")
        self.newest = gr.State("")
        self.outputs = [self.box, self.choice, self.shown, self.drawing, self.newest]

    def draw(self, chosen: str | None, shown: str, newest: str) -> tuple[Any, ...]:
        """The chosen search as it is now; one that began since is shown by itself."""
        jobs = [job for job in list_sweeps(self.app.store) if not job.params.get("seen")]
        if not jobs:
            return gr.Column(visible=False), gr.skip(), "", None, ""
        job = next((one for one in jobs if one.id == chosen), jobs[0])
        if jobs[0].id != newest:
            job = jobs[0]
        found = trials(self.app.workspace, self.app.store, job)
        words = self._told(job, found)
        if words == shown and jobs[0].id == newest:
            return tuple(gr.skip() for _one in self.outputs)
        names = [
            (f"{one.name or one.id}, {messages.moment(one.created_at)}", one.id) for one in jobs
        ]
        listed = gr.Dropdown(names, value=job.id)
        return gr.Column(visible=True), listed, words, figure_of(found, job), jobs[0].id

    def act(self, chosen: str, event: gr.EventData) -> tuple[Any, Any, Any]:
        """A button: a run is opened in Train, or the search stopped, gone on with or put away."""
        skip = gr.skip()
        workspace, store = self.app.workspace, self.app.store
        try:
            if event.act == "open":
                return str(event.at), gr.Tabs(selected="train"), skip
            if event.act == "stop":
                stop_job(workspace, store, chosen)
            elif event.act == "go_on":
                return skip, skip, go_on(workspace, store, chosen).id
            elif event.act == "dismiss" and find_sweep(store, chosen).ended:
                dismiss_job(workspace, store, chosen)
        except TunesmithError as error:
            gr.Warning(str(escape(str(error))))
        return skip, skip, skip

    def wire(self, shared: Shared) -> None:
        given = [self.choice, self.shown, self.newest]
        shared.on_show("runs", self.draw, given, self.outputs)
        shared.on_tick(self.draw, given, self.outputs)
        self.choice.input(self.draw, given, self.outputs, **CHOICE)
        acted = self.shown.select(
            self.act, self.choice, [shared.run, shared.tabs, self.choice], **CHOICE
        )
        acted.then(self.draw, given, self.outputs, **CHOICE)

    def _told(self, job: Job, found: Sequence[Trial]) -> Markup:
        """How the search is, and its runs in a table."""
        told = job_end(self.app, job) if job.ended else job_bar(self.app, job)
        buttons = [] if job.ended else [("stop", _("Stop"))]
        if job.ended and job.state != "finished":
            buttons.append(("go_on", _("Go on")))
        if job.ended:
            buttons.append(("dismiss", _("Put away")))
        return html.sweeps.search(told, job.id, buttons, _table(ranked(found, job), job))


def _table(found: Sequence[Trial], job: Job) -> Markup:
    if not found:
        return Markup()
    paths = list(dict.fromkeys(path for one in found for path in one.changes))
    rows = [
        (
            one,
            [said(one.changes.get(path)) for path in paths],
            messages.badge(one.job.state, one.job.signal),
        )
        for one in found[:_MOST]
    ]
    more = ""
    if (left := len(found) - _MOST) > 0:
        more = n_(
            "{n} more: python launch.py sweep --show {sweep}",
            "{n} more: python launch.py sweep --show {sweep}",
            left,
            sweep=job.id,
        )
    return html.sweeps.table(metric_of(job), [setting_label(path) for path in paths], rows, more)


def figure_of(found: Sequence[Trial], job: Job) -> dict[str, Any] | None:
    """A line for each run that has a score, across an axis for each setting; None where there are
    not two to compare."""
    scored = [one for one in found if one.score is not None]
    if len(scored) < 2:
        return None
    paths = list(dict.fromkeys(path for one in scored for path in one.changes))
    axes = [_axis(setting_label(path), [one.changes.get(path) for one in scored]) for path in paths]
    scores = [float(one.score or 0.0) for one in scored]
    higher = bool(job.params["config"]["evaluation.greater_is_better"])
    ends = [min(scores), max(scores)]
    last = {"label": metric_of(job), "values": scores, **_marked(ends, float)}
    return parallel([*axes, last], scores, key=job.id, higher=higher)


def _axis(label: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis with numbers as they are, or by their magnitude, or with words in their order."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        words = list(dict.fromkeys(said(value) or _("none") for value in values))
        places = [words.index(said(value) or _("none")) for value in values]
        return {"label": label, "values": places, **_ticks(range(len(words)), words)}
    distinct = sorted(set(numbers))
    if distinct[0] > 0 and distinct[-1] / distinct[0] >= _DECADES:
        spread = [math.log10(value) for value in numbers]
        return {"label": label, "values": spread, **_marked(distinct, math.log10)}
    return {"label": label, "values": numbers, **_marked(distinct, float)}


def _marked(distinct: Sequence[float], place: Any) -> dict[str, Any]:
    """Ticks at the values themselves where they are few, else at the ends and between."""
    shown = distinct if len(distinct) <= 6 else [distinct[len(distinct) * n // 5] for n in range(5)]
    shown = [*dict.fromkeys([*shown, distinct[-1]])]
    return _ticks([place(value) for value in shown], [f"{value:.3g}" for value in shown])


def _ticks(places: Sequence[float] | range, words: Sequence[str]) -> dict[str, Any]:
    return {"tickvals": list(places), "ticktext": list(words)}
