"""Answers that were rewarded, as Train shows them: the beginning stays beside the latest, and a
resumed run shows each step once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.jobs.events import EventWriter
from core.workspace import RunFolder
from webui.live import LiveRun, Rollouts, completions


def told(step: int, index: int, answer: str = "yes", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "sample",
        "step": step,
        "index": index,
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say <e>"},
        ],
        "answer": answer,
        "expected": "yes",
        "reward": 1.25,
        "rewards": {"has_e": 1.0, "judge": None},
        **changes,
    }


def test_first_and_latest_steps_are_shown_with_what_each_function_gave() -> None:
    rollouts = Rollouts()
    for step in range(1, 9):
        for index in range(2):
            rollouts.take(told(step, index, f"answer {step}-{index}"))
    assert [one.step for one in rollouts.shown()] == [8, 7, 6, 1]
    assert [len(one.completions) for one in rollouts.shown()] == [2, 2, 2, 2]
    html = completions(rollouts)
    assert "answer 8-1" in html and "answer 1-0" in html and "answer 5-0" not in html
    assert "Say &lt;e&gt;" in html and "<e>" not in html
    assert "has_e 1, judge none" in html and ">1.25<" in html
    assert "reference" in html
    assert completions(Rollouts()) == ""


def test_a_resumed_run_forgets_what_it_does_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    writer = EventWriter(folder.events)
    for step in (1, 2, 3):
        event = told(step, 0, f"before {step}")
        writer.write(event.pop("kind"), **event)
    live = LiveRun(folder)
    live.update()
    writer.write("state", state="running", resumed_from_step=1)
    event = told(2, 0, "after 2")
    writer.write(event.pop("kind"), **event)
    live.update()
    shown = [one.completions[0].text for one in live.rollouts.shown()]
    assert shown == ["after 2", "before 1"]
    assert not live.samples, "they are not among the prompts that are watched"
