"""What a document may take in memory while it is read, whatever it said of its size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.data.read.row import Record
from core.errors import DataError
from core.language import _

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MOST_BYTES = 2 * 2**30
"""So much more than before: a document of 1,000 pages takes some 100 MB."""

_STATUS = Path("/proc/self/status")
_ONE_AT_A_TIME = threading.RLock()
"""The limit is of the whole process."""


def within_memory(
    path: Path, records: Iterator[Record], most_bytes: int = MOST_BYTES
) -> Iterator[Record]:
    """The records of a document. Raises DataError when the library that reads it asks for more
    than `most_bytes`. Only Linux keeps such a limit; elsewhere a document has only those of its
    size."""
    end: Record | None = None
    while True:
        try:
            with _limited(most_bytes):
                record = next(records, end)
        except MemoryError as error:
            raise DataError(
                _(
                    "{name} takes more than {most:,.1f} GB of memory to read: it was made to "
                    "swell, or is much too large.",
                    name=path.name,
                    most=most_bytes / 2**30,
                ),
                _("Bring it in parts, or as text."),
            ) from error
        if record is None:
            return
        yield record


@contextmanager
def _limited(most_bytes: int) -> Iterator[None]:
    if resource is None or not _STATUS.is_file():
        yield
        return
    with _ONE_AT_A_TIME:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        most, hard = _used_bytes() + most_bytes, before[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        if before[0] == resource.RLIM_INFINITY or most < before[0]:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _used_bytes() -> int:
    line = next(one for one in _STATUS.read_text().splitlines() if one.startswith("VmData"))
    return int(line.split()[1]) * 1024
