"""`events.jsonl`: what a job did, one JSON object a line, only ever appended to.

Each line has `time` (ISO 8601 with offset), `kind` (state, metrics, progress, sample, log, error,
result) and the fields of its kind. The writer needs no server and no lock: a line is one `write`
to a file opened for appending. The reader remembers its offset and never re-reads. A sentence is
stored as its template and values, and read in the language in use (core.language).
"""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.language import Text, pack, unpack

Event = dict[str, Any]
_TAIL_BYTES = 16384


class EventWriter:
    """Appends events to `path`; safe from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, **fields: Any) -> Event:
        """One line, whole or with an OSError; returns what it says. A number that is not finite is
        written as null.

        Keeps no file open, so a folder can be deleted or moved between two events.
        """
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind}
        text = json.dumps(_plain({**event, **fields}), ensure_ascii=False, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # A worker that was killed in the middle of a line must not spoil the next one.
            size = os.fstat(handle).st_size
            torn = size > 0 and _byte_at(handle, size - 1) != b"\n"
            line = (b"\n" if torn else b"") + text.encode() + b"\n"
            while line:  # a disk that fills up takes a part of it, and refuses the rest
                line = line[os.write(handle, line) :]
        finally:
            os.close(handle)
        return event


class EventReader:
    """Reads the events of `path` that were not read before, from byte `offset` on."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def read_new(self) -> list[Event]:
        """The events added since the last call, oldest first; [] while there is no file.

        A last line without its end is left for the next call; a line torn by a killed worker is
        passed over.
        """
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:
                    self.offset = 0  # the file was replaced
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        return [event for line in data[:whole].splitlines() if (event := _parsed(line))]


def read_events(path: Path) -> list[Event]:
    """Every event of the file, oldest first."""
    return EventReader(path).read_new()


def last_event(path: Path, kind: str) -> Event | None:
    """The newest event of a kind, as far as it stands in the last lines of the file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    found = (event for line in reversed(lines) if (event := _parsed(line)))
    return next((event for event in found if event["kind"] == kind), None)


def read_attempt(path: Path) -> list[Event]:
    """The events since the job was last put in the queue: a resumed run has several attempts."""
    return EventReader(path, attempt_offset(path)).read_new()


def attempt_offset(path: Path) -> int:
    """The byte at which the last attempt begins."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    offset = begin = 0
    for line in data.splitlines(keepends=True):
        event = _parsed(line) if b'"queued"' in line else None
        if event and event["kind"] == "state" and event.get("state") == "queued":
            begin = offset
        offset += len(line)
    return begin


def event_seconds(event: Event) -> float:
    """The event's time in seconds since the epoch."""
    return datetime.fromisoformat(event["time"]).timestamp()


def _byte_at(handle: int, offset: int) -> bytes:
    os.lseek(handle, offset, os.SEEK_SET)
    return os.read(handle, 1)


def _parsed(line: bytes) -> Event | None:
    try:
        event = unpack(json.loads(line))
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"kind", "time"} <= event.keys() else None


def _plain(value: Any) -> Any:
    """`value` as JSON has it: scalars of numpy or torch become numbers, paths become text."""
    if isinstance(value, Text):
        return pack(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int) else str(value)
