"""What the workers of a test process's servers are forked from: it has imported torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# As in tests/e2e/program.py.
os.environ.pop("HF_HUB_OFFLINE", None)

import core.worker.preload  # noqa: E402, F401


def work(environment: dict[str, str], target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    target(*args)
