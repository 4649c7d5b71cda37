"""Rows of like length in one batch, in an order that a resumed run takes up again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.worker.training.trainer import LikeLengths


def epoch(sampler: LikeLengths, number: int) -> list[int]:
    sampler.set_epoch(number)
    return list(sampler)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 20))
def test_every_row_once_the_longest_in_the_first_batch(lengths: list[int], size: int) -> None:
    """Rows would be learned twice or never, and a run out of memory after hours."""
    rows = epoch(LikeLengths(lengths, size, 7), 3)
    assert sorted(rows) == list(range(len(lengths)))
    assert max(lengths[row] for row in rows[:size]) == max(lengths)


def test_an_epoch_has_its_own_order_whenever_it_is_asked_for() -> None:
    """A resumed run would meet some rows twice and others never."""
    lengths = [number % 97 + 1 for number in range(400)]
    one = LikeLengths(lengths, 8, 42)
    first, second = epoch(one, 0), epoch(one, 1)
    assert first != second
    assert epoch(LikeLengths(lengths, 8, 42), 1) == second
    assert epoch(LikeLengths(lengths, 8, 43), 1) != second


def test_little_is_padded_and_long_rows_are_spread_over_the_epoch() -> None:
    """Most of the work would go into padding; or a run would see all long rows first."""
    lengths = [(number * 37) % 180 + 10 for number in range(2000)]
    batches = [
        [lengths[row] for row in rows]
        for order in [epoch(LikeLengths(lengths, 16, 1), 0)]
        for rows in (order[at : at + 16] for at in range(0, len(order), 16))
    ]
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    means = [sum(batch) / len(batch) for batch in batches]
    half = len(means) // 2
    assert abs(sum(means[:half]) / half - sum(means[half:]) / (len(means) - half)) < 30
