"""The result of measuring held-out texts in plain sentences, which claim no more than they show."""

from __future__ import annotations

import math
from typing import Any

from core.evaluation.compare import estimate
from core.evaluation.intervals import Estimate
from core.evaluation.rows import row_count
from core.methods import METHODS

_FEW_ROWS = 20


def text_verdict(result: dict[str, Any]) -> str:
    """Says between how many tokens each model wavers, and whether the run made a difference.

    `result` is that of `core.evaluation.texts`, without its verdict.
    """
    tuned, base = result["tuned"], result["base"]
    where = "held-out texts" if result["part"] == "eval" else "texts"
    fills_gaps = METHODS[result["method"]].makes == "filler"
    what = "guessing hidden tokens of" if fills_gaps else "reading"
    sentence = f"{what[:1].upper()}{what[1:]} {where}, the tuned model has a perplexity of "
    sentence += _interval(estimate(tuned, "perplexity"))
    if base is not None:
        sentence += f", the base one of {_interval(estimate(base, 'perplexity'))}"
    parts = [f"{sentence}."]
    if base is not None:
        parts.append(_judgement(estimate(result["difference"], "eval_loss")))
    if result["rows"] < _FEW_ROWS:
        parts.append(f"With {row_count(result['rows'])} this is a hint, not a proof.")
    if result["part"] == "train":
        parts.append("These are texts that it was trained on.")
    return " ".join(parts)


def _judgement(apart: Estimate) -> str:
    """What the paired difference of the losses allows to say. exp of it is the ratio of the two
    perplexities."""
    if apart.low is None or apart.high is None:
        return "One text says nothing about others."
    if apart.low <= 0 <= apart.high:
        return "The difference is within chance: the run may have taught it nothing of these texts."
    low, high = sorted(100 * abs(_change(end)) for end in (apart.low, apart.high))
    size = f"{100 * abs(_change(apart.value)):.0f} % ({low:.0f} to {high:.0f} %)"
    if apart.value < 0:
        return f"That is lower by {size}: it has learned how such texts go."
    return (
        f"That is higher by {size}: the training did harm. Try a lower learning rate or fewer "
        "epochs."
    )


def _change(difference: float) -> float:
    return math.exp(min(difference, 50.0)) - 1


def _interval(number: Estimate) -> str:
    text = _number(number.value)
    if number.low is None or number.high is None:
        return text
    return f"{text} ({_number(number.low)} to {_number(number.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
