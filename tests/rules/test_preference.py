"""Rules of DPO, KTO, ORPO and CPO: settings that would change nothing, or end the run later, are
refused before the start."""

from __future__ import annotations

from typing import Any

import pytest

from core.config import SPEC_BY_PATH, RunConfig
from core.errors import ConfigError
from core.methods import named
from core.rules import parse_config, rule_problems

DPO, KTO, CPO = {"method": "dpo"}, {"method": "kto"}, {"method": "cpo"}
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    (DPO | {"training.packing": True}, "training.packing", "method dpo"),
    (
        KTO | {"training.per_device_train_batch_size": 1},
        "training.per_device_train_batch_size",
        "at least 2",
    ),
    (KTO | {"preference.ref_model": "none"}, "preference.ref_model", "method kto"),
    (
        DPO | {"preference.ref_model": "none", "preference.loss_type": "bco_pair"},
        "preference.ref_model",
        "preference.loss_type bco_pair",
    ),
    (
        DPO | {"preference.loss_weights": {"sigmoid": 1, "stf": 0.5}},
        "preference.loss_weights",
        "stf is no loss of DPO",
    ),
    (
        DPO | {"preference.loss_weights": {"sft": 0}},
        "preference.loss_weights",
        "must be a number above 0",
    ),
    (
        DPO | {"preference.ref_model": "none", "preference.loss_weights": {"bco_pair": 1.0}},
        "preference.ref_model",
        "preference.loss_type bco_pair",
    ),
    (DPO | {"preference.loss_type": "exo_pair"}, "preference.label_smoothing", "needs some"),
    (DPO | {"preference.label_smoothing": 0.1}, "preference.label_smoothing", "no effect"),
    (
        CPO | {"preference.label_smoothing": 0.1, "preference.cpo_loss_type": "hinge"},
        "preference.label_smoothing",
        "preference.cpo_loss_type hinge",
    ),
    (
        DPO | {"preference.f_divergence_type": "js_divergence", "preference.loss_type": "aot"},
        "preference.f_divergence_type",
        "preference.loss_type aot",
    ),
    (
        DPO | {"preference.use_weighting": True, "preference.loss_type": "aot"},
        "preference.use_weighting",
        "sorts",
    ),
    (
        DPO | {"adapter.init_lora_weights": "pissa"},
        "adapter.init_lora_weights",
        "preference.ref_model base",
    ),
    (KTO | {"adapter.bias": "all"}, "adapter.bias", "preference.ref_model base"),
    (
        CPO | {"training.extra": {"loss_type": "simpo"}},
        "training.extra",
        "preference.cpo_loss_type",
    ),
    (
        DPO | {"evaluation.metric_for_best_model": "eval_rewards/accuracies"},
        "evaluation.greater_is_better",
        "worst checkpoint",
    ),
    (DPO | {"training.extra": {"beta": 0.2}}, "training.extra", "preference.beta"),
    (DPO | {"training.extra": {"sync_ref_modle": True}}, "training.extra", "sync_ref_model"),
    (DPO | {"training.extra": {"max_completion_length": 3}}, "training.extra", "prepared"),
]


@pytest.mark.parametrize(("settings", "field", "words"), BROKEN)
def test_a_broken_rule_is_named_at_its_field(
    settings: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(settings)
    (problem,) = caught.value.problems
    assert problem.field == field and words in problem.message


def test_what_is_allowed_is_not_refused() -> None:
    """Somebody would be kept from a run that works."""
    for settings in (
        KTO
        | {
            "training.per_device_train_batch_size": 1,
            "preference.kto_loss_type": "apo_zero_unpaired",
        },
        DPO | {"preference.ref_model": "none", "preference.loss_type": "ipo"},
        DPO | {"preference.ref_model": "20261121-2214-quiet-otter", "adapter.bias": "all"},
        DPO | {"preference.loss_type": "robust", "preference.label_smoothing": 0.1},
        DPO | {"training.extra": {"sync_ref_model": True}},
        {"training.sft_loss_type": "dft"},
    ):
        assert rule_problems(parse_config(settings)) == []


def test_each_method_shows_its_own_fields_alone() -> None:
    """The form would ask for numbers that change nothing."""
    shown = {
        method: {
            spec.name
            for spec in SPEC_BY_PATH.values()
            if spec.section == "preference"
            and spec.shown({**RunConfig().values(), "method": method})
        }
        for method in ("sft", *named(section="preference", writes=True))
    }
    assert shown["sft"] == set()
    assert shown["orpo"] == {"beta"}
    assert {"loss_type", "ref_model", "label_smoothing"} <= shown["dpo"]
    assert {"desirable_weight", "ref_model"} <= shown["kto"] and "loss_type" not in shown["kto"]
    assert "cpo_alpha" in shown["cpo"] and "ref_model" not in shown["cpo"]
