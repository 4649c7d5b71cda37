"""Learning from preferences: DPO, KTO, ORPO, CPO. Names are TRL's where it has them."""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob
from core.methods import named

PREFERRING: dict[str, list[Any]] = {"method": named(section="preference", writes=True)}
DPO: dict[str, list[Any]] = {"method": ["dpo"]}
KTO: dict[str, list[Any]] = {"method": ["kto"]}
CPO: dict[str, list[Any]] = {"method": ["cpo"]}
REFERRING: dict[str, list[Any]] = {"method": named(reference="asked")}

OF_THE_DIFFERENCE = ("sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sigmoid_norm")
"""Losses of DPO that see nothing but the difference between the two answers."""

OF_ANY_DISTANCE = (*OF_THE_DIFFERENCE, "sft")
"""Those that do not measure an answer by itself against the reference."""


class PreferenceSection(Section):
    """How better answers are told from worse ones."""

    beta: float = knob(0.1, "Beta", level="basic", when=PREFERRING, gt=0, le=100)
    """DPO and KTO: higher stays closer to the reference model. ORPO: weight of the preference
    beside learning the better answer. CPO: higher pulls the two answers apart more steeply."""

    loss_type: Literal[
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sft",
        "sigmoid_norm",
    ] = knob("sigmoid", "Loss of DPO", when=DPO)
    """Sigmoid is DPO as published. IPO overfits less on small sets, robust bears wrong labels,
    apo_zero also raises the better answer itself; sft learns it alone."""

    loss_weights: dict[str, Any] = knob({}, "Further losses of DPO", when=DPO)
    """Added to the loss with these weights, such as sft: 0.5, which keeps the better answer likely.
    Name the loss itself to weigh it too. Empty adds none."""

    kto_loss_type: Literal["kto", "apo_zero_unpaired"] = knob("kto", "Loss of KTO", when=KTO)
    """KTO as published measures how far the model has moved. apo_zero_unpaired leaves that out: it
    is faster, and suits good answers that are better than the model's own."""

    cpo_loss_type: Literal["sigmoid", "hinge", "ipo", "simpo", "alphapo"] = knob(
        "sigmoid", "Loss of CPO", when=CPO
    )
    """SimPO takes the mean over an answer's tokens, so that long ones have no advantage, and wants
    a margin; with a CPO alpha of 0 it is SimPO as published. AlphaPO also shapes the reward."""

    center_rewards_coefficient: float | None = knob(
        None, "Center the scores", when={"method": named(makes="scorer")}, gt=0, le=10
    )
    """Pulls the scores of a reward model towards 0, so that they can be compared across prompts;
    0.01 is a good beginning (Eisenstein et al. 2023). Empty leaves it out."""

    label_smoothing: float = knob(
        0.0, "Label smoothing", when={"method": ["dpo", "cpo"]}, ge=0, lt=0.5
    )
    """The share of pairs whose order is taken to be wrong. DPO has it with the losses robust and
    exo_pair, CPO with sigmoid, simpo and alphapo."""

    ref_model: str = knob(
        "base", "Reference model", when=REFERRING, pattern=r"^[a-z0-9][a-z0-9-]{0,79}$"
    )
    """What the model may not stray from: base (as it is before the training: the base model, or the
    run that this one starts from), none (DPO alone, without a reference), or the id of another
    run."""

    precompute_ref_log_probs: bool = knob(False, "Ask the reference beforehand", when=REFERRING)
    """The reference model judges all rows once before the training and then makes room. It needs a
    pass over the rows first; with full fine-tuning it halves the memory for the weights."""

    ld_alpha: float | None = knob(None, "Weight of the longer answer's rest", when=DPO, ge=0, le=1)
    """How much counts what the longer answer has beyond the shorter one's length (LD-DPO): below 1
    the model grows less wordy. Empty counts it whole."""

    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = (
        knob("reverse_kl", "Distance from the reference", when=DPO)
    )
    """How straying is measured. Others than reverse_kl keep more variety in the answers."""

    use_weighting: bool = knob(False, "Weigh pairs by likelihood", when=DPO)
    """Pairs that the model could have written itself count more (WPO)."""

    discopop_tau: float = knob(
        0.05,
        "DiscoPOP tau",
        when={**DPO, "preference.loss_type": ["discopop"]},
        gt=0,
        le=100,
    )
    """The temperature of the DiscoPOP loss; its authors advise 0.05."""

    desirable_weight: float = knob(1.0, "Weight of good answers", when=KTO, gt=0, le=1000)
    """With fewer good answers than bad ones, raise it until both sides weigh about the same."""

    undesirable_weight: float = knob(1.0, "Weight of bad answers", when=KTO, gt=0, le=1000)
    """With fewer bad answers than good ones, raise it until both sides weigh about the same."""

    cpo_alpha: float = knob(
        1.0,
        "CPO alpha",
        when={**CPO, "preference.cpo_loss_type": ["sigmoid", "hinge", "ipo", "simpo"]},
        ge=0,
        le=100,
    )
    """Weight of learning the better answer beside the preference. 0 leaves it out."""

    simpo_gamma: float = knob(
        0.5,
        "SimPO margin",
        when={**CPO, "preference.cpo_loss_type": ["simpo", "alphapo"]},
        ge=0,
        le=100,
    )
    """By how much the better answer's reward is to be higher."""

    alpha: float = knob(
        0.25,
        "AlphaPO alpha",
        when={**CPO, "preference.cpo_loss_type": ["alphapo"]},
        ge=-10,
        le=10,
    )
    """Shapes the reward (1 - p^-alpha) / alpha. 0 is SimPO; its authors advise 0.25."""


def dpo_losses(section: PreferenceSection) -> dict[str, float]:
    """Each loss of a DPO run with its weight, the chosen one first."""
    return {section.loss_type: 1.0, **section.loss_weights}
