"""What the processes of one run, one for each device, have to agree on. In a run on one device each
of these does nothing, and no process group is made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from core.config import RunConfig
from core.rules.devices import ZERO
from core.worker.training.launcher import LAUNCHED
from core.workspace import RunFolder

# The others wait while one downloads; one that dies ends all of them anyway.
_PATIENCE = timedelta(days=1)


def several() -> bool:
    """Whether this process is one of several."""
    return LAUNCHED in os.environ


def number() -> int:
    return int(os.environ["RANK"]) if several() else 0


def is_first() -> bool:
    """Whether this process speaks for the run: it alone writes events, samples and checkpoints."""
    return number() == 0


def join(config: RunConfig) -> None:
    """Meets the others."""
    on_cpu, backend = place(config).values()
    PartialState(cpu=on_cpu, backend=backend, timeout=_PATIENCE)


def place(config: RunConfig) -> dict[str, Any]:
    """What TrainingArguments is told of the device. accelerate knows DeepSpeed beside cards only:
    on a CPU it is left to find none, and told how the processes talk."""
    training = config.training
    on_cpu = training.device == "cpu"
    if on_cpu and training.strategy in ZERO:
        return {"use_cpu": False, "ddp_backend": "gloo"}
    return {"use_cpu": on_cpu, "ddp_backend": None}


def first_goes_first() -> AbstractContextManager[None]:
    """What is done in here the first process has done before the others begin with it."""
    return PartialState().main_process_first() if several() else nullcontext()


def wait() -> None:
    """Until all are here."""
    PartialState().wait_for_everyone()


def agreed(value: Any) -> Any:
    """What the first process has."""
    return broadcast_object_list([value])[0] if several() else value


def in_any(flag: bool) -> bool:
    """Whether it holds in any of the processes."""
    return summed([float(flag)])[0] > 0


def summed(numbers: Sequence[float]) -> list[float]:
    """Over all processes, each of the numbers."""
    if not several():
        return list(numbers)
    found = torch.tensor(numbers, dtype=torch.float64, device=PartialState().device)
    torch.distributed.all_reduce(found)
    return found.tolist()  # type: ignore[no-any-return]


def gathered(items: list[Any]) -> list[Any]:
    """The items of all processes."""
    return list(gather_object(items)) if several() else items


class SilentFolder(RunFolder):
    """The run's folder as all but the first process have it: what they tell goes nowhere."""

    @property
    def events(self) -> Path:
        return Path(os.devnull)
