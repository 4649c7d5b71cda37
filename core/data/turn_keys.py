"""What the keys of a turn say, however their source spelled them: its words as text or as parts,
the thought before its answer, how much of it is learned, and which keys nobody reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from core.data.read.row import Row, invalid_text, json_type
from core.data.rowtext import TURN_COLUMNS, texts
from core.data.values import ALSO, Unusable, joined, json_text
from core.language import N_, _, n_

SPEAKER_KEYS = ("role", "from", "speaker")
WORDS_KEYS = ("content", "value", "text", "parts")
THOUGHT_KEYS = (
    *("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "think"),
    *("thinking_content", "reasoning_text", "reasoning_details", "thinking_blocks"),
    *("chain_of_thought", "cot", "thought_process", "scratchpad"),
)
"""Names of the thought before an answer; it is kept as `reasoning_content`. Of these and of marks,
`reasoningContent` and `Reasoning` are other spellings."""

THOUGHT_TAGS = (
    "think|thinking|thought|thoughts|thought_process|reasoning|chain_of_thought|cot|scratchpad"
    "|seed:think"
)
OPENED_THOUGHT = re.compile(
    rf"\A\s*(<(?:{THOUGHT_TAGS})>|\[THINK\]|<\|begin_of_thought\|>)", re.IGNORECASE
)
"""How words begin that hold a thought before them."""

_LEARNED = (
    *("weight", "loss_weight", "loss_scale", "loss_mask", "loss", "compute_loss"),
    *("train", "training", "trainable", "train_on_turn", "learn", "learned"),
    *("learnable", "supervised"),
)
_NOT_LEARNED = ("masked", "mask_loss", "ignore_loss", "no_loss", "ignore", "ignored")
"""Marks that say the opposite: true means that the turn is only read."""

_NOT_LEARNED_IF_TRUTH = ("mask", "skip")
"""The same, but only as true and false: as numbers a mask also means what is learned."""

HONOURED_KEYS = (
    *(*THOUGHT_KEYS, *_LEARNED, *_NOT_LEARNED, *_NOT_LEARNED_IF_TRUTH),
    *("tool_calls", "tool_call_id", "name"),
)
"""What is kept of a turn besides who speaks and what."""

_SHARES = {"true": 1.0, "yes": 1.0, "on": 1.0, "false": 0.0, "no": 0.0, "off": 0.0}

_MEDIA = {
    **dict.fromkeys(("image", "img", "picture", "photo", "screenshot", "pixel"), N_("a picture")),
    **dict.fromkeys(("audio", "sound", "speech"), N_("a sound")),
    "video": N_("a video"),
    **dict.fromkeys(("media", "attachment", "file", "document", "inline"), N_("a file")),
}
"""What is no text, by what the name of a part, a key or a column has in it."""

_MEDIA_NAME = re.compile("|".join(_MEDIA), re.I)
_ATTACHED = re.compile(r"(?:image|img|audio|video)s?|image_url", re.I)
"""Columns of rows that hold nothing else."""

_ATTACHED_TO_TURN = re.compile(
    r"(?:(?:image|img|picture|photo|screenshot|audio|video|pixel_value)s?"
    r"(?:_(?:url|path|file|data)s?)?|attachments)",
    re.I,
)
"""Keys of turns that hold something to see or to hear."""

_SEEN_OR_HEARD = "image|img|picture|photo|audio|sound|speech|video"
_MEDIA_COLUMN = re.compile(f"{_SEEN_OR_HEARD}|media", re.I)
_PLACE = re.compile(rf"<\|?(?:{_SEEN_OR_HEARD})s?[\w|\- ]{{0,20}}>", re.I)
_ALONE = ("<image>", "<audio>", "<video>")
"""Where the text of a turn begins or ends with one of these, something stood there."""

_STANDS_FOR = re.compile(
    r"<image>(?!.*</image>)|<\|(?:image|img|audio|video|vision)\w*\|>|<imagehere>"
    r"|<(?:image|audio|video)[ _]\d+>"
    r"|data:(?:image|audio|video)/[\w.+-]+;base64,[\w+/=]+(?![\w+/=]|\s?(?:\.\.\.|…))",
    re.I | re.S,
)
"""What stands in a text in the place of something else, wherever it is. A picture that is written
out and cut off ("iVBOR...") is none: no model has seen it, its words are what the row says."""

_TEXT_TYPES = (None, "", "text", "input_text", "output_text", "summary_text", "refusal")
_THOUGHT_TYPES = (
    *("thinking", "reasoning", "thought", "think", "reasoning_text", "reasoning.text"),
    *("reasoning.summary", "reasoning_content", "analysis"),
)
_PART_TEXTS = ("text", "value", "content", "thinking", "reasoning", "thought", "summary", "refusal")
_CALL_KEYS = {"id", "type", "function", "name", "arguments", "parameters"}
_CALLS = ("tool_calls", "function_call")
_LONGEST_KEY = 60


def is_said(value: Any) -> bool:
    """Whether a key says anything: Parquet fills each turn with the keys of all others."""
    return value is not None and not (isinstance(value, (str, list, dict)) and not value)


def speaker_of(turn: Mapping[str, Any]) -> Any:
    return _first(turn, SPEAKER_KEYS)[1]


def words_of(turn: Mapping[str, Any]) -> Any:
    value = _first(turn, WORDS_KEYS)[1]
    return "" if value is None else value


def _first(turn: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, Any]:
    return next(((key, turn[key]) for key in keys if turn.get(key) is not None), ("", None))


def content_of(value: Any, role: str, number: int) -> tuple[str, str]:
    """(words, thought) of a turn: text as it is, or parts in every spelling in use. What a tool
    gave back may be any JSON. Raises Unusable, naming the part that is no text."""
    if isinstance(value, str):
        return value, ""
    if isinstance(value, dict) and _is_part(value):
        value = [value]
    if isinstance(value, list) and (role != "tool" or all(map(_is_part, value))):
        words: list[str] = []
        thoughts: list[str] = []
        for part in value:
            text, is_thought = _part(part, number)
            (thoughts if is_thought else words).append(text)
        return "".join(words), "\n\n".join(thought for thought in thoughts if thought.strip())
    if role == "tool":
        return json_text(value, _("content of turn {number}", number=number)), ""
    raise Unusable(_("turn {number} is {kind}, not text", number=number, kind=json_type(value)))


def _is_part(value: Any) -> bool:
    """Whether an object is a part by its type, or, as Gemini's, by its text alone."""
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("type"), str) or isinstance(value.get("text"), str)


def _part(part: Any, number: int) -> tuple[str, bool]:
    """A part's text, and whether it is a thought."""
    if isinstance(part, str):
        return part, False
    kind = part.get("type") if isinstance(part, dict) else "other"
    if not isinstance(part, dict) or kind not in (*_TEXT_TYPES, *_THOUGHT_TYPES):
        raise _not_text(number, kind)
    held = next((key for key in part if _MEDIA_NAME.match(key) and is_said(part[key])), "")
    if held:
        raise _not_text(number, held)
    text = _part_text(part)
    if text is None:
        kind = kind or next((key for key in part if is_said(part[key])), "other")
        raise _not_text(number, kind)
    return text, kind in _THOUGHT_TYPES or part.get("thought") is True


def _not_text(number: int, kind: Any) -> Unusable:
    what = _what(str(kind)) or _("a part")
    return Unusable(
        _(
            "turn {number} holds {what} of type {kind}; only text can be learned",
            number=number,
            what=what,
            kind=str(kind)[:_LONGEST_KEY],
        )
    )


def _what(name: str) -> str:
    found = _MEDIA_NAME.search(name)
    return _MEDIA[found[0].lower()] if found else ""


def _part_text(part: Mapping[str, Any]) -> str | None:
    for key in _PART_TEXTS:
        said = part.get(key)
        if isinstance(said, list):  # a summary of several texts
            texts = [one if isinstance(one, str) else _part_text(one) for one in said if one]
            said = None if None in texts or not texts else "\n\n".join(str(one) for one in texts)
        elif isinstance(said, dict):  # {"value": ..., "annotations": ...}
            said = said.get("value")
        if isinstance(said, str):
            return said
    return None


_OF_TEXTS = {"type", *_PART_TEXTS}
_OF_FUNCTIONS = {"functionCall", "function_call", "functionResponse", "function_response"}
_OF_TOOLS = {"type", "id", "name", "input", "tool_use_id", "content", *_OF_FUNCTIONS}


def tools_apart(turn: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """A turn whose parts call tools or bring what those gave back, as Anthropic and Gemini write
    them, as turns of OpenAI's shape: an answer with its calls, or a tool's turn for each result
    before what else is said. Any other turn as it is."""
    key, parts = _first(turn, WORDS_KEYS)
    if is_said(turn.get("tool_calls")):
        return [turn]
    named = [_call_part(part) or _result_part(part) for part in parts]
    found = [one for one in named if one]
    results = [one for one in found if "role" in one]
    rest = [part for part, one in zip(parts, named, strict=True) if not one]
    if role == "assistant" and not results:
        return [{**turn, key: rest, "tool_calls": found}]
    if role == "user" and len(results) == len(found):
        return [*results, *([{**turn, key: rest}] if rest else [])]
    return [turn]


def is_of_tools(part: Any) -> bool:
    """Whether a part calls a tool, or brings what one gave back."""
    if type(part) is not dict or (len(part) == 2 and part.get("type") == "text"):
        return False  # nearly all are
    return part.get("type") in ("tool_use", "tool_result") or not _OF_FUNCTIONS.isdisjoint(part)


def _call_part(part: Any) -> dict[str, Any] | None:
    if not isinstance(part, dict):
        return None
    call = part.get("functionCall") or part.get("function_call")
    if part.get("type") == "tool_use":
        said = {"name": part.get("name"), "arguments": part.get("input")}
        return {"id": part.get("id"), "function": said}
    if isinstance(call, dict):
        return {"id": call.get("id"), "function": {**call, "arguments": call.get("args")}}
    return None


def _result_part(part: Any) -> dict[str, Any] | None:
    if not isinstance(part, dict):
        return None
    gave = part.get("functionResponse") or part.get("function_response")
    if part.get("type") == "tool_result":
        return {"role": "tool", "content": part.get("content"),
                "tool_call_id": part.get("tool_use_id")}  # fmt: skip
    if isinstance(gave, dict):
        return {"role": "tool", "content": gave.get("response"), "name": gave.get("name")}
    return None


def thought_of(turn: Mapping[str, Any]) -> tuple[str, list[str]]:
    """(the thought, the keys that say it) of a turn."""
    keys = {_plain(key): key for key in turn}
    texts = {
        keys[name]: text
        for name in THOUGHT_KEYS
        if name in keys and (text := _thought(turn[keys[name]]))
    }
    first = next(iter(texts.values()), "")
    return first, [key for key, text in texts.items() if text.strip() == first.strip()]


def _thought(value: Any) -> str:
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        texts = [
            part if isinstance(part, str) else _part_text(part)
            for part in value
            if isinstance(part, (str, dict))
        ]
        value = "\n\n".join(text for text in texts if text)
    return value if isinstance(value, str) and value.strip() else ""


def weight_of(turn: Mapping[str, Any]) -> tuple[float | None, list[str]]:
    """(the share of a turn's loss that counts, the keys that say it): 0 is only read, 1 learned.
    None where nothing is said. Of several marks the least counts."""
    shares: dict[str, float | None] = {}
    for key, value in turn.items():
        if value is None:
            continue
        share, name = mark_share(value), _plain(key)
        if name in _LEARNED:
            shares[key] = share
        elif name in _NOT_LEARNED_IF_TRUTH and _is_truth(value):
            shares[key] = 1.0 - (share or 0.0)
        elif name in _NOT_LEARNED and share is not None and share in (0.0, 1.0):
            shares[key] = 1.0 - share
    known = {key: share for key, share in shares.items() if share is not None}
    return min(known.values(), default=None), list(known)


@lru_cache(maxsize=1024)
def _plain(key: str) -> str:
    """A key in small letters, its words joined by a low line."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key)).lower()


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or str(value).strip().lower() in ("true", "false")


def mark_share(value: Any) -> float | None:
    """A mark as a number from 0 to 1, or None for what is none."""
    if isinstance(value, str):
        word = value.strip().lower()
        try:
            value = _SHARES[word] if word in _SHARES else float(word)
        except ValueError:
            return None
    return float(value) if isinstance(value, (bool, int, float)) and 0 <= value <= 1 else None


def refuse_media(turn: Mapping[str, Any], where: str) -> None:
    """Raises Unusable for a turn with a picture, a sound or a video in a key of its own."""
    held = next((key for key in turn if _ATTACHED_TO_TURN.fullmatch(_plain(key)) and turn[key]), "")
    if held:
        raise Unusable(
            _(
                "{where} holds {what} ({key}); only text can be learned",
                where=where,
                what=_what(held),
                key=held,
            )
        )


def refuse_media_beside(row: Row, made: Row, used: Collection[str]) -> None:
    """Raises Unusable for a row with a picture, a sound or a video in a column beside it, where
    its text has the place of it, or where a conversation has a list of them; and for a turn that
    begins or ends with such a place. `made` is the row's standard form, `used` are the columns
    that it was made of."""
    talks = "text" not in made
    for name in _media_columns(tuple(row)):
        value = row[name]
        if name in used or not value or value != value:
            continue
        attached = talks and _ATTACHED.fullmatch(name) and isinstance(value, (list, dict))
        if attached or any(_PLACE.search(text) for text in texts(made)):
            raise Unusable(
                _(
                    "the row holds {what} (column {column}); only text can be learned",
                    what=_what(name),
                    column=name,
                )
            )
    for turn in (turn for column in TURN_COLUMNS for turn in made.get(column, ())):
        said = turn["content"]
        if "<" not in said and "base64," not in said:
            continue
        said = said.strip()
        found = _STANDS_FOR.search(said)
        if found or said.startswith(_ALONE) or said.endswith(_ALONE):
            raise Unusable(
                _(
                    "a turn of {role} stands for a picture, a sound or a video ({begin} ...); only "
                    "text can be learned",
                    role=turn["role"],
                    begin=found[0][:40] if found else said[:10],
                )
            )


@lru_cache(maxsize=256)
def _media_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if _MEDIA_COLUMN.search(name))


def unread_keys(turn: Mapping[str, Any], role: str) -> Iterator[str]:
    """The keys of a turn that say something which is not kept; of a part and a call of a tool
    after a dot. `role` is what the turn becomes, "call" for a call alone."""
    read = {_first(turn, SPEAKER_KEYS)[0], _first(turn, WORDS_KEYS)[0], *weight_of(turn)[1]}
    read |= {key for key in ("tool_call_id", "name") if isinstance(turn.get(key), str)}
    if role in ("assistant", "call"):
        read |= set(thought_of(turn)[1])
    calls = next((key for key in _CALLS if is_said(turn.get(key))), "")
    if calls and role == "assistant":
        read.add(calls)
        yield from _inside(calls, turn[calls])
    for key, value in turn.items():
        if key not in read and is_said(value):
            yield str(key)[:_LONGEST_KEY]
    name, words = _first(turn, WORDS_KEYS)
    for part in words if isinstance(words, list) and role != "tool" else ():
        for key, value in part.items() if isinstance(part, dict) else ():
            if key in _OF_TEXTS or (key in _OF_TOOLS and is_of_tools(part)):
                continue
            if is_said(value):
                yield f"{name}.{key}"[:_LONGEST_KEY]


_KINDS_OF_KEYS = 100
_OTHERS = N_("other keys")


def note_keys(counts: Counter[str], keys: Iterable[str]) -> None:
    """Counts keys that are not used; of more than a hundred kinds the others together."""
    for key in keys:
        known = key in counts or len(counts) < _KINDS_OF_KEYS
        counts[key if known and not invalid_text(key) else _OTHERS] += 1


def unused_text(counts: Mapping[str, int]) -> str:
    """What a person is told of keys that are not used, or ""."""
    named = [
        n_("{key} ({n:,} turn)", "{key} ({n:,} turns)", n, key=_(key) if key == _OTHERS else key)
        for key, n in counts.items()
    ]
    return _("Keys of turns that are not used: {keys}.", keys=joined(ALSO, named)) if named else ""


def _inside(name: str, calls: Any) -> Iterator[str]:
    for call in calls if isinstance(calls, list) else [calls]:
        if isinstance(call, dict):
            function = call.get("function")
            inner = function if isinstance(function, dict) else {}
            for key in dict.fromkeys([*call, *inner]):
                said = is_said(call.get(key)) or is_said(inner.get(key))
                if key not in _CALL_KEYS and key != "index" and said:
                    yield f"{name}.{key}"[:_LONGEST_KEY]
