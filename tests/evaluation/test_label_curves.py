"""A classifier's curves, against what scikit-learn and the definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from core.evaluation.label_curves import bins, calibration_error, curves
from core.evaluation.label_scores import Truth
from core.evaluation.metrics import Labelled, numbers_of


def labelled(rows: int = 400, sure: float = 1.0) -> Labelled:
    """Two labels, given with probabilities that are right; `sure` above 1 makes them too bold."""
    random = np.random.default_rng(3)
    chance = random.uniform(0.02, 0.98, rows)
    right = random.uniform(size=rows) < chance
    told = 1 / (1 + np.exp(-sure * np.log(chance / (1 - chance))))
    chances = np.stack([1 - told, told], axis=1)
    flags = np.stack([~right, right], axis=1)
    return Labelled(
        chances == chances.max(axis=1, keepdims=True),
        Truth(flags, np.zeros(rows, dtype=bool)),
        chances,
    )


def test_probabilities_that_hold_are_told_from_bold_ones() -> None:
    honest, bold = (
        calibration_error(bins(one.given, one.chances, one.truth))
        for one in (labelled(2000), labelled(2000, 5.0))
    )
    assert honest < 0.04 < 0.1 < bold


def test_bins_are_counted() -> None:
    one = labelled()
    found = bins(one.given, one.chances, one.truth)
    assert sum(one.rows for one in found) == 400
    assert all(0.5 <= one.sureness <= 1 and 0 <= one.right <= 1 for one in found)
    assert [one.sureness for one in found] == sorted(one.sureness for one in found)


def test_areas_are_those_of_scikit_learn() -> None:
    one = labelled()
    found = numbers_of(one)
    right = one.truth.flags[:, 1]
    assert found["roc_auc"].value == pytest.approx(roc_auc_score(right, one.chances[:, 1]))
    known = average_precision_score(right, one.chances[:, 1])
    assert found["average_precision"].value == pytest.approx(known)


def test_curves_begin_and_end_where_they_should() -> None:
    one = labelled()
    found = curves(one.chances, one.truth)
    assert found is not None
    assert (found.roc[0], found.roc[-1]) == ((0, 0), (1, 1)) and len(found.roc) <= 60
    limits = [row.threshold for row in found.thresholds]
    recall = [row.recall for row in found.thresholds]
    assert limits == sorted(limits) and recall == sorted(recall, reverse=True)


@pytest.mark.parametrize("truth", [[0, 0, 0], [1, 1, 1]])
def test_one_label_alone_has_no_curve(truth: list[int]) -> None:
    flags = np.eye(2, dtype=bool)[truth]
    chances = np.array([[0.4, 0.6], [0.7, 0.3], [0.5, 0.5]])
    one = Labelled(np.eye(2, dtype=bool)[[1, 0, 0]], Truth(flags, np.zeros(3, bool)), chances)
    assert curves(chances, one.truth) is None
    assert "roc_auc" not in numbers_of(one) and "ece" in numbers_of(one)


def test_a_label_that_training_never_saw_breaks_nothing() -> None:
    one = labelled(20)
    unseen = np.zeros(20, dtype=bool)
    unseen[3] = True
    flags = one.truth.flags.copy()
    flags[3] = False
    truth = Truth(flags, unseen)
    assert curves(one.chances, truth) is not None
    assert sum(one.rows for one in bins(one.given, one.chances, truth)) == 20
