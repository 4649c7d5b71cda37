"""How long work says how far it is, and how it learns that nobody wants it any more."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[float, str], None]
"""Told with the share that is done, from 0 to 1, and what is being done. May raise `Stopped`."""


class Stopped(BaseException):
    """Somebody asked the work to stop.

    Like KeyboardInterrupt it is no Exception: what catches whatever can go wrong with a row or a
    file must let it through.
    """
