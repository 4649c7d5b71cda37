"""A script without Tunesmith must train as the run did: the same rows, settings and losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.data.prepare import import_dataset
from core.errors import ExportError
from core.export.formats import formats
from core.jobs.task import read_result
from core.rules import parse_config
from core.worker.export.run import run_export
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.preferences import bring, pairs
from tests.tiny_model import TinyWorld, colour_rows, tiny_world
from tests.training.conftest import SETTINGS, losses

WITHOUT_TUNESMITH = """
import runpy, sys
sys.modules["core"] = sys.modules["webui"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("script") / "ws", eval_rows=colour_rows()[:4])


def trained(world: TinyWorld, name: str, **settings: Any) -> RunFolder:
    run = world.run(name, {**SETTINGS, "adapter.r": 4, **settings})
    assert run_training(run.root, world.root, None) == "finished"
    return run


def exported(world: TinyWorld, run: RunFolder) -> Path:
    folder = world.task(run, "export", "as-code", {"format": "script"})
    assert run_export(folder, world.root) == "finished"
    result = read_result(folder) or {}
    assert (result["parts"], result["checks"], result["perplexity"]) == ([], [], None)
    return folder / result["path"]


def repeated(folder: Path, base: Path, output: Path) -> list[dict[str, Any]]:
    """What the script logs, run by a Python that has no Tunesmith."""
    command = [sys.executable, "-c", WITHOUT_TUNESMITH, str(folder / "train.py")]
    command += ["--model", str(base), "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["HF_DATASETS_CACHE"] = str(output.parent / "cache")
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((output / "trainer_state.json").read_text())
    return list(state["log_history"])


def of_messages(world: TinyWorld) -> str:
    return world.dataset.id


def of_pairs(world: TinyWorld) -> str:
    """The same rows as prompt and completion."""
    file = world.workspace.uploads / "pairs.jsonl"
    turns = [row["messages"] for row in colour_rows()]
    pairs = [{"prompt": one[0]["content"], "completion": one[1]["content"]} for one in turns]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return import_dataset(world.workspace, [file], name="Pairs", eval_fraction=0.0).id


def of_preferences(world: TinyWorld) -> str:
    return bring(world.workspace, pairs(), pairs(["cup"]), "Preferences").id


EVALUATING = {"evaluation.eval_strategy": "epoch", "tracking.save_strategy": "epoch"}


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (of_messages, {**EVALUATING, "evaluation.load_best_model_at_end": True}),
        (
            of_pairs,
            {
                "adapter.use_rslora": True,
                "adapter.target_modules": ["q_proj", "v_proj"],
                "training.gradient_accumulation_steps": 2,
                "training.lr_scheduler_type": "linear",
                "training.weight_decay": 0.1,
                "training.seed": 7,
                "data.learn": "everything",
            },
        ),
        (of_messages, {"adapter.method": "none", "training.learning_rate": 1e-3}),
        (of_messages, {"adapter.quantization": "nf4", "training.num_train_epochs": 1.0}),
        (of_preferences, {**EVALUATING, "method": "dpo", "preference.beta": 0.3}),
        (of_preferences, {"method": "dpo", "adapter.method": "none", "training.max_steps": 4}),
    ],
    ids=["messages", "prompt-completion", "every weight", "base in 4 bits", "dpo", "dpo whole"],
)
def test_its_losses_are_the_runs(
    world: TinyWorld,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    rows: Callable[[TinyWorld], str],
    settings: dict[str, Any],
) -> None:
    """Whoever repeats a run elsewhere would get another model, and never know why."""
    name = request.node.callspec.id.replace(" ", "-")
    run = trained(world, name, **{"data.dataset": rows(world), **settings})
    folder = exported(world, run)
    evaluates = "evaluation.eval_strategy" in settings
    kept = {path.name for path in folder.glob("*.jsonl")}
    assert kept == ({"train.jsonl", "eval.jsonl"} if evaluates else {"train.jsonl"})
    assert not list(folder.glob("*.safetensors"))
    logs = repeated(folder, world.base, tmp_path / "out")
    found, wanted = [log["loss"] for log in logs if "loss" in log], losses(run)
    assert len(found) == len(wanted) > 1 and wanted[-1] < wanted[0] - 0.3
    assert found == pytest.approx(wanted, abs=1e-4)
    result = tmp_path / "out" / "final"
    assert AutoTokenizer.from_pretrained(result).chat_template
    if settings.get("adapter.method") == "none":
        AutoModelForCausalLM.from_pretrained(result)
    else:
        base = AutoModelForCausalLM.from_pretrained(world.base)
        assert PeftModel.from_pretrained(base, str(result)).peft_config["default"].r == 4


def test_it_names_the_versions_and_says_only_what_differs(world: TinyWorld) -> None:
    """uv could not run it; nobody could see what is special about the run."""
    run = trained(world, "plain", **{"training.max_steps": 1})
    folder = exported(world, run)
    text = (folder / "train.py").read_text()
    header = text.partition("# /// script\n")[2].partition("# ///\n")[0]
    told = tomllib.loads("".join(line[2:] + "\n" for line in header.splitlines()))
    names = [one.partition("==")[0] for one in told["dependencies"]]
    assert names == ["torch", "transformers", "trl", "peft", "datasets", "accelerate"]
    assert all("==" in one and "+" not in one for one in told["dependencies"])
    assert "LoraConfig(" in text and "learning_rate=0.01" in text and "bf16=False" in text
    assert "adam_epsilon" not in text and "weight_decay" not in text  # the library's defaults
    for path in folder.iterdir():
        assert str(world.root) not in path.read_text(encoding="utf-8"), path.name
    card = (folder / "README.md").read_text()
    assert "uv run train.py --model" in card and "What was checked" not in card


def test_without_the_rows_there_is_no_script(world: TinyWorld) -> None:
    run = trained(world, "orphan", **{"training.max_steps": 1})
    text = run.config.read_text().replace(f"dataset: {world.dataset.id}", "dataset: gone")
    run.config.write_text(text)
    with pytest.raises(ExportError, match="no longer there, and a script needs its rows"):
        run_export(world.task(run, "export", "s1", {"format": "script"}), world.root)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "kto"}, "This run trained by kto"),
        ({"method": "dpo", "preference.ref_model": "none"}, "another reference than its base"),
        ({"adapter.method": "vera"}, "trained VeRA in a way that has no script yet"),
        ({"adapter.init_lora_weights": "pissa"}, "trained LoRA in a way that has no script yet"),
        ({"adapter.loraplus_lr_ratio": 16.0}, "trained LoRA in a way that has no script yet"),
        ({"training.packing": True}, "packed its rows"),
        ({"vocabulary.new_tokens": ["<x>"]}, "added tokens"),
        ({"training.optim": "adalomo", "adapter.method": "none"}, "the optimizer adalomo"),
        ({"model.start_from": "merge", "model.from_run": "a-run"}, "goes on from another one"),
    ],
)
def test_what_a_script_cannot_repeat_is_told(settings: dict[str, Any], says: str) -> None:
    """A script that trains something else would be worse than none."""
    why = formats()["script"].why_not(parse_config(settings))
    assert why is not None and says in why[0] and why[0].startswith("This run ")
