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

from core.errors import reason_of
from core.language import N_, _, n_
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
    """One finding. `mend` is what to do about it, empty if there is nothing to do. The name is the
    same in every language, until it is shown."""

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
    from wcwidth import ljust, width

    words = {True: str(_("ok")), False: str(_("BAD"))}
    first, second = max(map(width, words.values())), max(width(str(one.name)) for one in checks)
    lines = []
    for check in checks:
        word, name = ljust(words[check.ok], first), ljust(str(check.name), second)
        lines.append(f"{word}  {name}  {check.detail}")
        if check.mend:
            lines.append(f"{'':{first + second + 2}}  -> {check.mend}")
    bad = sum(not check.ok for check in checks)
    told = n_("{n} thing needs mending.", "{n} things need mending.", bad)
    return "\n".join([*lines, "", told if bad else _("All is well.")])


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
            found = _("missing")
        if found != version and name != "pip":
            wrong.append(
                _("{name} {found} (tested: {version})", name=name, found=found, version=version)
            )
    if not wrong:
        return Check(N_("Packages"), True, _("all {n} as tested", n=len(wanted)))
    shown = ", ".join(wrong[:5])
    more = len(wrong) - 5
    return Check(
        N_("Packages"),
        False,
        _("{packages}, and {n} more", packages=shown, n=more) if more > 0 else shown,
        _("Run: python launch.py setup. If it finds nothing to do, delete .venv and run it again."),
    )


def check_devices(hardware: Hardware) -> Check:
    """The devices; with an NVIDIA GPU also whether torch can use it, asked in another process."""
    detail = hardware.describe()
    if not hardware.gpus:
        precision, _why = hardware.precision_on(hardware.devices[-1])
        fast = _("bf16 in hardware") if precision == "bf16" else _("no bf16 in hardware")
        return Check(
            N_("Devices"),
            True,
            _("{detail} ({fast}); no GPU: small models train, slowly", detail=detail, fast=fast),
        )
    if hardware.gpus[0].kind == "cuda" and not _torch_sees_cuda():
        return Check(
            N_("Devices"),
            False,
            _(
                "{detail}, but torch {version} cannot use it",
                detail=detail,
                version=importlib.metadata.version("torch"),
            ),
            _(
                "Update the NVIDIA driver, or install a torch with CUDA into .venv (pytorch.org "
                "says which fits the driver)."
            ),
        )
    return Check(N_("Devices"), True, detail)


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
    detail = _("{free:.1f} of {total:.1f} GB free", free=free, total=total)
    if free < MEMORY_GB:
        return Check(
            N_("Memory"),
            False,
            detail,
            _("Close programs: a run needs {size} GB or more.", size=MEMORY_GB),
        )
    return Check(N_("Memory"), True, detail)


def check_workspace(workspace_root: Path) -> Check:
    """Whether files can be made in the workspace, or in the folder where it will be."""
    place = _nearest(workspace_root)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Check(
            N_("Workspace"),
            False,
            _("{place} cannot be written: {why}", place=place, why=reason_of(error)),
            _("Choose another folder with --workspace or TUNESMITH_WORKSPACE."),
        )
    return Check(N_("Workspace"), True, str(workspace_root))


def check_disk(workspace_root: Path) -> Check:
    free = shutil.disk_usage(_nearest(workspace_root)).free / 1e9
    detail = _("{free:.1f} GB free for the workspace", free=free)
    if free < DISK_GB:
        return Check(
            N_("Disk"),
            False,
            detail,
            _(
                "Delete runs or move the workspace (--workspace): {size} GB are little enough.",
                size=DISK_GB,
            ),
        )
    return Check(N_("Disk"), True, detail)


def _nearest(folder: Path) -> Path:
    """`folder`, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def check_starter(name: str, workspace_root: Path) -> Check:
    found = local_model(Workspace(workspace_root), name)
    detail = (
        str(found) if found else _("not here yet; fetched when it is first needed (about 90 MB)")
    )
    return Check(name, True, detail)


def check_hub(seconds: float) -> Check:
    """No fault when silent: starter models and local folders work without it."""
    endpoint = os.environ.get("HF_ENDPOINT", "huggingface.co")
    starter = next(iter(STARTER_MODELS.values()))
    if hub.ask(starter.hub_id, seconds) is hub.Answer.SILENT:
        offline = _("HF_HUB_OFFLINE is set") if hub.is_offline() else _("no answer")
        return Check(
            N_("Hub"),
            True,
            _(
                "{endpoint}: {why}; starter models and local ones work",
                endpoint=endpoint,
                why=offline,
            ),
        )
    return Check(N_("Hub"), True, _("{endpoint} answers", endpoint=endpoint))


def check_port(port: int) -> Check:
    with socket.socket() as server:
        # As a web server does: a port that was closed a moment ago counts as free.
        if os.name != "nt":
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return Check(
                N_("Port"),
                True,
                _("{port} is taken; the page opens on the next free one", port=port),
            )
    return Check(N_("Port"), True, _("{port} is free", port=port))


def check_browser() -> Check:
    """Only the tests of the page need it."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    return Check("Chromium", True, found or _("not here; only the tests of the page need it"))
