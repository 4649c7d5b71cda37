"""The loss of a classifier: cross entropy, weighted by label or focal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from core.config.classification import ClassificationSection
from core.errors import ConfigError, Problem
from core.models.labels import UNKNOWN, Labels


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
            f"no train row has the label {', '.join(unknown)}. There are: "
            f"{', '.join(labels.names[:20])}.",
        )
        raise ConfigError([problem])
    return [float(section.own_weights.get(name, 1.0)) for name in labels.names]


class LabelLoss:
    """Called by the trainer with the model's output and the labels of `label_rows`.

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
