"""Lists that Python wrote into a cell, as `to_csv` does: read, or refused with the reason; they are
never learned as they stand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.conversion import convert
from core.data.prepare import import_dataset
from core.data.python_text import MOST_CHARS, NotRead, is_python, read_python
from core.data.registry import read_rows
from core.data.values import Unusable
from core.workspace import Workspace

TURNS = [
    {"role": "user", "content": 'What\'s in drawer "0"?'},
    {"role": "assistant", "content": "Pens.\nAnd [ink], it's said."},
]


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    "write",
    [
        str,
        lambda turns: str(np.array(turns, dtype=object)),
        lambda turns: repr(np.array(turns, dtype=object)),
        lambda turns: str([{**turn, "name": None} for turn in turns]),
        lambda turns: str([{"meta": {"id": [1, {}]}, **turn} for turn in turns]),
        lambda turns: "[" + ", ".join(f"OrderedDict({list(t.items())})" for t in turns) + "]",
        lambda turns: "[" + ", ".join(f"OrderedDict({turn})" for turn in turns) + "]",
    ],
)
def test_conversations_are_read_however_python_wrote_them(
    write: Any, open_workspace: Workspace, tmp_path: Path
) -> None:
    path = written(tmp_path, [{"messages": write(TURNS)} for _ in range(3)])
    info = import_dataset(open_workspace, [path], eval_fraction=0)
    assert (info.form, info.counts.dropped) == ("messages", 0)
    assert read_rows(open_workspace, info.id)[0]["messages"] == TURNS


def test_sides_of_a_preference_are_read(open_workspace: Workspace, tmp_path: Path) -> None:
    """The list itself was the answer that a model learned."""
    sides = {"chosen": "Gate 0 is open.", "rejected": "No."}
    answers = {name: [{"content": said, "role": "assistant"}] for name, said in sides.items()}
    row = {"prompt": "Open?", **{name: str(turns) for name, turns in answers.items()}}
    info = import_dataset(open_workspace, [written(tmp_path, [row] * 3)], eval_fraction=0)
    read = read_rows(open_workspace, info.id)[0]
    assert read["chosen"] == answers["chosen"] and read["rejected"] == answers["rejected"]


@pytest.mark.parametrize(
    "cell",
    ["['rain', 'wind']", "['rain' 'wind']", "('rain', 'wind')", "{'rain', 'wind'}",
     "['rain'\n 'wind']",
     "array(['rain', 'wind'], dtype=object)", "[np.str_('rain'), np.str_('wind')]"],
)  # fmt: skip
def test_several_labels_are_several_labels(cell: str) -> None:
    row = convert({"t": "text", "l": cell}, "labelled-text", {"text": "t", "label": "l"})
    assert row["labels"] == ["rain", "wind"]


def test_lists_of_labels_are_recognised(open_workspace: Workspace, tmp_path: Path) -> None:
    labels = ["['rain', 'wind']", "['rain']", "['sun']"] * 10
    rows = [{"text": f"A day {n}, as it was", "labels": cell} for n, cell in enumerate(labels)]
    info = import_dataset(open_workspace, [written(tmp_path, rows)], eval_fraction=0)
    assert info.labels == {"rain": 20, "wind": 10, "sun": 10}


def test_tools_and_calls_are_read() -> None:
    turns = [
        TURNS[0],
        {"role": "assistant", "tool_calls": "[{'name': 'find', 'arguments': {'all': True}}]"},
        {"role": "tool", "content": "2"},
        TURNS[1],
    ]
    mapping = {"messages": "m", "tools": "t"}
    row = convert({"m": turns, "t": "[{'name': 'find', 'strict': None}]"}, "messages", mapping)
    assert '"all": true' in row["messages"][1]["tool_calls"] and '"find"' in row["tools"]


@pytest.mark.parametrize(
    "cell",
    [
        "[{'role': 'user', 'content': 'cut off in the mid",
        "[{'id': 1, 'role': 'user', 'content': 'cut off in the mid",
        "[{'id': 1, 'role': 'user', 'content': 'it's broken'}]",
        "[{'role': 'user', 'content': 'x'}, ..., {'role': 'assistant', 'content': 'y'}]",
        "[{'role': 'user', 'content': open('/etc/passwd')}]",
        "[{'role': 'user', 'content': b'x'}]",
        "[{'meta': {'id': 1}, 'role': 'user', 'content': 'cut off in the mid",
        "[OrderedDict([('role', 'user'), ('content', 'cut off in the mid",
        "[OrderedDict([('id', 1), ('role', 'user'), ('content', 'cut off in the mid",
        "[OrderedDict({'role': 'user', 'content': open('/etc/passwd')})]",
        "[OrderedDict([('role', 'user', 'x')])]",
    ],
)
def test_what_cannot_be_read_is_refused_everywhere(cell: str) -> None:
    """Half a list in Python's words would be learned as an answer."""
    answer = {"prompt": "q", "chosen": cell, "rejected": "r", "completion": cell, "text": cell}
    for form, fields in (
        ("messages", {"messages": "text"}),
        ("prompt-completion", {"prompt": "prompt", "completion": "completion"}),
        ("preference", {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}),
        ("text", {"text": "text"}),
    ):
        with pytest.raises(Unusable, match="looks like a list that was written as text, but it"):
            convert(answer, form, fields)
    with pytest.raises(Unusable, match="no list of labels"):
        convert({"t": "x", "l": "['rain', 'wi"}, "labelled-text", {"text": "t", "label": "l"})


def test_answers_that_are_python_or_brackets_stay_as_they_are() -> None:
    """A model that writes code, or labels in brackets."""
    for said in ("['a', 'b']", "[1 2]", "{'a': 1}", "('a',)", "a list: ['x']", "array([",
                 "OrderedDict([('a', 1)])"):  # fmt: skip
        mapping = {"prompt": "q", "completion": "a"}
        row = convert({"q": "q", "a": said}, "prompt-completion", mapping)
        assert row["completion"][0]["content"] == said
    row = convert({"t": "x", "l": "[positive]"}, "labelled-text", {"text": "t", "label": "l"})
    assert row["labels"] == ["[positive]"]


@pytest.mark.parametrize(
    "text",
    ["[" * 400 + "'a'" + "]" * 400, "['" + "x" * MOST_CHARS + "']", "[" + "-" * 9000 + "1]",
     "[" + "1+" * 9000 + "1]", "['\0']", "[__import__('os').getcwd()]", "[1, 'a' 'b', ...]"],
)  # fmt: skip
def test_a_text_that_is_made_to_harm_is_a_reason(text: str) -> None:
    with pytest.raises(NotRead):
        read_python(text)


def test_names_and_values_are_those_of_json() -> None:
    text = "{1: (True, None, nan), 'b': {'c': array([1, 2])}}"
    assert is_python(text)
    assert read_python(text) == {"1": [True, None, None], "b": {"c": [1, 2]}}
