"""TRL's trainer, made to compute no padding and to stop at a loss that is not a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from trl import SFTTrainer

from core.errors import TrainingError
from core.training.attention import NAME as ROW_ATTENTION
from core.training.loss import head_of, summed_loss

_NOT_FINITE_HINT = (
    "Lower training.learning_rate, or raise training.warmup_steps; with fp16, use bf16 or fp32. "
    "Then resume from the last checkpoint or start again."
)


class RowTrainer(SFTTrainer):
    """SFTTrainer on rows that are tokenized already (input_ids, labels).

    `tokens_trained` counts the real tokens of this process's steps. The losses of an evaluation
    are means over all its tokens, whatever the batch size.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.tokens_trained = 0
        self._measured = _Sums()
        self._takes_own_loss = self._can_take_own_loss()
        if self.args.bf16 or self.args.fp16:
            _leave_casting_to_autocast(self.model)

    def go_on_counting(self, log_history: list[dict[str, Any]]) -> None:
        """Lets the curve of `num_tokens` go on after a resume; TRL would begin at 0."""
        counts = [log["num_tokens"] for log in log_history if "num_tokens" in log]
        self._total_train_tokens = int(counts[-1]) if counts else 0

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any) -> Any:
        tokens = _real_tokens(inputs)
        loss = super().training_step(model, inputs, *arguments)
        if not math.isfinite(loss.item()):  # waits for the device
            raise TrainingError(
                f"The loss at step {self.state.global_step + 1} is {loss.item()}, not a number.",
                _NOT_FINITE_HINT,
            )
        self.tokens_trained += tokens
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Also refuses gradients that would turn the weights into NaN at this very step."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # With fp16 the scaler meets infinite gradients itself: it leaves the step out.
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise TrainingError(
                f"The gradient at step {self.state.global_step + 1} is {float(norm)}, not a "
                "number.",
                _NOT_FINITE_HINT,
            )
        return norm

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if self.model.config._attn_implementation == ROW_ATTENTION:
            inputs["row_lengths"] = inputs["cu_seq_lens_q"].diff().tolist()
        if not self._takes_own_loss or return_outputs:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if not self.model.training and not return_outputs:
                self._measured.add(loss, _loss_tokens(inputs["labels"]), None)
            return loss
        summed, correct, count = self._sums(inputs)
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += _real_tokens(inputs)
            self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
            self._metrics[mode]["mean_token_accuracy"].append(int(correct) / max(count, 1))
        loss = summed / max(int(count if num_items_in_batch is None else num_items_in_batch), 1)
        if mode == "eval":
            self._measured.add(loss, count, int(correct))
        return loss

    def _sums(self, inputs: dict[str, Any]) -> tuple[Any, Any, int]:
        """(summed loss, hits, tokens that carry loss) of a batch."""
        given = {
            name: inputs[name]
            for name in ("input_ids", "attention_mask", "position_ids", "row_lengths")
            if name in inputs
        }
        causal = _without_adapter(self.model)
        with self.accelerator.autocast():
            states = causal.base_model(**given, use_cache=False).last_hidden_state[:, :-1]
            targets = inputs["labels"][:, 1:]
            learned = targets != -100
            head = head_of(causal)
            assert head is not None, "looked at when the trainer was made"
            summed, correct = summed_loss(states[learned], targets[learned], head)
        return summed, correct, int(learned.sum())

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        # A loader draws its seed even for rows in a fixed order. Training goes on as if nobody
        # had looked, so a run whose last evaluation was left out can be resumed exactly.
        with same_randomness():
            return super().evaluate(*arguments, **options)

    def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
        self._measured = _Sums()
        output = super().evaluation_loop(*arguments, **options)
        prefix = options.get("metric_key_prefix", "eval")
        # With several processes each has measured its share alone; then the library's means stand.
        if self.accelerator.num_processes == 1:
            output.metrics.update(self._measured.means(prefix))
        return output

    def _can_take_own_loss(self) -> bool:
        """Whether the loss is taken here; else it is left to TRL.

        TRL has a kernel for CUDA and knows about several processes, experts and other losses.
        """
        causal = _without_adapter(self.model)
        special = (
            self.accelerator.device.type not in ("cpu", "mps")
            or self.accelerator.num_processes > 1
            or self.aux_loss_enabled
            or self.args.loss_type != "nll"
            or self.args.label_smoothing_factor > 0
            or self.compute_loss_func is not None
            or causal.base_model is causal
        )
        return not special and head_of(causal) is not None

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No README in checkpoints: a finished run gets its own when it is exported."""

    def _send_telemetry(self) -> None:
        """What a person trains is told to nobody."""


@contextmanager
def same_randomness() -> Iterator[None]:
    """What draws random numbers in here leaves the training's own as if nothing had been drawn."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


class _Sums:
    """What an evaluation adds up."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.tokens = 0
        self.correct: int | None = 0

    def add(self, mean: Any, tokens: int, correct: int | None) -> None:
        self.loss += float(mean) * tokens
        self.tokens += tokens
        self.correct = None if correct is None or self.correct is None else self.correct + correct

    def means(self, prefix: str) -> dict[str, float]:
        if not self.tokens:
            return {}
        found = {f"{prefix}_loss": self.loss / self.tokens}
        if self.correct is not None:
            found[f"{prefix}_mean_token_accuracy"] = self.correct / self.tokens
        return found


def _real_tokens(inputs: dict[str, Any]) -> int:
    mask = inputs.get("attention_mask")
    return int(inputs["input_ids"].numel() if mask is None else mask.sum())


def _loss_tokens(labels: torch.Tensor) -> int:
    return int((labels[:, 1:] != -100).sum())


def _without_adapter(model: Any) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _leave_casting_to_autocast(model: Any) -> None:
    """PEFT would turn each layer's input to 32 bits, only for autocast to turn it back."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
