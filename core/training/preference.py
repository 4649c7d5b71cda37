"""What DPO, KTO, ORPO and CPO share: how such a run begins, its reference model, its batches, and
what its evaluations measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from trl.trainer.utils import pad

from core.config import RunConfig
from core.errors import ModelError
from core.models.inference import open_trained, resolve_base, with_adapter
from core.models.load import DTYPES, load_base
from core.models.origin import own_adapter
from core.models.trained import find_trained
from core.tokens.tokenize import NO_LOSS
from core.training import resolve
from core.training.judged_rows import load_judged_rows, padded_lengths
from core.training.rows import Rows
from core.training.setup import Beginning, arguments, begin
from core.training.watched import WatchedTrainer
from core.workspace import RunFolder, Workspace


@dataclass
class Prepared:
    """A run whose rows and model are there, and whose batch size is known.

    `reference` is a model of its own; None where there is none, or where the model with its
    adapter switched off is the reference.
    """

    start: Beginning
    resumed: bool
    rows: Rows
    held_out: Rows | None
    model: Any
    reference: Any | None


def prepare(
    run: RunFolder,
    workspace: Workspace,
    config: RunConfig,
    resume_from: Path | None,
    *,
    fewest_rows: int = 1,
) -> Prepared:
    """Everything up to the trainer. Raises Stopped or a TunesmithError."""
    start = begin(run, workspace, config, resume_from)
    config, reporter, tokenizer = start.config, start.reporter, start.tokenizer
    limit = config.data.max_train_samples
    tell = reporter.tell
    rows = load_judged_rows(start.info, "train", tokenizer, config, limit=limit, tell=tell)
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_judged_rows(start.info, "eval", tokenizer, config, tell=tell)
    reporter.rows(rows, held_out)

    reporter.doing("Loading the model")
    model = load_base(config, start.base, device=start.device, precision=config.training.precision)
    reference = _reference(start)
    need = resolve.estimate_need(model, config)
    choices = resolve.choose_batch(
        config,
        need,
        padded_lengths(rows),
        device=start.device,
        free=resolve.free_bytes(start.device),
    )
    start.config = reporter.chosen(config, [_at_least(one, fewest_rows) for one in choices])
    if config.adapter.lora_dropout > 0 and config.adapter.method == "lora":
        reason = "TRL compares answers without dropout; training.extra disable_dropout=false does"
        reporter.note("adapter.lora_dropout", 0.0, reason)
    start.config.save(run.config)
    reporter.check_stop()
    reporter.doing("Preparing the trainer")
    return Prepared(start, resume_from is not None, rows, held_out, model, reference)


def preference_arguments(ready: Prepared, *names: str) -> dict[str, Any]:
    """What TRL's config of such a method takes; `names` are fields of the section `preference`
    that it has under the same name."""
    config = ready.start.config
    return {
        # So that one sees from where the rewards rise.
        "eval_on_start": config.evaluation.eval_strategy != "no" and not ready.resumed,
        # The rows are tokenized and cut already, and our collators know their columns.
        "max_length": None,
        "remove_unused_columns": False,
        **{name: getattr(config.preference, name) for name in names},
        **arguments(config, ready.start.run),
    }


def _at_least(choice: resolve.Choice, rows: int) -> resolve.Choice:
    if choice.field != "training.per_device_train_batch_size" or choice.value >= rows:
        return choice
    reason = f"the method compares at least {rows} rows; {choice.reason}"
    return replace(choice, value=rows, reason=reason)


def _reference(start: Beginning) -> Any | None:
    """The reference model where it is one of its own, in evaluation mode and frozen."""
    config, reporter = start.config, start.reporter
    section = config.preference
    if config.training_method.reference != "asked" or section.ref_model == "none":
        return None
    if section.ref_model != "base":
        return _other_run(section.ref_model, start)
    begun = own_adapter(start.run)
    if begun is not None:
        reporter.note("preference.ref_model", "base", "a second copy of the model, as it began")
        model = load_base(
            config, start.base, device=start.device, precision=config.training.precision
        )
        return with_adapter(model, begun).get_base_model().requires_grad_(False).eval()
    if config.adapter.is_adapter:
        reporter.note("preference.ref_model", "base", "the model with its adapter switched off")
        return None
    if section.precompute_ref_log_probs:
        reporter.note("preference.ref_model", "base", "asked once before the training")
        return None
    reporter.note(
        "preference.ref_model",
        "base",
        "a second copy of the model stays in memory; precompute_ref_log_probs avoids it",
    )
    model = load_base(config, start.base, device=start.device, precision=config.training.precision)
    return model.requires_grad_(False).eval()


def _other_run(run_id: str, start: Beginning) -> Any:
    """What another run made, as reference. Raises ModelError when it speaks of other tokens."""
    trained = find_trained(start.workspace.run(run_id))
    base = resolve_base(trained.base, start.workspace)
    dtype = DTYPES[start.config.training.precision]
    model, tokenizer = open_trained(trained, base, device=start.device, dtype=dtype)
    if tokenizer.get_vocab() != start.tokenizer.get_vocab():
        raise ModelError(
            f"The run {run_id} cannot be the reference: its model has other tokens.",
            "Set preference.ref_model to base, or to a run of the same model family.",
        )
    start.reporter.note("preference.ref_model", run_id, f"what it made of {trained.base}")
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()  # its adapter stays in the layers
    return model.requires_grad_(False).eval()


class PreferenceTrainer(WatchedTrainer):
    """To stand before a trainer of TRL's for preferences, on rows that are tokenized already.

    What an evaluation measures is a mean over its rows, whatever the batch size.
    """

    def __init__(self, **given: Any) -> None:
        self._rows_measured: list[int] = []
        super().__init__(**given)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        self._rows_measured = []
        self._eval_values().clear()
        return super().evaluation_loop(*given, **options)

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        self._rows_measured.append(rows_in(inputs))
        return super().prediction_step(model, inputs, *given, **options)

    def log(self, logs: dict[str, float], *given: Any, **options: Any) -> None:
        if any(name.startswith("eval_") for name in logs):
            values = self._eval_values()
            for name, found in values.items():
                if len(found) == len(self._rows_measured):
                    values[name] = [_weighted(found, self._rows_measured)]
        super().log(logs, *given, **options)

    def _eval_values(self) -> dict[str, list[float]]:
        """Where TRL keeps what it measured of each batch of an evaluation."""
        found: dict[str, list[float]] = self._metrics["eval"]
        return found


def rows_in(inputs: dict[str, Any]) -> int:
    """Rows of a batch: two sequences of it may be one pair."""
    if "chosen_labels" in inputs:
        return len(inputs["chosen_labels"])
    if "label" in inputs:
        return len(inputs["label"])
    return len(inputs["input_ids"]) // 2


def _weighted(values: Sequence[float], weights: Sequence[int]) -> float:
    total = sum(float(value) * weight for value, weight in zip(values, weights, strict=True))
    return total / sum(weights)


def padded(sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """(rows, longest): the sequences, filled up on the right with `value`."""
    return pad([torch.tensor(one) for one in sequences], padding_value=value, padding_side="right")


def answers_in(labels: Sequence[Sequence[int]]) -> list[list[int]]:
    """1 where a token belongs to an answer, else 0."""
    return [[int(label != NO_LOSS) for label in row] for row in labels]


def real_in(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[1] * len(row) for row in ids]


class WithoutReference(PreferenceTrainer):
    """To stand before TRL's trainers of ORPO and CPO, which keep their measures elsewhere and
    would prepare the rows themselves."""

    def __init__(self, *, train_dataset: Any, eval_dataset: Any | None, **given: Any) -> None:
        # Each goes through its rows three times to tokenize them, as ours are; one is enough.
        one = None if eval_dataset is None else eval_dataset.select([0])
        super().__init__(train_dataset=train_dataset.select([0]), eval_dataset=one, **given)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.use_dpo_data_collator = True  # ours gives the same columns

    def tokenize_row(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    def _eval_values(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = self._stored_metrics["eval"]
        return found


@dataclass(frozen=True)
class PairColumns:
    """A batch as TRL's trainers of ORPO and CPO take it: each answer in columns of its own."""

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = {}
        for side in ("chosen", "rejected"):
            ids = [row[f"{side}_input_ids"] for row in rows]
            batch[f"{side}_input_ids"] = padded(ids, self.pad_token_id)
            batch[f"{side}_attention_mask"] = padded(real_in(ids), 0)
            batch[f"{side}_labels"] = padded([row[f"{side}_labels"] for row in rows], NO_LOSS)
        return batch
