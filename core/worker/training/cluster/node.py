"""`python -m core.worker.training.cluster.node FOLDER WORKSPACE [CHECKPOINT]`: the training of a
run on a node of a Ray cluster. How it ended stands in the run's folder, for whoever follows it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import MemoryRanOut
from core.jobs.process import named
from core.language import pack
from core.worker.training.advice import advise
from core.worker.training.cluster.follow import end_file
from core.workspace import RunFolder, write_atomic

_SECONDS_BETWEEN_LOOKS = 1.0


def main(argv: Sequence[str], target: str = "core.worker.training.run:train_here") -> None:
    folder, root, *checkpoint = argv
    threading.Thread(target=end_with_holder, name="end-with-holder", daemon=True).start()
    run = RunFolder(Path(folder))
    try:
        resume = Path(checkpoint[0]) if checkpoint else None
        end: dict[str, Any] = {"state": named(target)(run.root, Path(root), resume)}
    except BaseException as error:
        traceback.print_exc()
        advice = advise(error)
        end = {"error": advice.message, "advice": advice.hint}
        end |= {"memory": isinstance(error, MemoryRanOut)}
    try:
        write_atomic(end_file(run), json.dumps(pack(end), ensure_ascii=False))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def end_with_holder() -> None:
    """Nobody would stop a process whose actor was killed, and its cards would count as free."""
    holder = os.getppid()
    while os.getppid() == holder:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
