"""Learning from answers that were judged one by one (KTO), from the prepared data set to the saved
adapter or model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trl import KTOConfig, KTOTrainer

from core.config import RunConfig
from core.tokens.tokenize import NO_LOSS
from core.training.adapters import peft_config
from core.training.judged_rows import balance_note
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
    fewest = 2 if config.preference.kto_loss_type == "kto" else 1
    ready = prepare(run, workspace, config, resume_from, fewest_rows=fewest)
    start = ready.start
    note = balance_note(ready.rows, start.config)
    if note:
        start.reporter.events.write("log", level="warning", message=note)
    trainer = make_trainer(ready)
    start.reporter.trainable(trainer.model)
    stop = watch(trainer, start, sample_answers(trainer, start))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    start.reporter.doing("Saving")
    save(trainer, start)
    return "finished"


def make_trainer(ready: Prepared) -> JudgedTrainer:
    """TRL's trainer for a run that is ready."""
    start = ready.start
    training, section = start.config.training, start.config.preference
    compares = section.kto_loss_type == "kto"
    args = KTOConfig(
        **preference_arguments(
            ready, "beta", "desirable_weight", "undesirable_weight", "precompute_ref_log_probs"
        )
        | {"loss_type": section.kto_loss_type, "train_sampling_strategy": "sequential"}
    )
    # TRL takes the rows in their order, for each is compared with its neighbours. In the order of
    # a file good and bad answers may stand apart, so they are shuffled once.
    seed = training.seed if training.data_seed is None else training.data_seed
    trainer = JudgedTrainer(
        model=ready.model,
        ref_model=ready.reference,
        args=args,
        data_collator=JudgedCollator(start.tokenizer.pad_token_id, training.max_length, compares),
        train_dataset=ready.rows.dataset.shuffle(seed=seed),
        eval_dataset=ready.held_out.dataset.shuffle(seed=seed) if ready.held_out else None,
        processing_class=start.tokenizer,
        peft_config=peft_config(start.config),
    )
    if args.precompute_ref_log_probs:
        trainer.ref_model = ready.reference = None  # it has said all it knows
    return trainer


class JudgedTrainer(PreferenceTrainer, KTOTrainer):
    """KTOTrainer on JUDGED rows (`core.training.judged_rows`).

    An evaluation also says how often a good answer has a higher reward than a bad one, over all
    pairs of the two (`rewards/accuracies`; a tie counts half), which TRL leaves out.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._heard: list[torch.Tensor] = []  # log probabilities of the answers, by forward
        # Of an evaluation's answers: reward, log probability, and whether it is a good one.
        self._judged: list[tuple[float, float, bool]] = []
        for model in (self.model, self.ref_model):
            if model is not None:
                model.register_forward_hook(self._hear)

    def _hear(self, _: Any, __: Any, output: Any) -> None:
        scores = getattr(output, "log_probs", None)
        if scores is not None and not self.model.training:
            self._heard.append(scores.detach().sum(dim=-1))

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        self._judged = []
        return super().evaluation_loop(*given, **options)

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        self._heard.clear()
        result = super().prediction_step(model, inputs, *given, **options)
        # TRL asks the model and then its reference, each first for the mismatched answers if the
        # loss needs them, and last for the batch's own.
        if self.precompute_ref_logps:
            own, reference = self._heard[-1], inputs["ref_logps"].to(self._heard[-1].device)
        else:
            own, reference = self._heard[len(self._heard) // 2 - 1], self._heard[-1]
        rewards = (self.beta * (own - reference)).tolist()
        self._judged += zip(rewards, own.tolist(), inputs["label"].tolist(), strict=True)
        self._heard.clear()
        return result

    def log(self, logs: dict[str, float], *given: Any, **options: Any) -> None:
        if any(name.startswith("eval_") for name in logs) and self._judged:
            for name, value in judged_measures(self._judged).items():
                self._eval_values()[name] = [value]
        super().log(logs, *given, **options)


def judged_measures(answers: list[tuple[float, float, bool]]) -> dict[str, float]:
    """Means over good and bad answers (reward, log probability, is good) by TRL's names, and how
    well the rewards part them."""
    good = torch.tensor([answer[:2] for answer in answers if answer[2]])
    bad = torch.tensor([answer[:2] for answer in answers if not answer[2]])
    found: dict[str, float] = {}
    for name, some in (("chosen", good), ("rejected", bad)):
        if len(some):
            reward, logp = some.mean(dim=0).tolist()
            found |= {f"rewards/{name}": reward, f"logps/{name}": logp}
    if len(good) and len(bad):
        found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
        # Over all pairs: for each good answer the bad ones below it, and half of those beside it.
        ordered = bad[:, 0].sort().values
        rewards = good[:, 0].contiguous()
        below = torch.searchsorted(ordered, rewards)
        through = torch.searchsorted(ordered, rewards, right=True)
        right = (below + through).sum().item() / 2
        found["rewards/accuracies"] = right / (len(good) * len(bad))
    return found


@dataclass(frozen=True)
class JudgedCollator:
    """A batch as KTOTrainer takes it. With `compares` each prompt also comes with the answer of
    its neighbour in the batch, cut at `max_length`: from these TRL tells how far the model moved.
    """

    pad_token_id: int
    max_length: int
    compares: bool

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._sequences("", [(row["input_ids"], row["labels"]) for row in rows])
        if self.compares:
            neighbours = [rows[-1], *rows[:-1]]
            mixed = [self._mixed(row, other) for row, other in zip(rows, neighbours, strict=True)]
            batch |= self._sequences("KL_", mixed)
        batch["label"] = torch.tensor([row["label"] for row in rows])
        for name in ("ref_logps", "ref_KL_logps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch

    def _sequences(self, name: str, rows: list[tuple[list[int], list[int]]]) -> dict[str, Any]:
        ids, labels = [row[0] for row in rows], [row[1] for row in rows]
        return {
            f"{name}input_ids": padded(ids, self.pad_token_id),
            f"{name}attention_mask": padded(real_in(ids), 0),
            f"{name}completion_mask": padded(answers_in(labels), 0),
        }

    def _mixed(self, row: dict[str, Any], other: dict[str, Any]) -> tuple[list[int], list[int]]:
        """The prompt of one row with the answer of another."""
        prompt, answer = _answer_begins(row["labels"]), _answer_begins(other["labels"])
        ids = row["input_ids"][:prompt] + other["input_ids"][answer:]
        labels = row["labels"][:prompt] + other["labels"][answer:]
        return ids[: self.max_length], labels[: self.max_length]


def _answer_begins(labels: list[int]) -> int:
    return next(place for place, label in enumerate(labels) if label != NO_LOSS)
