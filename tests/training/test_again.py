"""A training that goes on: longer, at another rate, with less memory, past a broken checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import ConfigError, JobError, ModelError, TrainingError
from core.jobs.events import EventWriter
from core.jobs.job import Job
from core.jobs.store import Store
from core.models.trained import find_trained
from core.rules import load_config, parse_config
from core.runs.curves import curves
from core.runs.extend import train_longer
from core.runs.lineage import built_on, lineage_text
from core.runs.records import delete_run
from core.runs.resume import can_halve, memory_was_short, resume_with_half
from core.runs.submit import submit_run
from core.worker.models.loading import open_trained
from core.worker.training.resume import MemoryRanOut, ran_out
from core.worker.training.row_trainer import RowTrainer
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld
from tests.training.conftest import SETTINGS, events, losses

Train = Callable[..., RunFolder]
SAVING: dict[str, Any] = {
    **SETTINGS,
    "training.lr_scheduler_type": "linear",
    "training.warmup_steps": 0.0,
    "tracking.save_strategy": "steps",
    "tracking.save_steps": 2,
    "tracking.save_total_limit": None,
}
OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def store(world: TinyWorld) -> Iterator[Store]:
    store = Store.open(world.workspace)
    yield store
    store.close()


def _run(world: TinyWorld, store: Store, job: Job) -> RunFolder:
    """Does the job in this process, as the worker would."""
    run, place = world.workspace.run(job.id), job.params.get("resume_from")
    assert run_training(run.root, world.root, Path(place) if place else None) == "finished"
    store.transition(job.id, {"queued"}, "finished")
    return run


def _start(world: TinyWorld, store: Store, **settings: Any) -> Job:
    values = {
        **SAVING,
        "model.model_name_or_path": "tiny",
        "data.dataset": world.dataset.id,
        "training.precision": "fp32",
        "training.device": "cpu",
        **settings,
    }
    return submit_run(world.workspace, store, parse_config(values), devices=["cpu"])


def _rates(run: RunFolder) -> list[tuple[int, float]]:
    return [(step, rate) for step, rate in curves(run.root)["learning_rate"]]


def _fail_when(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[RowTrainer], bool], error: Exception = OUT
) -> None:
    """The memory runs out at a step, as it does in the middle of one."""
    step = RowTrainer.training_step

    def short(self: RowTrainer, *given: Any) -> Any:
        if fails(self):
            raise error
        return step(self, *given)

    monkeypatch.setattr(RowTrainer, "training_step", short)


def test_longer_at_another_rate_is_a_new_run_that_goes_on(world: TinyWorld, store: Store) -> None:
    """The new rate would be that of the checkpoint, or the run would begin from nothing."""
    first = _start(world, store, name="short")
    before = _run(world, store, first)
    changes = {"training.num_train_epochs": 4.0, "training.learning_rate": 2e-3}
    longer = train_longer(world.workspace, store, first.id, changes, devices=["cpu"])
    assert (longer.parent_id, longer.step, longer.name) == (first.id, 6, "short, longer")
    run = _run(world, store, longer)

    steps, rates = zip(*_rates(run), strict=True)
    assert steps == tuple(range(1, 13))
    assert rates[:6] == tuple(rate for _, rate in _rates(before))
    # Linear over twelve steps: the seventh is trained with what is left after six.
    assert rates[6:] == pytest.approx([2e-3 * (12 - done) / 12 for done in range(6, 12)])
    assert losses(run)[6] < 1.5 * losses(before)[-1]
    state = json.loads((run.checkpoints / "checkpoint-12" / "trainer_state.json").read_text())
    assert state["num_train_epochs"] == 4 and state["max_steps"] == 12
    assert lineage_text(run) == "from short (sft, trained longer from checkpoint-6)"
    # The optimizer remembers what it has seen: twelve steps of it.
    optimizer = torch.load(run.checkpoints / "checkpoint-12" / "optimizer.pt", weights_only=True)
    assert {float(one["step"]) for one in optimizer["state"].values()} == {12.0}

    assert [job.id for job in built_on(store, first.id)] == [longer.id]
    with pytest.raises(JobError, match="short, longer began with"):
        delete_run(world.workspace, store, first.id)
    delete_run(world.workspace, store, first.id, though_built_on=True)
    assert open_trained(find_trained(run), str(world.base), device="cpu", dtype=torch.float32)


def test_what_cannot_change_on_the_way_is_refused(world: TinyWorld, store: Store) -> None:
    """It would train nothing, or something that is no continuation."""
    job = _start(world, store)
    with pytest.raises(JobError, match="queued"):
        train_longer(world.workspace, store, job.id, {})
    _run(world, store, job)
    for changes, field in (
        ({"training.num_train_epochs": 2.0}, "training.num_train_epochs"),
        ({"training.max_steps": 5}, "training.max_steps"),
        ({"training.num_train_epochs": 3.0, "adapter.r": 4}, "adapter.r"),
        ({"training.num_train_epochs": 3.0, "training.seed": 7}, "training.seed"),
        # What one device, or each of several, has whole is in no parts that these could take.
        ({"training.devices": 2, "training.strategy": "fsdp"}, "training.strategy"),
    ):
        with pytest.raises(ConfigError) as refused:
            train_longer(world.workspace, store, job.id, changes, devices=["cpu"])
        assert [problem.field for problem in refused.value.problems] == [field]
    with pytest.raises(JobError, match="checkpoint-99"):
        train_longer(world.workspace, store, job.id, {}, checkpoint="checkpoint-99")
    shutil.rmtree(world.workspace.run(job.id).checkpoints)
    with pytest.raises(JobError, match="left no checkpoint"):
        train_longer(world.workspace, store, job.id, {"training.num_train_epochs": 5.0})


def test_half_the_batch_learns_the_same(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run would end, or learn from fewer rows in each step than it was set to."""
    whole = train("whole", **SAVING)
    with monkeypatch.context() as patch:
        _fail_when(
            patch,
            lambda t: t.state.global_step == 3 and t.args.per_device_train_batch_size > 1,
        )
        short = train("short", **{**SAVING, "training.on_out_of_memory": "halve"})
    expected, found = curves(whole.root)["loss"], curves(short.root)["loss"]
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], rel=1e-4)
    config = load_config(short.config).training
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (1, 4)
    chosen = [event["choice"] for event in events(short, "log") if "choice" in event]
    halved = [c for c in chosen if c["field"] == "training.per_device_train_batch_size"]
    assert [c["value"] for c in halved] == [2, 1]
    assert "checkpoint-2" in halved[0]["reason"]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (OUT, True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_a_lack_of_memory_counts_as_one(error: Exception, is_memory: bool) -> None:
    """A run would begin again and again after an error that less memory does not mend."""
    assert ran_out(error) is is_memory


def test_a_run_that_stops_offers_to_go_on_with_half(
    world: TinyWorld,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A person would have to know which two settings to change, and by how much."""
    job = _start(world, store)
    run = world.workspace.run(job.id)
    with monkeypatch.context() as patch:
        _fail_when(patch, lambda trainer: trainer.state.global_step == 3, MemoryError())
        with pytest.raises(MemoryRanOut, match="half the batch") as ended:
            run_training(run.root, world.root, None)
    EventWriter(run.events).write("error", message="", type=type(ended.value).__name__)
    store.transition(job.id, {"queued"}, "failed")
    assert can_halve(store.get(job.id), run.root)
    again = resume_with_half(world.workspace, store, job.id)
    assert (again.state, again.params["resume_from"]) == ("queued", "checkpoints/checkpoint-2")
    config = load_config(run.config).training
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (2, 2)
    assert not memory_was_short(again, run.root)
    _run(world, store, again)


def test_an_evaluation_that_does_not_fit_is_halved_alone(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training would be slowed down although it fits."""
    step = RowTrainer.prediction_step

    def short(self: RowTrainer, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        if self.args.per_device_eval_batch_size > 2:
            raise OUT
        return step(self, model, inputs, *given, **options)

    monkeypatch.setattr(RowTrainer, "prediction_step", short)
    settings = {"evaluation.eval_strategy": "steps", "evaluation.eval_steps": 2}
    run = train("eval", **{**SAVING, **settings, "training.on_out_of_memory": "halve"})
    config = load_config(run.config)
    assert config.evaluation.per_device_eval_batch_size == 2
    assert config.training.per_device_train_batch_size == 4


def _spoil(path: Path) -> None:
    """The right length, the wrong content: only reading it shows that."""
    data = bytearray(path.read_bytes())
    data[40 : len(data) // 2] = b"\xff" * (len(data) // 2 - 40)
    path.write_bytes(bytes(data))


def test_a_checkpoint_that_cannot_be_read_falls_back_to_the_one_before(
    world: TinyWorld, train: Train
) -> None:
    """Hours of training would be lost although an older checkpoint is whole."""
    run = train("spoiled", **{**SAVING, "training.max_steps": 5})
    expected = load_file(run.adapter / "adapter_model.safetensors")
    for folder in (run.adapter, run.checkpoints / "checkpoint-5"):
        shutil.rmtree(folder)
    whole = run.root / "whole"
    shutil.copytree(run.checkpoints, whole)
    for name in ("optimizer.pt", "rng_state.pth"):
        _spoil(run.checkpoints / "checkpoint-4" / name)
        run.events.unlink()
        assert run_training(run.root, world.root, Path("checkpoints/checkpoint-4")) == "finished"
        told = [event["message"] for event in events(run, "log") if event["level"] == "warning"]
        assert len(told) == 1 and told[0].startswith("checkpoint-4 cannot be read"), name
        assert told[0].endswith("going on from checkpoint-2.")
        found = load_file(run.adapter / "adapter_model.safetensors")
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
        shutil.rmtree(run.checkpoints)
        shutil.copytree(whole, run.checkpoints)


def test_without_one_before_a_broken_checkpoint_ends_the_run(
    world: TinyWorld, train: Train
) -> None:
    """The run would begin anew without a word."""
    run = train("only", **{**SAVING, "training.max_steps": 2})
    _spoil(run.checkpoints / "checkpoint-2" / "optimizer.pt")
    with pytest.raises(TrainingError, match="checkpoint-2 cannot be read"):
        run_training(run.root, world.root, Path("checkpoints/checkpoint-2"))


def test_a_checkpoint_of_another_model_is_refused_with_the_reason(
    world: TinyWorld, train: Train
) -> None:
    """The run would go on from weights that are not its own, or end in a trace of torch's."""
    settings = {**SAVING, "training.max_steps": 2}
    other = train("other", **{**settings, "adapter.r": 4})
    run = train("own", **settings)
    checkpoint = run.checkpoints / "checkpoint-2"
    for folder, words in (
        (other.checkpoints / "checkpoint-2", "its r is 4, not 16"),
        (world.base, "it is a whole model, not an adapter"),
    ):
        if folder == world.base:
            shutil.copytree(checkpoint, run.checkpoints / "whole")
            for path in (run.checkpoints / "whole").glob("adapter*"):
                path.unlink()
            shutil.copy(world.base / "model.safetensors", run.checkpoints / "whole")
            folder = run.checkpoints / "whole"
        with pytest.raises(TrainingError, match=words):
            run_training(run.root, world.root, folder)
    # The same settings, but a model with other layers.
    weights = load_file(checkpoint / "adapter_model.safetensors")
    for path in (checkpoint, run.adapter):
        renamed = {key.replace("layers.1", "layers.7"): value for key, value in weights.items()}
        save_file(renamed, path / "adapter_model.safetensors")
    with pytest.raises(TrainingError, match=r"checkpoint of another model: this model has no"):
        run_training(run.root, world.root, checkpoint)
    with pytest.raises(ModelError, match=r"does not fit its base: this model has no .*layers.7"):
        open_trained(find_trained(run), str(world.base), device="cpu", dtype=torch.float32)
