"""Rows in shapes that exports and programs give them: each way in ends in the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.inspection import inspect_source
from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.data.registry import read_rows
from core.errors import DataError
from core.workspace import Workspace
from tests.data.shaping import bring

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def imported(workspace: Workspace, path: Path, **settings: Any) -> tuple[DatasetInfo, list[Any]]:
    info = import_dataset(workspace, [path], eval_fraction=0, **settings)
    return info, read_rows(workspace, info.id, limit=100)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.jsonl", f"{json.dumps(TURNS)}\n" * 3),
        ("one.jsonl", json.dumps(TURNS)),
        ("lists.json", json.dumps([TURNS, TURNS], indent=1)),
        ("gemini.json", json.dumps({"contents": [{"role": "user", "parts": [{"text": "q"}]},
                                                 {"role": "model", "parts": [{"text": "a"}]}]})),
    ],
)  # fmt: skip
def test_a_bare_list_of_turns_is_a_conversation(
    name: str, text: str, open_workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    info, rows = imported(open_workspace, path)
    assert info.form == "messages" and info.counts.dropped == 0
    assert all(row["messages"] == TURNS for row in rows)


def test_a_long_conversation_on_the_first_line_is_still_one_of_many(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    long = [{"role": "user", "content": "q" * 100_000}, TURNS[1]]
    path.write_text(f"{json.dumps(long)}\n{json.dumps(TURNS)}\n", encoding="utf-8")
    assert imported(open_workspace, path)[0].counts.train == 2


@pytest.mark.parametrize(
    ("line", "sign"), [("sep=;", ";"), ('"sep=;"', ";"), ("SEP=|", "|"), ("sep=\t", "\t")]
)
def test_the_line_that_tells_excel_the_separator_is_no_header(
    line: str, sign: str, open_workspace: Workspace, tmp_path: Path
) -> None:
    """As Excel writes it, with a BOM, and commas and semicolons in the texts."""
    path = tmp_path / "rows.csv"
    asked = ['"Wie groß, genau; bitte?"', '"Und ""das""?"']
    cells = [["question", "answer"], [asked[0], "3,0 m"], [asked[1], "4"]]
    text = "\r\n".join([line, *(sign.join(row) for row in cells), sign.join(["a"] * 3)])
    path.write_text(text, encoding="utf-8-sig")
    report = inspect_source(path)
    assert report.columns == ["question", "answer"] and report.form == "prompt-completion"
    assert report.problems == [{"line": 5, "reason": "3 values for 2 columns", "file": "rows.csv"}]
    _, rows = imported(open_workspace, path)
    assert rows[0]["prompt"][0]["content"] == "Wie groß, genau; bitte?"
    assert [row["completion"][0]["content"] for row in rows] == ["3,0 m", "4"]


def said(*texts: str) -> list[dict[str, str]]:
    """Turns of user and assistant in their order."""
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def test_pairs_with_a_parent_are_one_conversation(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """An answer to what was said before teaches nothing without it."""
    path = tmp_path / "rows.csv"
    lines = ("1,,Jammed.,Which model?,print", "2,1.0,The grey one.,Open the lid.,print")
    path.write_text("\n".join(["id,parent_id,instruction,output,topic", *lines]))
    info, rows = imported(open_workspace, path)
    talk = said("Jammed.", "Which model?", "The grey one.", "Open the lid.")
    assert [row["messages"] for row in rows] == [talk]
    assert rows[0]["meta"] == {"tree": "1", "id": "2", "topic": "print"}
    assert "conversation by parent_id" in info.form_reason
    alone = {"prompt": "instruction", "completion": "output"}
    assert len(imported(open_workspace, path, mapping=alone, name="alone")[1]) == 2


def test_a_tree_of_messages_is_a_conversation_for_each_path(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """As OpenAssistant has them. Whatever is left out is counted with its reason."""
    messages = [
        *(("q", None, "prompter", "q"), ("a", "q", "assistant", "a"), ("b", "q", "assistant", "b")),
        *(("q2", "a", "prompter", "q2"), ("a2", "q2", "assistant", "a2")),
        *(("q3", "b", "prompter", "q3"), ("lost", "gone", "assistant", "l")),
        *(("x", "y", "prompter", "x"), ("y", "x", "assistant", "y"), ("a", "q", "assistant", "no")),
    ]
    rows = [
        {"message_id": own, "parent_id": parent, "role": role, "text": text, "lang": "en"}
        for own, parent, role, text in messages
    ]
    rows[1]["reasoning"], rows[2]["weight"] = "Hm.", 0  # type: ignore[assignment]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    first, second = read_rows(open_workspace, info.id)
    wanted = said("q", "b")
    wanted[1]["weight"] = 0.0  # type: ignore[assignment]
    assert first["messages"] == wanted
    wanted = said("q", "a", "q2", "a2")
    wanted[1]["reasoning_content"] = "Hm."
    assert second["messages"] == wanted and second["meta"]["lang"] == "en"
    dropped = {drop.line: drop.reason for drop in info.dropped}
    assert dropped[6] == "nobody answers this turn"
    assert "what was said before is missing" in dropped[7]
    assert dropped.keys() == {6, 7, 8, 9, 10} and "more than once" in dropped[10]
    assert info.counts.read == info.counts.train + info.counts.dropped == 7


@pytest.mark.parametrize("parents", [[None, None], ["", "0"], ["elsewhere", "there"]])
def test_rows_without_a_parent_among_them_stand_alone(
    parents: list[Any], open_workspace: Workspace, tmp_path: Path
) -> None:
    rows = [
        {"id": n, "parent_id": parent, "question": f"q{n}", "answer": "a"}
        for n, parent in enumerate(parents, 1)
    ]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    assert (info.form, info.counts.train) == ("prompt-completion", 2)


def test_a_deep_tree_costs_no_more_than_its_rows(open_workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        {"id": n, "parent_id": n - 1 if n else None, "question": "q", "answer": f"a{n}"}
        for n in range(3000)
    ]
    rows += [{"id": 5000, "parent_id": 10, "question": "q", "answer": "a"}]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    assert info.counts.train == 1 and "more than 1,000 turns" in info.dropped[0].reason


NESTED = {"id": 1, "data": {"conversation": {"messages": TURNS, "system": "Be brief."}, "n": 2}}


def test_a_conversation_inside_objects_is_named_with_dots(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    mapping = {"messages": "data.conversation.messages", "system": "data.conversation.system"}
    with pytest.raises(DataError, match="messages=data.conversation.messages"):
        bring(open_workspace, tmp_path, [NESTED] * 3)
    info = bring(open_workspace, tmp_path, [NESTED] * 3, mapping=mapping, eval_fraction=0)
    row = read_rows(open_workspace, info.id)[0]
    assert row["messages"] == [{"role": "system", "content": "Be brief."}, *TURNS]
    assert info.form == "messages" and info.mapping == mapping and row["meta"] == {"id": 1}
    assert "Not used: id." in info.form_reason


def test_a_column_with_a_dot_in_its_name_comes_first(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    row = {"data": {"q": "inside"}, "data.q": "outside", "a": "{x}", "t": '{"x": [{"y": "z"}]}'}
    mapping = {"prompt": "{data.q} {t.x.0.y}", "completion": "a"}
    info = bring(open_workspace, tmp_path, [row] * 2, mapping=mapping, eval_fraction=0)
    assert read_rows(open_workspace, info.id)[0]["prompt"][0]["content"] == "outside z"


def test_a_row_without_what_the_name_leads_to_is_dropped_with_that_reason(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    rows = [NESTED, NESTED, {"id": 3, "data": {"conversation": None}}, {"id": 4, "data": "text"}]
    mapping = {"messages": "data.conversation.messages"}
    info = bring(open_workspace, tmp_path, rows, mapping=mapping, eval_fraction=0)
    assert [drop.line for drop in info.dropped] == [3, 4]
    assert "nothing under data.conversation.messages" in info.dropped[0].reason
    with pytest.raises(DataError, match="There is no column nowhere.messages"):
        bring(open_workspace, tmp_path, rows, mapping={"messages": "nowhere.messages"})


def test_a_tree_of_messages_is_named_and_no_path_that_leads_nowhere(tmp_path: Path) -> None:
    """ChatGPT's export: the path that was named held who speaks in one message, under its id."""
    said = {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["q"]}}
    tree = {
        "a-1": {"id": "a-1", "message": None, "parent": None, "children": ["b-2"]},
        "b-2": {"id": "b-2", "message": said, "parent": "a-1", "children": []},
    }
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{"title": "t", "mapping": tree}] * 2))
    report = inspect_source(path)
    assert report.form is None and "as ChatGPT exports them" in report.hint
    assert "messages=" not in report.hint
    path.write_text(json.dumps([{"n": 1, "data": {"talk": TURNS}}, {"n": 2, "data": {}}]))
    assert "messages=" not in inspect_source(path).hint, "it leads nowhere in the second row"
    path.write_text(json.dumps([{"n": 1, "data": {"talk": TURNS}}] * 2))
    assert "messages=data.talk" in inspect_source(path).hint
