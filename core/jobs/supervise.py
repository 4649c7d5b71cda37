"""Watches one worker until its end, keeps the store up to date, and tells the ends apart.

finished, stopped, failed: the worker wrote so itself. died: it was gone without a word, by a
signal if we were its parent, else for a reason that nobody knows. A worker that was asked to stop
and does not within the grace time is killed.

Where a worker only followed work that a cluster does, its death ends nothing: the job is queued
again, and the next worker finds the work by its name.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from core.errors import WorkspaceError
from core.jobs.devices import CLUSTER, asked_device
from core.jobs.events import EventReader, EventWriter, event_seconds
from core.jobs.job import ACTIVE, ENDED, QUEUED, Job, read_record, update_record, write_record
from core.jobs.kinds import KINDS
from core.jobs.process import kill_worker, named, same_process, start_time
from core.jobs.store import Store
from core.jobs.told import Told
from core.jobs.worker import FOLDER_TAKEN
from core.language import _
from core.workspace import Workspace

log = logging.getLogger(__name__)
# What multiprocessing reports when the fork server, not the worker, has gone.
_SERVER_GONE = 255
# With less room than this on the disk, a worker that gave up without a word could not write one.
_DISK_FULL_BYTES = 4 * 2**20
STOP_SECONDS, START_SECONDS = 300.0, 180.0


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
        process: BaseProcess | None = None,
        *,
        stop_seconds: float = STOP_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.store, self.job_id, self._kind = store, job.id, job.kind
        self.folder = workspace.root / job.folder
        self.start_seconds = start_seconds
        self.stop_seconds = KINDS[job.kind].stop_seconds or stop_seconds
        self._process = process
        self._pid, self._started_at = job.pid, job.pid_started_at
        if process is not None and process.pid is not None:
            self._pid, self._started_at = process.pid, start_time(process.pid)
        self._events = EventReader(self.folder / "events.jsonl")
        self._told = Told()
        self._mirrored: dict[str, Any] = {}
        self._began_to_watch = time.monotonic()
        self._stop_seen: float | None = None
        self._killed: str | None = None
        self._judged: tuple[str, dict[str, Any]] | None = None
        self.ended: Job | None = None
        """How the job ended, from when that is known: on a full disk before the store knows it."""

    def poll(self) -> bool:
        """Looks once. True when the job has ended, or waits again, and the store knows."""
        if self._process is None:
            self._read()  # tells which process its worker is
        alive, code = self._look()
        # Read after looking: what a worker wrote before its end is seen before it counts as gone.
        self._read()
        if not alive:
            if self._goes_on_elsewhere(code):
                self._queue_again()
            else:
                self._settle(code)
            return True
        self._mirror()
        self._be_patient()
        return False

    def _look(self) -> tuple[bool, int | None]:
        """(whether the worker lives, its exit code if it can be known)."""
        if self._process is None:
            return same_process(self._pid, self._started_at), None
        code = self._process.exitcode
        if code is None:
            return True, None
        if code not in (_SERVER_GONE, FOLDER_TAKEN):
            return False, code
        # It is not ours to wait for: known by its pid from now on, as an adopted one is.
        self._process = None
        self._read()
        return same_process(self._pid, self._started_at), None

    def _read(self) -> None:
        for event in self._events.read_new():
            self._told.add(event)
            if event["kind"] == "state" and event.get("state") == "running":
                self._pid, self._started_at = event.get("pid"), event.get("pid_started_at")

    def _mirror(self) -> None:
        """Brings what the events say into the store."""
        seen = self._told.values
        changes = {name: value for name, value in seen.items() if self._mirrored.get(name) != value}
        if changes:
            self.store.update(self.job_id, **changes)
            self._mirrored |= changes
        if self._reported():
            self.store.transition(self.job_id, {"starting"}, "running")

    def _reported(self) -> bool:
        return self._told.state is not None and self._told.state.get("state") == "running"

    def _be_patient(self) -> None:
        """Kills a worker that does not stop, or that never began."""
        now = time.monotonic()
        request = self._stop_request()
        if request is None:
            if not self._reported() and now - self._began_to_watch > self.start_seconds:
                self._kill(f"killed: it did not begin within {self.start_seconds:g} s")
            return
        if self._stop_seen is None:
            self._stop_seen = now
            self.store.transition(self.job_id, {"starting", "running"}, "stopping")
        if request == "now":
            self._kill("killed as asked")
        elif now - self._stop_seen > self.stop_seconds:
            self._kill(f"killed: it did not stop within {self.stop_seconds:g} s")

    def _stop_request(self) -> str | None:
        try:
            return (self.folder / "STOP").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _kill(self, why: str) -> None:
        self._killed = why
        if self._pid is not None and self._started_at is not None:
            kill_worker(self._pid, self._started_at)

    def _goes_on_elsewhere(self, code: int | None) -> bool:
        """Whether the worker was killed, or went down with its machine, and a cluster works on."""
        is_told = self._told.state is not None and self._told.state.get("state") in ENDED
        was_killed = code is None or code < 0
        asked = self._killed is not None or self._stop_request() is not None
        return self._is_in_cluster() and was_killed and not asked and not is_told

    def _is_in_cluster(self) -> bool:
        """Whether a worker has begun to follow what a cluster does."""
        return self._reported() and asked_device(self.store.get(self.job_id)) == CLUSTER

    def _queue_again(self) -> None:
        job = self.store.get(self.job_id)
        back: dict[str, Any] = {"device": asked_device(job), "slot": None, "started_at": None}
        back |= {"pid": None, "pid_started_at": None, "earlier_seconds": job.seconds()}
        EventWriter(self.folder / "events.jsonl").write("state", state=QUEUED, reason="followed")
        write_record(self.folder, replace(job, **{**self._told.values, **back}, state=QUEUED))
        self.store.transition(self.job_id, ACTIVE, QUEUED, owner_pid=None, **back)

    def _settle(self, code: int | None) -> None:
        """Writes the end down: in the store, and where the worker could not, in the folder."""
        told, last = self._told, self._told.state or {}
        is_told = last.get("state") in ENDED
        # Judged once: on a full disk this is tried again, and there may be room by then.
        self._judged = self._judged or (None if is_told else self._verdict(code))
        state, end = self._judged or (last["state"], told.end)
        self.ended = replace(
            self.store.get(self.job_id),
            **{"ended_at": time.time(), **told.values, **end, "state": state},
        )
        if is_told:
            changes = {**told.values, **told.end}
            self.store.transition(self.job_id, ACTIVE, last["state"], **changes)
            update_record(self.folder, state=last["state"], **changes)
        else:
            known, why = told.values, self._killed
            conclude(self.store, self.folder, self.job_id, state, reason=why, known=known, **end)
        if "kind" not in read_record(self.folder):  # it was torn
            write_record(self.folder, self.store.get(self.job_id))
        (self.folder / "STOP").unlink(missing_ok=True)  # one that came too late

    def _verdict(self, code: int | None) -> tuple[str, dict[str, Any]]:
        """(state, error, advice and signal) of a worker that is gone without having said why."""
        if self._killed and self._stop_seen is None:
            error = _(
                "The worker was killed: it did not begin within {seconds:g} s.",
                seconds=self.start_seconds,
            )
            return "failed", {"error": error, "advice": _("See worker.log, then start it again.")}
        if self._killed:
            return "stopped", {"signal": 9}
        if code is not None and code >= 0:
            if shutil.disk_usage(self.folder).free < _DISK_FULL_BYTES:
                error, mend = _("The disk is full."), _("Make room. {then}", then=self._way_on())
            elif self._is_in_cluster():  # so Ray ends whoever has lost the head for a minute
                error = _("The head of the cluster is gone, or the way to it.")
                mend = _("Bring it back (ray status). {then}", then=self._way_on())
            else:
                error = _(
                    "The worker ended with exit code {code} before its work was done.", code=code
                )
                mend = _("See the end of worker.log.")
            return "failed", {"error": error, "advice": mend}
        if code is None:
            error = _(
                "The worker is gone, and nobody saw why: it was killed, or the machine restarted."
            )
            return "died", {"error": error, "advice": self._way_on()}
        advice: str = self._way_on()
        if code == -9:
            with_less = KINDS[self._kind].with_less
            advice = _("Short of memory? {less} {or_else}", less=with_less, or_else=advice)
        error = _("The worker was killed (signal {number}).", number=-code)
        return "died", {"signal": -code, "error": error, "advice": advice}

    def _way_on(self) -> str:
        way_on = KINDS[self._kind].way_on
        advice: str = named(way_on)(self.folder) if way_on else _("Start it again.")
        return advice


def conclude(
    store: Store,
    folder: Path,
    job_id: str,
    state: str,
    *,
    reason: str | None = None,
    known: Mapping[str, Any] | None = None,
    **end: Any,
) -> None:
    """Ends an active job whose worker cannot: the event first, then `job.json`, then the store.
    `known` is what else they are to have of it.

    On a full disk only the store may learn of it.
    """
    why = {"reason": reason} if reason else {}
    known = known or {}
    ended_at = time.time()
    try:
        event = EventWriter(folder / "events.jsonl").write("state", state=state, **why, **end)
        ended_at = event_seconds(event)
        update_record(folder, **{**known, **end}, state=state, ended_at=ended_at)
        (folder / "STOP").unlink(missing_ok=True)
    except OSError:
        log.exception("the end of %s could not be written into its folder", job_id)
    store.transition(job_id, ACTIVE, state, **{**known, **end}, ended_at=ended_at)


def look_once(workspace: Workspace, store: Store) -> None:
    """Looks once at each active job that has no scheduler, so that its row tells the truth.

    For a command that runs while no server does: what ended meanwhile is settled, and a worker
    that is to be killed is. Where nothing can be written, all stays as it is.
    """
    me = this_process()
    try:
        for job in store.list(states=ACTIVE):
            orphan = not same_process(job.owner_pid, job.owner_started_at)
            if orphan and store.adopt(job, me) and not Supervisor(workspace, store, job).poll():
                store.update(job.id, owner_pid=None, owner_started_at=None)
    except (WorkspaceError, OSError) as error:
        log.warning("%s", error)


def this_process() -> tuple[int, float]:
    """(pid, start time) of this process: who looks after the jobs that it owns."""
    pid = os.getpid()
    return pid, start_time(pid) or 0.0
