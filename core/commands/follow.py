"""Sees a job through in the foreground: its progress, Ctrl-C, and the exit code it ends with."""

from __future__ import annotations

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
    kind = "with a checkpoint" if job.kind == "train" else "at the next chance"

    def tell(pressed: int) -> None:
        view.say(
            f"\nStopping {kind}; Ctrl-C again stops at once." if pressed == 1 else "\nStopping now."
        )

    try:
        ended = scheduler.run_until_done(job.id, view, tell)
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
