"""From plain texts to the rows of an encoder: pieces with the tokenizer's marks. Held-out pieces
have their hidden tokens drawn once, so that evaluations can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from datasets import Dataset, Features, Value
from datasets import List as ListOf

from core.data.fit import need_form
from core.data.record import Part
from core.data.rowfile import iter_rows, read_slice
from core.errors import DataError
from core.models.masked import hidden, text_pieces
from core.training.rows import Rows
from core.training.setup import Beginning

_AT_ONCE = 500
_WATCHED, _LOOKED_AT, _WATCHED_TOKENS = 3, 50, 40
_INTS = ListOf(Value("int32"))


@dataclass(frozen=True)
class MaskedRows:
    """The pieces of one part, and of how many texts they are."""

    rows: Rows
    texts: int


def load_masked_rows(
    start: Beginning, part: Part, *, limit: int | None = None, masks: Any | None = None
) -> MaskedRows:
    """The first `limit` texts of a part in pieces of at most max_length tokens.

    Columns: input_ids, and with `masks` labels, the tokens that are hidden being fixed; without,
    special_tokens_mask and for whole words offset_mapping. Raises DataError when nothing is left.
    """
    info, config = start.info, start.config
    need_form(info, config)
    longest, whole_words = config.training.max_length, config.text.whole_word_mask
    names = _columns(masks is not None, whole_words)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    left_out: list[tuple[int, str]] = []
    seen, total = 0, min(limit or getattr(info.counts, part), getattr(info.counts, part))
    for texts in _batches(start, part, limit):
        for place, pieces in enumerate(text_pieces(start.tokenizer, texts, longest)):
            if not pieces:
                left_out.append((seen + place, "Its text is empty."))
            for piece in pieces:
                if masks is not None:
                    ids, labels = hidden(piece, masks, len(columns["labels"]))
                    piece = {"input_ids": ids, "labels": labels}
                for name in names:
                    columns[name].append(piece[name])
        seen += len(texts)
        start.reporter.tell(seen / max(total, 1), f"Reading the {part} rows")
    if not columns["input_ids"]:
        raise DataError(
            f"Nothing can be learned from the {part} rows of {info.name}: "
            f"{left_out[0][1] if left_out else 'there are none.'}",
            "Look at the rows in Data.",
        )
    features = Features(
        {name: ListOf(_INTS) if name == "offset_mapping" else _INTS for name in names}
    )
    lengths = [len(ids) for ids in columns["input_ids"]]
    dataset = Dataset.from_dict(columns, features=features)
    return MaskedRows(Rows(part, dataset, lengths, left_out), seen - len(left_out))


def _columns(fixed: bool, whole_words: bool) -> tuple[str, ...]:
    if fixed:
        return ("input_ids", "labels")
    return ("input_ids", "special_tokens_mask", *(("offset_mapping",) if whole_words else ()))


def _batches(start: Beginning, part: Part, limit: int | None) -> Iterator[list[str]]:
    texts = (
        row.get("text") or ""
        for batch in iter_rows(start.info.rows_path(part), columns=["text"])
        for row in batch
    )
    limited = islice(texts, limit)
    while batch := list(islice(limited, _AT_ONCE)):
        yield batch


def gapped_texts(start: Beginning) -> list[tuple[str, str | None]]:
    """(a text with one mask, the word that stood there): the prompts of the config that have one,
    else the beginnings of held-out texts with a word in their middle hidden."""
    tokenizer = start.tokenizer
    mask = tokenizer.mask_token
    given = start.config.evaluation.sample_prompts
    if given:
        return [(text, None) for text in given if mask in text]
    part: Part = "eval" if start.info.counts.eval else "train"
    found: list[tuple[str, str | None]] = []
    for row in read_slice(start.info.rows_path(part), 0, _LOOKED_AT):
        words = str(row.get("text") or "").split()[:_WATCHED_TOKENS]
        place = len(words) // 2
        if len(words) < 3 or mask in words:
            continue
        text = " ".join([*words[:place], mask, *words[place + 1 :]])
        ids = tokenizer(text, verbose=False)["input_ids"]
        if len(ids) <= start.config.training.max_length:
            found.append((text, words[place]))
        if len(found) == _WATCHED:
            break
    return found
