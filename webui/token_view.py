"""Rows as the model sees them: each token a chip. core.tokens.preview says what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.methods import METHODS
from core.tokens.tokenize import LEARNED_BY
from webui import messages
from webui.row_cards import card

Seen = Mapping[str, Any]

# So many tokens behind the cut are shown; they only say where it falls.
BEHIND = 60


def tokens(
    seen: Sequence[Seen],
    places: Sequence[int],
    max_length: int | None,
    form: str = "",
    text_method: str = "",
) -> str:
    """Cards of rows as `core.tokens.preview.preview_rows` gives them. `places` are the rows'
    numbers (0 is the first); `form` is their standard form; `text_method` is cpt or mlm where
    texts are not cut."""
    common = shared_notes(seen)
    above = "".join(messages.note(text, "stopped") for text in common)
    cards = "".join(
        _card(row, place, max_length, form, common, text_method)
        for row, place in zip(seen, places, strict=True)
    )
    return f'{above}<div class="rows">{cards}</div>'


def shared_notes(seen: Sequence[Seen]) -> list[str]:
    """What is to be said of all these rows alike, once above them: it is about the template."""
    if not seen:
        return []
    first = seen[0].get("notes") or []
    return [
        text
        for text in first
        if " chat template " in f" {text.lower()} "
        and all(text in (row.get("notes") or ()) for row in seen)
    ]


_ON_BLOCKS = (
    "Texts stand behind each other, each with its end token, and are cut into full blocks: "
    "what is behind the line is learned in the next one."
)
_ON_ROWS = (
    "A share of these tokens is hidden, others each time, and only those are learned. What "
    "is behind the line is learned in a row of its own."
)


def legend(model: str, template: str, max_length: int | None, text_method: str = "") -> str:
    """What the chips mean, whose tokens they are and where the settings come from."""
    if text_method:
        how = _ON_BLOCKS if METHODS[text_method].fills_blocks else _ON_ROWS
        return (
            '<div class="legend"><span class="t loss">learned from</span>'
            '<span class="t special">special</span>'
            f'<span class="aside">Tokens of {messages.escape(model)}, in rows of {max_length:,}: '
            f"as set in Configure.</span></div>{messages.note(how)}"
        )
    return (
        '<div class="legend"><span class="t loss">learned from</span>'
        '<span class="t">only read</span><span class="t special">special</span>'
        '<span class="t behind">behind the cut</span>'
        f'<span class="aside">Tokens of {messages.escape(model)}, '
        f"{messages.escape(template)}, cut at {max_length:,}: as set in Configure.</span></div>"
    )


def _card(
    row: Seen,
    place: int,
    max_length: int | None,
    form: str,
    common: Sequence[str],
    text_method: str,
) -> str:
    sides = row["sides"]
    problem = messages.note(str(row["error"]), "failed") if row["error"] else ""
    notes = "".join(
        messages.note(text) for text in row["notes"] or () if text not in common
    )
    drawn = "".join(_side(side, max_length, len(sides) > 1, text_method) for side in sides)
    many = f'<div class="sides">{drawn}</div>' if len(sides) > 1 else drawn
    counts = _counts(sides[0], text_method) if len(sides) == 1 and sides[0]["tokens"] else ""
    return card(place, problem + notes + many, counts, _foot(row, form))


def _counts(side: Seen, text_method: str = "") -> str:
    count = side["full_length"]
    whole = "1 token" if count == 1 else f"{count:,} tokens"
    if text_method:
        return whole
    left = side["full_length"] - side["length"]
    cut = f", {left:,} behind the cut" if left > 0 else ""
    return f"{whole}{cut}, {side['loss_tokens']:,} carry loss"


def _side(side: Seen, max_length: int | None, titled: bool, text_method: str) -> str:
    head = ""
    if titled:
        title = messages.escape(side["title"])
        head = f"<h4>{title}<small>{_counts(side)}</small></h4>"
    chips = "".join(_chip(*token) for token in side["tokens"])
    body = f'<div class="tokens">{chips}</div>{_behind(side, max_length, text_method)}'
    if not titled:
        return body
    name = messages.escape(side["title"].lower())
    return f'<section class="side side-{name}">{head}{body}</section>'


def _behind(side: Seen, max_length: int | None, text_method: str) -> str:
    """The cut as a line, and the tokens behind it that the model never gets, or gets later."""
    left = side["full_length"] - side["length"]
    if left <= 0:
        return ""
    count = "1 token" if left == 1 else f"{left:,} tokens"
    shown = side["cut_tokens"][:BEHIND]
    chips = "".join(_chip(*token) for token in shown)
    hidden = left - len(shown)
    more = f'<p class="soft">and {hidden:,} more</p>' if hidden > 0 else ""
    line = f"cut at {max_length:,}: {count} not seen"
    if text_method:
        what = "block" if METHODS[text_method].fills_blocks else "row"
        line = f"a {what} has {max_length:,}: {count} more"
    kind = "tokens" if text_method else "tokens behind"
    return f'<div class="cut">{line}</div><div class="{kind}">{chips}</div>{more}'


def _chip(text: str, token: int, loss: bool, special: bool) -> str:
    shown = messages.escape(text).replace("\n", "&#8629;").replace("\t", "&#8677;")
    kind = "t" + (" loss" if loss else "") + (" special" if special else "")
    line = "<br>" * min(text.count("\n"), 2)
    return f'<span class="{kind}" title="token {token}">{shown}</span>{line}'


def _foot(row: Seen, form: str) -> str:
    """The label or reference answer, and what a form without loss of its own is for."""
    lines = []
    if row.get("label"):
        lines.append(("Judged" if form == "unpaired-preference" else "Label", row["label"]))
    if row.get("answer"):
        lines.append(("Reference answer", row["answer"]))
    if form in LEARNED_BY:
        lines.append(("For", LEARNED_BY[form]))
    spans = "".join(
        f"<span><b>{name}</b> {messages.escape(text)}</span>" for name, text in lines
    )
    return f'<footer class="meta">{spans}</footer>' if spans else ""
