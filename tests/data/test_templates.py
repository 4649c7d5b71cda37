"""The loss mask with the chat templates of well-known models, as TRL ships them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.data.tokenize import tokenize_row
from tests.data.test_tokenize import learned, turns

_SPEC = importlib.util.find_spec("trl")
assert _SPEC and _SPEC.origin
TEMPLATES = Path(_SPEC.origin).parent / "chat_templates"

ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "deepseekv3": "<｜end▁of▁sentence｜>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "lfm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "llama3_2": "<|eot_id|>",
    "phi3": "<|end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3_instruct_2507": "<|im_end|>",
}
TALK = turns(
    ("user", "Question one"),
    ("assistant", "Answer one"),
    ("user", "Question two"),
    ("assistant", "Answer two"),
)
TokenizerFor = Callable[[str | None], Any]


def answers(name: str, tokenizer_for: TokenizerFor, messages: list[dict[str, str]]) -> list[str]:
    tokenizer = tokenizer_for((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"))
    row = {"messages": messages}
    tokenized = tokenize_row(row, tokenizer, max_length=None, assistant_only_loss=True)
    return learned(tokenized, tokenizer)


@pytest.mark.parametrize("name", ENDS)
def test_both_answers_and_their_ends_are_learned(name: str, tokenizer_for: TokenizerFor) -> None:
    end = ENDS[name]
    expected = [f"Answer one{end}", f"Answer two{end}"]
    assert answers(name, tokenizer_for, TALK) == expected


def test_a_template_that_strips_earlier_reasoning_still_gets_its_mask(
    tokenizer_for: TokenizerFor,
) -> None:
    """Qwen3 shows the reasoning of the last answer only: no prefix of the text is rendered alike,
    and several turns would be lost without the marker."""
    thinking = turns(
        ("user", "Question one"),
        ("assistant", "<think>\nReason one\n</think>\n\nAnswer one"),
        ("user", "Question two"),
        ("assistant", "<think>\nReason two\n</think>\n\nAnswer two"),
    )
    assert answers("qwen3", tokenizer_for, thinking) == [
        "Answer one<|im_end|>",
        "<think>\nReason two\n</think>\n\nAnswer two<|im_end|>",
    ]


def test_reasoning_that_the_template_sets_apart_is_learned(tokenizer_for: TokenizerFor) -> None:
    """Qwen3 writes the reasoning on lines of its own, so the turn's words are not found as they
    stand in the row."""
    tight = turns(("user", "Question"), ("assistant", "<think>Reason</think>Answer"))
    assert answers("qwen3", tokenizer_for, tight) == [
        "<think>\nReason\n</think>\n\nAnswer<|im_end|>"
    ]


def test_a_generation_prompt_that_opens_a_thought_does_not_hide_the_answer(
    tokenizer_for: TokenizerFor,
) -> None:
    """DeepSeek-R1's prompt ends with <think>, which its finished turns do not have."""
    end = "<｜end▁of▁sentence｜>"
    expected = [f"Answer one{end}", f"Answer two{end}"]
    assert answers("deepseek_r1_distill", tokenizer_for, TALK) == expected


def test_a_template_that_leaves_the_last_answer_open_gets_an_end(
    tokenizer_for: TokenizerFor,
) -> None:
    """GLM closes a turn by opening the next: the last one would never learn to stop."""
    assert answers("glm4moe", tokenizer_for, TALK)[-1].endswith("Answer two</s>")
