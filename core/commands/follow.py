"""Sees a job through in the foreground: its progress, Ctrl-C, and the exit code it ends with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core.commands.output import DONE, FAILED, STOPPED, Output
from core.commands.progress import JobView

if TYPE_CHECKING:
    from core.jobs.store import Job, Store
    from core.workspace import Workspace


def follow(
    workspace: Workspace, store: Store, job: Job, output: Output
) -> tuple[Job, dict[str, Any]]:
    """Sees the job to its end: in this process, or where a server runs, in that one.

    Returns the ended job and its result event. Ctrl-C stops it with a checkpoint.
    """
    from core.jobs.scheduler import Scheduler, live_server
    from core.models.hardware import local_devices

    is_served = live_server(workspace) is not None
    # Without devices it starts no worker, and still looks after one whose server has gone.
    scheduler = Scheduler(workspace, store, [] if is_served else local_devices())
    if not is_served:
        scheduler.warm()
    view = JobView()
    try:
        with _told_of_ctrl_c(view, job):
            ended = scheduler.run_until_done(job.id, view)
    finally:
        view.close()
        scheduler.close()
    return ended, view.last_result


def exit_code(job: Job) -> int:
    return {"finished": DONE, "stopped": STOPPED}.get(job.state, FAILED)


def say_end(job: Job, output: Output) -> None:
    """How the job ended, and what to do next where it did not finish."""
    name = "Run" if job.kind == "train" else job.kind.capitalize()
    if job.state == "finished":
        return
    if job.state == "died":
        output.say(f"{name} {job.id} died (signal {job.signal}).")
    elif job.state == "failed":
        output.say(f"{name} {job.id} failed: {job.error}")
        if job.advice:
            output.say(job.advice)
    else:
        output.say(f"{name} {job.id} stopped at step {job.step}.")
    if job.kind == "train":
        output.say(f"Go on from its last checkpoint: runs resume {job.id}")


@contextmanager
def _told_of_ctrl_c(view: JobView, job: Job) -> Iterator[None]:
    """Says what Ctrl-C does, before it does it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = 0

    def tell(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed += 1
        kind = "with a checkpoint" if job.kind == "train" else "at the next chance"
        view.say(
            f"\nStopping {kind}; Ctrl-C again stops at once." if pressed == 1 else "\nStopping now."
        )
        signal.default_int_handler(number, frame)

    previous = signal.signal(signal.SIGINT, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
