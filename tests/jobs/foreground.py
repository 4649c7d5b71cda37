"""A run in the foreground, as `train` in a shell has it: python foreground.py WORKSPACE JOB."""

from __future__ import annotations

import sys
from pathlib import Path

from core.jobs.process import context
from core.jobs.scheduler import Scheduler
from core.jobs.store import Store
from core.workspace import Workspace
from tests.jobs.bench import LIGHT

if __name__ == "__main__":
    workspace = Workspace.open(Path(sys.argv[1]))
    scheduler = Scheduler(
        workspace,
        Store.open(workspace),
        ["cpu"],
        poll_seconds=0.02,
        workers=context(LIGHT),
        target="tests.jobs.fake_jobs:either",
    )
    job = scheduler.run_until_done(sys.argv[2], lambda event: print(event["kind"], flush=True))
    scheduler.close()
    print(job.state, flush=True)
