"""A reward function tried on one answer, before a run is started with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.rewards.build import reward_functions
from core.rewards.kinds import KINDS
from core.rewards.specs import option_specs, parse_rewards
from core.workspace import Workspace


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
        from core.models.inference import open_tokenizer, resolve_base

        tokenizer = open_tokenizer(resolve_base(tokenizer_of, workspace))
    if spec.kind == "reward_model":
        from core.models.inference import pick_device

        device = pick_device()
    (function,) = reward_functions([spec], workspace, tokenizer, device)
    (reward,) = function(
        [[{"role": "user", "content": prompt}]],
        [[{"role": "assistant", "content": completion}]],
        answer=[answer or None],
    )
    weighted = None if reward is None else reward * spec.weight
    return {"name": spec.name, "reward": reward, "weighted": weighted}


def catalogue() -> list[dict[str, Any]]:
    """Every kind with its title, sentence and options, for a list."""
    return [
        {
            "kind": kind,
            "title": section.title,
            "sentence": section.sentence(),
            "needs_answer": section.needs_answer,
            "options": [
                {
                    "name": spec.path,
                    "allowed": spec.allowed,
                    "default": spec.default,
                    "help": spec.help,
                }
                for spec in option_specs(kind)
            ],
        }
        for kind, section in KINDS.items()
    ]
