"""Tiny real tokenizers with real chat templates, and a workspace that may read the test's files."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.data.conftest import open_workspace

__all__ = ["open_workspace"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As SmolLM2's: a default system prompt where the conversation has none.
CHATML_WITH_DEFAULT_SYSTEM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_LIKE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_CORPUS = [
    "What is the capital of France? The capital of France is Paris.\n\n",
    "Hello there, how are you today? I am well, thank you.\nassistant\nuser\nsystem\n",
    "You are a helpful assistant. Answer in one word.",
]


def build_tokenizer(template: str | None) -> Any:
    """Byte-level BPE with a few merges; the template's own marks are its special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    marks = re.findall(r"<[|｜]?[a-zA-Z_▁]+[|｜]?>", template or "")
    reasoning = {"<think>", "<tools>", "<tool_call>", "<tool_response>"}
    fast.add_tokens(sorted(set(marks) - reasoning), special_tokens=True)
    fast.chat_template = template
    return fast


@pytest.fixture(scope="session")
def tokenizer_for() -> Callable[[str | None], Any]:
    """A tokenizer for a chat template; built once for each."""
    built: dict[str | None, Any] = {}

    def get(template: str | None) -> Any:
        if template not in built:
            built[template] = build_tokenizer(template)
        return built[template]

    return get
