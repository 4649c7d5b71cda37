"""Quality steps over a data set on disk: what a person sees of them after pressing the button."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import import_dataset
from core.data.registry import read_rows
from core.data.steps import parse_steps
from core.data.versions import apply_steps, try_in_order
from core.workspace import Workspace

QUESTION = "Which of the two towns on the river has the older bridge, and who built it?"
ANSWER = "The town upstream has the older one; the monks of the abbey built it of stone."


@pytest.fixture
def model(tmp_path: Path, word_model: Path) -> Path:
    """The model in a folder that the workspace may read."""
    return Path(shutil.copytree(word_model, tmp_path / "words"))


def chats() -> list[dict[str, Any]]:
    pairs = [
        (f"{QUESTION} ({n})", f"{ANSWER} That was in the year {900 + 7 * n}.") for n in range(12)
    ]
    pairs += [
        ("", "An answer to nothing."),
        ("Will you help me?", "As an AI language model, I cannot help."),
        ("Was ist das hier?", "Das ist eine Antwort auf Deutsch, die hier nichts zu suchen hat."),
        ("Where is it?", "In the cafÃ© over there, next to the station."),
        ("How do I reach you?", "Write to jane@example.org whenever you like."),
        pairs[3],
        (pairs[4][0], pairs[4][1].replace("stone", "wood")),
        ("Tell me all.", "word " * 400),
    ]
    return [{"prompt": question, "completion": answer} for question, answer in pairs]


def test_every_step_shows_what_it_dropped_and_nothing_goes_unseen(
    open_workspace: Workspace, tmp_path: Path, model: Path
) -> None:
    source = tmp_path / "chats.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in chats()), encoding="utf-8")
    info = import_dataset(open_workspace, [source], name="chats", eval_fraction=0.0)
    read = info.counts.train
    steps = parse_steps(
        [
            {"op": "drop_empty"},
            {"op": "drop_length", "model": str(model), "maximum": 200},
            {"op": "drop_refusals"},
            {"op": "keep_languages"},
            {"op": "broken_encoding"},
            {"op": "personal_data"},
            {"op": "drop_duplicates"},
            {"op": "drop_near_duplicates", "threshold": 0.8},
            {"op": "split", "eval_fraction": 0.3},
            {"op": "drop_leaks", "threshold": 0.6},
        ]
    )
    tried = try_in_order(open_workspace, info.id, [steps[2]])[0]
    assert tried.dropped == 1 and tried.listed[0].reason.startswith("answer refuses")
    info = apply_steps(open_workspace, info.id, steps)
    for result in info.steps:
        assert result.rows_in - result.rows_out == result.dropped == len(result.listed)
    dropped = {result.step["op"]: result.dropped for result in info.steps}
    assert dropped["drop_length"] == dropped["drop_refusals"] == dropped["keep_languages"] == 1
    assert dropped["drop_duplicates"] == 1
    assert dropped["drop_near_duplicates"] >= 1
    left = sum(getattr(info.counts, part) for part in info.parts)
    assert left == read - sum(dropped.values())
    words = json.dumps(
        [read_rows(open_workspace, info.id, part, limit=100) for part in info.parts],
        ensure_ascii=False,
    )
    assert "café" in words and "[EMAIL]" in words and "@" not in words


@pytest.mark.parametrize("size", [32, 64])
def test_a_long_document_becomes_blocks_with_their_file(
    size: int, open_workspace: Workspace, tmp_path: Path, model: Path
) -> None:
    source = tmp_path / "book.txt"
    source.write_text(f"{QUESTION} {ANSWER}\n\n" * 30, encoding="utf-8")
    info = import_dataset(open_workspace, [source], name="book", eval_fraction=0.0)
    (step,) = parse_steps([{"op": "cut_text", "model": str(model), "size": size}])
    info = apply_steps(open_workspace, info.id, [step])
    rows = read_rows(open_workspace, info.id, limit=1000)
    assert len(rows) == info.counts.train > 10
    assert [row["meta"]["block"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["meta"]["file"] for row in rows} == {"book.txt"}
    assert " ".join(row["text"] for row in rows).split() == source.read_text().split()
