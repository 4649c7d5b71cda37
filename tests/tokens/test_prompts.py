"""Chat, evaluation and training must ask in the same words and stop at the same token."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import ModelError
from core.tokens.prompts import end_of_answer_ids, prompt_ids
from core.tokens.tokenize import tokenize_row
from tests.tiny_model import CHATML, tiny_tokenizer

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}


@pytest.mark.parametrize("template", [CHATML, None])
def test_a_prompt_is_what_stood_before_the_answer_in_training(template: str | None) -> None:
    tokenizer = tiny_tokenizer(template)
    messages = [USER, ANSWER, {"role": "user", "content": "more"}]
    row = {"messages": [*messages, ANSWER]}
    trained = tokenize_row(row, tokenizer, max_length=None)
    asked = prompt_ids(messages, tokenizer)
    assert trained.input_ids[: len(asked)] == asked
    assert trained.labels[len(asked) - 1] == -100
    assert trained.labels[len(asked)] != -100


def test_text_is_continued_where_it_ends() -> None:
    tokenizer = tiny_tokenizer(None)
    ids = prompt_ids([{"role": "user", "content": "Once upon"}], tokenizer, continue_text=True)
    assert tokenizer.decode(ids) == "Once upon"


def test_a_template_that_refuses_says_what_to_do() -> None:
    tokenizer = tiny_tokenizer(
        "{{ raise_exception('System role not supported') if messages[0]['role'] == 'system' }}x"
    )
    with pytest.raises(ModelError, match="System role not supported. Leave out the system prompt"):
        prompt_ids([{"role": "system", "content": "s"}, USER], tokenizer)


def test_nothing_to_answer_is_an_error() -> None:
    with pytest.raises(ModelError, match="nothing to answer"):
        prompt_ids([{"role": "user", "content": ""}], tiny_tokenizer(None), continue_text=True)


def test_answers_end_at_the_turns_end_even_if_the_tokenizer_names_another_end() -> None:
    """A base model's tokenizer often ends texts with another token than its template's turns;
    a tuned model would then talk on and on."""
    tokenizer: Any = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[7, 9]))
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_of_answer_ids(model, tokenizer) == sorted({0, 7, 9, end_of_turn})
    model.generation_config.eos_token_id = None
    tokenizer.chat_template = None
    assert end_of_answer_ids(model, tokenizer) == [0]
