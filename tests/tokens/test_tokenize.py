"""What is learned: if one of these fails, a model is trained on the wrong tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import ByT5Tokenizer

from core.errors import DataError
from core.tokens.learn import EVERYTHING
from core.tokens.tokenize import NO_LOSS, TokenizedRow, pieces, tokenize_row, tokenize_rows
from tests.tokens.conftest import CHATML, CHATML_WITH_DEFAULT_SYSTEM, LLAMA_LIKE

TokenizerFor = Callable[[str | None], Any]


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def learned(row: TokenizedRow, tokenizer: Any) -> list[str]:
    """The texts that carry loss, one for each unbroken stretch."""
    stretches: list[str] = []
    before = False
    for text, _, has_loss, _ in pieces(row, tokenizer):
        if has_loss and not before:
            stretches.append("")
        if has_loss:
            stretches[-1] += text
        before = has_loss
    return stretches


def whole(row: TokenizedRow, tokenizer: Any) -> str:
    return "".join(text for text, *_ in pieces(row, tokenizer))


def tokenized(row: dict[str, Any], tokenizer: Any, **changes: Any) -> TokenizedRow:
    settings: dict[str, Any] = {"max_length": None} | changes
    return tokenize_row(row, tokenizer, **settings)


CHAT = turns(
    ("user", "Hello there"), ("assistant", "I am well"), ("user", "Paris?"), ("assistant", "Yes")
)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>"),
        (CHATML_WITH_DEFAULT_SYSTEM, "<|im_end|>"),
        (LLAMA_LIKE, "<|eot_id|>"),
    ],
)
def test_each_answer_carries_loss_with_its_end_of_turn_and_nothing_else(
    tokenizer_for: TokenizerFor, template: str, end: str
) -> None:
    tokenizer = tokenizer_for(template)
    row = tokenized({"messages": CHAT}, tokenizer)
    assert learned(row, tokenizer) == [f"I am well{end}", f"Yes{end}"]
    assert row.input_ids == tokenizer.apply_chat_template(CHAT)["input_ids"]


def test_the_mask_equals_the_one_of_a_template_with_generation_marks(
    tokenizer_for: TokenizerFor,
) -> None:
    """transformers' own mask, for a template that has the marks, is an independent judge."""
    marked = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['role'] == 'assistant' %}{% generation %}"
        "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    )
    tokenizer = tokenizer_for(CHATML)
    messages = turns(("system", "Short."), *[(m["role"], m["content"]) for m in CHAT])
    judge = tokenizer.apply_chat_template(
        messages, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True
    )
    row = tokenized({"messages": messages}, tokenizer)
    assert row.input_ids == judge["input_ids"]
    assert [label != NO_LOSS for label in row.labels] == [bool(m) for m in judge["assistant_masks"]]


def test_prompt_completion_learns_from_the_completion_alone(tokenizer_for: TokenizerFor) -> None:
    """Answers inside the prompt are examples to read, not to learn."""
    tokenizer = tokenizer_for(CHATML)
    row = tokenized({"prompt": CHAT[:3], "completion": CHAT[3:]}, tokenizer)
    assert learned(row, tokenizer) == ["Yes<|im_end|>"]
    later = {"prompt": CHAT[:2], "completion": CHAT[2:]}
    with_system = tokenized(later, tokenizer, system_prompt="Short.")
    assert learned(with_system, tokenizer) == ["Yes<|im_end|>"]


def test_with_everything_every_token_but_the_first_is_learned(
    tokenizer_for: TokenizerFor,
) -> None:
    row = tokenized({"messages": CHAT}, tokenizer_for(CHATML), learn=EVERYTHING)
    assert row.labels == [NO_LOSS, *row.input_ids[1:]]


@pytest.mark.parametrize("text", ["Hello there", "Hello there</s>"])
def test_text_ends_with_one_end_of_text_token(tokenizer_for: TokenizerFor, text: str) -> None:
    """Without it a model never stops; with two it learns to say it twice."""
    tokenizer = tokenizer_for(None)
    row = tokenized({"text": text}, tokenizer)
    assert whole(row, tokenizer) == "Hello there</s>"
    assert row.labels == [NO_LOSS, *row.input_ids[1:]]


def test_the_system_prompt_goes_before_a_conversation_that_has_none(
    tokenizer_for: TokenizerFor,
) -> None:
    tokenizer = tokenizer_for(CHATML_WITH_DEFAULT_SYSTEM)
    row = tokenized({"messages": CHAT}, tokenizer, system_prompt="Answer in one word.")
    assert whole(row, tokenizer).startswith("<|im_start|>system\nAnswer in one word.<|im_end|>")
    assert "helpful" not in whole(row, tokenizer)
    assert learned(row, tokenizer) == ["I am well<|im_end|>", "Yes<|im_end|>"]
    own = [*turns(("system", "Own.")), *CHAT]
    kept = tokenized({"messages": own}, tokenizer, system_prompt="Other.")
    assert "Other." not in whole(kept, tokenizer)


def test_a_model_without_a_template_gets_plain_lines(tokenizer_for: TokenizerFor) -> None:
    tokenizer = tokenizer_for(None)
    row = tokenized({"prompt": CHAT[:1], "completion": CHAT[1:2]}, tokenizer)
    assert whole(row, tokenizer) == "Hello there\nI am well</s>"
    assert learned(row, tokenizer) == ["I am well</s>"]
    several = tokenized({"messages": CHAT}, tokenizer, system_prompt="Short.")
    assert whole(several, tokenizer) == "Short.\nHello there\nI am well</s>\nParis?\nYes</s>"
    assert learned(several, tokenizer) == ["I am well</s>", "Yes</s>"]


def test_a_tokenizer_without_offsets_gives_the_same_mask() -> None:
    """Slow tokenizers still exist; their models must not learn the questions."""
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert not tokenizer.is_fast
    row = tokenized({"messages": CHAT}, tokenizer)
    assert learned(row, tokenizer) == ["I am well</s>", "Yes</s>"]


def test_the_cut_keeps_the_beginning_and_says_how_long_the_row_was(
    tokenizer_for: TokenizerFor,
) -> None:
    full = tokenized({"messages": CHAT}, tokenizer_for(CHATML))
    cut = tokenized({"messages": CHAT}, tokenizer_for(CHATML), max_length=20)
    assert cut.input_ids == full.input_ids[:20]
    assert cut.labels == full.labels[:20]
    assert (cut.full_length, cut.is_cut, full.is_cut) == (full.length, True, False)


def test_rows_without_anything_to_learn_are_told_apart_with_a_reason(
    tokenizer_for: TokenizerFor,
) -> None:
    """A prompt longer than max_length would train on nothing, and nobody would notice."""
    long = {"prompt": turns(("user", "Hello there " * 50)), "completion": CHAT[1:2]}
    good = {"prompt": CHAT[:1], "completion": CHAT[1:2]}
    foreign = {"prompt": turns(("user", "x")), "chosen": "y"}
    usable, unusable = tokenize_rows(
        [good, long, good, foreign], tokenizer_for(CHATML), max_length=40
    )
    assert len(usable) == 2
    assert [index for index, _ in unusable] == [1, 3]
    assert "first 40 tokens" in unusable[0][1] and "max_length" in unusable[0][1]
    assert "prompt, chosen" in unusable[1][1]


def test_rows_together_are_as_rows_alone(tokenizer_for: TokenizerFor) -> None:
    """Batches are for speed only, across the borders of a batch too."""
    tokenizer = tokenizer_for(LLAMA_LIKE)
    rows = [
        {"messages": turns(("user", f"Hello {n}"), ("assistant", f"I am {n}" * (n % 5 + 1)))}
        for n in range(300)
    ]
    seen: list[float] = []
    usable, unusable = tokenize_rows(rows, tokenizer, max_length=30, progress=seen.append)
    assert unusable == []
    assert usable == [tokenized(row, tokenizer, max_length=30) for row in rows]
    assert seen[-1] == 1.0 and seen == sorted(seen)


def test_pieces_put_together_are_the_text(tokenizer_for: TokenizerFor) -> None:
    """A preview that loses half a character shows something the model does not see."""
    tokenizer = tokenizer_for(CHATML)
    text = "Grüße 🦦🦦 from 東京, e\u0301"
    row = tokenized({"messages": turns(("user", "?"), ("assistant", text))}, tokenizer)
    shown = pieces(row, tokenizer)
    assert text in "".join(piece for piece, *_ in shown)
    assert [token for _, token, *_ in shown] == row.input_ids
    assert learned(row, tokenizer) == [f"{text}<|im_end|>"]


def test_an_answer_of_white_space_around_words_keeps_them(tokenizer_for: TokenizerFor) -> None:
    """The template trims; the span must follow the template, not the row."""
    tokenizer = tokenizer_for(LLAMA_LIKE)
    row = tokenized({"messages": turns(("user", "?"), ("assistant", "\n\n  Yes \n"))}, tokenizer)
    assert learned(row, tokenizer) == ["Yes<|eot_id|>"]


def test_a_template_that_refuses_a_role_says_so(tokenizer_for: TokenizerFor) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
        + CHATML
    )
    with pytest.raises(DataError, match="No system role"):
        tokenized({"messages": CHAT}, tokenizer_for(refusing), system_prompt="Short.")


def test_a_template_that_drops_an_answer_says_which(tokenizer_for: TokenizerFor) -> None:
    """Loss on the wrong words would be worse than no training."""
    dropping = (
        "{% for m in messages %}{% if loop.last %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
    )
    with pytest.raises(DataError, match="turn 2"):
        tokenized({"messages": CHAT}, tokenizer_for(dropping))
