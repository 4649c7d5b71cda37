"""How well labels were given: accuracy, precision, recall and F1, by label, and what was taken for
what. By scikit-learn; only workers import this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from core.evaluation.intervals import Estimate
from core.models.labels import Labels

Flags = NDArray[np.bool_]

_RESAMPLES, _AT_ONCE, _SEED = 1000, 50, 20240


@dataclass(frozen=True)
class Truth:
    """The labels that rows have: (rows, labels), and which rows carry one that training never saw
    and so can never be given right: (rows,)."""

    flags: Flags
    unseen: Flags


def truth_of(label_ids: Any, labels: Labels) -> Truth:
    """From the label ids of `core.training.label_rows`."""
    ids = np.asarray(label_ids)
    if labels.multi:
        return Truth(ids[:, :-1] > 0.5, ids[:, -1] > 0)
    flags = np.zeros((len(ids), len(labels.names)), dtype=bool)
    known = ids >= 0
    flags[np.flatnonzero(known), ids[known]] = True
    return Truth(flags, ~known)


def right_rows(given: Flags, truth: Truth) -> Flags:
    """The rows that were given exactly their labels."""
    right: Flags = (given == truth.flags).all(axis=1) & ~truth.unseen
    return right


def means(given: Flags, truth: Truth) -> dict[str, float]:
    """The numbers that core.methods declares for a classifier. Macro: the mean over the labels that
    occur in these rows or were given; weighted: by their rows. 0 / 0 counts 0."""
    found = {"accuracy": float(right_rows(given, truth).mean())}
    for average in ("macro", "weighted"):
        numbers = _by_label(given, truth, average)
        for name, value in zip(("precision", "recall", "f1"), numbers, strict=False):
            found[f"{name}_{average}"] = float(value)
    return found


def by_label(given: Flags, truth: Truth, labels: Labels) -> list[dict[str, Any]]:
    """For each label its name, precision, recall, f1, rows that have it and rows given it."""
    precision, recall, f1, support = _by_label(given, truth, None)
    return [
        {
            "label": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "rows": int(support[i]),
            "given": int(given[:, i].sum()),
        }
        for i, name in enumerate(labels.names)
    ]


def confusion(given: Flags, truth: Truth, labels: Labels) -> list[list[int]] | None:
    """How often each label (row) was taken for each (column); None with several labels a text.

    Rows of labels that training never saw are in no row of it.
    """
    if labels.multi:
        return None
    known = ~truth.unseen
    counts = truth.flags[known].astype(np.int64).T @ given[known].astype(np.int64)
    return [[int(cell) for cell in row] for row in counts]


def macro_f1(given: Flags, truth: Truth) -> Estimate:
    """Macro F1 with a 95 % bootstrap interval (Efron 1979, percentiles) over rows."""
    value = means(given, truth)["f1_macro"]
    rows, labels = given.shape
    if rows < 2:
        return Estimate(value, None, None)
    # Rows that are alike are drawn together: only how often each kind comes up matters.
    kinds, counts = np.unique(np.hstack([given, truth.flags]), axis=0, return_counts=True)
    said, wanted = kinds[:, :labels], kinds[:, labels:]
    hit = (said & wanted).astype(np.float64)
    both = said.astype(np.float64) + wanted.astype(np.float64)
    random = np.random.default_rng(_SEED)
    values = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        drawn = random.multinomial(rows, counts / rows, size=_AT_ONCE)
        hits, total = drawn @ hit, drawn @ both
        # A label that no drawn row has and none was given tells nothing: it is left out.
        f1 = np.divide(2 * hits, total, out=np.full_like(hits, np.nan), where=total > 0)
        values.append(np.nanmean(f1, axis=1))
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return Estimate(value, float(min(low, value)), float(max(high, value)))


def _by_label(given: Flags, truth: Truth, average: str | None) -> Any:
    """(precision, recall, F1, rows): of each label, or their mean over those that occur."""
    occur = truth.flags.any(axis=0) | given.any(axis=0)
    names: list[int] | None = None
    if given.shape[1] == 1:  # scikit-learn takes one column for the classes 0 and 1
        wanted, said, names = truth.flags[:, 0].astype(int), given[:, 0].astype(int), [1]
    else:
        wanted, said = truth.flags.astype(int), given.astype(int)
        if average and occur.any():
            names = np.flatnonzero(occur).tolist()
    return precision_recall_fscore_support(
        wanted, said, labels=names, average=average, zero_division=0
    )
