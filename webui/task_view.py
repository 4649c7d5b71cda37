"""How far an evaluation or an export is, and how it ended."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.jobs.events import read_events
from core.jobs.queue import stop_job
from core.jobs.store import Job
from webui import messages
from webui.context import App


def latest_task(app: App, run_id: str, kind: str) -> Job | None:
    """The newest job of `kind` (evaluate, export) of a run."""
    if not run_id:
        return None
    jobs = [job for job in app.store.list(kind=kind) if job.run_id == run_id]
    return max(jobs, key=lambda job: job.created_at, default=None)


def stop_task(app: App, run_id: str, kind: str) -> None:
    """Asks the newest task of `kind` to stop, if it has not ended."""
    job = latest_task(app, run_id, kind)
    if job is not None and not job.ended:
        stop_job(app.workspace, app.store, job.id)


def task_news(app: App, run_id: str, kind: str, noun: str, drawn: str) -> tuple[Any, Any, Any]:
    """Updates for status, start and stop button; nothing is sent when nothing is new."""
    text, busy = task_status(app, run_id, kind, noun)
    if text == drawn:
        return gr.skip(), gr.skip(), gr.skip()
    return text, gr.Button(interactive=not busy), gr.Button(visible=busy)


def task_status(app: App, run_id: str, kind: str, noun: str) -> tuple[str, bool]:
    """(HTML, whether it is at work): a bar while it works, the reason if it did not finish."""
    job = latest_task(app, run_id, kind)
    if job is None or job.state == "finished":
        return "", False
    if job.state == "queued":
        return messages.progress(None, f"{noun} waits for its turn"), True
    if job.active:
        return _working(app, job, noun), True
    if job.state == "stopped":
        return messages.note(f"{noun} stopped. Nothing was kept.", "stopped"), False
    told = job.error or f"{noun} ended without a word (signal {job.signal})."
    return messages.error(told, job.advice or ""), False


def _working(app: App, job: Job, noun: str) -> str:
    events = read_events(app.workspace.root / job.folder / "events.jsonl")
    progress = [event for event in events if event["kind"] == "progress"]
    if not progress:
        return messages.progress(None, f"{noun}: starting")
    last = progress[-1]
    left = last.get("eta_seconds")
    text = str(last.get("message") or noun)
    if job.state == "stopping":
        text = "Stopping"
    elif left is not None and last.get("fraction", 0) < 1:
        text += f", {messages.duration(left)} left"
    return messages.progress(last.get("fraction"), text)
