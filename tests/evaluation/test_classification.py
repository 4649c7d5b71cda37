"""A classifier measured on held-out rows, chatted with and exported, after a real training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from core.commands.evaluate import report_text
from core.evaluation.label_scores import Truth, by_label, macro_f1, means, truth_of
from core.evaluation.report import read_report
from core.evaluation.verdict import shown
from core.models.labels import Labels
from core.worker.evaluation.run import run_evaluation
from core.workspace import RunFolder
from tests.training.conftest import events
from tests.training.labelled import LabelWorld, label_world, labelled_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    torch.set_num_threads(1)
    made = label_world(tmp_path_factory.mktemp("measured"))
    held_out = [*labelled_rows(45, 1), {"text": "today we saw", "labels": ["weather"]}]
    made.data("rule", labelled_rows(240), held_out)
    made.data("several", labelled_rows(240, 2, several=True), labelled_rows(40, 3, several=True))
    return made


@pytest.fixture(scope="module")
def run(world: LabelWorld) -> RunFolder:
    return world.train("learned", "rule")


def evaluate(world: LabelWorld, run: RunFolder, name: str, **params: Any) -> dict[str, Any]:
    folder = run.root / "evaluations" / name
    folder.mkdir(parents=True)
    record = {"id": name, "kind": "evaluate", "run_id": run.root.name, "params": params}
    (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
    assert run_evaluation(folder, world.workspace.root) == "finished"
    report = read_report(folder)
    assert report is not None
    assert "accuracy" in report_text(report)
    return shown(report)


def test_the_report_says_how_many_labels_are_right(world: LabelWorld, run: RunFolder) -> None:
    """A finished classifier could not be judged."""
    result = evaluate(world, run, "one")
    accuracy = result["tuned"]["accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    last = [e["eval_accuracy"] for e in events(run, "metrics") if "eval_accuracy" in e][-1]
    assert accuracy["value"] == pytest.approx(last, abs=0.03)
    assert result["majority"]["accuracy"] == pytest.approx(15 / 46)
    assert [label["label"] for label in result["by_label"]] == ["animal", "colour", "fruit"]
    assert sum(map(sum, result["confusion"])) == 45
    assert any("never saw" in note for note in result["notes"])
    wrong = result["differences"]
    assert "weather" in {row["expected"] for row in wrong}
    assert "It has learned to tell them apart." in result["verdict"]


def test_every_rows_labels_are_kept(world: LabelWorld, run: RunFolder) -> None:
    """Nobody could look at the answers by themselves."""
    evaluate(world, run, "rows", max_rows=10)
    lines = (run.root / "evaluations" / "rows" / "answers.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 10
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_several_labels_are_measured_too(world: LabelWorld) -> None:
    run = world.train("several", "several", **{"training.num_train_epochs": 3.0})
    result = evaluate(world, run, "one")
    assert result["confusion"] is None
    assert result["tuned"]["f1_macro"]["value"] > 0.8


def test_scores_are_those_of_the_formulas() -> None:
    """The numbers would be others than everybody else's."""
    labels = Labels(("a", "b", "c"))
    truth = truth_of([0, 0, 1, 2, -100], labels)
    said = np.eye(3, dtype=bool)[[0, 1, 1, 2, 0]]
    found = means(said, truth)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1_macro"] == pytest.approx((2 * 1 / (2 + 2) + 2 / 3 + 1) / 3)
    estimate = macro_f1(said, truth)
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    """Another count of the same mistakes, on labels that are rare, never given or never there."""
    random = np.random.default_rng(seed)
    wanted, said = random.random((2, 30, 5)) < [0.5, 0.3, 0.1, 0.0, 0.0]
    said[0, 3] = True
    truth = Truth(wanted, np.zeros(30, dtype=bool))
    found, occur = means(said, truth), [0, 1, 2, 3]
    for average in ("macro", "weighted"):
        numbers = precision_recall_fscore_support(
            wanted, said, labels=occur, average=average, zero_division=0
        )
        for name, number in zip(("precision", "recall", "f1"), numbers, strict=False):
            assert found[f"{name}_{average}"] == pytest.approx(number), (name, average)
    labels = by_label(said, truth, Labels(("a", "b", "c", "d", "e"), multi=True))
    each = precision_recall_fscore_support(wanted, said, average=None, zero_division=0)
    for place, name in enumerate(("precision", "recall", "f1", "rows")):
        assert [label[name] for label in labels] == pytest.approx(list(each[place]))


def test_one_label_that_a_text_may_have_or_not() -> None:
    truth = Truth(np.array([[True], [False], [True]]), np.zeros(3, dtype=bool))
    said = np.array([[True], [False], [False]])
    assert means(said, truth)["accuracy"] == pytest.approx(2 / 3)
    assert means(said, truth)["f1_macro"] == pytest.approx(2 / 3)


def test_a_checkpoint_without_its_labels_says_so(world: LabelWorld, run: RunFolder) -> None:
    from core.errors import ModelError
    from core.models.labels import read_labels

    with pytest.raises(ModelError, match="labels of"):
        read_labels(Path(run.root))
