"""The drafts of a task, a page at a time, and what a person decides about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from core.data.drafts import review, tasks
from core.errors import DataError, Problem, TunesmithError
from core.workspace import Workspace
from webui import draft_cards, messages

PAGE = 8


@dataclass
class Desk:
    """What a browser's session does with the drafts.

    It is kept here and not in the page: what is asked for must know that somebody has begun to edit
    meanwhile.
    """

    editing: int = 0
    """The number of the draft that is open; 0 for none."""
    tried: Mapping[Any, Any] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    """What is wrong with the settings that were `tried` last."""

    def close(self) -> None:
        """Nothing is edited any more."""
        self.editing = 0


class DraftPages:
    """The cards and the way through them. `told` shows what went wrong."""

    def __init__(self, workspace: Workspace, told: gr.HTML) -> None:
        self.workspace, self.told = workspace, told
        self.cards = gr.HTML(
            elem_id="drafts", js_on_load=draft_cards.CLICKS, apply_default_css=False
        )
        with gr.Row(visible=False, elem_classes="toolbar pages") as self.row:
            self.before = gr.Button("Previous", scale=0, min_width=96)
            self.after = gr.Button("Next", scale=0, min_width=96)
            self.where = gr.HTML(apply_default_css=False)
        self.outputs = [self.cards, self.where, self.row]

    def show(self, dataset: str, task_id: str, which: str, first: int, desk: Desk) -> Any:
        """A page of drafts. While one is edited it stays: what was typed would be lost."""
        if desk.editing:
            return [gr.skip()] * 3
        return self._drawn(dataset, task_id or newest(self.workspace, dataset), which, first)

    def _drawn(
        self, dataset: str, task_id: str, which: str, first: int, editing: int = 0,
        typed: Mapping[str, str] | None = None,
    ) -> Any:
        found, total = self._page(dataset, task_id, which, first)
        if not found and total:  # the last page was emptied
            first = max(first - PAGE, 0)
            found, total = self._page(dataset, task_id, which, first)
        page = draft_cards.drafts(found, total, which, editing, typed)
        where = draft_cards.where(int(first), len(found), total)
        return page, where, gr.Row(visible=total > PAGE)

    def _page(self, dataset: str, task_id: str, which: str, first: int) -> Any:
        status: Any = None if which == "all" else which
        try:
            return review.read_drafts(
                self.workspace, dataset, task_id or "", int(first), PAGE, status
            )
        except TunesmithError:
            return [], 0

    def decide(
        self, dataset: str, task_id: str, which: str, first: int, desk: Desk, event: gr.EventData
    ) -> dict[Any, Any]:
        """A button on a draft: accept, reject, edit, save, or cancel."""
        number, act = event.draft, event.act
        if act == "edit":
            desk.editing = number
        try:
            if act in ("accept", "reject"):
                getattr(review, act)(self.workspace, dataset, task_id, [number])
            elif act == "save":
                draft = review.read_drafts(self.workspace, dataset, task_id, number - 1, 1)[0][0]
                row = draft_cards.typed_row(draft, event.values)
                review.edit(self.workspace, dataset, task_id, number, row)
        except DataError as error:
            found, total = self._page(dataset, task_id, which, first)
            page = draft_cards.drafts(found, total, which, desk.editing, event.values, error)
            return {self.cards: page, self.told: "" if desk.editing else messages.error(error)}
        if act in ("save", "cancel") or (act != "edit" and number == desk.editing):
            desk.editing = 0
        # When another one is open, what was typed there stays.
        page, where, row = self._drawn(dataset, task_id, which, first, desk.editing, event.values)
        return {self.cards: page, self.where: where, self.row: row, self.told: ""}

    def decide_all(
        self, act: str, dataset: str, task_id: str, which: str, first: int, desk: Desk
    ) -> str:
        """Accepts or rejects the drafts on this page that are not in the data set."""
        if desk.editing:
            return messages.note(f"Draft {desk.editing} is open. Save it or cancel first.")
        found, _ = self._page(dataset, task_id, which, first)
        ids = [draft.id for draft in found if not draft.taken]
        try:
            getattr(review, act)(self.workspace, dataset, task_id, ids)
        except TunesmithError as error:
            return messages.error(error)
        return ""


def newest(workspace: Workspace, dataset: str) -> str:
    """The task that is shown first, as after a reload; "" where there is none."""
    try:
        return next((task.id for task in tasks.list_tasks(workspace, dataset)), "")
    except TunesmithError:
        return ""
