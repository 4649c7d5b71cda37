"""The labels that a classifier gives, as they are written beside its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.language import _
from core.methods import METHODS
from core.workspace import write_atomic

FILE = "label_mapping.json"
UNKNOWN = -100
"""The id of a label that training never saw: the loss passes over it, and it counts as wrong."""

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


@dataclass(frozen=True)
class Labels:
    """The names of the labels by id. With `multi` a text may have any number of them: each is
    given from the probability `threshold` on."""

    names: tuple[str, ...]
    multi: bool = False
    threshold: float = 0.5

    @property
    def problem_type(self) -> str:
        """transformers' name for it."""
        return MULTI if self.multi else SINGLE

    @property
    def ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def ids_of(self, names: Sequence[str]) -> Any:
        """What a trainer is given of a row's labels: one id, or with several labels a 0 or 1 for
        each label and one place more: UNKNOWN, or 1 when one was never seen in training."""
        if not self.multi:
            return self.ids.get(names[0], UNKNOWN) if names else UNKNOWN
        known = [float(name in names) for name in self.names]
        return [*known, 1.0 if set(names) - set(self.names) else float(UNKNOWN)]

    def model_config(self) -> dict[str, Any]:
        """What a model's config says of its labels."""
        return {
            "num_labels": len(self.names),
            "id2label": dict(enumerate(self.names)),
            "label2id": self.ids,
            "problem_type": self.problem_type,
        }

    def save(self, folder: Path) -> None:
        """Writes label_mapping.json."""
        mapping = {
            "id2label": {str(number): name for number, name in enumerate(self.names)},
            "label2id": self.ids,
            "problem_type": self.problem_type,
            "threshold": self.threshold,
        }
        text = json.dumps(mapping, ensure_ascii=False, indent=2)
        write_atomic(folder / FILE, text + "\n")


@dataclass(frozen=True)
class ScoreHead(Labels):
    """What a reward model has in place of labels: one number, unbounded, for a whole text."""

    names: tuple[str, ...] = ("reward",)

    def model_config(self) -> dict[str, Any]:
        return {
            "num_labels": 1,
            "id2label": {0: "reward"},
            "label2id": {"reward": 0},
            "problem_type": "regression",
        }

    def save(self, folder: Path) -> None:
        """Nothing: the model's config says all."""


def labels_of(method: str, folder: Path) -> Labels | None:
    """What a model of this method says of a text; None when it writes. Raises ModelError."""
    makes = METHODS[method].makes
    if makes == "scorer":
        return ScoreHead()
    return read_labels(folder) if makes == "classifier" else None


def read_labels(folder: Path) -> Labels:
    """The labels of an adapter, a model or a checkpoint. Raises ModelError without them."""
    try:
        mapping = json.loads((folder / FILE).read_text(encoding="utf-8"))
        by_id = {int(number): str(name) for number, name in mapping["id2label"].items()}
        names = tuple(by_id[number] for number in range(len(by_id)))
        return Labels(names, mapping["problem_type"] == MULTI, float(mapping["threshold"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            _(
                "The labels of {name} cannot be read: {file} is missing or damaged.",
                name=folder.name,
                file=FILE,
            ),
            _("Choose another checkpoint, or train the run again."),
        ) from error
