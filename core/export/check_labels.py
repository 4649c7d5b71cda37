"""Whether an exported classifier gives the labels of the trained one: their scores compared.

The distance of two models is the root mean square of the difference of their scores, relative to
that of the trained model's. Imports torch: only workers use it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import ExportError
from core.export.check import SAME, TOLERANCE, Check
from core.models.classifier import given, probabilities
from core.models.labels import Labels, read_labels


def check_learned(base: Any, trained: Any) -> Check:
    """That training changed the scores. Raises ExportError when it did not."""
    apart = _distance(base, trained)
    if not apart > SAME:
        raise ExportError(
            "The trained model scores exactly as it did before: there is nothing to export.",
            "Look at the run's loss; train longer or with a higher learning rate.",
        )
    return Check("Differs from its beginning", True, f"scores {100 * apart:.2g} % apart")


def check_scores(exported: Any, trained: Any, labels: Labels, dtype: Any) -> list[Check]:
    """That the exported model scores as the trained one and gives the same labels. Raises
    ExportError if not. `dtype` is the type of the exported weights; scores are (rows, labels)."""
    scored = check_distance(exported, trained, dtype)
    said, wanted = (given(probabilities(one, labels), labels) for one in (exported, trained))
    same = int((said == wanted).all(dim=1).sum())
    return [
        scored,
        Check("Gives the same labels", same == len(said), f"to {same} of {len(said)} texts"),
    ]


def check_distance(exported: Any, trained: Any, dtype: Any) -> Check:
    """That two models' scores differ by no more than the type of the weights rounds. Raises
    ExportError if they do."""
    apart, allowed = _distance(exported, trained), TOLERANCE[dtype]
    kind = str(dtype).removeprefix("torch.")
    if not apart <= allowed:
        raise ExportError(
            "The exported model does not score as the trained one: its scores are "
            f"{100 * apart:.2g} % off, where {kind} allows {100 * allowed:.2g} %.",
            "Export as float32, or export the adapter.",
        )
    return Check(
        "Scores as the trained model",
        True,
        f"scores {100 * apart:.2g} % apart, where {kind} allows {100 * allowed:.2g} %",
    )


def check_names(folder: Path, labels: Labels, *, merged: bool) -> Check:
    """That the labels stand beside the weights, and in the config of a whole model."""
    found = read_labels(folder)
    names = dict(enumerate(labels.names))
    config = names
    if merged:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = {int(number): name for number, name in written.get("id2label", {}).items()}
    if found.names != labels.names or config != names:
        raise ExportError("The export has lost its labels.", "Export it again, or report this.")
    return Check("Knows its labels", True, f"{len(names)} of them, by name")


def _distance(scores: Any, reference: Any) -> float:
    return float((scores - reference).pow(2).mean().sqrt() / reference.pow(2).mean().sqrt())
