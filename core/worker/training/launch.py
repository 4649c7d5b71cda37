"""A run on several devices: `accelerate launch` starts a process for each, which is
`core.worker.rank`, and this one, the job's worker, waits for their end and tells it. Of a run that
several machines share it is on the first one, and `accompany` on each of the others."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.config.run import device_count
from core.errors import TrainingError
from core.language import _, unpack
from core.worker.training.launcher import (
    SECONDS_BETWEEN_LOOKS,
    Machine,
    call_file,
    over_file,
    reports,
    start,
)
from core.worker.training.resume import BrokenCheckpoint, LackOfMemory
from core.workspace import RunFolder, Workspace, write_atomic

# As torch's launcher lists the processes that failed.
_DEATH = re.compile(r"rank\s*:\s*(\d+).*?\n\s*exitcode\s*:\s*(-\d+)")
# What the launcher sends to those that are left when one has failed.
_ENDED_BY_LAUNCHER = -int(signal.SIGTERM)
# How long those on other machines may take to end once one has failed, and to be told of.
_SECONDS_TO_END, _SECONDS_TO_BE_SEEN = 30.0, 10.0


def launch(run: RunFolder, workspace: Workspace, config: RunConfig, resume: Path | None) -> str:
    """As `core.worker.training.recipe.run`, on as many devices as the run asks for."""
    shutil.rmtree(reports(run), ignore_errors=True)
    reports(run).mkdir()
    begins = run.log.stat().st_size if run.log.exists() else 0
    words = [str(run.root), str(workspace.root), *([str(resume)] if resume else [])]
    machine = Machine.here()
    if machine.count > 1:
        machine = replace(machine, port=_free_port())
        call = {"id": secrets.token_hex(8), "port": machine.port, "words": words}
        write_atomic(call_file(run), json.dumps(call))
    try:
        with run.log.open("ab") as log:
            child = start(config, machine, words, log)
            try:
                code = _end_of(child, run, machine)
            except BaseException:
                child.kill()
                raise
        with run.log.open("rb") as log:
            log.seek(begins)
            said = log.read().decode(errors="replace")
        return _outcome(_read(run), said, code, device_count(config))
    finally:
        shutil.rmtree(reports(run), ignore_errors=True)


def _end_of(child: subprocess.Popen[bytes], run: RunFolder, machine: Machine) -> int:
    """The exit code of what was started here. Those that wait for others which are gone are ended;
    the others' last words are waited for."""
    if machine.count == 1:
        return child.wait()
    others = [over_file(run, number) for number in range(1, machine.count)]
    failed: float | None = None
    while child.poll() is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        if failed is None and any(file.exists() and file.read_text() != "0" for file in others):
            failed = time.monotonic()
        if failed is not None and time.monotonic() - failed > _SECONDS_TO_END:
            child.terminate()
            child.wait()
    ended = time.monotonic()
    while not all(file.exists() for file in others):
        if time.monotonic() - ended > _SECONDS_TO_BE_SEEN:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return child.returncode


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("", 0))
        return int(place.getsockname()[1])


def _read(run: RunFolder) -> dict[int, dict[str, Any]]:
    found = sorted(reports(run).glob("*.json"))
    return {int(path.stem): unpack(json.loads(path.read_text("utf-8"))) for path in found}


def _outcome(ends: dict[int, dict[str, Any]], said: str, code: int, count: int) -> str:
    """How the run ended. Raises what ended it: the first error that is not another's echo, else the
    death of a process."""
    states = [end["state"] for end in ends.values() if "state" in end]
    errors = sorted((end for end in ends.values() if "error" in end), key=lambda end: end["time"])
    if (code == 0 or not errors) and states:
        return str(states[0])
    own = [end for end in errors if not end["echo"]]
    if own:
        raise _error(own[0])
    deaths = [(int(rank), int(number)) for rank, number in _DEATH.findall(said)]
    killed = [(rank, -number) for rank, number in deaths if number != _ENDED_BY_LAUNCHER]
    if killed:
        rank, number = killed[0]
        message = _(
            "Process {rank} of {count} was killed (signal {number}), which ended the others too.",
            rank=rank + 1,
            count=count,
            number=number,
        )
        hint = _("Short of memory? Go on with half the batch. Else resume it.")
        raise TrainingError(message, hint)
    if errors:
        raise _error(errors[0])
    message = _("The processes of the run ended with exit code {code}.", code=code)
    raise TrainingError(message, _("See the end of worker.log."))


def _error(end: dict[str, Any]) -> Exception:
    """What a process of the run raised, as far as it matters to who tries again."""
    if end.get("checkpoint"):
        return BrokenCheckpoint(Path(end["checkpoint"]), end["reason"])
    if end["memory"]:
        return LackOfMemory(end["said"], in_evaluation=end["evaluating"])
    return TrainingError(end["error"], end["advice"])
