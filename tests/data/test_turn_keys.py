"""What a turn says beside role and content: kept and honoured, or named; never gone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.conversion import convert, unused_turn_keys
from core.data.detection import choose
from core.data.drafts.prompting import word_request
from core.data.drafts.rows import checked_row
from core.data.drafts.settings import DraftSettings
from core.data.inspection import inspect_source
from core.data.record import DatasetInfo
from core.data.registry import read_rows
from core.data.rowtext import map_texts
from core.data.steps import parse_steps
from core.data.values import Unusable
from core.data.versions import apply_steps
from core.errors import DataError
from core.workspace import Workspace
from tests.data.shaping import bring

ASKED = {"role": "user", "content": "q"}
MAPPING = {"messages": "m"}


def chat(*turns: dict[str, Any], **beside: Any) -> list[dict[str, Any]]:
    made = convert({"m": list(turns), **beside}, "messages", MAPPING)
    found: list[dict[str, Any]] = made["messages"]
    return found


def answer(**said: Any) -> dict[str, Any]:
    """What an answer with these keys becomes."""
    return chat(ASKED, {"role": "assistant", "content": "a", **said})[1]


@pytest.mark.parametrize(
    "mark",
    [
        {"weight": 0}, {"weight": 0.0}, {"weight": "0"}, {"train": False}, {"loss": False},
        {"loss_weight": 0}, {"loss_scale": 0}, {"masked": True}, {"trainable": "false"},
        {"weight": 1, "train": False}, {"Weight": 0}, {"lossWeight": 0}, {"loss": "off"},
    ],
)  # fmt: skip
def test_a_turn_that_is_not_to_be_learned_stays_marked(mark: dict[str, Any]) -> None:
    """OpenAI's weight, and the marks of others: a wrong answer would be learned."""
    assert answer(**mark) == {"role": "assistant", "content": "a", "weight": 0.0}


def test_a_loss_weight_and_a_turn_to_learn_are_kept() -> None:
    assert answer(loss_weight=0.25)["weight"] == 0.25
    assert answer(train=True)["weight"] == answer(masked=False)["weight"] == 1.0
    assert "weight" not in answer() and "weight" not in answer(weight=None)


def test_mask_and_skip_are_marks_where_they_are_true_or_false() -> None:
    """As a number a mask also means what is learned: then it is named, not guessed."""
    assert answer(mask=True)["weight"] == answer(skip="true")["weight"] == 0.0
    assert answer(mask=False)["weight"] == 1.0
    assert "weight" not in answer(mask=1)
    row = {"m": [ASKED, {"role": "assistant", "content": "a", "mask": 1}]}
    assert list(unused_turn_keys(row, MAPPING)) == ["mask"]
    row["m"][1]["mask"] = True
    assert list(unused_turn_keys(row, MAPPING)) == []


TALK = [ASKED, {"role": "assistant", "content": "a"}] * 2
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("name", "marks", "turns", "weights"),
    [
        ("weights", [0, 1], TALK, [None, 0, None, 1]),
        ("loss_mask", [0, 1, 0, 0], TALK, [0, 1, 0, 0]),
        ("loss_mask", [0, 0, 1], [SYSTEM, *TALK[:2]], [0, 0, 1]),
        ("weights", "[0, 0.5]", TALK, [None, 0, None, 0.5]),
        ("weights", [False, None], TALK, [None, 0, None, None]),
        ("Weights", [1], TALK[:2], [None, 1]),
    ],
)
def test_marks_in_a_column_beside_a_conversation_are_those_of_its_turns(
    name: str, marks: Any, turns: list[dict[str, Any]], weights: list[float | None]
) -> None:
    """An answer that is marked as wrong would be learned."""
    row = {"messages": turns, name: marks}
    found = choose([row])
    assert found.mapping["weights"] == name and not found.warnings
    made = convert(row, "messages", found.mapping)["messages"]
    assert [turn.get("weight") for turn in made] == weights


def test_a_turns_own_mark_and_one_beside_it_count_as_the_least() -> None:
    turns = [ASKED, {"role": "assistant", "content": "a", "weight": 0.5}]
    mapping = {"messages": "m", "weights": "w"}
    for beside, least in ([1], 0.5), ([0], 0), (0, 0), (True, 0.5):
        made = convert({"m": turns, "w": beside}, "messages", mapping)["messages"]
        assert made[1]["weight"] == least


def test_marks_that_fit_nothing_are_a_warning_and_no_guess() -> None:
    odd = {"messages": TALK, "loss_mask": [0, 1, 1]}
    found = choose([odd])
    assert "weights" not in found.mapping
    (warning,) = found.warnings
    assert warning == (
        "The column loss_mask is not used, and it looks like marks of which turns are learned, "
        "which fit neither all turns nor the answers among them."
    )
    (warning,) = choose([{"messages": TALK, "mask": [0, 1]}]).warnings
    assert warning.endswith("Choose it as weights (--map weights=mask) to use it.")
    (warning,) = choose([{"messages": TALK, "train": False}]).warnings
    assert "--map weights=train" in warning
    assert not choose([{"messages": TALK, "weight": 72.5}]).warnings
    with pytest.raises(Unusable, match="3 weights stand beside 4 turns, 2 of them"):
        convert(odd, "messages", {"messages": "messages", "weights": "loss_mask"})


@pytest.mark.parametrize(
    "key",
    [
        *("reasoning_content", "reasoning", "thinking", "thought", "think", "cot"),
        *("reasoningContent", "Reasoning", "scratchpad"),
    ],
)
def test_a_thought_is_kept_whatever_it_is_called(key: str) -> None:
    assert answer(**{key: "Hm."})["reasoning_content"] == "Hm."


THINKING = {"role": "assistant", "content": "a", "reasoning_content": "Hm."}


@pytest.mark.parametrize("key", ["reasoning_content", "Reasoning", "cot", "thought", "thinking"])
@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"prompt": "q", "completion": "a"}, "completion"),
        ({"instruction": "q", "output": "a"}, "completion"),
        ({"messages": [ASKED, {"role": "assistant", "content": "a"}]}, "messages"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
         "messages"),
    ],
)  # fmt: skip
def test_a_column_with_a_thought_is_the_thought_of_the_last_answer(
    row: dict[str, Any], where: str, key: str
) -> None:
    """The model would learn to answer without the thought that the file holds for it."""
    rows = [{**row, key: "Hm."}, row, {**row, key: ""}]
    found = choose(rows)
    assert found.mapping["reasoning_content"] == key and not found.warnings
    assert key in found.reason
    first, *others = (convert(one, found.form or "", found.mapping) for one in rows)
    assert first[where][-1] == THINKING
    assert [one[where][-1] for one in others] == [{"role": "assistant", "content": "a"}] * 2


def test_a_thought_that_an_answer_has_itself_is_not_set_before_it_twice() -> None:
    mapping = {"prompt": "p", "completion": "c", "reasoning_content": "cot"}
    for said in ("<think>Hm.</think>a", "Hm.</think>a", "<reasoning>Hm.</reasoning>a"):
        made = convert({"p": "q", "c": said, "cot": "Hm."}, "prompt-completion", mapping)
        assert made["completion"] == [{"role": "assistant", "content": said}]
    made = convert({"p": "q", "c": "a", "cot": ["One.", "Two."]}, "prompt-completion", mapping)
    assert made["completion"][0]["reasoning_content"] == "One.\nTwo."


def test_a_column_that_may_hold_a_thought_is_named_with_what_would_use_it() -> None:
    (warning,) = choose([{"prompt": "q", "completion": "a", "rationale": "Because."}]).warnings
    assert warning == (
        "The column rationale is not used, and it looks like a thought before the answer. Choose "
        "it as reasoning_content (--map reasoning_content=rationale) to use it."
    )
    pair = {"prompt": "q", "chosen": "a", "rejected": "b", "reasoning": "Because."}
    (warning,) = choose([pair]).warnings
    assert warning.endswith("looks like a thought before the answer.")


def test_a_thought_before_a_call_of_a_tool_is_kept() -> None:
    calls = [{"function": {"name": "find", "arguments": {}}}]
    turns = chat(
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "Look."},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "a"},
    )
    assert turns[1]["reasoning_content"] == "Look." and "find" in turns[1]["tool_calls"]
    shared = chat(
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": json.dumps(calls[0]["function"]), "thinking": "Look."},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "a"},
    )
    assert shared[1]["reasoning_content"] == "Look."


def test_a_thought_in_parts_or_in_a_turn_of_its_own_is_the_thought_of_its_answer() -> None:
    """As Anthropic, Gemini, OpenAI's Responses and gpt-oss write it."""
    wanted = [ASKED, {"role": "assistant", "content": "a", "reasoning_content": "Hm."}]
    summary = [{"type": "summary_text", "text": "Hm."}]
    for content in (
        [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "a"}],
        [{"text": "Hm.", "thought": True}, {"text": "a"}],
        [{"type": "reasoning", "summary": summary}, {"type": "output_text", "text": "a"}],
    ):
        assert chat(ASKED, {"role": "assistant", "content": content}) == wanted
    final = {"role": "assistant", "content": "a", "channel": "final"}
    thought = {"role": "assistant", "content": "Hm.", "channel": "analysis"}
    assert chat(ASKED, thought, final) == wanted
    assert chat(ASKED, {"role": "thinking", "content": "Hm."}, final) == wanted
    with pytest.raises(Unusable, match="no answer follows"):
        chat(ASKED, thought, ASKED, final)


@pytest.mark.parametrize(
    "content",
    [
        "q?", ["q", "?"], [{"type": "text", "text": "q"}, {"type": "text", "value": "?"}],
        [{"text": "q"}, "?"], {"type": "text", "text": "q?"},
        [{"type": "input_text", "text": "q?"}], [{"type": "text", "text": {"value": "q?"}}],
    ],
)  # fmt: skip
def test_parts_are_text_in_every_spelling(content: Any) -> None:
    assert chat({"role": "user", "content": content}, answer())[0] == {**ASKED, "content": "q?"}


def test_geminis_contents_are_a_conversation(open_workspace: Workspace, tmp_path: Any) -> None:
    rows = [
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": f"Which {n}?"}]},
                {"role": "model", "parts": [{"text": "The red "}, {"text": "one."}]},
            ],
        }
        for n in range(3)
    ]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    assert read_rows(open_workspace, info.id)[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which 0?"},
        {"role": "assistant", "content": "The red one."},
    ]
    assert info.unused_keys == {}


@pytest.mark.parametrize(
    "turn",
    [
        {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"content": [{"type": "image", "text": ""}, {"type": "text", "text": "q"}]},
        {"content": [{"image": "x.png"}, {"text": "q"}]},
        {"parts": [{"inlineData": {"data": "x"}}, {"text": "q"}]},
        {"content": "q", "images": ["x.png"]},
        {"content": "<image>\nq"},
        {"content": [{"type": "input_audio", "input_audio": {}}]},
        {"content": "q", "video": "x.mp4"},
        {"content": "q", "imagePath": "x.png"},
        {"content": "q", "attachments": ["x.png"]},
        {"content": "Image-1: <image>\nImage-2: <image>\nCompare."},
        {"content": "Look: <|vision_start|><|image_pad|><|vision_end|>"},
        {"content": "See ![x](data:image/png;base64,iVBO) there"},
    ],
)
def test_a_turn_with_a_picture_or_a_sound_is_refused(turn: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match="only text can be learned"):
        chat({"role": "user", **turn}, answer())


def test_words_about_pictures_are_words() -> None:
    """A feed's <image> element, a page's <video src>, a name in backticks and a picture that was
    cut off when it was written down are text."""
    for words in (
        "<rss><image><url>x</url></image></rss>",
        "a `<video src='x'>` tag",
        "an image",
        '{"qr_code": "data:image/png;base64,iVBORw0KGgo... (truncated)"}',
        "src='data:image/png;base64,...'",
    ):
        assert chat({"role": "user", "content": f"Explain {words} please."}, answer())


def test_a_picture_beside_its_place_drops_the_row_and_a_link_alone_does_not() -> None:
    """The word <image> teaches nothing, and an answer about a picture that is not there less."""
    words = {**ASKED, "content": "Look: <image> What is it?"}
    for beside in ({"images": ["a.png"]}, {"image": "a.png"}, {"image_path": "a.png"}):
        with pytest.raises(Unusable, match="a picture .column image"):
            chat(words, answer(), **beside)
    with pytest.raises(Unusable, match="a sound"):
        chat(ASKED, answer(), audios=["a.wav"])
    assert chat(ASKED, answer(), image="https://a.example/a.png", images=[])
    text = convert({"t": "<img> and <image>", "file": "a.md"}, "text", {"text": "t"})
    assert text == {"text": "<img> and <image>"}


def test_other_keys_are_named_and_counted(open_workspace: Workspace, tmp_path: Any) -> None:
    """A mark that nobody knows could mean anything; nobody can see it in the rows any more."""
    told = {"role": "assistant", "content": "a", "mood": "glad", "loss_weight": 7, "refusal": None}
    called = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}, "strict": True}]}
    cached = [{"type": "text", "text": "q", "cache_control": {"type": "ephemeral"}}]
    turns = [{"role": "user", "content": cached}, called, {"role": "tool", "content": "1"}, told]
    rows = [{"messages": turns, "n": n} for n in range(2)]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    wanted = {"content.cache_control": 2, "tool_calls.strict": 2, "mood": 2, "loss_weight": 2}
    assert info.unused_keys == wanted
    assert inspect_source(tmp_path / "rows.jsonl").unused_keys == wanted
    assert DatasetInfo.model_validate_json(info.model_dump_json()).unused_keys == wanted


def test_sides_of_a_preference_are_looked_through_too() -> None:
    row = {"p": "q", "c": [{"role": "assistant", "content": "a", "score": 5}], "r": "b"}
    mapping = {"prompt": "p", "chosen": "c", "rejected": "r"}
    assert convert(row, "preference", mapping)
    assert list(unused_turn_keys(row, mapping)) == ["score"]


USED = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
GAVE = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "21"}]}
_CALL = {"name": "weather", "args": {"city": "Rome"}}
CALLING = {"role": "model", "parts": [{"functionCall": _CALL}]}
_RESPONSE = {"name": "weather", "response": {"c": 21}}
GIVING = {"role": "user", "parts": [{"functionResponse": _RESPONSE}]}


def test_tools_in_parts_are_calls_and_what_they_gave() -> None:
    """As Anthropic and Gemini write them: each row with a tool was dropped."""
    warm = {"role": "assistant", "content": "Warm."}
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    asks = {"role": "assistant", "content": [{"type": "text", "text": "I look."}, USED]}
    turns = chat(ASKED, asks, {"role": "user", "content": [GAVE]}, warm)
    assert json.loads(turns[1].pop("tool_calls")) == [{"id": "t1", **call}]
    assert turns == [
        ASKED, {"role": "assistant", "content": "I look."},
        {"role": "tool", "content": "21", "tool_call_id": "t1"}, warm,
    ]  # fmt: skip
    turns = chat(ASKED, CALLING, GIVING, warm)
    assert json.loads(turns[1]["tool_calls"]) == [call] and turns[1]["content"] == ""
    assert turns[2] == {"role": "tool", "content": '{"c": 21}', "name": "weather"}
    more = {"role": "user", "content": [GAVE, {"type": "text", "text": "And now?"}]}
    assert [turn["role"] for turn in chat(ASKED, asks, more, warm)] == [
        "user", "assistant", "tool", "user", "assistant",
    ]  # fmt: skip
    offered = [{"functionDeclarations": [{"name": "weather"}, {"name": "clock"}]}]
    row = {"m": [ASKED, CALLING, GIVING, warm], "t": offered}
    tools = json.loads(convert(row, "messages", {**MAPPING, "tools": "t"})["tools"])
    assert [tool["function"]["name"] for tool in tools] == ["weather", "clock"]
    row = {"m": [ASKED, asks, {"role": "user", "content": [{**GAVE, "is_error": True}]}, warm]}
    assert list(unused_turn_keys(row, MAPPING)) == ["content.is_error"]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "tool_use", "input": {}}, "calls a tool without a name"),
        ({"type": "tool_use", "name": "f", "input": [1]}, "arguments are not a JSON object"),
        (GAVE, "a part of type tool_result"),
        ({"type": "server_tool_use", "name": "f"}, "a part of type server_tool_use"),
    ],
)
def test_parts_of_tools_that_are_not_plain_drop_the_row_with_that_reason(
    part: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unusable, match=reason):
        chat(ASKED, {"role": "assistant", "content": [part]})
    with pytest.raises(Unusable, match="a part of type tool_use"):
        chat({"role": "user", "content": [USED]}, {"role": "assistant", "content": "a"})


def test_marks_and_thoughts_are_on_the_disk_and_stay_through_steps(
    open_workspace: Workspace, tmp_path: Any
) -> None:
    said = {"role": "assistant", "content": "I am jo@a.example", "weight": 0.5, "name": "Jo"}
    said["reasoning_content"] = "Mail jo@a.example"
    rows = [{"messages": [{**ASKED, "content": f"q {n}"}, said]} for n in range(4)]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    assert read_rows(open_workspace, info.id)[0]["messages"][1] == said
    plain = {"role": "assistant", "content": "a"}
    assert map_texts({"messages": [ASKED, plain]}, str.upper)["messages"][1] == {
        **plain, "content": "A"
    }  # fmt: skip
    steps = parse_steps([{"op": "personal_data"}, {"op": "broken_encoding"}])
    cleaned = apply_steps(open_workspace, info.id, steps)
    turn = read_rows(open_workspace, cleaned.id)[0]["messages"][1]
    assert (turn["weight"], turn["name"]) == (0.5, "Jo")
    assert "@" not in turn["content"] and "@" not in turn["reasoning_content"]


def test_rows_without_new_keys_keep_their_fingerprint(
    open_workspace: Workspace, tmp_path: Any
) -> None:
    """Runs refer to a data set by it."""
    rows = [{"messages": [ASKED, {"role": "assistant", "content": "a"}]}]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    before = "0901355082f0a0a19a36d976c9bfcdc735c2e4c495ddf63ec28fb705fd9308c1"
    assert info.fingerprint == before


def test_a_conversation_without_a_question_is_dropped_unless_it_is_asked_for() -> None:
    """A model that learns answers to nothing answers nothing."""
    system = {"role": "system", "content": "Be brief."}
    greeting = {"role": "assistant", "content": "Hello."}
    for turns in ([greeting], [system, greeting]):
        with pytest.raises(Unusable, match="nothing is asked"):
            chat(*turns)
        kept = convert({"m": turns}, "messages", {**MAPPING, "without_question": "keep"})
        assert kept["messages"] == turns
    assert len(chat(greeting, ASKED, answer())) == 3


def test_a_draft_keeps_marks_and_thoughts_and_an_endpoint_is_not_sent_them() -> None:
    told = {"role": "assistant", "content": "a", "weight": 0.0, "reasoning_content": "Hm."}
    turns = [ASKED, told, ASKED, {"role": "assistant", "content": "b"}]
    assert checked_row({"messages": turns}, "messages")["messages"] == turns
    with pytest.raises(DataError, match="weight"):
        checked_row({"messages": [ASKED, {**told, "weight": 7}]}, "messages")
    settings = DraftSettings(model="m", kind="answer_prompts")
    ask = word_request(settings, "messages", [], 1, [0], [{"messages": turns}], 1)
    assert ask.messages[1] == {"role": "assistant", "content": "a"} and ask.prompt[1] == told
