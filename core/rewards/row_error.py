"""Which answer a reward function was looking at when it failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import TunesmithError


class RowError(Exception):
    """`error` happened at answer `index` of a batch."""

    def __init__(self, index: int, error: TunesmithError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


@contextmanager
def at_row(index: int) -> Iterator[None]:
    """Errors within say the answer: a TunesmithError leaves as RowError."""
    try:
        yield
    except TunesmithError as error:
        raise RowError(index, error) from error
