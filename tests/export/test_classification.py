"""A classifier exported as adapter and merged, and opened as the card says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from core.jobs.task import read_result
from core.models.labels import FILE
from core.worker.export.run import run_export
from core.workspace import RunFolder
from tests.training.labelled import LabelWorld, label_world, labelled_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    torch.set_num_threads(1)
    made = label_world(tmp_path_factory.mktemp("exported"))
    made.data("rule", labelled_rows(240), labelled_rows(48, 1))
    made.data("several", labelled_rows(96, 2, several=True))
    return made


@pytest.fixture(scope="module")
def run(world: LabelWorld) -> RunFolder:
    return world.train("learned", "rule")


def export(world: LabelWorld, run: RunFolder, name: str, **params: Any) -> tuple[Path, Any]:
    folder = run.root / "exports" / name
    folder.mkdir(parents=True)
    record = {"id": name, "kind": "export", "run_id": run.root.name, "params": params}
    (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
    assert run_export(folder, world.workspace.root) == "finished"
    result = read_result(folder)
    assert result is not None
    return folder / result["path"], result


def test_a_merged_classifier_gives_labels_by_name(world: LabelWorld, run: RunFolder) -> None:
    """Whoever gets the model would see LABEL_0, or another model's labels."""
    place, result = export(world, run, "merged", format="merged")
    assert all(check["ok"] for check in result["checks"])
    names = {check["name"] for check in result["checks"]}
    assert {"Scores as the trained model", "Gives the same labels", "Knows its labels"} <= names
    give = pipeline("text-classification", str(place), device="cpu")
    assert give("here is dog and")[0]["label"] == "animal"
    assert give("a blue today saw")[0]["label"] == "colour"
    assert json.loads((place / FILE).read_text())["label2id"]["fruit"] == 2
    card = (place / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "AutoModelForCausalLM" not in card


def test_the_adapter_opens_as_its_card_says(world: LabelWorld, run: RunFolder) -> None:
    place, _ = export(world, run, "adapter", format="adapter")
    code = re.search(r"```python\n(.*?)```", (place / "README.md").read_text(), re.S)
    assert code is not None
    source = code[1].replace("path/to/this/folder", str(place))
    found: dict[str, Any] = {}
    exec(  # noqa: S102 - the code that we tell people to run
        source.replace("path/to/tiny-bert", str(world.workspace.models / "tiny-bert")), found
    )
    model = found["model"].eval()
    with torch.inference_mode():
        logits = model(**found["tokenizer"]("here is dog and", return_tensors="pt")).logits
    assert model.config.id2label[int(logits.argmax())] == "animal"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("full", {"adapter.method": "none", "training.learning_rate": 3e-3}),
        ("llama", {"model.model_name_or_path": "tiny-llama", "training.learning_rate": 3e-3}),
    ],
)
def test_whole_models_and_decoders_export(
    world: LabelWorld, name: str, settings: dict[str, Any]
) -> None:
    settings |= {"training.num_train_epochs": 1.0, "evaluation.eval_strategy": "no"}
    run = world.train(name, "several", **settings)
    place, result = export(world, run, "merged", format="merged")
    assert all(check["ok"] for check in result["checks"])
    model = AutoModelForSequenceClassification.from_pretrained(place)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.label2id == {"animal": 0, "colour": 1, "fruit": 2}
    tokenizer = AutoTokenizer.from_pretrained(place)
    batch = tokenizer(["a dog", "a red apple is here"], padding=True, return_tensors="pt")
    assert model(**batch).logits.shape == (2, 3)
