"""A conversation as it is drawn: what a model writes is text, whatever it looks like."""

from __future__ import annotations

import pytest

from core.chat.conversations import Lane, Turn
from core.chat.settings import Column, ColumnState
from tests.webui.made_runs import HOSTILE
from webui.chat_lanes import lanes, words


def test_markdown_is_drawn() -> None:
    drawn = words("**Bold** and `code`\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    for part in ("<strong>Bold</strong>", "<code>code</code>", "<li>one</li>", "<td>1</td>"):
        assert part in drawn


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "[x](javascript:alert(1))",
        "![x](http://elsewhere/x.png)",
        f"<think>{HOSTILE}</think>yes",
        f"<tool_call>{HOSTILE}</tool_call>",
        "</div></section><style>*{display:none}</style>",
    ],
)
def test_nothing_of_a_model_is_html(text: str) -> None:
    drawn = words(text)
    for part in ("<script", "<img", "<style", 'href="javascript', "</section>"):
        assert part not in drawn


def test_thoughts_are_folded_and_calls_told() -> None:
    drawn = words('<think>\nhm\n</think>\n\nYes.<tool_call>{"name": "f"}</tool_call>')
    assert drawn.index("<details") < drawn.index("hm") < drawn.index("Yes.") < drawn.index("Call")
    assert "hm" in words("<think>hm")  # it is still thinking
    assert "<details" not in words("<think>\n\n</think>\n\nNo thoughts.")


def test_marks_are_seen_and_only_when_nobody_writes() -> None:
    turns = [Turn("user", "q"), Turn("assistant", "a", mark="up", better=True, edited="b")]
    two = [Lane(Column(label=name), turns) for name in ("one", "two")]
    drawn = lanes(two)
    assert drawn.count('data-act="up" data-id="0.1" aria-pressed="true"') == 1
    assert drawn.count('data-act="better"') == 2 and "As it should have been" in drawn
    assert 'data-act="better"' not in lanes(two[:1])
    assert "data-act" not in lanes(two, [ColumnState("x")] * 2)


def test_who_gave_no_answer_cannot_be_marked() -> None:
    silent = Lane(Column(label="one"), [Turn("user", "q"), Turn("assistant", "")])
    drawn = lanes([silent])
    assert "No answer" in drawn and 'data-act="again"' in drawn and 'data-act="up"' not in drawn
