"""Learning from plain text: continued pre-training (cpt) and masked language modelling (mlm)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from core.config.fields import Section, knob
from core.errors import Problem
from core.methods import named

if TYPE_CHECKING:
    from core.config.run import RunConfig

CPT: dict[str, list[Any]] = {"method": named(fills_blocks=True)}
MLM: dict[str, list[Any]] = {"method": named(makes="filler")}


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
    fills_gaps = config.training_method.makes == "filler"
    if fills_gaps and config.training.neftune_noise_alpha is not None:
        yield Problem(
            "training.neftune_noise_alpha",
            f"with method {config.method}: it is meant for models that write. Leave it empty.",
            ("method",),
        )
