"""The worker process: does one job and writes down how it ended. It needs no server.

It is in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it. SIGTERM and
SIGINT ask it to stop with a checkpoint, as the file STOP does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.errors import JobError, TunesmithError
from core.jobs.devices import CLUSTER, DATA
from core.jobs.events import EventWriter, event_seconds, read_attempt
from core.jobs.job import ENDED, read_record, update_record
from core.jobs.kinds import KINDS
from core.jobs.process import leave_server, let_others_first, named, start_time, staying
from core.language import _

# Tells the job which device it was given, as it is called in this process: cpu, cuda or mps.
DEVICE_VARIABLE = "TUNESMITH_DEVICE"
# Exit code of a worker that found another one at its work.
FOLDER_TAKEN = 75
_LOCK_SECONDS = 2.0


def main(
    folder: str,
    workspace_root: str,
    resume_from: str | None,
    device: str = "cpu",
    target: str | None = None,
    allowed: Sequence[str] = (),
) -> None:
    """Does the job in `folder` and ends the process: 0 for finished or stopped, 1 for failed.

    `device` is the slot's: cpu, mps, or cuda:N counted as this process sees them, or several of
    these with commas between. `target`
    replaces the function that does the job. `allowed` are the folders that may be read besides
    the workspace: the fork server that this process comes from may know others.
    """
    os.environ["TUNESMITH_ALLOW"] = os.pathsep.join(allowed)
    _leave_terminal(Path(folder))
    let_others_first()
    code = 1
    try:
        code = _work(Path(folder), Path(workspace_root), resume_from, device, target)
    except BaseException:
        _log_traceback()
    finally:
        # A thread that a library left behind must not keep the device.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _work(
    folder: Path, root: Path, resume_from: str | None, device: str, target: str | None
) -> int:
    lock = FileLock(folder / ".worker.lock", timeout=_LOCK_SECONDS)
    try:
        lock.acquire()  # held until the process ends
    except Timeout:
        # Two workers in one folder would spoil each other's checkpoints; the other one reports.
        print("Another worker is busy in this folder; this one leaves.", file=sys.stderr)
        return FOLDER_TAKEN
    events = EventWriter(folder / "events.jsonl")
    if any(event.get("state") in ENDED for event in read_attempt(events.path)):
        # Two schedulers asked for it, one after the other: the first one's worker has done it.
        print("Another worker has done this; this one leaves.", file=sys.stderr)
        return FOLDER_TAKEN
    try:
        os.environ.update(device_environment(device))
        _listen_for_stop(folder)
        me = {"pid": os.getpid(), "pid_started_at": start_time(os.getpid())}
        update_record(folder, state="running", device=device, **me)
        events.write("state", state="running", device=device, resumed_from=resume_from, **me)
        state = _do(folder, root, resume_from, target)
        _end(folder, events, state)
        return 0
    except Exception as error:
        _log_traceback()
        message, advice = _explain(error)
        events.write("error", message=message, advice=advice, type=type(error).__name__)
        _end(folder, events, "failed", error=message, advice=advice)
        return 1


def _do(folder: Path, root: Path, resume_from: str | None, target: str | None) -> str:
    """Calls the function that does the job; "finished" or "stopped"."""
    if (folder / "STOP").exists():
        return "stopped"  # asked for before it began
    kind = read_record(folder)["kind"]
    arguments: list[Any] = [folder, root]
    if kind == "train":
        arguments.append(Path(resume_from) if resume_from else None)
    with staying():
        work = named(target or KINDS[kind].target)
    state = work(*arguments)
    if state not in ("finished", "stopped"):
        raise JobError(
            _("The {kind} job returned {state!r}, not how it ended.", kind=kind, state=state),
            _("Report this."),
        )
    return str(state)


def device_environment(device: str) -> dict[str, str]:
    """The environment that shows a worker its own device only, or its own devices."""
    kind = device.partition(":")[0]
    if kind in (DATA, CLUSTER):
        return {}
    if kind == "cuda":
        visible = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
        numbers = [int(one.partition(":")[2] or 0) for one in device.split(",")]
        chosen = ",".join(visible[n] if n < len(visible) else str(n) for n in numbers)
        # The order in which core.models.hardware counts them.
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return {**order, "CUDA_VISIBLE_DEVICES": chosen, DEVICE_VARIABLE: kind}
    if kind == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "", DEVICE_VARIABLE: kind}
    return {DEVICE_VARIABLE: device}


def _end(folder: Path, events: EventWriter, state: str, **why: Any) -> None:
    """The event first: whoever finds the one without the other believes the event."""
    ended_at = event_seconds(events.write("state", state=state, **why))
    update_record(folder, state=state, ended_at=ended_at, **why)
    with contextlib.suppress(FileNotFoundError):
        (folder / "STOP").unlink()


def _explain(error: Exception) -> tuple[str, str]:
    """(what went wrong, what to do) in words for the person who started the job."""
    try:
        advice = named("core.worker.training.advice:advise")(error)
        return advice.message, advice.hint
    except Exception:
        _log_traceback()  # what went wrong with the job matters more than this
    if isinstance(error, TunesmithError):
        return error.message, error.hint
    return f"{type(error).__name__}: {error}", _("See worker.log in the run's folder.")


def _log_traceback() -> None:
    """Into worker.log, which a full disk does not take: how the job ended matters more."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def _leave_terminal(folder: Path) -> None:
    """A session of its own, and everything printed goes to worker.log."""
    if hasattr(os, "setsid"):
        with contextlib.suppress(PermissionError):  # it already leads a session
            os.setsid()
    leave_server()
    log = os.open(folder / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115


def _listen_for_stop(folder: Path) -> None:
    def ask(*_: Any) -> None:
        (folder / "STOP").touch()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
