"""A run on two devices, here two processes on the CPU: it learns what one learns from the same
rows, its first process alone speaks, and what ends one of them ends the run, with its reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import BatchSampler, SequentialSampler

from core.errors import ConfigError, TrainingError
from core.jobs.job import Job, read_record, write_record
from core.jobs.process import same_process
from core.jobs.store import Store
from core.models.checkpoints import broken
from core.rules import load_config, parse_config
from core.runs.extend import train_longer
from core.worker.training.launch import _outcome
from core.worker.training.launcher import launcher
from core.worker.training.resume import BrokenCheckpoint, in_evaluation, ran_out
from core.worker.training.run import run_training
from core.worker.training.shares import RowsOnce, rows_left
from core.workspace import RunFolder
from tests.preferences import THINGS, bring, judged, pairs
from tests.tiny_model import TinyWorld, colour_rows, tiny_world
from tests.training.conftest import SETTINGS, events, losses
from tests.training.labelled import label_world, labelled_rows
from tests.training.test_resume import stop_at
from tests.waiting import until
from tests.warm_python import with_torch

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable
# Four rows a step: on one device in two batches, on two in one.
ONE = {"training.gradient_accumulation_steps": 2}
TWO = {"training.devices": 2}
EXACT: dict[str, Any] = {
    **SETTINGS,
    "training.per_device_train_batch_size": 2,
    "training.num_train_epochs": 1.0,
    "adapter.lora_dropout": 0.0,
    "tracking.logging_steps": 1,
    "evaluation.eval_strategy": "epoch",
    "evaluation.per_device_eval_batch_size": 2,
}
# So many that a process of the run is met at its work.
LONG: dict[str, Any] = {
    **EXACT,
    "training.max_steps": 150,
    "training.lr_scheduler_type": "constant",
    "training.learning_rate": 1e-3,
    "evaluation.eval_strategy": "no",
}


@pytest.fixture(autouse=True, scope="module")
def quick_start() -> Iterator[None]:
    """The launcher and its processes import nothing anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", with_torch())
        patch.setenv("PYTHON_EXEC", with_torch())  # torch's launcher
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("devices"), eval_rows=colour_rows()[:4])


@pytest.fixture(scope="module")
def methods(world: TinyWorld) -> dict[str, dict[str, Any]]:
    """The settings of each method. Its rows fill no last step: one device, or both, have too few
    of them."""
    labels = label_world(world.root).data("labels", labelled_rows(30), labelled_rows(7, 1))
    answers = bring(world.workspace, pairs(THINGS[:4]), pairs(THINGS[4:])[:5], "pairs")
    marks = bring(world.workspace, judged(THINGS[:4]), judged(THINGS[4:])[:5], "marks")
    return {
        # With samples, which only the first process writes.
        "sft": {
            "training.packing": True,
            "evaluation.sample_max_new_tokens": 2,
            "tracking.save_strategy": "epoch",
        },
        # The reference is asked beforehand, by both.
        "dpo": {
            "data.dataset": answers.id,
            "data.max_train_samples": 11,
            "preference.precompute_ref_log_probs": True,
        },
        "kto": {"data.dataset": marks.id, "data.max_train_samples": 13},
        "classification": {
            "data.dataset": labels.id,
            "model.model_name_or_path": "tiny-bert",
            # The rows of an epoch are in another order than those of the one before.
            "training.num_train_epochs": 2.0,
        },
    }


Both = tuple[RunFolder, RunFolder]


@pytest.fixture(scope="module", params=["sft", "dpo", "kto", "classification"])
def both(
    request: pytest.FixtureRequest, world: TinyWorld, methods: dict[str, dict[str, Any]]
) -> Both:
    """The same training on one device and on two."""
    method, found = request.param, []
    for name, settings in (("one", ONE), ("two", TWO)):
        values = {**EXACT, "method": method, **methods[method], **settings}
        run = world.run(f"{method}-{name}", values)
        assert run_training(run.root, world.root, None) == "finished"
        found.append(run)
    return found[0], found[1]


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.adapter / "adapter_model.safetensors")
    return found


def furthest(one: RunFolder, other: RunFolder) -> float:
    """How far two adapters are apart at most."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_two_devices_learn_what_one_does(both: Both) -> None:
    """Two numbers have but one sum: bit for bit the same. Of SFT, here in packed rows, Tunesmith
    takes the loss on one device by other code than TRL's."""
    one, two = both
    exact = "sft" not in one.root.name
    assert losses(two) == (losses(one) if exact else pytest.approx(losses(one), abs=2e-6))
    assert len(losses(one)) >= 2
    assert furthest(one, two) <= (0.0 if exact else 1e-4)


def test_two_devices_measure_what_one_does(both: Both) -> None:
    """Else the best checkpoint, and the figures by which runs are compared, would be others."""
    one, two = ([log for log in events(run, "metrics") if "eval_loss" in log] for run in both)
    assert len(one) == len(two) > 0
    names = one[0].keys() & two[0].keys() & {
        "eval_loss", "eval_kl", "eval_accuracy", "eval_rewards/accuracies", "eval_rewards/margins"
    }  # fmt: skip
    for alone, together in zip(one, two, strict=True):
        assert [together[name] for name in names] == pytest.approx(
            [alone[name] for name in names], abs=2e-6
        )


@pytest.mark.parametrize(("rows", "processes"), [(1, 2), (4, 2), (5, 2), (6, 2), (7, 2), (8, 3)])
def test_each_row_comes_once(rows: int, processes: int) -> None:
    """accelerate repeats rows to even out the last batches: they would be learned twice."""
    batches = BatchSampler(SequentialSampler(range(rows)), 2, drop_last=False)
    shares = [list(RowsOnce(batches, processes, rank)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    left = rows_left(rows, 2, processes)
    assert sum(left) == (rows - 1) % (2 * processes) + 1
    for share, count in zip(shares, left, strict=True):
        share[-1:] = [share[-1]] if count else []  # a process without rows takes one along
    found = [row for share in shares for batch in share for row in batch]
    assert sorted(found) == list(range(rows))


def test_one_process_speaks(both: Both) -> None:
    """Two would write each line of the curves twice, and spoil each other's checkpoints."""
    one, two = both
    for kind in ("metrics", "sample"):
        steps = [[event["step"] for event in events(run, kind)] for run in both]
        assert steps[0] == steps[1]
    measured = [name for name in events(two, "metrics")[-1] if name.startswith("eval_")]
    assert measured
    checkpoints = [sorted(path.name for path in run.checkpoints.glob("*")) for run in both]
    assert checkpoints[0] == checkpoints[1]
    assert not (two.root / ".ranks").exists()
    rows = [event["samples_per_second"] for event in events(two, "metrics") if "loss" in event]
    assert all(rows)


@pytest.fixture(scope="module")
def reference(world: TinyWorld) -> RunFolder:
    """A training that nothing interrupts, on one device."""
    run = world.run("reference", {**LONG, **ONE})
    assert run_training(run.root, world.root, None) == "finished"
    return run


def go_on(world: TinyWorld, run: RunFolder, state: str, **changes: Any) -> RunFolder:
    """The run goes on with these changes, as the shell has it."""
    store = Store.open(world.workspace)
    record = {"id": run.root.name, "kind": "train", "run_id": run.root.name}
    store.add(Job(**record, folder=f"runs/{run.root.name}", state=state))
    changes = {f"training.{name}": value for name, value in changes.items()}
    job = train_longer(world.workspace, store, run.root.name, changes)
    longer = world.workspace.run(job.id)
    place = longer.root / job.params["resume_from"]
    assert run_training(longer.root, world.root, place) == "finished"
    store.close()
    return longer


def test_a_run_stopped_on_two_devices_goes_on_on_one(
    world: TinyWorld, reference: RunFolder
) -> None:
    """Stopped somewhere: both processes have to end at the same step."""
    run = world.run("stopped-on-two", {**LONG, **TWO})
    asking = threading.Thread(target=_stop_at_work, args=(run,))
    asking.start()
    assert run_training(run.root, world.root, None) == "stopped"
    asking.join()
    done = len(losses(run))
    assert 0 < done < 150
    longer = go_on(world, run, "stopped", devices=1)
    training = load_config(longer.config).training
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 2)
    assert len(losses(longer)) == 150
    assert losses(longer) == pytest.approx(losses(reference), abs=1e-4)
    assert furthest(longer, reference) < 1e-4


def _stop_at_work(run: RunFolder) -> None:
    until(lambda: losses(run))
    run.stop_request.touch()


def test_a_run_stopped_on_one_device_goes_on_on_two(
    world: TinyWorld, reference: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.run("stopped-on-one", {**LONG, **ONE})
    stop_at(100, monkeypatch)
    assert run_training(run.root, world.root, None) == "stopped"
    run.stop_request.unlink()
    longer = go_on(world, run, "stopped", devices=2)
    training = load_config(longer.config).training
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 1)
    assert losses(longer) == pytest.approx(losses(reference), abs=1e-4)
    assert furthest(longer, reference) < 1e-4


def processes_of(run: RunFolder) -> list[psutil.Process]:
    """Those that train a run, in the order of their ranks."""
    found = {}
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "core.worker.rank" in words and str(run.root) in words:
                rank = process.environ().get("RANK")
                if rank is not None:
                    found[rank] = process
        except psutil.Error:
            continue
    return [found[rank] for rank in sorted(found)]


def test_a_process_that_is_killed_ends_the_run_with_its_reason(world: TinyWorld) -> None:
    run = world.run("killed", {**LONG, **TWO, "training.max_steps": 100_000})
    raised: list[BaseException] = []

    def train() -> None:
        try:
            run_training(run.root, world.root, None)
        except TrainingError as error:
            raised.append(error)

    training = threading.Thread(target=train)
    training.start()
    until(lambda: losses(run))
    first, second = processes_of(run)
    second.kill()
    training.join()
    assert "Process 2 of 2 was killed (signal 9)" in str(raised[0])
    assert not first.is_running()


def test_nothing_is_left_of_a_run_whose_worker_is_killed(world: TinyWorld) -> None:
    """Its processes would hold the devices, and write on into a run that counts as dead."""
    run = world.run("worker-killed", {**LONG, **TWO, "training.max_steps": 100_000})
    name = run.root.name
    job = Job(name, "train", name, f"runs/{name}", state="starting", device="cpu")
    write_record(run.root, job)
    worker = subprocess.Popen(
        [PYTHON, "-m", "core.worker", str(run.root)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    until(lambda: losses(run))
    record = read_record(run.root)
    assert record["pid"] == worker.pid  # by this one it is known again, and stopped or killed
    assert same_process(record["pid"], record["pid_started_at"])
    assert [event["pid"] for event in events(run, "state")] == [worker.pid]
    assert len(processes_of(run)) == 2
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    until(lambda: not processes_of(run))


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_divides_a_training_which_learns_the_same_and_goes_on(
    world: TinyWorld, strategy: str
) -> None:
    """Only cards could tell otherwise, and what took hours on them would not go on."""
    pytest.importorskip("deepspeed")
    saving = {"training.max_steps": 6, "tracking.save_strategy": "steps", "tracking.save_steps": 3}
    settings: dict[str, Any] = {**LONG, **saving, "training.max_grad_norm": 1.0}
    one = world.run(f"{strategy}-one", {**settings, **ONE})
    two = world.run(f"{strategy}-two", {**settings, **TWO, "training.strategy": strategy})
    for run in (one, two):
        assert run_training(run.root, world.root, None) == "finished"
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert furthest(one, two) < 1e-4

    store = Store.open(world.workspace)
    name = two.root.name
    store.add(Job(name, "train", name, f"runs/{name}", state="finished"))
    for changes in ({"training.devices": 1}, {"training.strategy": "ddp"}):
        with pytest.raises(ConfigError, match="goes on only on as many devices"):
            train_longer(world.workspace, store, name, {**changes, "training.max_steps": 9})
    # From its middle: what comes after is what came after it.
    shutil.rmtree(two.checkpoints / "checkpoint-6")
    job = train_longer(
        world.workspace, store, name, {"training.learning_rate": 1e-3}, checkpoint="checkpoint-3"
    )
    store.close()
    longer = world.workspace.run(job.id)
    place = longer.root / job.params["resume_from"]
    assert run_training(longer.root, world.root, place) == "finished"
    assert losses(longer)[-3:] == pytest.approx(losses(two)[-3:], abs=1e-6)
    assert furthest(longer, two) < 1e-6
    assert broken(longer.checkpoints / "checkpoint-6", resumable=True) is None


END = {"time": 1.0, "error": "E", "advice": "A", "said": "x", "echo": False, "memory": False}
END["evaluating"] = False
LOG = """
Root Cause (first observed failure):
[0]:
  time      : 2026-11-30_05:00:00
  host      : here
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 11)
  error_file: <N/A>
"""


def outcome(ends: dict[int, dict[str, Any]], said: str = "", code: int = 1) -> Any:
    try:
        return _outcome(ends, said, code, 2)
    except Exception as error:
        return error


def test_the_reason_is_what_came_first_and_no_echo_of_it() -> None:
    """A process whose neighbour is gone says so too, and perhaps sooner."""
    echo = {**END, "error": "Connection closed by peer", "echo": True, "time": 0.5}
    assert str(outcome({0: echo, 1: END})).startswith("E")
    assert "Process 2 of 2 was killed" in str(outcome({0: echo}, LOG))
    assert "closed by peer" in str(outcome({0: echo}, LOG.replace("-9", "-15")))
    assert "exit code 3" in str(outcome({}, "", 3))
    # One that saw the stop before its first step has ended the other.
    assert outcome({1: {"state": "stopped"}}, LOG.replace("-9", "-15")) == "stopped"
    assert outcome({0: {"state": "finished"}}, "", 0) == "finished"


def test_what_helps_one_process_helps_several() -> None:
    """Half the batch where the memory ran out, the checkpoint before where one is broken."""
    full = {**END, "said": "CUDA out of memory", "memory": True, "evaluating": True}
    error = outcome({0: full})
    assert ran_out(error) and in_evaluation(error)
    broken = {**END, "checkpoint": "/runs/a/checkpoints/checkpoint-4", "reason": "torn"}
    error = outcome({0: broken})
    assert isinstance(error, BrokenCheckpoint) and error.path.name == "checkpoint-4"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"strategy": "ddp"}, {}),
        (
            {"strategy": "fsdp", "offload": True},
            {"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true", "ACCELERATE_USE_FSDP": "true"},
        ),
        ({"strategy": "zero1"}, {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}),
        (
            {"strategy": "zero2", "offload": True, "gradient_accumulation_steps": 4},
            {
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
                "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu",
                "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
            },
        ),
        (
            {"strategy": "zero3", "offload": True},
            {
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
                "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu",
            },
        ),
        ({"strategy": "zero2", "deepspeed": "own.json"}, {"ACCELERATE_CONFIG_DS_FIELDS": ""}),
    ],
)
def test_accelerate_takes_what_it_is_told(
    settings: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    """By its own parser and its own words for the processes: no GPU is needed to see that a file of
    TRL's and a flag go together."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    if "deepspeed" in settings:
        own = tmp_path / "own.json"
        own.write_text(json.dumps({"zero_optimization": {"stage": 2}}))
        settings = {**settings, "deepspeed": str(own)}
        told = {**told, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(own)}
    values = {f"training.{name}": value for name, value in settings.items()}
    command = launcher(parse_config({**values, "training.devices": "0,1"}))
    assert command[1] == "-c" and "accelerate.commands.launch" in command[2]
    given = launch_command_parser().parse_args([*command[3:], "-m", "module"])
    known, defaults, _ = _validate_launch_command(given)
    if known.use_deepspeed:
        known.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _command, environment = prepare_deepspeed_cmd_env(known)
    else:
        assert known.multi_gpu or known.use_fsdp
        environment = prepare_multi_gpu_env(known)
    assert known.num_processes == 2
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"  # the trainer's own holds
    assert {name: environment.get(name) for name in told} == told
