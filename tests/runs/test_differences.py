"""Two runs, one better: what was different?"""

from __future__ import annotations

from core.rules import parse_config
from core.runs.differences import differences


def test_only_what_differs_and_matters_is_told() -> None:
    """A list of 150 settings, or of ranks that no adapter has, would be read by nobody."""
    first = parse_config({"training.seed": 1, "adapter.r": 8, "name": "one"})
    second = parse_config({"training.seed": 2, "adapter.r": 8, "name": "two"})
    assert differences([first, second, first]) == {"training.seed": [1, 2, 1]}
    full = {"adapter.method": "none", "training.learning_rate": 1e-5}
    third = parse_config(full | {"adapter.lora_dropout": 0.1})
    fourth = parse_config(full | {"adapter.lora_dropout": 0.2})
    assert differences([third, fourth]) == {}


def test_one_run_differs_from_nothing() -> None:
    assert differences([parse_config({})]) == {}
    assert differences([]) == {}
