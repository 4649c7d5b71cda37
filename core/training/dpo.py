"""Direct preference optimization, from the prepared data set to the saved adapter or model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer

from core.config import RunConfig
from core.config.preference import dpo_losses
from core.training.adapters import peft_config
from core.training.preference import (
    PreferenceTrainer,
    Prepared,
    answers_in,
    padded,
    preference_arguments,
    prepare,
    real_in,
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


def make_trainer(ready: Prepared) -> DirectTrainer:
    """TRL's trainer for a run that is ready."""
    start = ready.start
    section, tokenizer = start.config.preference, start.tokenizer
    losses = dpo_losses(section)
    without_reference = section.ref_model == "none"
    args = DPOConfig(
        **preference_arguments(
            ready,
            "beta",
            "label_smoothing",
            "ld_alpha",
            "f_divergence_type",
            "use_weighting",
            "discopop_tau",
        )
        | {
            "loss_type": list(losses),
            "loss_weights": list(losses.values()),
            # Known beforehand, so that no model is asked: without a reference it is zero.
            "precompute_ref_log_probs": section.precompute_ref_log_probs or without_reference,
        }
    )
    trainer = DirectTrainer(
        without_reference=without_reference,
        model=ready.model,
        ref_model=ready.reference,
        args=args,
        data_collator=PairCollator(tokenizer.pad_token_id, without_reference),
        train_dataset=ready.rows.dataset,
        eval_dataset=ready.held_out.dataset if ready.held_out else None,
        processing_class=tokenizer,
        peft_config=peft_config(start.config),
    )
    if args.precompute_ref_log_probs:
        trainer.ref_model = ready.reference = None  # it has said all it knows
    return trainer


class DirectTrainer(PreferenceTrainer, DPOTrainer):
    """DPOTrainer on PAIRS (`core.training.judged_rows`)."""

    def __init__(self, *, without_reference: bool, **given: Any) -> None:
        self._without_reference = without_reference
        super().__init__(**given)

    def _precompute_ref_logps(self, dataset: Any, *given: Any, **options: Any) -> Any:
        if self._without_reference:
            return dataset
        return super()._precompute_ref_logps(dataset, *given, **options)


@dataclass(frozen=True)
class PairCollator:
    """A batch as DPOTrainer takes it: the better answers of all rows, then the worse ones.

    The reference's log probabilities come along where they were asked for beforehand, or are 0
    `without_reference`.
    """

    pad_token_id: int
    without_reference: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [row[f"{side}_input_ids"] for side in ("chosen", "rejected") for row in rows]
        labels = [row[f"{side}_labels"] for side in ("chosen", "rejected") for row in rows]
        batch = {
            "input_ids": padded(ids, self.pad_token_id),
            "attention_mask": padded(real_in(ids), 0),
            "completion_mask": padded(answers_in(labels), 0),
        }
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if self.without_reference:
                batch[name] = torch.zeros(len(rows))
            elif name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch
