"""Streaming must show what the model would have written in one go, character for character."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.chat.settings import ChatSettings
from core.errors import ModelError
from core.tokens.prompts import end_of_answer_ids
from core.worker.chat.decode import TextPieces, next_tokens, room_for_answer
from tests.tiny_model import tiny_model, tiny_tokenizer

GREEDY = ChatSettings(temperature=0)
TEXT = "Grüße, 世界! 👩‍👩‍👧 naïve café — 日本語 🦊"


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def test_half_a_character_is_never_shown(tokenizer: Any) -> None:
    """Each token of these characters is one byte: shown one by one they would be rubbish."""
    pieces = TextPieces(tokenizer)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    shown = [pieces.add(token) for token in ids]
    assert "".join(shown) + pieces.rest() == TEXT
    assert not any("\ufffd" in piece for piece in shown)
    assert sum(piece == "" for piece in shown) > 10


def test_bytes_that_never_become_a_character_do_not_hold_the_text_up(tokenizer: Any) -> None:
    lead = tokenizer.convert_tokens_to_ids("ð")  # the first byte of an emoji, alone
    pieces = TextPieces(tokenizer)
    letters = tokenizer("hello", add_special_tokens=False)["input_ids"]
    shown = "".join(pieces.add(token) for token in [lead, *letters]) + pieces.rest()
    assert shown == tokenizer.decode([lead, *letters])
    assert shown.endswith("hello")


def test_end_tokens_are_not_shown(tokenizer: Any) -> None:
    pieces = TextPieces(tokenizer)
    ids = tokenizer("hi", add_special_tokens=False)["input_ids"]
    shown = "".join(pieces.add(token) for token in [*ids, tokenizer.eos_token_id])
    assert shown + pieces.rest() == "hi"


def test_greedy_tokens_are_those_of_generate(model: Any, tokenizer: Any) -> None:
    """Also when the prompt is read in parts."""
    prompt = tokenizer("what is the colour of the hat", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        whole = model.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None
        )
    expected = whole[0, len(prompt) :].tolist()
    assert list(next_tokens(model, prompt, GREEDY, [], 20)) == expected
    parts = list(next_tokens(model, prompt, GREEDY, [], 20, prompt_part=4))
    assert [token for token in parts if token is not None] == expected
    assert parts[0] is None


def test_a_model_without_a_cache_writes_the_same(model: Any, tokenizer: Any) -> None:
    class NoCache(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.device = model.config, model.device

        def forward(self, input_ids: Any) -> Any:
            return model(input_ids=input_ids, use_cache=False)

    prompt = tokenizer("the red door", add_special_tokens=False)["input_ids"]
    with_cache = list(next_tokens(model, prompt, GREEDY, [], 8))
    assert list(next_tokens(NoCache(), prompt, GREEDY, [], 8)) == with_cache


def test_the_end_token_ends_the_answer(model: Any, tokenizer: Any) -> None:
    prompt = tokenizer("a", add_special_tokens=False)["input_ids"]
    free = list(next_tokens(model, prompt, GREEDY, [], 10))
    assert list(next_tokens(model, prompt, GREEDY, [free[4]], 10)) == free[: free.index(free[4])]
    assert end_of_answer_ids(model, tokenizer) == [2]


def test_a_seed_gives_the_same_answer_whatever_else_is_drawn(model: Any, tokenizer: Any) -> None:
    prompt = tokenizer("a", add_special_tokens=False)["input_ids"]
    settings = ChatSettings(temperature=1.5, top_p=0.99, seed=7)
    first = list(next_tokens(model, prompt, settings, [], 12))
    torch.rand(3)
    assert list(next_tokens(model, prompt, settings, [], 12)) == first
    other = ChatSettings(temperature=1.5, top_p=0.99, seed=8)
    assert list(next_tokens(model, prompt, other, [], 12)) != first


def test_a_tiny_top_p_leaves_only_the_most_probable_word(model: Any, tokenizer: Any) -> None:
    prompt = tokenizer("a", add_special_tokens=False)["input_ids"]
    narrow = ChatSettings(temperature=1.0, top_p=0.0001)
    greedy = list(next_tokens(model, prompt, GREEDY, [], 12))
    assert list(next_tokens(model, prompt, narrow, [], 12)) == greedy


def test_two_answers_may_be_written_in_turns(model: Any, tokenizer: Any) -> None:
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("ab", "red")]
    alone = [list(next_tokens(model, prompt, GREEDY, [], 6)) for prompt in prompts]
    both = [next_tokens(model, prompt, GREEDY, [], 6) for prompt in prompts]
    turns = [[next(tokens) for tokens in both] for _ in range(6)]
    assert [list(column) for column in zip(*turns, strict=True)] == alone


def test_a_conversation_longer_than_the_model_reads_is_told(model: Any) -> None:
    assert room_for_answer(model, [5] * 250, 100) == 6
    with pytest.raises(ModelError, match="at most 256. Clear the chat"):
        room_for_answer(model, [5] * 256, 100)
