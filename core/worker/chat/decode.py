"""Tokens one after the other, so that each can be shown, and stopped after."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.chat.settings import ChatSettings
from core.errors import ModelError
from core.language import _
from core.worker.models.loading import after_virtual_tokens, virtual_tokens


class TooLong(ModelError):
    """A conversation that leaves no room for an answer."""


# A long prompt is read in parts of so many tokens: a stop need not wait for all of it.
_PROMPT_PART = 256


@torch.inference_mode()
def next_tokens(
    model: Any,
    prompt: list[int],
    settings: ChatSettings,
    ends: list[int],
    most: int,
    prompt_part: int = _PROMPT_PART,
) -> Generator[int | None]:
    """The answer's tokens, its end token left out; None while the prompt is being read.

    Ends after an end token or `most` tokens. Between two tokens the caller may use the model for
    something else.
    """
    draw = _Draw(settings, model.device)
    known = inspect.signature(_plain(model).forward).parameters
    options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    has_cache = "past_key_values" in known
    all_ids, unread, cache = list(prompt), list(prompt), None
    if has_cache:
        model, cache = after_virtual_tokens(model)
    for _token in range(most):
        while unread:
            if has_cache:
                part, unread = unread[:prompt_part], unread[prompt_part:]
                options |= {"past_key_values": cache, "use_cache": True}
            else:  # it reads everything again for each token
                part, unread = all_ids, []
            output = model(input_ids=torch.tensor([part], device=model.device), **options)
            cache = output.past_key_values if has_cache else None
            if unread:
                yield None
        token = draw(all_ids, output.logits[:, -1])
        if token in ends:
            return
        all_ids.append(token)
        unread = [token]
        yield token


def room_for_answer(model: Any, prompt: list[int], wanted: int) -> int:
    """How many tokens can follow the prompt. Raises TooLong when none can."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is None:
        return wanted
    most -= virtual_tokens(model)
    if len(prompt) >= most:
        raise too_long(len(prompt), most)
    return min(wanted, int(most) - len(prompt))


def too_long(tokens: int, most: int) -> TooLong:
    """What is said of a conversation of so many tokens, of which `most` can be read."""
    return TooLong(
        _(
            "The conversation has {tokens} tokens; the model reads at most {most}.",
            tokens=tokens,
            most=most,
        ),
        _("Clear the chat, or ask with fewer words."),
    )


class _Draw:
    """Takes the next token from the logits, by the settings."""

    def __init__(self, settings: ChatSettings, device: Any) -> None:
        self.greedy = settings.temperature == 0
        # In the order of transformers' own `generate`.
        self.steps: list[Any] = []
        if settings.repetition_penalty != 1:
            self.steps.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
        if self.greedy:
            return
        self.steps.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            self.steps.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            self.steps.append(TopPLogitsWarper(settings.top_p))
        if settings.min_p:
            self.steps.append(MinPLogitsWarper(settings.min_p))
        # Its own generator: what other columns draw does not change this one's answer.
        self.generator = torch.Generator(device=device)
        if settings.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(settings.seed)

    def __call__(self, before: list[int], logits: Any) -> int:
        """The next token after these."""
        logits = logits.float()
        ids = torch.tensor([before], device=logits.device) if self.steps else None
        for step in self.steps:
            logits = step(ids, logits)
        if self.greedy:
            return int(logits.argmax(dim=-1))
        odds = logits.softmax(dim=-1)
        return int(torch.multinomial(odds, 1, generator=self.generator))


class TextPieces:
    """Text from tokens as they come; half a character waits for its other half.

    The pieces together are the text of all tokens decoded at once.
    """

    # A character has at most 4 bytes; what is longer is no character that will be complete.
    _MOST_WAITING = 4

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._begin = 0  # decoding starts here: far enough back to see how words join
        self._shown = 0  # tokens before this one have been shown

    def add(self, token: int) -> str:
        """The text that is now certain; often "" or a word."""
        self._ids.append(token)
        before, now = self._texts()
        waiting = len(self._ids) - self._shown
        if now.endswith("\ufffd") and waiting < self._MOST_WAITING:
            return ""
        if len(now) <= len(before):
            return ""
        self._begin, self._shown = self._shown, len(self._ids)
        return now[len(before) :]

    def rest(self) -> str:
        """What was still waiting, when no token comes any more."""
        before, now = self._texts()
        self._begin = self._shown = len(self._ids)
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        shown = self._ids[self._begin : self._shown]
        return self._decode(shown), self._decode(self._ids[self._begin :])

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def _plain(model: Any) -> Any:
    """The model itself, without PEFT around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
