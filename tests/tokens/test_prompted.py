"""Prompts and reference answers of every form that learning from rewards takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import import_dataset
from core.errors import ConfigError, DataError
from core.jobs.store import Store
from core.rules import parse_config
from core.rules.data import data_problems, reward_problems
from core.runs.submit import submit_run
from core.tokens.prompts import has_answers, prompted
from core.workspace import Workspace

ASK = {"role": "user", "content": "2 + 2?"}
SAID = {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"prompt": [ASK], "answer": "4"}, [ASK], "4"),
        ({"prompt": [ASK], "answer": None}, [ASK], None),
        ({"prompt": [ASK], "completion": [SAID]}, [ASK], "4"),
        ({"messages": [ASK, SAID, ASK, SAID]}, [ASK, SAID, ASK], "4"),
        ({"messages": [ASK, SAID, {"role": "user", "content": "Thanks"}]}, [ASK], "4"),
    ],
)
def test_the_last_answer_is_what_a_reward_compares_with(
    row: dict[str, Any], prompt: list[Any], answer: str | None
) -> None:
    made = prompted(row)
    assert (made.prompt, made.answer) == (prompt, answer)
    with_system = prompted(row, "Be brief.").prompt
    assert with_system == [{"role": "system", "content": "Be brief."}, *prompt]


@pytest.mark.parametrize("row", [{"messages": [ASK]}, {"messages": [SAID]}])
def test_a_row_without_anything_to_answer_says_so(row: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        prompted(row)


def test_rows_without_reference_answers_are_refused_where_a_function_needs_one(
    workspace: Path,
) -> None:
    """Else a run would learn from nothing for hours."""
    opened = Workspace.open(workspace)
    opened.uploads.mkdir(exist_ok=True)
    found = {}
    for name, more in (("asked", {}), ("known", {"ground_truth": "4"})):
        path = opened.uploads / f"{name}.jsonl"
        rows = [{"prompt": f"{n} + {n}?", **more} for n in range(4)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[name] = import_dataset(opened, [path], name=name, eval_fraction=0.0)
    assert (has_answers(found["asked"]), has_answers(found["known"])) == (False, True)
    settings = {
        "method": "grpo",
        "evaluation.eval_strategy": "no",
        "reinforcement.rewards": ["json_valid", "numeric_answer"],
    }
    for name, wrong in (("asked", 1), ("known", 0)):
        config = parse_config({**settings, "data.dataset": name})
        assert data_problems(found[name], config) == []
        problems = reward_problems(found[name], config, opened)
        assert len(problems) == wrong
        assert all(problem.field == "reinforcement.rewards" for problem in problems)
    assert reward_problems(found["asked"], parse_config({}), opened) == []
    with pytest.raises(ConfigError, match="no reference answers"):
        submit_run(opened, Store.open(opened), parse_config({**settings, "data.dataset": "asked"}))
