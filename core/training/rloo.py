"""REINFORCE leave-one-out (RLOO), from the prepared data set to the saved adapter or model."""

from __future__ import annotations

from pathlib import Path

from trl import RLOOConfig, RLOOTrainer

from core.config import RunConfig
from core.training.adapters import peft_config
from core.training.completions import ReportCompletions
from core.training.reinforcement import (
    Prepared,
    RewardedTrainer,
    hand_over_reference,
    prepare,
    reward_arguments,
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
    group = start.config.reinforcement.num_generations
    told = ReportCompletions(start.reporter.events, trainer, ready.specs, group)
    stop = watch(trainer, start, told, sample_answers(trainer, start))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    start.reporter.doing("Saving")
    save(trainer, start)
    return "finished"


def make_trainer(ready: Prepared) -> LeaveOneOutTrainer:
    """TRL's trainer for a run that is ready."""
    start = ready.start
    args = RLOOConfig(**reward_arguments(ready, "normalize_advantages"))
    trainer = LeaveOneOutTrainer(
        model=ready.model,
        reward_funcs=ready.functions,
        args=args,
        train_dataset=ready.rows.dataset,
        eval_dataset=ready.held_out.dataset if ready.held_out else None,
        processing_class=start.tokenizer,
        peft_config=peft_config(start.config),
    )
    hand_over_reference(trainer, ready)
    return trainer


class LeaveOneOutTrainer(RewardedTrainer, RLOOTrainer):
    """RLOOTrainer on the prompts of `core.training.prompted_rows`."""
