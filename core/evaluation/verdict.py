"""A report in plain sentences, which claim no more than its rows show. They are made of its numbers
whenever it is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS, perplexity
from core.evaluation.report import Kind, Note, Report
from core.methods import METHODS

# With fewer rows than this even a clear difference is a hint only.
_FEW_ROWS = 20
_CHANCE = 0.5  # the share of pairs that guessing puts in order

_NOTES = {
    "changed_data": "The data set was changed after this run was trained: some of these rows may "
    "have been among those it learned from.",
    "training_rows": "The data set has no held-out rows. These are rows that the model was trained "
    "on, so the numbers say how well it remembers, not how well it does on new rows.",
    "spread": "{measured} of {total} rows were measured, spread evenly.",
    "left_out": "{rows} cannot be measured; the first: {reason}",
    "empty_texts": "{rows} without a text left out.",
    "better_expected": "The better answer of each pair counts as the expected one.",
    "good_expected": "{rows} with a good answer were measured; {others} with a bad one were left "
    "out.",
    "new_tokens": "The run added {tokens} tokens. Both models read the rows with them; in the base "
    "each is the mean of the pieces that it was before.",
    "too_long_wrong": "Too long for the model to read and answer with {limit} tokens, and counted "
    "as wrong: {rows}.",
    "too_long_empty": "Too long for the model to read and answer with {limit} tokens, and counted "
    "with an empty answer: {rows}.",
    "order_in_training": "In training, at step {step}, the better of two held-out answers had the "
    "higher reward in {accuracy:.1%} of cases.",
    "margin_in_training": "In training, at step {step}, the better of two held-out answers had the "
    "higher reward in {accuracy:.1%} of cases, by {margin:.3g} on average.",
    "hidden_tokens": "{percent:.0f} % of the tokens were hidden, the same ones for both models; "
    "the perplexity is that of guessing them.",
    "unknown_labels": "Carry a label that training never saw, and count as wrong: {rows}.",
    "ties": "Both answers score the same, and count as wrong: {rows}.",
    "no_reward": "No function applies, as where a reference answer is missing, and they are left "
    "out: {rows}.",
}


def shown(report: Report) -> dict[str, Any]:
    """The report as JSON for people and programs, with its sentences."""
    sentences = {"verdict": verdict(report), "notes": notes(report)}
    return {**report.model_dump(mode="json"), **sentences}


def notes(report: Report) -> list[str]:
    """What a reader of the numbers must know."""
    return [one if isinstance(one, str) else _note(one) for one in report.notes]


def verdict(report: Report) -> str:
    """Says how good the model is, against its base or chance, and how sure that is."""
    parts = _VERDICTS[report.measured](report)
    if report.rows < _FEW_ROWS:
        parts.append(f"With {_rows(report.rows)} this is a hint, not a proof.")
    if report.part == "train":
        what = {"texts": "texts", "rewards": "prompts"}.get(report.measured, "rows")
        parts.append(f"These are {what} that it was trained on.")
    return " ".join(parts)


def _answers(report: Report) -> list[str]:
    """The answers decide where there are any, else the loss."""
    measures = {
        "all_fields": "gets {} of fields right",
        "token_f1": "has {} of the expected words (F1)",
        "eval_loss": "has a loss of {}",
    }
    key = next(key for key in measures if key in report.tuned)
    show = _percent if METRICS[key].is_share else _decimal(".3f")
    tuned, base = _of(report, key), report.number(key, "base")
    sentence = f"The tuned model {measures[key].format(show(tuned))}"
    if base is None or report.difference is None:
        return [f"{sentence}."]
    parts = [f"{sentence}, the base {show(base)}."]
    if key == "eval_loss":
        return [*parts, _loss_judgement(report.difference["eval_loss"])]
    parts.append(_score_judgement(report.difference["score"]))
    before, after = _of(report, "eval_loss", "base").value, _of(report, "eval_loss").value
    verb = "fell" if after < before else "rose" if after > before else "stayed"
    parts.append(f"Its loss on the expected answers {verb} from {before:.3f} to {after:.3f}.")
    return parts


def _loss_judgement(apart: Estimate) -> str:
    spelled = [f"{end:+.3g}" for end in _ends(apart)]
    return _judgement(apart, f"{abs(apart.value):.3g}", spelled, apart.value < 0)


def _score_judgement(apart: Estimate) -> str:
    points = round(100 * abs(apart.value))
    spelled = [f"{100 * end:+.0f}" for end in _ends(apart)]
    size = f"{points} point" if points == 1 else f"{points} points"
    return _judgement(apart, size, spelled, apart.value > 0)


def _rewards_judgement(apart: Estimate) -> str:
    spelled = [f"{end:+.2f}" for end in _ends(apart)]
    advice = "Try a lower learning rate, or a higher reinforcement.kl_beta."
    return _judgement(apart, f"{abs(apart.value):.2f}", spelled, apart.value > 0, advice, "")


def _judgement(
    apart: Estimate,
    size: str,
    ends: list[str],
    is_better: bool,
    advice: str = "Try a lower learning rate or fewer epochs, and look at the rows below.",
    undecided: str = ": no clear winner",
) -> str:
    """What the paired difference allows to say."""
    if not ends:
        return "One row says nothing about others."
    between = f" ({ends[0]} to {ends[1]})" if ends[0] != ends[1] else ""
    if _has_zero(apart):
        if apart.value == 0:
            return "There is no difference on these rows."
        return f"The difference of {size} is within chance{between}{undecided}."
    if is_better:
        return f"That is better by {size}{between}."
    return f"That is worse by {size}{between}: the training did harm. {advice}"


def _texts(report: Report) -> list[str]:
    where = "held-out texts" if report.part == "eval" else "texts"
    fills_gaps = METHODS[report.method].makes == "filler"
    what = "Guessing hidden tokens of" if fills_gaps else "Reading"
    told = _spelled(_of(report, "perplexity"), _choices)
    sentence = f"{what} {where}, the tuned model has a perplexity of {told}"
    base = report.number("perplexity", "base")
    if base is None or report.difference is None:
        return [f"{sentence}."]
    judged = _texts_judgement(report.difference["eval_loss"])
    return [f"{sentence}, the base one of {_spelled(base, _choices)}.", judged]


def _texts_judgement(apart: Estimate) -> str:
    """What the paired difference of the losses allows to say. exp of it is the ratio of the two
    perplexities."""
    if not _ends(apart):
        return "One text says nothing about others."
    if _has_zero(apart):
        return "The difference is within chance: the run may have taught it nothing of these texts."
    low, high = sorted(100 * abs(perplexity(end) - 1) for end in _ends(apart))
    size = f"{100 * abs(perplexity(apart.value) - 1):.0f} % ({low:.0f} to {high:.0f} %)"
    if apart.value < 0:
        return f"That is lower by {size}: it has learned how such texts go."
    return (
        f"That is higher by {size}: the training did harm. Try a lower learning rate or fewer "
        "epochs."
    )


def _labels(report: Report) -> list[str]:
    accuracy = _of(report, "accuracy")
    what = "all labels of" if report.confusion is None else "the label of"
    parts = [
        f"The model gives {what} {100 * accuracy.value:.0f} % of rows right "
        f"({_span(accuracy)}), with a macro F1 of {_of(report, 'f1_macro').value:.2f}."
    ]
    if report.majority is not None:
        usual = report.majority.accuracy
        guess = ", ".join(report.majority.labels) or "no label"
        parts.append(f"Always saying {guess} would get {100 * usual:.0f} %.")
        worse = "That is worse than guessing: look at the labels and the learning rate."
        parts.append(_against(accuracy, usual, worse))
    occurring = [label for label in report.by_label if label.rows]
    if len(occurring) > 1:
        worst = min(occurring, key=lambda label: label.f1)
        parts.append(f"Hardest is {worst.label} (F1 {worst.f1:.2f}).")
    return parts


def _pairs(report: Report) -> list[str]:
    right, margin = _of(report, "pair_accuracy"), _of(report, "margin")
    parts = [
        f"The better answer gets the higher score in {100 * right.value:.0f} % of pairs "
        f"({_span(right)}), by {margin.value:.2f} on average; chance is 50 %."
    ]
    length = report.longer_is_right
    always = 0.0 if length is None else max(length, 1 - length)
    if length is not None:
        which = "longer" if length >= 0.5 else "shorter"
        parts.append(f"Always taking the {which} answer would get {100 * always:.0f} %.")
    worse = "That is worse than guessing: are the columns chosen and rejected swapped?"
    parts.append(_against(right, _CHANCE, worse))
    if (right.low or 0.0) > _CHANCE and right.value <= always:
        parts.append("Whether it sees more than the length is not shown by these pairs.")
    return parts


def _against(number: Estimate, guess: float, worse: str) -> str:
    """What a share allows to say against what guessing would get."""
    low, high = _ends(number) or (number.value, number.value)
    if low > guess:
        return "It has learned to tell them apart."
    return worse if high < guess else "That is within chance: it may have learned nothing."


def _rewards(report: Report) -> list[str]:
    show = _decimal(".2f")
    sentence = "The answers of the tuned model get a mean reward of " + show(_of(report, "reward"))
    base = report.number("reward", "base")
    if base is None or report.difference is None:
        return [f"{sentence}."]
    judged = _rewards_judgement(report.difference["reward"])
    return [f"{sentence}, those of the base {show(base)}.", judged]


_VERDICTS: dict[Kind, Callable[[Report], list[str]]] = {
    "answers": _answers,
    "texts": _texts,
    "labels": _labels,
    "pairs": _pairs,
    "rewards": _rewards,
}


def _note(note: Note) -> str:
    spelled = {
        name: _rows(value) if name in ("rows", "others") else value
        for name, value in note.values.items()
    }
    return _NOTES.get(note.key, note.key).format(**spelled)


def _of(report: Report, key: str, side: Any = "tuned") -> Estimate:
    """A number that each report of this kind has."""
    found = report.number(key, side)
    assert found is not None, f"a report of {report.measured} without {key}"
    return found


def _ends(number: Estimate) -> tuple[float, float] | tuple[()]:
    if number.low is None or number.high is None:
        return ()
    return number.low, number.high


def _has_zero(apart: Estimate) -> bool:
    low, high = _ends(apart) or (0.0, 0.0)
    return low <= 0 <= high


def _spelled(number: Estimate, one: Callable[[float], str]) -> str:
    """A number with its interval, where it has one."""
    interval = " to ".join(one(end) for end in _ends(number))
    return f"{one(number.value)} ({interval})" if interval else one(number.value)


def _decimal(form: str) -> Callable[[Estimate], str]:
    return lambda number: _spelled(number, lambda value: format(value, form))


def _choices(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(number: Estimate) -> str:
    return f"{100 * number.value:.0f} %" + (f" ({_span(number)})" if _ends(number) else "")


def _span(number: Estimate) -> str:
    low, high = _ends(number) or (number.value, number.value)
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _rows(number: int) -> str:
    return f"{number} row" if number == 1 else f"{number} rows"
