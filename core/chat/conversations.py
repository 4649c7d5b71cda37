"""Conversations that are kept: what was asked and answered, by whom, what a person said of it, and
the rows for the next run that follow from that."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.chat.settings import Column
from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.errors import DataError
from core.language import N_, _
from core.workspace import Workspace, checked_id, new_id, write_atomic

log = logging.getLogger(__name__)

_NAME = 60
Message = dict[str, str]
Mark = Literal["", "up", "down"]


@dataclass
class Turn:
    """`note` is small print. Of an answer: `mark` is a person's thumb, `better` that it was taken
    before the other models' answers to the same question, `edited` how it should have been."""

    role: str
    content: str  # "" of an answer: there was none
    note: str = ""
    mark: Mark = ""
    better: bool = False
    edited: str = ""


@dataclass
class Lane:
    """One model's side of a conversation."""

    column: Column
    turns: list[Turn] = field(default_factory=list)

    def messages(self, system: str, before: int | None = None) -> list[Message]:
        """The turns as the model takes them, or those `before` a place, with the system prompt in
        front if there is one; an answer that was edited as it should have been."""
        first = [{"role": "system", "content": system}] if system.strip() else []
        turns = self.turns[:before]
        # A question that this model did not answer is none of its conversation.
        after = [*turns[1:], *turns[-1:]]
        return first + [
            {"role": turn.role, "content": turn.edited or turn.content}
            for turn, following in zip(turns, after, strict=True)
            if turn.content and (following.content or turn.role != "user")
        ]


@dataclass
class Conversation:
    id: str = field(default_factory=new_id)
    name: str = ""
    system: str = ""
    lanes: list[Lane] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Its name, or how it begins."""
        first = next((turn.content for lane in self.lanes for turn in lane.turns), "")
        short = " ".join(first.split())
        return self.name or (short if len(short) <= _NAME else f"{short[:_NAME]}…")

    def take(self, answers: Sequence[tuple[str, str]]) -> None:
        """What each model answered to the last question, with its small print; "" where it gave no
        answer. A place is that of the same question in all columns. What nobody answered is taken
        back."""
        is_answered = any(text for text, _note in answers)
        for lane, (text, note) in zip(self.lanes, answers, strict=True):
            if is_answered:
                lane.turns.append(Turn("assistant", text, note))
            else:
                del lane.turns[-1:]

    def back_to(self, place: int) -> str:
        """Takes away all turns from a question on, at any of its turns; gives the question."""
        place -= place % 2
        asked = next((lane.turns[place].content for lane in self.lanes if lane.turns[place:]), "")
        for lane in self.lanes:
            del lane.turns[place:]
        return asked

    def prefer(self, lane: int, place: int) -> None:
        """This answer is better than the others to the same question; the same again takes it
        back."""
        was = self.lanes[lane].turns[place].better
        for one in self.lanes:
            if one.turns[place:]:
                one.turns[place].better = False
        self.lanes[lane].turns[place].better = not was


def save_conversation(workspace: Workspace, talk: Conversation) -> None:
    workspace.chats.mkdir(exist_ok=True)
    text = json.dumps(asdict(talk), ensure_ascii=False, indent=1)
    write_atomic(workspace.chats / f"{checked_id(talk.id)}.json", text + "\n")


def load_conversation(workspace: Workspace, name: str) -> Conversation:
    """Raises DataError when it is not there or cannot be read."""
    path = workspace.chats / f"{checked_id(name)}.json"
    try:
        return _read(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            _("The conversation {name} cannot be read.", name=name), _("Begin a new one.")
        ) from error


def delete_conversation(workspace: Workspace, name: str) -> None:
    (workspace.chats / f"{checked_id(name)}.json").unlink(missing_ok=True)


def list_conversations(workspace: Workspace) -> list[Conversation]:
    """All that can be read, the last that was written to first."""
    found = []
    for path in sorted(workspace.chats.glob("*.json"), key=os.path.getmtime, reverse=True):
        try:
            found.append(_read(path))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("The conversation %s cannot be read: %s", path.name, error)
    return found


def _read(path: Path) -> Conversation:
    stored = json.loads(path.read_text(encoding="utf-8"))
    lanes = [
        Lane(Column(**lane["column"]), [Turn(**turn) for turn in lane["turns"]])
        for lane in stored["lanes"]
    ]
    return Conversation(stored["id"], stored["name"], stored["system"], lanes)


# -- rows

FORMS = {
    "preference": N_("Preference: the better of two answers"),
    "unpaired-preference": N_("Good and bad answers, for KTO"),
    "prompt-completion": N_("Good answers, to learn from"),
}
"""What feedback can become, by the standard form of its rows."""


def feedback_rows(talks: Sequence[Conversation], form: str) -> list[dict[str, Any]]:
    """The rows of a form that follow from what was said of answers; each says where it is from."""
    make = {
        "preference": _preferences,
        "unpaired-preference": _judged,
        "prompt-completion": _good,
    }[form]
    return [row for talk in talks for row in make(talk)]


def feedback_dataset(workspace: Workspace, form: str, name: str) -> DatasetInfo:
    """A new data set of all feedback. Raises DataError when there is none of this form."""
    rows = feedback_rows(list_conversations(workspace), form)
    if not rows:
        raise DataError(
            _("No answer was marked in a way that makes such rows."),
            _("Mark answers as good or bad, say which is better, or correct one."),
        )
    workspace.uploads.mkdir(exist_ok=True)
    file = workspace.uploads / f"feedback-{new_id()}.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(file, "".join(lines))
    try:
        return import_dataset(workspace, [file], name=name or _("Feedback"), form=form)
    finally:
        file.unlink(missing_ok=True)


def _answers(talk: Conversation) -> list[tuple[int, Lane, Turn]]:
    return [
        (place, lane, turn)
        for lane in talk.lanes
        for place, turn in enumerate(lane.turns)
        if turn.role == "assistant" and turn.content
    ]


def _origin(talk: Conversation, lane: Lane) -> dict[str, Any]:
    return {"conversation": talk.id, "model": lane.column.label}


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _preferences(talk: Conversation) -> list[dict[str, Any]]:
    """An answer as it should have been beats the one that was given; the better one the others; a
    thumb up one down."""
    rows = []

    def add(place: int, lane: Lane, chosen: str, rejected: str) -> None:
        if chosen.strip() != rejected.strip():
            prompt = lane.messages(talk.system, place)
            pair = {"chosen": _said(chosen), "rejected": _said(rejected)}
            rows.append({"prompt": prompt, **pair, **_origin(talk, lane)})

    for place, lane, turn in _answers(talk):
        if turn.edited:
            add(place, lane, turn.edited, turn.content)
        for other_place, other, worse in _answers(talk):
            beats = turn.better or (turn.mark == "up" and worse.mark == "down")
            same_question = other_place == place and other is not lane
            if same_question and beats and not worse.better:
                add(place, lane, turn.edited or turn.content, worse.content)
    return rows


def _judged(talk: Conversation) -> list[dict[str, Any]]:
    rows = []
    for place, lane, turn in _answers(talk):
        prompt = {"prompt": lane.messages(talk.system, place), **_origin(talk, lane)}
        if turn.mark or turn.better:
            good = turn.better or turn.mark == "up"
            rows.append({**prompt, "completion": _said(turn.content), "label": good})
        if turn.edited:
            rows.append({**prompt, "completion": _said(turn.edited), "label": True})
    return rows


def _good(talk: Conversation) -> list[dict[str, Any]]:
    return [
        {
            "prompt": lane.messages(talk.system, place),
            "completion": _said(turn.edited or turn.content),
            **_origin(talk, lane),
        }
        for place, lane, turn in _answers(talk)
        if turn.edited or turn.better or turn.mark == "up"
    ]
