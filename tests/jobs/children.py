"""What test processes do; functions, since a child imports them by name."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from core.errors import ConfigError, Problem
from core.jobs.events import EventWriter
from core.jobs.process import exit_with_parent


def report(connection: Connection) -> None:
    """Tells what it finds in its process."""
    connection.send(
        {
            "pid": os.getpid(),
            "session": os.getsid(0),
            "modules": sorted(sys.modules),
            "path": sys.path,
            "main": getattr(sys.modules["__main__"], "__file__", None),
        }
    )


def wait_for_ever(connection: Connection, watch_parent: bool) -> None:
    if watch_parent:
        exit_with_parent()
    connection.send(os.getpid())
    threading.Event().wait()


def what_was_found(progress: Callable[[float, str], None]) -> bool:
    from tests.jobs import looked_once

    return looked_once.FOUND


def stay_silent(progress: Callable[[float, str], None]) -> None:
    threading.Event().wait()


def double(number: int) -> int:
    return 2 * number


def fail(message: str) -> None:
    raise ValueError(message)


def die() -> None:
    os._exit(9)


def own_pid() -> int:
    return os.getpid()


def torch_is_there(folder: Path, root: Path) -> str:
    """A job that tells what was imported before it."""
    wanted = {"torch", "transformers", "peft", "trl"}
    modules = sorted(wanted & set(sys.modules))
    import torch

    # Threads work in a child of the fork server: nothing had started them before.
    total = float((torch.ones(512, 512) @ torch.ones(512, 512)).sum())
    EventWriter(folder / "events.jsonl").write(
        "log",
        modules=modules,
        total=total,
        threads=torch.get_num_threads(),
        cuda_initialized=torch.cuda.is_initialized(),
    )
    return "finished"


def add_slowly(first: int, second: int, *, progress: Callable[[float, str], None]) -> int:
    """Adds, and says so half way."""
    progress(0.5, f"adding to {first}")
    return first + second


def refuse(problem: str, *, progress: Callable[[float, str], None]) -> None:
    raise ConfigError([Problem("training.learning_rate", problem)], "Lower it.")


def break_down(*, progress: Callable[[float, str], None]) -> None:
    raise RuntimeError("a fault of the program")


def kill_myself(*, progress: Callable[[float, str], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work_for_ever(mark: Path, *, progress: Callable[[float, str], None]) -> None:
    """Keeps a file while it works, and takes it away when it is ended."""
    mark.write_text(str(os.getpid()))
    try:
        while True:
            progress(0.1, "working")
            time.sleep(0.01)
    finally:
        mark.unlink()


def priority(*, progress: object) -> int:
    return os.nice(0)


def never_end(_: object = None, *, progress: object = None) -> None:
    """Also takes every error for something else, as a person's function may."""
    while True:
        with contextlib.suppress(Exception):
            threading.Event().wait(0.01)


def match_for_ever(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def grow(megabytes: int) -> int:
    return len(bytearray(megabytes * 2**20))
