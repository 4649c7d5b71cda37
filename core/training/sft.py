"""Supervised fine-tuning, from the prepared data set to the saved adapter or model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig

from core.config import RunConfig
from core.errors import DataError
from core.models.load import load_base
from core.training import resolve
from core.training.adapters import peft_config
from core.training.attention import choose_attention, other_attention
from core.training.rows import Rows, load_rows, packed
from core.training.setup import arguments, begin, sample_answers, save, watch
from core.training.trainer import RowTrainer
from core.training.vocabulary import room_for_new_tokens, with_new_tokens
from core.workspace import RunFolder, Workspace


def train(run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None) -> str:
    """Trains a run, from its start or from a checkpoint. Returns "finished" or "stopped".

    What was on auto is written into the run's config.yaml. Raises Stopped when it is stopped
    before its first step, a TunesmithError, or whatever the libraries raise: `advise` knows the
    common ones.
    """
    start = begin(run, workspace, config, resume_from)
    config, reporter, tokenizer = start.config, start.reporter, start.tokenizer
    limit = config.data.max_train_samples
    rows = load_rows(start.info, "train", tokenizer, config, limit=limit, tell=reporter.tell)
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_rows(start.info, "eval", tokenizer, config, tell=reporter.tell)
    reporter.rows(rows, held_out)

    reporter.doing("Loading the model")
    device = start.device
    model = load_base(config, start.base, device=device, precision=config.training.precision)
    start.new_tokens = room_for_new_tokens(model, start)
    no_padding = choose_attention(model, config, reporter)
    need = resolve.estimate_need(model, config)
    free = resolve.free_bytes(device)
    lengths = _lengths(rows, config)
    config = start.config = reporter.chosen(
        config, resolve.choose_batch(config, need, lengths, device=device, free=free)
    )
    config.save(run.config)
    reporter.check_stop()

    reporter.doing("Preparing the trainer")
    trainer = RowTrainer(
        model=model,
        args=_arguments(config, run, no_padding),
        train_dataset=_packed(rows, config, no_padding),
        eval_dataset=held_out.dataset if held_out else None,
        processing_class=tokenizer,
        peft_config=with_new_tokens(peft_config(config), model, start),
    )
    reporter.trainable(trainer.model)
    is_text = start.info.form == "text" and not config.evaluation.sample_prompts
    stop = watch(trainer, start, sample_answers(trainer, start, is_text=is_text))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    reporter.doing("Saving")
    trained = trainer.accelerator.unwrap_model(trainer.model)
    with other_attention(trained.get_base_model() if config.adapter.is_adapter else trained):
        save(trainer, start)
    return "finished"


def _lengths(rows: Rows, config: RunConfig) -> list[int]:
    """How long the trainer's rows are; packed ones are nearly full."""
    full = config.training.max_length
    return [full] * -(-rows.tokens // full) if config.training.packing else rows.lengths


def _packed(rows: Rows, config: RunConfig, no_padding: bool) -> Any:
    if not config.training.packing:
        return rows.dataset
    strategy = config.training.packing_strategy
    if strategy == "bfd" and not no_padding:
        raise DataError(
            "training.packing needs an attention that keeps packed rows apart, which this model "
            f"does not have with model.attn_implementation {config.model.attn_implementation}.",
            "Turn packing off, set attn_implementation to auto, or training.packing_strategy to "
            "wrapped.",
        )
    return packed(rows, config.training.max_length, strategy)


def _arguments(config: RunConfig, run: RunFolder, no_padding: bool) -> SFTConfig:
    return SFTConfig(
        # The rows are tokenized, cut and packed already.
        max_length=None,
        padding_free=no_padding,
        dataset_kwargs={"skip_prepare_dataset": True},
        loss_type=config.training.sft_loss_type,
        **arguments(config, run),
    )
