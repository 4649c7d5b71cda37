"""One of the processes of a run on several devices (`core.worker.rank`), started by accelerate for
`core.worker.training.launch`. How it ended stands in the .ranks/ of the run."""

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

from torch.distributed import DistError

from core.jobs.process import same_process
from core.language import pack
from core.progress import Stopped
from core.rules import load_config
from core.worker.training import ranks, recipe
from core.worker.training.advice import advise
from core.worker.training.launcher import LAUNCHED, reports
from core.worker.training.resume import BrokenCheckpoint, in_evaluation, ran_out
from core.worker.training.run import be_ready
from core.workspace import RunFolder, Workspace, write_atomic

_SECONDS_BETWEEN_LOOKS = 1.0
# How gloo and NCCL say that another process is gone.
_GONE = ("connection closed by peer", "connection reset by peer", "gloo", "nccl")


def main(argv: Sequence[str]) -> None:
    folder, root, *checkpoint = argv
    threading.Thread(target=_end_with_worker, name="end-with-worker", daemon=True).start()
    run = RunFolder(Path(folder)) if ranks.is_first() else ranks.SilentFolder(Path(folder))
    code = 1
    try:
        be_ready()
        config = load_config(run.config)
        ranks.join(config)
        resume = Path(checkpoint[0]) if checkpoint else None
        state = recipe.run(run, Workspace.open(root), config, resume)
        code = 0
        if ranks.is_first():
            _report(run, state=state)
    except Stopped:
        _report(run, state="stopped")  # and by its code ends those that did not see it
    except BaseException as error:
        traceback.print_exc()
        _report(run, **_told(error))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _told(error: BaseException) -> dict[str, Any]:
    advice = advise(error)
    # Python's own error of memory says nothing.
    text = str(error) or "can't allocate memory" * isinstance(error, MemoryError)
    words = text.lower()
    found = {
        "error": advice.message,
        "advice": advice.hint,
        "said": text,
        "echo": isinstance(error, DistError) or any(word in words for word in _GONE),
        "memory": ran_out(error),
        "evaluating": in_evaluation(error),
    }
    if isinstance(error, BrokenCheckpoint):
        found |= {"checkpoint": str(error.path), "reason": error.reason}
    return found


def _report(run: RunFolder, **end: Any) -> None:
    text = json.dumps(pack({"time": time.time(), **end}), ensure_ascii=False)
    write_atomic(reports(run) / f"{ranks.number()}.json", text)


def _end_with_worker() -> None:
    """Nobody would stop a process whose worker, or whose launcher, was killed."""
    pid, _colon, started = os.environ[LAUNCHED].partition(":")
    launcher = os.getppid()
    while os.getppid() == launcher and same_process(int(pid), float(started)):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
