"""Is this machine fit to train, and if not, how to mend it.

What only means that something comes later or is left out (no GPU, a starter model not fetched
yet, no Chromium) is no fault: `ok` stays true and `detail` says so."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core.models import hub
from core.models.hardware import Hardware, probe
from core.models.location import HUB_ANSWER_SECONDS, local_model
from core.models.starter import STARTER_MODELS
from core.setup.environment import LOCK
from core.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
# The quick start's worker at its peak, with a margin; a checkpoint, an adapter and an export.
MEMORY_GB = 3
DISK_GB = 5
TORCH_SECONDS = 60
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Check:
    """One finding. `mend` is what to do about it, empty if there is nothing to do."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


def diagnose(
    workspace_root: Path,
    *,
    lock: Path = PROJECT / LOCK,
    hardware: Hardware | None = None,
    port: int = 7860,
    hub_answer_seconds: float = HUB_ANSWER_SECONDS,
) -> list[Check]:
    """All checks, in the order in which they are to be mended. Takes some seconds at most."""
    hardware = hardware or probe()
    return [
        check_python(),
        check_packages(lock),
        check_devices(hardware),
        check_memory(hardware),
        check_workspace(workspace_root),
        check_disk(workspace_root),
        *(check_starter(name, workspace_root) for name in STARTER_MODELS),
        check_hub(hub_answer_seconds),
        check_port(port),
        check_browser(),
    ]


def render(checks: list[Check]) -> str:
    """One line for each check, and below it what to do."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'ok ' if check.ok else 'BAD'}  {check.name:<{width}}  {check.detail}")
        if check.mend:
            lines.append(f"     {'':<{width}}  -> {check.mend}")
    bad = sum(not check.ok for check in checks)
    things = "1 thing needs" if bad == 1 else f"{bad} things need"
    lines += ["", f"{things} mending." if bad else "All is well."]
    return "\n".join(lines)


def check_python() -> Check:
    """Always well: a Python that is too old is turned away by launch.py."""
    return Check("Python", True, f"{platform.python_version()} ({sys.executable})")


def check_packages(lock: Path) -> Check:
    """Every pin of the lock file, pip's own apart, against what is installed.

    A build's suffix (+cpu) is no difference.
    """
    wanted = [line.split("==") for line in lock.read_text("utf-8").split() if "==" in line]
    wrong = []
    for name, version in wanted:
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != version and name != "pip":
            wrong.append(f"{name} {found} (tested: {version})")
    if not wrong:
        return Check("Packages", True, f"all {len(wanted)} as tested")
    more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return Check(
        "Packages",
        False,
        ", ".join(wrong[:5]) + more,
        "Run: python launch.py setup. If it finds nothing to do, delete .venv and run it again.",
    )


def check_devices(hardware: Hardware) -> Check:
    """The devices; with an NVIDIA GPU also whether torch can use it, asked in another process."""
    detail = hardware.describe()
    if not hardware.gpus:
        precision, _ = hardware.precision_on(hardware.devices[-1])
        fast = "bf16 in hardware" if precision == "bf16" else "no bf16 in hardware"
        return Check("Devices", True, f"{detail} ({fast}); no GPU: small models train, slowly")
    if hardware.gpus[0].kind == "cuda" and not _torch_sees_cuda():
        return Check(
            "Devices",
            False,
            f"{detail}, but torch {importlib.metadata.version('torch')} cannot use it",
            "Update the NVIDIA driver, or install a torch with CUDA into .venv (pytorch.org says "
            "which fits the driver).",
        )
    return Check("Devices", True, detail)


def _torch_sees_cuda() -> bool:
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.strip() == "True"


def check_memory(hardware: Hardware) -> Check:
    free, total = (
        size / 1e9 for size in (hardware.memory_available_bytes, hardware.memory_total_bytes)
    )
    detail = f"{free:.1f} of {total:.1f} GB free"
    if free < MEMORY_GB:
        return Check(
            "Memory", False, detail, f"Close programs: a run needs {MEMORY_GB} GB or more."
        )
    return Check("Memory", True, detail)


def check_workspace(workspace_root: Path) -> Check:
    """Whether files can be made in the workspace, or in the folder where it will be."""
    place = _nearest(workspace_root)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Check(
            "Workspace",
            False,
            f"{place} cannot be written: {error.strerror}",
            "Choose another folder with --workspace or TUNESMITH_WORKSPACE.",
        )
    return Check("Workspace", True, str(workspace_root))


def check_disk(workspace_root: Path) -> Check:
    free = shutil.disk_usage(_nearest(workspace_root)).free / 1e9
    detail = f"{free:.1f} GB free for the workspace"
    if free < DISK_GB:
        return Check(
            "Disk",
            False,
            detail,
            f"Delete runs or move the workspace (--workspace): {DISK_GB} GB are little enough.",
        )
    return Check("Disk", True, detail)


def _nearest(folder: Path) -> Path:
    """`folder`, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def check_starter(name: str, workspace_root: Path) -> Check:
    found = local_model(Workspace(workspace_root), name)
    detail = str(found) if found else "not here yet; fetched when it is first needed (about 90 MB)"
    return Check(name, True, detail)


def check_hub(seconds: float) -> Check:
    """No fault when silent: starter models and local folders work without it."""
    endpoint = os.environ.get("HF_ENDPOINT", "huggingface.co")
    starter = next(iter(STARTER_MODELS.values()))
    if hub.ask(starter.hub_id, seconds) is hub.Answer.SILENT:
        offline = "HF_HUB_OFFLINE is set" if hub.is_offline() else "no answer"
        return Check("Hub", True, f"{endpoint}: {offline}; starter models and local ones work")
    return Check("Hub", True, f"{endpoint} answers")


def check_port(port: int) -> Check:
    with socket.socket() as server:
        # As a web server does: a port that was closed a moment ago counts as free.
        if os.name != "nt":
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return Check("Port", True, f"{port} is taken; the page opens on the next free one")
    return Check("Port", True, f"{port} is free")


def check_browser() -> Check:
    """Only the tests of the page need it."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    return Check("Chromium", True, found or "not here; only the tests of the page need it")
