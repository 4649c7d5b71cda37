"""New tokens for the words of a field that the model's tokenizer breaks into many pieces."""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob
from core.methods import named

_LEARNING: dict[str, list[Any]] = {"method": named(learns_new_tokens=True)}


class VocabularySection(Section):
    """Tokens that the tokenizer does not have yet."""

    new_tokens: list[str] = knob([], "New tokens", when=_LEARNING)
    """Words or marks that become one token each. Each begins at the mean of its former pieces.
    Worth it for words that are frequent in the data and fall into many pieces."""

    train: Literal["rows", "embeddings"] = knob(
        "rows", "Train for new tokens", when={**_LEARNING, "adapter.method": ["lora"]}
    )
    """Rows trains nothing but the new tokens' own weights beside the adapter. Embeddings trains
    those of all tokens: it learns more, and the adapter grows by hundreds of megabytes."""
