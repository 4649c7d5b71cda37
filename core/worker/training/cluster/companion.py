"""`python -m core.worker.training.cluster.companion FOLDER`: on each node but the first of those
that share a run, the share of this one."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from core.worker.training.cluster.node import end_with_holder
from core.worker.training.launcher import accompany
from core.workspace import RunFolder

if __name__ == "__main__":
    threading.Thread(target=end_with_holder, name="end-with-holder", daemon=True).start()
    accompany(RunFolder(Path(sys.argv[1])))
