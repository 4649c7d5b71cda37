"""Answers in OpenAI's form, for an engine that has none of its own."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Reason = Literal["stop", "length"]


@dataclass(frozen=True)
class Usage:
    """Tokens of a prompt and of its answer."""

    prompt: int
    answer: int

    def as_dict(self) -> dict[str, int]:
        whole = self.prompt + self.answer
        counts = {"prompt_tokens": self.prompt, "completion_tokens": self.answer}
        return {**counts, "total_tokens": whole}


@dataclass(frozen=True)
class Answer:
    """One answer, whole or piece by piece; of a conversation (`is_chat`) or to a text."""

    model: str
    is_chat: bool
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, reason: Reason, usage: Usage) -> dict[str, Any]:
        turn = {"role": "assistant", "content": text}
        said: dict[str, Any] = {"message": turn} if self.is_chat else {"text": text}
        choice = {"index": 0, "finish_reason": reason, **said}
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": usage.as_dict()}

    def first(self) -> str:
        """What a stream begins with: who speaks."""
        return self._event([self._choice({"role": "assistant", "content": ""}, None)])

    def piece(self, text: str) -> str:
        return self._event([self._choice({"content": text} if self.is_chat else text, None)])

    def last(self, reason: Reason, usage: Usage | None) -> str:
        """The end of a stream; with `usage` that too."""
        end = self._event([self._choice({} if self.is_chat else "", reason)])
        told = self._event([], usage=usage.as_dict()) if usage else ""
        return f"{end}{told}data: [DONE]\n\n"

    def _choice(self, said: Any, reason: Reason | None) -> dict[str, Any]:
        name = "delta" if self.is_chat else "text"
        return {"index": 0, name: said, "finish_reason": reason}

    def _event(self, choices: Sequence[dict[str, Any]], **more: Any) -> str:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return event({**self._head(kind), "choices": choices, **more})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(content: dict[str, Any]) -> str:
    """One of a stream."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def broken_off(message: str) -> str:
    """The end of a stream whose engine has ended."""
    return event({"error": {"message": message, "type": "server_error", "code": 503}})
