"""What the workers of a test process's servers are forked from: it has imported torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As in tests/e2e/program.py.
os.environ.pop("HF_HUB_OFFLINE", None)

import core.worker.preload  # noqa: E402, F401
from core.jobs import isolated  # noqa: E402
from core.jobs.task import Task  # noqa: E402
from tests.warm_python import look_again  # noqa: E402

# Names a file: while it is there, the work that it names stands still where it tells how far it is.
HOLD = "TUNESMITH_TESTS_HOLD"


def work(environment: dict[str, str], target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    look_again()
    if HOLD in environment:
        _hold(Path(environment[HOLD]))
    target(*args)


def _hold(file: Path) -> None:
    """A job is called `job`, other work by its function."""

    def holding(name: str, tell: Callable[..., None]) -> Callable[..., None]:
        def told(*said: Any) -> None:
            tell(*said)
            while file.exists() and file.read_text(encoding="utf-8") == name:
                time.sleep(0.02)

        return told

    named = isolated.named

    def held(function: str | Callable[..., Any]) -> Callable[..., Any]:
        found = named(function)

        def call(*args: Any, progress: Callable[..., None], **kwargs: Any) -> Any:
            return found(*args, progress=holding(found.__name__, progress), **kwargs)

        return call

    isolated.named = held
    Task.tell = holding("job", Task.tell)  # type: ignore[method-assign]
