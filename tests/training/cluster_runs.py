"""The worker of a run on the test's cluster: the real one, but for what the node is to do."""

from __future__ import annotations

import os
from pathlib import Path

from core.config.run import read_config
from core.jobs.job import read_record
from core.worker.training.cluster import follow
from core.workspace import RunFolder, Workspace

follow.NODE = "tests.training.cluster_node"


def run(folder: Path, root: Path, resume_from: Path | None) -> str:
    os.environ |= read_record(folder)["params"].get("environment", {})
    run = RunFolder(folder)
    return follow.follow(run, Workspace.open(root), read_config(run.config), resume_from)
