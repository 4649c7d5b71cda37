"""What each of our trainers does beside its library: it stops at a loss that is not a number,
counts the tokens it has seen, and tells nobody."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from core.config import RunConfig
from core.errors import TrainingError
from core.language import N_, _
from core.worker.training import ranks
from core.worker.training.optimizers import OptimizedTrainer
from core.worker.training.resume import ResumedTrainer
from core.worker.training.shares import SharingTrainer

_NOT_FINITE_HINT = N_(
    "Lower training.learning_rate, or raise training.warmup_steps; with fp16, use "
    "bf16 or fp32. Then resume from the last checkpoint or start again."
)

# exp of more says nothing, and overflows later.
_HIGHEST_LOSS = 50.0


class WatchedTrainer(OptimizedTrainer, ResumedTrainer, SharingTrainer):
    """To stand before a trainer of TRL's among the bases of a class.

    `tokens_trained` and `rows_trained` count the real tokens and the rows of this process's steps.
    What was entered in `beside` is left when the training ends, however it ends. Where
    `loss_is_entropy` says that the loss is the mean of -ln p over tokens, its exponential is logged
    as `perplexity`.
    """

    @property
    def loss_is_entropy(self) -> bool:
        return False

    def __init__(self, **arguments: Any) -> None:
        self.tokens_trained = self.rows_trained = 0
        self.beside = ExitStack()
        super().__init__(**arguments)

    def log(self, logs: dict[str, float], *given: Any, **options: Any) -> None:
        if self.loss_is_entropy:
            # In place, so that the best checkpoint can be chosen by it.
            logs.update(perplexities(logs))
        super().log(logs, *given, **options)

    def train(self, *arguments: Any, **options: Any) -> Any:
        with self.beside:
            return super().train(*arguments, **options)

    def go_on_counting(self, log_history: list[dict[str, Any]]) -> None:
        """Lets the curve of `num_tokens` go on after a resume; TRL would begin at 0."""
        counts = [log["num_tokens"] for log in log_history if "num_tokens" in log]
        self._total_train_tokens = int(counts[-1]) if counts else 0

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any) -> Any:
        tokens, rows = real_tokens(inputs), self.rows_in(inputs)
        loss = super().training_step(model, inputs, *arguments)
        if not math.isfinite(loss.item()):  # waits for the device
            raise TrainingError(
                _(
                    "The loss at step {step} is {loss}, not a number.",
                    step=self.state.global_step + 1,
                    loss=str(loss.item()),
                ),
                _(_NOT_FINITE_HINT),
            )
        if not self.is_spare:
            self.tokens_trained += tokens
            self.rows_trained += rows
        return loss

    def rows_in(self, inputs: Any) -> int:
        """How many rows of the data set a batch holds."""
        return rows_in_batch(inputs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Also refuses gradients that would turn the weights into NaN at this very step."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is None:
            return None
        # With fp16 the scaler meets infinite gradients itself: it leaves the step out.
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise TrainingError(
                _(
                    "The gradient at step {step} is {norm}, not a number.",
                    step=self.state.global_step + 1,
                    norm=str(float(norm)),
                ),
                _(_NOT_FINITE_HINT),
            )
        return norm

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        # A loader draws its seed even for rows in a fixed order. Training goes on as if nobody
        # had looked, so a run whose last evaluation was left out can be resumed exactly.
        with same_randomness():
            return super().evaluate(*arguments, **options)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No README in checkpoints: a finished run gets its own when it is exported."""

    def _send_telemetry(self) -> None:
        """What a person trains is told to nobody."""


class RowMeanTrainer(WatchedTrainer):
    """What an evaluation measures is a mean over its rows; TRL's is one over batches of whatever
    size. With `nan_is_unknown` a measure that is NaN did not apply to its batch."""

    nan_is_unknown: ClassVar = False

    def __init__(self, **given: Any) -> None:
        self._rows_measured: list[int] = []
        super().__init__(**given)

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        self._rows_measured = []
        self._eval_values().clear()
        return super().evaluation_loop(*given, **options)

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        result = super().prediction_step(model, inputs, *given, **options)
        self._rows_measured.append(0 if self.is_spare else self.rows_in(inputs))
        return result

    def log(self, logs: dict[str, float], *given: Any, **options: Any) -> None:
        if any(name.startswith("eval_") for name in logs):
            values, rows = self._eval_values(), ranks.summed(self._rows_measured)
            for name, found in values.items():
                if len(found) == len(rows):
                    values[name] = [self._mean(found, rows)]
        super().log(logs, *given, **options)

    def _eval_values(self) -> dict[str, list[float]]:
        """Where TRL keeps what it measured of each batch of an evaluation."""
        found: dict[str, list[float]] = self._metrics["eval"]
        return found

    def _mean(self, values: Sequence[float], rows: Sequence[float]) -> float:
        pairs = [
            (float(value), count)
            for value, count in zip(values, rows, strict=True)
            if not (self.nan_is_unknown and math.isnan(value))
        ]
        total = sum(count for _, count in pairs)
        return sum(value * count for value, count in pairs) / total if total else math.nan


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
    """A trainer whose batches are as long as their longest row. With `lengths` rows of like length
    share a batch."""

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


def perplexities(logs: dict[str, float]) -> dict[str, float]:
    """exp of each loss in a log: the number of tokens between which the model wavers."""
    return {
        name.replace("loss", "perplexity"): math.exp(min(logs[name], _HIGHEST_LOSS))
        for name in ("loss", "eval_loss")
        if name in logs
    }


@contextmanager
def same_randomness() -> Iterator[None]:
    """What draws random numbers in here leaves the training's own as if nothing had been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


def real_tokens(inputs: Any) -> int:
    """How many tokens of a batch are learned from or read, without padding. Those of KTO's
    mismatched pairs, which only measure, are not counted; nor are prompts whose answers are still
    to be written."""
    if isinstance(inputs, list):
        return 0
    masks = [
        mask
        for name, mask in inputs.items()
        if name.endswith("attention_mask") and not name.startswith("KL_")
    ]
    if not masks:
        return int(inputs["input_ids"].numel())
    return sum(int(mask.sum()) for mask in masks)


def rows_in_batch(inputs: Any) -> int:
    """How many rows of the data set a batch holds, however they are laid out."""
    if isinstance(inputs, list):
        return len(inputs)
    for name in ("chosen_labels", "chosen_input_ids", "label"):
        if name in inputs:
            return len(inputs[name])
    if "cu_seq_lens_q" in inputs:
        return len(inputs["cu_seq_lens_q"]) - 1
    ids = inputs.get("input_ids", inputs.get("prompt_ids"))
    if "completion_mask" in inputs and "labels" not in inputs and "prompt_ids" not in inputs:
        return len(ids) // 2  # both answers of each pair
    positions = inputs.get("position_ids")
    if positions is not None and len(positions) == 1:
        return int((positions == 0).sum())  # rows behind each other without padding
    return len(ids)
