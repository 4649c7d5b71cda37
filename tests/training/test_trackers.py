"""The curves must arrive where people look at them, and no tracker may cost anybody a run."""

from __future__ import annotations

import importlib
import itertools
import sqlite3
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from core.config.tracking import TITLES
from core.jobs.events import EventWriter
from core.rules import parse_config
from core.rules.machine import tracker_warnings
from core.worker.training import trackers
from core.worker.training.run import run_training
from core.worker.training.trackers import TRACKERS, About, Trackers, open_settings, without_secrets
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld
from tests.training.conftest import SETTINGS, events, losses
from tests.waiting import LIMIT


@pytest.fixture(scope="module")
def told(world: TinyWorld) -> RunFolder:
    """A run of three steps that told all trackers which need no account."""
    settings = {
        **SETTINGS,
        "name": "Colours, first try",
        "training.max_steps": 3,
        "evaluation.eval_strategy": "steps",
        "evaluation.eval_steps": 3,
        "tracking.project": "shades",
        "tracking.report_to": ["tensorboard", "trackio", "wandb", "swanlab"],
    }
    importlib.import_module("trackio")  # as TRL does for GRPO, before the run's folder is known
    run = world.run("told", settings)
    run_training(run.root, world.root, None)
    return run


def test_no_tracker_failed(told: RunFolder) -> None:
    warnings = [e["message"] for e in events(told, "log") if e["level"] == "warning"]
    assert not [text for text in warnings if any(title in text for title in TITLES.values())]


def test_tensorboard_reads_the_curves_of_the_run(told: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(told.root / "tensorboard"))
    found.Reload()
    points = found.Scalars("train/loss")
    assert [point.step for point in points] == [1, 2, 3]
    assert [point.value for point in points] == pytest.approx(losses(told), rel=1e-5)
    assert {"eval/loss", "train/tokens_per_second", "train/cpu_percent"} <= set(
        found.Tags()["scalars"]
    )


def test_trackio_s_database_has_the_run_by_its_name(told: RunFolder) -> None:
    with sqlite3.connect(told.root / "trackio" / "shades.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    assert {name for name, _, _ in rows} == {"Colours, first try"}
    assert {step for _, step, _ in rows} == {1, 2, 3}
    assert any(b'"train/loss"' in metrics for _, _, metrics in rows)


def test_wandb_s_offline_file_has_name_project_settings_and_curves(told: RunFolder) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    records = [Record.FromString(data) for data in _records(told.root / "wandb", "*/*.wandb")]
    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.project, run.run_id) == ("Colours, first try", "shades", "told")
    assert "training.learning_rate" in {setting.key for setting in run.config.update}
    points = [
        {(item.key or item.nested_key[0]): item.value_json for item in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    found = [float(point["train/loss"]) for point in points if "train/loss" in point]
    assert found == pytest.approx(losses(told), rel=1e-6)


def test_swanlab_s_offline_file_has_settings_and_curves(told: RunFolder) -> None:
    records = list(_records(told.root / "swanlab", "run-*/run-*.swanlab"))
    assert sum(b"train/loss" in record for record in records) >= 3
    (path,) = (told.root / "swanlab").glob("run-*/files/config.yaml")
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert settings["training.learning_rate"]["value"] == 0.01


def _records(folder: Path, pattern: str) -> Iterator[bytes]:
    """The records of the one file of LevelDB's log format that lies there."""
    (path,) = folder.glob(pattern)
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


class Failing:
    """A tracker whose server goes away at step 2."""

    def start(self, about: About) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == 2:
            raise SystemExit("no route to https://me:secret-1@example.org, key 0123456789abc")

    def finish(self, failed: bool) -> None:
        raise AssertionError("it was lost before")


class Hanging(Failing):
    """A tracker whose server never answers."""

    answer = threading.Event()

    def start(self, about: About) -> None:
        self.answer.wait(LIMIT)


@pytest.mark.parametrize(
    ("kind", "patience", "words"),
    [(Failing, LIMIT, "is told nothing more: no route"), (Hanging, 0.2, "is still busy")],
)
def test_a_tracker_that_is_lost_is_a_warning_without_secrets(
    kind: type, patience: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night of training must not end because a server of somebody else's is away."""
    monkeypatch.setitem(TRACKERS, "wandb", kind)
    monkeypatch.setattr(Hanging, "answer", threading.Event())
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abc")
    run = RunFolder(tmp_path / "run")
    config = parse_config({"tracking.report_to": ["wandb"]})
    with Trackers(run, config, EventWriter(run.events), patience) as told:
        told.begin(0)
        for step in (1, 2, 3):
            told.log(step, {"loss": 1.0})
        assert kind is Hanging or _ends(told)
    (warning,) = [e["message"] for e in events(run, "log")]
    Hanging.answer.set()
    assert words in warning and warning.endswith("The run goes on without it.")
    assert "secret-1" not in warning and "0123456789abc" not in warning


def _ends(told: Trackers) -> bool:
    for one in told._told:
        one.join(LIMIT)
    return not any(one.is_alive() for one in told._told)


def test_settings_are_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-12345678")
    config = parse_config(
        {
            "data.system_prompt": "ask sk-12345678 at https://me:word@example.org/v1",
            "classification.own_weights": {"api_key": 2, "spam": 3},
        }
    )
    told = open_settings(config)
    assert told["data.system_prompt"] == "ask (hidden) at https://example.org/v1"
    assert told["classification.own_weights"]["spam"] == 3
    assert told["training.learning_rate"] == config.training.learning_rate
    assert without_secrets("loss 1.2 at http://host:5000/a@b") == "loss 1.2 at http://host:5000/a@b"


def test_a_missing_key_is_said_at_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    values = {"tracking.report_to": ["wandb"], "tracking.wandb_mode": "online"}
    (problem,) = tracker_warnings(parse_config(values))
    assert problem.field == "tracking.wandb_mode" and "WANDB_API_KEY" in problem.message
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abc")
    assert tracker_warnings(parse_config(values)) == []


def test_a_package_is_forgotten_while_another_thread_imports() -> None:
    """With TensorBoard beside it, trackio was told nothing at all."""
    stop, before = threading.Event(), sys.getswitchinterval()

    def keep_importing() -> None:
        for number in itertools.cycle(range(50)):
            if stop.is_set():
                break
            sys.modules[f"made_up_{number}"] = sys
            sys.modules.pop(f"made_up_{(number + 25) % 50}", None)

    thread = threading.Thread(target=keep_importing)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            trackers._forget("no_such_package")
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
        for number in range(50):
            sys.modules.pop(f"made_up_{number}", None)
