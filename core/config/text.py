"""Learning from plain text: continued pre-training (cpt) and masked language modelling (mlm)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from core.config.fields import Section, knob
from core.errors import Problem

if TYPE_CHECKING:
    from core.config.run import RunConfig

METHODS = ("cpt", "mlm")
"""The methods of this section."""

CPT: dict[str, list[Any]] = {"method": ["cpt"]}
MLM: dict[str, list[Any]] = {"method": ["mlm"]}


class TextSection(Section):
    """How plain text is learned."""

    documents: Literal["auto", "apart", "joined"] = knob("auto", "Documents in one block", when=CPT)
    """Texts are joined and cut into full blocks. Apart, none sees the one before it; joined, it
    does, as in most pre-training. Auto keeps them apart where the model's attention can."""

    mlm_probability: float = knob(
        0.15, "Share of tokens to hide", level="basic", when=MLM, gt=0, lt=1
    )
    """The model learns to guess so many of the tokens from the others. 0.15 is BERT's, 0.3 is
    ModernBERT's."""

    whole_word_mask: bool = knob(False, "Hide whole words", when=MLM)
    """Hides all pieces of a word together, which is harder to guess than one of them."""


def text_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules that a run which learns from plain text has to keep; none for other methods."""
    method: str = config.method
    if method not in METHODS:
        return
    if config.training.packing:
        why = (
            "its blocks are full anyway"
            if method == "cpt"
            else "an encoder reads each text in a row of its own"
        )
        yield Problem(
            "training.packing", f"on with method {method}: {why}. Turn it off.", ("method",)
        )
    best = config.evaluation.metric_for_best_model
    if best.endswith("perplexity") and config.evaluation.greater_is_better:
        yield Problem(
            "evaluation.greater_is_better",
            f"on with evaluation.metric_for_best_model {best}: the worst checkpoint would count "
            "as the best. Turn it off for a perplexity.",
            ("evaluation.metric_for_best_model",),
        )
    if method == "mlm" and config.training.neftune_noise_alpha is not None:
        yield Problem(
            "training.neftune_noise_alpha",
            "with method mlm: it is meant for models that write. Leave it empty.",
            ("method",),
        )
