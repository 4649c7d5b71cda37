"""A column of a chat that scores answers: a reward model. Imports torch: only the chat's worker
uses it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from core.errors import ModelError
from core.models.prompts import Message
from core.models.scores import Scorer, turns

_PARTED = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)
HOW_TO = (
    "Write the prompt, a line of three hyphens (---), and an answer; more answers the same way."
)


@dataclass(frozen=True)
class ScoreVoice:
    """Answers with the score of each answer in what was said last, the best first."""

    scorer: Scorer

    @property
    def model(self) -> Any:
        return self.scorer.model

    @property
    def dtype(self) -> str:
        return self.scorer.dtype

    def answer(self, messages: list[Message]) -> str:
        """The scores in words. Raises ModelError when no answer is there to be scored."""
        text = next((str(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
        prompt, *answers = [part.strip() for part in _PARTED.split(text)]
        if not prompt or not answers or not all(answers):
            raise ModelError("There is no answer to score.", HOW_TO)
        system = [dict(m) for m in messages[:1] if m["role"] == "system"]
        asked = [
            ([*system, *turns(prompt, "user")], turns(answer, "assistant")) for answer in answers
        ]
        return in_words(self.scorer.scores(asked))


def in_words(scores: list[float]) -> str:
    """One answer: its score. Several: a line each by number, the best first."""
    if len(scores) == 1:
        return f"Score {scores[0]:.3f}"
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    lines = [f"Answer {place + 1}: {scores[place]:.3f}" for place in order]
    ahead = scores[order[0]] - scores[order[1]]
    return "\n".join([*lines, f"Answer {order[0] + 1} is ahead by {ahead:.3f}."])
