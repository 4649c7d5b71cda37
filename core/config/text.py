"""Learning from plain text: continued pre-training (cpt) and masked language modelling (mlm)."""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob
from core.methods import named

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
