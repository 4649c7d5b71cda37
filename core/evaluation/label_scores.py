"""How well labels were given: accuracy, precision, recall and F1, by label, and what was taken for
what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evaluation.intervals import Estimate
from core.models.labels import Labels

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

_RESAMPLES, _AT_ONCE, _SEED = 1000, 50, 20240


@dataclass(frozen=True)
class Truth:
    """The labels that rows have: (rows, labels), and which rows carry one that training never saw
    and so can never be given right: (rows,)."""

    flags: Flags
    unseen: Flags


def truth_of(label_ids: Any, labels: Labels) -> Truth:
    """From the label ids of `core.worker.training.classification`."""
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
    occur in these rows or were given; weighted: by their rows."""
    found = {"accuracy": float(right_rows(given, truth).mean())}
    occur = (truth.flags.any(axis=0) | given.any(axis=0)).astype(float)
    weights = {"macro": occur, "weighted": truth.flags.sum(axis=0).astype(float)}
    for name, values in zip(("precision", "recall", "f1"), _scores(given, truth), strict=True):
        for average, weight in weights.items():
            found[f"{name}_{average}"] = float(_share(values @ weight, weight.sum()))
    return found


def by_label(given: Flags, truth: Truth, labels: Labels) -> list[dict[str, Any]]:
    """For each label its name, precision, recall, f1, rows that have it and rows given it."""
    precision, recall, f1 = _scores(given, truth)
    return [
        {
            "label": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "rows": int(truth.flags[:, i].sum()),
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
        return Estimate(value)
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


def _scores(given: Flags, truth: Truth) -> tuple[Array, Array, Array]:
    """(precision, recall, F1) of each label."""
    hits = (given & truth.flags).sum(axis=0)
    said, wanted = given.sum(axis=0), truth.flags.sum(axis=0)
    return _share(hits, said), _share(hits, wanted), _share(2 * hits, said + wanted)


def _share(part: Any, whole: Any) -> Any:
    """part / whole, where 0 / 0 counts 0."""
    return np.asarray(part) / np.maximum(whole, 1)
