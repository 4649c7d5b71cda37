"""Which form rows have and which column is which, by names and values, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.data.conversion_values import template_of
from core.data.formats_columns import Columns
from core.data.formats_known import (
    ASKING,
    FORMS,
    JUDGED,
    NAMES,
    NOT_LABELS,
    ONLY_ANSWERS,
    TEXT_PAIRS,
)
from core.data.readers import Row


@dataclass(frozen=True)
class Detection:
    """`form` is a name in FORMS, or None with the reason in `reason` and what to do in `hint`.

    `possible` are the forms that a person may choose instead, each with at least a guess.
    """

    form: str | None
    reason: str
    mapping: dict[str, str] = field(default_factory=dict)
    possible: tuple[str, ...] = ()
    hint: str = ""


def detect(rows: Sequence[Row]) -> Detection:
    """The form of these rows (the first of a file, a few hundred at most)."""
    columns = Columns(rows)
    for name in _likely(columns):
        mapping = guess(columns, name)
        if _complete(columns, name, mapping):
            possible = _possible(columns, name)
            return Detection(name, reason_for(columns, name, mapping), mapping, possible)
    return Detection(
        None,
        f"No known form in the columns {', '.join(columns.names) or '(none)'}.",
        {},
        _possible(columns),
        "Choose a form and say which column is which.",
    )


def guess_mapping(rows: Sequence[Row], form: str) -> dict[str, str]:
    """The columns of a form's fields by their names and values, as far as there are any."""
    return guess(Columns(rows), form)


def _complete(columns: Columns, form: str, mapping: Mapping[str, str]) -> bool:
    if form == "unpaired-preference" and "prompt" not in mapping:
        # Then the answers must be whole conversations.
        return "label" in mapping and columns.holds_turns(mapping.get("completion", ""))
    return all(required in mapping for required in FORMS[form].required)


def _likely(columns: Columns) -> Iterator[str]:
    """Forms to try, the most telling first."""
    if columns.named(NAMES["chosen"]) and columns.named(NAMES["rejected"]):
        yield "preference"
    yield "unpaired-preference"
    pair = guess(columns, "prompt-completion")
    if all(columns.holds_turns(pair.get(name, "")) for name in ("prompt", "completion")):
        yield "prompt-completion"
    talk = guess(columns, "messages").get("messages") or guess(columns, "sharegpt").get(
        "conversations"
    )
    if talk and columns.holds_questions(talk):
        yield "prompt-only"
    yield from ("sharegpt", "messages", "instruction")
    if columns.named(ONLY_ANSWERS) and columns.named(ASKING):
        yield "prompt-only"
    yield "prompt-completion"
    yield "labelled-text"
    if columns.named(ASKING) and not columns.named(NAMES["text"]):
        yield "prompt-only"
    yield "text"


def guess(columns: Columns, form: str) -> dict[str, str]:
    """As `guess_mapping`, of columns that were looked at before."""
    if form == "labelled-text":
        return _labelled(columns)
    mapping: dict[str, str] = {}
    for name in FORMS[form].fields:
        taken = set(mapping.values())
        free = [column for column in columns.usable if column not in taken]
        column = _column_for(columns, form, name, free, mapping)
        if column:
            mapping[name] = column
    return mapping


def _column_for(
    columns: Columns, form: str, name: str, free: list[str], mapping: Mapping[str, str]
) -> str | None:
    named = columns.named(NAMES[name], free)
    if name in ("messages", "conversations"):
        keys = ("role", "content") if name == "messages" else ("from", "value")
        others = [column for column in free if column not in named]
        return next((c for c in [*named, *others] if columns.holds_turns(c, keys)), None)
    if name in ("prompt", "completion", "chosen", "rejected"):
        talks = columns.named(NAMES["messages"], free)
        if name == "prompt" or (name == "completion" and form == "unpaired-preference"):
            named += talks
        turns = [column for column in named if columns.holds_turns(column)]
        return _best(columns, named, turns)
    if name == "label":
        return next((c for c in columns.named(JUDGED, free) if columns.judges(c)), None)
    if name == "input":
        # Beside an instruction it is a part of the prompt; beside anything else, who knows.
        asks = mapping.get("instruction") or mapping.get("prompt", "")
        if asks.strip().lower() != "instruction":
            return None
    if name in ("history", "tools"):
        return named[0] if named else None
    if name == "text" and not named:
        texts = [column for column in free if columns.holds_text(column)]
        return texts[0] if len(texts) == 1 and len(columns.names) == 1 else None
    return _best(columns, named)


def _best(columns: Columns, named: list[str], also: Sequence[str] = ()) -> str | None:
    """The first column with text (or one of `also`); else one that is still empty, for the first
    rows of a file may leave a column empty that later ones fill."""
    filled = (column for column in named if column in also or columns.holds_text(column))
    empty = (column for column in named if not columns.values(column))
    return next(filled, None) or next(empty, None)


def _labelled(columns: Columns) -> dict[str, str]:
    """Text and label: a column named as a label, or the one of few values beside longer text."""
    by_name = columns.named(NAMES["label"])
    label = next((c for c in by_name if columns.labels_by_name(c)), None)
    others = [c for c in columns.usable if c != label]
    texts = [c for c in others if columns.holds_text(c) and columns.mean_length(c)]
    if label is None and len(texts) == len(columns.names) == 2:
        short, long = sorted(texts, key=columns.mean_length)
        alone = columns.labels_by_values(short) and columns.varies(long)
        if alone and short.strip().lower() not in NOT_LABELS:
            return {"text": long, "label": short}
    if label is None:
        return {}
    for pair in TEXT_PAIRS:
        both = columns.named(pair, texts)
        if len(both) == 2:
            return {"text": f"{{{both[0]}}}\n\n{{{both[1]}}}", "label": label}
    named = columns.named((*NAMES["text"], *NAMES["prompt"]), texts)
    text = named[0] if named else max(texts, key=columns.mean_length, default="")
    return {"text": text, "label": label} if text else {}


def _possible(columns: Columns, found: str = "") -> tuple[str, ...]:
    """Forms that these columns could be mapped to."""
    texts = [column for column in columns.usable if columns.holds_text(column)]
    turns = [column for column in columns.usable if columns.holds_turns(column)]
    judged = [column for column in columns.usable if columns.judges(column)]
    answers = len(texts) + len(turns)
    names = {
        "text": bool(texts),
        "prompt-completion": answers > 1,
        "instruction": len(texts) > 1,
        "messages": bool(turns),
        "sharegpt": bool(turns),
        "preference": answers > 2 or len(turns) > 1,
        "unpaired-preference": bool(judged) and (bool(turns) or len(texts) > 1),
        "prompt-only": answers > 0,
        "labelled-text": bool(texts) and len(columns.usable) > 1,
    }
    return tuple(name for name, fits in names.items() if fits or name == found)


def used_columns(mapping: Mapping[str, str]) -> set[str]:
    """The columns that a mapping names, alone or in a template."""
    used: set[str] = set()
    for source in mapping.values():
        template = template_of(source)
        used |= set(template.columns) if template else {source}
    return used


def reason_for(columns: Columns, form: str, mapping: Mapping[str, str]) -> str:
    """What in these columns makes them this form, and which columns are left over."""
    named = ", ".join(
        source if source == name else f"{_shown(source)} as {name}"
        for name, source in mapping.items()
    )
    said = {
        "text": "Text in the column {}.",
        "prompt-completion": "A prompt and its answer: {}.",
        "instruction": "Alpaca's columns: {}.",
        "messages": "Lists of turns with role and content{}: {}.",
        "sharegpt": "Lists of turns with from and value{}: {}.",
        "preference": "Two answers compared, one chosen and one rejected: {}.",
        "unpaired-preference": "Answers judged good or bad: {}.",
        "prompt-only": "Prompts without an answer to learn: {}.",
        "labelled-text": "Texts with labels{}: {}.",
    }[form]
    more = ""
    talk = mapping.get("messages") or mapping.get("conversations")
    if talk and columns.has_calls(talk):
        more = ", with calls of tools"
    labels = columns.labels(mapping.get("label", "")) if form == "labelled-text" else None
    sign = mapping.get("separator")
    if labels and sign:
        labels = {part.strip() for label in labels for part in label.split(sign) if part.strip()}
    if labels:
        more = f" ({len(labels)} different in the rows looked at)"
    text = said.format(more, named) if said.count("{}") == 2 else said.format(named)
    if labels and not sign:
        text += "".join(
            f" Where {found!r} stands between several labels, choose it as the separator."
            for found in columns.separators(mapping["label"])[:1]
        )
    unused = [column for column in columns.names if column not in used_columns(mapping)]
    return text + (f" Not used: {', '.join(unused)}." if unused else "")


def _shown(source: str) -> str:
    """A mapping's value in one line."""
    return source.replace("\n", "\\n") if template_of(source) else source
