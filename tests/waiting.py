"""Waits for a state, never for a time.

There is one limit for all of them. It only ends what hangs: a machine whose cores are all taken may
be thirty times slower than a free one, and that is no fault. What a page shows is waited for by
Playwright's `expect`, whose limit conftest.py sets to the same. A failing test prints what its
fixtures show at that moment (tests/shown.py), so a wait need not say much.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

LIMIT = 300.0  # seconds
_PAUSE = 0.02


def until(condition: Callable[[], Any], saw: Callable[[], Any] | None = None) -> Any:
    """The first true value of `condition`; fails with the last one and what `saw` gives."""
    end = time.monotonic() + LIMIT
    while not (value := condition()):
        if time.monotonic() > end:
            told = f"; saw {saw()}" if saw else ""
            raise AssertionError(f"waited in vain: still {value!r}{told}")
        time.sleep(_PAUSE)
    return value


def end_of(process: subprocess.Popen[str], text: str | None = None) -> tuple[str, str]:
    """Standard output and standard error of a process, which has ended."""
    try:
        out, err = process.communicate(text, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} does not end. It wrote\n{out}\n{err}") from None
    return out, err or ""
