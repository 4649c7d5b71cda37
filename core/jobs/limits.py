"""How long a piece of work may take and how much memory, where it runs what a person wrote: a
template, a pattern, a function. For a process of its own, or that of a command, which ends if
nothing else helps."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from core.errors import JobError
from core.language import _

if sys.platform != "win32":
    import resource

# After its time the work is interrupted, again and again; so long later its process is ended, for
# something may not hear of it.
_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Limit:
    """Seconds, and the bytes of memory that may come on top of what the process has."""

    seconds: float
    memory_bytes: int | None = None


SHORT = Limit(seconds=120, memory_bytes=4 * 2**30)
"""For what is short unless something in it goes on for ever, such as a template's loop."""


class _Over(BaseException):
    """The time is over. No `except Exception` of what is interrupted gets it."""


@contextlib.contextmanager
def limited(limit: Limit | None) -> Iterator[Callable[[], None]]:
    """Ends what is done inside with JobError when it takes longer or more memory than it may. What
    it gives begins the time anew: work on many rows calls it for each piece.

    Windows has no such limits; there the process is ended when the time is over.
    """
    if limit is None:
        yield lambda: None
        return
    try:
        with (
            open(os.devnull, "w") as nowhere,
            _memory(limit.memory_bytes),
            _time(limit, nowhere) as anew,
        ):
            yield anew
    except _Over:
        raise JobError(
            _("It took longer than {seconds:g} seconds and was ended.", seconds=limit.seconds),
            _("Look for a loop that does not end, or for too much at once."),
        ) from None
    except MemoryError:
        size = (limit.memory_bytes or 0) / 2**30
        raise JobError(
            _("It needed more than {size:g} GB of memory and was ended.", size=size),
            _("Look for a text or a list that grows without end."),
        ) from None


@contextlib.contextmanager
def _time(limit: Limit, nowhere: object) -> Iterator[Callable[[], None]]:
    def over(*_: object) -> None:
        raise _Over

    alarmed = sys.platform != "win32" and threading.current_thread() is threading.main_thread()

    def begin() -> None:
        faulthandler.dump_traceback_later(limit.seconds + _GRACE_SECONDS, exit=True, file=nowhere)  # type: ignore[arg-type]
        if alarmed:
            signal.setitimer(signal.ITIMER_REAL, limit.seconds, 1.0)

    if alarmed:
        previous = signal.signal(signal.SIGALRM, over)
    begin()
    try:
        yield begin
    finally:
        if alarmed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _memory(more: int | None) -> Iterator[None]:
    """Linux counts what a process has asked for; elsewhere the limit is not kept."""
    if more is None or sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + more
    ends = [end for end in (soft, hard) if end != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([most, *ends]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
