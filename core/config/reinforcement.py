"""Learning from rewards: GRPO and RLOO. Names are TRL's where it has them."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import field_validator

from core.config.fields import Section, knob
from core.language import _
from core.methods import named

REWARDED: dict[str, list[Any]] = {"method": named(generates=True)}
GRPO: dict[str, list[Any]] = {"method": ["grpo"]}
RLOO: dict[str, list[Any]] = {"method": ["rloo"]}

_CLIPPED = ["grpo", "dapo", "dr_grpo", "bnpo", "luspo", "cispo"]
"""Losses of GRPO that hold a step back by its ratio."""


class ReinforcementSection(Section):
    """How the model writes answers of its own, and how the rewarded ones are learned."""

    rewards: list[dict[str, Any]] = knob([], "Reward functions", level="basic", when=REWARDED)
    """What an answer is rewarded for. The rewards are added up, each times its weight."""

    num_generations: int = knob(8, "Answers to each prompt", when=REWARDED, ge=2, le=1024)
    """They are compared with each other: more tell a good answer from a lucky one and take longer.
    A step's answers (batch size times accumulation) must be a multiple of it."""

    max_completion_length: int = knob(
        256, "Longest answer", level="basic", when=REWARDED, unit="tokens", ge=1, le=131072
    )
    """An answer is cut here, and writing takes most of the time. The prompt may have
    training.max_length tokens besides."""

    kl_beta: float = knob(0.0, "KL coefficient (beta)", when=REWARDED, ge=0, le=10)
    """Holds the model close to what it was: higher changes it less. 0 asks no reference model,
    which is faster; RLOO as published takes 0.05."""

    temperature: float = knob(1.0, "Temperature", group="Writing", when=REWARDED, gt=0, le=5)
    """Higher writes answers that differ more, so that there is something to compare."""

    top_p: float = knob(1.0, "Top p", group="Writing", when=REWARDED, gt=0, le=1)
    """Below 1 the least likely words are never written."""

    top_k: int = knob(0, "Top k", group="Writing", when=REWARDED, ge=0)
    """Writes one of so many likeliest tokens only. 0 allows all."""

    grpo_loss_type: Literal[
        "dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"
    ] = knob("dapo", "Loss of GRPO", when=GRPO)
    """Grpo as published weighs each answer alike and so prefers short right and long wrong ones;
    dapo, dr_grpo and bnpo weigh each token. Cispo, sapo and vespo replace the clipping; luspo
    wants ratios of whole answers."""

    scale_rewards: Literal["group", "batch", "none"] = knob("group", "Scale rewards by", when=GRPO)
    """Divides rewards by how much they differ among the answers to a prompt, or in the batch. None
    leaves easy and hard prompts their weight (Dr. GRPO)."""

    importance_sampling_level: Literal["token", "sequence"] = knob(
        "token", "Ratios of", when={**GRPO, "reinforcement.grpo_loss_type": [*_CLIPPED, "sapo"]}
    )
    """How far the model has moved since it wrote an answer, by each token or by the whole answer.
    Sequence with the loss grpo is GSPO."""

    epsilon: float = knob(0.2, "Clip at (epsilon)", when=REWARDED, gt=0, lt=1)
    """How far a probability may move on one set of answers. It has an effect once answers are used
    for more than one step."""

    epsilon_high: float | None = knob(None, "Clip upwards at", when=REWARDED, gt=0, le=10)
    """Another bound for answers that get likelier: 0.28 keeps rare good words (DAPO), 5 suits
    cispo. Empty is the same as downwards."""

    num_iterations: int = knob(1, "Use each set of answers", when=REWARDED, unit="times", ge=1)
    """More learns more from the same answers, which take the time, and is less steady."""

    steps_per_generation: int | None = knob(None, "Batches written at once", when=REWARDED, ge=1)
    """Empty writes the answers of one step. More write faster on a GPU, and later steps learn from
    answers that are a little old."""

    mask_truncated_completions: bool = knob(False, "Leave out cut answers", when=REWARDED)
    """An answer that reaches the longest length teaches nothing. Off, it counts as it is rewarded,
    so that the model learns to end in time."""

    normalize_advantages: bool = knob(False, "Normalize over the batch", when=RLOO)
    """Evens out steps whose rewards differ much."""

    num_generations_eval: int = knob(
        1,
        "Answers to each prompt in evaluation",
        when={**REWARDED, "evaluation.eval_strategy": ["steps", "epoch"]},
        ge=1,
        le=1024,
    )
    """More measure the mean reward more exactly and take longer."""

    @field_validator("rewards", mode="before")
    @classmethod
    def _named_or_written_out(cls, value: Any) -> Any:
        """A function may stand as its kind alone, or as JSON text, where only text can be given."""
        return [_reward(item) for item in value] if isinstance(value, list) else value


def _reward(item: Any) -> Any:
    if not isinstance(item, str):
        return item
    if not item.lstrip().startswith("{"):
        return {"kind": item.strip()}
    try:
        return json.loads(item)
    except ValueError as error:
        raise ValueError(_("is not JSON: {reason}", reason=str(error))) from error
