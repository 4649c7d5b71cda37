"""How far a classifier's probabilities can be believed, and what other thresholds would give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from core.evaluation.label_scores import Flags, Truth, right_rows

Array = NDArray[np.float64]

_BINS = 10
_POINTS = 60  # of a curve, evenly over its length


class Bin(BaseModel):
    """Rows of which a classifier is about as sure: the mean of its probabilities, and the share
    that is right."""

    rows: int
    sureness: float
    right: float


class Threshold(BaseModel):
    """What the second of two labels gets when it is given from this probability on."""

    threshold: float
    precision: float
    recall: float
    f1: float
    accuracy: float


class LabelCurves(BaseModel):
    """Of two labels: (false, true) positive rates, (recall, precision), and thresholds."""

    roc: list[tuple[float, float]]
    precision_recall: list[tuple[float, float]]
    thresholds: list[Threshold]


def bins(given: Flags, chances: Array, truth: Truth) -> list[Bin]:
    """Rows by how sure the classifier is of what it says (Guo et al. 2017): the mean of its
    probabilities and the share that is right, of ten equal ranges those that have rows. With
    several labels a text, each label of each row counts."""
    if truth.flags.shape == given.shape and (given.sum(axis=1) != 1).any():
        sure = np.where(given, chances, 1 - chances).ravel()
        right = (given == truth.flags).ravel()
    else:
        sure, right = chances.max(axis=1), right_rows(given, truth)
    places = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    found = []
    for place in range(_BINS):
        inside = places == place
        if inside.any():
            found.append(
                Bin(
                    rows=int(inside.sum()),
                    sureness=float(sure[inside].mean()),
                    right=float(right[inside].mean()),
                )
            )
    return found


def calibration_error(found: list[Bin]) -> float:
    """The expected calibration error: the mean distance of both, by rows."""
    total = sum(one.rows for one in found)
    return sum(one.rows * abs(one.sureness - one.right) for one in found) / total


def two_class_scores(chances: Array, truth: Truth) -> tuple[Array, NDArray[np.bool_]] | None:
    """(the probability of the second label, whether it is the right one) of the rows whose label
    is known; None where there are not two labels with rows of both."""
    known = ~truth.unseen
    if chances.shape[1] != 2 or not truth.flags[known].any(axis=0).all():
        return None
    return chances[known, 1], truth.flags[known, 1]


def curves(chances: Array, truth: Truth) -> LabelCurves | None:
    """ROC, precision and recall, and what each threshold gives, of two labels a text."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    two = two_class_scores(chances, truth)
    if two is None:
        return None
    scores, right = two
    false, true, _limits = roc_curve(right, scores)
    precision, recall, _limits = precision_recall_curve(right, scores)
    return LabelCurves(
        roc=_points(false, true),
        precision_recall=_points(recall, precision),
        thresholds=[_at(limit, scores, right) for limit in np.linspace(0.05, 0.95, 19)],
    )


def _at(limit: float, scores: Array, right: NDArray[np.bool_]) -> Threshold:
    said = scores >= limit
    hits = int((said & right).sum())
    precision, recall = hits / max(1, int(said.sum())), hits / max(1, int(right.sum()))
    return Threshold(
        threshold=round(float(limit), 2),
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / ((precision + recall) or 1),
        accuracy=float((said == right).mean()),
    )


def _points(across: Any, up: Any) -> list[tuple[float, float]]:
    places = np.unique(np.linspace(0, len(across) - 1, min(len(across), _POINTS)).astype(int))
    return [(round(float(across[i]), 4), round(float(up[i]), 4)) for i in places]
