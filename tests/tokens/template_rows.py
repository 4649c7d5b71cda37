"""Conversations with every kind of turn, the templates to render them with, and a tokenizer that
knows the marks of all of them."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import processors

from core.tokens.chat_templates import BUNDLED
from tests.tokens.conftest import build_tokenizer

MARKS = [
    *("<|im_start|>", "<|im_end|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("<start_of_turn>", "<end_of_turn>"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", "[gMASK]"),
    *("<reserved_106>", "<reserved_107>"),
]
# The starter model's own, as it stands in its GGUF file.
STARTER = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(BUNDLED.glob("*"))}
# What stands before and behind the words of an answer and is learned with them.
AROUND = {
    "alpaca": ("", "</s>"),
    "baichuan2": ("", "</s>"),
    "chatglm3": ("\n ", "<|user|>"),
    "chatml": ("", "<|im_end|>"),
    "deepseek": (" ", "</s>"),
    "gemma": ("", "<end_of_turn>"),
    "llama3": ("", "<|eot_id|>"),
    "mistral": (" ", "</s>"),
    "plain": ("", "</s>"),
    "starter": ("", "<|im_end|>"),
}
TRIMMED = ("gemma", "llama3")

_TOOL = {"name": "weather", "description": "The weather.", "parameters": {"type": "object"}}
TOOLS = json.dumps([{"type": "function", "function": _TOOL}])


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def user(words: str) -> dict[str, str]:
    return {"role": "user", "content": words}


def answer(words: str, *calls: dict[str, Any]) -> dict[str, str]:
    turn = {"role": "assistant", "content": words}
    return {**turn, "tool_calls": json.dumps(calls)} if calls else turn


SYSTEM = {"role": "system", "content": "Answer in few words."}
TWO_TURNS = [user("Question one"), answer("Answer one"), user("Question two"), answer("Answer two")]
ROWS: dict[str, dict[str, Any]] = {
    "single": {"messages": TWO_TURNS[:2]},
    "multi": {"messages": TWO_TURNS},
    "system": {"messages": [SYSTEM, *TWO_TURNS]},
    "tools": {
        "messages": [
            SYSTEM,
            user("Question one"),
            answer("", call("weather", city="Paris")),
            {"role": "tool", "content": "21 degrees"},
            answer("Answer one"),
            user("Question two"),
            answer("I will look.", call("weather", city="Rome"), call("weather", city="Oslo")),
            {"role": "tool", "content": "18 degrees"},
            {"role": "tool", "content": "3 degrees"},
            answer("Answer two"),
        ],
        "tools": TOOLS,
    },
}
_HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "%s"}}\n</tool_call>'
_LLAMA = '{"name": "weather", "parameters": {"city": "%s"}}'
_MISTRAL = '{"name": "weather", "arguments": {"city": "%s"}}'


def called(name: str) -> tuple[str, str]:
    """What a template makes of the two calling turns of the row `tools`."""
    if name == "llama3":
        return _LLAMA % "Paris", f"I will look.\n{_LLAMA % 'Rome'}; {_LLAMA % 'Oslo'}"
    if name == "mistral":
        both = f"{_MISTRAL % 'Rome'}, {_MISTRAL % 'Oslo'}"
        return f"[TOOL_CALLS] [{_MISTRAL % 'Paris'}]", f" I will look.[TOOL_CALLS] [{both}]"
    before = AROUND[name][0]
    both = "\n".join(_HERMES % city for city in ("Rome", "Oslo"))
    return before + _HERMES % "Paris", f"{before}I will look.\n{both}"


def expected(name: str, row: str) -> list[str]:
    """Exactly what carries loss in a row with a template."""
    before, end = AROUND[name]
    last = "</s>" if name == "chatglm3" else end
    words = [f"{before}Answer one{end}", f"{before}Answer two{last}"]
    if row == "single":
        return [f"{before}Answer one{last}"]
    if row != "tools":
        return words
    end = "<|observation|>" if name == "chatglm3" else end
    first, second = called(name)
    return [first + end, words[0], second + end, words[1]]


def tokenizer_with_marks(template: str | None, *, begins: bool = True) -> Any:
    """Byte-level, with the marks of every bundled template as special tokens. `begins`: it sets
    its begin token before each text, as Llama's does."""
    tokenizer = build_tokenizer(None)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    if begins:
        begin = tokenizer.bos_token_id
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", begin)]
        )
    tokenizer.chat_template = template
    return tokenizer
