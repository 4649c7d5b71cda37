"""Finding rows by their words: whatever is said in a row is found, wherever it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.rowfile import ROWS_A_GROUP, SCHEMAS, RowWriter, find_rows

TURN = [{"role": "user", "content": "no such thing here"}]
WANTED = [{"role": "assistant", "content": "It is in PARIS, they say."}]
CALL = {"type": "function", "function": {"name": "go", "arguments": {"to": "Paris"}}}


def written(path: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    with RowWriter(path, form) as writer:
        for row in rows:
            writer.add(row)
    return path


def places(path: Path, words: str) -> list[int]:
    return [place for looked in find_rows(path, words) for place in looked.rows]


ROWS: dict[str, dict[str, Any]] = {
    "text": {"text": "It is in paris"},
    "prompt-completion": {"prompt": TURN, "completion": WANTED},
    "messages": {
        "messages": [{"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])}]
    },
    "preference": {"prompt": TURN, "chosen": TURN, "rejected": WANTED},
    "unpaired-preference": {"prompt": TURN, "completion": WANTED, "label": True},
    "prompt-only": {"prompt": TURN, "answer": "Paris"},
    "labelled-text": {"text": "a town", "labels": ["town", "Paris"]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "text": {"text": "elsewhere"},
    "prompt-completion": {"prompt": TURN, "completion": TURN},
    "messages": {"messages": TURN},
    "preference": {"prompt": TURN, "chosen": TURN, "rejected": TURN},
    "unpaired-preference": {"prompt": TURN, "completion": TURN, "label": False},
    "prompt-only": {"prompt": TURN},
    "labelled-text": {"text": "a town", "labels": []},
}


@pytest.mark.parametrize("form", SCHEMAS)
def test_words_are_found_in_every_form_whatever_their_case(tmp_path: Path, form: str) -> None:
    other = OTHERS[form]
    beside = {**other, "meta": {"file": "paris.txt"}}
    path = written(tmp_path / "rows.parquet", form, [other, ROWS[form], other, beside])
    assert places(path, "pARIS") == [1, 3]


def test_a_search_tells_how_far_it_is_and_can_be_left(tmp_path: Path) -> None:
    """A person who looks for a word in a million rows sees the first ones at once."""
    count = 2 * ROWS_A_GROUP + 1
    rows = [{"text": f"number {place}"} for place in range(count)]
    path = written(tmp_path / "rows.parquet", "text", rows)
    looked = find_rows(path, "number")
    assert next(looked).rows == list(range(ROWS_A_GROUP))
    assert [(one.looked, one.total) for one in looked] == [
        (2 * ROWS_A_GROUP, count),
        (count, count),
    ]
    assert places(path, f"number {count - 1}") == [count - 1]


@given(st.lists(st.text(max_size=6), min_size=1, max_size=12), st.text(min_size=1, max_size=3))
def test_what_stands_in_a_row_is_found(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], words: str
) -> None:
    """Signs of a search pattern are words like any others."""
    writable = [text for text in texts if text.isprintable()] or ["a"]
    wanted = "".join(sign for sign in words if sign.isprintable()) or "a"
    path = tmp_path_factory.mktemp("found") / "rows.parquet"
    written(path, "text", [{"text": text} for text in writable])
    found = places(path, wanted)
    assert {place for place, text in enumerate(writable) if wanted in text} <= set(found)
