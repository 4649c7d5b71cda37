"""A run that pushes what it saves: the Hub gets the newest, and no refusal ends the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.jobs.events import read_events
from core.rules import parse_config
from tests.cli_bench import make_chat_model, write_rows
from tests.hub.stand_in import WRITES, Hub
from tests.hub.test_account import command
from tests.hub.test_push import downloaded


@pytest.fixture
def train(hub: Hub, tmp_path: Path) -> Any:
    """Trains for four steps with a save at each second; the run's folder, its events and what
    became of it."""
    model, home = make_chat_model(tmp_path / "a model"), tmp_path / "home"
    where = ("--workspace", str(tmp_path / "workspace"))
    rows = str(write_rows(tmp_path / "rows.jsonl"))
    assert command(hub, home, "data", "import", rows, *where).returncode == 0
    assert command(hub, home, "hub", "login", text=WRITES).returncode == 0

    def train(*more: str) -> tuple[Path, list[dict[str, Any]], Any]:
        words = {
            "--model.model_name_or_path": str(model),
            "--data.dataset": "rows",
            "--training.precision": "fp32",
            "--training.max_steps": "4",
            "--tracking.save_steps": "2",
            "--tracking.push_to_hub": "true",
            "--tracking.hub_model_id": "ada/live",
        }
        flat = [part for pair in words.items() for part in pair]
        done = command(hub, home, "train", "quickstart", *flat, *more, "--json", *where)
        assert done.returncode == 0, done.stderr
        run = tmp_path / "workspace" / "runs" / json.loads(done.stdout)["run"]
        return run, list(read_events(run / "events.jsonl")), done

    return train


def test_each_save_is_pushed_and_a_hub_that_fails_is_only_told(
    hub: Hub, train: Any, tmp_path: Path
) -> None:
    hub.fails("POST /api/models/ada/live/commit", status=500)
    run, events, done = train()
    warnings = [one["message"] for one in events if one.get("level") == "warning"]
    assert [one for one in warnings if "was not pushed to the Hub: The Hub has a fault" in one]
    there = hub.repository("ada/live")
    assert there.private
    assert there.titles[-1] == f"Push final of run {run.name} with Tunesmith"
    found = downloaded(hub, tmp_path / "home", "ada/live")
    assert not {"optimizer.pt", "trainer_state.json", "training_args.bin"} & found.keys()
    assert b"base_model" in found["README.md"] or b"library_name: peft" in found["README.md"]
    assert json.loads(found["adapter_config.json"])["base_model_name_or_path"] == "a model"
    weights = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    assert found["adapter_model.safetensors"] == weights
    place = tmp_path / "here"
    place.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (place / name).write_bytes(found[name])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "a model", dtype=torch.float32)
    assert PeftModel.from_pretrained(base, place)
    assert not (run / ".pushes").exists()
    for name, content in found.items():
        assert str(tmp_path).encode() not in content, name
    for path in run.rglob("*"):
        assert not path.is_file() or WRITES.encode() not in path.read_bytes(), path
    assert WRITES not in done.stdout + done.stderr


def test_only_the_end_is_pushed_where_that_is_chosen(hub: Hub, train: Any) -> None:
    run, _events, _done = train("--tracking.hub_strategy", "end")
    titles = [one for one in hub.repository("ada/live").titles if one.startswith("Push")]
    assert titles == [f"Push final of run {run.name} with Tunesmith"]


def test_a_run_without_a_hub_finishes_all_the_same(hub: Hub, train: Any, tmp_path: Path) -> None:
    command(hub, tmp_path / "home", "hub", "logout")
    run, events, _done = train()
    told = [one["message"] for one in events if one.get("level") == "warning"]
    assert [one for one in told if one.startswith("final was not pushed to the Hub: You are not")]
    assert (run / "adapter" / "adapter_model.safetensors").is_file() and hub.repositories == {}


def test_a_repository_must_be_named() -> None:
    for name, told in {"": "name the repository", "colours": "hub_model_id"}.items():
        with pytest.raises(Exception, match=told):
            parse_config({"tracking.push_to_hub": True, "tracking.hub_model_id": name})
