"""The worker of a run on the test's cluster: the real one, but for what the node is to do; and the
scheduler that starts it."""

from __future__ import annotations

import os
from pathlib import Path

from core.config.run import read_config
from core.jobs.job import read_record
from core.jobs.process import context
from core.jobs.scheduler import Scheduler
from core.worker.training.cluster import follow
from core.workspace import RunFolder, Workspace
from tests.jobs.bench import Bench

LIGHT = ("core.jobs.worker", "tests.training.cluster_runs")
follow.NODE = "tests.training.cluster_node"
follow._SECONDS_TO_BE_SEEN = 1.0  # here it is seen at once


def begin(bench: Bench) -> Scheduler:
    return bench.scheduler(workers=context(LIGHT), target="tests.training.cluster_runs:run")


def run(folder: Path, root: Path, resume_from: Path | None) -> str:
    os.environ |= read_record(folder)["params"].get("environment", {})
    run = RunFolder(folder)
    return follow.follow(run, Workspace.open(root), read_config(run.config), resume_from)
