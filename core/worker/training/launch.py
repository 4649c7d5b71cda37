"""A run on several devices: `accelerate launch` starts a process for each, which is
`core.worker.training.rank`, and this one, the job's worker, waits for their end and tells it. Of a
run that several machines share it is on the first one, and `accompany` on each of the others."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import trl

import core
from core.config import RunConfig
from core.config.run import device_count, devices_on_a_node
from core.errors import TrainingError
from core.jobs.process import start_time
from core.language import _, unpack
from core.models.hardware import probe
from core.rules import load_config
from core.worker.training import ranks
from core.worker.training.cluster.actor import MACHINES
from core.worker.training.resume import BrokenCheckpoint, LackOfMemory
from core.workspace import RunFolder, Workspace, write_atomic

_CONFIGS = Path(trl.__file__).parent / "accelerate_configs"
_FILES = {"ddp": "multi_gpu", "fsdp": "fsdp2", **{f"zero{n}": f"zero{n}" for n in (1, 2, 3)}}
# As torch's launcher lists the processes that failed.
_DEATH = re.compile(r"rank\s*:\s*(\d+).*?\n\s*exitcode\s*:\s*(-\d+)")
# What the launcher sends to those that are left when one has failed.
_ENDED_BY_LAUNCHER = -int(signal.SIGTERM)
_SECONDS_BETWEEN_LOOKS = 0.5
# How long those on other machines may take to end once one has failed, and to be told of.
_SECONDS_TO_END, _SECONDS_TO_BE_SEEN = 30.0, 10.0


@dataclass(frozen=True)
class Machine:
    """One of `count` that share a run. All meet at the first one's `address` and `port`."""

    number: int = 0
    count: int = 1
    address: str = ""
    port: int = 0

    @classmethod
    def here(cls) -> Machine:
        number, count, address = os.environ.get(MACHINES, "0 1 -").split()
        return cls(int(number), int(count), address)


def reports(run: RunFolder) -> Path:
    """Where each process says how it ended."""
    return run.root / ".ranks"


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
        write_atomic(_call(run), json.dumps(call))
    try:
        with run.log.open("ab") as log:
            child = _start(config, machine, words, log)
            code = _end_of(child, run, machine)
        with run.log.open("rb") as log:
            log.seek(begins)
            said = log.read().decode(errors="replace")
        return _outcome(_read(run), said, code, device_count(config))
    finally:
        shutil.rmtree(reports(run), ignore_errors=True)


def accompany(run: RunFolder) -> NoReturn:
    """On another machine than the first: starts its processes whenever that one starts its own."""
    machine, heard = Machine.here(), ""
    while True:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        call = _heard(run)
        if call.get("id", heard) == heard:
            continue
        heard = call["id"]
        with run.log.open("ab") as log:
            place = replace(machine, port=call["port"])
            child = _start(load_config(run.config), place, call["words"], log)
            while child.poll() is None and _heard(run).get("id", heard) == heard:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            child.terminate()
            code = child.wait()
        if _heard(run).get("id") == heard:
            write_atomic(_over(run, machine.number), str(code))


def _heard(run: RunFolder) -> dict[str, Any]:
    """The first machine's call; empty where it has not begun, or is over."""
    try:
        found: dict[str, Any] = json.loads(_call(run).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _start(
    config: RunConfig, machine: Machine, words: Sequence[str], log: BinaryIO
) -> subprocess.Popen[bytes]:
    command = [*launcher(config, machine), "-m", "core.worker.training.rank", *words]
    return subprocess.Popen(command, env=_environment(config), stdout=log, stderr=log)


def _end_of(child: subprocess.Popen[bytes], run: RunFolder, machine: Machine) -> int:
    """The exit code of what was started here. Those that wait for others which are gone are ended;
    the others' last words are waited for."""
    if machine.count == 1:
        return child.wait()
    others = [_over(run, number) for number in range(1, machine.count)]
    failed: float | None = None
    while child.poll() is None:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        if failed is None and any(file.exists() and file.read_text() != "0" for file in others):
            failed = time.monotonic()
        if failed is not None and time.monotonic() - failed > _SECONDS_TO_END:
            child.terminate()
            child.wait()
    ended = time.monotonic()
    while not all(file.exists() for file in others):
        if time.monotonic() - ended > _SECONDS_TO_BE_SEEN:
            break
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return child.returncode


def _call(run: RunFolder) -> Path:
    """What the first machine tells the others to start."""
    return reports(run) / "call"


def _over(run: RunFolder, number: int) -> Path:
    """The exit code of what was started on another machine."""
    return reports(run) / f"machine-{number}"


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("", 0))
        return int(place.getsockname()[1])


def launcher(config: RunConfig, machine: Machine = Machine()) -> list[str]:
    """The command of accelerate, as far as what it starts: with the settings that TRL carries for
    the strategy, or with the person's own file for DeepSpeed."""
    training, count = config.training, device_count(config)
    strategy = "ddp" if training.strategy == "auto" else training.strategy
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if training.deepspeed:
        # A file of accelerate's that says nothing of DeepSpeed: what both say is refused.
        command += ["--config_file", str(_CONFIGS / "single_gpu.yaml"), "--use_deepspeed"]
        command += ["--deepspeed_config_file", training.deepspeed]
        command += ["--deepspeed_multinode_launcher", "standard"]
    else:
        command += ["--config_file", str(_CONFIGS / f"{_FILES[strategy]}.yaml")]
        if strategy.startswith("zero"):
            batches = training.gradient_accumulation_steps
            command += ["--gradient_accumulation_steps", str(batches)]
        command += _offload(strategy) if training.offload else []
    threads = max(1, probe().cpu_count // devices_on_a_node(config))
    # The run's own precision is told by its TrainingArguments.
    command += ["--num_processes", str(count), "--mixed_precision", "no"]
    command += ["--main_process_port", str(machine.port)]
    if machine.count > 1:
        command += ["--num_machines", str(machine.count), "--machine_rank", str(machine.number)]
        command += ["--main_process_ip", machine.address]
    return [*command, "--num_cpu_threads_per_process", str(threads)]


def _offload(strategy: str) -> list[str]:
    if strategy == "fsdp":
        return ["--fsdp_offload_params", "true"]
    weights = ["--offload_param_device", "cpu"] if strategy == "zero3" else []
    return ["--offload_optimizer_device", "cpu", *weights]


def _environment(config: RunConfig) -> dict[str, str]:
    pid = os.getpid()
    path = [str(Path(core.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        ranks.VARIABLE: f"{pid}:{start_time(pid)}",
        **({"DS_ACCELERATOR": "cpu"} if config.training.device == "cpu" else {}),
    }


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
