"""What stands in the largest batch of a run: how many sequences, how long, padded or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.config import RunConfig


@dataclass(frozen=True)
class Batch:
    """`tokens` are computed in `sequences`, each `width` wide at most; `padded` says that all are
    filled up to it. `is_assumed`: the rows' lengths are not known, so all are taken to be as long
    as max_length."""

    sequences: int
    tokens: int
    width: int
    padded: bool
    is_assumed: bool = False


def largest_batch(
    config: RunConfig,
    rows: int,
    lengths: Sequence[int] | None = None,
    *,
    no_padding: bool | None = None,
) -> Batch:
    """The largest batch of `rows` rows. `lengths` has the tokens of the longest rows' sequences (of
    a pair the longer one); without them each is taken to be as long as it may be.

    `no_padding` says whether rows stand behind each other; None goes by the method.
    """
    most = longest_sequence(config)
    sides = 2 if config.training_method.is_paired else 1
    if no_padding is None:
        attends_rows = config.model.attn_implementation in ("auto", "flash_attention_2")
        no_padding = config.training_method.without_padding and attends_rows
    if config.training.packing or config.training_method.fills_blocks:
        return Batch(rows, rows * most, most, padded=False, is_assumed=not lengths)
    if not lengths:
        return Batch(rows * sides, rows * sides * most, most, not no_padding, is_assumed=True)
    known = sorted((min(n, most) for n in lengths), reverse=True)[:rows]
    known += [known[0]] * (rows - len(known))
    tokens = sum(known) if no_padding else known[0] * rows
    return Batch(rows * sides, tokens * sides, known[0], not no_padding)


def longest_sequence(config: RunConfig) -> int:
    """Tokens that a sequence can have: an answer written in training comes behind its prompt."""
    written = config.training_method.generates
    return config.training.max_length + (
        config.reinforcement.max_completion_length if written else 0
    )
