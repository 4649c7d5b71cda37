"""A report in plain sentences, which claim no more than its rows show. They are made of its numbers
whenever it is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS, perplexity
from core.evaluation.report import Compared, Judged, Kind, Note, Report
from core.language import N_, _, n_, unpack
from core.methods import METHODS

# With fewer rows than this even a clear difference is a hint only.
_FEW_ROWS = 20
_MOST_NAMED = 6  # tasks; of more the names that were asked for say enough
_CHANCE = 0.5  # the share of pairs that guessing puts in order

_NOTES = {
    "changed_data": N_(
        "The data set was changed after this run was trained: some of these rows may have been "
        "among those it learned from."
    ),
    "training_rows": N_(
        "The data set has no held-out rows. These are rows that the model was trained on, so the "
        "numbers say how well it remembers, not how well it does on new rows."
    ),
    "spread": N_("{measured} of {total} rows were measured, spread evenly."),
    "left_out": N_("{rows} cannot be measured; the first: {reason}"),
    "empty_texts": N_("{rows} without a text left out."),
    "better_expected": N_("The better answer of each pair counts as the expected one."),
    "good_expected": N_(
        "{rows} with a good answer were measured; {others} with a bad one were left out."
    ),
    "new_tokens": N_(
        "The run added {tokens} tokens. Both models read the rows with them; in the base each is "
        "the mean of the pieces that it was before."
    ),
    "too_long_wrong": N_(
        "Too long for the model to read and answer with {limit} tokens, and counted as wrong: "
        "{rows}."
    ),
    "too_long_empty": N_(
        "Too long for the model to read and answer with {limit} tokens, and counted with an empty "
        "answer: {rows}."
    ),
    "order_in_training": N_(
        "In training, at step {step}, the better of two held-out answers had the higher reward in "
        "{accuracy:.1%} of cases."
    ),
    "margin_in_training": N_(
        "In training, at step {step}, the better of two held-out answers had the higher reward in "
        "{accuracy:.1%} of cases, by {margin:.3g} on average."
    ),
    "hidden_tokens": N_(
        "{percent:.0f} % of the tokens were hidden, the same ones for both models; the perplexity "
        "is that of guessing them."
    ),
    "unknown_labels": N_("Carry a label that training never saw, and count as wrong: {rows}."),
    "ties": N_("Both answers score the same, and count as wrong: {rows}."),
    "by_llama": N_(
        "llama.cpp wrote the answers, in float16, {at_once} at once; the loss is that of the model "
        "in transformers."
    ),
    "other_by_llama": N_("llama.cpp wrote the answers of {model}, {at_once} at once."),
    "taken_over": N_(
        "Answers taken over from an evaluation that did not come to its end: {answers}."
    ),
    "first_rows": N_("{measured} of {total} questions were asked: the first of each task."),
    "shots": N_("Examples before each question (few-shot): {shots}."),
    "chat_template": N_("The questions were asked through the chat template."),
    "chance": N_("Guessing would get {share:.0f} % of the choices right."),
    "no_reward": N_(
        "No function applies, as where a reference answer is missing, and they are left out: "
        "{rows}."
    ),
}


def shown(report: Report) -> dict[str, Any]:
    """The report as JSON for people and programs, with its sentences."""
    sentences = {"verdict": verdict(report), "notes": notes(report)}
    return {**unpack(report.model_dump(mode="json")), **sentences}


def notes(report: Report) -> list[str]:
    """What a reader of the numbers must know."""
    told = [one if isinstance(one, str) else _note(one) for one in report.notes]
    if report.judged and report.judged.unread:
        told.append(
            n_(
                "The judge gave no verdict on {n} row: {reason}",
                "The judge gave no verdict on {n} rows; the first: {reason}",
                report.judged.unread,
                reason=report.judged.why_not,
            )
        )
    return told


def verdict(report: Report) -> str:
    """Says how good the model is, against its base or chance, and how sure that is."""
    parts = _VERDICTS[report.measured](report)
    if report.rows < _FEW_ROWS:
        parts.append(
            n_(
                "With {n} row this is a hint, not a proof.",
                "With {n} rows this is a hint, not a proof.",
                report.rows,
            )
        )
    if report.part == "train":
        parts.append(_(_TRAINED_ON.get(report.measured, _TRAINED_ON["answers"])))
    return reduce(lambda told, more: _("{told} {more}", told=told, more=more), parts)


_TRAINED_ON = {
    "answers": N_("These are rows that it was trained on."),
    "texts": N_("These are texts that it was trained on."),
    "rewards": N_("These are prompts that it was trained on."),
}
# What is said of the tuned model alone, and beside its base.
_MEASURES = {
    "all_fields": (
        N_("The tuned model gets {tuned} of fields right."),
        N_("The tuned model gets {tuned} of fields right, the base {base}."),
    ),
    "token_f1": (
        N_("The tuned model has {tuned} of the expected words (F1)."),
        N_("The tuned model has {tuned} of the expected words (F1), the base {base}."),
    ),
    "eval_loss": (
        N_("The tuned model has a loss of {tuned}."),
        N_("The tuned model has a loss of {tuned}, the base {base}."),
    ),
}


def _answers(report: Report) -> list[str]:
    """The answers decide where there are any, else the loss."""
    key = next(key for key in _MEASURES if key in report.tuned)
    show = _percent if METRICS[key].is_share else _decimal(".3f")
    alone, beside = _MEASURES[key]
    tuned, base = show(_of(report, key)), report.number(key, "base")
    if base is None or report.difference is None:
        return [_(alone).format(tuned=tuned)]
    parts: list[str] = [_(beside).format(tuned=tuned, base=show(base))]
    if key == "eval_loss":
        return [*parts, *_loss_judgement(report.difference["eval_loss"])]
    before, after = _of(report, "eval_loss", "base").value, _of(report, "eval_loss").value
    judged = _score_judgement(report.difference["score"], report.compared, report.rows)
    return [*parts, *judged, _loss_change(before, after), *_by_judge(report.judged)]


def _loss_change(before: float, after: float) -> str:
    if after == before:
        return _("Its loss on the expected answers stayed at {loss:.3f}.", loss=after)
    if after < before:
        return _(
            "Its loss on the expected answers fell from {before:.3f} to {after:.3f}.",
            before=before,
            after=after,
        )
    return _(
        "Its loss on the expected answers rose from {before:.3f} to {after:.3f}.",
        before=before,
        after=after,
    )


_UNDECIDED = N_("The difference of {size} is within chance ({low} to {high}): no clear winner.")
_UNDECIDED_ON_REWARDS = N_("The difference of {size} is within chance ({low} to {high}).")
_ADVICE = N_("Try a lower learning rate or fewer epochs, and look at the rows below.")
_ADVICE_ON_REWARDS = N_("Try a lower learning rate, or a higher reinforcement.kl_beta.")


def _loss_judgement(apart: Estimate) -> list[str]:
    spelled = [f"{end:+.3g}" for end in _ends(apart)]
    return _judgement(apart, f"{abs(apart.value):.3g}", spelled, apart.value < 0)


def _score_judgement(apart: Estimate, rows: Compared | None, total: int) -> list[str]:
    """By rows, where they were counted, with McNemar's exact p."""
    if rows is not None and _ends(apart):
        return _by_rows(apart, rows, total)
    spelled = [f"{100 * end:+.0f}" for end in _ends(apart)]
    size = n_("{n} point", "{n} points", round(100 * abs(apart.value)))
    return _judgement(apart, size, spelled, apart.value > 0)


def _by_rows(apart: Estimate, rows: Compared, total: int) -> list[str]:
    points, (low, high) = 100 * apart.value, (100 * end for end in _ends(apart))
    if rows.wins == rows.losses == 0:
        return [_("There is no difference on these rows.")]
    said = {"wins": rows.wins, "losses": rows.losses, "rows": total, "p": _p_value(rows.p_value)}
    told: list[str] = [
        _("Of {rows} rows it is better on {wins} and worse on {losses} (p {p}).", **said)
    ]
    if not _has_zero(apart):
        size = {"points": abs(points), "low": low, "high": high}
        if points > 0:
            return [*told, _(_BETTER).format(**size)]
        return [*told, _(_WORSE).format(**size), _(_ADVICE)]
    told.append(_(_UNSEEN).format(low=low, high=high))
    if rows.needed is not None:
        told.append(_("About {n} rows would be needed to see one.", n=_rounded(rows.needed)))
    return told


def _by_judge(judged: Judged | None) -> list[str]:
    if judged is None:
        return []
    told = {"model": judged.model, "wins": judged.wins, "losses": judged.losses}
    told |= {"ties": judged.ties, "p": _p_value(judged.p_value)}
    return [
        _(
            "The judge {model} prefers it on {wins} rows, the other on {losses}, neither on {ties} "
            "(p {p}).",
            **told,
        )
    ]


_BETTER = N_("That is better by {points:.1f} points, 95 % interval {low:+.1f} to {high:+.1f}.")
_WORSE = N_(
    "That is worse by {points:.1f} points, 95 % interval {low:+.1f} to {high:+.1f}: the training "
    "did harm."
)
_UNSEEN = N_(
    "No difference can be told from chance (95 % interval {low:+.1f} to {high:+.1f} points)."
)


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _rounded(rows: int) -> int:
    """To two digits: it is an estimate."""
    step: int = 10 ** max(0, len(str(rows)) - 2)
    return -(-rows // step) * step


def _rewards_judgement(apart: Estimate) -> list[str]:
    spelled, size = [f"{end:+.2f}" for end in _ends(apart)], f"{abs(apart.value):.2f}"
    words = _ADVICE_ON_REWARDS, _UNDECIDED_ON_REWARDS
    return _judgement(apart, size, spelled, apart.value > 0, *words)


def _judgement(
    apart: Estimate,
    size: str,
    ends: list[str],
    is_better: bool,
    advice: str = _ADVICE,
    undecided: str = _UNDECIDED,
) -> list[str]:
    """What the paired difference allows to say."""
    if not ends:
        return [_("One row says nothing about others.")]
    low, high = ends
    if _has_zero(apart):
        if apart.value == 0:
            return [_("There is no difference on these rows.")]
        return [_(undecided).format(size=size, low=low, high=high)]
    if low != high:
        size = _("{number} ({low} to {high})", number=size, low=low, high=high)
    if is_better:
        return [_("That is better by {size}.", size=size)]
    return [_("That is worse by {size}: the training did harm.", size=size), _(advice)]


_HELD_OUT, _ALL_TEXTS = N_("held-out texts"), N_("texts")


def _texts(report: Report) -> list[str]:
    texts = _(_HELD_OUT if report.part == "eval" else _ALL_TEXTS)
    fills_gaps = METHODS[report.method].makes == "filler"
    tuned = _spelled(_of(report, "perplexity"), _choices)
    base = report.number("perplexity", "base")
    if base is None or report.difference is None:
        if fills_gaps:
            alone = N_(
                "Guessing hidden tokens of {texts}, the tuned model has a perplexity of {tuned}."
            )
        else:
            alone = N_("Reading {texts}, the tuned model has a perplexity of {tuned}.")
        return [_(alone).format(texts=texts, tuned=tuned)]
    if fills_gaps:
        beside = N_(
            "Guessing hidden tokens of {texts}, the tuned model has a perplexity of {tuned}, the "
            "base one of {base}."
        )
    else:
        beside = N_(
            "Reading {texts}, the tuned model has a perplexity of {tuned}, the base one of {base}."
        )
    said = _(beside).format(texts=texts, tuned=tuned, base=_spelled(base, _choices))
    return [said, _texts_judgement(report.difference["eval_loss"])]


def _texts_judgement(apart: Estimate) -> str:
    """What the paired difference of the losses allows to say. exp of it is the ratio of the two
    perplexities."""
    if not _ends(apart):
        return _("One text says nothing about others.")
    if _has_zero(apart):
        return _(
            "The difference is within chance: the run may have taught it nothing of these texts."
        )
    low, high = sorted(100 * abs(perplexity(end) - 1) for end in _ends(apart))
    size = _(
        "{share:.0f} % ({low:.0f} to {high:.0f} %)",
        share=100 * abs(perplexity(apart.value) - 1),
        low=low,
        high=high,
    )
    if apart.value < 0:
        return _("That is lower by {size}: it has learned how such texts go.", size=size)
    return _(
        "That is higher by {size}: the training did harm. Try a lower learning rate or fewer "
        "epochs.",
        size=size,
    )


def _labels(report: Report) -> list[str]:
    accuracy = _of(report, "accuracy")
    if report.confusion is None:
        said = N_(
            "The model gives all labels of {share:.0f} % of rows right ({low:.0f} to {high:.0f} "
            "%), with a macro F1 of {f1:.2f}."
        )
    else:
        said = N_(
            "The model gives the label of {share:.0f} % of rows right ({low:.0f} to {high:.0f} "
            "%), with a macro F1 of {f1:.2f}."
        )
    parts = [_(said).format(**_percents(accuracy), f1=_of(report, "f1_macro").value)]
    if report.majority is not None:
        usual = report.majority.accuracy
        guess = ", ".join(report.majority.labels) or _("no label")
        parts.append(
            _("Always saying {guess} would get {share:.0f} %.", guess=guess, share=100 * usual)
        )
        worse = _("That is worse than guessing: look at the labels and the learning rate.")
        parts.append(_against(accuracy, usual, worse))
    occurring = [label for label in report.by_label if label.rows]
    if len(occurring) > 1:
        worst = min(occurring, key=lambda label: label.f1)
        parts.append(_("Hardest is {label} (F1 {f1:.2f}).", label=worst.label, f1=worst.f1))
    return parts


def _pairs(report: Report) -> list[str]:
    right, margin = _of(report, "pair_accuracy"), _of(report, "margin")
    parts: list[str] = [
        _(
            "The better answer gets the higher score in {share:.0f} % of pairs ({low:.0f} to "
            "{high:.0f} %), by {margin:.2f} on average; chance is 50 %.",
            **_percents(right),
            margin=margin.value,
        )
    ]
    length = report.longer_is_right
    always = 0.0 if length is None else max(length, 1 - length)
    if length is not None:
        if length >= 0.5:
            usual = N_("Always taking the longer answer would get {share:.0f} %.")
        else:
            usual = N_("Always taking the shorter answer would get {share:.0f} %.")
        parts.append(_(usual).format(share=100 * always))
    worse = _("That is worse than guessing: are the columns chosen and rejected swapped?")
    parts.append(_against(right, _CHANCE, worse))
    if (right.low or 0.0) > _CHANCE and right.value <= always:
        parts.append(_("Whether it sees more than the length is not shown by these pairs."))
    return parts


def _against(number: Estimate, guess: float, worse: str) -> str:
    """What a share allows to say against what guessing would get."""
    low, high = _ends(number) or (number.value, number.value)
    if low > guess:
        return _("It has learned to tell them apart.")
    return worse if high < guess else _("That is within chance: it may have learned nothing.")


def _rewards(report: Report) -> list[str]:
    show = _decimal(".2f")
    tuned, base = show(_of(report, "reward")), report.number("reward", "base")
    if base is None or report.difference is None:
        return [_("The answers of the tuned model get a mean reward of {tuned}.", tuned=tuned)]
    said = _(
        "The answers of the tuned model get a mean reward of {tuned}, those of the base {base}.",
        tuned=tuned,
        base=show(base),
    )
    return [said, *_rewards_judgement(report.difference["reward"])]


def _questions(report: Report) -> list[str]:
    tuned, base = _percent(_of(report, "acc_norm")), report.number("acc_norm", "base")
    told = {"name": report.dataset.name, "tuned": tuned}
    if base is None or report.difference is None:
        return [_("The tuned model gets {tuned} of {name} right.", **told)]
    said = _(
        "The tuned model gets {tuned} of {name} right, the base {base}.",
        base=_percent(base),
        **told,
    )
    return [said, *_score_judgement(report.difference["score"], report.compared, report.rows)]


def _tasks(report: Report) -> list[str]:
    """All questions together; of several tasks also those that changed beyond doubt, where the
    doubt is shared out among them (Bonferroni)."""
    name, tuned, base = _all_questions(report)
    if tuned is None:
        return _of_numbers(report)
    told = {"name": name, "tuned": _percent(tuned)}
    if base is None or report.difference is None:
        return [_("The tuned model gets {tuned} of {name} right.", **told)]
    said = _(
        "The tuned model gets {tuned} of {name} right, the base {base}.",
        base=_percent(base),
        **told,
    )
    apart = report.difference["score"]
    return [said, *_score_judgement(apart, report.compared, report.rows), *_changed(report)]


def _all_questions(report: Report) -> tuple[str, Estimate | None, Estimate | None]:
    """(what was asked, the tuned model's share of right answers, the base's)."""
    total, names = report.number("all_tasks"), [one.name for one in report.tasks]
    if total is not None:
        name = ", ".join(names) if len(names) <= _MOST_NAMED else report.dataset.name
        return name, total, report.number("all_tasks", "base")
    for one in report.tasks:
        for name, tuned in report.parts("tasks").items():
            if name.startswith(f"{one.name} ({one.metric}"):
                return name, tuned, report.parts("tasks", "base").get(name)
    return report.dataset.name, None, None


def _changed(report: Report) -> list[str]:
    if len(report.tasks) < 2:
        return []
    sure = [
        (one.name, one.compared)
        for one in report.tasks
        if one.compared is not None and one.compared.p_value < 0.05 / len(report.tasks)
    ]
    better = ", ".join(name for name, rows in sure if rows.wins > rows.losses)
    worse = ", ".join(name for name, rows in sure if rows.wins < rows.losses)
    told: list[str] = []
    if better:
        told.append(_("Clearly better in {tasks}.", tasks=better))
    if worse:
        told.append(_("Clearly worse in {tasks}.", tasks=worse))
    return told


def _of_numbers(report: Report) -> list[str]:
    """Of tasks that count no right answers, such as perplexities."""
    show, before = _decimal(".3f"), report.parts("task_numbers", "base")
    told: list[str] = []
    for name, number in report.parts("task_numbers").items():
        if name in before:
            said = _(
                "In {name} the tuned model has {tuned}, the base {base}.",
                name=name,
                tuned=show(number),
                base=show(before[name]),
            )
        else:
            said = _("In {name} the tuned model has {tuned}.", name=name, tuned=show(number))
        told.append(said)
    return told


_VERDICTS: dict[Kind, Callable[[Report], list[str]]] = {
    "answers": _answers,
    "texts": _texts,
    "labels": _labels,
    "pairs": _pairs,
    "rewards": _rewards,
    "questions": _questions,
    "tasks": _tasks,
}


def _note(note: Note) -> str:
    spelled = {
        name: n_("{n} row", "{n} rows", value) if name in ("rows", "others") else value
        for name, value in note.values.items()
    }
    return _(_NOTES.get(note.key, note.key)).format(**spelled)


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
    value = one(number.value)
    if not _ends(number):
        return value
    low, high = (one(end) for end in _ends(number))
    return _("{number} ({low} to {high})", number=value, low=low, high=high)


def _decimal(form: str) -> Callable[[Estimate], str]:
    return lambda number: _spelled(number, lambda value: format(value, form))


def _choices(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(number: Estimate) -> str:
    if not _ends(number):
        return f"{100 * number.value:.0f} %"
    return _("{share:.0f} % ({low:.0f} to {high:.0f} %)", **_percents(number))


def _percents(number: Estimate) -> dict[str, float]:
    """A share and its interval, in percent."""
    low, high = _ends(number) or (number.value, number.value)
    return {"share": 100 * number.value, "low": 100 * low, "high": 100 * high}
