"""New tokens for the words of a field that the model's tokenizer breaks into many pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from core.config.fields import Section, knob
from core.errors import Problem
from core.methods import named

if TYPE_CHECKING:
    from core.config.run import RunConfig

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


def vocabulary_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules of a run with new tokens; none without."""
    tokens, method = config.vocabulary.new_tokens, config.method
    if not tokens:
        return
    if not config.training_method.learns_new_tokens:
        yield Problem(
            "vocabulary.new_tokens",
            f"with method {method}: new tokens are learned from texts and answers. Teach them by "
            "cpt or sft first, and go on from that run.",
            ("method",),
        )
        return
    if any(not token.strip() for token in tokens):
        yield Problem("vocabulary.new_tokens", "one of them is empty. Take it out.")
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    if twice:
        yield Problem(
            "vocabulary.new_tokens", f"{', '.join(twice[:3])} stands there twice. Take one out."
        )
    adapter: str = config.adapter.method
    if adapter not in ("lora", "none"):
        yield Problem(
            "vocabulary.new_tokens",
            f"with adapter.method {adapter}, which cannot train their rows. Take lora, or none to "
            "train every weight.",
            ("adapter.method",),
        )
    elif adapter == "lora" and config.training_method.makes == "filler":
        yield Problem(
            "vocabulary.new_tokens",
            f"with method {method} and adapter.method lora: the head that guesses hidden tokens "
            "has a bias for each token, which the adapter would leave out. Set adapter.method to "
            "none.",
            ("adapter.method",),
        )
    elif adapter == "lora":
        yield from _adapter_rules(config)


def _adapter_rules(config: RunConfig) -> Iterator[Problem]:
    adapter = config.adapter
    targets = adapter.target_modules if isinstance(adapter.target_modules, list) else []
    embeds = [name for name in (*targets, *adapter.modules_to_save) if _is_embedding(name)]
    if config.vocabulary.train == "rows" and embeds:
        yield Problem(
            "vocabulary.train",
            f"rows, and the adapter trains {embeds[0]} too: the two would overwrite each other. "
            "Set it to embeddings, or take the module out of the adapter.",
            ("adapter.target_modules", "adapter.modules_to_save"),
        )
    elif any(_is_embedding(name) for name in targets):
        yield Problem(
            "adapter.target_modules",
            "the embeddings have an adapter, and vocabulary.new_tokens adds rows to them. Take "
            "them out; vocabulary.train embeddings trains them in full.",
            ("vocabulary.new_tokens",),
        )


def _is_embedding(name: str) -> bool:
    last = name.rpartition(".")[2]
    return "embed" in last or last in ("wte", "lm_head")
