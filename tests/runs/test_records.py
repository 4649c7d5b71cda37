"""Curves, checkpoints and sizes of runs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from core.errors import JobError
from core.jobs.events import EventWriter
from core.models.checkpoints import Checkpoint, broken, checkpoints, last_good_checkpoint
from core.runs.curves import CurveReader, curves, downsample
from core.runs.origin_files import link_files
from core.runs.records import folder_size_bytes, list_runs, load_run
from tests.jobs.bench import Bench
from tests.jobs.fake_jobs import write_checkpoint, write_safetensors


def test_each_metric_is_a_curve(tmp_path: Path) -> None:
    """Step, epoch and text are no curves; a loss that was not finite leaves a gap."""
    events = EventWriter(tmp_path / "events.jsonl")
    events.write("metrics", step=1, epoch=0.1, loss=2.0, learning_rate=1e-4, device="cpu", ok=True)
    events.write("metrics", step=2, epoch=0.2, loss=math.nan)
    events.write("metrics", step=2, epoch=0.2, eval_loss=1)
    assert curves(tmp_path) == {
        "loss": [(1, 2.0)],
        "learning_rate": [(1, 1e-4)],
        "eval_loss": [(2, 1.0)],
    }


def test_curves_grow_by_what_is_new(tmp_path: Path) -> None:
    """The page asks every second whether there is something to draw."""
    path = tmp_path / "events.jsonl"
    reader, events = CurveReader(path), EventWriter(path)
    assert not reader.update()
    events.write("metrics", step=1, loss=2.0)
    assert reader.update()
    events.write("log", message="nothing to draw")
    assert not reader.update()
    assert reader.curves == {"loss": [(1, 2.0)]}


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    """Steps after the checkpoint are done again: drawn twice, the line would run backwards."""
    path = tmp_path / "events.jsonl"
    reader, events = CurveReader(path), EventWriter(path)
    for step in (1, 2, 3, 4):
        events.write("metrics", step=step, loss=float(step))
    events.write("metrics", step=4, eval_loss=4.0)
    assert reader.update()
    events.write("state", state="queued", resumed_from_step=2)
    assert reader.update()
    assert reader.curves == {"loss": [(1, 1.0), (2, 2.0)], "eval_loss": []}
    events.write("metrics", step=3, loss=30.0)
    assert reader.update()
    assert reader.curves["loss"] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert curves(tmp_path)["loss"] == reader.curves["loss"]


@given(
    values=some.lists(some.floats(-1e6, 1e6), min_size=1, max_size=400),
    most=some.integers(4, 60),
)
def test_downsampling_keeps_the_shape(values: list[float], most: int) -> None:
    """A spike that is not drawn is a spike that nobody looks into."""
    points = list(enumerate(values))
    kept = downsample(points, most)
    assert len(kept) <= max(most, 4)
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert min(value for _, value in kept) == min(values)
    assert max(value for _, value in kept) == max(values)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("trainer_state.json", None, "trainer_state.json is missing"),
        ("trainer_state.json", b'{"global_st', "cannot be read"),
        ("trainer_state.json", b"{}", "no step"),
        ("adapter_model.safetensors", None, "weights are missing"),
        ("adapter_model.safetensors", "half", "adapter_model.safetensors is cut short"),
        ("adapter_model.safetensors", b"", "adapter_model.safetensors is cut short"),
        ("optimizer.pt", "half", "optimizer.pt is cut short"),
        ("optimizer.pt", None, "optimizer.pt is missing"),
        ("scheduler.pt", None, "scheduler.pt is missing"),
        ("rng_state.pth", "half", "rng_state.pth is cut short"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over(
    tmp_path: Path, name: str, content: bytes | str | None, why: str
) -> None:
    """A worker killed while saving: resuming from half a checkpoint fails, or worse, does not."""
    write_checkpoint(tmp_path / "checkpoint-9", 9)
    write_checkpoint(tmp_path / "checkpoint-10", 10)
    file = tmp_path / "checkpoint-10" / name
    if content is None:
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2] if isinstance(content, str) else content)
    good, passed_over = last_good_checkpoint(tmp_path)
    assert good is not None
    assert good.name == "checkpoint-9"
    assert [path.name for path, _ in passed_over] == ["checkpoint-10"]
    assert why in passed_over[0][1]


ZERO = [
    "global_step10/mp_rank_00_model_states.pt",
    "global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step10/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
]
FSDP = ["optimizer.bin", "pytorch_model_fsdp.bin"]
FSDP_IN_PARTS = ["optimizer_0/.metadata", "pytorch_model_fsdp_0/.metadata"]


def write_parted(checkpoint: Path, files: list[str]) -> None:
    """What several devices leave that have parts of the model each."""
    write_checkpoint(checkpoint, 10)
    for name in files:
        (checkpoint / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint / "optimizer.pt", checkpoint / name)
    for number in range(2):
        shutil.copyfile(checkpoint / "rng_state.pth", checkpoint / f"rng_state_{number}.pth")
    for name in ("optimizer.pt", "rng_state.pth"):
        (checkpoint / name).unlink()
    if files == ZERO:
        (checkpoint / "latest").write_text("global_step10")


@pytest.mark.parametrize("files", [ZERO, FSDP, FSDP_IN_PARTS], ids="zero fsdp fsdp-parts".split())
def test_a_checkpoint_in_parts_is_whole_when_all_parts_are(
    tmp_path: Path, files: list[str]
) -> None:
    """A run on many cards could not go on; or would from what half of them had saved."""
    path, linked = tmp_path / "checkpoint-10", tmp_path / "longer" / "checkpoint-10"
    write_parted(path, files)
    assert last_good_checkpoint(tmp_path)[0] == Checkpoint("checkpoint-10", 10, path)
    link_files(path, linked, everything=True)
    assert broken(linked, resumable=True) is None
    assert all((linked / name).samefile(path / name) for name in files)
    for name in [*files, "scheduler.pt"]:
        whole = (path / name).read_bytes()
        (path / name).unlink()
        assert "is missing" in str(broken(path, resumable=True)), name
        if not name.endswith(".metadata"):
            (path / name).write_bytes(whole[: len(whole) // 2])
            assert "is cut short" in str(broken(path, resumable=True)), name
        (path / name).write_bytes(whole)
    assert broken(path, resumable=True) is None


def test_every_whole_checkpoint_can_be_tried_and_the_final_one_is_last(tmp_path: Path) -> None:
    """Intermediate checkpoints missing from lists is an old complaint."""
    for step in (100, 20):
        write_checkpoint(tmp_path / "checkpoints" / f"checkpoint-{step}", step)
    (tmp_path / "checkpoints/checkpoint-120").mkdir()
    assert [item.name for item in checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-100"]
    (tmp_path / "adapter").mkdir()
    assert checkpoints(tmp_path)[-1].name == "checkpoint-100"
    write_safetensors(tmp_path / "adapter/adapter_model.safetensors")
    final = checkpoints(tmp_path)[-1]
    assert (final.name, final.path) == ("final", tmp_path / "adapter")


def test_a_model_in_several_files_needs_them_all(tmp_path: Path) -> None:
    """One missing shard is a model that cannot be loaded."""
    path = tmp_path / "checkpoint-1"
    write_checkpoint(path, 1)
    (path / "adapter_model.safetensors").rename(path / "model-1.safetensors")
    index = '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    (path / "model.safetensors.index.json").write_text(index)
    assert broken(path) == "model-2.safetensors is cut short"
    shutil.copy(path / "model-1.safetensors", path / "model-2.safetensors")
    assert broken(path) is None


def test_the_size_of_a_run_is_that_of_its_files(tmp_path: Path) -> None:
    """People look here for what to delete."""
    (tmp_path / "a").write_bytes(b"1" * 1000)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_bytes(b"1" * 234)
    assert folder_size_bytes(tmp_path) == 1234


def test_runs_are_listed_newest_first_with_their_place_in_the_queue(bench: Bench) -> None:
    """The list is the way back to every run."""
    first, second = bench.add(), bench.add()
    listed = list_runs(bench.workspace, bench.store)
    assert [(item.id, item.queue_position) for item in listed] == [(second.id, 2), (first.id, 1)]
    bench.store.transition(first.id, {"queued"}, "died", started_at=1.0, ended_at=61.0)
    assert not load_run(bench.workspace, bench.store, first.id).resumable
    write_checkpoint(bench.folder(first) / "checkpoints/checkpoint-1", 1)
    run = load_run(bench.workspace, bench.store, first.id)
    assert (run.state, run.duration_seconds, run.queue_position) == ("died", 60.0, None)
    assert run.resumable
    assert run.size_bytes == folder_size_bytes(bench.folder(first))
    with pytest.raises(JobError, match="no run nowhere"):
        load_run(bench.workspace, bench.store, "nowhere")
