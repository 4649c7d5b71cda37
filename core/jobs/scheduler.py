"""One thread for each device slot: it takes a job from the queue, starts its worker, watches it.

A workspace has at most one scheduler that takes from the queue; a lock says which. Any process may
besides look after a single job of its own (`run_until_done`, for the shell). An active job whose
scheduler is gone is adopted by the next one, and known again by pid and start time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.errors import JobError, SetupError, TunesmithError, WorkspaceError
from core.jobs import worker
from core.jobs.devices import Slot, asked_device, asked_number, next_job, serves, slots_for
from core.jobs.events import Event, EventReader, EventWriter, attempt_offset, read_attempt
from core.jobs.job import ACTIVE, QUEUED, Job, write_record
from core.jobs.process import WorkerContext, context, detach, same_process
from core.jobs.queue import stop_job
from core.jobs.store import Store
from core.jobs.supervise import (
    START_SECONDS,
    STOP_SECONDS,
    Supervisor,
    conclude,
    this_process,
)
from core.language import _
from core.workspace import Workspace, write_atomic

log = logging.getLogger(__name__)
# How often jobs without a scheduler are looked for, in seconds.
_CARE_SECONDS = 1.0
# How long a foreground run waits for room on a full disk, once its job can go no further.
_ROOM_SECONDS = 5.0
# How often a worker is started whose fork server is killed each time while it still imports.
_STARTS = 4
# So long, and longer each time, a fork server that was killed is given to be gone.
_DYING_SECONDS = 0.1


class Scheduler:
    """Runs the jobs of one workspace.

    `devices` are this machine's. `stop_seconds` is the grace time of a
    stop and `start_seconds` how long a worker may take to begin. `target` replaces what workers
    do, as "module:function".
    """

    def __init__(
        self,
        workspace: Workspace,
        store: Store,
        devices: Sequence[str],
        *,
        poll_seconds: float = 0.2,
        stop_seconds: float = STOP_SECONDS,
        start_seconds: float = START_SECONDS,
        workers: WorkerContext | None = None,
        target: str | None = None,
    ) -> None:
        self.workspace, self.store = workspace, store
        self.devices = list(devices)
        self.slots = slots_for(self.devices)
        self._poll_seconds = poll_seconds
        self._patience = {"stop_seconds": stop_seconds, "start_seconds": start_seconds}
        self._workers = workers or context()
        self._target = target
        self._me = this_process()
        self._lock = FileLock(workspace.root / ".scheduler.lock", thread_local=False)
        self._closing = threading.Event()
        self._draining = threading.Event()
        self._threads: list[threading.Thread] = []
        self._unwritten: dict[str, tuple[float, Job | Exception]] = {}
        """What cannot be written, and since when: how a job ended, by its id, or why a slot can
        take none, by its name."""
        self._complained = ("", "")

    def warm(self) -> None:
        """Starts the fork server, which imports in the background, so that Start is quick."""
        self._workers.warm()

    def start(self, address: str | None = None) -> None:
        """Takes over the workspace: adopts the living workers, then works off the queue.

        `address` is told to whoever finds the workspace taken. Raises JobError when another
        process already looks after it.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise _taken(self.workspace) from None
        self.served_at(address)
        self.store.rebuild(self.workspace)
        self._care()
        for slot in self.slots:
            self._spawn(self._serve, slot, name=f"slot {slot.name}")
        self._spawn(self._keep_caring, name="adoption")

    def served_at(self, address: str | None, token: str = "") -> None:
        """Writes down who looks after the workspace, and where its page is; with the token that
        opens it, for the owner of the workspace alone."""
        pid, started_at = self._me
        server = {"pid": pid, "pid_started_at": started_at, "address": address}
        if token:
            server["open"] = f"{address}?token={token}"
        write_atomic(self.workspace.server, json.dumps(server) + "\n")

    def close(self, stop_runs: bool = False) -> None:
        """Leaves the workers to themselves, or with `stop_runs` stops them with a checkpoint.

        With `stop_runs` it returns when all have ended; what waits in the queue goes on waiting.
        """
        if stop_runs:
            self._draining.set()
            while self.mine():
                self.stop_all()  # again: a slot may have taken a job in this instant
                time.sleep(self._poll_seconds)
        self._closing.set()
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(WorkspaceError):  # a full disk: the next one sees that we are gone
            for job in self.mine():
                self.store.update(job.id, owner_pid=None, owner_started_at=None)
        if self._lock.is_locked:
            self.workspace.server.unlink(missing_ok=True)
            self._lock.release()

    def mine(self) -> list[Job]:
        """The active jobs that this process looks after."""
        return [job for job in self.store.list(states=ACTIVE) if job.owner_pid == self._me[0]]

    def stop_all(self, *, now: bool = False) -> None:
        """Asks every job that this process looks after to stop with a checkpoint."""
        for job in self.mine():
            if job.state != "stopping" or now:
                with contextlib.suppress(JobError):  # it ended meanwhile
                    stop_job(self.workspace, self.store, job.id, now=now)

    def run_until_done(
        self,
        job_id: str,
        on_event: Callable[[Event], None] | None = None,
        on_interrupt: Callable[[int], None] | None = None,
    ) -> Job:
        """Sees one job through in the foreground, with those that it puts into the queue, and
        returns it when they have ended; for the shell.

        Whoever takes the job first does it, this process or a running server. Ctrl-C stops it with
        a checkpoint and waits for that; a second Ctrl-C kills it. `on_interrupt` is told how often
        it was pressed, before it has its effect.
        """
        with _interrupts() as pressed:
            if not self._lock.is_locked:
                for slot in self.slots:
                    self._spawn(self._serve, slot, job_id, name=f"slot {slot.name}")
                self._spawn(self._keep_caring, job_id, name="adoption")
            reader = _attempt_reader(self.workspace.root / self.store.get(job_id).folder)
            answered = 0
            while True:
                job = self.store.get(job_id)
                for event in reader.read_new():
                    if on_event is not None:
                        on_event(event)
                if job.ended and not self._at_work(job_id):
                    return job
                end = self._end_without_room(job)
                if end is not None:
                    return end
                if len(pressed) > answered:
                    answered = len(pressed)
                    if on_interrupt is not None:
                        on_interrupt(answered)
                    # A first time the job stops what it has put into the queue itself.
                    asked = self._at_work(job_id) if job.ended or answered > 1 else [job]
                    for one in asked:
                        with contextlib.suppress(JobError):  # it ended meanwhile
                            stop_job(self.workspace, self.store, one.id, now=answered > 1)
                time.sleep(self._poll_seconds)

    def _at_work(self, job_id: str) -> list[Job]:
        """The job and those that it has put into the queue, as far as they are active."""
        return [job for job in self.store.list(states=ACTIVE) if job.belongs_to(job_id)]

    def _end_without_room(self, job: Job) -> Job | None:
        """How a job ended that the store cannot be told of for a while now. Raises what keeps a
        waiting one from being taken for as long."""
        waits = [slot.name for slot in self.slots] if job.state == QUEUED else []
        for name in (job.id, *waits):
            since, what = self._unwritten.get(name, (time.monotonic(), job))
            if time.monotonic() - since > _ROOM_SECONDS:
                if isinstance(what, Exception):
                    raise what
                return what
        return None

    def _serve(self, slot: Slot, only: str | None = None) -> None:
        """A slot's thread: one job after the other."""
        while not self._closing.is_set():
            try:
                job = None if self._draining.is_set() else self._claim(slot, only)
                self._unwritten.pop(slot.name, None)
                supervisor = self._begin(job) if job is not None else None
                if supervisor is not None:
                    self._watch(supervisor)
            except Exception as error:  # of whatever kind: the slot must go on serving
                self._complain(f"Slot {slot.name} could not take a job", error)
                self._unwritten.setdefault(slot.name, (time.monotonic(), error))
            self._closing.wait(self._poll_seconds)

    def _claim(self, slot: Slot, only: str | None) -> Job | None:
        def choose(queued: list[Job], busy: Collection[str]) -> tuple[Job, str, str] | None:
            found = None if slot.name in busy else next_job(queued, busy, slot, self.slots)
            if found is None:
                return None
            job, slots = found
            return job, ",".join(s.name for s in slots), ",".join(s.device for s in slots)

        return self.store.claim(choose=choose, owner=self._me, only=only)

    def _begin(self, job: Job) -> Supervisor | None:
        """Starts the worker of a job that this process has claimed."""
        folder = self.workspace.root / job.folder
        try:
            process = self._start_despite_kills(job, folder)
        except (TunesmithError, OSError) as error:
            end = {"error": str(error), "advice": _("Mend this, then start it again.")}
            if isinstance(error, TunesmithError):
                end = {"error": error.message, "advice": error.hint}
            self._give_up(job, end)
            return None
        return Supervisor(self.workspace, self.store, job, process, **self._patience)

    def _start_despite_kills(self, job: Job, folder: Path) -> BaseProcess | None:
        """The worker, also where its fork server is killed meanwhile; None where one is at it."""
        starts = 1
        while True:
            try:
                return self._start(job, folder)
            except SetupError as error:
                killed = isinstance(error.__cause__, EOFError | ConnectionError)
                if not killed or starts == _STARTS:
                    raise
            # What a scheduler before this one had asked for may have come all the same; else there
            # is a new fork server.
            if _has_begun(folder):
                return None
            # One that was killed takes a moment to be gone, and refuses everything until then.
            time.sleep(_DYING_SECONDS * starts)
            starts += 1

    def _give_up(self, job: Job, end: dict[str, Any]) -> None:
        """A job whose worker could not be started has failed."""
        failed = replace(job, state="failed", ended_at=time.time(), **end)

        def write() -> bool:
            conclude(self.store, self.workspace.root / job.folder, job.id, "failed", **end)
            return True

        self._insist(job.id, write, lambda: failed)

    def _start(self, job: Job, folder: Path) -> BaseProcess:
        write_record(folder, job)
        EventWriter(folder / "events.jsonl").write("state", state="starting", device=job.device)
        resume = job.params.get("resume_from")
        checkpoint = str(self.workspace.confine(folder / resume)) if resume else None
        process = self._workers.Process(
            target=worker.main,
            args=(
                str(folder),
                str(self.workspace.root),
                checkpoint,
                job.device,
                self._target,
                [str(path) for path in self.workspace.allowed],
            ),
            name=f"worker {job.id}",
        )
        process.start()
        detach(process)
        return process

    def _watch(self, supervisor: Supervisor) -> None:
        """Looks after one worker until it ends, or this scheduler does."""
        self._insist(supervisor.job_id, supervisor.poll, lambda: supervisor.ended)

    def _insist(self, job_id: str, work: Callable[[], bool], end: Callable[[], Job | None]) -> None:
        """Calls `work` until that is done, or this scheduler: on a full disk, say, the job must not
        be forgotten. `end` is how the job ended, as soon as that is known."""
        while not self._closing.is_set():
            try:
                if work():
                    self._unwritten.pop(job_id, None)
                    return
            except Exception as error:
                self._complain(f"Job {job_id} could not be looked after", error)
                ended = end()
                if ended is not None:
                    self._unwritten.setdefault(job_id, (time.monotonic(), ended))
            self._closing.wait(self._poll_seconds)

    def _complain(self, what: str, error: Exception) -> None:
        """Into the log, and once where the same goes wrong again and again."""
        if self._complained == (said := (what, str(error))):
            return
        self._complained = said
        known = isinstance(error, TunesmithError | OSError)
        log.error("%s: %s Trying again.", what, error, exc_info=None if known else error)

    def _keep_caring(self, only: str | None = None) -> None:
        while not self._closing.wait(_CARE_SECONDS):
            try:
                self._care(only)
            except Exception as error:
                self._complain("Jobs without a scheduler could not be looked for", error)

    def _care(self, only: str | None = None) -> None:
        """Adopts active jobs that nobody looks after, and refuses queued ones nobody can take."""
        for job in self.store.list(states=ACTIVE):
            orphan = not same_process(job.owner_pid, job.owner_started_at)
            if orphan and self.store.adopt(job, self._me):
                self._take_over(job)
        for job in self.store.list(states={QUEUED}):
            # A shell that leaves the work to a server has no devices of its own.
            ours = self.devices and job.belongs_to(only)
            ours = ours and not serves(self.devices, job.device, asked_number(job))
            if ours and self.store.transition(job.id, {QUEUED}, "starting"):
                conclude(
                    self.store,
                    self.workspace.root / job.folder,
                    job.id,
                    "failed",
                    error=self._lacks(job),
                    advice=_("Start it again on another device, or with device auto."),
                )

    def _lacks(self, job: Job) -> str:
        here = ", ".join(self.devices)
        if serves(self.devices, job.device):
            return _(
                "It asks for the devices {asked}, and this machine has {devices}.",
                asked=asked_number(job),
                devices=here,
            )
        return _("This machine has no {device}, only {devices}.", device=job.device, devices=here)

    def _take_over(self, job: Job) -> None:
        """Watches the worker of a job whose scheduler has gone, or queues the job again."""
        folder = self.workspace.root / job.folder
        if job.pid is not None or job.state == "running" or _has_begun(folder):
            self._adopt(job)
            return
        take_back = partial(self._take_back, job, folder)
        self._spawn(self._insist, job.id, take_back, lambda: None, name=f"taken back {job.id}")

    def _take_back(self, job: Job, folder: Path) -> bool:
        """Queues a job again that was claimed before its scheduler died, and has no worker. Its
        folder is told first: who has that locked may be its worker, which is just beginning."""
        if _has_begun(folder):
            self._adopt(job)
        elif job.state == "stopping":
            conclude(self.store, folder, job.id, "stopped", reason="it had not begun")
        else:
            back: dict[str, Any] = {"device": asked_device(job), "slot": None, "started_at": None}
            write_record(folder, replace(job, state=QUEUED, **back))
            self.store.transition(job.id, ACTIVE, QUEUED, owner_pid=None, **back)
        return True

    def _adopt(self, job: Job) -> None:
        supervisor = Supervisor(self.workspace, self.store, job, None, **self._patience)
        self._spawn(self._watch, supervisor, name=f"adopted {job.id}")

    def _spawn(self, function: Callable[..., None], *args: Any, name: str) -> None:
        thread = threading.Thread(target=function, args=args, name=name, daemon=True)
        thread.start()
        self._threads = [item for item in self._threads if item.is_alive()] + [thread]


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Grows by one at each Ctrl-C, which interrupts nothing: a second one, pressed while the first
    is being answered, is not lost and leaves nothing half done. In the main thread only."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    previous = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)


def live_server(workspace: Workspace) -> dict[str, Any] | None:
    """Pid, start time and address of the process that works off this workspace's queue, if any."""
    try:
        server = json.loads(workspace.server.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(server, dict):
        return None
    return server if same_process(server.get("pid"), server.get("pid_started_at")) else None


def _taken(workspace: Workspace) -> JobError:
    server = live_server(workspace) or {}
    root, pid, address = workspace.root, server.get("pid"), server.get("address")
    if address:
        message = _(
            "The workspace {root} is looked after by process {pid} at {address}.",
            root=root,
            pid=pid,
            address=address,
        )
    elif server:
        message = _("The workspace {root} is looked after by process {pid}.", root=root, pid=pid)
    else:
        message = _("The workspace {root} is looked after by another process.", root=root)
    return JobError(message, _("Use that one, stop it, or choose another --workspace."))


def _has_begun(folder: Path) -> bool:
    """Whether a worker has been at the job since it was last put in the queue."""
    attempt = read_attempt(folder / "events.jsonl")
    return any(event.get("state") == "running" for event in attempt)


def _attempt_reader(folder: Path) -> EventReader:
    """A reader that begins where the job was last put in the queue."""
    path = folder / "events.jsonl"
    reader = EventReader(path)
    reader.offset = attempt_offset(path)
    return reader
