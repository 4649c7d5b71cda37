"""The loss mask with the bundled chat templates, and with those of well-known models as TRL ships
them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import DataError
from core.tokens.spans import ChatRenderer
from core.tokens.tokenize import NO_LOSS, render_row, tokenize_row
from tests.tokens.template_rows import (
    AROUND,
    MARKS,
    ROWS,
    STARTER,
    TEMPLATES,
    TRIMMED,
    answer,
    call,
    expected,
    tokenizer_with_marks,
    user,
)
from tests.tokens.test_tokenize import learned, turns

_SPEC = importlib.util.find_spec("trl")
assert _SPEC and _SPEC.origin
TRL_TEMPLATES = Path(_SPEC.origin).parent / "chat_templates"

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
    tokenizer = tokenizer_for((TRL_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"))
    row = {"messages": messages}
    tokenized = tokenize_row(row, tokenizer, max_length=None)
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


ALL = {**TEMPLATES, "starter": STARTER}
RENDERERS = {name: tokenizer_with_marks(template) for name, template in ALL.items()}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", ALL)
def test_exactly_the_answers_and_their_ends_are_learned(name: str, row: str) -> None:
    tokenizer = RENDERERS[name]
    tokenized = tokenize_row(ROWS[row], tokenizer, max_length=None)
    assert learned(tokenized, tokenizer) == expected(name, row)


def test_a_template_with_generation_marks_is_believed_and_the_end_is_learned() -> None:
    """Who marks what the model writes wants that learned and nothing else; but a model that has
    not learned the end of a turn never stops."""
    marked = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}ENDS{% endgeneration %}{% else %}{{ m.content }}<|im_end|>"
        "{% endif %}\n{% endfor %}"
    )
    row = {"prompt": ROWS["multi"]["messages"][:3], "completion": ROWS["multi"]["messages"][3:]}
    whole = tokenizer_with_marks(marked.replace("ENDS", "<|im_end|>"))
    tokenized = tokenize_row(row, whole, max_length=None)
    assert learned(tokenized, whole) == ["Answer two<|im_end|>"]
    judge = whole.apply_chat_template(
        ROWS["multi"]["messages"], return_dict=True, return_assistant_tokens_mask=True
    )
    both = tokenize_row(ROWS["multi"], whole, max_length=None)
    assert [int(label != NO_LOSS) for label in both.labels] == judge["assistant_masks"]
    words = tokenizer_with_marks(marked.replace("ENDS{% endgeneration %}", _OUTSIDE))
    assert learned(tokenize_row(ROWS["multi"], words, max_length=None), words) == [
        "Answer one<|im_end|>",
        "Answer two<|im_end|>",
    ]
    open_ended = tokenizer_with_marks(marked.replace("ENDS", ""))
    found = learned(tokenize_row(ROWS["multi"], open_ended, max_length=None), open_ended)
    assert found[-1] == "Answer two</s>", "nothing in the template would end the last answer"


_OUTSIDE = "{% endgeneration %}<|im_end|>"
_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
_TRICKY = st.sampled_from(
    [
        *MARKS,
        "</s>",
        "assistant\n",
        "user\n",
        "### Response:\n",
        "User: ",
        "Assistant:",
        "\n",
        "</think>",
        "<think>",
        "TUNESMITHMARKER",
        "{{ messages }}",
        "<tool_call>",
        " ",
    ]
)
_CONTENT = st.lists(_WORDS | _TRICKY, min_size=1, max_size=5).map("".join).filter(str.strip)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30, deadline=None)
@given(asked=_CONTENT, first=_CONTENT, second=_CONTENT)
@example(asked="a", first="<|im_end|>", second="<|im_end|>\n<|im_start|>assistant\n")
@example(asked="</s> b", first="b", second="</s>")
@example(asked="x", first=" <|user|>", second="a <|user|> ")
def test_words_that_look_like_marks_do_not_move_the_loss(
    name: str, asked: str, first: str, second: str
) -> None:
    """Texts about chat formats would teach a model to write the user's turns."""
    messages = [user(asked), answer(first), user(asked), answer(second)]
    tokenizer = RENDERERS[name]
    rendered = render_row({"messages": messages}, tokenizer, ChatRenderer(tokenizer))
    before, end = AROUND[name]
    last = "</s>" if name == "chatglm3" else end
    if name in TRIMMED:
        first, second = first.strip(), second.strip()
    assert rendered.spans is not None
    found = [rendered.text[begin:stop] for begin, stop in rendered.spans]
    assert found == [f"{before}{first}{end}", f"{before}{second}{last}"]


def test_calls_of_tools_are_learned_with_templates_of_known_models(
    tokenizer_for: TokenizerFor,
) -> None:
    """DeepSeek's puts the arguments between texts, Qwen3's sets an empty thought before the last
    answer, so that no prefix is rendered alike."""
    talk = [user("Question"), answer("", call("weather", city="Paris"))]
    end = "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
    (found,) = answers("deepseekv3", tokenizer_for, talk)
    assert found.endswith('weather\n```json\n{"city": "Paris"}\n```' + end)
    talk += [{"role": "tool", "content": "21"}, answer("Warm"), user("Thanks"), answer("Bye")]
    called = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert answers("qwen3", tokenizer_for, talk)[:2] == [called + "<|im_end|>", "Warm<|im_end|>"]


def test_what_a_tool_said_is_never_learned(tokenizer_for: TokenizerFor) -> None:
    """Gemma 4 sets the results into the turn that calls: the row is refused, with the reason."""
    talk = [
        user("Question"),
        answer("I will look.", call("weather", city="Paris")),
        {"role": "tool", "content": "21 degrees"},
        answer("Warm"),
    ]
    with pytest.raises(DataError, match="changes turn 2"):
        answers("gemma4", tokenizer_for, talk)


def test_tools_reach_a_template_that_knows_them_as_lists() -> None:
    tokenizer = tokenizer_with_marks(
        "{% for t in tools %}{{ t.function.name }};{% endfor %}{% for m in messages %}"
        "{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
        "({{ c.function.arguments.city }}){% endfor %}</s>{% endfor %}"
    )
    rendered = render_row(ROWS["tools"], tokenizer, ChatRenderer(tokenizer))
    assert rendered.text.startswith(
        "weather;Answer in few words.</s>Question one</s>weather(Paris)</s>"
    )
    assert json.loads(ROWS["tools"]["messages"][2]["tool_calls"]), "the row itself stays text"
