"""Where worker processes come from, and how one is known again.

`context()` is a multiprocessing context (Process, Pipe, Queue, ...). On Linux and macOS its
processes are forked from a server that has torch and the trainers imported; on Windows, which has
no fork, they are spawned: the same functions, a slower start.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing import process as mp_process
from typing import Any

import psutil

PRELOAD = ("core.worker.preload",)
# Setting the clock moves the start times that the system reports; a pid does not come round
# again within seconds.
_SAME_START_SECONDS = 5.0
# Of Linux's 19: a fifth of the processor beside a process that wants all of it.
_LOWER_PRIORITY = 7

if sys.platform == "win32":
    from multiprocessing.context import SpawnContext

    class WorkerContext(SpawnContext):
        """Spawns; each process imports for itself."""

        def __init__(self, preload: Sequence[str], start_seconds: float = 180.0) -> None: ...

        def warm(self) -> None:
            """There is nothing to warm."""

        def renew(self) -> None:
            """There is nothing to renew: each process looks for its packages itself."""

        def close(self) -> None:
            """There is nothing to close."""

    def leave_server() -> None:
        """Nothing ties a spawned process to its parent."""

else:
    from core.jobs.forkserver import WorkerContext, leave_server

__all__ = [
    "PRELOAD",
    "WorkerContext",
    "call_named",
    "context",
    "detach",
    "exit_with_parent",
    "kill_worker",
    "leave_server",
    "let_others_first",
    "named",
    "same_process",
    "start_time",
    "staying",
]


@lru_cache
def context(preload: tuple[str, ...] = PRELOAD) -> WorkerContext:
    """This process's one context for these preloaded modules; starts nothing yet."""
    return WorkerContext(preload)


def detach(process: mp_process.BaseProcess) -> None:
    """Lets a started process go: the end of this one neither waits for it nor ends it.

    `join` and `exitcode` still work.
    """
    mp_process._children.discard(process)  # type: ignore[attr-defined]


def named(function: str | Callable[..., Any]) -> Callable[..., Any]:
    """An importable function, also by its name "package.module:function": whoever asks a process
    for work need not import what does it."""
    if callable(function):
        return function
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def call_named(function: str, *args: Any) -> Any:
    """What a process is started with: calls the function of this name there."""
    return named(function)(*args)


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Around imports: what they make stays as long as the process.

    To look again and again for what of it could go takes a fifth of the start of the page and two
    fifths of torch's and TRL's, and in a fork copies every page that is looked at.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def exit_with_parent() -> None:
    """In a child: ends it when the process that started it ends, however that happened."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


def let_others_first() -> None:
    """Lowers this process's priority: a page beside it answers while it keeps all cores busy.

    On idle cores it is as fast as before.
    """
    if sys.platform == "win32":
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(_LOWER_PRIORITY)


def start_time(pid: int) -> float | None:
    """When the process started, in seconds since the epoch; None when there is none (any more)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def same_process(pid: int | None, started_at: float | None) -> bool:
    """Whether the process that had `pid` and began at `started_at` still lives.

    A pid alone is never enough: the system gives it to another process later.
    """
    if pid is None or started_at is None:
        return False
    begun = start_time(pid)
    return begun is not None and abs(begun - started_at) <= _SAME_START_SECONDS


def kill_worker(pid: int, started_at: float) -> None:
    """Kills a worker and what it started, if it is still that worker."""
    if not same_process(pid, started_at):
        return
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(pid).children(recursive=True)
        for process in (psutil.Process(pid), *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
