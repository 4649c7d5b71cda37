"""Steps about rows that say the same: exactly, nearly, or with two labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal

import orjson

from core.config.fields import knob
from core.data.read.row import Row
from core.data.record import PARTS
from core.data.rowtext import TEXT_COLUMNS, TURN_COLUMNS, prompt_text, row_text
from core.data.steps.base import Decision, RowWork, Setting, Step, Unusable, WholeWork

_BESIDE = frozenset({"meta", "part"})
_DIGEST_BYTES = 16
Compare = Literal["row", "prompt", "text"]


def compared_text(row: Row, compare: str) -> str:
    """The words that are compared: those of the prompt, or all."""
    return prompt_text(row) if compare == "prompt" else row_text(row)


def folded(text: str) -> str:
    """A text without its capitals and with single spaces."""
    return " ".join(text.lower().split())


def digest(content: str | bytes) -> bytes:
    """16 bytes that stand for a text: two of 1,000,000 texts share them once in 10^26 tries."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


def row_digest(row: Row) -> bytes:
    """16 bytes that stand for all that is learned from a row: not its part, nor what its source
    said beside it."""
    learned = {name: value for name, value in row.items() if name not in _BESIDE}
    return digest(orjson.dumps(learned, option=orjson.OPT_SORT_KEYS))


class Places:
    """Names rows by their part and their place in it, as the page counts them: from 1."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.count = 0

    def add(self, part: str) -> int:
        """The place of the next row among all; rows come part by part."""
        self._counts[part] += 1
        self.count += 1
        return self.count - 1

    def name(self, place: int) -> str:
        for part in PARTS:
            if place < self._counts[part]:
                return f"{part} row {place + 1:,}"
            place -= self._counts[part]
        raise IndexError(place)


class DropDuplicates(Step):
    """Drops rows that say exactly what an earlier one says."""

    op = "drop_duplicates"
    title = "Drop exact duplicates"
    kind = "quality"

    compare: Compare = knob("row", "Compare", level="basic")
    """Row compares all that is learned from, with roles and labels; prompt only what is asked, so
    that one answer to each question is left; text the words alone."""

    ignore_case: bool = knob(False, "Ignore capitals and spaces")
    """Rows that differ only in capitals or white space are the same. For prompt and text."""

    def start(self, setting: Setting) -> RowWork:
        return _FirstOnly(self.compare, self.ignore_case)


class _FirstOnly(RowWork):
    def __init__(self, compare: str, ignore_case: bool) -> None:
        self._compare = compare
        self._ignore_case = ignore_case
        self._places = Places()
        self._seen: dict[bytes, int] = {}

    def feed(self, row: Row) -> Iterable[Row]:
        place = self._places.add(row["part"])
        first = self._seen.setdefault(self._key(row), place)
        if first != place:
            same = "same prompt as" if self._compare == "prompt" else "duplicate of"
            raise Unusable(f"{same} {self._places.name(first)}")
        return (row,)

    def _key(self, row: Row) -> bytes:
        if self._compare == "row":
            return row_digest(row)
        text = compared_text(row, self._compare)
        return digest(folded(text) if self._ignore_case else text)


class DropNearDuplicates(Step):
    """Drops rows that say nearly what an earlier one says."""

    op = "drop_near_duplicates"
    title = "Drop near duplicates"
    kind = "quality"
    single_rows: ClassVar[bool] = False

    threshold: float = knob(0.85, "Alike from", level="basic", ge=0.5, le=0.99)
    """The share of word runs two rows must have in common: 0.95 finds rows that differ in a word
    or two, 0.7 also rewritten ones."""

    compare: Literal["row", "prompt"] = knob("row", "Compare", level="basic")
    """All words of a row, or those of its prompt."""

    shingle_size: int = knob(3, "Words in a run", ge=1, le=10)
    """Longer runs make rows with the same words in another order less alike."""

    def start(self, setting: Setting) -> WholeWork:
        return _NearDuplicates(self, setting.folder)


class _NearDuplicates(WholeWork):
    columns: Sequence[str] | None = (*TEXT_COLUMNS, *TURN_COLUMNS)

    def __init__(self, step: DropNearDuplicates, folder: Path) -> None:
        from core.data.steps.near_texts import NearTexts

        self._compare = step.compare
        self._texts = NearTexts(step.threshold, step.shingle_size, folder)
        self._places = Places()

    def note(self, row: Row) -> None:
        self._places.add(row["part"])
        self._texts.add(compared_text(row, self._compare))

    def decide(self) -> Decision:
        chains = self._texts.index()
        drop: dict[int, str] = {}
        for index in chains.related:
            found = chains.nearest(index)
            if found is None:
                chains.keep(index)
            else:
                name = self._places.name(found[0])
                drop[index] = f"near duplicate of {name}, {found[1]:.2f} alike"
        return Decision(drop=drop)


class DropLabelConflicts(Step):
    """Drops rows with the same text and different labels: no model can learn both."""

    op = "drop_label_conflicts"
    title = "Drop label conflicts"
    kind = "quality"
    forms = ("labelled-text", "unpaired-preference")
    single_rows: ClassVar[bool] = False

    keep: Literal["none", "majority"] = knob("none", "Keep of a conflict", level="basic")
    """None drops every row of it. Majority keeps those with the label that most of them have, if
    one has most."""

    ignore_case: bool = knob(True, "Ignore capitals and spaces")
    """Texts that differ only in capitals or white space are the same."""

    def start(self, setting: Setting) -> WholeWork:
        return _Conflicts(self)


class _Conflicts(WholeWork):
    columns: Sequence[str] | None = (*TEXT_COLUMNS, *TURN_COLUMNS, "labels", "label")

    def __init__(self, step: DropLabelConflicts) -> None:
        self._step = step
        self._keys = bytearray()
        self._labels: list[int] = []
        self._numbers: dict[Any, int] = {}

    def note(self, row: Row) -> None:
        text = row_text(row)
        self._keys += digest(folded(text) if self._step.ignore_case else text)
        label = tuple(sorted(row["labels"])) if "labels" in row else bool(row.get("label"))
        self._labels.append(self._numbers.setdefault(label, len(self._numbers)))

    def decide(self) -> Decision:
        first: dict[bytes, int] = {}
        torn: dict[bytes, list[int]] = {}
        for index in range(len(self._labels)):
            key = self._key(index)
            if self._labels[first.setdefault(key, index)] != self._labels[index]:
                torn[key] = []
        for index in range(len(self._labels)) if torn else ():
            if self._key(index) in torn:
                torn[self._key(index)].append(index)
        drop: dict[int, str] = {}
        names = {number: _label_name(label) for label, number in self._numbers.items()}
        for rows in torn.values():
            drop |= self._conflict(rows, names)
        return Decision(drop=dict(sorted(drop.items())))

    def _key(self, index: int) -> bytes:
        return bytes(self._keys[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES])

    def _conflict(self, rows: list[int], names: dict[int, str]) -> dict[int, str]:
        counts = Counter(self._labels[index] for index in rows).most_common()
        found = ", ".join(f"{names[label]} ({count})" for label, count in counts)
        reason = f"the same text has {len(counts)} labels: {found}"
        keep = None
        if self._step.keep == "majority" and counts[0][1] > counts[1][1]:
            keep = counts[0][0]
        return {index: reason for index in rows if self._labels[index] != keep}


def _label_name(label: Any) -> str:
    if isinstance(label, bool):
        return "good" if label else "bad"
    return " + ".join(label) or "none"


STEPS = (DropDuplicates, DropNearDuplicates, DropLabelConflicts)
