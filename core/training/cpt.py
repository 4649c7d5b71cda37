"""Continued pre-training: a model reads plain text on, from the prepared data set to the saved
adapter or model."""

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
from core.training.documents import Documents, in_blocks, load_documents
from core.training.rows import Rows
from core.training.setup import Beginning, arguments, begin, sample_answers, save, watch
from core.training.trainer import RowTrainer
from core.training.vocabulary import room_for_new_tokens, with_new_tokens
from core.workspace import RunFolder, Workspace


def train(run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None) -> str:
    """Trains a run, from its start or from a checkpoint. Returns "finished" or "stopped".

    What was on auto is written into the run's config.yaml. Raises Stopped when it is stopped
    before its first step, a TunesmithError, or whatever the libraries raise.
    """
    trainer, start = prepare(run, workspace, config, resume_from)
    reporter, config = start.reporter, start.config
    reporter.trainable(trainer.model)
    is_text = not config.evaluation.sample_prompts
    stop = watch(trainer, start, sample_answers(trainer, start, is_text=is_text))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    reporter.doing("Saving")
    trained = trainer.accelerator.unwrap_model(trainer.model)
    with other_attention(trained.get_base_model() if config.adapter.is_adapter else trained):
        save(trainer, start)
    return "finished"


def prepare(
    run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None
) -> tuple[RowTrainer, Beginning]:
    """The trainer of a run, ready to begin. Raises as `train` does."""
    start = begin(run, workspace, config, resume_from)
    config, reporter, tokenizer = start.config, start.reporter, start.tokenizer
    limit = config.data.max_train_samples
    tell = reporter.tell
    texts = load_documents(start.info, "train", tokenizer, config, limit=limit, tell=tell)
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_documents(start.info, "eval", tokenizer, config, tell=tell)

    reporter.doing("Loading the model")
    device = start.device
    model = load_base(config, start.base, device=device, precision=config.training.precision)
    start.new_tokens = room_for_new_tokens(model, start)
    no_padding = choose_attention(model, config, reporter)
    config = start.config = _documents(start, no_padding)
    rows, measured = _blocks(start, texts), _blocks(start, held_out)
    assert rows is not None, "there are train rows"
    _tell(start, rows, measured, texts)
    need = resolve.estimate_need(model, config)
    free = resolve.free_bytes(device)
    config = start.config = reporter.chosen(
        config, resolve.choose_batch(config, need, rows.lengths, device=device, free=free)
    )
    config.save(run.config)
    reporter.check_stop()

    reporter.doing("Preparing the trainer")
    trainer = RowTrainer(
        model=model,
        args=_arguments(config, run, no_padding),
        train_dataset=rows.dataset,
        eval_dataset=measured.dataset if measured else None,
        processing_class=tokenizer,
        peft_config=with_new_tokens(peft_config(config), model, start),
    )
    return trainer, start


def _documents(start: Beginning, no_padding: bool) -> RunConfig:
    """The config with what becomes of several texts in one block."""
    wanted = start.config.text.documents
    if wanted == "apart" and not no_padding:
        raise DataError(
            "text.documents apart needs an attention that keeps texts apart, which this model does "
            f"not have with model.attn_implementation {start.config.model.attn_implementation}.",
            "Set text.documents to auto or joined, or attn_implementation to auto.",
        )
    choice = resolve.Choice(
        "text.documents",
        "apart" if no_padding else "joined",
        "no text sees the one before it" if no_padding else "this attention sees whole blocks",
    )
    return start.reporter.chosen(start.config, [choice])


def _blocks(start: Beginning, documents: Documents | None) -> Rows | None:
    if documents is None:
        return None
    config = start.config
    apart = config.text.documents == "apart"
    return in_blocks(documents, config.training.max_length, apart=apart)


def _tell(start: Beginning, rows: Rows, held_out: Rows | None, texts: Documents) -> None:
    """How much there is to learn from, and what had to be left out."""
    events = start.reporter.events
    for part in filter(None, (rows, held_out)):
        if part.left_out:
            index, reason = part.left_out[0]
            message = (
                f"{len(part.left_out)} {part.part} texts are left out, the first of them row "
                f"{index + 1}: {reason}"
            )
            events.write("log", level="warning", message=message)
    if start.tokenizer.eos_token_id is None:
        message = "The tokenizer has no end token: texts follow each other without a mark."
        events.write("log", level="warning", message=message)
    message = (
        f"{len(texts.starts):,} train texts of {rows.tokens:,} tokens make {len(rows.lengths):,} "
        f"blocks of {start.config.training.max_length}"
    )
    if held_out:
        message += f"; {len(held_out.lengths):,} blocks are held out"
    events.write("log", level="info", message=f"{message}.")


def _arguments(config: RunConfig, run: RunFolder, no_padding: bool) -> Any:
    return SFTConfig(
        # The blocks are cut already.
        max_length=None,
        padding_free=no_padding,
        dataset_kwargs={"skip_prepare_dataset": True},
        **arguments(config, run),
    )
