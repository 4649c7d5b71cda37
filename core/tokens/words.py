"""Words of a data set that a model's tokenizer breaks into many pieces: those that would be worth a
token of their own, and giving a tokenizer new tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import islice
from typing import Any

from core.data.record import DatasetInfo
from core.data.rowfile import iter_rows
from core.data.rowtext import texts

ROWS_LOOKED_AT = 10_000
# A word begins with a letter, and may have digits and hyphens in it.
_WORD = re.compile(r"[^\W\d_](?:[\w-]*\w)?")
# What is found as a whole word only.
_WHOLE = re.compile(r"\w+")
_SHORTEST, _LONGEST = 3, 40
# So many distinct words are tokenized, the most promising first.
_CANDIDATES = 20_000
# Words are counted behind another one, as they stand in a text.
_BEFORE = "the"


def fragmented_words(
    info: DatasetInfo,
    tokenizer: Any,
    most: int = 50,
    min_count: int = 5,
    min_pieces: int = 3,
    max_rows: int = ROWS_LOOKED_AT,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """The `most` words of the train rows that cost the most tokens more than one would.

    words: [{word, count, pieces (tokens it is now), split (their texts), saved (tokens, in all
    rows that were looked at)}, ...], those that save most first; rows and rows_total: how many
    were looked at and there are. Left out are words that come less than `min_count` times or are
    fewer than `min_pieces` tokens.
    """
    counts: Counter[str] = Counter()
    rows = 0
    total = min(max_rows, info.counts.train)
    found = (row for batch in iter_rows(info.rows_path("train")) for row in batch)
    for row in islice(found, total):
        rows += 1
        for text in texts(row):
            counts.update(_WORD.findall(text))
        if progress and rows % 500 == 0:
            progress(rows / max(total, 1))
    words = [
        word
        for word, count in counts.items()
        if count >= min_count and _SHORTEST <= len(word) <= _LONGEST
    ]
    words.sort(key=lambda word: (-counts[word] * len(word), word))
    kept = _many_pieces(words[:_CANDIDATES], tokenizer, min_pieces)
    costly = sorted(kept, key=lambda word: (-counts[word] * (kept[word] - 1), word))
    return {
        "words": _described(costly[:most], counts, tokenizer),
        "rows": rows,
        "rows_total": info.counts.train,
    }


def _many_pieces(words: list[str], tokenizer: Any, least: int) -> dict[str, int]:
    """How many tokens each word is, of those that are at least so many."""
    pieces = dict(zip(words, _tokens_of(words, tokenizer), strict=True))
    return {word: number for word, number in pieces.items() if number >= least}


def _tokens_of(words: list[str], tokenizer: Any) -> list[int]:
    """How many tokens each word is behind another one."""
    if not words:
        return []
    alone = len(tokenizer(_BEFORE, add_special_tokens=False)["input_ids"])
    together = tokenizer([f"{_BEFORE} {word}" for word in words], add_special_tokens=False)
    return [len(ids) - alone for ids in together["input_ids"]]


def _described(words: list[str], counts: Counter[str], tokenizer: Any) -> list[dict[str, Any]]:
    before = _tokens_of(words, tokenizer)
    larger = deepcopy(tokenizer)
    add_tokens(larger, words)
    after = _tokens_of(words, larger)  # the space before a word may stay a token of its own
    found = [
        {
            "word": word,
            "count": counts[word],
            "pieces": many,
            "split": _split(word, tokenizer),
            "saved": counts[word] * (many - few),
        }
        for word, many, few in zip(words, before, after, strict=True)
        if many > few
    ]
    return sorted(found, key=lambda one: (-int(one["saved"]), str(one["word"])))


def _split(word: str, tokenizer: Any) -> list[str]:
    ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    return [text for number in ids if (text := tokenizer.decode([number]).strip())]


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> dict[str, list[int]]:
    """Adds tokens to a tokenizer. Returns the pieces that each was before; those that it has
    already are left out.

    A token of letters alone is found as a whole word only, so that "cat" leaves "category" alone.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    pieces = {
        token: list(tokenizer(token, add_special_tokens=False)["input_ids"])
        for token in tokens
        if token not in known
    }
    added = [
        AddedToken(
            token,
            single_word=bool(_WHOLE.fullmatch(token)),
            normalized=_is_folded(tokenizer, token),
            special=False,
        )
        for token in pieces
    ]
    tokenizer.add_tokens(added)
    return pieces


def _is_folded(tokenizer: Any, token: str) -> bool:
    """Whether the tokenizer writes all words in small letters, so that this one must be found in
    either spelling."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normalizer is None:
        return False
    return str(normalizer.normalize_str(token)).casefold() == token.casefold()
