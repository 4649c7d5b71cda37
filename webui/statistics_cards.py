"""The pieces of HTML, and the charts, that Numbers shows of what core.tokens.statistics counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.data.record import DatasetInfo
from core.tokens.lens import Lens
from webui import charts, messages

Found = Mapping[str, Any]

# So many labels or languages are listed, the most frequent first.
MOST_LISTED = 30
# The most frequent label has so many times the rows of the rarest: worth a word.
UNEVEN = 5
_TITLES = {
    "total": "Whole rows",
    "prompt": "Prompts",
    "answer": "Answers",
    "chosen": "Chosen answers",
    "rejected": "Rejected answers",
}


def state(info: DatasetInfo, lens: Lens, found: Found, tokens: bool) -> str:
    """How many rows were counted, and with which tokenizer."""
    rows, total = found["rows"], found["rows_total"]
    text = f"All {total:,} rows to learn were counted"
    if not found["complete"]:
        text = f"From {rows:,} of the {total:,} rows to learn, taken from its whole length"
    if tokens:
        text = f"{text}, with the tokenizer of {lens.model}."
    else:
        text = (
            f"{text}. Lengths need the tokenizer of {lens.model}, which is not on this machine yet."
        )
    return f'<p class="aside">{messages.escape(text)}</p>'


def counting(share: float | None, info: DatasetInfo) -> str:
    """How far the counting of all rows is, while the numbers of some are shown."""
    percent = "" if share is None else f": {share:.0%}"
    text = f"Shown from some rows; counting all {info.counts.train:,}{percent}"
    return messages.progress(share, text)


def figures(found: Found, tokens: bool) -> str:
    """The figures on top, and what is wrong with rows."""
    items: list[tuple[str, str, str]] = []
    about = "" if found["complete"] else "about "
    if tokens:
        epoch = found["epoch"]["tokens"]
        whole = epoch / max(1 - found["cut_tokens_share"], 1e-9)
        items += [
            ("Tokens", about + messages.short(whole), "In all rows to learn, before the cut"),
            ("Tokens per epoch", about + messages.short(epoch), "After the cut at max_length"),
            ("Rows cut", _share(found["cut_rows_share"]), "They lose their end at max_length"),
            ("Tokens lost", _share(found["cut_tokens_share"]), "Behind the cut; never learned"),
        ]
    items.append(
        ("Duplicates", messages.count(found["duplicates"]), "Rows that repeat an earlier one"
         + ("" if found["complete"] else ", among those counted"))
    )
    return messages.figures(items) + _defects(found, tokens)


def _defects(found: Found, tokens: bool) -> str:
    lines = []
    without, unusable = found["rows_without_loss"], found["unusable_rows"]
    if tokens and without:
        rows = "1 row teaches" if without == 1 else f"{without:,} rows teach"
        at = found["max_length"]
        cut = f" of the first {at:,}" if at and found["cut_rows"] else ""
        lines.append(f"{rows} nothing: no token{cut} carries loss.")
    if unusable:
        rows = "1 row is" if unusable == 1 else f"{unusable:,} rows are"
        lines.append(f"{rows} refused by the chat template: {found['unusable_reason']}")
    return "".join(messages.note(line, "stopped") for line in lines)


def advice(suggested: Found, already: bool) -> str:
    """The max_length to take, and why."""
    value = f"{suggested['value']:,}"
    title = f"max_length {value} fits this data" if already else f"Suggested max_length: {value}"
    return (
        f"<div><strong>{title}</strong><p>{messages.escape(suggested['reason'])} "
        "Longer rows take more memory and time.</p></div>"
    )


def lengths(found: Found, key: str) -> list[dict[str, Any]]:
    """A histogram for whole rows, prompts and answers; the cut is drawn in the first."""
    drawn = []
    for name, title in _TITLES.items():
        known = found["lengths"].get(name)
        if known and known["counts"]:
            drawn.append(
                charts.histogram(
                    known["edges"],
                    known["counts"],
                    x="tokens",
                    title=f"{title}: {_told(known)}",
                    scale=known["scale"],
                    cut=found["max_length"] if name == "total" else None,
                    key=f"{key} {name}",
                )
            )
    return drawn


def _told(known: Found) -> str:
    at = known["percentiles"]
    return (
        f"{known['mean']:,.0f} tokens on average, half up to {at['50']:,}, "
        f"95 % up to {at['95']:,}, longest {at['max']:,}"
    )


def shares(found: Found) -> str:
    """Labels, languages and turns as bars."""
    parts = []
    if found["labels"]:
        parts.append(_bars("Labels", found["labels"], _balance(found["labels"])))
    if len(found["turns"]) > 1:
        turns = [[f"{n} turn" if n == 1 else f"{n} turns", rows] for n, rows in found["turns"]]
        parts.append(_bars("Turns in a row", turns, "Without the system turn."))
    if found["languages"]:
        named = [["not sure" if code == "?" else code, n] for code, n in found["languages"]]
        seen = sum(rows for _, rows in found["languages"])
        parts.append(_bars("Languages", named, f"Guessed from {seen:,} rows."))
    return f'<div class="share-cards">{"".join(parts)}</div>'


def _balance(labels: Sequence[Sequence[Any]]) -> str:
    most, least = labels[0], labels[-1]
    if len(labels) < 2 or most[1] < UNEVEN * least[1]:
        return ""
    times = most[1] / least[1]
    return (
        f"{most[0]} has {times:,.0f} times the rows of {least[0]}. "
        "A cap for each label is in Clean and shape."
    )


def _bars(title: str, items: Sequence[Sequence[Any]], note: str = "") -> str:
    """Names with their counts, each with a bar of its share."""
    total = sum(count for _, count in items) or 1
    most = max(count for _, count in items) or 1
    lines = "".join(
        f"<div><dt>{messages.escape(name)}</dt><dd><i style='--part:{count / most:.3f}'></i>"
        f"<span>{count:,} <small>{_share(count / total)}</small></span></dd></div>"
        for name, count in items[:MOST_LISTED]
    )
    hidden = len(items) - MOST_LISTED
    more = f'<p class="soft">and {hidden:,} more</p>' if hidden > 0 else ""
    said = f'<p class="soft">{messages.escape(note)}</p>' if note else ""
    return (
        f'<section class="card"><h3>{title}</h3>{said}<dl class="share-bars">{lines}</dl>{more}'
        "</section>"
    )


def _share(part: float) -> str:
    """A share in percent: never 0 % of something, never 100 % where something is missing."""
    if 0 < part < 0.001:
        return "under 0.1 %"
    if 0.999 < part < 1:
        return "over 99.9 %"
    percent = 100 * part
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"
