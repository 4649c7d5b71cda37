"""A server of one workspace, as a program of its own, for tests that kill it.

python server.py WORKSPACE [real]: prints `ready` when it schedules. A line on standard input tells
it how to end: `leave` leaves the workers, `stop` stops them first. With `real`, work on data is
done.
"""

from __future__ import annotations

import sys
from pathlib import Path

from core.errors import JobError
from core.jobs.process import context
from core.jobs.scheduler import Scheduler
from core.jobs.store import Store
from core.workspace import Workspace

LIGHT = ("core.jobs.worker", "tests.jobs.fake_jobs")
REAL = ("core.jobs.worker", "core.data.jobs")


def main() -> int:
    workspace = Workspace.open(Path(sys.argv[1]))
    real = sys.argv[2:] == ["real"]
    scheduler = Scheduler(
        workspace,
        Store.open(workspace),
        ["cpu"],
        poll_seconds=0.02,
        workers=context(REAL if real else LIGHT),
        target=None if real else "tests.jobs.fake_jobs:either",
    )
    try:
        scheduler.start("http://127.0.0.1:7860")
    except JobError as error:
        print(error, flush=True)
        return 1
    print("ready", flush=True)
    scheduler.close(stop_runs=sys.stdin.readline().strip() == "stop")
    return 0


# No guard: a worker that imported this program again would start a second server, and hang.
print("imported", flush=True)
sys.exit(main())
