"""Slots: what may run at the same time, and where.

Each accelerator is one slot for every kind of job. The CPU has two: one for trainings and one for
evaluations and exports, since nobody wants a minute's export to wait behind a training of three
hours; they share its cores meanwhile. On a machine with accelerators the CPU serves only the jobs
that ask for it.

A job may ask for several accelerators, and holds all their slots. Several processes on the CPU
share its one slot.

Work on data takes no device and has slots of its own: an import waits for no training. So have
servers, which go on until somebody stops them: they share the cores with whatever else is done.
So have trainings on a cluster: their workers here do nothing but follow them, and the cluster has
a queue of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from core.jobs.job import Job
from core.jobs.kinds import KINDS

_TRAIN = frozenset(kind.name for kind in KINDS.values() if kind.room == "train")
_SHORT = frozenset(kind.name for kind in KINDS.values() if kind.room == "short")
_DATA = frozenset(kind.name for kind in KINDS.values() if kind.room == "data")
_SERVE = frozenset(kind.name for kind in KINDS.values() if kind.room == "serve")
DATA = "data"
"""What a job that takes no device's slot asks for in the place of a device."""
CLUSTER = "ray"
"""What a training asks for that a cluster finds the devices for."""
_DATA_AT_ONCE = _SERVERS_AT_ONCE = 4
_IN_CLUSTER_AT_ONCE = 8


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
        names = [f"{CLUSTER}-{number}" for number in range(1, _IN_CLUSTER_AT_ONCE + 1)]
        slots += [Slot(name, CLUSTER, _TRAIN, frozenset({CLUSTER})) for name in names]
    return slots


def serves(devices: Sequence[str], wanted: str, number: str = "1") -> bool:
    """Whether `devices` can take a job that asks for `wanted`, and for such a number of them."""
    able = [slot for slot in slots_for(devices) if wanted in slot.wanted]
    fit, count = _asked_of(able, number)
    return bool(able) and len(fit) >= count


def next_job(
    queued: Sequence[Job], busy: Collection[str], slot: Slot, slots: Sequence[Slot]
) -> tuple[Job, list[Slot]] | None:
    """The first of the queue that a free `slot` can take now, and all the slots that it gets.

    One that waits for more devices than are free keeps those that are: what comes after it gets
    others only. So it is never put off, and what it does not need is used meanwhile.
    """
    taken = set(busy)
    for job in queued:
        able = [one for one in slots if job.kind in one.kinds and job.device in one.wanted]
        fit, count = _asked_of(able, asked_number(job))
        free = [one for one in fit if one.name not in taken]
        if count == 1:
            if slot in free:
                return job, [slot]
            continue
        if len(free) >= count and slot in free[:count]:
            return job, free[:count]
        taken |= {one.name for one in free[:count]}
    return None


def _asked_of(able: Sequence[Slot], number: str) -> tuple[list[Slot], int]:
    """(the slots that will do, how many of them): of cards those that are named, or any; of the
    CPU's slots and the cluster's one, whatever the number."""
    if number == "1" or not able or able[0].device in ("cpu", DATA, CLUSTER):
        return list(able), 1
    if "," in number:
        named = number.split(",")
        return [one for one in able if one.device.partition(":")[2] in named], len(named)
    return list(able), int(number)


def asked_number(job: Job) -> str:
    """How many devices a job was submitted for, or the numbers of its cards."""
    return str(job.params.get("devices", "1"))


def asked_device(job: Job) -> str:
    """The device that a job was submitted for, whatever it ran on since."""
    return DATA if job.kind in _DATA | _SERVE else str(job.params.get("device", "auto"))
