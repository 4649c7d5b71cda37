"""From labelled text to what a classifier's trainer takes: input_ids and label ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from datasets import Dataset, Features, Value
from datasets import List as ListOf

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.data.rowfile import iter_rows
from core.errors import DataError
from core.models.classifier import text_ids
from core.models.labels import MULTI, SINGLE, Labels
from core.training.rows import Rows

Tell = Callable[[float, str], None]

_AT_ONCE = 1000
_LISTED = 5


@dataclass(frozen=True)
class LabelRows:
    """The rows of one part. `counts` has how many rows carry each label (by id), `cut` how many
    texts lost their end, `unseen` the rows with each label that training never saw."""

    rows: Rows
    counts: list[int]
    cut: int
    unseen: dict[str, int]

    def warnings(self, longest: int) -> list[str]:
        """What a person must know of these rows."""
        found = []
        part, total = self.rows.part, len(self.rows.lengths)
        if self.cut:
            found.append(
                f"{self.cut:,} of {total:,} {part} rows are longer than {longest} tokens: their "
                "end is cut off."
            )
        if self.unseen:
            names = ", ".join(f"{name} ({count:,})" for name, count in _some(self.unseen))
            more = ", ..." if len(self.unseen) > _LISTED else ""
            found.append(
                f"{sum(self.unseen.values()):,} {part} rows carry labels that no train row has, "
                f"and count as wrong: {names}{more}"
            )
        return found


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
            f"{several:,} rows of {info.name} have not exactly one label, and "
            "classification.problem_type is single_label_classification.",
            "Set it to auto, or drop these rows in Data.",
        )
    multi = wanted == MULTI or (wanted == "auto" and several > 0)
    names = _in_order(counts)
    if not names:
        raise DataError(
            f"No train row of {info.name} has a label.", "Map a label column when you import it."
        )
    if len(names) == 1 and (not multi or counts[names[0]] == _train_rows(info, limit)):
        raise DataError(
            f"All train rows of {info.name} have the label {names[0]}: there is nothing to tell "
            "apart.",
            "Add rows with another label.",
        )
    return Labels(tuple(names), multi, config.classification.threshold)


def load_label_rows(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    labels: Labels,
    longest: int,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
) -> LabelRows:
    """The first `limit` rows of a part, tokenized and cut at `longest` tokens.

    A row's `labels` are those of `Labels.ids_of`. Raises DataError when no row can be used.
    """
    data: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    left_out: list[tuple[int, str]] = []
    unseen: Counter[str] = Counter()
    counts = [0] * len(labels.names)
    cut = seen = 0
    total = min(limit or getattr(info.counts, part), getattr(info.counts, part))
    for rows in _batches(info, part, limit):
        texts = [row["text"] for row in rows]
        tokenized = text_ids(tokenizer, texts, longest)
        full = [i for i, ids in enumerate(tokenized) if len(ids) >= longest]
        cut += _cut(tokenizer, [texts[i] for i in full], longest)
        for place, (row, ids) in enumerate(zip(rows, tokenized, strict=True)):
            if not ids:
                left_out.append((seen + place, "Its text is empty."))
                continue
            unseen.update(name for name in row["labels"] if name not in labels.ids)
            for name in row["labels"]:
                if name in labels.ids:
                    counts[labels.ids[name]] += 1
            data["input_ids"].append(ids)
            data["labels"].append(labels.ids_of(row["labels"]))
        seen += len(rows)
        if tell:
            tell(seen / max(total, 1), f"Reading the {part} rows")
    if not data["input_ids"]:
        raise DataError(
            f"Nothing can be learned from the {part} rows of {info.name}: "
            f"{left_out[0][1] if left_out else 'there are none.'}",
            "Look at the rows in Data.",
        )
    kind: Any = ListOf(Value("float32")) if labels.multi else Value("int64")
    features = Features({"input_ids": ListOf(Value("int32")), "labels": kind})
    lengths = [len(ids) for ids in data["input_ids"]]
    dataset = Dataset.from_dict(data, features=features)
    return LabelRows(Rows(part, dataset, lengths, left_out), counts, cut, dict(unseen))


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


def _batches(info: DatasetInfo, part: Part, limit: int | None) -> Iterator[list[dict[str, Any]]]:
    rows = (
        {"text": row.get("text") or "", "labels": list(row.get("labels") or ())}
        for batch in iter_rows(info.rows_path(part), columns=["text", "labels"])
        for row in batch
    )
    limited = islice(rows, limit)
    while batch := list(islice(limited, _AT_ONCE)):
        yield batch


def _cut(tokenizer: Any, texts: list[str], longest: int) -> int:
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


def _some(counts: dict[str, int]) -> list[tuple[str, int]]:
    return Counter(counts).most_common(_LISTED)
