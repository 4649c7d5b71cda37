"""Watches one worker until its end, keeps the store up to date, and tells the ends apart.

finished, stopped, failed: the worker wrote so itself. died: it was gone without a word, by a
signal if we were its parent, else for a reason that nobody knows. A worker that was asked to stop
and does not within the grace time is killed.
"""

from __future__ import annotations

import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from core.jobs.checkpoints import last_good_checkpoint
from core.jobs.events import Event, EventReader, EventWriter, event_seconds
from core.jobs.job import ACTIVE, ENDED, read_record, update_record
from core.jobs.process import kill_worker, same_process, start_time
from core.jobs.store import Job, Store
from core.jobs.worker import FOLDER_TAKEN
from core.workspace import Workspace

# What multiprocessing reports when the fork server, not the worker, has gone.
_SERVER_GONE = 255


class Supervisor:
    """One active job. `process` is its worker if this process started it; else it was adopted.

    `stop_seconds` is the grace time after a stop, `start_seconds` how long a worker may take to
    report.
    """

    def __init__(
        self,
        workspace: Workspace,
        store: Store,
        job: Job,
        process: BaseProcess | None,
        *,
        stop_seconds: float,
        start_seconds: float,
    ) -> None:
        self.store = store
        self.job_id = job.id
        self.folder = workspace.root / job.folder
        self.stop_seconds, self.start_seconds = stop_seconds, start_seconds
        self._process = process
        self._pid, self._started_at = job.pid, job.pid_started_at
        self._reader = EventReader(self.folder / "events.jsonl")
        self._state: Event | None = None
        self._best = job.best_eval_loss
        self._since = time.monotonic()
        self._stop_asked: float | None = None
        self._killed: str | None = None

    def poll(self) -> bool:
        """Looks once. True when the job has ended and the store knows how."""
        alive, code = self._look()
        # Read after looking: what a worker wrote before its end is seen before it counts as gone.
        self._mirror(self._reader.read_new())
        if not alive:
            self._settle(code)
            return True
        self._be_patient()
        return False

    def _look(self) -> tuple[bool, int | None]:
        """(whether the worker lives, its exit code if we can know it)."""
        if self._pid is None:
            record = read_record(self.folder)
            self._pid, self._started_at = record.get("pid"), record.get("pid_started_at")
        if self._process is not None:
            code = self._process.exitcode
            if code is None:
                return True, None
            if code not in (_SERVER_GONE, FOLDER_TAKEN):
                return False, code
            if code == FOLDER_TAKEN:
                record = read_record(self.folder)
                self._pid, self._started_at = record.get("pid"), record.get("pid_started_at")
            self._process = None
        return same_process(self._pid, self._started_at), None

    def _mirror(self, events: list[Event]) -> None:
        """Brings what the events say into the store."""
        changes: dict[str, Any] = {}
        for event in events:
            kind = event["kind"]
            if kind == "state":
                self._state = event
            elif kind in ("progress", "metrics"):
                names = ("step", "max_steps")
                changes |= {k: event[k] for k in names if isinstance(event.get(k), int)}
                loss = event.get("eval_loss")
                if isinstance(loss, int | float) and (self._best is None or loss < self._best):
                    self._best = changes["best_eval_loss"] = float(loss)
        if changes:
            self.store.update(self.job_id, **changes)
        if self._state is not None and self._state.get("state") == "running":
            self.store.transition(self.job_id, {"starting"}, "running")

    def _be_patient(self) -> None:
        """Kills a worker that does not stop, or that never began."""
        now = time.monotonic()
        request = self.folder / "STOP"
        if request.exists():
            if self._stop_asked is None:
                self._stop_asked = now
                self.store.transition(self.job_id, {"starting", "running"}, "stopping")
            if request.read_text(encoding="utf-8") == "now":
                self._kill("killed as asked")
            elif now - self._stop_asked > self.stop_seconds:
                self._kill(f"killed: it did not stop within {self.stop_seconds:g} s")
        elif now - self._since > self.start_seconds and not self._reported():
            self._kill("never began")

    def _reported(self) -> bool:
        return self._state is not None and self._state.get("state") not in ("queued", "starting")

    def _kill(self, why: str) -> None:
        self._killed = why
        if self._pid is not None and self._started_at is not None:
            kill_worker(self._pid, self._started_at)

    def _settle(self, code: int | None) -> None:
        """Writes the end down: in the store, and where the worker could not, in the folder."""
        told = self._state if self._state and self._state.get("state") in ENDED else None
        if told is not None:
            end = {key: told.get(key) for key in ("error", "advice", "signal")}
            self.store.transition(
                self.job_id, ACTIVE, told["state"], ended_at=event_seconds(told), **end
            )
            update_record(self.folder, state=told["state"], ended_at=event_seconds(told), **end)
            return
        state, end = self._verdict(code)
        conclude(self.store, self.folder, self.job_id, state, reason=self._killed, **end)

    def _verdict(self, code: int | None) -> tuple[str, dict[str, Any]]:
        """(state, error/advice/signal) of a worker that is gone without having said why."""
        if self._killed == "never began":
            error = f"The worker did not begin within {self.start_seconds:g} s and was killed."
            return "failed", {"error": error, "advice": "See worker.log, then resume or restart."}
        if self._killed:
            return "stopped", {"signal": 9}
        if code is not None and code >= 0:
            error = f"The worker ended with exit code {code} before its work was done."
            return "failed", {"error": error, "advice": "See the end of worker.log."}
        signal = -code if code is not None else None
        return "died", {
            "signal": signal,
            "error": f"The worker was killed (signal {signal})."
            if signal
            else "The worker is gone, and nobody saw why: it was killed, or the machine restarted.",
            "advice": self._way_on(signal),
        }

    def _way_on(self, signal: int | None) -> str:
        checkpoint, _ = last_good_checkpoint(self.folder / "checkpoints")
        memory = (
            "Systems kill with signal 9 when memory runs out: try a smaller batch or shorter rows. "
            if signal == 9
            else ""
        )
        again = f"Resume goes on from {checkpoint.name}." if checkpoint else "Start it again."
        return memory + again


def conclude(
    store: Store, folder: Path, job_id: str, state: str, *, reason: str | None = None, **end: Any
) -> None:
    """Ends an active job whose worker cannot: the event first, then `job.json`, then the store."""
    why = {"reason": reason} if reason else {}
    EventWriter(folder / "events.jsonl").write("state", state=state, **why, **end)
    ended_at = time.time()
    update_record(folder, state=state, ended_at=ended_at, **end)
    store.transition(job_id, ACTIVE, state, ended_at=ended_at, **end)


def this_process() -> tuple[int, float]:
    """(pid, start time) of this process: who owns the jobs that it looks after."""
    pid = os.getpid()
    return pid, start_time(pid) or 0.0
