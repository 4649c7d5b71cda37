"""Thoughts before an answer: where they go, what of them is learned, and which are lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from core.config.sections import LearnedThoughts
from core.errors import DataError
from core.tokens.chat_templates import FROM_TRL, load_template, thought_key
from core.tokens.learn import Learn
from core.tokens.lens import Lens
from core.tokens.prompts import prompt_text
from core.tokens.tokenize import TokenizedRow, tokenize_row
from core.worker.tokenizers import dataset_statistics, preview_rows
from core.workspace import Workspace
from tests.tokens.conftest import CHATML, build_tokenizer
from tests.tokens.template_rows import call
from tests.tokens.test_learn import answer, user
from tests.tokens.test_statistics import prepared
from tests.tokens.test_templates import TRL_TEMPLATES
from tests.tokens.test_tokenize import learned

TokenizerFor = Callable[[str | None], Any]

# As in Qwen3's own template, only the thoughts behind the last question are kept.
THINKER = (
    "{%- set ns = namespace(last=0) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}{%- for m in messages -%}"
    "{{- '<|im_start|>' + m.role + '\n' -}}{%- if m.role == 'assistant' -%}"
    "{%- set thought = '' -%}{%- set said = m.content -%}"
    "{%- if m.reasoning_content is string -%}{%- set thought = m.reasoning_content -%}"
    "{%- elif '</think>' in said -%}"
    "{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip() -%}"
    "{%- set said = said.split('</think>')[-1].strip() -%}{%- endif -%}"
    "{%- if loop.index0 > ns.last -%}"
    "{{- '<think>\n' + thought.strip() + '\n</think>\n\n' + said -}}{%- else -%}{{- said -}}"
    "{%- endif -%}{%- else -%}{{- m.content -}}{%- endif -%}{{- '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n' -}}{%- endif -%}"
)


def thinking(words: str, thought: str, **more: Any) -> dict[str, Any]:
    return answer(words, reasoning_content=thought, **more)


SINGLE = [user("Three cups, two break?"), thinking("One cup.", "3 minus 2 is 1.")]
TALK = [user("One?"), thinking("First.", "Thought one"), user("Two?"), answer("Second.")]


def tokens(
    messages: list[dict[str, Any]], tokenizer: Any, thoughts: LearnedThoughts = "all"
) -> TokenizedRow:
    learn = Learn(thoughts=thoughts)
    return tokenize_row({"messages": messages}, tokenizer, max_length=None, learn=learn)


def test_a_thought_in_its_own_field_stands_where_the_template_wants_it_and_is_learned(
    tokenizer_for: TokenizerFor,
) -> None:
    """The model would learn an empty thought before each answer."""
    tokenizer = tokenizer_for(THINKER)
    (found,) = learned(tokens(SINGLE, tokenizer), tokenizer)
    assert found == "3 minus 2 is 1.\n</think>\n\nOne cup.<|im_end|>"
    assert learned(tokens(SINGLE, tokenizer, "none"), tokenizer) == ["One cup.<|im_end|>"]
    assert "<think>\n3 minus 2 is 1.\n</think>" in tokenizer.decode(
        tokens(SINGLE, tokenizer, "none").input_ids
    ), "it is read all the same"


@pytest.mark.parametrize("template", [CHATML, None])
def test_a_template_that_knows_no_thoughts_gets_them_before_the_words(
    tokenizer_for: TokenizerFor, template: str | None
) -> None:
    tokenizer = tokenizer_for(template)
    end = "<|im_end|>" if template else "</s>"
    assert learned(tokens(SINGLE, tokenizer), tokenizer) == [
        f"<think>\n3 minus 2 is 1.\n</think>\n\nOne cup.{end}"
    ]
    assert learned(tokens(SINGLE, tokenizer, "none"), tokenizer) == [f"One cup.{end}"]


def test_words_of_a_thought_that_the_answer_repeats_do_not_move_the_loss(
    tokenizer_for: TokenizerFor,
) -> None:
    tokenizer = tokenizer_for(THINKER)
    row = [user("Say 1."), thinking("1", "1 it is, so I say 1")]
    assert learned(tokens(row, tokenizer), tokenizer) == [
        "1 it is, so I say 1\n</think>\n\n1<|im_end|>"
    ]
    assert learned(tokens(row, tokenizer, "none"), tokenizer) == ["1<|im_end|>"]


@pytest.mark.parametrize(
    ("thoughts", "first"),
    [("all", "\n</think>\n\nYes.<|im_end|>"), ("not_empty", "Yes.<|im_end|>")],
)
def test_empty_thoughts_are_left_out_of_the_loss_by_choice(
    tokenizer_for: TokenizerFor, thoughts: LearnedThoughts, first: str
) -> None:
    """Rows with and without thoughts in one set would teach the model not to think."""
    tokenizer = tokenizer_for(THINKER)
    assert learned(tokens([user("a"), answer("Yes.")], tokenizer, thoughts), tokenizer) == [first]
    (found,) = learned(tokens(SINGLE, tokenizer, thoughts), tokenizer)
    assert found.startswith("3 minus 2")
    written = [user("a"), answer("<think>\n\n</think>\n\nYes.")]
    plain = tokenizer_for(CHATML)
    (found,) = learned(tokens(written, plain, thoughts), plain)
    assert found.startswith("<think>") is (thoughts == "all") and found.endswith("Yes.<|im_end|>")


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        *((f"<{tag}>", f"</{tag}>") for tag in ("thinking", "thought", "reasoning", "Thinking")),
        ("[THINK]", "[/THINK]"),
        ("<|begin_of_thought|>\n", "\n<|end_of_thought|>\n\n"),
    ],
)
@pytest.mark.parametrize("template", [CHATML, THINKER, None])
def test_a_thought_between_other_marks_is_read_and_not_learned_by_choice(
    tokenizer_for: TokenizerFor, template: str | None, before: str, behind: str
) -> None:
    """The switch would be without effect on rows of every other family; the marks stay, for they
    may be what the model is to write."""
    tokenizer = tokenizer_for(template)
    words = f"{before}3 minus 2 is 1.{behind}One cup."
    row = [user("Three cups, two break?"), answer(words)]
    (read,) = learned(tokens(row, tokenizer, "none"), tokenizer)
    assert "minus" not in read and behind.strip() not in read and read.startswith("One cup.")
    (whole,) = learned(tokens(row, tokenizer), tokenizer)
    assert words in whole
    empty = [row[0], answer(f"{before}\n{behind}One cup.")]
    (left,) = learned(tokens(empty, tokenizer, "not_empty"), tokenizer)
    assert left.startswith("One cup.")


@pytest.mark.parametrize("mark", ["<think>", "<reasoning>"])
@pytest.mark.parametrize("template", [CHATML, None])
def test_a_thought_that_is_never_closed_is_named(
    open_workspace: Workspace, tmp_path: Any, tokenizer_for: TokenizerFor, template: str | None,
    mark: str,
) -> None:  # fmt: skip
    """Nobody can say where the answer begins: the thought would be learned as one."""
    tokenizer = tokenizer_for(template)
    row = [user("Three cups?"), answer(f"{mark}\nLet me see, 3 minus"), user("?"), answer("One.")]
    with pytest.raises(DataError, match=f"begins a thought with {mark} and never closes it"):
        tokens(row, tokenizer, "none")
    assert "Let me see" in learned(tokens(row, tokenizer), tokenizer)[0]
    tokenizer.save_pretrained(tmp_path / "model")
    info = prepared(open_workspace.root, "messages", [{"messages": row}])
    (seen,) = preview_rows(
        open_workspace, info.id, Lens(str(tmp_path / "model"), None), "train", [0]
    )
    assert any(f"begins with {mark} and is never closed" in note for note in seen["notes"])


def test_thoughts_that_the_template_takes_out_are_counted(
    open_workspace: Workspace, tmp_path: Any, tokenizer_for: TokenizerFor
) -> None:
    """Half of what was to be learned would vanish, and nothing would say so."""
    tokenizer_for(THINKER).save_pretrained(tmp_path / "model")
    lens = Lens(str(tmp_path / "model"), None)
    inline = [
        user("One?"),
        answer("<think>\nThought one\n</think>\n\nFirst."),
        user("Two?"),
        answer("Thought two\n</think>\n\nSecond."),
    ]
    info = prepared(
        open_workspace.root,
        "messages",
        [{"messages": TALK}, {"messages": inline}, {"messages": SINGLE}],
    )
    assert dataset_statistics(open_workspace, info.id, lens)["lost_thoughts"] == [2, 0]
    seen = preview_rows(open_workspace, info.id, lens, "train", [0, 1, 2])
    told = ["taken out by this template" in " ".join(row["notes"]) for row in seen]
    assert told == [True, True, False]


def test_a_template_that_takes_every_thought_out_is_not_said_to_spare_the_last(
    tokenizer_for: TokenizerFor,
) -> None:
    tokenizer = tokenizer_for((TRL_TEMPLATES / "deepseek_r1_distill.jinja").read_text())
    row = tokens([*TALK[:3], thinking("Second.", "Thought two")], tokenizer)
    assert row.lost_thoughts == (1, 1)


KEPT = {
    "deepseek-r1": ("<think>\nI must look\n</think>\n\nFirst.", (0, 0)),
    "glm-4.5": ("<think>I must look</think>\nFirst.", (0, 0)),
    "gpt-oss": ("analysis<|message|>I must look<|end|>", (0, 0)),
    "qwen3": ("<think>\nI must look\n</think>\n\nFirst.", (0, 0)),
    "qwen3.5": ("<think>\nI must look\n</think>\n\nFirst.", (0, 0)),
}


@pytest.mark.parametrize("name", FROM_TRL)
def test_bundled_templates_of_thinking_models_learn_the_thought_and_the_end(
    open_workspace: Workspace, name: str
) -> None:
    tokenizer = build_tokenizer(load_template(name, open_workspace))
    row = [user("One?"), thinking("First.", "I must look")]
    written, lost = KEPT[name]
    for turns in (row, [row[0], answer("<think>\nI must look\n</think>\n\nFirst.")]):
        found = tokens(turns, tokenizer)
        (text,) = learned(found, tokenizer)
        assert written in text and found.lost_thoughts == lost
        assert text.rstrip().endswith((">", "｜>")), "the end of the turn is learned"
        (read,) = learned(tokens(turns, tokenizer, "none"), tokenizer)
        assert "I must look" not in read and "First." in read


def test_what_opens_an_answer_is_never_learned(open_workspace: Workspace) -> None:
    """DeepSeek-R1's marks hold <｜Assistant｜>, which each prompt ends with: without a thought the
    model would learn to write it a second time."""
    tokenizer = build_tokenizer(load_template("deepseek-r1", open_workspace))
    end = "<｜end▁of▁sentence｜>"
    talk = [user("One?"), answer("First."), user("Two?"), thinking("Second.", "Hm.")]
    assert learned(tokens(talk, tokenizer), tokenizer) == [
        f"First.{end}", f"<think>\nHm.\n</think>\n\nSecond.{end}"
    ]  # fmt: skip
    marked = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>{{ m.role"
        " }}\n{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    whole = build_tokenizer(marked)
    assert learned(tokens(talk[:2], whole), whole) == ["First.<|im_end|>\n"]


@pytest.mark.parametrize("name", ["qwen3", "glm-4.5", "qwen3.5"])
def test_a_thought_before_a_tool_call_is_kept(open_workspace: Workspace, name: str) -> None:
    tokenizer = build_tokenizer(load_template(name, open_workspace))
    calls = json.dumps([call("weather", city="Paris")])
    talk = [
        user("Weather?"),
        thinking("", "I must look", tool_calls=calls),
        {"role": "tool", "content": "21 degrees"},
        thinking("Warm.", "21 is warm"),
    ]
    found = tokens(talk, tokenizer)
    first, second = learned(found, tokenizer)
    assert "I must look" in first and "weather" in first and found.lost_thoughts == (0, 0)
    assert "21 is warm" in second
    first, second = learned(tokens(talk, tokenizer, "none"), tokenizer)
    assert "I must look" not in first and "weather" in first and "21 is warm" not in second


def test_calls_that_a_template_leaves_out_are_not_passed_over(open_workspace: Workspace) -> None:
    """DeepSeek-R1's drops the calls of a turn that has words: an empty answer would be learned."""
    tokenizer = build_tokenizer(load_template("deepseek-r1", open_workspace))
    calls = json.dumps([call("weather", city="Paris")])
    with pytest.raises(DataError, match="changes turn 2"):
        tokens([user("Weather?"), answer("", tool_calls=calls)], tokenizer)


def test_a_prompt_that_begins_with_no_thought_still_finds_the_one_that_is_learned(
    tokenizer_for: TokenizerFor,
) -> None:
    """The small Qwen3.5 models' prompt ends with an empty thought, which no finished turn has."""
    tokenizer = tokenizer_for((TRL_TEMPLATES / "qwen3_5_nothink.jinja").read_text())
    assert learned(tokens(SINGLE, tokenizer), tokenizer) == [
        "3 minus 2 is 1.\n</think>\n\nOne cup.<|im_end|>"
    ]


def test_a_model_is_asked_with_the_thoughts_it_has_learned_from(
    tokenizer_for: TokenizerFor,
) -> None:
    """Evaluation and chat would give it other words than the training did."""
    text, _ = prompt_text([*SINGLE, user("And now?")], tokenizer_for(CHATML))
    assert "<think>\n3 minus 2 is 1.\n</think>\n\nOne cup." in text


def test_the_key_of_a_thought_is_found_by_trying() -> None:
    """The word `thinking` also names a switch or a kind of content in templates."""
    switch = "{% set thinking = 'thinking' %}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert thought_key(switch) == thought_key("{{ broken") == ""
    assert thought_key(switch.replace("m.content", "m.content ~ m.thinking")) == "thinking"
