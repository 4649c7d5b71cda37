"""Masked language modelling: an encoder learns to guess hidden tokens, from plain text to the saved
adapter or model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import (
    DataCollatorForLanguageModeling,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from core.config import RunConfig
from core.models.classifier import longest_input
from core.models.masked import guesses, load_masked, masking, need_mask
from core.training import resolve
from core.training.adapters import peft_config
from core.training.callbacks import SampleAnswers
from core.training.masked_rows import MaskedRows, gapped_texts, load_masked_rows
from core.training.resolve import Choice, with_choices
from core.training.row_order import PaddedTrainer, grouped_lengths
from core.training.setup import Beginning, arguments, begin, save, watch
from core.training.vocabulary import room_for_new_tokens
from core.training.watched import same_randomness
from core.workspace import RunFolder, Workspace


def train(run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None) -> str:
    """Trains a run, from its start or from a checkpoint. Returns "finished" or "stopped".

    What was on auto is written into the run's config.yaml. Raises Stopped when it is stopped
    before its first step, a TunesmithError, or whatever the libraries raise.
    """
    trainer, start = prepare(run, workspace, config, resume_from)
    start.reporter.trainable(trainer.model)
    stop = watch(trainer, start, GoOnHiding(trainer.data_collator), _samples(trainer, start))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    start.reporter.doing("Saving")
    save(trainer, start)
    return "finished"


def prepare(
    run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None
) -> tuple[MaskedTrainer, Beginning]:
    """The trainer of a run, ready to begin. Raises as `train` does."""
    start = begin(run, workspace, config, resume_from)
    config, reporter, tokenizer = start.config, start.reporter, start.tokenizer
    need_mask(tokenizer, config.model.model_name_or_path)
    reporter.doing("Loading the model")
    precision = config.training.precision
    model, new = load_masked(config, start.base, device=start.device, precision=precision)
    start.new_tokens = room_for_new_tokens(model, start)
    if config.model.attn_implementation != "auto":
        model.set_attn_implementation(config.model.attn_implementation)
    if new:
        message = (
            f"The base comes without {', '.join(new)} of the head that guesses hidden tokens: they "
            "are drawn at random and learned with the rest, so the loss begins high."
        )
        reporter.events.write("log", level="warning", message=message)
    config = start.config = _length(start, model)
    reporter.check_stop()

    reporter.doing("Reading the rows")
    masks = masking(tokenizer, config)
    limit = config.data.max_train_samples
    rows = load_masked_rows(start, "train", limit=limit)
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_masked_rows(start, "eval", masks=masks)
    _tell(start, rows, held_out)
    need = resolve.estimate_need(model, config)
    free = resolve.free_bytes(start.device)
    lengths = rows.rows.lengths
    config = start.config = reporter.chosen(
        config, resolve.choose_batch(config, need, lengths, device=start.device, free=free)
    )
    config.save(run.config)

    reporter.doing("Preparing the trainer")
    trainer = MaskedTrainer(
        lengths=grouped_lengths(config, lengths),
        model=_with_adapter(model, new, config),
        args=TrainingArguments(
            **{"remove_unused_columns": False, "label_names": ["labels"], **arguments(config, run)}
        ),
        train_dataset=rows.rows.dataset,
        eval_dataset=held_out.rows.dataset if held_out else None,
        processing_class=tokenizer,
        data_collator=Hiding(masks, _seed(config)),
    )
    return trainer, start


class MaskedTrainer(PaddedTrainer):
    """transformers' trainer on pieces of texts; an evaluation hides the same tokens each time.

    The loss is a mean over all hidden tokens of a step or an evaluation, whatever the batch size.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(compute_loss_func=_entropy, **given)
        # The loss is made here, from labels that no model gets to see.
        self.can_return_loss = True

    @property
    def loss_is_entropy(self) -> bool:
        return bool(self.args.label_smoothing_factor == 0)

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        self._sums = [0.0, 0]
        output = super().evaluation_loop(*given, **options)
        prefix = options.get("metric_key_prefix", "eval")
        # With several processes each has measured its share alone; then the library's mean stands.
        if self.accelerator.num_processes == 1 and self._sums[1]:
            output.metrics[f"{prefix}_loss"] = self._sums[0] / self._sums[1]
        return output

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        tokens = int((inputs["labels"] != -100).sum())
        result = super().prediction_step(model, inputs, *given, **options)
        self._sums = [self._sums[0] + float(result[0]) * tokens, self._sums[1] + tokens]
        return result


def _entropy(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean of -ln p over the hidden tokens: of the batch, or of all batches of a step."""
    logits = outputs.logits.float().flatten(0, 1)
    summed = torch.nn.functional.cross_entropy(
        logits, labels.flatten(), ignore_index=-100, reduction="sum"
    )
    count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
    return summed / max(int(count), 1)


@dataclass
class Hiding:
    """A batch with some tokens hidden, others each time. Rows that have labels are as they are.

    What is hidden follows from the seed and the number of the batch, so that a resumed run hides
    what it would have hidden.
    """

    masks: DataCollatorForLanguageModeling
    seed: int
    drawn: int = field(default=0)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if "labels" in rows[0]:
            return self._padded(rows)
        self.masks.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.drawn)
        self.drawn += 1
        pad = self.masks.tokenizer.pad_token_id
        width = max(len(row["input_ids"]) for row in rows)
        batch = dict(self.masks([_filled(row, width, pad) for row in rows]))
        batch["attention_mask"] = _mask(rows, width)
        return batch

    def _padded(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        pad = self.masks.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([_wide(row["input_ids"], width, pad) for row in rows]),
            "attention_mask": _mask(rows, width),
            "labels": torch.tensor([_wide(row["labels"], width, -100) for row in rows]),
        }


def _filled(row: dict[str, Any], width: int, pad: int) -> dict[str, Any]:
    """A row as wide as the batch; its padding is never hidden."""
    filled = {
        "input_ids": _wide(row["input_ids"], width, pad),
        "special_tokens_mask": _wide(row["special_tokens_mask"], width, 1),
    }
    if "offset_mapping" in row:
        filled["offset_mapping"] = _wide(row["offset_mapping"], width, [0, 0])
    return filled


def _wide(values: list[Any], width: int, fill: Any) -> list[Any]:
    return [*values, *[fill] * (width - len(values))]


def _mask(rows: list[dict[str, Any]], width: int) -> torch.Tensor:
    return torch.tensor([_wide([1] * len(row["input_ids"]), width, 0) for row in rows])


class GoOnHiding(TrainerCallback):
    """Counts on from the batches that a run had before it was resumed."""

    def __init__(self, hiding: Hiding) -> None:
        self._hiding = hiding

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._hiding.drawn = state.global_step * args.gradient_accumulation_steps


class GapSampler:
    """Writes a `sample` event for each watched text: what the model puts in its gap."""

    def __init__(self, trainer: MaskedTrainer, start: Beginning) -> None:
        self._tokenizer, self._events = start.tokenizer, start.reporter.events
        self._longest = start.config.training.max_length
        self._texts = gapped_texts(start)

    def write(self, model: Any, step: int, autocast: Any, *, as_base: bool = False) -> None:
        """The guesses at `step`. The model, its mode and all random states stay as they were."""
        was_training = model.training
        with same_randomness(), autocast:
            model.eval()
            try:
                answers = [
                    guesses(model, self._tokenizer, text, self._longest) for text, _ in self._texts
                ]
            finally:
                model.train(was_training)
        for index, ((text, expected), found) in enumerate(zip(self._texts, answers, strict=True)):
            self._events.write(
                "sample",
                step=step,
                index=index,
                prompt=[{"role": "user", "content": text}],
                answer=", ".join(f"{word} {100 * chance:.0f} %" for word, chance in found[0]),
                expected=expected,
            )


def _samples(trainer: MaskedTrainer, start: Beginning) -> SampleAnswers:
    return SampleAnswers(GapSampler(trainer, start), trainer, starts_as_base=False)


def _length(start: Beginning, model: Any) -> RunConfig:
    """The config with a max_length that the model reads."""
    wanted = start.config.training.max_length
    longest = longest_input(model, start.tokenizer, wanted)
    if longest == wanted:
        return start.config
    choice = Choice("training.max_length", longest, "the model reads no more")
    start.reporter.note(choice.field, choice.value, choice.reason)
    return with_choices(start.config, [choice])


def _with_adapter(model: Any, new: list[str], config: RunConfig) -> Any:
    """The model with its adapter, which also holds what of the head was drawn for this run."""
    adapter = peft_config(config, "FEATURE_EXTRACTION")
    if adapter is None:
        return model
    if new:
        adapter.modules_to_save = [*(adapter.modules_to_save or []), *new]
    set_seed(config.training.seed)
    model = get_peft_model(model, adapter)
    for parameter in model.parameters():
        # A step of a head in 16 bits would be rounded away.
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()
    return model


def _seed(config: RunConfig) -> int:
    training = config.training
    return training.seed if training.data_seed is None else training.data_seed


def _tell(start: Beginning, rows: MaskedRows, held_out: MaskedRows | None) -> None:
    start.reporter.rows(rows.rows, held_out.rows if held_out else None)
    if rows.texts < len(rows.rows.lengths):
        message = (
            f"{rows.texts:,} train texts make {len(rows.rows.lengths):,} rows of at most "
            f"{start.config.training.max_length} tokens: longer ones go on in the next row."
        )
        start.reporter.events.write("log", level="info", message=message)
