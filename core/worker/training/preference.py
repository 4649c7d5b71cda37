"""Learning from judged answers: DPO, ORPO, CPO and SimPO from a better and a worse one, KTO from
answers that were judged one by one. Their rows are those of the preview (`core.tokens.sides`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.utils import pad

from core.config import RunConfig
from core.config.preference import dpo_losses
from core.data.record import DatasetInfo, Part
from core.errors import ModelError
from core.language import _
from core.models.origin import own_adapter
from core.models.trained import find_trained
from core.progress import Tell
from core.tokens.sides import Side, sides_of_rows
from core.tokens.tokenize import NO_LOSS, TokenizedRow
from core.worker.models.loading import DTYPES, open_trained, resolve_base
from core.worker.training import ranks
from core.worker.training.adapters import peft_config
from core.worker.training.beginning import Beginning
from core.worker.training.launcher import reports
from core.worker.training.recipe import Recipe, arguments, data_seed
from core.worker.training.resolve import Choice
from core.worker.training.rows import IDS, Made, Rows, load_rows
from core.worker.training.trainer import RowMeanTrainer

PAIRS = pa.schema(
    [
        ("chosen_input_ids", IDS),
        ("chosen_labels", IDS),
        ("rejected_input_ids", IDS),
        ("rejected_labels", IDS),
    ]
)
"""A preference: the whole conversation with either answer; labels are -100 but on the answer."""

JUDGED = pa.schema([("input_ids", IDS), ("labels", IDS), ("label", pa.bool_())])
"""An answer and whether it is a good one."""


class Preference(Recipe):
    """What all of them share. `reference` is a model of its own; None where there is none, or where
    the model with its adapter switched off is the reference."""

    reference: Any | None = None

    @property
    def fewest_rows(self) -> int:
        """Rows that a batch must have."""
        return 1

    def load(self, part: Part, limit: int | None) -> Rows:
        start = self.start
        return judged_rows(
            start.info, part, start.tokenizer, self.config, limit=limit, tell=start.reporter.tell
        )

    def lengths(self) -> list[int]:
        return padded_lengths(self.rows)

    def fitted(self, choice: Choice) -> Choice:
        rows = self.fewest_rows
        if choice.field != "training.per_device_train_batch_size" or choice.value >= rows:
            return choice
        reason = _(
            "the method compares at least {rows} rows; {reason}", rows=rows, reason=choice.reason
        )
        return replace(choice, value=rows, reason=reason)

    def make_trainer(self) -> PreferenceTrainer:
        note_no_dropout(self.start)
        return self.trainer(
            model=self.model,
            train_dataset=self.laid(self.rows),
            eval_dataset=self.laid(self.held_out) if self.held_out else None,
            processing_class=self.start.tokenizer,
            peft_config=peft_config(self.config),
        )

    def laid(self, rows: Rows) -> Dataset:
        """The rows in the order in which the trainer is given them; of several processes where all
        find what TRL lays beside them, which the first one does."""
        ordered = self.in_order(rows.dataset)
        if not ranks.several() or not self.config.preference.precompute_ref_log_probs:
            return ordered
        place = reports(self.start.run) / rows.part
        if ranks.is_first():
            ordered.save_to_disk(place)
        ranks.wait()
        return Dataset.load_from_disk(place)

    def in_order(self, rows: Dataset) -> Dataset:
        return rows

    def trainer(self, **given: Any) -> PreferenceTrainer:
        """The method's own, with what all have in common."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        """What TRL's config of such a method takes."""
        return comparing(self.start) | self.own_arguments(self.config)


def named_alike(config: RunConfig, names: str) -> dict[str, Any]:
    """Fields of the section `preference` that TRL has under the same name."""
    return {name: getattr(config.preference, name) for name in names.split()}


def comparing(start: Beginning) -> dict[str, Any]:
    """Arguments of every trainer that compares answers."""
    config = start.config
    return {
        # So that one sees from where the rewards rise.
        "eval_on_start": config.evaluation.eval_strategy != "no" and start.resume_from is None,
        # The rows are tokenized and cut already, and our collators know their columns.
        "max_length": None,
        "remove_unused_columns": False,
        **arguments(config, start.run),
    }


def note_no_dropout(start: Beginning) -> None:
    adapter = start.config.adapter
    if adapter.lora_dropout > 0 and adapter.method == "lora":
        reason = _(
            "TRL compares answers without dropout; training.extra disable_dropout=false does"
        )
        start.reporter.note("adapter.lora_dropout", 0.0, reason)


def judged_rows(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
) -> Rows:
    """The first `limit` rows of a part as PAIRS or JUDGED, cut at max_length.

    Left out, with the reason, is a row that cannot be rendered, that loses an answer to the cut,
    or whose two answers are the same after it. Raises as `load_rows` does.
    """

    def make(rows: list[dict[str, Any]]) -> list[Made]:
        both = sides_of_rows(
            rows,
            tokenizer,
            max_length=config.training.max_length,
            system_prompt=config.data.system_prompt,
        )
        return [_judged(row, sides) for row, sides in zip(rows, both, strict=True)]

    schema = PAIRS if info.form == "preference" else JUDGED
    return load_rows(info, part, config, schema, make, limit=limit, tell=tell)


def _judged(row: dict[str, Any], sides: list[Side]) -> Made:
    for side in sides:
        problem = side.problem()
        if problem:
            if len(sides) == 1:
                return problem
            return _("{title}: {problem}", title=side.title, problem=problem)
    tokens = [side.tokens for side in sides if isinstance(side.tokens, TokenizedRow)]
    values = [ids for one in tokens for ids in (one.input_ids, one.labels)]
    if len(tokens) == 1:
        return [(*values, row["label"])]
    if tokens[0].input_ids == tokens[1].input_ids:
        return _(
            "Both answers are the same in their first {tokens} tokens. Raise max_length or "
            "drop the row.",
            tokens=tokens[0].length,
        )
    return [tuple(values)]


def padded_lengths(rows: Rows) -> list[int]:
    """How many tokens each row takes in a batch of its own: both answers are as wide as the
    longer one."""
    columns = rows.dataset.data.table
    if "input_ids" in columns.column_names:
        return [int(n) for n in pc.list_value_length(columns["input_ids"]).to_pylist()]
    widest = pc.max_element_wise(
        pc.list_value_length(columns["chosen_input_ids"]),
        pc.list_value_length(columns["rejected_input_ids"]),
    )
    return [2 * int(n) for n in widest.to_pylist()]


class Referenced(Preference):
    """DPO and KTO, which hold the model to a reference."""

    def open_model(self) -> None:
        super().open_model()
        self.reference = self._reference()

    def _reference(self) -> Any | None:
        """The reference where it is a model of its own, in evaluation mode and frozen."""
        config, start, section = self.config, self.start, self.config.preference
        if section.ref_model == "none":
            return None
        if section.ref_model != "base":
            return _other_run(section.ref_model, start)
        alone = True
        if own_adapter(start.run) is not None:
            how = _("a second copy of the model, as it began")
        elif config.adapter.is_adapter:
            how, alone = _("the model with its adapter switched off"), False
        elif section.precompute_ref_log_probs:
            how, alone = _("asked once before the training"), False
        else:
            how = _(
                "a second copy of the model stays in memory; precompute_ref_log_probs avoids it"
            )
        start.reporter.note("preference.ref_model", "base", how)
        return self.frozen_copy() if alone else None

    def make_trainer(self) -> PreferenceTrainer:
        trainer = super().make_trainer()
        if trainer.args.precompute_ref_log_probs:
            trainer.ref_model = self.reference = None  # it has said all it knows
        return trainer


def _other_run(run_id: str, start: Beginning) -> Any:
    """What another run made, as reference. Raises ModelError when it speaks of other tokens."""
    trained = find_trained(start.workspace.run(run_id))
    base = resolve_base(trained.base, start.workspace)
    dtype = DTYPES[start.config.training.precision]
    model, tokenizer = open_trained(trained, base, device=start.place, dtype=dtype)
    if tokenizer.get_vocab() != start.tokenizer.get_vocab():
        raise ModelError(
            _(
                "The run {run} cannot be the reference: its model has other tokens.",
                run=run_id,
            ),
            _("Set preference.ref_model to base, or to a run of the same model family."),
        )
    reason = _("what it made of {base}", base=trained.base)
    start.reporter.note("preference.ref_model", run_id, reason)
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()  # its adapter stays in the layers
    return model.requires_grad_(False).eval()


class PreferenceTrainer(RowMeanTrainer):
    """To stand before a trainer of TRL's for preferences, on rows that are tokenized already."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def padded(sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """(rows, longest): the sequences, filled up on the right with `value`."""
    return pad([torch.tensor(one) for one in sequences], padding_value=value, padding_side="right")


def answers_in(labels: Sequence[Sequence[int]]) -> list[list[int]]:
    """1 where a token belongs to an answer, else 0."""
    return [[int(label != NO_LOSS) for label in row] for row in labels]


def real_in(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[1] * len(row) for row in ids]


class DPO(Referenced):
    """Direct preference optimization."""

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        section = config.preference
        losses, names = dpo_losses(section), "beta label_smoothing ld_alpha f_divergence_type"
        return named_alike(config, f"{names} use_weighting discopop_tau") | {
            "loss_type": list(losses),
            "loss_weights": list(losses.values()),
            # Known beforehand, so that no model is asked: without a reference it is zero.
            "precompute_ref_log_probs": section.precompute_ref_log_probs
            or section.ref_model == "none",
        }

    def trainer(self, **given: Any) -> DirectTrainer:
        without_reference = self.config.preference.ref_model == "none"
        return DirectTrainer(
            without_reference=without_reference,
            ref_model=self.reference,
            args=DPOConfig(**self.arguments()),
            data_collator=PairCollator(self.start.tokenizer.pad_token_id, without_reference),
            **given,
        )


class DirectTrainer(PreferenceTrainer, DPOTrainer):
    """DPOTrainer on PAIRS."""

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


def compares_neighbours(config: RunConfig) -> bool:
    """Whether KTO's loss takes each row's answer for its neighbour's, too."""
    return config.preference.kto_loss_type == "kto"


class KTO(Referenced):
    """Learning from answers that were judged one by one."""

    @property
    def fewest_rows(self) -> int:
        return 2 if compares_neighbours(self.config) else 1

    def in_order(self, rows: Dataset) -> Dataset:
        """TRL takes the rows in their order, for each is compared with its neighbours. In the order
        of a file good and bad answers may stand apart, so they are shuffled once."""
        return rows.shuffle(seed=data_seed(self.config))

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        names = "beta desirable_weight undesirable_weight precompute_ref_log_probs"
        return named_alike(config, names) | {
            "loss_type": config.preference.kto_loss_type,
            "train_sampling_strategy": "sequential",
        }

    def trainer(self, **given: Any) -> JudgedTrainer:
        start = self.start
        note = balance_note(self.rows, self.config)
        if note:
            start.reporter.events.write("log", level="warning", message=note)
        longest = self.config.training.max_length
        return JudgedTrainer(
            ref_model=self.reference,
            args=KTOConfig(**self.arguments()),
            data_collator=JudgedCollator(
                start.tokenizer.pad_token_id, longest, compares_neighbours(self.config)
            ),
            **given,
        )


def balance_note(rows: Rows, config: RunConfig) -> str | None:
    """A sentence on weights that would even out good and bad answers; None where they are even.

    The bounds are those of Eq. (8) of the KTO paper (arXiv 2402.01306): the good answers together
    weigh 1 to 4/3 of the bad ones.
    """
    labels = rows.dataset.data.table["label"]
    good = int(pc.sum(labels).as_py() or 0)
    bad = len(labels) - good
    if not good or not bad:
        if good:
            return _(
                "All {rows} train rows are good answers: KTO learns from both kinds.", rows=good
            )
        return _("All {rows} train rows are bad answers: KTO learns from both kinds.", rows=bad)
    section = config.preference
    share = good * section.desirable_weight / (bad * section.undesirable_weight)
    if 0.99 <= share <= 1.34:
        return None
    if share < 1:
        setting = f"preference.desirable_weight {section.undesirable_weight * bad / good:.3g}"
    else:
        setting = f"preference.undesirable_weight {section.desirable_weight * good / bad:.3g}"
    return _(
        "{good} good and {bad} bad answers weigh {share:.2g} to 1. To even them out, set "
        "{setting}.",
        good=good,
        bad=bad,
        share=share,
        setting=setting,
    )


class JudgedTrainer(PreferenceTrainer, KTOTrainer):
    """KTOTrainer on JUDGED rows.

    How far the model has moved (z0 of the KTO paper) is told from all answers of a step or an
    evaluation, not from those of one batch, so that it does not hang on the number of devices.
    An evaluation also says how often a good answer has a higher reward than a bad one, over all
    pairs of the two (`rewards/accuracies`; a tie counts half), which TRL leaves out.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._heard: list[torch.Tensor] = []  # log probabilities of the answers, by forward
        # Of an evaluation's answers: reward, log probability, and whether it is a good one.
        self._judged: list[tuple[float, float, bool]] = []
        # The batches that tell how far the model has moved; what they told of it and of its
        # reference; and how often TRL has asked.
        self._compared: Iterable[Any] = ()
        self._moved: list[float] = []
        self._asked = 0
        for model in (self.model, self.ref_model):
            if model is not None:
                model.register_forward_hook(self._hear)

    def _hear(self, _: Any, __: Any, output: Any) -> None:
        scores = getattr(output, "log_probs", None)
        if scores is not None and not self.model.training:
            self._heard.append(scores.detach().sum(dim=-1))

    def _compare(self, batches: Iterable[Any]) -> None:
        self._compared, self._moved, self._asked = batches, [], 0

    def get_batch_samples(self, *given: Any) -> Any:
        samples, items = super().get_batch_samples(*given)
        self._compare(samples)
        return samples, items

    def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
        """Log probability of mismatched answers: their mean, which TRL asks for with each batch,
        of the model and, where it was not asked beforehand, then of the reference."""
        if not self.calculate_KL:
            return None
        place = self._asked % (1 if self.precompute_ref_logps else 2)
        self._asked += 1
        if place == len(self._moved):
            total = count = 0.0
            for one in self._compared:
                logps = super()._compute_kl_logps(model, one) - one.get("ref_KL_logps", 0.0)
                if self.counts(one):
                    total, count = total + float(logps.sum()), count + len(logps)
            total, count = ranks.summed([total, count])
            self._moved.append(total / count)
        mean = torch.tensor(self._moved[place], device=self.accelerator.device)
        return mean + batch.get("ref_KL_logps", 0.0)

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        self._judged = []
        self._compare(self.get_eval_dataloader())
        output = super().evaluation_loop(*given, **options)
        self._judged = ranks.gathered(self._judged)
        return output

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        self._heard.clear()
        result = super().prediction_step(model, inputs, *given, **options)
        if self.is_spare:
            return result
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


class ORPO(Preference):
    """Odds ratio preference optimization, which learns the better answer and to prefer it at
    once."""

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        return named_alike(config, "beta") | {"max_length": config.training.max_length}

    def trainer(self, **given: Any) -> OddsRatioTrainer:
        return OddsRatioTrainer(
            answers_only=self.config.data.learn != "everything",
            args=ORPOConfig(**self.arguments()),
            data_collator=PairColumns(self.start.tokenizer.pad_token_id),
            **given,
        )


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


class OddsRatioTrainer(WithoutReference, ORPOTrainer):
    """ORPOTrainer on PAIRS.

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


class CPO(Preference):
    """Contrastive preference optimization and SimPO, without a reference model."""

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        loss = config.preference.cpo_loss_type
        names = "beta label_smoothing cpo_alpha simpo_gamma"
        return named_alike(config, f"{names} alpha" if loss == "alphapo" else names) | {
            "loss_type": loss,
            "max_length": config.training.max_length,
        }

    def trainer(self, **given: Any) -> ContrastiveTrainer:
        return ContrastiveTrainer(
            args=CPOConfig(**self.arguments()),
            data_collator=PairColumns(self.start.tokenizer.pad_token_id),
            **given,
        )


class ContrastiveTrainer(WithoutReference, CPOTrainer):
    """CPOTrainer on PAIRS."""


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
