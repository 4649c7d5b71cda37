"""What each kind of draft asks a model for, and what becomes of its answers."""

from __future__ import annotations

import json
from typing import Any

from core.data.drafts.review import read_drafts
from core.data.drafts.run import run_drafts
from core.data.drafts.tasks import begin
from tests.data.drafts.conftest import completion, questions

QUICK: dict[str, Any] = {"model": "big", "requests_per_minute": 60_000}


def run(workspace: Any, task: Any) -> Any:
    return run_drafts(workspace.root, task.dataset, task.id)


def test_each_prompt_is_answered_once(make_dataset: Any, endpoint: Any) -> None:
    """Prompts without answers become a data set of questions and answers."""
    workspace, info = make_dataset([{"prompt": f"Name a {n}-letter word."} for n in range(2, 6)])
    assert info.form == "prompt-only"
    endpoint.answer = lambda number, body: completion(
        f"<think>hm</think>It is {number}: " + body["messages"][-1]["content"]
    )
    settings = {**QUICK, "kind": "answer_prompts", "rows": 50, "instruction": "Be brief."}
    task = begin(workspace, info.id, settings)
    assert task.drafts_form == "prompt-completion" and task.makes_dataset
    done = run(workspace, task)
    assert done.state == "finished" and "asked once" in done.reason
    assert done.tally.drafts == len(endpoint.bodies) == 4
    assert endpoint.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    drafts, _ = read_drafts(workspace, info.id, task.id)
    for draft in drafts:
        (turn,) = draft.row["prompt"]
        assert turn["role"] == "user"  # the instruction is ours, not the row's
        assert draft.row["completion"][0]["content"].startswith("It is ")
        assert draft.row["completion"][0]["content"].endswith(turn["content"])


def test_an_endpoint_judges_its_answer_against_the_row_s_own(
    make_dataset: Any, endpoint: Any
) -> None:
    workspace, info = make_dataset(questions(4))

    def judge(number: int, body: Any) -> Any:
        shown = json.loads(body["messages"][-1]["content"])
        better = "B" if "land 1" in shown["prompt"] else "A"
        return completion(json.dumps({"answer_b": "Mine", "better": better, "why": "so"}))

    endpoint.answer = judge
    task = begin(workspace, info.id, {**QUICK, "kind": "preference_pairs", "rows": 4})
    assert run(workspace, task).tally.drafts == 4
    drafts, _ = read_drafts(workspace, info.id, task.id)
    chosen = {d.row["prompt"][0]["content"]: d.row["chosen"][0]["content"] for d in drafts}
    assert chosen["What is the capital of land 1?"] == "Mine"
    assert chosen["What is the capital of land 2?"] == "Town 2."


def test_more_rows_of_a_rare_label(make_dataset: Any, endpoint: Any) -> None:
    """Examples are of that label alone, and a label that does not exist is no row."""
    workspace, info = make_dataset(
        [{"text": f"{topic} question {n}", "label": topic} for n in range(6) for topic in "ab"]
    )
    rows = [{"text": "one more", "label": "A"}, {"text": "and one", "label": "c"}]
    endpoint.answer = lambda number, body: completion(json.dumps(rows))
    task = begin(workspace, info.id, {**QUICK, "rows": 1, "only_label": "a"})
    done = run(workspace, task)
    assert done.tally.unusable == {"labels: ... is not a label of this data set": 1}
    content = endpoint.bodies[0]["messages"][-1]["content"]
    assert content.count('"label": "a"') == 4 and '"label": "b"' not in content
    drafts, _ = read_drafts(workspace, info.id, task.id)
    assert drafts[0].row == {"text": "one more", "labels": ["a"]}
