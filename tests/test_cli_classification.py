"""A classifier from the shell, with real workers: trained, measured, asked, exported."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from core import cli
from tests.training.labelled import label_world, labelled_rows


def typed(workspace: Path, *words: str) -> tuple[int, Any, str]:
    """(exit code, the JSON that was printed, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["--workspace", str(workspace), *words, "--json"])
    return code, json.loads(out.getvalue() or "{}"), err.getvalue()


def test_a_classifier_goes_the_whole_way(tmp_path: Path) -> None:
    """What works part by part would not work together."""
    world = label_world(tmp_path / "workspace")
    world.data("rule", labelled_rows(240), labelled_rows(48, 1))

    def ask(*words: str) -> Any:
        code, found, err = typed(world.workspace.root, *words)
        assert code == 0, err
        return found

    settings = {
        "model.model_name_or_path": "tiny-bert",
        "data.dataset": "rule",
        "training.num_train_epochs": "2",
        "training.learning_rate": "3e-3",
        "training.precision": "fp32",
        "training.device": "cpu",
        "classification.class_weights": "balanced",
    }
    options = [word for path, value in settings.items() for word in (f"--{path}", value)]
    trained = ask("train", "classify-minilm", *options)
    assert trained["state"] == "finished"
    model = Path(trained["folder"]) / "model"
    assert json.loads((model / "label_mapping.json").read_text())["label2id"]["fruit"] == 2
    measured = ask("evaluate", trained["run"])
    assert measured["result"]["tuned"]["accuracy"]["value"] > 0.75
    said = ask("chat", trained["run"], "--prompt", "here is dog and")
    assert said["answer"].startswith("animal: ")
    assert measured["result"]["speed"]["batched"] > 0 and measured["result"]["calibration"]

    texts = world.workspace.root / "unlabelled.jsonl"
    lines = [json.dumps({"text": row["text"]}) + "\n" for row in labelled_rows(30, 7)]
    texts.write_text("".join([*lines, json.dumps({"text": ""})]))
    labelled = ask("predict", trained["run"], str(texts), "--output", str(tmp_path / "out.jsonl"))
    assert (labelled["rows"], labelled["left_out"]) == (30, 1)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-3) for one in found)
    wanted = [row["labels"] for row in labelled_rows(30, 7)]
    right = sum(one["labels"] == labels for one, labels in zip(found, wanted, strict=True))
    assert right > 0.6 * 30
    code, _, err = typed(world.workspace.root, "predict", trained["run"], "rule-that-is-not")
    assert code == 1 and "does not exist" in err

    exported = ask("export", trained["run"], "--format", "merged")
    assert exported["state"] == "finished"
    code, _, err = typed(world.workspace.root, "train", "quickstart", "--data.dataset", "rule")
    assert code != 0 and "labelled-text" in err
