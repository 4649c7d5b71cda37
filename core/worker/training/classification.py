"""Classification, from labelled text to the saved adapter or model with its labels: rows, the loss
(cross entropy, weighted by label or focal), what each evaluation measures, what is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional
from transformers import DataCollatorWithPadding, TrainerCallback, TrainingArguments

from core.config import RunConfig
from core.config.run import quick_settings
from core.config.sections import ClassificationSection
from core.data.record import DatasetInfo, Part
from core.data.rowfile import iter_rows, read_slice
from core.errors import ConfigError, DataError, Problem
from core.evaluation.label_scores import by_label, confusion, means, truth_of
from core.jobs.events import EventWriter
from core.language import _
from core.models.labels import MULTI, SINGLE, UNKNOWN, Labels
from core.progress import Tell
from core.worker.models.classifier import (
    given,
    in_words,
    label_logits,
    load_classifier,
    probabilities,
    text_ids,
)
from core.worker.training.adapters import with_head
from core.worker.training.beginning import Beginning
from core.worker.training.recipe import HeadedRecipe, arguments, save
from core.worker.training.resolve import Choice
from core.worker.training.rows import IDS, Made, Rows, load_rows
from core.worker.training.samples import SampleAnswers
from core.worker.training.trainer import PaddedTrainer, grouped_lengths, same_randomness

_LISTED = 5
_ROWS, _LOOKED_AT = 3, 200
# With more labels than this the numbers of each are left to the report of an evaluation.
_MOST_LABELS = 100


class Classification(HeadedRecipe):
    """Labels of texts. `label_counts`: how many train rows carry each label, by id."""

    label_counts: list[int]

    def __init__(self, start: Beginning) -> None:
        super().__init__(start)
        quick = quick_settings(self.config)
        start.decide([Choice(path, value, _("a quick trial")) for path, value in quick.items()])
        self.labels = learn_labels(start.info, self.config)
        names = ", ".join(self.labels.names[:10])
        names += ", ..." if len(self.labels.names) > 10 else ""
        count = len(self.labels.names)
        if self.labels.multi:
            told = _("{count} labels, any number of them a row: {names}.", count=count, names=names)
        else:
            told = _("{count} labels, one of them a row: {names}.", count=count, names=names)
        self._tell(told)

    def _tell(self, message: str, level: str = "info") -> None:
        self.start.reporter.events.write("log", level=level, message=message)

    def open_headed(self) -> tuple[Any, list[str]]:
        start = self.start
        return load_classifier(
            self.config, start.base, self.labels, start.tokenizer, device=start.place
        )

    def load(self, part: Part, limit: int | None) -> Rows:
        """The rows with their labels as `Labels.ids_of` has them; says which texts lose their end,
        and which labels training never saw."""
        start, labels, longest = self.start, self.labels, self.config.training.max_length
        unseen, cut = Counter[str](), 0

        def look(rows: list[dict[str, Any]], tokenized: list[list[int]]) -> None:
            nonlocal cut
            pairs = list(zip(rows, tokenized, strict=True))
            full = [row.get("text") or "" for row, ids in pairs if len(ids) >= longest]
            cut += _longer(start.tokenizer, full, longest)
            for row, ids in pairs:
                unseen.update(set(row.get("labels") or ()) - labels.ids.keys() if ids else ())

        tell = start.reporter.tell
        rows = labelled_rows(
            start.info,
            part,
            start.tokenizer,
            self.config,
            labels,
            limit=limit,
            tell=tell,
            look=look,
        )
        if part == "train":
            self.label_counts = count_labels(rows, labels)
        self._warn(rows, cut, unseen)
        return rows

    def _warn(self, rows: Rows, cut: int, unseen: Counter[str]) -> None:
        part, total = rows.part, len(rows.lengths)
        if cut:
            self._tell(
                _(
                    "{cut:,} of {total:,} {part} rows are longer than {length} tokens: their end "
                    "is cut off.",
                    cut=cut,
                    total=total,
                    part=part,
                    length=self.config.training.max_length,
                ),
                "warning",
            )
        if unseen:
            some = unseen.most_common(_LISTED)
            names = ", ".join(f"{name} ({count:,})" for name, count in some)
            self._tell(
                _(
                    "{rows:,} {part} rows carry labels that no train row has, and count as wrong: "
                    "{names}",
                    rows=sum(unseen.values()),
                    part=part,
                    names=names + (", ..." if len(unseen) > _LISTED else ""),
                ),
                "warning",
            )

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        return {"label_names": ["labels"]}

    def make_trainer(self) -> LabelTrainer:
        start, config, labels = self.start, self.config, self.labels
        section = config.classification
        weights = class_weights(section, labels, self.label_counts, len(self.rows.lengths))
        gamma = section.focal_gamma if section.loss == "focal" else 0.0
        return LabelTrainer(
            labels=labels,
            loss=LabelLoss(labels, weights, gamma),
            lengths=grouped_lengths(config, self.rows.lengths),
            model=with_head(self.model, self.drawn, config, "SEQ_CLS"),
            args=TrainingArguments(**arguments(config, start.run) | self.own_arguments(config)),
            train_dataset=self.rows.dataset,
            eval_dataset=self.held_out.dataset if self.held_out else None,
            processing_class=start.tokenizer,
            data_collator=DataCollatorWithPadding(start.tokenizer),
        )

    def callbacks(self, trainer: LabelTrainer) -> list[TrainerCallback]:
        start = self.start
        sampler = LabelSampler(
            watched_texts(self.config, start.info),
            start.tokenizer,
            self.labels,
            start.reporter.events,
            self.config.training.max_length,
        )
        told = ReportLabels(trainer, start.reporter.events)
        return [told, SampleAnswers(sampler, trainer, starts_as_base=False)]

    def save(self, trainer: LabelTrainer) -> None:
        save(trainer, self.start, self.labels)


def labelled_rows(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    labels: Labels,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
    look: Callable[[list[dict[str, Any]], list[list[int]]], None] = lambda rows, tokenized: None,
) -> Rows:
    """The first `limit` rows of a part with their labels as `Labels.ids_of` has them; `look` is
    shown rows with their tokens. Raises as `load_rows` does."""

    def make(rows: list[dict[str, Any]]) -> Iterator[Made]:
        texts = [row.get("text") or "" for row in rows]
        tokenized = text_ids(tokenizer, texts, config.training.max_length)
        look(rows, tokenized)
        for row, ids in zip(rows, tokenized, strict=True):
            found = labels.ids_of(list(row.get("labels") or ()))
            yield [(ids, found)] if ids else _("Its text is empty.")

    kind = pa.list_(pa.float32()) if labels.multi else pa.int64()
    schema = pa.schema([("input_ids", IDS), ("labels", kind)])
    columns = ["text", "labels"]
    return load_rows(info, part, config, schema, make, limit=limit, tell=tell, columns=columns)


def count_labels(rows: Rows, labels: Labels) -> list[int]:
    """How many rows carry each label, by id."""
    ids = np.asarray(rows.dataset["labels"])
    if labels.multi:
        return [int(count) for count in (ids[:, :-1] > 0.5).sum(axis=0)]
    return [int((ids == number).sum()) for number in range(len(labels.names))]


def learn_labels(info: DatasetInfo, config: RunConfig) -> Labels:
    """The labels of the train rows, in the order of their names (numbers by size).

    They are multi when any row has not exactly one. Raises DataError when there is nothing to
    tell apart, or when rows have several labels and the run is set to one.
    """
    limit = config.data.max_train_samples
    counts: Counter[str] = Counter()
    several = _several(_labels_of(info, "train", limit), counts)
    wanted = config.classification.problem_type
    if info.counts.eval and config.evaluation.eval_strategy != "no":
        several = _several(_labels_of(info, "eval", None), Counter()) + several
    if wanted == SINGLE and several:
        raise DataError(
            _(
                "{several:,} rows of {name} have not exactly one label, and "
                "classification.problem_type is single_label_classification.",
                several=several,
                name=info.name,
            ),
            _("Set it to auto, or drop these rows in Data."),
        )
    multi = wanted == MULTI or (wanted == "auto" and several > 0)
    names = _in_order(counts)
    if not names:
        raise DataError(
            _("No train row of {name} has a label.", name=info.name),
            _("Map a label column when you import it."),
        )
    if len(names) == 1 and (not multi or counts[names[0]] == _train_rows(info, limit)):
        raise DataError(
            _(
                "All train rows of {name} have the label {label}: there is nothing to tell apart.",
                name=info.name,
                label=names[0],
            ),
            _("Add rows with another label."),
        )
    return Labels(tuple(names), multi, config.classification.threshold)


def _several(found: Iterator[list[str]], counts: Counter[str]) -> int:
    """How many rows have not exactly one label; counts each row's labels."""
    several = 0
    for names in found:
        several += len(names) != 1
        counts.update(set(names))
    return several


def _labels_of(info: DatasetInfo, part: Part, limit: int | None) -> Iterator[list[str]]:
    rows = (
        list(row.get("labels") or ())
        for batch in iter_rows(info.rows_path(part), columns=["labels"])
        for row in batch
    )
    return islice(rows, limit)


def _longer(tokenizer: Any, texts: list[str], longest: int) -> int:
    """How many of these texts, which fill the length, are longer than it."""
    if not texts:
        return 0
    whole = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    return sum(len(ids) > longest for ids in whole)


def _train_rows(info: DatasetInfo, limit: int | None) -> int:
    return min(limit or info.counts.train, info.counts.train)


def _in_order(names: Counter[str]) -> list[str]:
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def class_weights(
    section: ClassificationSection, labels: Labels, counts: Sequence[int], rows: int
) -> list[float] | None:
    """How much each label counts; None when all count the same.

    Balanced: a single label weighs rows / (labels x its rows), so that the mean over all rows is
    1 (King and Zeng 2001, as in scikit-learn). With several labels a text each label is its own
    question, and its presence weighs (rows without it) / (rows with it).
    Raises ConfigError for the weight of a label that no train row has.
    """
    if section.class_weights == "none":
        return None
    if section.class_weights == "balanced":
        if labels.multi:
            return [(rows - count) / count if 0 < count < rows else 1.0 for count in counts]
        known = sum(count > 0 for count in counts)
        return [sum(counts) / (known * count) if count else 0.0 for count in counts]
    unknown = [name for name in section.own_weights if name not in labels.ids]
    if unknown:
        problem = Problem(
            "classification.own_weights",
            _(
                "no train row has the label {unknown}. There are: {names}.",
                unknown=", ".join(unknown),
                names=", ".join(labels.names[:20]),
            ),
        )
        raise ConfigError([problem])
    return [float(section.own_weights.get(name, 1.0)) for name in labels.names]


class LabelLoss:
    """Called by the trainer with the model's output and the labels of `Labels.ids_of`.

    The mean over rows (and with several labels over labels): each row's loss times the weight of
    its label, and with `gamma` times (1 - p)**gamma, where p is the probability of what is right
    (focal loss, Lin et al. 2017, ICCV). Rows of UNKNOWN labels are passed over.
    """

    def __init__(
        self, labels: Labels, weights: Sequence[float] | None = None, gamma: float = 0.0
    ) -> None:
        self.labels = labels
        self.gamma = gamma
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """`num_items_in_batch`: labels in all batches that make up a step."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        logits = logits.float()
        if self.weights is not None:
            self.weights = self.weights.to(logits.device)
        if self.labels.multi:
            summed, count = self._multi(logits, labels[:, :-1].float())
        else:
            summed, count = self._single(logits, labels)
        if num_items_in_batch is not None:
            count = num_items_in_batch
        return summed / max(int(count), 1)

    def _single(self, logits: Any, labels: Any) -> tuple[Any, int]:
        known = labels != UNKNOWN
        logits, labels = logits[known], labels[known]
        log_p = logits.log_softmax(dim=-1).gather(-1, labels[:, None]).squeeze(-1)
        losses = -log_p
        if self.gamma:
            losses = losses * (1 - log_p.exp()).pow(self.gamma)
        if self.weights is not None:
            losses = losses * self.weights[labels]
        return losses.sum(), len(labels)

    def _multi(self, logits: Any, labels: Any) -> tuple[Any, int]:
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        if self.gamma:
            losses = losses * (1 - (-losses).exp()).pow(self.gamma)
        if self.weights is not None:
            losses = losses * torch.where(labels > 0, self.weights, 1.0)
        return losses.sum(), labels.numel()


class LabelTrainer(PaddedTrainer):
    """Learns labels with `loss`; each checkpoint has the label mapping beside its weights."""

    def __init__(self, *, labels: Labels, loss: Callable[..., Any], **arguments: Any) -> None:
        self.labels = labels
        self.measured: tuple[Any, Any] | None = None
        super().__init__(compute_loss_func=loss, compute_metrics=self._metrics, **arguments)
        # The loss is made here, from labels that no model gets to see.
        self.can_return_loss = True

    def _metrics(self, seen: Any) -> dict[str, float]:
        logits = seen.predictions[0] if isinstance(seen.predictions, tuple) else seen.predictions
        chances = probabilities(torch.as_tensor(logits).float(), self.labels)
        said = given(chances, self.labels).numpy()
        truth = truth_of(seen.label_ids, self.labels)
        self.measured = said, truth
        return means(said, truth)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.labels.save(Path(output_dir or self.args.output_dir))


class ReportLabels(TrainerCallback):
    """Writes after each evaluation how each label does and what was taken for what."""

    def __init__(self, trainer: LabelTrainer, events: EventWriter) -> None:
        self._trainer = trainer
        self._events = events

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self._trainer.measured is None:
            return
        said, truth = self._trainer.measured
        labels = self._trainer.labels
        if len(labels.names) > _MOST_LABELS:
            return
        numbers = by_label(said, truth, labels)
        occurring = [label for label in numbers if label["rows"]]
        if not occurring:
            return
        worst = min(occurring, key=lambda label: label["f1"])
        self._events.write(
            "log",
            level="info",
            message=_(
                "Step {step}: the label with the lowest F1 is {label} ({f1:.2f}).",
                step=state.global_step,
                label=worst["label"],
                f1=worst["f1"],
            ),
            step=state.global_step,
            by_label=numbers,
            confusion=confusion(said, truth, labels),
        )


@dataclass(frozen=True)
class _Watched:
    text: str
    expected: str | None
    ids: list[int]


class LabelSampler:
    """Writes a `sample` event for each watched text: the labels it is given, and its own."""

    def __init__(
        self,
        texts: Sequence[tuple[str, str | None]],
        tokenizer: Any,
        labels: Labels,
        events: EventWriter,
        longest: int,
    ) -> None:
        self._tokenizer, self._labels, self._events = tokenizer, labels, events
        tokens = text_ids(tokenizer, [text for text, _ in texts], longest)
        self._watched = [
            _Watched(text, expected, ids)
            for (text, expected), ids in zip(texts, tokens, strict=True)
            if ids
        ]

    def write(self, model: Any, step: int, autocast: Any, *, as_base: bool = False) -> None:
        """The labels at `step`. The model, its mode and all random states stay as they were."""
        if not self._watched:
            return
        was_training = model.training
        with same_randomness(), autocast:
            model.eval()
            try:
                logits = label_logits(model, self._tokenizer, [one.ids for one in self._watched])
            finally:
                model.train(was_training)
        chances = probabilities(logits, self._labels)
        for index, one in enumerate(self._watched):
            self._events.write(
                "sample",
                step=step,
                index=index,
                prompt=[{"role": "user", "content": one.text}],
                answer=in_words(chances[index], self._labels, most=3),
                expected=one.expected,
            )


def watched_texts(config: RunConfig, info: DatasetInfo) -> list[tuple[str, str | None]]:
    """(text, its labels if known): those of the config, else some held-out rows (else of the
    others), of different labels where there are."""
    evaluation = config.evaluation
    if evaluation.sample_max_new_tokens == 0:
        return []
    if evaluation.sample_prompts:
        return [(text, None) for text in evaluation.sample_prompts]
    part = "eval" if info.counts.eval else "train"
    rows = read_slice(info.rows_path(part), 0, _LOOKED_AT)
    pairs: list[tuple[str, str | None]] = [
        (row.get("text") or "", ", ".join(row.get("labels") or ()) or _("none")) for row in rows
    ]
    first = {expected: (text, expected) for text, expected in reversed(pairs)}
    chosen = [pair for pair in pairs if first[pair[1]] == pair][:_ROWS]
    return chosen + [pair for pair in pairs if pair not in chosen][: _ROWS - len(chosen)]
