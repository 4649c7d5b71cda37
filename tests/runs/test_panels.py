"""The charts that say how a run goes must be there by themselves, and none without a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.jobs.events import EventWriter
from core.methods import METHODS
from core.runs.curves import CurveReader
from core.runs.panels import LABEL_F1, LOSS, MOST_LINES, panels

COMMON = {
    "loss": 1.0,
    "learning_rate": 1e-4,
    "grad_norm": 1.0,
    "tokens_per_second": 900.0,
    "memory_bytes": 2**31,
    "cpu_percent": 80.0,
}
OWN = {
    "sft": ({"perplexity": 2.0, "eval_perplexity": 3.0}, "Perplexity"),
    "dpo": ({"rewards/accuracies": 0.5, "eval_rewards/accuracies": 0.6}, "Pairs ordered right"),
    "reward": ({"accuracy": 0.5, "margin": 0.1}, "Margin"),
    "grpo": ({"reward": 0.5, "rewards/json_valid/mean": 0.2, "kl": 0.0}, "Reward of each function"),
    "classification": ({"eval_accuracy": 0.5, "eval_f1_macro": 0.4}, "Labels right"),
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_method_has_charts_of_its_own_and_all_say_how_to_read_them(method: str) -> None:
    assert "perplexity" in str(panels("sft", {"perplexity": 1.0}))
    found = panels(method, COMMON | OWN.get(method, ({}, ""))[0])
    assert {"Learning rate", "Gradient norm", "Memory (GiB)"} <= {one.title for one in found}
    assert all(one.sentence.endswith(".") and one.curves for one in found)
    if method in OWN:
        assert OWN[method][1] in [one.title for one in found]


def test_nothing_is_drawn_that_was_not_measured() -> None:
    assert panels("dpo", {"loss": 1.0}) == []
    (one,) = panels("dpo", {"rewards/margins": 1.0})
    assert [curve.metric for curve in one.curves] == ["rewards/margins"]


def test_of_many_labels_those_that_stand_lowest_are_drawn() -> None:
    metrics = {f"{LABEL_F1}label {n:02}": n / 20 for n in range(20)}
    (one,) = panels("classification", metrics)
    assert [curve.name for curve in one.curves] == [f"label {n:02}" for n in range(MOST_LINES)]


def test_held_out_and_training_share_a_colour_where_several_things_are_drawn() -> None:
    metrics = {
        f"{part}rewards/{side}": 0.1 for part in ("", "eval_") for side in ("chosen", "rejected")
    }
    (one,) = panels("dpo", metrics)
    colours = dict(zip([curve.metric for curve in one.curves], one.colours(), strict=True))
    assert colours["rewards/chosen"] == colours["eval_rewards/chosen"]
    assert colours["rewards/chosen"] != colours["rewards/rejected"]


def test_every_metric_can_be_reached() -> None:
    metrics = COMMON | {"new/thing": 1.0, "eval_new/thing": 2.0, "eval_other": 3.0}
    found = panels("sft", metrics, everything=True)
    drawn = {curve.metric for panel in (LOSS, *found) for curve in panel.curves}
    assert set(metrics) <= drawn


def test_each_label_has_a_curve_of_its_f1(tmp_path: Path) -> None:
    events = EventWriter(tmp_path / "events.jsonl")
    for step, f1 in ((10, 0.4), (20, 0.6)):
        rows = [{"label": "spam", "f1": f1, "rows": 3}, {"label": "never", "f1": 0.0, "rows": 0}]
        events.write("log", message="", step=step, by_label=rows)
    reader = CurveReader(tmp_path / "events.jsonl")
    assert reader.update()
    assert reader.curves == {"f1/spam": [(10, 0.4), (20, 0.6)]}
