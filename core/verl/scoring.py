"""How answers are rewarded on the cluster: by the run's own functions, exactly as here.

It travels with the job (see `job.carried`), so it stands on nothing but `core.rewards` and what
that needs; neither torch nor verl.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.rewards.build import reward_functions
from core.rewards.specs import parse_rewards
from core.workspace import Workspace


class Scorer:
    """The reward functions of a job folder: its rewards.json, and own ones from its rewards/."""

    def __init__(self, folder: Path) -> None:
        values = json.loads((folder / "rewards.json").read_text(encoding="utf-8"))
        self._specs = parse_rewards(values)
        self._functions = reward_functions(self._specs, Workspace(folder), None, "cpu")

    def __call__(
        self, solution_str: str, ground_truth: str | None, extra_info: dict[str, Any] | None
    ) -> dict[str, float]:
        """verl's result: `score` in all, and beside it what each function gave (0 where it does
        not apply)."""
        prompts = [json.loads((extra_info or {}).get("prompt") or "[]")]
        completions = [[{"role": "assistant", "content": solution_str}]]
        found: dict[str, float] = {"score": 0.0}
        for spec, function in zip(self._specs, self._functions, strict=True):
            value = function(prompts, completions, answer=[ground_truth or None])[0] or 0.0
            found["score"] += spec.weight * value
            found[spec.name] = value
        return found
