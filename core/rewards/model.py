"""A trained reward model as a reward function. Imports torch: only workers use it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from core.models.scores import find_scorer, turns
from core.rewards.kinds import RewardModel
from core.rewards.own import Batch
from core.workspace import Workspace


def reward_model(options: RewardModel, workspace: Workspace, device: str) -> Batch:
    """Loads the model, frozen and in evaluation mode. Raises ModelError."""
    scorer = find_scorer(options.model, workspace, device=device, max_length=options.max_length)
    scorer.model.requires_grad_(False)

    def batch(prompts: Sequence[Any], completions: Sequence[Any], _: dict[str, Any]) -> list[Any]:
        found: list[float] = []
        for begin in range(0, len(prompts), options.batch_size):
            some = slice(begin, begin + options.batch_size)
            asked = [
                (turns(prompt, "user"), turns(completion, "assistant"))
                for prompt, completion in zip(prompts[some], completions[some], strict=True)
            ]
            found += scorer.scores(asked)
        if options.scale == "sigmoid":
            return [1 / (1 + math.exp(-max(min(score, 500.0), -500.0))) for score in found]
        return found

    return batch
