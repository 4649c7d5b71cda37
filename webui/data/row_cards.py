"""Rows of every standard form as cards, for reading: as turns, or as the model sees them, each
token a chip. `core.tokens.preview` says what is drawn of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from core.data.rowfile import META
from core.language import N_, _, n_
from core.methods import METHODS
from core.tokens.tokenize import LEARNED_BY
from webui import messages
from webui.html import html

# Longest text that is shown of one turn, and of one value in `meta`, in characters.
LONGEST_TURN = 20_000
LONGEST_VALUE = 200
# JSON up to so many characters stays on one line.
ONE_LINE = 100
_ROLES = ("system", "user", "assistant", "tool")

Row = Mapping[str, Any]


def rows(found: Sequence[Row], places: Sequence[int], words: str = "") -> Markup:
    """Cards of these rows. `places` are their numbers (0 is the first row); `words` are marked."""
    cards = [
        (place, _kind(row), _offered(row) + body(row, words), _beside(row, words))
        for row, place in zip(found, places, strict=True)
    ]
    return html.row_cards.rows([], cards)


def judgement(good: bool) -> Markup:
    """How a single answer was judged, in words and colour."""
    if good:
        return html.messages.badge("finished", _("judged good"))
    return html.messages.badge("failed", _("judged bad"))


def _kind(row: Row) -> str:
    """What a row is for, where its turns alone do not say it."""
    if "chosen" in row:
        return _("two answers: one chosen, one rejected")
    if "label" in row:
        return judgement(bool(row["label"]))
    if "prompt" in row and "completion" not in row:
        return _("a prompt without an answer to learn")
    return ""


def body(row: Row, words: str = "") -> Markup:
    """The turns, text and labels of a row; `words` are marked."""
    if "chosen" in row:
        parts = (_turns(row[name], words) for name in ("prompt", "chosen", "rejected"))
        return html.row_cards.pair(*parts)
    if "text" in row:
        shown = html.messages.turn(_("text"), "text", _words(row["text"], words), "")
        labels = row.get("labels")
        return shown if labels is None else shown + html.row_cards.labels(labels)
    if "messages" in row:
        return _turns(row["messages"], words)
    shown = _turns(row.get("prompt", ()), words)
    if "completion" in row:
        return shown + _turns(row["completion"], words, " turn-learned")
    if "answer" not in row:
        return shown
    answer = _words(row["answer"], words)
    return shown + html.messages.turn(_("reference answer"), "reference", answer, "")


def _turns(turns: Iterable[Row], words: str, more: str = "") -> Markup:
    return Markup().join(_turn(turn, words, more) for turn in turns)


def _turn(turn: Row, words: str, more: str) -> Markup:
    """A turn; `more` goes to its class."""
    role, text = str(turn["role"]), str(turn["content"])
    thought = turn.get("reasoning_content")
    return html.row_cards.turn(
        f"{role if role in _ROLES else 'other'}{more}",
        role,
        turn.get("name"),
        turn.get("weight"),
        _words(str(thought), words) if thought else "",
        _words(_result(text) if role == "tool" else text, words),
        _calls(turn.get("tool_calls"), words),
    )


def _words(text: str, words: str) -> Markup:
    """`text` as HTML, cut when it is very long, with `words` marked."""
    shown, hidden = text[:LONGEST_TURN], max(len(text) - LONGEST_TURN, 0)
    if not words and not hidden:
        return escape(text)
    pieces = re.split(f"({re.escape(words)})", shown, flags=re.IGNORECASE) if words else [shown]
    return html.row_cards.words(pieces, hidden)


# -- tools


def _offered(row: Row) -> Markup:
    """The tools that a row offers, folded: their names, and what each is for."""
    tools = _read(row.get("tools"))
    if not isinstance(tools, list) or not tools:
        return Markup()
    functions = [_function(tool) for tool in tools]
    names = ", ".join(str(one.get("name", _("without a name"))) for one in functions)
    title = n_("{n} tool offered: {names}", "{n} tools offered: {names}", len(tools), names=names)
    return html.row_cards.tools(title, [_tool(one) for one in functions])


def _function(tool: Any) -> Row:
    """The function of a tool or of a call; files hold other things, too."""
    inner = tool.get("function", tool) if isinstance(tool, dict) else tool
    return inner if isinstance(inner, dict) else {"name": _plain(inner)}


def _tool(function: Row) -> tuple[Any, Any, list[tuple[str, str]]]:
    """Name, description, and each input with what is said of it."""
    parameters = function.get("parameters") or {}
    known = parameters.get("properties") if isinstance(parameters, dict) else None
    pairs = known.items() if isinstance(known, dict) else ()
    inputs = [(name, _about(what)) for name, what in pairs]
    return function.get("name", ""), function.get("description", ""), inputs


def _about(parameter: Any) -> str:
    if not isinstance(parameter, dict):
        return str(parameter)
    return " ".join(str(parameter[key]) for key in ("type", "description") if parameter.get(key))


def _calls(text: str | None, words: str) -> Markup:
    """The calls of tools in an answer: each tool's name with what it is given."""
    calls = _read(text)
    if text and not isinstance(calls, list):
        return _words(text, words)
    return html.row_cards.calls([_call(call, words) for call in calls or ()])


def _call(call: Any, words: str) -> tuple[Any, list[tuple[str, Markup]]]:
    """Name, and what it is given."""
    function = _function(call)
    given = function.get("arguments")
    pairs = given.items() if isinstance(given, dict) else [("", given)] if given else []
    return function.get("name", ""), [(name, _words(_plain(one), words)) for name, one in pairs]


def _result(text: str) -> str:
    """What a tool answered: much JSON on lines of its own, anything else as it is."""
    value = _read(text)
    if isinstance(value, (dict, list)) and len(text) > ONE_LINE:
        return json.dumps(value, ensure_ascii=False, indent=2)
    return text


def _read(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return None


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- what stands beside a row


def _beside(row: Row, words: str) -> list[tuple[str, Markup]]:
    """The row's `meta`, for small print."""
    items = []
    for name, value in (row.get(META) or {}).items():
        text = _plain(value)
        cut = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."
        items.append((name, _words(cut, words)))
    return items


Seen = Mapping[str, Any]

# So many tokens behind the cut are shown; they only say where it falls.
BEHIND = 60


def tokens(
    seen: Sequence[Seen],
    places: Sequence[int],
    max_length: int | None,
    form: str = "",
    text_method: str = "",
) -> Markup:
    """Cards of rows as `core.tokens.preview.preview_rows` gives them. `places` are the rows'
    numbers (0 is the first); `form` is their standard form; `text_method` is cpt or mlm where
    texts are not cut."""
    common = shared_notes(seen)
    cards = []
    for row, place in zip(seen, places, strict=True):
        drawn = _drawn(row, max_length, common, text_method)
        one = row["sides"][0] if len(row["sides"]) == 1 else None
        counts = _counts(one, text_method) if one and one["tokens"] else ""
        cards.append((place, counts, drawn, _foot(row, form)))
    return html.row_cards.rows([messages.note(text, "stopped") for text in common], cards)


def shared_notes(seen: Sequence[Seen]) -> list[str]:
    """What is to be said of all these rows alike, once above them: it is about the template, in
    the words of the worker, which speaks English."""
    if not seen:
        return []
    first = seen[0].get("notes") or []
    return [
        text
        for text in first
        if " chat template " in f" {text.lower()} "
        and all(text in (row.get("notes") or ()) for row in seen)
    ]


_ON_BLOCKS = N_(
    "Texts stand behind each other, each with its end token, and are cut into full "
    "blocks: what is behind the line is learned in the next one."
)
_ON_ROWS = N_(
    "A share of these tokens is hidden, others each time, and only those are "
    "learned. What is behind the line is learned in a row of its own."
)


def legend(model: str, template: str, max_length: int | None, text_method: str = "") -> Markup:
    """What the chips mean, whose tokens they are and where the settings come from."""
    if text_method:
        how = _ON_BLOCKS if METHODS[text_method].fills_blocks else _ON_ROWS
        told = _(
            "Tokens of {model}, in rows of {length:,}: as set in Configure.",
            model=model,
            length=max_length,
        )
        return html.row_cards.legend(told, messages.note(how))
    told = _(
        "Tokens of {model}, {template}, cut at {length:,}: as set in Configure.",
        model=model,
        template=template,
        length=max_length,
    )
    return html.row_cards.legend(told, "")


def _drawn(row: Seen, max_length: int | None, common: Sequence[str], text_method: str) -> Markup:
    """What is said of a row, and its tokens."""
    notes = [messages.note(str(row["error"]), "failed")] if row["error"] else []
    notes += [messages.note(text) for text in row["notes"] or () if text not in common]
    sides = [_side(side, max_length, text_method) for side in row["sides"]]
    return html.row_cards.tokens(notes, sides)


def _counts(side: Seen, text_method: str = "") -> str:
    whole = n_("{n} token", "{n:,} tokens", side["full_length"])
    if text_method:
        return whole
    left, loss = side["full_length"] - side["length"], side["loss_tokens"]
    if left > 0:
        whole = _("{tokens}, {n:,} behind the cut", tokens=whole, n=left)
    return n_("{tokens}, {n:,} carries loss", "{tokens}, {n:,} carry loss", loss, tokens=whole)


def _side(side: Seen, max_length: int | None, text_method: str) -> dict[str, Any]:
    """A sequence of tokens; `cut` says where the line falls, "" without one."""
    left = side["full_length"] - side["length"]
    behind = side["cut_tokens"][:BEHIND] if left > 0 else []
    return {
        "title": side["title"],
        "counts": _counts(side),
        "chips": _chips(side["tokens"]),
        "cut": _cut(left, max_length, text_method) if left > 0 else "",
        "behind": _chips(behind),
        "is_lost": not text_method,
        "hidden": left - len(behind),
    }


def _chips(tokens: Iterable[Sequence[Any]]) -> Iterator[tuple[str, int, bool, bool, int]]:
    """Each with its line breaks and tabs as signs, and how many line breaks it has."""
    for text, token, loss, special in tokens:
        shown, breaks = text, 0
        if "\n" in text or "\t" in text:
            shown, breaks = text.replace("\n", "↵").replace("\t", "⇥"), text.count("\n")
        yield shown, token, loss, special, breaks


def _cut(left: int, max_length: int | None, text_method: str) -> str:
    tokens = n_("{n} token", "{n:,} tokens", left)
    if not text_method:
        return _("cut at {length:,}: {tokens} not seen", length=max_length, tokens=tokens)
    if METHODS[text_method].fills_blocks:
        return _("a block has {length:,}: {tokens} more", length=max_length, tokens=tokens)
    return _("a row has {length:,}: {tokens} more", length=max_length, tokens=tokens)


def _foot(row: Seen, form: str) -> list[tuple[str, Any]]:
    """The label or reference answer, and what a form without loss of its own is for."""
    lines: list[tuple[str, Any]] = []
    if row.get("label"):
        judged = form == "unpaired-preference"
        lines.append((_("Judged") if judged else _("Label"), row["label"]))
    if row.get("answer"):
        lines.append((_("Reference answer"), row["answer"]))
    if form in LEARNED_BY:
        lines.append((_("For"), LEARNED_BY[form]))
    return lines
