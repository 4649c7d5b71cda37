"""A reward model: from pairs of a better and a worse answer to a model that gives one answer one
score, the higher the better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback
from trl import RewardConfig, RewardTrainer

from core.config import RunConfig
from core.data.record import Part
from core.data.rowfile import read_slice
from core.language import _
from core.models.labels import ScoreHead
from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow
from core.worker.models.classifier import label_logits, load_classifier
from core.worker.training.adapters import with_head
from core.worker.training.beginning import Beginning
from core.worker.training.preference import (
    PreferenceTrainer,
    comparing,
    judged_rows,
    named_alike,
    note_no_dropout,
    padded,
    padded_lengths,
    real_in,
)
from core.worker.training.recipe import HeadedRecipe
from core.worker.training.rows import Rows
from core.worker.training.samples import SampleAnswers
from core.worker.training.trainer import same_randomness

_WATCHED = 3


class Reward(HeadedRecipe):
    """A model with a head of one score."""

    def open_headed(self) -> tuple[Any, list[str]]:
        start = self.start
        return load_classifier(
            self.config, start.base, ScoreHead(), start.tokenizer, device=start.place
        )

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        return named_alike(config, "center_rewards_coefficient")

    def load(self, part: Part, limit: int | None) -> Rows:
        start = self.start
        return judged_rows(
            start.info, part, start.tokenizer, self.config, limit=limit, tell=start.reporter.tell
        )

    def lengths(self) -> list[int]:
        return padded_lengths(self.rows)

    def make_trainer(self) -> ScoreTrainer:
        start, config = self.start, self.config
        note_no_dropout(start)
        trainer = ScoreTrainer(
            model=with_head(self.model, self.drawn, config, "SEQ_CLS"),
            args=RewardConfig(**comparing(start) | self.own_arguments(config)),
            data_collator=ScoredPairs(start.tokenizer.pad_token_id),
            train_dataset=self.rows.dataset,
            eval_dataset=self.held_out.dataset if self.held_out else None,
            processing_class=start.tokenizer,
        )
        for name, parameter in trainer.model.named_parameters():
            # TRL rounds what a quantized model trains to bf16; a head would lose its small steps.
            if parameter.requires_grad and "modules_to_save" in name:
                parameter.data = parameter.data.float()
        return trainer

    def callbacks(self, trainer: ScoreTrainer) -> list[TrainerCallback]:
        return [SampleAnswers(PairSampler(self.start), trainer, starts_as_base=False)]


class ScoreTrainer(PreferenceTrainer, RewardTrainer):
    """RewardTrainer on PAIRS."""

    def rows_in(self, inputs: Any) -> int:
        return len(inputs["input_ids"]) // 2

    def log(self, logs: dict[str, float], *given: Any, **options: Any) -> None:
        if any(name.startswith("eval_") for name in logs):
            # Of all rows, not the mean over batches.
            for name, pick in (("min_reward", min), ("max_reward", max)):
                found = self._eval_values()[name]
                if found:
                    self._eval_values()[name] = [pick(found)]
        super().log(logs, *given, **options)


@dataclass(frozen=True)
class ScoredPairs:
    """A batch as RewardTrainer takes it: the better answers of all rows, then the worse ones."""

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [row[f"{side}_input_ids"] for side in ("chosen", "rejected") for row in rows]
        return {
            "input_ids": padded(ids, self.pad_token_id),
            "attention_mask": padded(real_in(ids), 0),
        }


class PairSampler:
    """Writes a `sample` event for some held-out pairs (else of the others): how both answers
    score."""

    def __init__(self, start: Beginning) -> None:
        self._tokenizer, self._events = start.tokenizer, start.reporter.events
        self._watched: list[tuple[list[dict[str, Any]], list[list[int]]]] = []
        if start.config.evaluation.sample_max_new_tokens == 0:
            return
        part = "eval" if start.info.counts.eval else "train"
        rows = read_slice(start.info.rows_path(part), 0, _WATCHED)
        both = sides_of_rows(
            rows,
            start.tokenizer,
            max_length=start.config.training.max_length,
            system_prompt=start.config.data.system_prompt,
        )
        for row, sides in zip(rows, both, strict=True):
            ids = [s.tokens.input_ids for s in sides if isinstance(s.tokens, TokenizedRow)]
            if len(ids) == 2:
                self._watched.append((list(row["prompt"]), ids))

    def write(self, model: Any, step: int, autocast: Any, *, as_base: bool = False) -> None:
        """The scores at `step`. The model, its mode and all random states stay as they were."""
        if not self._watched:
            return
        was_training = model.training
        with same_randomness(), autocast:
            model.eval()
            try:
                rows = [ids for _prompt, both in self._watched for ids in both]
                scores = label_logits(model, self._tokenizer, rows)[:, 0].tolist()
            finally:
                model.train(was_training)
        for index, (prompt, _ids) in enumerate(self._watched):
            better, worse = scores[2 * index : 2 * index + 2]
            self._events.write(
                "sample",
                step=step,
                index=index,
                prompt=prompt,
                answer=_(
                    "{better:.2f} for the better answer, {worse:.2f} for the worse one",
                    better=better,
                    worse=worse,
                ),
                expected=_("a higher score for the better answer"),
            )
