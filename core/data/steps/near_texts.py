"""Texts that are nearly the same, found without comparing each with each.

Each text becomes a set of shingles (runs of words). MinHash signatures of the sets (rensa) are cut
into bands; texts that share a band are candidates, and their true Jaccard similarity decides:
the shingles they share over all they have. The texts wait in a temporary file, so that memory holds
only the bands' hashes: 64 bytes a text at a threshold of 0.85, 168 at 0.5.
"""

from __future__ import annotations

import re
import tempfile
from array import array
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rensa

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
