"""A script without Tunesmith must train as the run did: the same rows, settings and losses."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from peft import PeftConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from core.data.prepare import import_dataset
from core.errors import ExportError
from core.export.formats import formats
from core.jobs.task import read_result
from core.methods import METHODS
from core.rules import parse_config
from core.worker.export.run import run_export
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.preferences import THINGS, bring, judged, pairs
from tests.tiny_model import TinyWorld, colour_rows, tiny_world
from tests.training.conftest import SETTINGS, losses
from tests.training.labelled import labelled_rows, tiny_bert


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    world = tiny_world(tmp_path_factory.mktemp("script") / "ws", eval_rows=colour_rows()[:4])
    tiny_bert(world.workspace.models / "tiny-bert")  # without a classifier's pooler
    return world


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


def logged(output: Path) -> list[dict[str, Any]]:
    state = json.loads((output / "trainer_state.json").read_text())
    return list(state["log_history"])


@pytest.fixture
def repeat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Path, Path], list[dict[str, Any]]]:
    """What a script logs, run in this process, which has imported its libraries, as if there were
    no Tunesmith."""

    def go(folder: Path, base: Path) -> list[dict[str, Any]]:
        script, output = folder / "train.py", tmp_path / "out"
        with monkeypatch.context() as here:
            here.setattr(sys, "argv", [str(script), "--model", str(base), "--output", str(output)])
            here.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
            for name in list(sys.modules):
                if name.partition(".")[0] in ("core", "webui"):
                    here.setitem(sys.modules, name, None)
            runpy.run_path(str(script), run_name="__main__")
        return logged(output)

    return go


def of_messages(world: TinyWorld) -> str:
    return world.dataset.id


def brought(world: TinyWorld, name: str, rows: list[dict[str, Any]], **options: Any) -> str:
    file = world.workspace.uploads / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_dataset(world.workspace, [file], name=name, eval_fraction=0.0, **options).id


def of_pairs(world: TinyWorld) -> str:
    """The same rows as prompt and completion."""
    turns = [row["messages"] for row in colour_rows()]
    rows = [{"prompt": one[0]["content"], "completion": one[1]["content"]} for one in turns]
    return brought(world, "pairs", rows)


def of_texts(world: TinyWorld) -> str:
    rows = [{"text": f"a {row['messages'][0]['content']} here and there"} for row in colour_rows()]
    return brought(world, "texts", rows * 3)


def of_label_texts(world: TinyWorld) -> str:
    rows = [{"text": row["text"]} for row in labelled_rows(22)]
    return bring(world.workspace, rows, rows[:4], "Label texts").id


def of_labels(world: TinyWorld) -> str:
    rows = [{"text": row["text"], "labels": row["labels"][0]} for row in labelled_rows(22)]
    return brought(
        world, "labels", rows, form="labelled-text", mapping={"text": "text", "label": "labels"}
    )


def of_several_labels(world: TinyWorld) -> str:
    rows = labelled_rows(24, several=True)
    return brought(
        world, "several", rows, form="labelled-text", mapping={"text": "text", "label": "labels"}
    )


def of_preferences(world: TinyWorld) -> str:
    return bring(world.workspace, pairs(THINGS[:3]), pairs(["cup"]), "Preferences").id


def of_judged(world: TinyWorld) -> str:
    return bring(world.workspace, judged(THINGS[:2]), judged(["cup"]), "Judged").id


EVALUATING = {"evaluation.eval_strategy": "epoch", "tracking.save_strategy": "epoch"}
CLASSIFYING = {"method": "classification", "training.num_train_epochs": 3.0}
WHOLE = {"adapter.method": "none", "training.learning_rate": 1e-3}
Rows = Callable[[TinyWorld], str]
# Method by method; the settings of each are shared out among them.
RUNS: dict[str, tuple[Rows, dict[str, Any]]] = {
    "messages": (of_messages, {**EVALUATING, "evaluation.load_best_model_at_end": True}),
    "prompt-completion": (
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
    "packed": (
        of_messages,
        {
            **EVALUATING,
            "training.packing": True,
            "training.max_length": 48,
            "adapter.method": "loha",
        },
    ),
    "packed and cut": (
        of_messages,
        {
            "training.packing": True,
            "training.packing_strategy": "wrapped",
            "training.max_length": 32,
            "adapter.loraplus_lr_ratio": 4.0,
            "adapter.init_lora_weights": "pissa",
        },
    ),
    "lokr": (of_messages, {"adapter.method": "lokr"}),
    "vera": (of_messages, {"adapter.method": "vera", "adapter.quantization": "nf4"}),
    "oft": (of_messages, {"adapter.method": "oft"}),
    "ia3": (of_messages, {"adapter.method": "ia3"}),
    "every weight": (of_messages, WHOLE),
    "base in 4 bits": (
        of_messages,
        {"adapter.quantization": "nf4", "training.num_train_epochs": 1.0},
    ),
    "texts apart": (of_texts, {"method": "cpt", "training.max_length": 32}),
    "texts joined": (
        of_texts,
        {"method": "cpt", "training.max_length": 32, "text.documents": "joined", **WHOLE},
    ),
    "labels": (
        of_labels,
        {
            **CLASSIFYING,
            "model.model_name_or_path": "tiny-bert",
            "classification.loss": "focal",
            "classification.class_weights": "balanced",
            "training.gradient_accumulation_steps": 2,
        },
    ),
    "several labels": (
        of_several_labels,
        {**CLASSIFYING, **WHOLE, "training.train_sampling_strategy": "random"},
    ),
    "hidden words": (
        of_label_texts,
        {**EVALUATING, "method": "mlm", "model.model_name_or_path": "tiny-bert"},
    ),
    "whole hidden words": (
        of_label_texts,
        {"method": "mlm", "model.model_name_or_path": "tiny-bert", "text.whole_word_mask": True},
    ),
    "dpo": (of_preferences, {**EVALUATING, "method": "dpo", "preference.beta": 0.3}),
    "dpo whole": (of_preferences, {"method": "dpo", **WHOLE, "training.max_steps": 3}),
    "kto": (of_judged, {**EVALUATING, "method": "kto", "preference.desirable_weight": 1.2}),
    "orpo": (of_preferences, {**EVALUATING, "method": "orpo"}),
    "orpo all": (of_preferences, {"method": "orpo", "data.learn": "everything", **WHOLE}),
    "simpo": (of_preferences, {"method": "cpo", "preference.cpo_loss_type": "simpo"}),
    "reward": (of_preferences, {**EVALUATING, "method": "reward"}),
}


@pytest.mark.parametrize("name", RUNS)
def test_its_losses_are_the_runs(
    world: TinyWorld,
    tmp_path: Path,
    repeat: Callable[[Path, Path], list[dict[str, Any]]],
    name: str,
) -> None:
    """Whoever repeats a run elsewhere would get another model, and never know why."""
    rows, settings = RUNS[name]
    run = trained(world, name.replace(" ", "-"), **{"data.dataset": rows(world), **settings})
    folder = exported(world, run)
    evaluates = "evaluation.eval_strategy" in settings
    kept = {path.name for path in folder.glob("*.jsonl")}
    assert kept == ({"train.jsonl", "eval.jsonl"} if evaluates else {"train.jsonl"})
    assert not list(folder.glob("*.safetensors"))
    model = world.workspace.models / str(settings.get("model.model_name_or_path", "tiny"))
    logs = repeat(folder, model)
    found, wanted = [log["loss"] for log in logs if "loss" in log], losses(run)
    assert len(found) == len(wanted) > 1 and min(wanted) < wanted[0]
    assert found == pytest.approx(wanted, abs=1e-4)
    result = tmp_path / "out" / "final"
    saved, own = (AutoTokenizer.from_pretrained(one) for one in (result, model))
    assert (saved.get_vocab(), saved.chat_template) == (own.get_vocab(), own.chat_template)
    if settings.get("adapter.method") == "none":
        has_head = METHODS[settings.get("method", "sft")].has_head
        opened = AutoModelForSequenceClassification if has_head else AutoModelForCausalLM
        opened.from_pretrained(result)
    else:
        kind = PeftConfig.from_pretrained(str(result)).peft_type.value.lower()
        assert kind == settings.get("adapter.method", "lora")


def test_it_needs_no_tunesmith(world: TinyWorld, tmp_path: Path) -> None:
    """Where the libraries were never touched by Tunesmith it would train something else."""
    run = trained(world, "alone", **{"training.num_train_epochs": 1.0})
    folder, output = exported(world, run), tmp_path / "out"
    code = "import runpy, sys; sys.argv = sys.argv[1:]; sys.modules.update(core=None, webui=None); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(folder / "train.py")]
    command += ["--model", str(world.base), "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["HF_DATASETS_CACHE"] = str(tmp_path / "cache")
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [log["loss"] for log in logged(output) if "loss" in log]
    assert found == pytest.approx(losses(run), abs=1e-4)


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
        (
            {"method": "grpo", "reinforcement.rewards": [{"kind": "json_valid", "weight": 1}]},
            "This run learned from rewards that Tunesmith gives (GRPO",
        ),
        (
            {
                "method": "classification",
                "evaluation.load_best_model_at_end": True,
                "evaluation.metric_for_best_model": "f1_macro",
                "evaluation.greater_is_better": True,
            },
            "chose its best checkpoint by f1_macro",
        ),
        ({"method": "dpo", "preference.ref_model": "none"}, "another reference than its base"),
        ({"adapter.method": "adalora"}, "trained AdaLoRA in a way that has no script yet"),
        ({"adapter.init_lora_weights": "eva"}, "trained LoRA in a way that has no script yet"),
        ({"vocabulary.new_tokens": ["<x>"]}, "added tokens"),
        ({"training.optim": "adalomo", "adapter.method": "none"}, "the optimizer adalomo"),
        ({"model.start_from": "merge", "model.from_run": "a-run"}, "goes on from another one"),
    ],
)
def test_what_a_script_cannot_repeat_is_told(settings: dict[str, Any], says: str) -> None:
    """A script that trains something else would be worse than none."""
    why = formats()["script"].why_not(parse_config(settings))
    assert why is not None and says in why[0] and why[0].startswith("This run ")
