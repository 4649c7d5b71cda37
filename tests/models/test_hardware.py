"""What the machine has. GPUs are faked at nvidia-smi; a wrong answer sends runs to no device."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from core.models.hardware import CpuFlags, Hardware, auto_precision, probe

TWO_GPUS = (
    "0, GPU-aaaa1111, NVIDIA L4, 23034, 22000, 8.9\n1, GPU-bbbb2222, NVIDIA L4, 23034, 100, 8.9\n"
)
MIB = 1024 * 1024


def with_gpus(output: str, visible: str | None = None, root: Path = Path("/")) -> Hardware:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return probe(lambda command: output, environment=environment, system_root=root)


def without_gpus(root: Path) -> Hardware:
    return with_gpus("", root=root)


def test_gpus_come_first_and_the_cpu_last() -> None:
    hardware = with_gpus(TWO_GPUS)
    assert [device.label for device in hardware.devices] == ["cuda:0", "cuda:1", "cpu"]
    second = hardware.gpus[1]
    assert (second.memory_total_bytes, second.memory_free_bytes) == (23034 * MIB, 100 * MIB)
    assert second.compute_capability == 8.9
    assert hardware.describe() == "2 x NVIDIA L4, 24 GB each"


@pytest.mark.parametrize(
    ("visible", "free_mib"),
    [("1", [100]), ("1,0", [100, 22000]), ("GPU-bbbb", [100]), ("", []), ("0,7,1", [22000])],
)
def test_hidden_gpus_stay_hidden(visible, free_mib) -> None:
    """Whoever shares a box by CUDA_VISIBLE_DEVICES keeps to it; torch counts the visible ones."""
    gpus = with_gpus(TWO_GPUS, visible).gpus
    assert [gpu.memory_free_bytes // MIB for gpu in gpus] == free_mib
    assert [gpu.index for gpu in gpus] == list(range(len(free_mib)))


def test_a_gpu_that_shares_the_machines_memory_has_that() -> None:
    gpu = with_gpus("0, GPU-cccc, NVIDIA GB10, [N/A], [N/A], 12.1\n").gpus[0]
    assert 0 < gpu.memory_total_bytes <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    "failure",
    [
        FileNotFoundError("nvidia-smi"),
        subprocess.CalledProcessError(9, "nvidia-smi"),
        subprocess.TimeoutExpired("nvidia-smi", 5),
    ],
)
def test_without_a_working_driver_there_is_the_cpu(failure) -> None:
    """A machine without a GPU, or with a broken driver, still opens and trains."""

    def run(command: list[str]) -> str:
        raise failure

    hardware = probe(run, environment={})
    assert hardware.gpus == ()
    assert hardware.devices[-1].label == "cpu"


def test_words_of_the_driver_are_no_gpu() -> None:
    assert with_gpus("No devices were found\n").gpus == ()


def test_this_machine() -> None:
    hardware = without_gpus(Path("/"))
    assert 1 <= hardware.cpu_count <= psutil.cpu_count()
    assert 0 < hardware.memory_available_bytes <= hardware.memory_total_bytes


def test_cpu_flags_are_read(tmp_path) -> None:
    """They decide whether bf16 is the quick precision."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "model name\t: Test CPU 3000\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\n"
    )
    hardware = without_gpus(tmp_path)
    assert hardware.devices[-1].name == "Test CPU 3000"
    assert hardware.cpu_flags.avx512_bf16 and hardware.cpu_flags.amx_bf16
    assert "Test CPU 3000, " in hardware.describe()
    flags = without_gpus(tmp_path / "nothing").cpu_flags
    assert not flags.avx512_bf16 and not flags.amx_bf16


def test_a_containers_limits_count(tmp_path) -> None:
    """Else a run is promised memory that the container's limit takes away by killing it."""
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.max").write_text("1000000\n")
    (cgroup / "memory.current").write_text("700000\n")
    (cgroup / "memory.stat").write_text("anon 400000\ninactive_file 200000\n")
    (cgroup / "cpu.max").write_text("100000 100000\n")
    hardware = without_gpus(tmp_path)
    assert hardware.memory_total_bytes == 1_000_000
    assert hardware.memory_available_bytes == 500_000
    assert hardware.cpu_count == 1
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "cpu.max").write_text("max 100000\n")
    assert without_gpus(tmp_path).memory_total_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("kind", "capability", "flags", "precision", "said"),
    [
        ("cuda", 8.0, CpuFlags(False, False), "bf16", "this GPU computes in bf16"),
        ("cuda", 7.5, CpuFlags(True, True), "fp16", "older than bf16"),
        ("cpu", None, CpuFlags(True, True), "bf16", "this CPU has AMX"),
        ("cpu", None, CpuFlags(True, False), "bf16", "this CPU has AVX-512 BF16"),
        ("cpu", None, CpuFlags(False, False), "fp32", "no bf16 instructions"),
        ("mps", None, CpuFlags(False, False), "fp32", "the safe choice on mps"),
    ],
)
def test_the_plan_and_the_worker_choose_a_precision_by_one_rule(
    kind: str, capability: float | None, flags: CpuFlags, precision: str, said: str
) -> None:
    """The page would promise another precision than the run takes."""
    found = auto_precision(kind, capability, flags)
    assert found[0] == precision and said in found[1]
