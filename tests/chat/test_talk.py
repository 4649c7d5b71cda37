"""The conversation in the terminal; what answers is a function here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from core.chat import settings
from core.chat.settings import ChatSettings, ColumnState
from core.commands.output import Output
from core.commands.talk import SAMPLINGS, SETTINGS, Message, Talk


def talk(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *typed: str,
    system: str = "",
) -> tuple[list[tuple[list[Message], ChatSettings]], str]:
    """(what was asked, and how; what was said)."""
    asked: list[tuple[list[Message], ChatSettings]] = []

    def ask(messages: list[Message], settings: ChatSettings, output: Any) -> ColumnState:
        asked.append((messages, settings))
        return ColumnState(f"answer {len(asked)}", True)

    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed) + "\n"))
    assert Talk(ask, ChatSettings(), system, Output()).run() == 0
    return asked, capsys.readouterr().err


def contents(messages: list[Message]) -> list[str]:
    return [one["content"] for one in messages]


def test_the_settings_are_those_of_the_page() -> None:
    assert tuple(ChatSettings.model_fields) == SETTINGS
    assert tuple(settings.SAMPLINGS) == SAMPLINGS
    assert settings.sampling("exact")["temperature"] == 0
    assert settings.chat_settings(settings.sampling("balanced")) == ChatSettings()


def test_what_is_typed_is_asked_with_all_that_went_before(monkeypatch: Any, capsys: Any) -> None:
    asked, _ = talk(
        monkeypatch, capsys, "one", "", "  ", "two", "/exit", "three", system="Be short."
    )
    assert contents(asked[1][0]) == ["Be short.", "one", "answer 1", "two"]
    assert len(asked) == 2


def test_a_question_is_taken_back_or_asked_again(monkeypatch: Any, capsys: Any) -> None:
    asked, said = talk(monkeypatch, capsys, "/undo", "/again", "one", "two", "/again", "/undo", "x")
    assert said.count("Nothing was asked yet.") == 2
    assert contents(asked[2][0]) == ["one", "answer 1", "two"], "/again"
    assert contents(asked[3][0]) == ["one", "answer 1", "x"], "/undo"
    asked, _ = talk(monkeypatch, capsys, "one", "/undo", "/system Be kind.", "two", system="Old.")
    assert contents(asked[1][0]) == ["Be kind.", "two"]


def test_how_it_answers_is_changed_and_what_is_wrong_changes_nothing(
    monkeypatch: Any, capsys: Any
) -> None:
    typed = (
        "/set top-p=0.5",
        "/set temperature hot",
        "/set warmth 1",
        "/set seed 7",
        "/set seed",
        "x",
    )
    asked, said = talk(monkeypatch, capsys, *typed)
    settings = asked[0][1]
    assert (settings.top_p, settings.temperature, settings.seed) == (0.5, 0.7, None)
    assert "temperature" in said and "warmth" in said


def test_help_names_each_command_and_an_unknown_one_is_no_question(
    monkeypatch: Any, capsys: Any
) -> None:
    asked, said = talk(monkeypatch, capsys, "/help", "/hlep", "/clear")
    assert not asked
    for command in ("/clear", "/undo", "/again", "/system", "/set", "/save", "/exit"):
        assert command in said
    assert "There is no /hlep" in said and "Forgotten." in said


def test_a_conversation_is_saved_as_a_row(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    typed = ("/save nothing", "one", f"/save {path}", f"/save {tmp_path}", "/save")
    _, said = talk(monkeypatch, capsys, *typed)
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert contents(row["messages"]) == ["one", "answer 1"]
    assert f"Added to {path}." in said
    assert said.count("Ask something first") == 2
    assert f"{tmp_path}: " in said
