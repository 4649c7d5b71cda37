"""The job store: one SQLite file that several processes read and write at once (WAL).

The folders are the truth and the store an index over them: lose it, and `rebuild` makes it again.
A state changes only through `transition` or `claim`, which compare before they set, so that two
schedulers, a browser and a shell cannot undo each other. Its tables are a list of named steps
(`MIGRATIONS`) that is only ever appended to.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from core.errors import JobError, WorkspaceError, disk_full, reason_of
from core.jobs.job import ACTIVE, ENDED, QUEUED, Job, scan
from core.language import Text, _, pack, unpack
from core.workspace import Workspace

# Columns whose text may be a sentence, which is kept as its template and values.
SENTENCES = ("name", "error", "advice")
COLUMNS = tuple(item.name for item in fields(Job))
# With less room than this on the disk, SQLite cannot write a row.
_LEAST_BYTES = 2**16
# Inside the class, `list` is the method.
Jobs = list[Job]
Choose = Callable[[Jobs, Collection[str]], tuple[Job, str, str] | None]
"""(the queue, the slots that are held) -> (a job, the slot or slots that it gets, its devices)."""


class Store:
    """The jobs in `path`. One object may be used from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.RLock()
        self._connection = _open(path)
        try:
            self.fresh = migrate(self._connection)
        except sqlite3.OperationalError as error:
            raise _not_written(path, error) from error
        """Whether there was no usable store at `path` before: `rebuild` it from the folders."""

    @classmethod
    def open(cls, workspace: Workspace) -> Store:
        """The workspace's store, filled from the folders when it was lost."""
        store = cls(workspace.database)
        if store.fresh:
            store.rebuild(workspace)
        return store

    def rebuild(self, workspace: Workspace) -> int:
        """Adds a row for each folder that has none; returns how many.

        A row stays as it is where it has its folder. Where somebody removed the folder of a job
        that is not at work, the row goes too.
        """
        with self.transaction():
            for job in self.list(states=ENDED | {QUEUED}):
                if not (workspace.root / job.folder).is_dir():
                    self.delete(job.id)
            missing: dict[str, Job] = {}
            for job in scan(workspace, known={job.id for job in self.list()}):
                missing.setdefault(job.id, job)  # a copied run has jobs of the same ids in it
            for job in sorted(missing.values(), key=lambda job: (job.position, job.created_at)):
                self.add(job)
        return len(missing)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def add(self, job: Job) -> Job:
        """Adds a row; a queued job goes to the end of the queue. Returns it as it was stored."""
        with self.transaction() as sql:
            values = asdict(job)
            if job.state == QUEUED:
                last = sql.execute("SELECT max(position) FROM jobs WHERE state = 'queued'")
                values["position"] = (last.fetchone()[0] or 0) + 1
            marks = ", ".join("?" for _ in COLUMNS)
            sql.execute(
                f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({marks})", _row(values, COLUMNS)
            )
        return self.get(job.id)

    def find(self, job_id: str) -> Job | None:
        rows = self._select("WHERE id = ?", [job_id])
        return rows[0] if rows else None

    def get(self, job_id: str) -> Job:
        """The job. Raises JobError when there is none."""
        job = self.find(job_id)
        if job is None:
            raise JobError(
                _("There is no job {job}.", job=job_id), _("See which there are: runs list.")
            )
        return job

    def list(
        self,
        kind: str | None = None,
        states: Collection[str] | None = None,
        run_id: str | None = None,
    ) -> Jobs:
        """Newest first; the queued ones of a `states` of ("queued",) in the order of the queue."""
        where, values = ["1"], list[Any]()
        if kind is not None:
            where.append("kind = ?")
            values.append(kind)
        if run_id is not None:
            where.append("run_id = ?")
            values.append(run_id)
        if states is not None:
            where.append(f"state IN ({_marks(states)})")
            values += sorted(states)
        in_queue = states is not None and set(states) == {QUEUED}
        order = "position, created_at, id" if in_queue else "created_at DESC, id DESC"
        return self._select(f"WHERE {' AND '.join(where)} ORDER BY {order}", values)

    def transition(
        self, job_id: str, from_states: Collection[str], to: str, **changes: Any
    ) -> bool:
        """Sets the state to `to` if it is one of `from_states`; False when it was not."""
        return self._set(job_id, {"state": to, **changes}, from_states)

    def update(self, job_id: str, **changes: Any) -> bool:
        """Sets fields other than the state. False when there is no such job."""
        if "state" in changes:
            raise ValueError("a state changes through transition only")
        return self._set(job_id, changes, None)

    def enqueue(self, job_id: str, from_states: Collection[str], **changes: Any) -> bool:
        """Back to the end of the queue, from one of `from_states`."""
        with self.transaction() as sql:
            last = sql.execute("SELECT max(position) FROM jobs WHERE state = 'queued'")
            position = (last.fetchone()[0] or 0) + 1
            return self._set(
                job_id, {"state": QUEUED, "position": position, **changes}, from_states
            )

    def claim(
        self,
        *,
        choose: Choose,
        owner: tuple[int, float],
        only: str | None = None,
    ) -> Job | None:
        """Takes the queued job that `choose` names and sets it to `starting`; None without one.

        It is told those in the queue, in order, and the names of the slots that a job of any
        scheduler holds. `only` restricts it to one job and what that has put there.
        """
        # Looked at before the write lock is taken: this is asked several times a second.
        if not self.list(states={QUEUED}):
            return None
        with self.transaction():
            held = [job.slot or "" for job in self.list(states=ACTIVE)]
            queued = [job for job in self.list(states={QUEUED}) if job.belongs_to(only)]
            chosen = choose(queued, {name for slot in held for name in slot.split(",")})
            if chosen is None:
                return None
            job, slot, device = chosen
            changes = {"slot": slot, "device": device, "started_at": time.time(), "pid": None}
            changes |= {"pid_started_at": None, "owner_pid": owner[0], "owner_started_at": owner[1]}
            self._set(job.id, {"state": "starting", **changes}, {QUEUED})
            return self.get(job.id)

    def adopt(self, job: Job, owner: tuple[int, float]) -> bool:
        """Makes `owner` look after an active job, unless somebody took it since `job` was read."""
        with self.transaction() as sql:
            done = sql.execute(
                "UPDATE jobs SET owner_pid = ?, owner_started_at = ? "
                f"WHERE id = ? AND owner_pid IS ? AND state IN ({_marks(ACTIVE)})",
                [*owner, job.id, job.owner_pid, *sorted(ACTIVE)],
            )
            return done.rowcount == 1

    def reorder(self, job_id: str, position: int) -> None:
        """Moves a queued job to `position` in the queue, 0 being next."""
        with self.transaction() as sql:
            ids = [job.id for job in self.list(states={QUEUED})]
            if job_id not in ids:
                raise JobError(
                    _("{job} is not waiting.", job=job_id),
                    _("Only queued jobs can be moved."),
                )
            ids.remove(job_id)
            ids.insert(max(0, position), job_id)
            sql.executemany(
                "UPDATE jobs SET position = ? WHERE id = ?",
                [(number, item) for number, item in enumerate(ids, start=1)],
            )

    def delete(self, job_id: str) -> None:
        with self.transaction() as sql:
            sql.execute("DELETE FROM jobs WHERE id = ?", [job_id])

    def _set(
        self, job_id: str, changes: dict[str, Any], from_states: Collection[str] | None
    ) -> bool:
        if not changes:
            return self.find(job_id) is not None
        sets = ", ".join(f"{name} = ?" for name in changes)
        values = [*_row(changes, list(changes)), job_id]
        states = ""
        if from_states is not None:
            states = f" AND state IN ({_marks(from_states)})"
            values += sorted(from_states)
        with self.transaction() as sql:
            done = sql.execute(f"UPDATE jobs SET {sets} WHERE id = ?{states}", values)
            return done.rowcount == 1

    def _select(self, rest: str, values: Sequence[Any]) -> Jobs:
        with self._lock:
            rows = self._connection.execute(f"SELECT * FROM jobs {rest}", values).fetchall()
        return [_job(row) for row in rows]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time, over all processes; nested use joins the outer one.

        Files that must agree with a row are written inside, before anybody can act on the row.
        """
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:  # a full disk has SQLite undo it by itself
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise _not_written(self.path, error) from error
                raise


def _not_written(path: Path, error: sqlite3.Error) -> WorkspaceError:
    why = reason_of(error)
    hint = _("Look at the rights of the workspace's folder, then try again.")
    # What SQLite maps into memory is refused with other words.
    if disk_full(error) or shutil.disk_usage(path.parent).free < _LEAST_BYTES:
        why = _("the disk is full")
        hint = _("Make room on the disk of the workspace, then try again.")
    elif "locked" in why:
        hint = _("Another process holds it: wait for that, or end it, then try again.")
    return WorkspaceError(
        _("The job store {path} cannot be written: {why}.", path=path, why=why), hint
    )


def _open(path: Path) -> sqlite3.Connection:
    """A connection; a file that is no database is moved aside, since the folders are the truth."""
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise _not_written(path, error) from error
        aside = path.with_name(f"{path.name}.broken-{int(time.time())}")
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA quick_check(1)")
    except BaseException:
        connection.close()
        raise
    return connection


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" for _ in values)


def _row(values: dict[str, Any], names: Sequence[str]) -> list[Any]:
    unknown = set(names) - set(COLUMNS)
    if unknown:
        raise ValueError(f"a job has no {', '.join(sorted(unknown))}")
    return [
        json.dumps(pack(values[name]), ensure_ascii=False)
        if name == "params" or isinstance(values[name], Text)
        else values[name]
        for name in names
    ]


def _job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in COLUMNS}
    for name in SENTENCES:
        if (values[name] or "").startswith('{"_": '):
            with suppress(ValueError):  # a name is what a person typed, perhaps
                said = unpack(json.loads(values[name]))
                values[name] = said if isinstance(said, str) else values[name]
    return Job(**{**values, "params": unpack(json.loads(values["params"]))})


Migration = Callable[[sqlite3.Connection], object]


def m001_jobs(sql: sqlite3.Connection) -> None:
    sql.execute(
        """
        CREATE TABLE jobs (
            id TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            run_id TEXT NOT NULL,
            folder TEXT NOT NULL,
            name TEXT NOT NULL,
            state TEXT NOT NULL,
            device TEXT NOT NULL,
            slot TEXT,
            created_at REAL NOT NULL,
            started_at REAL,
            ended_at REAL,
            earlier_seconds REAL NOT NULL,
            pid INTEGER,
            pid_started_at REAL,
            step INTEGER NOT NULL,
            max_steps INTEGER NOT NULL,
            error TEXT,
            advice TEXT,
            signal INTEGER,
            parent_id TEXT,
            note TEXT NOT NULL,
            model TEXT NOT NULL,
            dataset TEXT NOT NULL,
            best_eval_loss REAL,
            position INTEGER NOT NULL,
            params TEXT NOT NULL,
            owner_pid INTEGER,
            owner_started_at REAL
        )
        """
    )
    sql.execute("CREATE INDEX jobs_by_state ON jobs (state, position)")
    sql.execute("CREATE INDEX jobs_by_run ON jobs (run_id)")


MIGRATIONS: tuple[Migration, ...] = (m001_jobs,)


def migrate(sql: sqlite3.Connection) -> bool:
    """Applies what is missing, each step once. True when the store had no tables before.

    Raises JobError when the store was written by a newer Tunesmith.
    """
    sql.execute("BEGIN IMMEDIATE")
    try:
        sql.execute(
            "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at REAL)"
        )
        applied = {row[0] for row in sql.execute("SELECT name FROM migrations")}
        unknown = applied - {step.__name__ for step in MIGRATIONS}
        if unknown:
            raise JobError(
                _(
                    "The job store was written by a newer Tunesmith ({changes}).",
                    changes=", ".join(sorted(unknown)),
                ),
                _("Update Tunesmith, or choose another --workspace."),
            )
        for step in MIGRATIONS:
            if step.__name__ not in applied:
                step(sql)
                sql.execute("INSERT INTO migrations VALUES (?, ?)", [step.__name__, time.time()])
        sql.execute("COMMIT")
    except BaseException:
        if sql.in_transaction:
            sql.execute("ROLLBACK")
        raise
    return not applied
