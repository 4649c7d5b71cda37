"""Whole classification runs on tiny models, from config.yaml to the saved adapter and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.errors import ConfigError, DataError
from core.models.labels import FILE
from core.models.trained import find_trained
from core.rules import load_config
from core.worker.models.classifier import label_logits, open_classifier, text_ids
from core.worker.training.callbacks import ReportEvents
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.training.conftest import events
from tests.training.labelled import LabelWorld, label_world, labelled_rows

LLAMA = {"model.model_name_or_path": "tiny-llama", "training.learning_rate": 3e-3}
FULL = {"adapter.method": "none", "training.learning_rate": 3e-3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    made = label_world(tmp_path_factory.mktemp("labels"))
    made.data("rule", labelled_rows(240), labelled_rows(48, 1))
    made.data("short", labelled_rows(96), labelled_rows(48, 1))
    made.data("several", labelled_rows(320, 2, several=True), labelled_rows(48, 3, several=True))
    return made


def last(run: RunFolder, name: str) -> float:
    return [event[name] for event in events(run, "metrics") if name in event][-1]


@pytest.mark.parametrize(
    "settings",
    [{}, FULL, LLAMA],
    ids=["encoder-lora", "encoder-full", "decoder-lora"],
)
def test_a_rule_is_learned_and_opens_again(
    world: LabelWorld, request: pytest.FixtureRequest, settings: dict[str, Any]
) -> None:
    """A finished classifier would guess, or would give other labels once it is loaded."""
    name = request.node.callspec.id
    run = world.train(name, "rule", **settings)
    assert last(run, "eval_accuracy") > 0.75  # by chance 0.33
    assert last(run, "eval_f1_macro") > 0.75
    trained = find_trained(run)
    mapping = json.loads((trained.folder / FILE).read_text())
    assert mapping["label2id"] == {"animal": 0, "colour": 1, "fruit": 2}
    if not trained.is_adapter:
        config = json.loads((trained.folder / "config.json").read_text())
        assert config["id2label"] == {"0": "animal", "1": "colour", "2": "fruit"}
    model, tokenizer, labels = open_classifier(
        trained, str(world.workspace.models / trained.base), device="cpu", dtype=torch.float32
    )
    rows = labelled_rows(48, 1)
    ids = text_ids(tokenizer, [row["text"] for row in rows], 32)
    said = label_logits(model, tokenizer, ids).argmax(-1).tolist()
    right = sum(labels.names[i] == row["labels"][0] for i, row in zip(said, rows, strict=True))
    assert right / 48 == pytest.approx(last(run, "eval_accuracy"), abs=0.03)


def test_a_part_that_the_base_has_not_is_saved_with_the_adapter(world: LabelWorld) -> None:
    """The base comes without a pooler: drawn anew at each load, the labels would be noise."""
    run = world.train("pooler", "short", **{"training.num_train_epochs": 1.0})
    names = load_file(run.adapter / "adapter_model.safetensors").keys()
    assert any("pooler.dense.weight" in name for name in names)
    assert any("classifier.weight" in name for name in names)


def test_several_labels_a_text(world: LabelWorld) -> None:
    """A text of two labels would be given one."""
    run = world.train("several", "several", **{"training.num_train_epochs": 3.0})
    assert last(run, "eval_f1_macro") > 0.8
    assert last(run, "eval_accuracy") > 0.5  # all three labels right; by chance 0.125
    mapping = json.loads((run.adapter / FILE).read_text())
    assert mapping["problem_type"] == "multi_label_classification"


def test_events_show_the_learning_and_each_label(world: LabelWorld) -> None:
    """Train would show no curve of the accuracy, no sample and no label by itself."""
    run = world.train("events", "short", **{"training.num_train_epochs": 2.0})
    measured = [event for event in events(run, "metrics") if "eval_loss" in event]
    wanted = {"eval_accuracy", "eval_f1_macro", "eval_f1_weighted", "eval_precision_macro"}
    assert len(measured) == 2 and wanted <= measured[0].keys()
    step = next(event for event in events(run, "metrics") if "loss" in event)
    assert {"tokens_per_second", "grad_norm", "learning_rate"} <= step.keys()
    told = [event for event in events(run, "log") if "by_label" in event]
    assert [label["label"] for label in told[0]["by_label"]] == ["animal", "colour", "fruit"]
    assert sum(map(sum, told[0]["confusion"])) == 48
    samples = [event for event in events(run, "sample") if event["step"] == 0]
    assert {event["expected"] for event in samples} == {"animal", "colour", "fruit"}
    assert all("%" in event["answer"] for event in samples)


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = ReportEvents.on_step_begin

    def ask(self: ReportEvents, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == step - 1:
            RunFolder(Path(args.output_dir).parent).stop_request.touch()
        begin(self, args, state, control, **given)

    monkeypatch.setattr(ReportEvents, "on_step_begin", ask)


@pytest.mark.parametrize("settings", [{"adapter.lora_dropout": 0.1}, FULL], ids=["lora", "full"])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    world: LabelWorld,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    settings: dict[str, Any],
) -> None:
    """A run that was stopped would not be the run that one would have had."""
    short = {"training.num_train_epochs": 2.0, "tracking.save_strategy": "epoch", **settings}
    name = request.node.callspec.id
    whole = world.train(f"whole-{name}", "short", **short)
    parts = world.run(f"parts-{name}", "short", **short)
    with monkeypatch.context() as patch:
        stop_at(5, patch)
        assert run_training(parts.root, world.workspace.root, None) == "stopped"
    checkpoint = parts.checkpoints / "checkpoint-5"
    assert (checkpoint / FILE).is_file()
    parts.stop_request.unlink()
    torch.manual_seed(12345)  # another process has other random numbers
    assert run_training(parts.root, world.workspace.root, checkpoint) == "finished"
    found, expected = (
        load_file(next(find_trained(run).folder.glob("*model.safetensors")))
        for run in (parts, whole)
    )
    assert found.keys() == expected.keys()
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


def test_the_best_checkpoint_by_f1_is_kept(world: LabelWorld) -> None:
    """Early stopping would go by the loss alone, or end with the worst model."""
    run = world.train(
        "best",
        "short",
        **{
            "tracking.save_strategy": "epoch",
            "evaluation.metric_for_best_model": "eval_f1_macro",
            "evaluation.greater_is_better": True,
            "evaluation.early_stopping_patience": 1,
            "evaluation.early_stopping_threshold": 1.0,  # nothing is enough of a gain
            "training.num_train_epochs": 6.0,
        },
    )
    values = [e["eval_f1_macro"] for e in events(run, "metrics") if "eval_f1_macro" in e]
    assert len(values) == 2


def test_rare_labels_count_more_when_balanced(world: LabelWorld) -> None:
    """On an unbalanced set the rare label would never be given."""
    rows = [row for row in labelled_rows(240, 5) if row["labels"] != ["fruit"]]
    rows = rows[:120] + [row for row in labelled_rows(240, 6) if row["labels"] == ["fruit"]][:16]
    held_out = labelled_rows(60, 7)
    world.data("rare", rows, held_out)
    recalls = {}
    for kind in ("none", "balanced"):
        run = world.train(
            f"rare-{kind}",
            "rare",
            **{"classification.class_weights": kind, "training.num_train_epochs": 2.0},
        )
        by_label = [e for e in events(run, "log") if "by_label" in e][-1]["by_label"]
        recalls[kind] = by_label[2]["recall"]
    assert recalls["balanced"] > recalls["none"]


def test_labels_that_training_never_saw_are_told_and_count_as_wrong(world: LabelWorld) -> None:
    """An evaluation would crash at its first new label, or look better than it is."""
    held_out = [*labelled_rows(9, 8), {"text": "today we saw", "labels": ["weather"]}]
    world.data("unseen", labelled_rows(48), held_out)
    run = world.train("unseen", "unseen", **{"training.num_train_epochs": 1.0})
    told = [event["message"] for event in events(run, "log") if event["level"] == "warning"]
    assert any("1 eval rows carry labels" in message and "weather" in message for message in told)
    assert last(run, "eval_accuracy") <= 0.9


def test_long_texts_are_cut_and_counted(world: LabelWorld) -> None:
    """A person would not learn that most of each text was never read."""
    rows = labelled_rows(24)
    rows[0]["text"] = " ".join(["dog"] * 100)
    world.data("long", rows)
    run = world.train(
        "long",
        "long",
        **{
            "evaluation.eval_strategy": "no",
            "training.num_train_epochs": 1.0,
            "training.max_length": 256,  # the model reads 64
        },
    )
    assert load_config(run.config).training.max_length == 64
    told = [event["message"] for event in events(run, "log") if event["level"] == "warning"]
    assert told == ["1 of 24 train rows are longer than 64 tokens: their end is cut off."]


def test_one_label_only_is_refused_with_the_reason(world: LabelWorld) -> None:
    world.data("same", [row | {"labels": ["animal"]} for row in labelled_rows(12)])
    run = world.run("same", "same", **{"evaluation.eval_strategy": "no"})
    with pytest.raises(DataError, match="nothing to tell apart"):
        run_training(run.root, world.workspace.root, None)


def test_a_weight_for_a_label_that_is_not_there_is_refused(world: LabelWorld) -> None:
    weights = {"classification.class_weights": "own", "classification.own_weights": {"frut": 2}}
    run = world.run("weights", "rule", **weights)
    with pytest.raises(ConfigError, match="no train row has the label frut"):
        run_training(run.root, world.workspace.root, None)


def test_a_quick_trial_is_one_epoch_without_evaluation(world: LabelWorld) -> None:
    """Whoever wants to see whether it runs at all would wait for the whole run."""
    run = world.train("quick", "short", **{"classification.quick": True})
    config = load_config(run.config)
    assert config.training.num_train_epochs == 1.0
    assert config.evaluation.eval_strategy == "no"
    assert not any("eval_loss" in event for event in events(run, "metrics"))
    assert len([event for event in events(run, "metrics") if "loss" in event]) == 12


def test_focal_loss_and_a_quantized_base_train(world: LabelWorld) -> None:
    """The two settings would be words only."""
    run = world.train(
        "focal",
        "short",
        **LLAMA,
        **{
            "adapter.quantization": "nf4",
            "classification.loss": "focal",
            "training.num_train_epochs": 1.0,
        },
    )
    assert last(run, "eval_accuracy") > 0.4
