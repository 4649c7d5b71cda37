"""TRL's trainer, made to compute no padding and no scores where nothing is learned.

Where there is no Triton the loss is taken straight from hidden states, a piece at a time. The
scores of all tokens over the whole vocabulary are never held: each piece is scored, its loss and
its gradient are taken at once, and the scores are dropped. Only tokens that carry loss come there.
TRL has its own kernel for CUDA; elsewhere it computes in 32 bits at every position.

On a CPU a batch is computed a few rows at a time, which is as quick there: what a piece leaves for
its backward pass is all that is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from trl import SFTTrainer

from core.config.optimizers import OPTIMIZERS
from core.estimate.sizes import TOKENS_AT_ONCE
from core.worker.training import ranks
from core.worker.training.attention import NAME as ROW_ATTENTION
from core.worker.training.lora_linear import with_quick_lora
from core.worker.training.norms import with_quick_norms
from core.worker.training.trainer import WatchedTrainer, real_tokens

# Scores held at once: 12 million in 32 bits are 50 MB.
_SCORES_AT_ONCE = 12_000_000


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
        if self.accelerator.device.type == "cpu":
            with_quick_lora(self.model)
            with_quick_norms(self.model)

    @property
    def loss_is_entropy(self) -> bool:
        return bool(self.args.loss_type == "nll" and self.args.label_smoothing_factor == 0)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Any:
        if not self._takes_own_loss:
            return super().training_step(model, inputs, num_items_in_batch)
        self._measured = _Sums()
        in_pieces = (
            self.accelerator.device.type == "cpu"
            and num_items_in_batch is not None  # of which each piece has its share
            and not OPTIMIZERS[self.args.optim.value].at_once  # the weights stay until all are seen
        )
        most = TOKENS_AT_ONCE[2 if self.args.bf16 else 4]
        loss = 0
        for piece in pieces(inputs, most) if in_pieces else [inputs]:
            loss = loss + super().training_step(model, piece, num_items_in_batch)
        self._metrics["train"]["mean_token_accuracy"].append(self._measured.accuracy)
        return loss

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
            if not (self.model.training or return_outputs or self.is_spare):
                tokens = _loss_tokens(inputs["labels"])
                self._measured.add(float(loss) * tokens, tokens, None)
            return loss
        summed, correct, count = self._sums(inputs)
        self._measured.add(summed.item(), count, int(correct))
        if self.model.training:
            self._total_train_tokens += real_tokens(inputs)
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return summed / max(int(count if num_items_in_batch is None else num_items_in_batch), 1)

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
    """What a step, or an evaluation, adds up."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.tokens = 0
        self.correct: int | None = 0

    @property
    def accuracy(self) -> float:
        return (self.correct or 0) / max(self.tokens, 1)

    def add(self, loss: float, tokens: int, correct: int | None) -> None:
        self.loss += loss
        self.tokens += tokens
        self.correct = None if correct is None or self.correct is None else self.correct + correct

    def means(self, prefix: str) -> dict[str, float]:
        """Over the tokens of all processes."""
        loss, tokens = ranks.summed([self.loss, self.tokens])
        if not tokens:
            return {}
        found = {f"{prefix}_loss": loss / tokens}
        if self.correct is not None:
            found[f"{prefix}_mean_token_accuracy"] = self.accuracy
        return found


def pieces(inputs: dict[str, Any], most: int) -> Iterator[dict[str, Any]]:
    """Parts of a batch, each of whole rows: of so many that they have at most `most` tokens with
    their padding, or of one longer row."""
    if "cu_seq_lens_q" not in inputs:
        size = max(1, most // inputs["input_ids"].shape[1])
        parts = zip(*(tensor.split(size) for tensor in inputs.values()), strict=True)
        yield from (dict(zip(inputs, part, strict=True)) for part in parts)
        return
    rows: list[list[int]] = [[]]
    for length in inputs["cu_seq_lens_q"].diff().tolist():
        if rows[-1] and sum(rows[-1]) + length > most:
            rows.append([])
        rows[-1].append(length)
    names = ("input_ids", "labels", "position_ids")
    parts = zip(*(inputs[n].split([sum(p) for p in rows], dim=1) for n in names), strict=True)
    for lengths, part in zip(rows, parts, strict=True):
        ends = inputs["cu_seq_lens_q"].new_tensor([0, *accumulate(lengths)])
        yield {**dict(zip(names, part, strict=True)), "cu_seq_lens_q": ends}


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


@dataclass(frozen=True)
class Head:
    """What turns a hidden state into scores: scores = cap(scale * (hidden @ weight.T + bias)).

    weight: (vocabulary, width). `softcap` bounds scores s to softcap * tanh(s / softcap).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


def head_of(model: Any) -> Head | None:
    """The head of a causal language model; None when it is more than a matrix."""
    layer = model.get_output_embeddings()
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        return None
    config = model.config.get_text_config()
    return Head(
        weight,
        getattr(layer, "bias", None),
        _scale(config),
        getattr(config, "final_logit_softcapping", None),
    )


def _scale(config: Any) -> float:
    """What a family multiplies its scores by, under its own name; as in TRL's fused head."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    scaling = getattr(config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling) if config.model_type == "hyperclovax" else 1.0 / float(scaling)


def summed_loss(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: Head,
    *,
    dynamic: bool = False,
    scores_at_once: int = _SCORES_AT_ONCE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of -ln p(target) over the tokens, how many targets scored highest).

    `dynamic` weighs each token's loss by its probability, through which no gradient flows (dynamic
    fine-tuning, arXiv 2508.05629).
    hidden: (tokens, width), targets: (tokens,). Scores are multiplied in autocast's type when it
    is on, else in hidden's; the loss is taken in 32 bits. `scores_at_once` bounds the memory.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    wants = torch.is_grad_enabled()
    with torch.autocast(kind, enabled=False):
        loss, correct = _SummedLoss.apply(
            hidden, head.weight, head.bias, targets, head, dtype, wants, dynamic, scores_at_once
        )
    return loss, correct


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        head: Head,
        dtype: torch.dtype,
        wants: bool,
        dynamic: bool,
        scores_at_once: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs = [wants and need for need in ctx.needs_input_grad[:3]]
        grads = [
            torch.zeros(source.shape, dtype=torch.float32, device=source.device) if need else None
            for source, need in zip((hidden, weight, bias), needs, strict=True)
        ]
        matrix = weight.to(dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        step = max(16, scores_at_once // weight.shape[0])
        for start in range(0, len(targets), step):
            part = slice(start, start + step)
            states = hidden[part].to(dtype)
            raw = (states @ matrix.t()).float()
            if bias is not None:
                raw += bias
            part_loss, hits, slope = _entropy(raw, targets[part], head, any(needs), dynamic)
            loss += part_loss
            correct += hits
            if slope is None:
                continue
            slope = slope.to(dtype)
            if grads[0] is not None:
                grads[0][part] = slope @ matrix
            if grads[1] is not None:
                grads[1] += slope.t() @ states
            if grads[2] is not None:
                grads[2] += slope.float().sum(0)
        ctx.save_for_backward(*grads)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor, _: Any) -> tuple[Any, ...]:
        given = [
            None if grad is None else (grad * slope).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*given, None, None, None, None, None, None)


def _entropy(
    scores: torch.Tensor, targets: torch.Tensor, head: Head, with_slope: bool, dynamic: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(summed loss, hits, d loss / d (hidden @ weight.T + bias)); `scores` is used up."""
    places = targets[:, None]
    scores = scores.mul_(head.scale) if head.scale != 1.0 else scores
    bend = None
    if head.softcap is not None:
        bend = torch.tanh(scores.div_(head.softcap))
        scores = bend * head.softcap
    highest, best = scores.max(-1, keepdim=True)
    hits = (best == places).sum()
    scores.sub_(highest)
    losses = -scores.gather(-1, places)
    sums = scores.exp_().sum(-1, keepdim=True)
    losses += sums.log()
    weights = losses.neg().exp() if dynamic else None
    loss = losses.sum() if weights is None else (losses * weights).sum()
    if not with_slope:
        return loss, hits, None
    slope = scores.div_(sums)  # the probabilities
    slope.scatter_add_(-1, places, slope.new_full((1, 1), -1.0).expand(len(targets), 1))
    if weights is not None:
        slope *= weights
    if bend is not None:
        slope *= 1 - bend.square_()
    return loss, hits, slope.mul_(head.scale) if head.scale != 1.0 else slope
