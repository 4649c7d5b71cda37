"""Rows that are single turns of conversations, tied by the id of what they answer, as the messages
of OpenAssistant: each path from a beginning to an end becomes one row with a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from core.data.forms import ASKING, NAMES, used_columns
from core.data.read.row import Record, Row
from core.data.turn_keys import HONOURED_KEYS, SPEAKER_KEYS, is_said
from core.data.turns import ROLE_OF
from core.errors import DataError
from core.language import _

TREE = "tree"
"""The column with the id of a conversation's first turn: what is split by it shares no turn."""

_IDS = ("id", "message_id", "msg_id", "node_id", "turn_id", "post_id", "uuid")
_PARENTS = (
    *("parent_id", "parent", "parent_message_id", "parentid", "parent_node_id", "parent_uuid"),
    *("reply_to", "reply_to_id", "in_reply_to"),
)
_WORDS = ("text", "content", "value", "message")
_ANSWERS = NAMES["completion"][:7]
_NOBODY = ("", "0", "-1", "none", "null", "nan", "root")
_LOOKED_AT = 20
_MOST_CHARS = 2**30
_MOST_TURNS = 1000


def chained(records: Iterable[Record], mapping: Mapping[str, str] | None) -> Iterator[Record]:
    """The records as they are; but for rows that are turns with an id and the id of their parent,
    a record for each path, its turns in a column that is named after the parent's.

    Turns that nobody answers, and those whose beginning is missing, are records with a problem.
    A mapping that names the columns of single turns leaves them alone. Memory holds all rows of
    such a file; raises DataError when they are more than a gigabyte.
    """
    rest = iter(records)
    head = list(islice(rest, _LOOKED_AT))
    shape = _shape([record.row for record in head if record.row])
    if shape is None or not used_columns(mapping or {}).isdisjoint(shape.words):
        yield from head
        yield from rest
        return
    held, size = list(head), 0
    for record in rest:
        held.append(record)
        size += sum(len(value) for value in (record.row or {}).values() if isinstance(value, str))
        if size > _MOST_CHARS:
            raise DataError(
                _(
                    "The turns that {column} ties together are more than a gigabyte.",
                    column=shape.parent,
                ),
                _(
                    "Split the file, or leave out {column} if its rows stand alone.",
                    column=shape.parent,
                ),
            )
    yield from _paths(held, shape)


@dataclass(frozen=True)
class _Shape:
    """Which columns say what of a turn. `words` are (who speaks, what) or (prompt, answer)."""

    id: str
    parent: str
    words: tuple[str, str]
    spoken: bool
    more: str = ""

    def turns(self, row: Row) -> list[dict[str, Any]]:
        first, second = row.get(self.words[0]), row.get(self.words[1])
        if self.spoken:
            kept = {key: row[key] for key in HONOURED_KEYS if is_said(row.get(key))}
            return [{"role": first, "content": second, **kept}]
        extra = row.get(self.more) if self.more else None
        if isinstance(extra, str) and extra.strip():
            first = f"{first}\n\n{extra}"
        return [{"role": "user", "content": first}, {"role": "assistant", "content": second}]

    def asks(self, row: Row) -> bool:
        role = row.get(self.words[0])
        return self.spoken and isinstance(role, str) and ROLE_OF.get(role.strip().lower()) == "user"

    def beside(self, row: Row) -> Row:
        """What a row says besides its turns."""
        taken = {self.parent, *self.words, self.more}
        taken |= set(HONOURED_KEYS) if self.spoken else set()
        return {name: value for name, value in row.items() if name not in taken}


def _shape(rows: Sequence[Row]) -> _Shape | None:
    names = {name.strip().lower(): name for row in rows for name in row}

    def named(known: Sequence[str]) -> str:
        return next((names[name] for name in known if name in names), "")

    own, parent = named(_IDS), named(_PARENTS)
    if not own or not parent:
        return None
    for words, spoken in (
        ((named(SPEAKER_KEYS), named(_WORDS)), True),
        ((named(ASKING), named(_ANSWERS)), False),
    ):
        if all(words):
            more = named(("input",)) if not spoken and words[0].lower() == "instruction" else ""
            return _Shape(own, parent, words, spoken, more)
    return None


def _key(value: Any) -> str:
    """An id as text; a table with empty cells makes 3.0 of 3."""
    return re.sub(r"^(\d+)\.0$", r"\1", str(value).strip()) if value is not None else ""


def _paths(records: Sequence[Record], shape: _Shape) -> Iterator[Record]:
    nodes: dict[str, Record] = {}
    problems: dict[int, str] = {}
    for place, record in enumerate(records):
        key = _key(record.row.get(shape.id)) if record.row is not None else ""
        if key in nodes:
            problems[place] = _(
                "the {column} {id} is there more than once", column=shape.id, id=key[:80]
            )
        elif key:
            nodes[key] = record
    above = {key: _key((node.row or {}).get(shape.parent)) for key, node in nodes.items()}
    above = {
        key: "" if parent == key or (parent.lower() in _NOBODY and parent not in nodes) else parent
        for key, parent in above.items()
    }
    if not any(parent in nodes for parent in above.values()):
        yield from records  # the column means something else
        return
    beginnings = _beginnings(above)
    unanswered, ends = _ends(nodes, above, shape)
    for place, record in enumerate(records):
        row = record.row
        key = _key(row.get(shape.id)) if row is not None else ""
        if row is None:
            yield record
        elif place in problems or not key:
            yield record._replace(
                row=None, problem=problems.get(place) or _("no {column}", column=shape.id)
            )
        elif not beginnings[key]:
            missing = _(
                "what was said before is missing: {column} {id}",
                column=shape.parent,
                id=above[key][:80],
            )
            yield record._replace(row=None, problem=missing)
        elif key in unanswered:
            yield record._replace(row=None, problem=_("nobody answers this turn"))
        elif key in ends:
            yield _path(key, nodes, above, shape, beginnings[key])


def _beginnings(above: Mapping[str, str]) -> dict[str, str]:
    """The id of the turn that each turn's conversation begins with; "" where it is missing, or
    where the parents go round in a circle."""
    found: dict[str, str] = {}
    for key in above:
        way: list[str] = []
        walked: set[str] = set()
        while key in above and key not in found and key not in walked:
            way.append(key)
            walked.add(key)
            if not above[key]:
                found[key] = key
            key = above[key] or key
        for one in way:
            found.setdefault(one, found.get(key, ""))
    return found


def _ends(
    nodes: Mapping[str, Record], above: Mapping[str, str], shape: _Shape
) -> tuple[set[str], set[str]]:
    """(turns that ask and are not answered, turns that a conversation ends with)."""
    below = dict.fromkeys(nodes, 0)
    for parent in above.values():
        if parent in below:
            below[parent] += 1
    unanswered: set[str] = set()
    waiting = [key for key, count in below.items() if not count]
    ends: set[str] = set()
    while waiting:
        key = waiting.pop()
        if not shape.asks(nodes[key].row or {}):
            ends.add(key)
            continue
        unanswered.add(key)
        parent = above[key]
        if parent in below:
            below[parent] -= 1
            if not below[parent]:
                waiting.append(parent)
    return unanswered, ends


def _path(
    key: str,
    nodes: Mapping[str, Record],
    above: Mapping[str, str],
    shape: _Shape,
    beginning: str,
) -> Record:
    last, turns = nodes[key], []
    while key:
        turns.append(shape.turns(nodes[key].row or {}))
        key = above[key]
        if len(turns) > _MOST_TURNS:
            reason = _("the conversation has more than {most:,} turns", most=_MOST_TURNS)
            return last._replace(row=None, problem=reason)
    said = [turn for one in reversed(turns) for turn in one]
    row = {f"conversation by {shape.parent}": said, TREE: beginning, **shape.beside(last.row or {})}
    return last._replace(row=row)
