"""The store's tables, as a list of named steps that is only ever appended to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from core.errors import JobError

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
                f"The job store was written by a newer Tunesmith ({', '.join(sorted(unknown))}).",
                "Update Tunesmith, or choose another --workspace.",
            )
        for step in MIGRATIONS:
            if step.__name__ not in applied:
                step(sql)
                sql.execute("INSERT INTO migrations VALUES (?, ?)", [step.__name__, time.time()])
        sql.execute("COMMIT")
    except BaseException:
        sql.execute("ROLLBACK")
        raise
    return not applied
