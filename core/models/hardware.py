"""What this machine can train on.

GPUs are asked for with nvidia-smi, memory and cores with psutil; the limits of a container count.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from core.language import _, n_

SMI_SECONDS = 5.0
_SMI = [
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,memory.free,compute_cap",
    "--format=csv,noheader,nounits",
]
_MIB = 1024 * 1024

# Runs a command and gives its standard output. Raises OSError or subprocess.SubprocessError.
Runner = Callable[[list[str]], str]


@dataclass(frozen=True)
class Device:
    """Something to train on; memory in bytes.

    `index` counts the visible GPUs in PCI order, as torch does with
    CUDA_DEVICE_ORDER=PCI_BUS_ID. `compute_capability` is CUDA's, such as 9.0, and None elsewhere.
    """

    kind: Literal["cpu", "cuda", "mps"]
    index: int
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    compute_capability: float | None = None

    @property
    def label(self) -> str:
        """`cuda:1`, `cpu` or `mps`: how torch and a RunConfig name it."""
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind


@dataclass(frozen=True)
class CpuFlags:
    """Instructions that decide which precision is quick on this CPU."""

    avx512_bf16: bool
    amx_bf16: bool


def auto_precision(kind: str, capability: float | None, flags: CpuFlags) -> tuple[str, str]:
    """(precision, reason): the fastest in which a device computes without loss of steadiness."""
    if kind == "cuda":
        if (capability or 0) >= 8:
            return "bf16", _("this GPU computes in bf16")
        return "fp16", _("this GPU is older than bf16")
    if kind != "cpu":
        return "fp32", _("the safe choice on {kind}", kind=kind)
    if flags.amx_bf16 or flags.avx512_bf16:
        return "bf16", _("this CPU has {what}", what="AMX" if flags.amx_bf16 else "AVX-512 BF16")
    return "fp32", _("this CPU has no bf16 instructions")


@dataclass(frozen=True)
class Hardware:
    """`devices` has the GPUs first and the CPU last; there is always the CPU. Memory in bytes."""

    devices: tuple[Device, ...]
    cpu_count: int
    cpu_flags: CpuFlags
    memory_total_bytes: int
    memory_available_bytes: int

    @property
    def gpus(self) -> tuple[Device, ...]:
        return tuple(device for device in self.devices if device.kind != "cpu")

    def precision_on(self, device: Device) -> tuple[str, str]:
        """(precision, reason) that `auto` becomes on one of the devices."""
        return auto_precision(device.kind, device.compute_capability, self.cpu_flags)

    def describe(self) -> str:
        """`NVIDIA H200, 141 GB`, `2 x NVIDIA L4, 24 GB each`, or `AMD EPYC, 2 cores, 25 GB`."""
        if not self.gpus:
            return n_(
                "{name}, {n} core, {memory:.0f} GB",
                "{name}, {n} cores, {memory:.0f} GB",
                self.cpu_count,
                name=self.devices[-1].name,
                memory=self.memory_total_bytes / 1e9,
            )
        first, count = self.gpus[0], len(self.gpus)
        memory = f"{first.memory_total_bytes / 1e9:.0f} GB"
        if count == 1:
            return f"{first.name}, {memory}"
        if all(gpu.name == first.name for gpu in self.gpus):
            return _("{count} x {name}, {memory} each", count=count, name=first.name, memory=memory)
        return _(
            "{name}, {memory}, and {more} more", name=first.name, memory=memory, more=count - 1
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return asdict(self)


def probe(
    run: Runner | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    system_root: Path = Path("/"),
) -> Hardware:
    """What is there now. Takes up to 5 s where nvidia-smi hangs, some milliseconds without one.

    CUDA_VISIBLE_DEVICES in `environment` (default: this process's) hides GPUs. `run` and
    `system_root` (where /proc and /sys are looked for) can be replaced.
    """
    total, available = _memory(system_root)
    name, flags = _cpu(system_root)
    devices = _nvidia(run or _run, os.environ if environment is None else environment, available)
    if not devices and platform.system() == "Darwin" and platform.machine() == "arm64":
        # Apple's GPU works in the machine's own memory.
        devices = [Device("mps", 0, f"{name} GPU", total, available)]
    return Hardware(
        devices=(*devices, Device("cpu", 0, name, total, available)),
        cpu_count=_cpu_count(system_root),
        cpu_flags=flags,
        memory_total_bytes=total,
        memory_available_bytes=available,
    )


def local_devices() -> list[str]:
    """This machine's devices, accelerators first, as jobs ask for them."""
    return [device.label for device in probe().devices]


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True, errors="replace"
    )
    return done.stdout


def _nvidia(run: Runner, environment: Mapping[str, str], available: int) -> list[Device]:
    """The visible NVIDIA GPUs, in the order in which CUDA_VISIBLE_DEVICES names them."""
    try:
        output = run(_SMI)
    except (OSError, subprocess.SubprocessError):  # no driver, or one that does not work
        return []
    found: dict[str, Device] = {}
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 6 or not cells[0].isdigit():
            continue
        index, uuid, name, total, free, capability = cells
        # A GPU that shares the machine's memory says [N/A].
        device = Device(
            "cuda",
            int(index),
            name,
            int(total) * _MIB if total.isdigit() else available,
            int(free) * _MIB if free.isdigit() else available,
            float(capability) if capability.replace(".", "", 1).isdigit() else None,
        )
        found[uuid] = device
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    chosen = list(found.values()) if visible is None else _visible(found, visible)
    return [replace(device, index=position) for position, device in enumerate(chosen)]


def _visible(found: dict[str, Device], visible: str) -> list[Device]:
    """CUDA's rule: indices or the beginnings of UUIDs; the first unknown one ends the list."""
    chosen: list[Device] = []
    for name in (part.strip() for part in visible.split(",")):
        matches = [
            device
            for uuid, device in found.items()
            if str(device.index) == name or (name.startswith("GPU-") and uuid.startswith(name))
        ]
        if len(matches) != 1:
            break
        chosen.append(matches[0])
    return chosen


def _cpu(system_root: Path) -> tuple[str, CpuFlags]:
    """The CPU's name and flags; none of the flags where there is no /proc/cpuinfo."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        text = (system_root / "proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _colon, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
            break
    return name, CpuFlags("avx512_bf16" in flags, "amx_bf16" in flags)


def _cpu_count(system_root: Path) -> int:
    """Cores this process may use: its affinity, and a container's share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _blank, period = _text(system_root / "sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        return max(1, min(cores or 1, int(quota) // int(period)))
    return cores or 1


def _memory(system_root: Path) -> tuple[int, int]:
    """Total and available bytes, of the machine or of a container with a limit."""
    memory = psutil.virtual_memory()
    cgroup = system_root / "sys/fs/cgroup"
    limit, used = _text(cgroup / "memory.max"), _text(cgroup / "memory.current")
    if not (limit.isdigit() and used.isdigit()) or int(limit) >= memory.total:
        return memory.total, memory.available
    # Files that were read once are counted as used, but are given up when memory is needed.
    cache = re.search(r"^inactive_file (\d+)$", _text(cgroup / "memory.stat"), re.MULTILINE)
    free = int(limit) - int(used) + (int(cache[1]) if cache else 0)
    return int(limit), max(0, min(memory.available, free))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
