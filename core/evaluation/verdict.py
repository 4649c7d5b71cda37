"""The result in one or two plain sentences, which claim no more than the rows show."""

from __future__ import annotations

from typing import Any

from core.evaluation.compare import estimate
from core.evaluation.intervals import Estimate
from core.evaluation.rows import row_count

# With fewer rows than this even a clear difference is a hint only.
_FEW_ROWS = 20


def verdict(result: dict[str, Any]) -> str:
    """Says which model is better, by how much, and how sure that is.

    `result` is run_evaluation's, without its verdict. The answers decide where there are any,
    else the loss.
    """
    tuned, base, apart = result["tuned"], result["base"], result["difference"]
    what, name = _measure(tuned)
    parts = [_numbers(tuned, base, what, name)]
    if base is not None:
        key = "eval_loss" if name == "eval_loss" else "score"
        parts.append(_judgement(estimate(apart, key), name))
        if name != "eval_loss":
            parts.append(_loss_change(tuned, base))
    if result["rows"] < _FEW_ROWS:
        parts.append(f"With {row_count(result['rows'])} this is a hint, not a proof.")
    if result["part"] == "train":
        parts.append("These are rows that it was trained on.")
    return " ".join(parts)


def _measure(tuned: dict[str, Any]) -> tuple[str, str]:
    if "all_fields" in tuned:
        return "gets {} of fields right", "all_fields"
    if "token_f1" in tuned:
        return "has {} of the expected words (F1)", "token_f1"
    return "has a loss of {}", "eval_loss"


def _numbers(tuned: dict[str, Any], base: dict[str, Any] | None, what: str, name: str) -> str:
    show = _loss if name == "eval_loss" else _percent
    sentence = f"The tuned model {what.format(show(estimate(tuned, name)))}"
    if base is not None:
        sentence += f", the base {show(estimate(base, name))}"
    return sentence + "."


def _judgement(apart: Estimate, name: str) -> str:
    """What the paired difference allows to say; a lower loss is better, a higher share is."""
    is_loss = name == "eval_loss"
    size = f"{abs(apart.value):.3g}" if is_loss else f"{_points(abs(apart.value))}"
    if apart.low is None or apart.high is None:
        return "One row says nothing about others."
    ends = [f"{end:+.3g}" if is_loss else f"{100 * end:+.0f}" for end in (apart.low, apart.high)]
    between = f" ({ends[0]} to {ends[1]})" if ends[0] != ends[1] else ""
    if apart.low <= 0 <= apart.high:
        if apart.value == 0:
            return "There is no difference on these rows."
        return f"The difference of {size} is within chance{between}: no clear winner."
    if (apart.value < 0) == is_loss:
        return f"That is better by {size}{between}."
    return (
        f"That is worse by {size}{between}: the training did harm. Try a lower learning rate "
        "or fewer epochs, and look at the rows below."
    )


def _loss_change(tuned: dict[str, Any], base: dict[str, Any]) -> str:
    before, after = estimate(base, "eval_loss").value, estimate(tuned, "eval_loss").value
    verb = "fell" if after < before else "rose" if after > before else "stayed"
    return f"Its loss on the expected answers {verb} from {before:.3f} to {after:.3f}."


def _percent(number: Estimate) -> str:
    interval = ""
    if number.low is not None and number.high is not None:
        interval = f" ({100 * number.low:.0f} to {100 * number.high:.0f} %)"
    return f"{100 * number.value:.0f} %{interval}"


def _loss(number: Estimate) -> str:
    interval = ""
    if number.low is not None and number.high is not None:
        interval = f" ({number.low:.3f} to {number.high:.3f})"
    return f"{number.value:.3f}{interval}"


def _points(value: float) -> str:
    points = round(100 * value)
    return f"{points} point" if points == 1 else f"{points} points"
