"""What a job sees of a stop: wherever its work is, once, and not when it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.jobs.events import last_event, read_events
from core.jobs.task import read_result, stoppable
from core.progress import Tell
from core.workspace import Workspace
from tests.waiting import LIMIT


def asked_to_stop(folder: Path, when: threading.Event) -> None:
    """Somebody asks as soon as the work has come so far."""

    def ask() -> None:
        assert when.wait(LIMIT)
        (folder / "STOP").touch()

    threading.Thread(target=ask, daemon=True).start()


def run(folder: Path, work: Callable[[Tell], dict[str, Any]]) -> str:
    def job(workspace: Workspace, params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        return work(tell)

    return stoppable(job)(folder, folder / "workspace")


def test_silent_work_is_stopped_and_takes_away_what_is_half_written(tmp_path: Path) -> None:
    """It may be deep in a library that says nothing for minutes, and that mends what it can."""
    begun = threading.Event()
    half = tmp_path / "half"
    asked_to_stop(tmp_path, begun)

    def work(tell: Tell) -> dict[str, Any]:
        half.touch()
        try:
            while True:
                try:
                    begun.set()
                    time.sleep(60)
                except Exception:
                    continue
        finally:
            tell(0.5, "taking it away")
            half.unlink()

    assert run(tmp_path, work) == "stopped"
    assert not half.exists() and read_result(tmp_path) is None


def test_a_stop_that_comes_when_the_work_is_done_comes_too_late(tmp_path: Path) -> None:
    """Else somebody is told that nothing was changed, and it was."""
    done = threading.Event()
    asked_to_stop(tmp_path, done)

    def work(tell: Tell) -> dict[str, Any]:
        tell(1.0, "Done")
        done.set()
        while not (tmp_path / "STOP").exists():
            time.sleep(0.01)
        return {"rows": 3}

    assert run(tmp_path, work) == "finished"
    assert read_result(tmp_path) == {"rows": 3}


def test_what_is_told_again_and_again_is_written_once(tmp_path: Path) -> None:
    def work(tell: Tell) -> dict[str, Any]:
        for _ in range(1000):
            tell(0.25, "waiting for a reply")
        return {}

    assert run(tmp_path, work) == "finished"
    progress = [event for event in read_events(tmp_path / "events.jsonl") if "fraction" in event]
    assert [event["fraction"] for event in progress] == [0.25, 1.0]
    newest = last_event(tmp_path / "events.jsonl", "progress")
    assert newest is not None and newest["message"] == "Done"
    assert last_event(tmp_path / "none.jsonl", "progress") is None
