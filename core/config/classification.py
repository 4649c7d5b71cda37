"""Classification: how labels are learned. Names are transformers' where it has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from core.config.fields import Section, knob
from core.errors import Problem
from core.methods import named

if TYPE_CHECKING:
    from core.config.run import RunConfig

CLASSIFYING: dict[str, list[Any]] = {"method": named(makes="classifier")}

_QUICK_BATCH = 8


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


def quick_settings(config: RunConfig) -> dict[str, Any]:
    """What a quick trial changes, by dotted path; empty without one. No rule is broken by it."""
    if config.training_method.makes != "classifier" or not config.classification.quick:
        return {}
    batch = config.training.per_device_train_batch_size
    wanted: dict[str, Any] = {
        "training.num_train_epochs": min(1.0, config.training.num_train_epochs),
        "training.per_device_train_batch_size": batch
        if isinstance(batch, int) and batch < _QUICK_BATCH
        else _QUICK_BATCH,
        "training.gradient_accumulation_steps": 1,
        "evaluation.eval_strategy": "no",
        "evaluation.load_best_model_at_end": False,
        "evaluation.early_stopping_patience": None,
    }
    if config.training.lr_scheduler_type == "reduce_lr_on_plateau":  # it needs evaluations
        wanted["training.lr_scheduler_type"] = "constant"
    values = config.values()
    return {path: value for path, value in wanted.items() if values[path] != value}


def as_run(config: RunConfig) -> RunConfig:
    """The config as the run will take it: with what a quick trial changes."""
    changed = config.model_copy(deep=True)
    for path, value in quick_settings(config).items():
        section, _, name = path.partition(".")
        # At once: each alone could break a bound that all together keep.
        setattr(getattr(changed, section), name, value)
    return changed


def classification_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules that a run which learns labels has to keep; none for another method."""
    if config.training_method.makes == "classifier":
        yield from _weight_rules(config.classification)


def _weight_rules(section: ClassificationSection) -> Iterator[Problem]:
    if section.class_weights != "own":
        return
    if not section.own_weights:
        yield Problem(
            "classification.own_weights",
            "empty with classification.class_weights own. Give a weight, such as spam=2, or take "
            "balanced.",
            ("classification.class_weights",),
        )
    wrong = [
        name
        for name, weight in section.own_weights.items()
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0
    ]
    if wrong:
        yield Problem(
            "classification.own_weights",
            f"the weight of {', '.join(wrong)} must be a number above 0.",
            ("classification.class_weights",),
        )
