"""Odds ratio preference optimization (ORPO), which learns the better answer and to prefer it at
once: from the prepared data set to the saved adapter or model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

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


def make_trainer(ready: Prepared) -> OddsRatioTrainer:
    """TRL's trainer for a run that is ready."""
    start = ready.start
    args = ORPOConfig(
        **preference_arguments(ready, "beta") | {"max_length": start.config.training.max_length}
    )
    return OddsRatioTrainer(
        answers_only=start.config.data.assistant_only_loss,
        model=ready.model,
        args=args,
        data_collator=PairColumns(start.tokenizer.pad_token_id),
        train_dataset=ready.rows.dataset,
        eval_dataset=ready.held_out.dataset if ready.held_out else None,
        processing_class=start.tokenizer,
        peft_config=peft_config(start.config),
    )


class OddsRatioTrainer(WithoutReference, ORPOTrainer):
    """ORPOTrainer on PAIRS (`core.training.judged_rows`).

    TRL learns the better answer together with its prompt. With `answers_only` it is the answer
    alone, as in the paper (arXiv 2403.07691, Eq. 2) and as the preview shows.
    """

    def __init__(self, *, answers_only: bool, **given: Any) -> None:
        self._answers_only = answers_only
        super().__init__(**given)

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[Any, ...]:
        chosen, rejected, chosen_logits, *others = super().concatenated_forward(model, batch)
        if not self._answers_only:
            return (chosen, rejected, chosen_logits, *others)
        labels = batch["chosen_labels"][:, 1:].to(chosen_logits.device)
        # TRL has padded both answers to the same width; the scores end before the last token.
        scores = chosen_logits[:, : labels.shape[1]]
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())
        return (chosen, rejected, chosen_logits, others[0], loss, *others[2:])
