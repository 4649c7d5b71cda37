"""The checkpoints that a run left, and whether they are whole.

A worker that was killed while it saved leaves a folder with a file missing or cut short. Such a
checkpoint is never offered and never resumed from.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from core.language import _
from core.workspace import RunFolder

_NAME = re.compile(r"checkpoint-(\d+)")
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
# Written by torch.save, as zip files with their directory at the end.
_ZIPPED = ("*.pt", "*.pth", "*.bin")
# What DeepSpeed writes last: the folder of its files. Of those each process writes one.
_LATEST = "latest"
_OF_PROCESS = re.compile(r"zero_pp_rank_(\d+)_.*optim_states\.pt")
# FSDP's, whole or in parts with a list of them.
_OF_FSDP = ("optimizer", "pytorch_model_fsdp")


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be loaded. `name` is `final` or `checkpoint-<step>`."""

    name: str
    step: int
    path: Path


def checkpoints(run_folder: Path) -> list[Checkpoint]:
    """The whole checkpoints of a run by step, and last the final adapter or model, if any."""
    run = RunFolder(run_folder)
    found = [item for item in _in_order(run.checkpoints) if broken(item.path) is None]
    for path in (run.adapter, run.model):
        if path.is_dir() and weights_broken(path) is None:
            step = found[-1].step if found else 0
            found.append(Checkpoint("final", step, path))
            break
    return found


def last_good_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest checkpoint in `folder` that training can go on from, and the newer broken ones.

    A broken one comes with what is wrong with it.
    """
    passed_over: list[tuple[Path, str]] = []
    for item in reversed(_in_order(folder)):
        why = broken(item.path, resumable=True)
        if why is None:
            return item, passed_over
        passed_over.append((item.path, why))
    return None, passed_over


def way_on(run_folder: Path) -> str:
    """What to do with a run that died."""
    checkpoint, _broken = last_good_checkpoint(RunFolder(run_folder).checkpoints)
    if checkpoint is None:
        return _("Start it again.")
    return _("Resume goes on from {checkpoint}.", checkpoint=checkpoint.name)


def checkpoint_before(path: Path) -> Checkpoint | None:
    """The newest checkpoint beside `path` that is older and that training can go on from."""
    own = next((item for item in _in_order(path.parent) if item.path.name == path.name), None)
    older = [item for item in _in_order(path.parent) if own is not None and item.step < own.step]
    whole = (item for item in reversed(older) if broken(item.path, resumable=True) is None)
    return next(whole, None)


def broken(path: Path, *, resumable: bool = False) -> str | None:
    """What is wrong with a checkpoint folder, None if nothing is.

    `resumable` also wants what only training needs: the optimizer and the schedule.
    """
    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        if not isinstance(state.get("global_step"), int):
            return _("trainer_state.json has no step")
    except FileNotFoundError:
        return _("trainer_state.json is missing")
    except (OSError, ValueError):
        return _("trainer_state.json cannot be read")
    why = _training_broken(path) if resumable else None
    if why is not None:
        return why
    for name in sorted({found for pattern in _ZIPPED for found in path.glob(pattern)}):
        if not zipfile.is_zipfile(name):
            return _("{name} is cut short", name=name.name)
    return weights_broken(path)


def _training_broken(path: Path) -> str | None:
    """What is wrong with what only training needs: as one device writes it, or several with the
    whole model each; FSDP; DeepSpeed."""
    if not (path / "scheduler.pt").is_file():
        return _("{name} is missing", name="scheduler.pt")
    if (path / "optimizer.pt").is_file():
        return None
    if (path / _LATEST).is_file():
        return _deepspeed_broken(path)
    for name in _OF_FSDP:
        if not (path / f"{name}.bin").is_file() and not (path / f"{name}_0").is_dir():
            return _("{name} is missing", name="optimizer.pt" if name == "optimizer" else name)
        if (path / f"{name}_0").is_dir() and not (path / f"{name}_0" / ".metadata").is_file():
            return _("{name} is missing", name=f"{name}_0/.metadata")
    return None


def _deepspeed_broken(path: Path) -> str | None:
    folder = path / (path / _LATEST).read_text(encoding="utf-8", errors="replace").strip()
    states = sorted(folder.glob("*_states.pt")) if folder.parent == path else []
    for state in states:
        if not zipfile.is_zipfile(state):
            return _("{name} is cut short", name=f"{folder.name}/{state.name}")
    found = {int(match[1]) for match in map(_OF_PROCESS.search, map(str, states)) if match}
    processes = max(len(list(path.glob("rng_state_*.pth"))), max(found, default=0) + 1)
    for process in range(processes):
        if process not in found:
            name = f"{folder.name}/zero_pp_rank_{process}_*_optim_states.pt"
            return _("{name} is missing", name=name)
    if not any("model_states" in state.name for state in states):
        return _("{name} is missing", name=f"{folder.name}/*_model_states.pt")
    return None


def weights_broken(path: Path) -> str | None:
    """What is wrong with the weights in a folder, None if they are all there."""
    names = [name for name in _WEIGHTS if (path / name).is_file()]
    if not names:
        return _("the weights are missing")
    files = [names[0]]
    if names[0].endswith(".index.json"):
        try:
            index = json.loads((path / names[0]).read_text(encoding="utf-8"))
            files = sorted(set(index["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError):
            return _("{name} cannot be read", name=names[0])
    for name in files:
        if not _whole_safetensors(path / name):
            return _("{name} is cut short", name=name)
    return None


def _in_order(folder: Path) -> list[Checkpoint]:
    found = []
    for path in folder.glob("checkpoint-*/"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(Checkpoint(path.name, int(match[1]), path))
    return sorted(found, key=lambda item: item.step)


def _whole_safetensors(path: Path) -> bool:
    """Whether the file is as long as its header says: 8 bytes of length, the header, the data."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= path.stat().st_size:
                return False
            header = json.loads(file.read(length))
        ends = [item["data_offsets"][1] for key, item in header.items() if key != "__metadata__"]
        return path.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False
