"""The README goes out into the world: it says what the model is, and nothing of this machine."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from core.data.record import Counts, DatasetInfo
from core.export.card import write_card
from core.export.curve_picture import picture
from core.export.format import Base, describe_base
from core.export.formats import formats
from core.models.trained import TrainedModel
from core.rules import parse_config
from core.workspace import RunFolder

DATA = DatasetInfo(
    id="tickets", name="Tickets", form="messages", counts=Counts(train=90, eval=10, read=100)
)


def trained(folder: Path, **settings: object) -> TrainedModel:
    run = RunFolder(folder / "run-1")
    config = parse_config({"name": "Triage", **settings})
    return TrainedModel(run, "final", config, run.adapter, is_adapter=True)


def card(folder: Path, model: TrainedModel, base: Base, format_name: str = "adapter") -> str:
    form = formats()[format_name]
    write_card(folder, model, base, DATA, form=form, dtype="bfloat16", parts=[], checks=["Same."])
    return (folder / "README.md").read_text(encoding="utf-8")


def test_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    base = Base("HuggingFaceTB/SmolLM2-135M-Instruct", True, "apache-2.0")
    text = card(tmp_path, trained(tmp_path), base)
    assert yaml.safe_load(text.split("---")[1]) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["tunesmith", "sft", "lora"],
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "adapter",
        "license": "apache-2.0",
    }
    assert "# Triage" in text
    assert 'from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct", dtype="auto")' in text
    assert "Tickets, 90 rows to learn from and 10 held out" in text


def test_a_base_that_was_a_folder_is_named_without_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "secret" / "my-model"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: MIT\n---\n# A model\n")
    base = describe_base(str(folder), str(folder))
    assert base == Base("my-model", False, "mit")
    model = trained(tmp_path, **{"model.model_name_or_path": str(folder)})
    text = card(tmp_path, model, base)
    assert "secret" not in text
    assert "base_model:" not in text
    assert "put the path of yours in its place" in text
    assert 'from_pretrained("path/to/my-model", dtype="auto")' in text


@pytest.mark.parametrize(
    ("loaded_from", "is_copy"),
    [
        ("models/SmolLM2-135M-Instruct", True),
        ("hub/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/7e27bd9f", False),
    ],
)
def test_a_starter_model_from_a_quantized_copy_is_called_that(
    loaded_from: str, is_copy: bool, tmp_path: Path
) -> None:
    """On the original weights the adapter answers a little differently; its user must know."""
    base = describe_base("SmolLM2-135M-Instruct", loaded_from)
    assert base == Base("HuggingFaceTB/SmolLM2-135M-Instruct", True, "apache-2.0", is_copy)
    text = card(tmp_path, trained(tmp_path), base)
    assert ("quantized to 4 bits and back" in text) is is_copy


def test_a_hub_id_keeps_its_name() -> None:
    assert describe_base("org/model", "org/model") == Base("org/model", True)


def test_a_quantized_training_and_a_merged_model_are_explained(tmp_path: Path) -> None:
    model = trained(tmp_path, **{"adapter.quantization": "nf4"})
    text = card(tmp_path, model, Base("org/model", True), "merged")
    assert "In training the base was held in nf4" in text
    assert "Its weights are in bfloat16." in text
    assert "PeftModel" not in text
    assert "has a licence that its page names" in text


def test_the_verdict_of_an_evaluation_is_passed_on(tmp_path: Path) -> None:
    model = trained(tmp_path)
    folder = model.run.evaluations / "e1"
    folder.mkdir(parents=True)
    numbers = {"eval_loss": {"value": 0.4}, "all_fields": {"value": 0.91}}
    result = {"rows": 40, "checkpoint": "final", "tuned": numbers}
    (folder / "result.json").write_text(json.dumps(result))
    text = card(tmp_path, model, Base("org/model", True))
    assert "gets 91 % of fields right. (Measured on 40 rows.)" in text


def test_what_was_measured_is_told_with_its_interval_and_to_the_hub(tmp_path: Path) -> None:
    model = trained(tmp_path)
    folder = model.run.evaluations / "an-evaluation"
    folder.mkdir(parents=True)
    result = {
        "rows": 20,
        "measured": "answers",
        "dataset": {"id": "tickets", "name": "Tickets"},
        "tuned": {
            "eval_loss": {"value": 0.5, "low": 0.4, "high": 0.6},
            "all_fields": {"value": 0.8, "low": 0.6, "high": 0.9},
        },
        "base": {"eval_loss": {"value": 2.5, "low": None, "high": None}},
    }
    (folder / "result.json").write_text(json.dumps(result))
    text = card(tmp_path, model, Base("org/model", True, "cc-by-nc-4.0"))
    assert "| 0.5 (0.4 to 0.6) | 2.5 |" in text and "| 0.8 (0.6 to 0.9) |  |" in text
    index = yaml.safe_load(text.split("---")[1])["model-index"][0]
    assert index["name"] == "Triage"
    found = index["results"][0]
    assert found["dataset"] == {"name": "Tickets", "type": "tickets"}
    assert {one["type"]: one["value"] for one in found["metrics"]} == {
        "eval_loss": 0.5,
        "all_fields": 0.8,
    }
    assert "**It allows no commercial use.**" in text
    assert "What it must not be used for: ..." in text and "transformers 5." in text


def test_the_curves_are_a_picture(tmp_path: Path) -> None:
    """A card is read where nobody has the run."""
    model, form = trained(tmp_path), formats()["adapter"]
    curves = {
        "loss": [(1.0, 3.0), (2.0, 1.0)],
        "eval_loss": [(2.0, 1.5)],
        "grad_norm": [(1.0, 9.0)],
    }
    write_card(
        tmp_path,
        model,
        Base("org/model", True),
        DATA,
        form=form,
        dtype="bfloat16",
        parts=[],
        checks=[],
        curves=curves,
    )
    drawn = ElementTree.fromstring((tmp_path / "curves.svg").read_text())
    found = drawn.iter("{http://www.w3.org/2000/svg}polyline")
    lines = [line.get("points", "").split() for line in found]
    assert [len(points) for points in lines] == [2, 1]
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in lines[0])
    assert x2 > x1 and y2 > y1  # lower values stand lower
    assert "curves.svg" in (tmp_path / "README.md").read_text()
    assert picture({"loss": []}) == ""
