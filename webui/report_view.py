"""An evaluation's report as HTML: the verdict, then numbers with intervals, then rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from webui import messages
from webui.label_report import baseline, label_parts

# Numbers in the order that they are shown: key, label, what it means, whether it is a share.
NUMBERS = (
    ("all_fields", "Fields right", "Share of the fields of all answers that are right", True),
    ("exact_rows", "Rows right", "Share of rows with every exact field right", True),
    ("valid_json", "Valid JSON", "Share of answers that can be read as JSON", True),
    ("exact_match", "Same answer", "Share of answers equal to the expected one", True),
    ("accuracy", "Labels right", "Share of rows that were given exactly their labels", True),
    ("f1_macro", "F1, macro", "Mean over the labels of precision and recall together", True),
    ("f1_weighted", "F1, weighted", "The same, each label by how many rows have it", True),
    ("precision_macro", "Precision, macro", "Of rows given a label, the share that has it", True),
    ("recall_macro", "Recall, macro", "Of rows that have a label, the share given it", True),
    ("pair_accuracy", "Pairs right", "Share of pairs whose better answer scores higher", True),
    ("margin", "Margin", "Mean score of the better answers less that of the worse ones", False),
    ("score_chosen", "Better answers", "Their mean score", False),
    ("score_rejected", "Worse answers", "Their mean score", False),
    ("reward", "Mean reward", "Sum of all functions, each times its weight", False),
    ("token_f1", "Words in common", "F1 of the words of answer and expected answer", True),
    ("eval_loss", "Eval loss", "Mean of -ln p over the tokens of the expected answers", False),
    ("perplexity", "Perplexity", "exp of the loss: choices the model wavers between", False),
)
SHOWN_ROWS = 20


def report(result: dict[str, Any], rows_shown: int = SHOWN_ROWS) -> str:
    """The whole report. `result` is that of core.evaluation.run."""
    notes = "".join(messages.note(text) for text in result.get("notes", []))
    return (
        f'<p class="verdict">{messages.escape(result["verdict"])}</p>{_context(result)}{notes}'
        f'<div class="card">{_numbers(result)}</div>{label_parts(result)}'
        f"{_texts(result) if 'texts' in result else _rows(result, rows_shown)}"
    )


def _context(result: dict[str, Any]) -> str:
    settings = result.get("settings", {})
    rows = f"{result['rows']} rows" if result["rows"] != 1 else "1 row"
    part = "held-out" if result["part"] == "eval" else "training"
    name = "finished model" if result["checkpoint"] == "final" else result["checkpoint"]
    told = (
        f"{rows} of the {part} part of {result['dataset']['name']}, {name}, "
        f"{settings.get('dtype', '')} on {settings.get('device', '')}, "
        f"{messages.duration(result.get('seconds'))}. Intervals are 95 %."
    )
    return f'<p class="soft">{messages.escape(told)}</p>'


def _numbers(result: dict[str, Any]) -> str:
    usual, tuned = baseline(result), result["tuned"]
    before_name, base = usual or ("Base", result.get("base"))
    lines = [
        _line(label, meaning, base.get(key, {}) if base else None, tuned.get(key), share)
        for key, label, meaning, share in NUMBERS
        if key in tuned
    ]
    kinds = {rule["name"]: rule["score"] for rule in result.get("rules", [])}
    for name, value in tuned.get("fields", {}).items():
        how = "half of the words or more" if kinds.get(name) == "token_f1" else "exactly the same"
        before = base["fields"].get(name) if base and "fields" in base else None
        lines.append(_line(f"Field {name}", f"Right means {how}", before, value, True))
    for name, value in tuned.get("rewards", {}).items():
        before = ((base or {}).get("rewards") or {}).get(name)
        lines.append(_line(f"Reward {name}", "Mean of this function alone", before, value, False))
    head = f"<th>{messages.escape(before_name)}</th>" if base else ""
    return (
        '<div class="table-scroll"><table class="numbers"><thead><tr><th></th>'
        f"{head}<th>Tuned</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(label: str, meaning: str, base: Any, tuned: Any, share: bool) -> str:
    sides = ((base, "base"), (tuned, "tuned"))
    cells = "".join(
        _cell(value, share, kind) if value else "<td></td>"
        for value, kind in sides
        if value is not None
    )
    head = f'<th scope="row" title="{messages.escape(meaning)}">{messages.escape(label)}</th>'
    return f"<tr>{head}{cells}</tr>"


def _cell(number: dict[str, float], share: bool, kind: str) -> str:
    """A number, its interval in small print and, for a share, as a bar."""

    def text(value: float) -> str:
        return f"{100 * value:.0f}" if share else f"{value:.3f}" if value < 100 else f"{value:,.0f}"

    unit = " %" if share else ""
    low, high = number.get("low"), number.get("high")
    interval = span = bar = ""
    if low is not None and high is not None:
        interval = f"<small>{text(low)} to {text(high)}</small>"
        span = f'<b style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></b>'
    if share:
        filled = f'<i style="width:{100 * number["value"]:.1f}%"></i>'
        bar = f'<span class="share {kind}">{filled}{span}</span>'
    return f'<td class="num"><strong>{text(number["value"])}{unit}</strong> {interval}{bar}</td>'


def _texts(result: dict[str, Any]) -> str:
    """The texts that the tuned model knows least, with the perplexity of each."""
    title = "<h3>Texts that the tuned model knows least</h3>"
    return title + "".join(_text(text) for text in result["texts"])


def _text(text: dict[str, Any]) -> str:
    figures = [("Tokens", f"{text['tokens']:,}")]
    figures += [
        (label, messages.loss(text[name]))
        for label, name in (("Perplexity of the base", "base"), ("of the tuned model", "tuned"))
        if name in text
    ]
    told = ", ".join(f"{label} {value}" for label, value in figures)
    return (
        '<article class="card compared"><p class="question"><span class="soft">'
        f'Row {text["index"] + 1}</span> {messages.escape(text["text"])}</p>'
        f'<p class="soft">{messages.escape(told)}</p></article>'
    )


def _rows(result: dict[str, Any], shown: int) -> str:
    rows = result["differences"]
    if "pair_accuracy" in result["tuned"]:
        if not rows:
            return messages.note("Every better answer scores higher.", "finished")
        title = f"<h3>Pairs in the wrong order, the surest mistakes first ({len(rows)})</h3>"
        return title + "".join(_pair(row) for row in rows[:shown])
    if not rows and not {"token_f1", "all_fields", "accuracy"} & result["tuned"].keys():
        return ""  # nothing was asked: there are no answers to compare
    if "by_label" in result:
        if not rows:
            return messages.note("Every row was given its labels.", "finished")
        title = f"<h3>Mistakes, the surest first ({len(rows)})</h3>"
        return title + "".join(_row(row) for row in rows[:shown])
    if not rows:
        return messages.note("Both models give the expected answer to every row.", "finished")
    title = f"<h3>Rows where they differ or the tuned model is wrong ({len(rows)})</h3>"
    if "reward" in result["tuned"]:
        title = "<h3>Rows, those with the lowest reward first</h3>"
    return title + "".join(_row(row) for row in rows[:shown])


def _pair(row: dict[str, Any]) -> str:
    """Two answers that a reward model put in the wrong order, each behind its score."""
    question = "\n".join(str(t["content"]) for t in row["prompt"] if t.get("role") != "system")
    both = (("Better answer", row["expected"]), ("Worse answer", row["tuned"]))
    cells = "".join(
        f"<div><h4>{label}</h4>{_answer(text, None, None)}</div>" for label, text in both
    )
    return (
        '<article class="card compared"><p class="question"><span class="soft">'
        f'Row {row["index"] + 1}</span> {messages.escape(question)}</p>'
        f'<div class="columns">{cells}</div></article>'
    )


def _row(row: dict[str, Any]) -> str:
    asked = [turn for turn in row["prompt"] or [] if turn.get("role") != "system"]
    question = "\n".join(str(turn.get("content", "")) for turn in asked)
    columns = [("Expected", row["expected"], None)] if row["expected"] is not None else []
    if row.get("base") is not None:
        name = f"Base{_reward(row.get('base_reward'))}"
        columns.append((name, row["base"], row.get("base_fields_right")))
    name = f"Tuned{_reward(row.get('tuned_reward'))}"
    columns.append((name, row["tuned"], row.get("tuned_fields_right")))
    cells = "".join(
        f"<div><h4>{label}</h4>{_answer(text, row['expected'], right)}</div>"
        for label, text, right in columns
    )
    return (
        '<article class="card compared"><p class="question"><span class="soft">'
        f'Row {row["index"] + 1}</span> {messages.escape(question)}</p>'
        f'<div class="columns">{cells}</div></article>'
    )


def _reward(value: float | None) -> str:
    """What an answer got, behind the name of who wrote it."""
    return "" if value is None else f", reward {value:.3g}"


def _answer(text: str | None, expected: str | None, right: Iterable[str] | None) -> str:
    """An answer; where it is JSON like the expected one, a line for each field, marked."""
    fields, wanted = _object(text), _object(expected)
    if fields is None or wanted is None:
        return f'<div class="reply">{messages.escape(text or "")}</div>'
    lines = ""
    for name, value in fields.items():
        mark = sign = ""
        if right is not None and name in wanted:
            word = "right" if name in right else "wrong"
            mark = f' class="{word}" title="{word}"'
            sign = f'<span class="sr-only">({word})</span>'
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines += (
            f"<div{mark}><dt>{messages.escape(name)}</dt><dd>{messages.escape(shown)}{sign}</dd></div>"
        )
    return f'<dl class="fields">{lines}</dl>'


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
