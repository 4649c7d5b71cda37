"""How the processes of a run on several devices are started: by `accelerate launch`, on each
machine that shares the run. Nothing heavy is imported here: each of them begins with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import core
from core.config import RunConfig
from core.config.run import device_count, devices_on_a_node
from core.jobs.process import start_time
from core.models.hardware import probe
from core.rules import load_config
from core.worker.training.cluster.actor import MACHINES
from core.workspace import RunFolder, write_atomic

LAUNCHED = "TUNESMITH_LAUNCHED"
"""Set for the processes that are started here: which one watches them."""
SECONDS_BETWEEN_LOOKS = 0.5
# It waits only: what of its imports could go is not worth looking for.
_LAUNCH = "import gc; gc.disable(); from accelerate.commands.launch import main; main()"
_FILES = {"ddp": "multi_gpu", "fsdp": "fsdp2", **{f"zero{n}": f"zero{n}" for n in (1, 2, 3)}}


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


def accompany(run: RunFolder) -> NoReturn:
    """On another machine than the first: starts its processes whenever that one starts its own."""
    machine, heard = Machine.here(), ""
    while True:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        call = _heard(run)
        if call.get("id", heard) == heard:
            continue
        heard = call["id"]
        with run.log.open("ab") as log:
            place = replace(machine, port=call["port"])
            child = start(load_config(run.config), place, call["words"], log)
            while child.poll() is None and _heard(run).get("id", heard) == heard:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            child.terminate()
            code = child.wait()
        if _heard(run).get("id") == heard:
            write_atomic(over_file(run, machine.number), str(code))


def _heard(run: RunFolder) -> dict[str, Any]:
    """The first machine's call; empty where it has not begun, or is over."""
    try:
        found: dict[str, Any] = json.loads(call_file(run).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def start(
    config: RunConfig, machine: Machine, words: Sequence[str], log: BinaryIO
) -> subprocess.Popen[bytes]:
    command = [*launcher(config, machine), "-m", "core.worker.rank", *words]
    return subprocess.Popen(command, env=_environment(config), stdout=log, stderr=log)


def call_file(run: RunFolder) -> Path:
    """What the first machine tells the others to start."""
    return reports(run) / "call"


def over_file(run: RunFolder, number: int) -> Path:
    """The exit code of what was started on another machine."""
    return reports(run) / f"machine-{number}"


def launcher(config: RunConfig, machine: Machine = Machine()) -> list[str]:
    """The command of accelerate, as far as what it starts: with the settings that TRL carries for
    the strategy, or with the person's own file for DeepSpeed."""
    training, count = config.training, device_count(config)
    strategy = "ddp" if training.strategy == "auto" else training.strategy
    command = [sys.executable, "-c", _LAUNCH]
    if training.deepspeed:
        # A file of accelerate's that says nothing of DeepSpeed: what both say is refused.
        command += ["--config_file", str(_configs() / "single_gpu.yaml"), "--use_deepspeed"]
        command += ["--deepspeed_config_file", training.deepspeed]
        command += ["--deepspeed_multinode_launcher", "standard"]
    else:
        command += ["--config_file", str(_configs() / f"{_FILES[strategy]}.yaml")]
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
        LAUNCHED: f"{pid}:{start_time(pid)}",
        **({"DS_ACCELERATOR": "cpu"} if config.training.device == "cpu" else {}),
    }


def _configs() -> Path:
    """Where TRL's settings for accelerate are; TRL itself takes seconds to import."""
    spec = find_spec("trl")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "accelerate_configs"
