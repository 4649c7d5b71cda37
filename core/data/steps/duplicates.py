"""Steps about rows that say the same: exactly, nearly, or with two labels.

Nearly the same are found without comparing each with each. Each text becomes a set of shingles
(runs of words). MinHash signatures of the sets (rensa) are cut into bands; texts that share a band
are candidates, and their true Jaccard similarity decides: the shingles they share over all they
have. The texts wait in a temporary file, so that memory holds only the bands' hashes: 64 bytes a
text at a threshold of 0.85, 168 at 0.5.
"""

from __future__ import annotations

import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import orjson
import rensa

from core.config.fields import knob
from core.data.read.row import Row
from core.data.record import PARTS
from core.data.rowtext import TEXT_COLUMNS, TURN_COLUMNS, prompt_text, row_text
from core.data.steps.base import Decision, RowWork, Setting, Step, Unusable, WholeWork
from core.language import N_, Said, _

_PERMUTATIONS = 128
_SEED = 42
_FOUND_AT_THRESHOLD = 0.99
_AT_ONCE = 512
_COMPARED_CHARS = 100_000
"""Of longer texts the beginning is compared."""
_CHAIN = 64
_VERIFIED = 16
# Chinese and Japanese are written without spaces: each of their signs counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def shingles(text: str, size: int) -> list[str]:
    """Runs of `size` words, in lower case and without marks; one run where there are fewer."""
    lower = text.lower()
    words = re.findall(r"\w+", lower) if lower.isascii() else _WORD.findall(lower)
    if len(words) <= size:
        return [" ".join(words)] if words else []
    return [" ".join(run) for run in zip(*(words[i:] for i in range(size)), strict=False)]


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, values in each) so that texts as alike as the threshold share a band with a
    probability of at least 0.99: 1 - (1 - threshold^values)^bands."""
    for values in range(32, 0, -1):
        bands = _PERMUTATIONS // values
        if 1 - (1 - threshold**values) ** bands >= _FOUND_AT_THRESHOLD:
            return bands, values
    return _PERMUTATIONS, 1


class NearTexts:
    """Texts by the order in which they are added; `index` makes them ready to be searched."""

    def __init__(self, threshold: float, size: int, folder: Path | None = None) -> None:
        self.threshold = threshold
        self._size = size
        self._bands, self._values = bands_for(threshold)
        rng = np.random.default_rng(_SEED)
        self._factors = rng.integers(1, 2**63, self._values, dtype=np.uint64) | np.uint64(1)
        self._hashes: list[Any] = []
        self._waiting: list[list[str]] = []
        place = folder if folder and folder.is_dir() else None
        self._file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 - lives as long as this
        self._ends = array("q", [0])
        self._shingles_of = lru_cache(maxsize=8)(self._read)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, text: str) -> None:
        text = text[:_COMPARED_CHARS]
        written = self._file.write(text.encode("utf-8", "replace"))
        # A text without words is like no other: its only shingle is its own place.
        self._waiting.append(shingles(text, self._size) or [f"\0{len(self)}"])
        self._ends.append(self._ends[-1] + written)
        if len(self._waiting) >= _AT_ONCE:
            self._sign()

    def _sign(self) -> None:
        if not self._waiting:
            return
        matrix = rensa.RMinHash.digest_matrix_from_token_sets(self._waiting, _PERMUTATIONS, _SEED)
        values = np.array(matrix.to_rows(), dtype=np.uint64)
        used = values[:, : self._bands * self._values]
        cut = used.reshape(len(values), self._bands, self._values)
        with np.errstate(over="ignore"):
            mixed = ((cut + np.uint64(1)) * self._factors).sum(axis=2, dtype=np.uint64)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * self._factors[0]
        self._hashes.append((mixed >> np.uint64(32)).astype(np.uint32))
        self._waiting = []

    def index(self) -> Chains:
        """Who shares a band with whom."""
        self._sign()
        self._file.flush()
        groups = np.full((len(self), self._bands), -1, dtype=np.int32)
        for band in range(self._bands):
            if not self._hashes:
                break
            column = np.concatenate([part[:, band] for part in self._hashes])
            _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
            shared = counts[inverse] > 1
            # Numbered anew without the texts that are alone, to keep the chains' heads few.
            numbers = np.cumsum(counts > 1) - 1
            groups[shared, band] = numbers[inverse[shared]]
        self._hashes = []
        return Chains(self, groups)

    def alike(self, first: int, second: int) -> float:
        """The Jaccard similarity of two texts' shingles, from 0 to 1."""
        a, b = self._shingles_of(first), self._shingles_of(second)
        both = len(a & b)
        return both / (len(a) + len(b) - both) if a or b else 0.0

    def _read(self, index: int) -> frozenset[str]:
        begin, end = self._ends[index], self._ends[index + 1]
        self._file.seek(begin)
        return frozenset(shingles(self._file.read(end - begin).decode("utf-8"), self._size))


class Chains:
    """Texts that were kept, linked band by band. A text is compared with those it shares most
    bands with; at most `_VERIFIED` of them, which bounds the time where all texts are related."""

    def __init__(self, texts: NearTexts, groups: Any) -> None:
        self._texts = texts
        self._groups = groups
        self._bands = groups.shape[1]
        heads = groups.max(axis=0, initial=-1) + 1
        self._heads = [array("i", [-1]) * int(count) for count in heads]
        self._before = array("i", [-1]) * (groups.size)
        self.related: list[int] = np.flatnonzero((groups >= 0).any(axis=1)).tolist()
        """The texts that share a band with any other, in order."""

    def keep(self, index: int) -> None:
        """Later texts are compared with this one."""
        for band, group in enumerate(self._groups[index].tolist()):
            if group >= 0:
                self._before[index * self._bands + band] = self._heads[band][group]
                self._heads[band][group] = index

    def nearest(self, index: int) -> tuple[int, float] | None:
        """(text, likeness) of a kept text that is at least as alike as the threshold."""
        shared: Counter[int] = Counter()
        for band, group in enumerate(self._groups[index].tolist()):
            other = self._heads[band][group] if group >= 0 else -1
            steps = 0
            while other >= 0 and steps < _CHAIN:
                shared[other] += 1
                other = self._before[other * self._bands + band]
                steps += 1
        for other in sorted(shared, key=lambda one: (-shared[one], one))[:_VERIFIED]:
            likeness = self._texts.alike(index, other)
            if likeness >= self._texts.threshold:
                return other, likeness
        return None


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
                return _("{part} row {number}", part=part, number=f"{place + 1:,}")
            place -= self._counts[part]
        raise IndexError(place)


class DropDuplicates(Step):
    """Drops rows that say exactly what an earlier one says."""

    op = "drop_duplicates"
    title = Said(N_("Drop exact duplicates"))
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
            other = self._places.name(first)
            raise Unusable(
                _("same prompt as {row}", row=other)
                if self._compare == "prompt"
                else _("duplicate of {row}", row=other)
            )
        return (row,)

    def _key(self, row: Row) -> bytes:
        if self._compare == "row":
            return row_digest(row)
        text = compared_text(row, self._compare)
        return digest(folded(text) if self._ignore_case else text)


class DropNearDuplicates(Step):
    """Drops rows that say nearly what an earlier one says."""

    op = "drop_near_duplicates"
    title = Said(N_("Drop near duplicates"))
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
                drop[index] = _(
                    "near duplicate of {row}, {share} alike", row=name, share=f"{found[1]:.2f}"
                )
        return Decision(drop=drop)


class DropLabelConflicts(Step):
    """Drops rows with the same text and different labels: no model can learn both."""

    op = "drop_label_conflicts"
    title = Said(N_("Drop label conflicts"))
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
        reason = _("the same text has {count} labels: {labels}", count=len(counts), labels=found)
        keep = None
        if self._step.keep == "majority" and counts[0][1] > counts[1][1]:
            keep = counts[0][0]
        return {index: reason for index in rows if self._labels[index] != keep}


def _label_name(label: Any) -> str:
    if isinstance(label, bool):
        return "good" if label else "bad"
    return " + ".join(label) or "none"


STEPS = (DropDuplicates, DropNearDuplicates, DropLabelConflicts)
