"""The step that joins documents and cuts them into blocks, for training on plain text."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from core.config.fields import knob
from core.data.read.row import Row
from core.data.steps.base import RowWork, Setting, Step, Unusable
from core.data.steps.model_files import DEFAULT_MODEL, end_of_text, tokenizer_file
from core.errors import DataError
from core.language import N_, Said, _

_NEAR = 0.25
"""A paragraph or sentence end counts as near within the last quarter of a block."""
_CHARS_A_TOKEN = 6
_KEPT_CHARS = 1_000_000
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"[.!?…][\"')\]»”’]*\s+|[。！？]+|\n")
_SPACE = re.compile(r"\s+")


class CutText(Step):
    """Joins documents and cuts them into blocks of a length; each keeps its file and pages."""

    op = "cut_text"
    title = Said(N_("Cut long text into blocks"))
    kind = "quality"
    forms = ("text",)

    unit: Literal["tokens", "characters"] = knob("tokens", "Count", level="basic")
    """Tokens are what max_length counts. Characters need no model."""

    model: str = knob(DEFAULT_MODEL, "Model", level="basic", when={"unit": ["tokens"]})
    """Its tokenizer counts: the name of a model on this machine, or a folder."""

    size: int = knob(1024, "Block", level="basic", ge=16, le=1_000_000)
    """The most a block holds, with the tokens that training adds at its ends. Take max_length."""

    overlap: int = knob(0, "Overlap", level="basic", ge=0)
    """So much of a block is repeated at the beginning of the next one."""

    join: Literal["file", "all", "no"] = knob("file", "Join", level="basic")
    """File joins the pages of a file; all joins every row, so that blocks are full; no cuts each
    row for itself."""

    whole_sentences: bool = knob(True, "End at paragraphs or sentences")
    """Blocks end at the last paragraph or sentence that ends in their last quarter, and else at
    a word. Off makes all blocks equally long."""

    separator: str = knob("auto", "Between documents", free_text=True, when={"join": ["all"]})
    """The text that stands between joined documents. Auto is the model's end-of-text token, or a
    blank line without a model. Pages of a file always have a blank line between them."""

    def start(self, setting: Setting) -> RowWork:
        if self.overlap > self.size // 2:
            raise DataError(
                _(
                    "An overlap of {overlap:,} is more than half a block of {size:,}.",
                    overlap=self.overlap,
                    size=self.size,
                ),
                _("Make it smaller."),
            )
        separator = "\n\n" if self.separator == "auto" else self.separator
        if self.unit == "characters":
            return _Blocks(self, _Characters(self.size), separator)
        file = tokenizer_file(self.model, setting)
        if self.separator == "auto":
            separator = end_of_text(file) or separator
        return _Blocks(self, _Tokens(file, self.size), separator)


class _Characters:
    def __init__(self, size: int) -> None:
        self.room = size
        self.reach = size + 1
        """Characters that are enough to fill a block."""

    def ends(self, text: str) -> range:
        """Where each unit of a text ends."""
        return range(1, len(text) + 1)


class _Tokens:
    """Tokens of a model, less those that training adds: the end-of-text token and the special
    ones of the tokenizer."""

    def __init__(self, tokenizer_json: Path, size: int) -> None:
        self._tokenizer = _tokenizer(tokenizer_json)
        self.room = size - 1 - int(self._tokenizer.num_special_tokens_to_add(False))
        self.reach = size * _CHARS_A_TOKEN

    def ends(self, text: str) -> list[int]:
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return [end for _, end in encoded.offsets]


@lru_cache(maxsize=2)
def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    return tokenizer


@dataclass
class _Waiting:
    """Joined text that is not cut yet, and which row each stretch of it comes from."""

    text: str = ""
    start: int = 0
    """Where the next block begins; what lies before it is dropped now and then."""
    repeated: int = 0
    """Characters from `start` on that the last block had too."""
    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """(where a row begins in the text, its meta)."""
    block: int = 0

    def __len__(self) -> int:
        return len(self.text) - self.start

    def add(self, separator: str, text: str, meta: dict[str, Any]) -> None:
        if self.text:
            self.text += separator
        self.rows.append((len(self.text), meta))
        self.text += text

    def beginning(self, length: int) -> str:
        return self.text[self.start : self.start + length]

    def metas(self, length: int) -> list[dict[str, Any]]:
        """Those of the rows that the next `length` characters come from."""
        first = bisect_right(self.rows, self.start, key=itemgetter(0)) - 1
        last = bisect_left(self.rows, self.start + length, key=itemgetter(0))
        return [meta for _, meta in self.rows[max(first, 0) : last]]

    def forget(self, length: int) -> None:
        """The next block begins `length` characters further on."""
        self.start += length
        if self.start > _KEPT_CHARS:
            self.rows = [
                (max(begin - self.start, 0), meta)
                for (begin, meta), (end, _) in zip(
                    self.rows, [*self.rows[1:], (len(self.text) + 1, {})], strict=True
                )
                if end > self.start
            ]
            self.text, self.start = self.text[self.start :], 0


class _Blocks(RowWork):
    def __init__(self, step: CutText, units: _Characters | _Tokens, separator: str) -> None:
        self._step = step
        self._units = units
        self._separator = separator
        self._waiting = _Waiting()
        self._enough = units.reach
        """Characters that must wait before it is worth counting."""
        self._file: Any = None
        self._part = ""

    def feed(self, row: Row) -> Iterator[Row]:
        text, meta = row["text"], row.get("meta") or {}
        if not text.strip():
            raise Unusable(_("the text is empty"))
        file = meta.get("file")
        # A row that names no file is a document of its own.
        goes_on = file is not None and file == self._file
        made: list[Row] = []
        if self._step.join == "no" or (self._step.join == "file" and not goes_on):
            made += self.finish()
        self._part, self._file = row["part"], file
        self._waiting.add("\n\n" if goes_on else self._separator, text, meta)
        made += self._full_blocks()
        return iter(made)

    def finish(self) -> Iterator[Row]:
        made = list(self._full_blocks(last=True))
        self._waiting, self._enough, self._file = _Waiting(), self._units.reach, None
        return iter(made)

    def _full_blocks(self, last: bool = False) -> Iterator[Row]:
        """The blocks that the waiting text fills; with `last` also what is left of it."""
        waiting, units = self._waiting, self._units
        while len(waiting) > waiting.repeated and (last or len(waiting) >= self._enough):
            reach = units.reach
            ends = units.ends(waiting.beginning(reach))
            while len(ends) <= units.room and reach < len(waiting):
                reach *= 2
                ends = units.ends(waiting.beginning(reach))
            if len(ends) > units.room:
                end = self._end(waiting.beginning(ends[units.room - 1]), ends)
                yield from self._block(end)
                self._go_on(end, ends)
            elif last:
                yield from self._block(len(waiting))
                return
            else:
                self._enough = len(waiting) + units.reach
                return
        self._enough = units.reach

    def _end(self, text: str, ends: Sequence[int]) -> int:
        """Where the first block of a text that is a little too long or just fits ends."""
        repeated, units = self._waiting.repeated, self._units
        if self._step.whole_sentences:
            found = _last_end(text, max(int(len(text) * (1 - _NEAR)), repeated + 1))
            if found:
                return found
        end, left = len(text), units.room - 1
        # Cut in the middle of a word, it may be written with more tokens than it was.
        while left > 1 and ends[left - 1] > repeated and len(units.ends(text[:end])) > units.room:
            end, left = ends[left - 1], left - 1
        return max(end, repeated + 1)

    def _go_on(self, end: int, ends: Sequence[int]) -> None:
        """The next block begins `overlap` units before the end of this one."""
        waiting, begin = self._waiting, end
        before = bisect_right(ends, end) - self._step.overlap
        if self._step.overlap and before > 0:
            begin = ends[before - 1]
            space = _SPACE.search(waiting.beginning(end), begin, end)
            if self._step.whole_sentences and space and space.end() < end:
                begin = space.end()
        waiting.forget(begin)
        waiting.repeated = end - begin

    def _block(self, length: int) -> Iterator[Row]:
        """The next `length` characters as a row. White space at its end is left out, but where
        blocks are cut exactly."""
        waiting = self._waiting
        text = waiting.beginning(length)
        text = text.rstrip() if self._step.whole_sentences else text
        if text.strip():
            waiting.block += 1
            meta = _joined(waiting.metas(length)) | {"block": waiting.block}
            yield {"text": text, "meta": meta, "part": self._part}


def _last_end(text: str, least: int) -> int:
    """The end of the last paragraph, else sentence, else word, from `least` on; 0 where there is
    none. White space belongs to what comes before it."""
    for pattern in (_PARAGRAPH, _SENTENCE, _SPACE):
        place = 0
        for match in pattern.finditer(text, min(least, len(text))):
            place = match.end()
        if place:
            return place
    return 0


def _joined(metas: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows of a block have in common; of `file` and `page` all values, as a list where
    there are several."""
    joined: dict[str, Any] = {}
    for name in metas[0] if metas else ():
        values = list(dict.fromkeys(meta[name] for meta in metas if name in meta))
        if len(values) == 1 and all(name in meta for meta in metas):
            joined[name] = values[0]
        elif name in ("file", "page"):
            joined[name] = values
    return joined


STEPS = (CutText,)
