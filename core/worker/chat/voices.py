"""Columns of a chat that do not write on: encoders that guess the tokens behind masks, classifiers,
which give labels, bare encoders, and reward models, which score answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from core.errors import ModelError
from core.language import N_, _, n_
from core.models.labels import Labels
from core.tokens.prompts import Message
from core.worker.models.classifier import (
    in_words,
    label_logits,
    longest_input,
    probabilities,
    text_ids,
)
from core.worker.models.masked import guesses
from core.worker.models.scores import Scorer, turns

_MOST_GAPS, _MOST_GUESSES = 10, 5


@dataclass(frozen=True)
class GapVoice:
    """Answers with the most probable tokens for each mask in what was said last."""

    model: Any
    tokenizer: Any
    max_length: int

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def answer(self, messages: list[Message]) -> str:
        """A line for each guess, and each gap's guesses under its number. Raises ModelError."""
        text = next((str(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
        if not text.strip():
            raise ModelError(
                _("There is nothing to fill."),
                _("Write a text with {mask} in it.", mask=self.tokenizer.mask_token),
            )
        longest = longest_input(self.model, self.tokenizer, self.max_length)
        found = guesses(self.model, self.tokenizer, text, longest, _MOST_GUESSES)
        parts = []
        for number, gap in enumerate(found[:_MOST_GAPS], 1):
            lines = [f"{token or _('(space)')}: {100 * chance:.1f} %" for token, chance in gap]
            parts.append("\n".join([_("Gap {number}", number=number)] * (len(found) > 1) + lines))
        if len(found) > _MOST_GAPS:
            parts.append(n_("and {n} more gap", "and {n} more gaps", len(found) - _MOST_GAPS))
        return "\n\n".join(parts)


@dataclass(frozen=True)
class LabelVoice:
    """Answers with the labels of what was said last, and how probable each is."""

    model: Any
    tokenizer: Any
    labels: Labels
    max_length: int

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def answer(self, messages: list[Message]) -> str:
        """The labels, the most probable first. Raises ModelError when nothing was said."""
        text = next((str(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
        longest = longest_input(self.model, self.tokenizer, self.max_length)
        rows = text_ids(self.tokenizer, [text], longest)
        if not text.strip() or not rows[0]:
            raise ModelError(_("There is nothing to label."), _("Write a text first."))
        logits = label_logits(self.model, self.tokenizer, rows)
        return in_words(probabilities(logits, self.labels)[0], self.labels, most=10)


@dataclass(frozen=True)
class SilentVoice:
    """A model that can do nothing in a chat."""

    name: str

    @property
    def dtype(self) -> str:
        return _("not loaded")

    def answer(self, messages: list[Message]) -> str:
        raise ModelError(
            _(
                "{name} is an encoder: before a training it neither writes nor gives labels.",
                name=self.name,
            ),
            _("Ask the run beside it."),
        )


_PARTED = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)
HOW_TO = N_(
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
            raise ModelError(_("There is no answer to score."), _(HOW_TO))
        system = [dict(m) for m in messages[:1] if m["role"] == "system"]
        asked = [
            ([*system, *turns(prompt, "user")], turns(answer, "assistant")) for answer in answers
        ]
        return scores_in_words(self.scorer.scores(asked))


def scores_in_words(scores: list[float]) -> str:
    """One answer: its score. Several: a line each by number, the best first."""
    if len(scores) == 1:
        return _("Score {score:.3f}", score=scores[0])
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    lines = [
        _("Answer {number}: {score:.3f}", number=place + 1, score=scores[place]) for place in order
    ]
    ahead = scores[order[0]] - scores[order[1]]
    return "\n".join(
        [*lines, _("Answer {number} is ahead by {ahead:.3f}.", number=order[0] + 1, ahead=ahead)]
    )
