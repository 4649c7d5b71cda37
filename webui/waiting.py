"""How the server ends: considerate of the runs, which do not need it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

# How long a second Ctrl-C may take, in seconds.
PATIENCE = 10


def wait(runs_at_work: Callable[[], int], stop_runs: Callable[[], None]) -> None:
    """Until Ctrl-C or a termination signal. A second Ctrl-C stops the runs with a checkpoint."""
    ended = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        while not ended.wait(3600):
            pass
    except KeyboardInterrupt:
        _offer_to_stop(runs_at_work(), stop_runs)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _offer_to_stop(count: int, stop_runs: Callable[[], None]) -> None:
    if count == 0:
        print("\nThe server has ended. No run was at work.", file=sys.stderr)
        return
    runs = "1 run goes" if count == 1 else f"{count} runs go"
    print(
        f"\n{runs} on without the server. Press Ctrl-C again within {PATIENCE} seconds to stop "
        "with a checkpoint; later: python launch.py runs stop ID.",
        file=sys.stderr,
        flush=True,
    )
    try:
        time.sleep(PATIENCE)
    except KeyboardInterrupt:
        print("\nStopping; each run writes a checkpoint first.", file=sys.stderr, flush=True)
        stop_runs()
