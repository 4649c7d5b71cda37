"""The settings of classification: what is refused, and what a quick trial changes."""

from __future__ import annotations

from typing import Any

import pytest

from core.config.run import as_run, quick_settings
from core.data.record import Counts, DatasetInfo
from core.errors import ConfigError
from core.rules import parse_config
from core.rules.data import data_problems

LABELS: dict[str, Any] = {"method": "classification"}


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"training.packing": True}, "training.packing", "label of its own"),
        ({"classification.class_weights": "own"}, "classification.own_weights", "spam=2"),
        (
            {"classification.class_weights": "own", "classification.own_weights": {"spam": 0}},
            "classification.own_weights",
            "above 0",
        ),
        (
            {"evaluation.metric_for_best_model": "eval_f1"},
            "evaluation.metric_for_best_model",
            "eval_f1_macro",
        ),
        (
            {"evaluation.metric_for_best_model": "eval_f1_macro"},
            "evaluation.greater_is_better",
            "worst checkpoint",
        ),
        ({"training.extra": {"label_smoothing_factor": 0.1}}, "training.extra", "does nothing"),
    ],
)
def test_what_would_not_do_what_it_says_is_refused(
    settings: dict[str, Any], field: str, words: str
) -> None:
    """A run of an hour would end with the worst checkpoint, or not do what was asked."""
    with pytest.raises(ConfigError) as caught:
        parse_config({**LABELS, **settings})
    assert {problem.field for problem in caught.value.problems} == {field}
    assert words in str(caught.value)


def test_a_quick_trial_breaks_no_rule() -> None:
    """The config of a quick trial could not be opened again."""
    config = parse_config(
        {
            **LABELS,
            "classification.quick": True,
            "training.lr_scheduler_type": "reduce_lr_on_plateau",
            "training.per_device_train_batch_size": 64,
            "evaluation.early_stopping_patience": 2,
        }
    )
    quick = as_run(config)
    assert parse_config(quick.values()) == quick
    assert quick.training.per_device_train_batch_size == 8
    assert quick.evaluation.eval_strategy == "no"
    assert quick_settings(quick) == {}
    assert quick_settings(parse_config({"classification.quick": True})) == {}  # another method


def test_a_data_set_of_one_label_is_refused_before_the_start() -> None:
    """One would wait for a worker, only to be told that there is nothing to tell apart."""
    config = parse_config(LABELS)
    counts = Counts(train=4, eval=1)
    info = DatasetInfo(
        id="one", name="One", form="labelled-text", counts=counts, labels={"spam": 4}
    )
    assert [problem.field for problem in data_problems(info, config)] == ["data.dataset"]
    some = info.model_copy(update={"labels": {"spam": 3}})  # or none: that is a difference
    assert data_problems(some, config) == []
    other = info.model_copy(update={"form": "messages", "labels": {}})
    assert "labelled-text" in data_problems(other, config)[0].message
