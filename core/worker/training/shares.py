"""What each of the processes of a run takes of its rows: every row is learned from, and measured,
once, as one process would.

accelerate repeats rows until all processes have as many. Here a process that has no row left takes
one along that does not count, because the others wait for it in each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import data_loader
from accelerate.utils import recursively_apply
from trl.trainer.base_trainer import _BaseTrainer

from core.worker.training import ranks


def rows_left(rows: int, batch_size: int, processes: int) -> list[int]:
    """How many rows each process has in the last batch of an epoch of so many."""
    left = rows % (batch_size * processes) or batch_size * processes
    return [min(max(left - rank * batch_size, 0), batch_size) for rank in range(processes)]


class RowsOnce(data_loader.BatchSamplerShard):
    """The batches of one process, without the rows that were there before; of nothing but these
    the first one stays."""

    def __iter__(self) -> Iterator[list[int]]:
        last = len(self) - 1
        rows = len(self.batch_sampler.sampler)
        own = rows_left(rows, self.batch_size, self.num_processes)[self.process_index]
        for number, batch in enumerate(super().__iter__()):
            yield batch if number < last else batch[: max(own, 1)]


class SharingTrainer(_BaseTrainer):
    """To stand before a trainer of transformers' among the bases of a class."""

    def __init__(self, **given: Any) -> None:
        self._share = 1.0  # what the loss of a batch is multiplied by
        self._spare: Any = None  # the batch of this step that does not count
        self.is_spare = False
        """Whether the batch at hand does not count."""
        super().__init__(**given)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if ranks.several():
            # accelerate makes the one and has the other, and cannot be told.
            data_loader.BatchSamplerShard = RowsOnce
            self._gather_alike, self.accelerator.gather = self.accelerator.gather, self._gather

    def _rows_left(self, dataset: Any, batch_size: int) -> list[int]:
        """How many rows each process has in the batch at hand, where it is the last one."""
        processes = self.accelerator.num_processes
        if not (ranks.several() and self.accelerator.gradient_state.end_of_dataloader):
            return [batch_size] * processes
        return rows_left(len(dataset), batch_size, processes)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._share, self._spare, self.is_spare = 1.0, None, False
        left = self._rows_left(self.train_dataset, self._train_batch_size)
        if not samples or all(left):
            return samples, items
        if not left[ranks.number()]:
            self._spare = samples[-1]
            if "labels" in self._spare:
                self._spare["labels"] = torch.full_like(self._spare["labels"], -100)
        items = self._get_num_items_in_batch(samples, device)
        if items is None:  # a mean over batches, of which there are fewer
            batches = len(samples) * len(left)
            self._share = batches / (batches - left.count(0))
        return samples, items

    def training_step(self, model: Any, inputs: Any, *given: Any) -> Any:
        self.is_spare = inputs is self._spare
        return super().training_step(model, inputs, *given)

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        self.is_spare = not self.counts(inputs)
        return super().prediction_step(model, inputs, *given, **options)

    def counts(self, inputs: Any) -> bool:
        """Whether a batch of the step, or the one at hand of an evaluation, counts."""
        if self.model.training:
            return inputs is not self._spare
        return self._rows_left(self.eval_dataset, self.args.eval_batch_size)[ranks.number()] > 0

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if ranks.several() and not self.model.training:
            num_items_in_batch = None  # those of all processes, of which each has its own mean
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self.model.training or (self._share == 1.0 and not self.is_spare):
            return loss
        return loss * (0.0 if self.is_spare else self._share)

    def _gather(self, tensor: Any) -> Any:
        """accelerate's own, but at the end of the rows each process may have another number of
        them; what does not count is left out."""
        if not self.accelerator.gradient_state.end_of_dataloader:
            return self._gather_alike(tensor)
        return recursively_apply(self._gather_rows, tensor)

    def _gather_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        rows = tensor[None] if tensor.dim() == 0 else tensor
        own = 0 if self.is_spare else len(rows)
        counts = self._gather_alike(torch.tensor([own, len(rows)], device=rows.device)).view(-1, 2)
        longest = int(counts[:, 1].max())
        filled = rows.new_zeros(longest, *rows.shape[1:])
        filled[: len(rows)] = rows
        parts = self._gather_alike(filled).split(longest)
        return torch.cat([part[:count] for part, count in zip(parts, counts[:, 0], strict=True)])
