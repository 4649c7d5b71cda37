"""Chat through a real worker process, from the question to the memory given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.chat.session import (
    ChatSession,
    ChatSettings,
    Column,
    ColumnState,
    chat_once,
    conversation,
    trained_system_prompt,
)
from core.chat.settings import chat_settings
from core.errors import ConfigError, JobError, ModelError
from core.jobs.process import WorkerContext
from tests.tiny_model import TinyWorld, answer
from tests.waiting import until

GREEDY = ChatSettings(temperature=0, max_new_tokens=30)
LONG = ChatSettings(temperature=0, max_new_tokens=200)
BASE, TUNED = Column(base="tiny", label="Base"), Column("tuned-run", label="Tuned")
QUESTION = conversation("a red cup")


@pytest.fixture(scope="module")
def processes() -> Iterator[WorkerContext]:
    """A fork server with nothing preloaded but what the chat needs: it starts sooner."""
    made = WorkerContext(("core.worker.chat.server",))
    yield made
    made.close()


@pytest.fixture
def session(world: TinyWorld, processes: WorkerContext) -> Iterator[ChatSession]:
    with ChatSession(world.root, processes=processes) as chat:
        yield chat


def last(states: Iterator[list[ColumnState]]) -> list[ColumnState]:
    return list(states)[-1]


def test_base_and_tuned_answer_one_prompt_side_by_side(session: ChatSession) -> None:
    told: list[tuple[float, str]] = []
    loaded = session.start([BASE, TUNED], lambda share, message: told.append((share, message)))
    assert loaded.dtypes == ("float32", "float32")
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert {"Loading Tuned", "Loading Base", "Ready"} <= {message for _, message in told}

    seen = list(session.ask([QUESTION, QUESTION], GREEDY))
    for before, after in zip(seen, seen[1:], strict=False):
        for old, new in zip(before, after, strict=True):
            assert new.text.startswith(old.text)
    base, tuned = seen[-1]
    assert tuned.text == answer("red", "cup")
    assert (tuned.done, tuned.reason) == (True, "end")
    assert base.done
    assert base.text not in ("", tuned.text)
    # Both grow: the tuned one has begun before the base is done.
    assert any(state[1].tokens and not state[0].done for state in seen)
    # The base alone writes the very same.
    assert "".join(piece.text for piece in session.stream(0, QUESTION, GREEDY)) == base.text


def test_an_answer_comes_in_pieces_and_counts_its_tokens(session: ChatSession) -> None:
    session.start([TUNED])
    pieces = list(session.stream(0, QUESTION, GREEDY))
    assert len([piece for piece in pieces if piece.text]) > 5
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].tokens == max(piece.tokens for piece in pieces) > 5
    assert pieces[-1].tokens_per_second > 0
    cut = list(session.stream(0, QUESTION, ChatSettings(temperature=0, max_new_tokens=3)))
    assert (cut[-1].reason, cut[-1].tokens) == ("length", 3)


def test_stop_takes_effect_within_a_token_or_two(session: ChatSession) -> None:
    """Else a long answer holds the models long after the person has read enough."""
    session.start([BASE])
    pieces = session.stream(0, QUESTION, LONG)
    next(pieces)
    stopper = threading.Thread(target=session.stop)
    stopper.start()
    stopper.join()
    end = list(pieces)[-1]
    assert end.reason == "stopped"
    assert end.tokens < 200
    assert last(session.ask([QUESTION], GREEDY))[0].tokens > 0


def test_who_closes_the_page_stops_the_answer(session: ChatSession) -> None:
    session.start([BASE])
    abandoned = session.ask([QUESTION], LONG)
    next(abandoned)
    abandoned.close()
    # The next question gets its own answer and nothing of the old one.
    fresh = last(session.ask([QUESTION], ChatSettings(temperature=0, max_new_tokens=2)))
    assert fresh[0].tokens == 2


def test_only_one_answer_at_a_time(session: ChatSession) -> None:
    session.start([BASE])
    first = session.stream(0, QUESTION, LONG)
    next(first)
    with pytest.raises(JobError, match="still busy"):
        next(session.stream(0, QUESTION, GREEDY))
    first.close()


def test_close_ends_the_process_and_gives_its_memory_back(session: ChatSession) -> None:
    loaded = session.start([TUNED])
    assert psutil.pid_exists(loaded.pid)
    assert session.loaded is not None and session.loaded.memory_bytes > 0
    session.close()
    assert not psutil.pid_exists(loaded.pid)
    assert session.loaded is None
    with pytest.raises(ModelError, match="No model is loaded"):
        next(session.stream(0, QUESTION, GREEDY))
    assert session.start([TUNED]).pid != loaded.pid


def test_close_in_the_middle_of_an_answer_says_so(session: ChatSession) -> None:
    session.start([BASE])
    pieces = session.stream(0, QUESTION, LONG)
    next(pieces)
    session.close()
    with pytest.raises(ModelError, match="were unloaded"):
        list(pieces)


def test_a_killed_process_is_told_and_can_be_started_again(session: ChatSession) -> None:
    loaded = session.start([TUNED])
    os.kill(loaded.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(loaded.pid))
    with pytest.raises(ModelError, match=r"died \(signal 9, SIGKILL\)"):
        list(session.stream(0, QUESTION, GREEDY))
    session.start([TUNED])
    assert last(session.ask([QUESTION], GREEDY))[0].text == answer("red", "cup")


def test_the_same_models_are_not_loaded_twice(session: ChatSession) -> None:
    first = session.start([BASE, TUNED])
    assert session.start([BASE, TUNED]).pid == first.pid
    assert session.start([TUNED]).pid != first.pid
    assert not psutil.pid_exists(first.pid)


def test_idle_models_go_and_come_back_with_the_next_question(
    world: TinyWorld, processes: WorkerContext
) -> None:
    """A forgotten browser tab must not hold a GPU."""
    with ChatSession(world.root, idle_seconds=0.3, processes=processes) as session:
        first = session.start([TUNED])
        until(lambda: not psutil.pid_exists(first.pid))
        assert session.loaded is None
        assert last(session.ask([QUESTION], GREEDY))[0].text == answer("red", "cup")


def test_an_error_in_one_column_leaves_the_other_its_answer(session: ChatSession) -> None:
    session.start([Column("strict-run"), TUNED])
    asked = conversation("a red cup", "Be brief.")
    strict, tuned = last(session.ask([asked, asked], GREEDY))
    assert strict.done and strict.reason == "error"
    assert "No system role here. Leave out the system prompt" in strict.error
    assert tuned.text
    assert not tuned.error
    with pytest.raises(ModelError, match="No system role here"):
        list(session.stream(0, asked, GREEDY))


def test_what_cannot_be_loaded_is_told_and_holds_no_process(session: ChatSession) -> None:
    with pytest.raises(ModelError, match="no whole model 'checkpoint-9'"):
        session.start([Column("tuned-run", "checkpoint-9")])
    with pytest.raises(ModelError, match="There is no run no-run"):
        session.start([Column("no-run")])
    with pytest.raises(ModelError, match="No model was chosen"):
        session.start([])
    assert session.loaded is None


def test_settings_out_of_bounds_are_named() -> None:
    assert chat_settings({"temperature": 0}).top_p == 0.95
    with pytest.raises(ConfigError, match="top_p"):
        chat_settings({"top_p": 0})


def test_one_question_one_answer(session: ChatSession) -> None:
    shown: list[str] = []
    text = chat_once(session, "tuned-run", None, "a red cup", GREEDY, on_text=shown.append)
    assert text == "".join(shown) == answer("red", "cup")


def test_the_system_prompt_of_the_training_is_found(world: TinyWorld) -> None:
    """Without it a tuned model is asked something else than what it learned."""
    assert trained_system_prompt(world.workspace, "tuned-run") == ""
    run = world.run("system-run", {"data.system_prompt": "Name the thing."})
    assert trained_system_prompt(world.workspace, run.root.name) == "Name the thing."


def test_the_worker_dies_with_the_server(world: TinyWorld, tmp_path: Path) -> None:
    """A killed server must not leave a model in memory that nobody can reach."""
    pid_file = tmp_path / "pid"
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from core.chat.session import ChatSession, Column\n"
        "from core.jobs.process import WorkerContext\n"
        f"chat = ChatSession({str(world.root)!r}, processes=WorkerContext(()))\n"
        "loaded = chat.start([Column('tuned-run')])\n"
        f"Path({str(pid_file)!r}).write_text(str(loaded.pid))\n"
        "assert 'torch' not in sys.modules\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int(pid_file.read_text())
    until(lambda: not psutil.pid_exists(pid))
