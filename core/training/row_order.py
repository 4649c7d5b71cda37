"""The order of rows that are padded to the longest of their batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from core.config import RunConfig
from core.training.watched import WatchedTrainer


class LikeLengths(Sampler[int]):
    """Rows of like length in one batch, the batches in any order: another in each epoch, and the
    same again from the same seed, so that a resumed run meets the rows it would have met.

    transformers' own sampler goes from long to short over and over, and takes another order after
    a resume. The first batch holds the longest row: if it does not fit, that shows at once.
    `lengths` are in tokens.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = list(lengths), batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """What the trainer calls before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self._seed + self._epoch)
        size = self._batch_size
        rows = get_length_grouped_indices(self._lengths, size, generator=draw)
        first, *others = [rows[at : at + size] for at in range(0, len(rows), size)]
        # A batch that is not full stays last, or all behind it would be cut elsewhere.
        short = [others.pop()] if others and len(others[-1]) < size else []
        order = torch.randperm(len(others), generator=draw).tolist()
        for batch in (first, *(others[at] for at in order), *short):
            yield from batch


class PaddedTrainer(WatchedTrainer):
    """A trainer whose batches are as long as their longest row."""

    def __init__(self, *, lengths: Sequence[int] | None, **given: Any) -> None:
        self._row_lengths = lengths
        super().__init__(**given)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self._row_lengths:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LikeLengths(self._row_lengths, self.args.per_device_train_batch_size, seed)


def grouped_lengths(config: RunConfig, lengths: Sequence[int]) -> Sequence[int] | None:
    """What `PaddedTrainer` takes: the rows' lengths, or None for an order that ignores them."""
    return lengths if config.training.train_sampling_strategy == "group_by_length" else None
