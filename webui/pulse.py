"""Whether there is something new to show. An open page asks each second, and its header and the tab
that is shown look anew when the answer is another one: a page on which nothing happens costs next
to nothing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from core.jobs.job import ACTIVE

if TYPE_CHECKING:
    from core.jobs.store import Store

# What tells the store of nothing, such as a folder that somebody removed, is seen after so long.
_SECONDS = 10


class Pulse:
    """Other programs write the store, too, such as the command line."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: list[tuple[int, int]] | None = None
        self._at_work = False

    def mark(self) -> str:
        """Another text when a job was added, began, ended or was changed, each second while one is
        at work, and now and then."""
        written = [_stamp(f"{self._store.path}{end}") for end in ("", "-wal")]
        if written != self._written:
            self._written = written
            self._at_work = bool(self._store.list(states=ACTIVE))
        now = time.monotonic()
        return f"{written} {int(now) if self._at_work else int(now / _SECONDS)}"


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
