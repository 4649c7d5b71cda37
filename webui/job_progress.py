"""Jobs on the page: how far each is, its Stop, and how it ended until somebody has seen that.

A job belongs to the workspace, not to a browser: it is there after a reload, in every other page,
and after the server was started again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.errors import JobError
from core.jobs.events import last_event
from core.jobs.job import QUEUED, Job
from core.jobs.kinds import KINDS
from core.jobs.process import named
from core.jobs.queue import dismiss_job, stop_job
from core.jobs.task import read_result
from core.language import N_, _
from webui import messages
from webui.context import CHOICE, HIDDEN, App, Shared
from webui.html import html

# A click on a step or a version: which button, and where.
CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (button) trigger('select', {act: button.dataset.act, at: button.dataset.at});
});
"""


_WORDS = {"stop": N_("Stop"), "open": N_("Open it"), "dismiss": N_("Dismiss")}


class JobProgress:
    """The jobs of some kinds as a list. Whoever shows it calls `draw` again and again.

    With `of`, a field of a job, it shows those of the place alone that is then named, such as a
    data set: what is at work there, or how the last one ended. `told` holds a text that changes
    whenever a job begins or ends: `told.change` is the event.
    """

    def __init__(
        self,
        app: App,
        kinds: Sequence[str],
        *,
        elem_id: str,
        of: str = "",
        stop_id: str = "",
        hides: Callable[[Job], bool] = lambda job: False,
    ) -> None:
        self.app, self.kinds, self.of = app, kinds, of
        self.stop_id, self.hides = stop_id, hides
        self.shown = gr.HTML(elem_id=elem_id, js_on_load=CLICKS, apply_default_css=False)
        self.told = gr.Textbox(**HIDDEN, label="Jobs begun and ended")
        # Jobs that this page showed at work: it shows their end, whoever has seen that elsewhere.
        self.known = gr.State(set())

        self.inputs = {self.shown, self.told, self.known}
        self.outputs = {self.shown, self.told}

    def draw(
        self, data: dict[Component, Any], place: str = "", without: str = ""
    ) -> dict[Component, Any]:
        """What is new of the jobs, but for the one that is shown elsewhere."""
        known: set[str] = data[self.known]
        jobs = [job for job in self._listed(place, known) if job.id != without]
        known.update(job.id for job in jobs if not job.ended)
        updates: dict[Component, str] = {
            self.shown: html.job_progress.jobs([card for card in map(self._card, jobs) if card]),
            self.told: " ".join(f"{job.id}:{_state(job)}" for job in jobs),
        }
        return {one: value for one, value in updates.items() if value != (data[one] or "")}

    def at_once(self, news: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The handler that shows `news` after an event, without waiting for the next tick."""
        return lambda data: news(data) or {self.shown: gr.skip()}

    def clear(self, place: str) -> dict[Component, Any]:
        """How the last work at a place ended was seen."""
        for job in self._found(place)[:1]:
            dismiss_job(self.app.workspace, self.app.store, job.id)
        return {} if self.at_work(place) else {self.shown: ""}

    def at_work(self, place: str = "") -> bool:
        return any(not job.ended for job in self._found(place))

    def act(self, known: set[str], event: gr.EventData) -> str | None:
        """A button at a job: stops it, or has seen its end; the data set that is to be opened."""
        workspace, store = self.app.workspace, self.app.store
        job = store.find(str(event.at))
        if job is None or job.kind not in self.kinds:
            return None
        if event.act == "stop":
            with suppress(JobError):  # it ended meanwhile
                stop_job(workspace, store, job.id)
            return None
        dismiss_job(workspace, store, job.id)
        known.discard(job.id)
        return self.made(job) if event.act == "open" else None

    def made(self, job: Job) -> str | None:
        """The data set that came of a job."""
        if KINDS[job.kind].room != "data" or job.state != "finished":
            return None
        return (read_result(self.app.workspace.root / job.folder) or {}).get("dataset")

    def wire(
        self, shared: Shared, tab: str, place: Component, start: gr.Button, begun: Any
    ) -> None:
        """In a tab of its own: `begun` is the event after which there may be another job, and
        `start` waits for the end of the one at work."""

        def news(data: dict[Component, Any]) -> dict[Component, Any]:
            found = self.draw(data, data[place])
            if self.told in found:
                found[start] = gr.Button(interactive=not self.at_work(data[place]))
            return found or {self.shown: gr.skip()}

        def act(data: dict[Component, Any], event: gr.EventData) -> dict[Component, Any]:
            self.act(data[self.known], event)
            return {**self.clear(data[place]), **news(data)}

        inputs, outputs = {place, *self.inputs}, {start, *self.outputs}
        shared.on_show(tab, news, inputs, outputs)
        shared.on_tick(news, inputs, outputs)
        begun.then(news, inputs, outputs, **CHOICE)
        self.shown.select(act, inputs, outputs, **CHOICE)

    def _found(self, place: str) -> list[Job]:
        """The jobs of this place, newest first."""
        jobs = [job for kind in self.kinds for job in self.app.store.list(kind=kind)]
        if self.of:
            jobs = [job for job in jobs if place and getattr(job, self.of) == place]
        return sorted(jobs, key=lambda job: job.created_at, reverse=True)

    def _listed(self, place: str, known: set[str]) -> list[Job]:
        found = self._found(place)
        if self.of:
            return [job for job in found if job is found[0] or not job.ended]
        return [
            job for job in found if not job.ended or job.id in known or not job.params.get("seen")
        ]

    def _card(self, job: Job) -> dict[str, Any] | None:
        """What is said of a job, and its buttons; None where its end is not shown."""
        if not job.ended:
            told, acts = job_bar(self.app, job), ["stop"]
        elif self.hides(job) or (self.of and job.params.get("seen")):
            return None
        else:
            told, acts = job_end(self.app, job), ["dismiss"]
            if told and self.made(job) not in (None, job.dataset):
                acts = ["open", "dismiss"]
        card = {
            "id": job.id,
            "name": job.name or KINDS[job.kind].doing,
            "is_at_work": not job.ended,
            "told": told,
            "buttons": [(act, _WORDS[act], self.stop_id if act == "stop" else "") for act in acts],
        }
        return card if told else None


def job_bar(app: App, job: Job) -> Markup:
    """How far a job is, as HTML."""
    doing = _(KINDS[job.kind].doing).format(name=job.name)
    if job.state == QUEUED:
        return bar(doing, _("waits for its turn"))
    if job.state == "stopping":
        return bar(doing, _("Stopping"))
    event = last_event(app.workspace.root / job.folder / "events.jsonl", "progress") or {}
    message = str(event.get("message") or _("Starting"))
    return bar(doing, message, event.get("fraction"), event.get("eta_seconds"))


def job_end(app: App, job: Job) -> Markup:
    """How a job ended, as HTML; nothing where what came of it is shown elsewhere."""
    kind = KINDS[job.kind]
    if job.state == "stopped":
        return messages.note(_(kind.stopped).format(name=job.name), "stopped")
    if job.state != "finished":
        error = job.error or _("It ended without a word (signal {signal}).", signal=job.signal)
        return messages.error(_(kind.failed).format(name=job.name, error=error), job.advice or "")
    result = read_result(app.workspace.root / job.folder)
    if not kind.result or result is None:
        return Markup()
    return messages.note(named(kind.result)(job, result), "finished")


def bar(
    title: str, message: str, fraction: float | None = None, left: float | None = None
) -> Markup:
    """How far some work is and how long it still takes, as HTML."""
    text = title or message or _("Starting")
    if title and message and title != message:
        text = _("{title}: {message}", title=title, message=message)
    if fraction:
        text = _("{text}, {fraction:.0%}", text=text, fraction=fraction)
        if left is not None and fraction < 1:
            text = _("{text}, about {time} left", text=text, time=messages.duration(left))
    return messages.progress(fraction or None, text)


def _state(job: Job) -> str:
    return job.state if job.ended else "working"
