"""Long work on data in a process of its own: its answer, its errors, and its end."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ConfigError, JobError
from core.jobs.isolated import call_isolated, received
from core.jobs.process import WorkerContext
from tests.jobs import children


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerContext]:
    """A fork server without torch, which is there at once."""
    workers = WorkerContext(("json",))
    yield workers
    workers.close()


def test_the_answer_and_the_progress_come_back(workers: WorkerContext) -> None:
    heard: list[tuple[float, str]] = []
    answer = call_isolated(
        children.add_slowly, 2, second=3, workers=workers, tell=lambda *told: heard.append(told)
    )
    assert answer == 5
    # On a slow machine it may be told a few times before that it is starting.
    assert heard[-1] == (0.5, "adding to 2")


def test_it_leaves_the_cores_to_the_page(workers: WorkerContext) -> None:
    """A page that shares its cores with a long import or a training answers at once."""
    assert call_isolated(children.priority, workers=workers) > os.nice(0)


def test_an_error_keeps_its_fields(workers: WorkerContext) -> None:
    """A wrong setting must be marked at its field, also when it was found in another process."""
    with pytest.raises(ConfigError) as caught:
        call_isolated(children.refuse, "too high", workers=workers)
    assert [problem.field for problem in caught.value.problems] == ["training.learning_rate"]
    assert caught.value.hint == "Lower it."


def test_a_fault_is_told_and_not_swallowed(workers: WorkerContext) -> None:
    with pytest.raises(JobError, match="RuntimeError: a fault of the program"):
        call_isolated(children.break_down, workers=workers)


def test_a_killed_process_is_an_error_not_a_wait(workers: WorkerContext) -> None:
    with pytest.raises(JobError, match="was killed"):
        call_isolated(children.kill_myself, workers=workers)


def test_half_an_answer_of_a_killed_process_is_the_same_error() -> None:
    """A large answer takes its time to come: the person must hear of the kill, not of a pipe."""
    ours, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), b"\x00\x00\x10\x00only the beginning")
    theirs.close()
    process = multiprocessing.Process()
    process.start()
    with pytest.raises(JobError, match="was killed"):
        received(ours, process)
    ours.close()


def test_a_stop_ends_the_process_and_lets_it_tidy_up(
    workers: WorkerContext, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    seen: list[int] = []

    def stop(fraction: float, message: str) -> None:
        if fraction and not seen:
            seen.append(int((tmp_path / "mark").read_text()))
            raise StoppedError

    with pytest.raises(StoppedError):
        call_isolated(children.work_for_ever, tmp_path / "mark", workers=workers, tell=stop)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_a_stop_does_not_wait_for_the_first_word(workers: WorkerContext) -> None:
    """Loading a model or a large file can take a minute before anything is said of it."""

    class StoppedError(Exception):
        pass

    def stop(fraction: float, message: str) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        call_isolated(children.stay_silent, workers=workers, tell=stop)
