"""TRL's trainer, made to compute no padding and no scores where nothing is learned."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from trl import SFTTrainer

from core.training.attention import NAME as ROW_ATTENTION
from core.training.loss import head_of, summed_loss
from core.training.watched import WatchedTrainer, real_tokens


class RowTrainer(WatchedTrainer, SFTTrainer):
    """SFTTrainer on rows that are tokenized already (input_ids, labels).

    The losses of an evaluation are means over all its tokens, whatever the batch size.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._measured = _Sums()
        self._takes_own_loss = self._can_take_own_loss()
        if self.args.bf16 or self.args.fp16:
            _leave_casting_to_autocast(self.model)

    @property
    def loss_is_entropy(self) -> bool:
        return bool(self.args.loss_type == "nll" and self.args.label_smoothing_factor == 0)

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
            self._total_train_tokens += real_tokens(inputs)
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
            dynamic = self.args.loss_type == "dft"
            summed, correct = summed_loss(states[learned], targets[learned], head, dynamic=dynamic)
        return summed, correct, int(learned.sum())

    def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
        self._measured = _Sums()
        # Dynamic fine-tuning takes a token that is nearly impossible for learned: held-out rows
        # are measured by the plain loss.
        trained_by, self.args.loss_type = self.args.loss_type, "nll"
        try:
            output = super().evaluation_loop(*arguments, **options)
        finally:
            self.args.loss_type = trained_by
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
            or self.args.loss_type not in ("nll", "dft")
            or self.args.label_smoothing_factor > 0
            or self.compute_loss_func is not None
            or causal.base_model is causal
            or _is_prompted(self.model)
        )
        return not special and head_of(causal) is not None


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


def _loss_tokens(labels: torch.Tensor) -> int:
    return int((labels[:, 1:] != -100).sum())


def _without_adapter(model: Any) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _is_prompted(model: Any) -> bool:
    """Whether PEFT's own forward puts virtual tokens before the text."""
    return isinstance(model, PeftModel) and bool(model.active_peft_config.is_prompt_learning)


def _leave_casting_to_autocast(model: Any) -> None:
    """PEFT would turn each layer's input to 32 bits, only for autocast to turn it back."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
