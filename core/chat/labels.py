"""Columns of a chat that do not write: classifiers, which give labels, and bare encoders.

Imports torch: only the chat's worker uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.errors import ModelError
from core.models.classifier import in_words, label_logits, longest_input, probabilities, text_ids
from core.models.labels import Labels
from core.models.prompts import Message


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
            raise ModelError("There is nothing to label.", "Write a text first.")
        logits = label_logits(self.model, self.tokenizer, rows)
        return in_words(probabilities(logits, self.labels)[0], self.labels, most=10)


@dataclass(frozen=True)
class SilentVoice:
    """A model that can do nothing in a chat."""

    name: str
    dtype: str = "not loaded"

    def answer(self, messages: list[Message]) -> str:
        raise ModelError(
            f"{self.name} is an encoder: before a training it neither writes nor gives labels.",
            "Ask the run beside it.",
        )
