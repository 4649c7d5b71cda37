"""Long work on data in a process of its own: it can take memory and time, be stopped at any moment,
and the server stays small and answers meanwhile."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from core.errors import JobError, TunesmithError
from core.jobs.limits import Limit, limited
from core.jobs.process import WorkerContext, context, exit_with_parent, let_others_first, named
from core.language import _, language, use
from core.progress import Tell

# How long a process may take to end by itself: of its own time, for on a busy machine the others
# come first, and at most.
_GRACE_SECONDS, _MOST_SECONDS = 5.0, 60.0
_SILENCE_SECONDS = 0.5


def call_isolated(
    function: str | Callable[..., Any],
    *args: Any,
    tell: Tell | None = None,
    workers: WorkerContext | None = None,
    within: Limit | None = None,
    **kwargs: Any,
) -> Any:
    """Calls an importable `function(*args, progress=..., **kwargs)` in another process and waits.
    It may be given by its name "package.module:function".

    `tell` gets what the function says of its progress, again and again while it is silent; when it
    raises, the process is ended (its `finally` blocks run) and the exception goes on. The
    function's own error is raised here, and JobError when it did not keep `within` its limit or its
    process was killed.
    """
    workers = workers or context()
    ours, theirs = workers.Pipe()
    asked = (theirs, within, language(), function, args, kwargs)
    process = workers.Process(target=_work, args=asked, daemon=True)
    process.start()
    theirs.close()
    said = (0.0, _("Starting"))
    try:
        while True:
            while tell and not ours.poll(_SILENCE_SECONDS):
                tell(*said)
            kind, value = received(ours, process)
            if kind == "progress" and tell:
                said = value
                tell(*value)
            elif kind == "result":
                return value
            elif kind == "error":
                raise value
    finally:
        ours.close()
        _end(process)


def received(pipe: Any, process: Any) -> tuple[str, Any]:
    """What the process says next. Raises JobError when it was killed, also in the middle of it."""
    try:
        said: tuple[str, Any] = pipe.recv()
    except (EOFError, OSError):
        process.join(timeout=_GRACE_SECONDS)
        raise JobError(
            _(
                "The process that was to do this was killed (exit code {exitcode}).",
                exitcode=process.exitcode,
            ),
            _("Is the machine short of memory? Nothing was left half done; try again."),
        ) from None
    return said


def _end(process: Any) -> None:
    process.join(timeout=0.1)
    if process.is_alive():
        used, last = _seconds_of(process), time.monotonic() + _MOST_SECONDS
        process.terminate()
        while process.is_alive() and time.monotonic() < last:
            if _seconds_of(process) - used > _GRACE_SECONDS:
                break
            process.join(timeout=0.1)
    if process.is_alive():
        process.kill()
        process.join()


def _seconds_of(process: Any) -> float:
    """What a process has had of the processor."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _work(
    pipe: Any,
    within: Limit | None,
    spoken: str,
    function: str | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    use(spoken)
    exit_with_parent()
    let_others_first()
    # A stop must run the `finally` blocks: they take away what is half written.
    signal.signal(signal.SIGTERM, lambda *_given: sys.exit(1))

    def progress(fraction: float, message: str = "") -> None:
        pipe.send(("progress", (fraction, message)))

    try:
        with limited(within):
            answer = named(function)(*args, progress=progress, **kwargs)
        pipe.send(("result", answer))
    except TunesmithError as error:
        pipe.send(("error", error))
    except Exception as error:
        hint = _("This is a fault of Tunesmith; the server's log says where.")
        pipe.send(("error", JobError(f"{type(error).__name__}: {error}", hint)))
        raise
