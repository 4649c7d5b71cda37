"""The rules of runs on plain text."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import ConfigError
from core.rules import parse_config


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"method": "cpt", "training.packing": True}, "training.packing"),
        ({"method": "mlm", "training.packing": True}, "training.packing"),
        ({"method": "mlm", "training.neftune_noise_alpha": 5}, "training.neftune_noise_alpha"),
        (
            {
                "method": "cpt",
                "evaluation.metric_for_best_model": "eval_perplexity",
                "evaluation.greater_is_better": True,
            },
            "evaluation.greater_is_better",
        ),
        ({"method": "mlm", "text.mlm_probability": 1}, "text.mlm_probability"),
    ],
)
def test_what_has_no_sense_for_texts_is_said_at_its_field(
    changes: dict[str, Any], field: str
) -> None:
    """A setting would be passed over in silence, or keep the worst checkpoint."""
    with pytest.raises(ConfigError) as refused:
        parse_config(changes)
    assert field in {problem.field for problem in refused.value.problems}


def test_settings_of_texts_say_nothing_of_other_methods() -> None:
    """Packing would be refused for chats because of a rule for texts."""
    config = parse_config({"training.packing": True})
    assert config.method == "sft" and config.training.packing
