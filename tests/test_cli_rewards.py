"""Reward functions from a shell: what the page lists and tries, without the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import cli
from core.rewards.kinds import KINDS


@pytest.fixture(autouse=True)
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_WORKSPACE", str(workspace))
    monkeypatch.setenv("TUNESMITH_ALLOW", "")


def test_every_kind_is_listed_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rewards", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["rewards"]
    assert [one["kind"] for one in listed] == list(KINDS)
    assert cli.main(["rewards", "list", "length"]) == 0
    told = capsys.readouterr().out
    assert "--minimum" in told and "A shorter answer gets its share of it." in told
    assert cli.main(["rewards", "list", "lenght"]) == 2
    assert "did you mean length?" in capsys.readouterr().err


def test_a_function_is_tried_on_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody could know before a run whether a function says what is meant."""
    trial = ["rewards", "try", "numeric_answer", "--completion", "It is 72.", "--answer", "#### 72"]
    assert cli.main([*trial, "--weight", "2"]) == 0
    assert capsys.readouterr().out.strip() == "1, weighted 2"
    schema = ["--json-schema", '{"type": "array"}', "--only-json", "0.5", "--json"]
    assert cli.main(["rewards", "try", "json_schema", "--completion", "{}", *schema]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 0.5


def test_an_own_function_is_told_with_its_line(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "rewards").mkdir(parents=True)
    (workspace / "rewards" / "mine.py").write_text("def short(completion):\n    return 1 / 0\n")
    own = ["rewards", "try", "own", "--file", "mine.py", "--function", "short"]
    assert cli.main([*own, "--completion", "a"]) == 1
    assert "mine.py, line 2: ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_a_wrong_option_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rewards", "try", "regex", "--completion", "a", "--pattern", "(a"]) == 2
    assert "pattern is no regular expression" in capsys.readouterr().err
