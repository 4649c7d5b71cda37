"""Slots: what may run at the same time, and where.

Each accelerator is one slot for every kind of job. The CPU has two: one for trainings and one for
evaluations and exports, since nobody wants a minute's export to wait behind a training of three
hours; they share its cores meanwhile. On a machine with accelerators the CPU serves only the jobs
that ask for it.

Work on data takes no device and has slots of its own: an import waits for no training. So have
servers, which go on until somebody stops them: they share the cores with whatever else is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.jobs.job import Job
from core.jobs.kinds import KINDS

_TRAIN = frozenset(kind.name for kind in KINDS.values() if kind.room == "train")
_SHORT = frozenset(kind.name for kind in KINDS.values() if kind.room == "short")
_DATA = frozenset(kind.name for kind in KINDS.values() if kind.room == "data")
_SERVE = frozenset(kind.name for kind in KINDS.values() if kind.room == "serve")
DATA = "data"
"""What a job that takes no device's slot asks for in the place of a device."""
_DATA_AT_ONCE = _SERVERS_AT_ONCE = 4


@dataclass(frozen=True)
class Slot:
    """Room for one job. `wanted` are the requested devices that it serves."""

    name: str
    device: str
    kinds: frozenset[str]
    wanted: frozenset[str]


def slots_for(devices: Sequence[str]) -> list[Slot]:
    """The slots of a machine with `devices`, such as ["cuda:0", "cuda:1", "cpu"]."""
    accelerators = [device for device in devices if device != "cpu"]
    slots = [
        Slot(device, device, _TRAIN | _SHORT, frozenset({"auto", device, device.partition(":")[0]}))
        for device in accelerators
    ]
    if "cpu" in devices:
        wanted = frozenset({"cpu"} if accelerators else {"auto", "cpu"})
        slots += [Slot("cpu", "cpu", _TRAIN, wanted), Slot("cpu-short", "cpu", _SHORT, wanted)]
    if devices:
        names = [f"{DATA}-{number}" for number in range(1, _DATA_AT_ONCE + 1)]
        slots += [Slot(name, DATA, _DATA, frozenset({DATA})) for name in names]
        names = [f"server-{number}" for number in range(1, _SERVERS_AT_ONCE + 1)]
        slots += [Slot(name, DATA, _SERVE, frozenset({DATA})) for name in names]
    return slots


def serves(devices: Sequence[str], wanted: str) -> bool:
    """Whether one of `devices` can take a job that asks for `wanted`."""
    return any(wanted in slot.wanted for slot in slots_for(devices))


def asked_device(job: Job) -> str:
    """The device that a job was submitted for, whatever it ran on since."""
    return DATA if job.kind in _DATA | _SERVE else str(job.params.get("device", "auto"))
