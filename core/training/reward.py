"""A reward model: from pairs of a better and a worse answer to a model that gives one answer one
score, the higher the better."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trl import RewardConfig, RewardTrainer

from core.config import RunConfig
from core.data.rowfile import read_slice
from core.models.classifier import label_logits, load_classifier, longest_input
from core.models.labels import ScoreHead
from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow
from core.training import resolve
from core.training.callbacks import SampleAnswers
from core.training.classification import with_new_head
from core.training.judged_rows import load_judged_rows, padded_lengths
from core.training.preference import PreferenceTrainer, padded, real_in
from core.training.resolve import Choice, with_choices
from core.training.rows import Rows
from core.training.setup import Beginning, arguments, begin, save, watch
from core.training.watched import same_randomness
from core.workspace import RunFolder, Workspace

_WATCHED = 3


def train(run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None) -> str:
    """Trains a run, from its start or from a checkpoint. Returns "finished" or "stopped".

    Raises Stopped when it is stopped before its first step, a TunesmithError, or whatever the
    libraries raise.
    """
    start = begin(run, workspace, config, resume_from)
    reporter, tokenizer = start.reporter, start.tokenizer
    reporter.doing("Loading the model")
    model, new = load_classifier(
        start.config, start.base, ScoreHead(), tokenizer, device=start.device
    )
    if start.config.model.attn_implementation != "auto":
        model.set_attn_implementation(start.config.model.attn_implementation)
    _fit_length(start, longest_input(model, tokenizer, start.config.training.max_length))
    reporter.check_stop()

    reporter.doing("Reading the rows")
    rows, held_out = _rows(start)
    need = resolve.estimate_need(model, start.config)
    choices = resolve.choose_batch(
        start.config,
        need,
        padded_lengths(rows),
        device=start.device,
        free=resolve.free_bytes(start.device),
    )
    start.config = reporter.chosen(start.config, choices)
    if start.config.adapter.lora_dropout > 0 and start.config.adapter.method == "lora":
        reason = "TRL compares answers without dropout; training.extra disable_dropout=false does"
        reporter.note("adapter.lora_dropout", 0.0, reason)
    start.config.save(run.config)
    reporter.check_stop()

    reporter.doing("Preparing the trainer")
    model = with_new_head(model, new, start.config)
    trainer = make_trainer(start, model, rows, held_out, resumed=resume_from is not None)
    reporter.trainable(trainer.model)
    samples = SampleAnswers(PairSampler(start), trainer, starts_as_base=False)
    stop = watch(trainer, start, samples)
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    reporter.doing("Saving")
    save(trainer, start)
    return "finished"


def make_trainer(
    start: Beginning, model: Any, rows: Rows, held_out: Rows | None, *, resumed: bool = False
) -> ScoreTrainer:
    """TRL's trainer for a model with a head of one score."""
    config = start.config
    args = RewardConfig(
        **{
            # So that one sees from where the accuracy rises.
            "eval_on_start": config.evaluation.eval_strategy != "no" and not resumed,
            # The rows are tokenized and cut already, and our collator knows their columns.
            "max_length": None,
            "remove_unused_columns": False,
            "center_rewards_coefficient": config.preference.center_rewards_coefficient,
            **arguments(config, start.run),
        }
    )
    trainer = ScoreTrainer(
        model=model,
        args=args,
        data_collator=ScoredPairs(start.tokenizer.pad_token_id),
        train_dataset=rows.dataset,
        eval_dataset=held_out.dataset if held_out else None,
        processing_class=start.tokenizer,
    )
    for name, parameter in trainer.model.named_parameters():
        # TRL rounds what a quantized model trains to bf16; a head would lose its small steps.
        if parameter.requires_grad and "modules_to_save" in name:
            parameter.data = parameter.data.float()
    return trainer


class ScoreTrainer(PreferenceTrainer, RewardTrainer):
    """RewardTrainer on PAIRS (`core.training.judged_rows`)."""

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
                rows = [ids for _, both in self._watched for ids in both]
                scores = label_logits(model, self._tokenizer, rows)[:, 0].tolist()
            finally:
                model.train(was_training)
        for index, (prompt, _) in enumerate(self._watched):
            better, worse = scores[2 * index : 2 * index + 2]
            self._events.write(
                "sample",
                step=step,
                index=index,
                prompt=prompt,
                answer=f"{better:.2f} for the better answer, {worse:.2f} for the worse one",
                expected="a higher score for the better answer",
            )


def _fit_length(start: Beginning, longest: int) -> None:
    """A max_length that the model reads."""
    if longest != start.config.training.max_length:
        choice = Choice("training.max_length", longest, "the model reads no more")
        start.reporter.note(choice.field, choice.value, choice.reason)
        start.config = with_choices(start.config, [choice])


def _rows(start: Beginning) -> tuple[Rows, Rows | None]:
    config, tell = start.config, start.reporter.tell
    limit = config.data.max_train_samples
    rows = load_judged_rows(start.info, "train", start.tokenizer, config, limit=limit, tell=tell)
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_judged_rows(start.info, "eval", start.tokenizer, config, tell=tell)
    start.reporter.rows(rows, held_out)
    return rows, held_out
