"""Contrastive preference optimization (CPO) and SimPO, without a reference model: from the prepared
data set to the saved adapter or model."""

from __future__ import annotations

from pathlib import Path

from trl.experimental.cpo import CPOConfig, CPOTrainer

from core.config import RunConfig
from core.training.adapters import peft_config
from core.training.preference import (
    PairColumns,
    Prepared,
    WithoutReference,
    preference_arguments,
    prepare,
)
from core.training.setup import sample_answers, save, watch
from core.workspace import RunFolder, Workspace


def train(run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None) -> str:
    """Trains a run, from its start or from a checkpoint. Returns "finished" or "stopped".

    Raises Stopped when it is stopped before its first step, a TunesmithError, or whatever the
    libraries raise.
    """
    ready = prepare(run, workspace, config, resume_from)
    start = ready.start
    trainer = make_trainer(ready)
    start.reporter.trainable(trainer.model)
    stop = watch(trainer, start, sample_answers(trainer, start))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    start.reporter.doing("Saving")
    save(trainer, start)
    return "finished"


def make_trainer(ready: Prepared) -> ContrastiveTrainer:
    """TRL's trainer for a run that is ready."""
    start = ready.start
    section = start.config.preference
    names = ["beta", "label_smoothing", "cpo_alpha", "simpo_gamma"]
    if section.cpo_loss_type == "alphapo":
        names.append("alpha")
    args = CPOConfig(
        **preference_arguments(ready, *names)
        | {"loss_type": section.cpo_loss_type, "max_length": start.config.training.max_length}
    )
    return ContrastiveTrainer(
        model=ready.model,
        args=args,
        data_collator=PairColumns(start.tokenizer.pad_token_id),
        train_dataset=ready.rows.dataset,
        eval_dataset=ready.held_out.dataset if ready.held_out else None,
        processing_class=start.tokenizer,
        peft_config=peft_config(start.config),
    )


class ContrastiveTrainer(WithoutReference, CPOTrainer):
    """CPOTrainer on PAIRS (`core.training.judged_rows`)."""
