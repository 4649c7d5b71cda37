"""ONNX must be the trained classifier to onnxruntime, and its script must give the same labels
where there is neither torch nor transformers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from core.errors import ExportError
from core.export.formats import formats
from core.rules import parse_config
from core.worker.export import onnx_runtime
from core.worker.export.run import run_export
from core.workspace import RunFolder
from tests.export.test_classification import export
from tests.training.labelled import LabelWorld, label_world, labelled_rows

TEXTS = ["here is dog and", "a blue today saw", "what we saw then pear pear pear apple"]
WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "transformers", "core"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    torch.set_num_threads(1)
    made = label_world(tmp_path_factory.mktemp("onnx"))
    made.data("rule", labelled_rows(240), labelled_rows(48, 1))
    made.data("several", labelled_rows(240, 2, several=True))
    return made


@pytest.fixture(scope="module")
def exported(world: LabelWorld) -> tuple[RunFolder, Path, Any]:
    run = world.train("learned", "rule")
    return run, *export(world, run, "onnx", format="onnx", onnx=["fp32", "int8"])


def said(folder: Path, *arguments: str, lines: str = "") -> list[dict[str, Any]]:
    """What the folder's own script answers, in a process that cannot import torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "predict.py"), *arguments]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def trained(world: LabelWorld, run: RunFolder, texts: list[str]) -> Any:
    """The trained model's scores, by transformers alone, text by text."""
    place, _result = export(world, run, "merged-to-compare", format="merged")
    model = AutoModelForSequenceClassification.from_pretrained(place).eval()
    tokenizer = AutoTokenizer.from_pretrained(place)
    with torch.inference_mode():
        cut = {"truncation": True, "max_length": 32, "return_tensors": "pt"}
        rows = [model(**tokenizer(text, **cut)).logits[0] for text in texts]
    return torch.stack(rows)


def test_each_file_is_the_trained_classifier_to_onnxruntime(
    world: LabelWorld, exported: tuple[RunFolder, Path, Any]
) -> None:
    run, folder, result = exported
    assert {path.name for path in folder.iterdir()} >= {
        "README.md",
        "config.json",
        "deployment_config.json",
        "label_mapping.json",
        "model-int8.onnx",
        "model.onnx",
        "predict.py",
        "tokenizer.json",
    }
    assert not list(folder.glob("*.safetensors"))
    for file in folder.glob("*.onnx"):  # no traces of the machine that wrote it
        assert b"site-packages" not in file.read_bytes()
    parts = {one["precision"]: one for one in result["parts"]}
    assert list(parts) == ["onnx_fp32", "onnx_int8"]
    assert all(one["tokens_per_second"] > 0 and not one["error"] for one in parts.values())
    assert parts["onnx_int8"]["size_bytes"] < parts["onnx_fp32"]["size_bytes"]
    names = {check["name"] for check in result["checks"]}
    assert {
        "Scores as the trained model",
        "Gives the same labels",
        "Knows its labels",
        "Reads texts as in training",
        "Takes texts of any number and length",
    } <= names
    assert all(check["ok"] for check in result["checks"])
    wanted = trained(world, run, TEXTS).softmax(-1)
    found = said(folder, *TEXTS)
    scores = torch.tensor([list(one["scores"].values()) for one in found])
    torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-3)
    assert [one["label"] for one in found] == ["animal", "colour", "fruit"]


def test_texts_come_from_standard_input_too(exported: tuple[RunFolder, Path, Any]) -> None:
    """A file of texts could not be labelled; padding would change what a text is given."""
    lines = "".join(f"{text}\n" for text in TEXTS * 7)
    found = said(exported[1], "--model", "model-int8.onnx", lines=lines)
    assert [one["text"] for one in found] == TEXTS * 7
    assert [one["label"] for one in found] == ["animal", "colour", "fruit"] * 7


def test_batch_and_length_are_free_and_padding_changes_nothing(
    exported: tuple[RunFolder, Path, Any],
) -> None:
    session = onnxruntime.InferenceSession(str(exported[1] / "model.onnx"))
    ids = np.arange(5, 15, dtype=np.int64)[None]

    def ask(ids: Any, mask: Any) -> Any:
        return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]

    alone = ask(ids, np.ones_like(ids))
    padded = np.zeros((3, 40), dtype=np.int64)
    mask = np.zeros_like(padded)
    padded[:, :10], mask[:, :10] = ids, 1
    assert np.allclose(ask(padded, mask), np.repeat(alone, 3, axis=0), atol=1e-4)


def test_programs_are_told_how_to_feed_it(
    world: LabelWorld, exported: tuple[RunFolder, Path, Any]
) -> None:
    told = json.loads((exported[1] / "deployment_config.json").read_text())
    assert told == {
        "model_type": "bert",
        "task": "text-classification",
        "num_labels": 3,
        "max_length": 32,
        "device": "cpu",
        "problem_type": "single_label_classification",
    }
    merged, _result = export(world, exported[0], "merged", format="merged")
    there = json.loads((merged / "deployment_config.json").read_text())
    assert there == told | {"device": "auto"}
    assert (merged / "label_mapping.json").is_file()


def test_the_card_shows_code_that_runs(exported: tuple[RunFolder, Path, Any]) -> None:
    card = (exported[1] / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.S)
    assert code is not None and "pipeline_tag: text-classification" in card
    source = code[1].replace("path/to/this/folder", str(exported[1])).replace("A text.", TEXTS[0])
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert "'label': 'animal'" in done.stdout, done.stderr


def test_several_labels_a_text_and_a_decoder(world: LabelWorld) -> None:
    """A decoder looks at the last token that is none to pad with."""
    run = world.train(
        "several",
        "several",
        **{
            "model.model_name_or_path": "tiny-llama",
            "training.learning_rate": 3e-3,
            "evaluation.eval_strategy": "no",
        },
    )
    folder, result = export(world, run, "onnx", format="onnx", onnx=["fp32"])
    assert all(check["ok"] for check in result["checks"])
    told = json.loads((folder / "deployment_config.json").read_text())
    assert told["thresholds"] == {"animal": 0.5, "colour": 0.5, "fruit": 0.5}
    wanted = trained(world, run, TEXTS).sigmoid()
    found = said(folder, *TEXTS)
    scores = torch.tensor([list(one["scores"].values()) for one in found])
    torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-3)
    given = [{name for name, x in one["scores"].items() if x >= 0.5} for one in found]
    assert [set(one["labels"]) for one in found] == given


def test_a_file_that_is_not_the_trained_model_is_an_error(
    world: LabelWorld, exported: tuple[RunFolder, Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody would deploy a classifier that guesses."""

    def other(model: Any, files: dict[str, Path]) -> None:
        import onnx

        proto = onnx.load(exported[1] / "model.onnx")
        for tensor in proto.graph.initializer:
            if list(tensor.dims) == [3]:  # the head's bias
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32([9, 0, -9]), tensor.name))
        onnx.save(proto, files["fp32"])

    monkeypatch.setattr(onnx_runtime, "write", other)
    folder = exported[0].root / "exports" / "spoilt"
    folder.mkdir()
    params = {"format": "onnx", "onnx": ["fp32"]}
    record = {"id": "spoilt", "kind": "export", "run_id": "learned", "params": params}
    (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
    with pytest.raises(ExportError, match="does not score as the trained one"):
        run_export(folder, world.workspace.root)
    assert {path.name for path in folder.iterdir()} <= {"job.json", "events.jsonl"}


def test_a_file_that_onnxruntime_cannot_open_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"onnxruntime cannot open broken\.onnx"):
        onnx_runtime.OnnxClassifier(tmp_path / "broken.onnx")


def test_a_model_that_cannot_be_written_is_named() -> None:
    with pytest.raises(ExportError, match="cannot write this Linear model as ONNX"):
        onnx_runtime.write(torch.nn.Linear(2, 2), {})


@pytest.mark.parametrize("method", ["sft", "mlm", "reward"])
def test_only_a_classifier_is_offered_it(method: str) -> None:
    assert formats()["onnx"].why_not(parse_config({"method": method})) is not None
    assert formats()["onnx"].why_not(parse_config({"method": "classification"})) is None
