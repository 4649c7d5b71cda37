"""The doctor: what is missing on this machine and how to mend it."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from core import doctor
from core.models.hardware import CpuFlags, Device, Hardware, probe
from core.models.starter import STARTER_MODELS
from tests.models.tiny import make_model_folder

GIB = 1024**3
LAPTOP = Hardware(
    (Device("cpu", 0, "Test CPU", 16 * GIB, 8 * GIB),), 4, CpuFlags(True, False), 16 * GIB, 8 * GIB
)


def test_it_looks_at_everything(workspace) -> None:
    checks = {check.name: check for check in doctor.diagnose(workspace, hub_answer_seconds=0.5)}
    assert checks.keys() >= {
        "Python", "Packages", "Devices", "Memory", "Workspace", "Disk", "Hub", "Port", "Chromium",
        *STARTER_MODELS,
    }  # fmt: skip
    text = doctor.render(list(checks.values()))
    assert all(name in text for name in checks)


def test_a_package_that_is_not_the_tested_one_is_named(tmp_path) -> None:
    """Most odd failures are a version that somebody changed."""
    lock = tmp_path / "requirements.lock"
    lock.write_text("pytest==0.1\nno-such-package==2.0\n")
    check = doctor.check_packages(lock)
    assert not check.ok
    assert f"pytest {pytest.__version__} (tested: 0.1)" in check.detail
    assert "no-such-package missing (tested: 2.0)" in check.detail
    assert "launch.py setup" in check.mend
    lock.write_text(f"# tested\npytest=={pytest.__version__}\n")
    assert doctor.check_packages(lock).ok


def test_no_gpu_is_no_fault() -> None:
    check = doctor.check_devices(LAPTOP)
    assert check.ok and "no GPU" in check.detail


def test_a_gpu_that_torch_cannot_use_is_a_fault() -> None:
    """Else the card is there and runs crawl on the CPU, or fail."""
    if probe().gpus:
        pytest.skip("this machine has a GPU that torch may use")
    gpu = Device("cuda", 0, "NVIDIA L4", 24 * GIB, 24 * GIB, 8.9)
    check = doctor.check_devices(replace(LAPTOP, devices=(gpu, *LAPTOP.devices)))
    assert not check.ok
    assert "cannot use it" in check.detail and "driver" in check.mend


def test_too_little_memory_is_told_before_a_run_is_killed() -> None:
    assert doctor.check_memory(LAPTOP).ok
    check = doctor.check_memory(replace(LAPTOP, memory_available_bytes=GIB))
    assert not check.ok and "1.1 of 17.2 GB free" in check.detail


def test_a_workspace_that_cannot_be_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    check = doctor.check_workspace(tmp_path / "file" / "workspace")
    assert not check.ok and "--workspace" in check.mend
    assert doctor.check_workspace(tmp_path / "later" / "workspace").ok


def test_starter_models_here_and_not_here(workspace: Path) -> None:
    name = next(iter(STARTER_MODELS))
    assert "not here yet" in doctor.check_starter(name, workspace).detail
    folder = make_model_folder(workspace / "models" / name)
    assert doctor.check_starter(name, workspace) == doctor.Check(name, True, str(folder))


def test_a_taken_port_is_seen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert "is taken" in doctor.check_port(port).detail
    assert "is free" in doctor.check_port(port).detail


def test_the_text_ends_with_the_count_of_faults() -> None:
    good, bad = doctor.Check("A", True, "fine"), doctor.Check("Bee", False, "broken", "Fix it.")
    assert doctor.render([good]).endswith("All is well.")
    assert doctor.render([good, bad]).splitlines() == [
        "ok   A    fine",
        "BAD  Bee  broken",
        "          -> Fix it.",
        "",
        "1 thing needs mending.",
    ]
