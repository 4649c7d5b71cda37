"""What each of our trainers does beside its library: it stops at a loss that is not a number,
counts the tokens it has seen, and tells nobody."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from core.errors import TrainingError
from core.training.measures import rows_in_batch
from core.training.optimizers import OptimizedTrainer
from core.training.resumed import ResumedTrainer

_NOT_FINITE_HINT = (
    "Lower training.learning_rate, or raise training.warmup_steps; with fp16, use bf16 or fp32. "
    "Then resume from the last checkpoint or start again."
)

# exp of more says nothing, and overflows later.
_HIGHEST_LOSS = 50.0


class WatchedTrainer(OptimizedTrainer, ResumedTrainer):
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
        tokens, rows = real_tokens(inputs), rows_in_batch(inputs)
        loss = super().training_step(model, inputs, *arguments)
        if not math.isfinite(loss.item()):  # waits for the device
            raise TrainingError(
                f"The loss at step {self.state.global_step + 1} is {loss.item()}, not a number.",
                _NOT_FINITE_HINT,
            )
        self.tokens_trained += tokens
        self.rows_trained += rows
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Also refuses gradients that would turn the weights into NaN at this very step."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is None:
            return None
        # With fp16 the scaler meets infinite gradients itself: it leaves the step out.
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise TrainingError(
                f"The gradient at step {self.state.global_step + 1} is {float(norm)}, not a "
                "number.",
                _NOT_FINITE_HINT,
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
