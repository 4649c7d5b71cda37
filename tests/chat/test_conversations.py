"""Conversations that are kept, and the rows that follow from what a person said of answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.chat.conversations import (
    FORMS,
    Conversation,
    Lane,
    Turn,
    delete_conversation,
    feedback_dataset,
    feedback_rows,
    list_conversations,
    load_conversation,
    save_conversation,
)
from core.chat.settings import Column
from core.data.registry import read_rows
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "ws")


@pytest.fixture
def talk() -> Conversation:
    """Two models, two questions."""
    return Conversation(
        system="Be kind.",
        lanes=[
            Lane(
                Column(base="tiny", label=name),
                [
                    Turn("user", "first?"),
                    Turn("assistant", f"{name} one"),
                    Turn("user", "second?"),
                    Turn("assistant", f"{name} two"),
                ],
            )
            for name in ("base", "tuned")
        ],
    )


def test_what_was_said_is_there_again(workspace: Workspace, talk: Conversation) -> None:
    talk.name, talk.lanes[0].turns[1].mark = "mine", "up"
    save_conversation(workspace, talk)
    assert load_conversation(workspace, talk.id) == talk
    assert [one.title for one in list_conversations(workspace)] == ["mine"]
    later = Conversation(id="00000000-0000-later-one", name="later")  # ids tell the minute alone
    save_conversation(workspace, later)
    os.utime(workspace.chats / f"{later.id}.json", (2e9, 2e9))
    assert [one.title for one in list_conversations(workspace)] == ["later", "mine"]
    for one in (talk, later):
        delete_conversation(workspace, one.id)
    assert list_conversations(workspace) == []


def test_a_torn_conversation_hides_no_other(workspace: Workspace, talk: Conversation) -> None:
    save_conversation(workspace, talk)
    (workspace.chats / "20990101-0000-torn.json").write_text('{"id": 3')
    assert [one.id for one in list_conversations(workspace)] == [talk.id]
    with pytest.raises(DataError, match="cannot be read"):
        load_conversation(workspace, "20990101-0000-torn")
    with pytest.raises(WorkspaceError):
        load_conversation(workspace, "../tunesmith")


def test_the_better_answer_beats_the_others(talk: Conversation) -> None:
    talk.prefer(1, 3)
    [row] = feedback_rows([talk], "preference")
    assert row["chosen"][0]["content"] == "tuned two"
    assert row["rejected"][0]["content"] == "base two"
    assert [turn["content"] for turn in row["prompt"]] == [
        "Be kind.", "first?", "tuned one", "second?"
    ]  # fmt: skip
    assert (row["conversation"], row["model"]) == (talk.id, "tuned")
    talk.prefer(0, 3)  # one of a question at most
    assert [row["model"] for row in feedback_rows([talk], "preference")] == ["base"]
    talk.prefer(0, 3)
    assert feedback_rows([talk], "preference") == []


def test_thumbs_and_corrections(talk: Conversation) -> None:
    talk.lanes[0].turns[1].mark, talk.lanes[1].turns[1].mark = "down", "up"
    talk.lanes[0].turns[3].edited = "it should be this"
    pairs = {
        (row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in feedback_rows([talk], "preference")
    }
    assert pairs == {("tuned one", "base one"), ("it should be this", "base two")}
    judged = [
        (row["completion"][0]["content"], row["label"])
        for row in feedback_rows([talk], "unpaired-preference")
    ]
    assert judged == [("base one", False), ("it should be this", True), ("tuned one", True)]
    good = [row["completion"][0]["content"] for row in feedback_rows([talk], "prompt-completion")]
    assert good == ["it should be this", "tuned one"]
    # What comes after a correction is asked with it.
    assert talk.lanes[0].messages("")[-1]["content"] == "it should be this"


@pytest.mark.parametrize("form", FORMS)
def test_rows_become_a_data_set_of_their_form(
    workspace: Workspace, talk: Conversation, form: str
) -> None:
    talk.prefer(1, 1)
    talk.lanes[0].turns[1].mark = "down"
    save_conversation(workspace, talk)
    info = feedback_dataset(workspace, form, "what I said")
    assert (info.name, info.form) == ("what I said", form)
    [row, *_more] = read_rows(workspace, info.id, "train", 0, 9)
    assert row["meta"]["conversation"] == talk.id
    assert not list(workspace.uploads.glob("feedback-*"))


def test_without_a_mark_there_is_nothing_to_learn(workspace: Workspace, talk: Conversation) -> None:
    save_conversation(workspace, talk)
    with pytest.raises(DataError, match="No answer was marked"):
        feedback_dataset(workspace, "preference", "")


def test_a_question_is_taken_back_with_all_that_follows(talk: Conversation) -> None:
    assert talk.back_to(3) == "second?"
    assert [len(lane.turns) for lane in talk.lanes] == [2, 2]
    assert talk.back_to(0) == "first?"
    assert talk.lanes[0].turns == []


def test_who_gave_no_answer_keeps_the_place_and_learns_nothing_of_it(talk: Conversation) -> None:
    """An answer would be said to be better than one to another question, and learned so."""
    for lane in talk.lanes:
        lane.turns.append(Turn("user", "third?"))
    talk.take([("base three", "9 tokens"), ("", "")])
    for lane in talk.lanes:
        lane.turns.append(Turn("user", "fourth?"))
    talk.take([("base four", ""), ("tuned four", "")])
    assert [turn.content for turn in talk.lanes[1].turns[4:]] == [
        "third?",
        "",
        "fourth?",
        "tuned four",
    ]
    asked = [one["content"] for one in talk.lanes[1].messages("", 7)]
    assert asked == ["first?", "tuned one", "second?", "tuned two", "fourth?"]
    talk.prefer(1, 7)
    [row] = feedback_rows([talk], "preference")
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (
        "tuned four",
        "base four",
    )
    talk.prefer(0, 5)
    assert len(feedback_rows([talk], "preference")) == 1

    for lane in talk.lanes:
        lane.turns.append(Turn("user", "fifth?"))
    talk.take([("", ""), ("", "")])
    assert [len(lane.turns) for lane in talk.lanes] == [8, 8]
