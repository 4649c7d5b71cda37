"""Reward functions that need a model: a trained reward model as one, and any of them tried on one
answer before a run is started with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.rewards.build import reward_functions
from core.rewards.kinds import RewardModel
from core.rewards.own import Batch
from core.rewards.specs import parse_rewards
from core.worker.models.loading import open_tokenizer, pick_device, resolve_base
from core.worker.models.scores import find_scorer, turns
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


def try_reward(
    workspace_root: Path,
    value: Mapping[str, Any],
    prompt: str,
    completion: str,
    answer: str | None = None,
    tokenizer_of: str = "",
) -> dict[str, Any]:
    """{"name", "reward", "weighted"}: what the function of a config's entry gives an answer; None
    where it does not apply. `tokenizer_of`: the model that tokens are counted for.

    Runs the owner's code, loads models, asks an endpoint, as the function needs: call it in a
    process of its own. Raises a TunesmithError.
    """
    workspace = Workspace.open(workspace_root)
    (spec,) = parse_rewards([{**value, "weight": value.get("weight") or 1.0}])
    tokenizer, device = None, "cpu"
    if tokenizer_of and getattr(spec.options, "unit", "") == "tokens":
        tokenizer = open_tokenizer(resolve_base(tokenizer_of, workspace))
    if spec.kind == "reward_model":
        device = pick_device()
    (function,) = reward_functions([spec], workspace, tokenizer, device, reward_model)
    (reward,) = function(
        [[{"role": "user", "content": prompt}]],
        [[{"role": "assistant", "content": completion}]],
        answer=[answer or None],
    )
    weighted = None if reward is None else reward * spec.weight
    return {"name": spec.name, "reward": reward, "weighted": weighted}
