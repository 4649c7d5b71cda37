"""Columns of a chat that fill gaps: encoders that guess the tokens behind masks.

Imports torch: only the chat's worker uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.errors import ModelError
from core.models.classifier import longest_input
from core.models.masked import guesses
from core.models.prompts import Message

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
                "There is nothing to fill.", f"Write a text with {self.tokenizer.mask_token} in it."
            )
        longest = longest_input(self.model, self.tokenizer, self.max_length)
        found = guesses(self.model, self.tokenizer, text, longest, _MOST_GUESSES)
        parts = []
        for number, gap in enumerate(found[:_MOST_GAPS], 1):
            lines = [f"{token or '(space)'}: {100 * chance:.1f} %" for token, chance in gap]
            parts.append("\n".join([f"Gap {number}"] * (len(found) > 1) + lines))
        if len(found) > _MOST_GAPS:
            parts.append(f"and {len(found) - _MOST_GAPS} more gaps")
        return "\n\n".join(parts)
