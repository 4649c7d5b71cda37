"""Rows of every standard form as cards, for reading: as turns, or as the model sees them, each
token a chip. `core.tokens.preview` says what is drawn of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.data.rowfile import META
from core.language import N_, _, n_
from core.methods import METHODS
from core.tokens.tokenize import LEARNED_BY
from webui import messages

# Longest text that is shown of one turn, and of one value in `meta`, in characters.
LONGEST_TURN = 20_000
LONGEST_VALUE = 200
# JSON up to so many characters stays on one line.
ONE_LINE = 100
_ROLES = ("system", "user", "assistant", "tool")

Row = Mapping[str, Any]


def rows(found: Sequence[Row], places: Sequence[int], words: str = "") -> str:
    """Cards of these rows. `places` are their numbers (0 is the first row); `words` are marked."""
    cards = "".join(
        card(place, _offered(row) + body(row, words), _kind(row), _beside(row, words))
        for row, place in zip(found, places, strict=True)
    )
    return f'<div class="rows">{cards}</div>'


def card(place: int, body: str, note: str = "", foot: str = "") -> str:
    """A card with its row's number; `body`, `note` (after the number) and `foot` are HTML."""
    small = f"<span>{note}</span>" if note else ""
    return (
        f'<article class="row-card" data-row="{place}"><header>'
        f"<b>{_('Row {n:,}', n=place + 1)}</b>{small}</header>{body}{foot}</article>"
    )


def judgement(good: bool) -> str:
    """How a single answer was judged, in words and colour."""
    if good:
        return f'<span class="badge badge-finished">{_("judged good")}</span>'
    return f'<span class="badge badge-failed">{_("judged bad")}</span>'


def _kind(row: Row) -> str:
    """What a row is for, where its turns alone do not say it."""
    if "chosen" in row:
        return _("two answers: one chosen, one rejected")
    if "label" in row:
        return judgement(bool(row["label"]))
    if "prompt" in row and "completion" not in row:
        return _("a prompt without an answer to learn")
    return ""


def body(row: Row, words: str = "") -> str:
    """The turns, text and labels of a row; `words` are marked."""
    if "chosen" in row:
        sides = "".join(
            f'<section class="side side-{name}"><h4>{title}</h4>{_turns(row[name], words)}'
            "</section>"
            for name, title in (("chosen", _("Chosen")), ("rejected", _("Rejected")))
        )
        return f'{_turns(row["prompt"], words)}<div class="sides">{sides}</div>'
    if "text" in row:
        return _line("text", _("text"), _words(row["text"], words)) + _labels(row.get("labels"))
    if "messages" in row:
        return _turns(row["messages"], words)
    shown = _turns(row.get("prompt", ()), words)
    if "completion" in row:
        return shown + _turns(row["completion"], words, "learned")
    if "answer" not in row:
        return shown
    return shown + _line("reference", _("reference answer"), _words(row["answer"], words))


def _turns(turns: Iterable[Row], words: str, kind: str = "") -> str:
    return "".join(_turn(turn, words, kind) for turn in turns)


def _turn(turn: Row, words: str, kind: str) -> str:
    role = str(turn["role"])
    known = role if role in _ROLES else "other"
    name = f"<small>{messages.escape(turn['name'])}</small>" if turn.get("name") else ""
    text = str(turn["content"])
    said = _result(text, words) if role == "tool" else _words(text, words)
    calls = _calls(turn.get("tool_calls"), words)
    who = messages.escape(role) + name + _weight(turn.get("weight"))
    return _line(f"{known} {kind}".strip(), who, _thought(turn, words) + said + calls)


def _thought(turn: Row, words: str) -> str:
    thought = turn.get("reasoning_content")
    return f'<div class="soft">{_words(str(thought), words)}</div>' if thought else ""


def _weight(weight: float | None) -> str:
    """What a turn's mark says of learning it."""
    if weight is None or weight == 1:
        return ""
    told = _("only read") if weight == 0 else _("weight {weight:g}", weight=weight)
    return f"<small>{told}</small>"


def _line(kind: str, who: str, content: str) -> str:
    """One turn; `who` and `content` are HTML."""
    classes = " ".join(f"turn-{word}" for word in kind.split())
    return (
        f'<div class="turn {classes}"><div class="role">{who}</div>'
        f'<div class="content">{content}</div></div>'
    )


def _words(text: str, words: str) -> str:
    """`text` as HTML, cut when it is very long, with `words` marked."""
    more = ""
    if len(text) > LONGEST_TURN:
        hidden = _("{n:,} more characters are not shown", n=len(text) - LONGEST_TURN)
        more = f'<span class="soft"> ... {hidden}</span>'
        text = text[:LONGEST_TURN]
    if not words:
        return messages.escape(text) + more
    pieces = re.split(f"({re.escape(words)})", text, flags=re.IGNORECASE)
    marked = (
        f"<mark>{messages.escape(piece)}</mark>" if place % 2 else messages.escape(piece)
        for place, piece in enumerate(pieces)
    )
    return "".join(marked) + more


def _labels(labels: Sequence[str] | None) -> str:
    if labels is None:
        return ""
    chips = "".join(f'<span class="label">{messages.escape(label)}</span>' for label in labels)
    who = _("label") if len(labels) == 1 else _("labels")
    return _line("label", who, chips or f'<span class="soft">{_("none")}</span>')


# -- tools


def _offered(row: Row) -> str:
    """The tools that a row offers, folded: their names, and what each is for."""
    tools = _read(row.get("tools"))
    if not isinstance(tools, list) or not tools:
        return ""
    functions = [_function(tool) for tool in tools]
    names = ", ".join(messages.escape(one.get("name", _("without a name"))) for one in functions)
    title = n_("{n} tool offered: {names}", "{n} tools offered: {names}", len(tools), names=names)
    return (
        f'<details class="tools"><summary>{title}</summary>'
        f'<dl class="cells">{"".join(_tool(one) for one in functions)}</dl></details>'
    )


def _function(tool: Any) -> Row:
    """The function of a tool or of a call; files hold other things, too."""
    inner = tool.get("function", tool) if isinstance(tool, dict) else tool
    return inner if isinstance(inner, dict) else {"name": _plain(inner)}


def _tool(function: Row) -> str:
    parameters = function.get("parameters") or {}
    known = parameters.get("properties") if isinstance(parameters, dict) else None
    inputs = "".join(
        f"<li><b>{messages.escape(name)}</b> {messages.escape(_about(what))}</li>"
        for name, what in (known.items() if isinstance(known, dict) else ())
    )
    return (
        f"<div><dt>{messages.escape(function.get('name', ''))}</dt>"
        f"<dd>{messages.escape(function.get('description', ''))}<ul>{inputs}</ul></dd></div>"
    )


def _about(parameter: Any) -> str:
    if not isinstance(parameter, dict):
        return str(parameter)
    return " ".join(str(parameter[key]) for key in ("type", "description") if parameter.get(key))


def _calls(text: str | None, words: str) -> str:
    """The calls of tools in an answer: each tool's name with what it is given."""
    calls = _read(text)
    if text and not isinstance(calls, list):
        return _words(text, words)
    return "".join(_call(call, words) for call in calls or ())


def _call(call: Any, words: str) -> str:
    function = _function(call)
    given = function.get("arguments")
    pairs = given.items() if isinstance(given, dict) else [("", given)] if given else []
    lines = "".join(
        f"<div><dt>{messages.escape(name)}</dt><dd>{_words(_plain(value), words)}</dd></div>"
        for name, value in pairs
    )
    name = messages.escape(function.get("name", ""))
    return (
        f'<div class="call"><span class="soft">{_("calls")}</span> <b>{name}</b>'
        f'<dl class="cells">{lines}</dl></div>'
    )


def _result(text: str, words: str) -> str:
    """What a tool answered: much JSON on lines of its own, anything else as it is."""
    value = _read(text)
    if isinstance(value, (dict, list)) and len(text) > ONE_LINE:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    return f'<div class="result">{_words(text, words)}</div>'


def _read(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return None


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- what stands beside a row


def _beside(row: Row, words: str) -> str:
    """The row's `meta` in small print."""
    items = []
    for name, value in (row.get(META) or {}).items():
        text = _plain(value)
        cut = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."
        items.append(f"<span><b>{messages.escape(name)}</b> {_words(cut, words)}</span>")
    return f'<footer class="meta">{"".join(items)}</footer>' if items else ""


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


def legend(model: str, template: str, max_length: int | None, text_method: str = "") -> str:
    """What the chips mean, whose tokens they are and where the settings come from."""
    if text_method:
        how = _ON_BLOCKS if METHODS[text_method].fills_blocks else _ON_ROWS
        told = _(
            "Tokens of {model}, in rows of {length:,}: as set in Configure.",
            model=model,
            length=max_length,
        )
        return (
            f'<div class="legend"><span class="t loss">{_("learned from")}</span>'
            f'<span class="t special">{_("special")}</span>'
            f'<span class="aside">{messages.escape(told)}</span></div>{messages.note(how)}'
        )
    told = _(
        "Tokens of {model}, {template}, cut at {length:,}: as set in Configure.",
        model=model,
        template=template,
        length=max_length,
    )
    return (
        f'<div class="legend"><span class="t loss">{_("learned from")}</span>'
        f'<span class="t">{_("only read")}</span><span class="t special">{_("special")}</span>'
        f'<span class="t behind">{_("behind the cut")}</span>'
        f'<span class="aside">{messages.escape(told)}</span></div>'
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
    notes = "".join(messages.note(text) for text in row["notes"] or () if text not in common)
    drawn = "".join(_side(side, max_length, len(sides) > 1, text_method) for side in sides)
    many = f'<div class="sides">{drawn}</div>' if len(sides) > 1 else drawn
    counts = _counts(sides[0], text_method) if len(sides) == 1 and sides[0]["tokens"] else ""
    return card(place, problem + notes + many, counts, _foot(row, form))


def _counts(side: Seen, text_method: str = "") -> str:
    whole = n_("{n} token", "{n:,} tokens", side["full_length"])
    if text_method:
        return whole
    left, loss = side["full_length"] - side["length"], side["loss_tokens"]
    if left > 0:
        whole = _("{tokens}, {n:,} behind the cut", tokens=whole, n=left)
    return _("{tokens}, {n:,} carry loss", tokens=whole, n=loss)


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
    shown = side["cut_tokens"][:BEHIND]
    chips = "".join(_chip(*token) for token in shown)
    hidden = left - len(shown)
    more = f'<p class="soft">{_("and {n:,} more", n=hidden)}</p>' if hidden > 0 else ""
    tokens = n_("{n} token", "{n:,} tokens", left)
    if not text_method:
        line = _("cut at {length:,}: {tokens} not seen", length=max_length, tokens=tokens)
    elif METHODS[text_method].fills_blocks:
        line = _("a block has {length:,}: {tokens} more", length=max_length, tokens=tokens)
    else:
        line = _("a row has {length:,}: {tokens} more", length=max_length, tokens=tokens)
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
        judged = form == "unpaired-preference"
        lines.append((_("Judged") if judged else _("Label"), row["label"]))
    if row.get("answer"):
        lines.append((_("Reference answer"), row["answer"]))
    if form in LEARNED_BY:
        lines.append((_("For"), LEARNED_BY[form]))
    spans = "".join(f"<span><b>{name}</b> {messages.escape(text)}</span>" for name, text in lines)
    return f'<footer class="meta">{spans}</footer>' if spans else ""
