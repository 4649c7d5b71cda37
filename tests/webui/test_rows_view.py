"""Cards of rows and of tokens: all that a row says is shown, and what the model does not get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.tokens.chat_templates import check_template, list_templates
from core.tokens.lens import Lens
from tests.webui.fakes import fake_app
from tests.webui.test_messages import Tags
from webui.data import row_cards
from webui.data import row_cards as token_view
from webui.template_choice import problem_at, template_choices
from webui.tokens import template_print

USER = {"role": "user", "content": "How warm is it?"}
ANSWER = {"role": "assistant", "content": "Warm enough."}


def text_of(html: str) -> str:
    return " ".join(Tags(html).text.split())


def one(row: dict[str, Any], words: str = "") -> str:
    return row_cards.rows([row], [41], words)


def test_a_pair_shows_both_answers_with_their_names() -> None:
    other = {"role": "assistant", "content": "Go away."}
    html = one({"prompt": [USER], "chosen": [ANSWER], "rejected": [other]})
    assert 'class="side side-chosen"' in html
    assert text_of(html).index("Chosen") < text_of(html).index("Warm enough.")
    assert text_of(html).index("Rejected") < text_of(html).index("Go away.")


@pytest.mark.parametrize(("label", "word"), [(True, "judged good"), (False, "judged bad")])
def test_a_single_answer_says_how_it_was_judged(label: bool, word: str) -> None:
    assert word in text_of(one({"prompt": [USER], "completion": [ANSWER], "label": label}))


def test_a_prompt_shows_the_answer_it_is_checked_against() -> None:
    html = one({"prompt": [USER], "answer": "21 degrees"})
    assert "reference answer 21 degrees" in text_of(str(html).replace("</div>", " </div>"))


def test_labels_and_what_stands_beside_a_row_are_shown() -> None:
    row = {"text": "a cell", "labels": ["biology", "physics"], "meta": {"file": "a.txt", "page": 3}}
    html = one(row)
    assert html.count('class="label"') == 2
    assert "a.txt" in text_of(html)
    assert "Row 42" in text_of(html)


def test_calls_of_tools_can_be_read() -> None:
    """Not as the JSON that they are stored as."""
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    tool = {"type": "function", "function": {"name": "weather", "description": "Tells the weather"}}
    turns = [
        USER,
        {"role": "assistant", "content": "", "tool_calls": json.dumps([call])},
        {"role": "tool", "name": "weather", "content": '{"degrees": 21}'},
    ]
    shown = text_of(one({"messages": turns, "tools": json.dumps([tool])}))
    assert "1 tool offered: weather" in shown
    assert "Tells the weather" in shown
    assert "calls weather" in shown
    assert "Oslo" in shown
    assert '"arguments"' not in shown


@pytest.mark.parametrize(
    "tools",
    [
        "not json",
        "[1, null]",
        '{"a": 1}',
        '[{"function": 5}]',
        '[{"parameters": {"properties": [1]}}]',
        '[{"function": {"arguments": "a"}}]',
    ],
)
def test_tools_of_any_shape_do_not_hide_a_row(tools: str) -> None:
    turn = {"role": "assistant", "content": "still here", "tool_calls": tools}
    assert "still here" in text_of(one({"messages": [turn], "tools": tools}))


def test_found_words_are_marked_and_a_long_text_says_what_it_leaves_out() -> None:
    assert "<mark>WARM</mark>" in one({"text": "so WARM"}, "warm")
    shown = text_of(one({"text": "a" * (row_cards.LONGEST_TURN + 5)}))
    assert "5 more characters are not shown" in shown


def side(title: str, tokens: int, full: int, error: str | None = None) -> dict[str, Any]:
    return {
        "title": title,
        "tokens": [["a", 1, True, False]] * tokens,
        "cut_tokens": [["b", 2, False, False]] * min(full - tokens, 200),
        "length": tokens,
        "full_length": full,
        "loss_tokens": tokens,
        "error": error,
    }


def seen(sides: list[dict[str, Any]], notes: list[str] | None = None) -> dict[str, Any]:
    errors = [one["error"] for one in sides if one["error"]]
    row = {**sides[0], "sides": sides, "notes": notes or [], "label": None, "answer": None}
    return {**row, "error": errors[0] if errors else None}


def test_what_lies_behind_the_cut_is_shown_as_lost() -> None:
    html = token_view.tokens([seen([side("Text", 4, 200)])], [0], 4)
    shown = text_of(html)
    assert "200 tokens, 196 behind the cut, 4 carry loss" in shown
    assert "cut at 4: 196 tokens not seen" in shown
    assert html.index('class="tokens behind"') > html.index('class="cut"')
    assert f"and {196 - token_view.BEHIND} more" in shown


def test_both_answers_of_a_pair_have_their_own_tokens_and_counts() -> None:
    pair = seen([side("Chosen", 3, 3), side("Rejected", 2, 9, "No answer is left.")])
    html = token_view.tokens([pair], [0], 2, "preference")
    assert html.count('class="side side-') == 2
    pair = seen([side("优选", 3, 3), side("拒选", 2, 2)])  # its colours in any language
    said = token_view.tokens([pair], [0], 4, "preference")
    assert "side-chosen" in said and "side-rejected" in said
    assert "No answer is left." in text_of(html)
    assert "preference training" in text_of(html)


def test_what_is_wrong_with_the_template_is_said_once() -> None:
    said, own = "The chat template has marks that the model does not know.", "A row's own note."
    rows = [seen([side("Text", 1, 1)], [said]), seen([side("Text", 1, 1)], [said, own])]
    html = token_view.tokens(rows, [0, 1], 9)
    assert html.count(said) == 1
    assert html.index(said) < html.index("row-card")
    assert text_of(html).count(own) == 1


def test_an_error_of_a_template_is_shown_at_its_line() -> None:
    text = "one\ntwo\n{% for turn in messages %}\n{% endif %}\nfive"
    problem = check_template(text)
    assert problem is not None
    html = problem_at(text, problem)
    assert "Line 4" in text_of(html)
    assert '<li value="4" class="wrong">{% endif %}</li>' in html
    assert '<li value="2">two</li>' in html


def test_the_list_of_templates_has_the_owners_own(workspace: Path) -> None:
    app = fake_app(workspace)
    names = [name for _, name in template_choices(app)]
    assert names[0] == "model"
    assert {one.name for one in list_templates(app.workspace)} < set(names)
    (workspace / "templates").mkdir()
    (workspace / "templates" / "mine.jinja").write_text("{{ messages }}")
    assert ("mine (yours)", "mine") in template_choices(app)


def test_an_edited_template_is_not_taken_for_what_it_was(workspace: Path) -> None:
    """Rows that were shown with the old text would be shown again."""
    app = fake_app(workspace)
    lens = Lens("m", 9, chat_template="mine")
    path = workspace / "templates" / "mine.jinja"
    path.parent.mkdir()
    path.write_text("one")
    before = template_print(app, lens)
    path.write_text("two")
    assert template_print(app, lens) != before


def test_a_lens_from_before_a_setting_was_added_still_opens() -> None:
    """It waits in browsers that were open when the server was renewed."""
    old = {"model": "m", "max_length": 7, "assistant_only_loss": False, "system_prompt": ""}
    assert Lens.read(json.dumps(old)) == Lens("m", 7, "everything", "", "model")
