"""Jobs without a model, for tests of what is around them: real processes, files and kills.

They keep time with their test, not with a clock: a gated job does a step only once the file
`allowed` has a number that is high enough.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import time
import zipfile
from pathlib import Path

from core.errors import TrainingError
from core.jobs.events import EventWriter
from core.jobs.job import read_record


def train(folder: Path, root: Path, resume_from: Path | None) -> str:
    """Counts to params["steps"] with a metric for each; then does as params["behaviour"] says."""
    params = read_record(folder)["params"]
    events = EventWriter(folder / "events.jsonl")
    step = 0
    if resume_from is not None:
        step = json.loads((resume_from / "trainer_state.json").read_text())["global_step"]
    print(f"begins after step {step}", flush=True)
    while step < params.get("steps", 3):
        if _wait_for_turn(folder, step, params):
            write_checkpoint(folder / "checkpoints" / f"checkpoint-{step}", step)
            return "stopped"
        step += 1
        if params.get("save"):  # first: a test that sees the step counts on its checkpoint
            write_checkpoint(folder / "checkpoints" / f"checkpoint-{step}", step)
        events.write("metrics", step=step, loss=1 / step, eval_loss=2 / step)
        events.write("progress", step=step, max_steps=params.get("steps", 3))
    return _behave(params.get("behaviour"), folder)


def task(folder: Path, root: Path) -> str:
    """A short job; gated as a training is."""
    params = read_record(folder)["params"]
    return "stopped" if _wait_for_turn(folder, 0, params) else "finished"


def either(folder: Path, root: Path, *resume_from: Path | None) -> str:
    return train(folder, root, *resume_from) if resume_from else task(folder, root)


def _wait_for_turn(folder: Path, step: int, params: dict[str, object]) -> bool:
    """Waits until the next step is allowed; True when a stop was asked for and is to be heeded."""
    while True:
        if (folder / "STOP").exists() and params.get("behaviour") != "deaf":
            return True
        if not params.get("gated") or _allowed(folder) > step:
            return False
        time.sleep(0.005)


def _allowed(folder: Path) -> int:
    try:
        return int((folder / "allowed").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _behave(behaviour: object, folder: Path) -> str:
    if behaviour == "raise":
        raise RuntimeError("the loss went away")
    if behaviour == "explain":
        raise TrainingError("The loss is not finite.", "Lower the learning rate.")
    if behaviour == "fill the disk":
        with (folder / "filler").open("wb", buffering=0) as file:
            while True:  # ends with an OSError
                file.write(b"0" * 4096)
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "exit":
        os._exit(3)
    if behaviour == "nonsense":
        return "done"
    return "finished"


def write_checkpoint(path: Path, step: int) -> None:
    """What a trainer leaves, as small as it gets, in the trainer's order."""
    path.mkdir(parents=True, exist_ok=True)
    write_safetensors(path / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(path / name, "w") as file:
            file.writestr("data", b"0" * 64)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def write_safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
