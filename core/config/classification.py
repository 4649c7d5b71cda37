"""Classification: how labels are learned. Names are transformers' where it has them."""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob
from core.methods import named

CLASSIFYING: dict[str, list[Any]] = {"method": named(makes="classifier")}


class ClassificationSection(Section):
    """How labels are learned."""

    problem_type: Literal[
        "auto", "single_label_classification", "multi_label_classification"
    ] = knob("auto", "Labels of a row", when=CLASSIFYING)
    """Single takes the most probable label, multi any number of them. Auto is multi when any row
    has not exactly one label."""

    threshold: float = knob(0.5, "Multi-label threshold", when=CLASSIFYING, gt=0, lt=1)
    """With several labels a row, one is given from this probability on. Lower finds more and errs
    more."""

    class_weights: Literal["none", "balanced", "own"] = knob(
        "none", "Class weights", level="basic", when=CLASSIFYING
    )
    """Balanced makes rare labels count as much as frequent ones; own takes your weights."""

    own_weights: dict[str, Any] = knob(
        {}, "Own weights", when={**CLASSIFYING, "classification.class_weights": ["own"]}
    )
    """A weight for a label by its name, such as spam=2. Labels that are not named count 1."""

    loss: Literal["cross_entropy", "focal"] = knob("cross_entropy", "Loss", when=CLASSIFYING)
    """Focal gives rows that the model already knows less weight, so that hard and rare ones decide
    (Lin et al. 2017)."""

    focal_gamma: float = knob(
        2.0,
        "Focal gamma",
        when={**CLASSIFYING, "classification.loss": ["focal"]},
        ge=0,
        le=10,
    )
    """Higher looks more at the hard rows; 0 is cross entropy."""

    quick: bool = knob(False, "Quick trial", level="basic", when=CLASSIFYING)
    """One epoch in small batches and without evaluation, to see within minutes whether it runs."""
