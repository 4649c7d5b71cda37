"""Answers that were rewarded while a model learned from rewards, to read: how they were at first
and how they are now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.jobs.events import Event
from webui import messages

LATEST = 3
"""Beside the first step, so many of the last ones are shown."""


@dataclass(frozen=True)
class Completion:
    """An answer with its reward in all and by function (None where one does not apply)."""

    text: str
    reward: float
    rewards: dict[str, float | None]


@dataclass
class Rollout:
    """Some of the answers to one prompt that were written at a step, the best first."""

    step: int
    prompt: Sequence[dict[str, Any]]
    expected: str | None
    completions: list[Completion] = field(default_factory=list)


class Rollouts:
    """Those of a run by step: the first and the latest."""

    def __init__(self) -> None:
        self._of_step: dict[int, Rollout] = {}

    def take(self, event: Event) -> None:
        """Takes a `sample` event with rewards in."""
        step = int(event.get("step", 0))
        if event.get("index", 0) == 0 or step not in self._of_step:
            self.take_back(step - 1)
            self._of_step[step] = Rollout(step, event.get("prompt") or [], event.get("expected"))
            for old in list(self._of_step)[1:-LATEST]:
                del self._of_step[old]
        self._of_step[step].completions.append(
            Completion(
                str(event.get("answer", "")),
                float(event.get("reward", 0.0)),
                dict(event.get("rewards") or {}),
            )
        )

    def take_back(self, after: int) -> None:
        """Forgets what came after a step: a resumed run does it again."""
        self._of_step = {step: one for step, one in self._of_step.items() if step <= after}

    def shown(self) -> list[Rollout]:
        """The latest first, and last how it began."""
        return [self._of_step[step] for step in sorted(self._of_step, reverse=True)]


def completions(rollouts: Rollouts) -> str:
    """A card for each step, with the answers and what each function gave them."""
    shown = rollouts.shown()
    if not shown:
        return ""
    cards = "".join(_card(rollout) for rollout in shown)
    return f'<h3 class="section">Rewarded answers</h3><div class="samples">{cards}</div>'


def _card(rollout: Rollout) -> str:
    turns = [str(turn.get("content", "")) for turn in rollout.prompt if turn.get("role") == "user"]
    prompt = messages.escape(turns[-1] if turns else "")
    rows = "".join(_row(completion) for completion in rollout.completions)
    if rollout.expected is not None:
        rows += (
            '<div class="answer expected"><span>reference</span>'
            f"<pre>{messages.escape(rollout.expected)}</pre></div>"
        )
    return (
        f'<article class="sample rollout"><div class="prompt"><span class="num">Step {rollout.step}'
        f"</span> {prompt}</div>{rows}</article>"
    )


def _row(completion: Completion) -> str:
    parts = ", ".join(
        f"{messages.escape(name)} {'none' if value is None else f'{value:.3g}'}"
        for name, value in completion.rewards.items()
    )
    several = f'<div class="aside">{parts}</div>' if len(completion.rewards) > 1 else ""
    return (
        f'<div class="answer"><span class="num" title="{parts}">{completion.reward:.3g}</span>'
        f"<div><pre>{messages.escape(completion.text) or '<i>empty</i>'}</pre>{several}</div></div>"
    )
