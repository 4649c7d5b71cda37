"""More rows: a model writes drafts, a page at a time, and a person accepts, edits or rejects
each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.data.drafts import review, tasks
from core.data.drafts.tasks import DraftTask
from core.data.jobs import check_free, submit_adding, submit_drafts
from core.data.registry import load_dataset_info
from core.errors import ConfigError, DataError, Problem, TunesmithError
from core.jobs.job import Job
from core.language import _, n_, speaking
from core.workspace import Workspace
from webui import messages
from webui.choice import Dropdown
from webui.context import CHOICE, HIDDEN, QUIET, App, Shared, of_trigger, version_of
from webui.data import draft_cards
from webui.data.draft_form import DraftForm
from webui.job_progress import JobProgress


class DraftsView:
    """Its components, handlers and wiring."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        with gr.Row(elem_classes="toolbar drafts-head"):
            self.task = Dropdown([], label=_("Drafts"), scale=3, min_width=240, visible=False)
            self.more = gr.Button(_("Write more rows"), variant="primary", scale=0, min_width=160)
        self.nothing = gr.HTML(apply_default_css=False)
        self.form = DraftForm(app)
        self.said = gr.HTML(elem_id="drafts-said", apply_default_css=False)
        self.jobs = JobProgress(
            app,
            ("drafts", "add-drafts"),
            elem_id="drafts-progress",
            of="dataset",
            hides=self._told_by_task,
        )
        self._build_task()
        # What is shown of the drafts, in the browser.
        self.tally = gr.Textbox(**HIDDEN, label="Drafts so far")
        self.first = gr.Number(
            0, visible="hidden", container=False, precision=0, label="First draft"
        )
        self.desk = gr.State(Desk())
        self.page = [shared.dataset, self.task, self.which, self.first, self.desk]

    def _build_task(self) -> None:
        with gr.Column(visible=False, elem_id="drafts-task") as self.area:
            self.summary = gr.HTML(apply_default_css=False)
            with (
                gr.Accordion(
                    _("Go on with other limits, or delete"),
                    open=False,
                    visible=False,
                    elem_classes="fold",
                    elem_id="drafts-go-on",
                ) as self.resuming,
                gr.Row(elem_classes="toolbar"),
            ):
                self.rows = gr.Textbox(label=_("Rows to write"), max_lines=1, min_width=120)
                self.budget = gr.Textbox(label=_("Token budget"), max_lines=1, min_width=120)
                self.resume = gr.Button(_("Go on"), scale=0, min_width=96)
                self.delete = gr.Button(_("Delete these drafts"), scale=0, min_width=180)
            with gr.Row(elem_classes="toolbar rows-bar"):
                self.which = gr.Radio(
                    [(_(title), key) for key, title in draft_cards.SHOWN.items()],
                    value="new",
                    label=_("Show"),
                    scale=0,
                    min_width=320,
                )
                self.accept_all = gr.Button(
                    _("Accept all shown"), scale=0, min_width=160, elem_id="drafts-accept-all"
                )
                self.reject_all = gr.Button(_("Reject all shown"), scale=0, min_width=160)
                self.add = gr.Button(
                    _("Add the accepted rows"),
                    variant="primary",
                    scale=0,
                    min_width=220,
                    interactive=False,
                    elem_id="drafts-add",
                )
            self.pages = DraftPages(self.app.workspace, self.said)

    # -- what is shown

    def open(self, dataset: str, task_id: str) -> dict[Any, Any]:
        """The tasks of the data set; the chosen one, or the newest."""
        try:
            found = tasks.list_tasks(self.app.workspace, dataset) if dataset else []
        except TunesmithError as error:
            return {self.nothing: messages.error(error), self.area: gr.Column(visible=False)}
        return {
            self.task: gr.Dropdown(
                [draft_cards.choice(task) for task in found],
                value=chosen(found, task_id),
                visible=bool(found),
            ),
            self.nothing: "" if found else draft_cards.no_drafts(),
            self.area: gr.Column(visible=bool(found)),
        }

    def show_task(self, dataset: str, task_id: str) -> dict[Any, Any]:
        """What the chosen task came to, and what can be done with it."""
        task_id = task_id or chosen(known_tasks(self.app.workspace, dataset), None) or ""
        try:
            task = tasks.load_task(self.app.workspace, dataset, task_id)
        except TunesmithError:
            return {self.area: gr.Column(visible=False)}
        working = task.state == "working"
        accepted = task.tally.accepted
        add = n_("Add the {n} accepted row", "Add the {n:,} accepted rows", accepted)
        budget = task.settings.token_budget
        return {
            self.area: gr.Column(visible=True),
            self.summary: draft_cards.summary(task, working),
            self.resuming: gr.Accordion(
                visible=not working, open=task.state in ("stopped", "failed")
            ),
            self.rows: str(task.settings.rows),
            self.budget: "" if budget is None else str(budget),
            self.add: gr.Button(
                add if accepted else _("Add the accepted rows"),
                interactive=bool(accepted),
            ),
            self.tally: f"{task_id} {task.tally.drafts}",
        }

    def draw(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """The chosen task and its drafts."""
        page = [data[one] for one in self.page]
        drawn = zip(self.pages.outputs, self.pages.show(*page), strict=True)
        return {**self.show_task(*page[:2]), **dict(drawn)}

    def redraw(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """The list of tasks too: there may be another one, or the chosen one no more."""
        dataset, task_id = data[self.shared.dataset], data[self.task]
        known = known_tasks(self.app.workspace, dataset)
        drawn = self.draw(data | {self.task: chosen(known, task_id)})
        return {**self.open(dataset, task_id), **drawn}

    def follow(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Work has begun or ended: there may be other rows."""
        version = version_of(self.app, data[self.shared.dataset])
        return {**self.redraw(data), self.shared.version: version}

    def turn(self, data: dict[Component, Any], event: gr.EventData) -> dict[Any, Any]:
        """Another task, others of its drafts, or another page of them."""
        data[self.desk].close()
        step = of_trigger(event, {self.pages.before: -PAGE, self.pages.after: PAGE}, 0)
        first = max(int(data[self.first]) + step, 0) if step else 0
        return {self.first: first, **self.draw(data | {self.first: first})}

    def close_panel(self, dataset: str, task_id: str) -> dict[Any, Any]:
        return {self.form.panel: gr.Column(visible=False), **self.open(dataset, task_id)}

    def open_panel(self, dataset: str) -> dict[Any, Any]:
        """The settings, with what this data set and this machine offer."""
        try:
            info = load_dataset_info(self.app.workspace, dataset)
        except TunesmithError as error:
            return {self.nothing: messages.error(error)}
        return {**self.form.show(info), self.nothing: ""}

    def mark(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """Which settings matter now, and what was found wrong with them."""
        desk = data[self.desk]
        problems = desk.problems if self._given(data) == desk.tried else ()
        return self.form.read_marks(data, self._labels(data[self.shared.dataset]), problems)

    def _given(self, data: dict[Component, Any]) -> dict[str, Any]:
        return {"dataset": data[self.shared.dataset], **self.form.form.held(data)}

    def _labels(self, dataset: str) -> dict[str, int]:
        try:
            return load_dataset_info(self.app.workspace, dataset).labels
        except TunesmithError:
            return {}

    # -- writing

    def begin(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """A new task, at work at once."""
        dataset, desk, form = data[self.shared.dataset], data[self.desk], self.form
        labels = self._labels(dataset)
        try:
            check_free(self.app.store, dataset)
            task = tasks.begin(self.app.workspace, dataset, form.read(data))
            submit_drafts(self.app.workspace, self.app.store, dataset, task.id)
        except ConfigError as error:
            desk.tried, desk.problems = self._given(data), error.problems
            return {**form.read_marks(data, labels, error.problems), form.wrong: ""}
        except TunesmithError as error:
            return {**form.read_marks(data, labels), form.wrong: messages.error(error)}
        desk.close()
        return {
            **self.open(dataset, task.id),
            form.panel: gr.Column(visible=False),
            form.wrong: "",
            **form.read_marks(data, labels),
            self.first: 0,
            **self.news(data | {self.task: task.id}),
        }

    def go_on(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Goes on with a task that was stopped, within other limits."""
        workspace, dataset, task_id = self.app.workspace, data[self.shared.dataset], data[self.task]
        budget = _number(data[self.budget]) or None
        try:
            check_free(self.app.store, dataset)
            limits = {"rows": _number(data[self.rows]), "token_budget": budget}
            tasks.change_task(workspace, dataset, task_id, limits)
            submit_drafts(workspace, self.app.store, dataset, task_id)
        except TunesmithError as error:
            return {self.said: messages.error(error)}
        return {self.said: "", **self.news(data)}

    def add_rows(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """Takes the accepted drafts into the data set, as a new version."""
        dataset, task_id = data[self.shared.dataset], data[self.task]
        try:
            submit_adding(self.app.workspace, self.app.store, dataset, task_id)
        except TunesmithError as error:
            return {self.said: messages.error(error)}
        return {self.said: "", **self.news(data)}

    def news(self, data: dict[Component, Any]) -> dict[Any, Any]:
        """How far the work is, what it cost so far, and what came of it."""
        dataset = data[self.shared.dataset]
        updates = self.jobs.draw(data, dataset)
        if updates and self.jobs.at_work(dataset):
            updates |= self.show_task(dataset, data[self.task])
        return updates

    def _told_by_task(self, job: Job) -> bool:
        """Whether the task itself says what went wrong; it is shown there then."""
        with speaking("en"):  # both in the words of the worker
            try:
                task = tasks.load_task(self.app.workspace, job.dataset, job.params.get("task", ""))
            except TunesmithError:
                return False
            failed = job.state == "failed" and task.state == "failed"
            return failed and task.reason.startswith(str(job.error or "?"))

    def act_on_job(self, data: dict[Component, Any], event: gr.EventData) -> dict[Any, Any]:
        """Stop it, open what it made, or put its end away."""
        opened = self.jobs.act(data[self.jobs.known], event)
        return {self.shared.dataset: opened or gr.skip(), **self.news(data)}

    def decide(self, data: dict[Component, Any], event: gr.EventData) -> dict[Any, Any]:
        """A button on a draft; then the task has other numbers."""
        dataset, task, which, first, desk = (data[one] for one in self.page)
        decided = self.pages.decide(dataset, task, which, first, desk, event)
        return {**decided, **self.show_task(data[self.shared.dataset], data[self.task])}

    def decide_all(self, data: dict[Component, Any], event: gr.EventData) -> dict[Any, Any]:
        """Accepts or rejects the drafts that are shown."""
        act = of_trigger(event, {self.accept_all: "accept"}, "reject")
        said = self.pages.decide_all(act, *(data[one] for one in self.page))
        return {self.said: said, **self.draw(data)}

    def forget(self, data: dict[Component, Any]) -> dict[Any, Any]:
        try:
            tasks.delete_task(self.app.workspace, data[self.shared.dataset], data[self.task])
        except TunesmithError as error:
            return {self.said: messages.error(error)}
        data[self.desk].close()
        said = messages.note(_("The drafts are deleted."), "finished")
        return {self.said: said, **self.redraw(data)}

    # -- wiring

    @property
    def watched(self) -> tuple[set[Component], set[Any]]:
        """The inputs and outputs of `news`."""
        told = {
            self.area,
            self.summary,
            self.resuming,
            self.rows,
            self.budget,
            self.add,
            self.tally,
        }
        return {self.task, *self.jobs.inputs}, {*told, *self.jobs.outputs}

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        # One after the other, in the order in which they were asked for: an answer that comes late
        # would show what was there before the last click. Each is quick.
        quiet: dict[str, Any] = {
            **QUIET,
            "concurrency_id": "drafts",
            "concurrency_limit": 1,
        }
        opened = {self.task, self.nothing, self.area}
        page, (watched, news) = {*self.page}, self.watched
        drawn = {*news, *self.pages.outputs} - self.jobs.outputs
        shared.on_rows(self.redraw, page, {*opened, *drawn}, **quiet)
        closed = [self.form.panel, self.jobs.shown, self.said, self.first]
        dataset.change(None, None, closed, js=draft_cards.CLOSE, **CHOICE)
        ended = {*opened, *drawn, shared.version}
        self.jobs.told.change(self.follow, page, ended, **quiet)
        # Several clicks before the first is answered: each of them counts.
        each: dict[str, Any] = {"trigger_mode": "multiple", **quiet}
        known = {dataset, *watched}
        self.jobs.shown.select(self.act_on_job, known, {dataset, *news}, **each)
        self.tally.change(
            self.pages.show, self.page, self.pages.outputs, trigger_mode="always_last", **quiet
        )
        self._wire_writing(opened, known, news, quiet)
        self.pages.cards.select(self.decide, page, {*drawn, self.said}, **each)
        gr.on(
            [self.accept_all.click, self.reject_all.click],
            self.decide_all,
            page,
            {*drawn, self.said},
            **quiet,
        )
        turning = [self.pages.before.click, self.pages.after.click]
        turning += [self.which.input, self.task.input]
        gr.on(turning, self.turn, page, {*drawn, self.first}, **each)
        self.add.click(self.add_rows, known, {self.said, *news}, **quiet)
        self.delete.click(self.forget, page, {*opened, *drawn, self.said}, **quiet)

    def _wire_writing(
        self, opened: set[Any], known: set[Any], news: set[Any], quiet: dict[str, Any]
    ) -> None:
        dataset = self.shared.dataset
        form, fields = self.form, self.form.form
        inputs = {*fields.parts, dataset, self.desk}
        beginning = {*opened, form.panel, form.wrong, fields.marks, self.first, *news}
        last: dict[str, Any] = {"trigger_mode": "always_last", **quiet}
        fields.wire()
        self.more.click(self.open_panel, dataset, {*form.shown, self.nothing}, **quiet)
        form.close.click(self.close_panel, [dataset, self.task], {*opened, form.panel}, **quiet)
        for part in fields.parts:
            part.select(form.offer_models, {part}, {fields.filled}, **last)
        gr.on(fields.edits, self.mark, inputs, {fields.marks}, **last)
        form.start.click(self.begin, {*inputs, *known}, beginning, **quiet)
        limits = {self.rows, self.budget, *known}
        self.resume.click(self.go_on, limits, {self.said, *news}, **quiet)


def _number(text: str) -> str:
    return (text or "").strip().replace(",", "")


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
            self.before = gr.Button(_("Previous"), scale=0, min_width=96, elem_id="drafts-before")
            self.after = gr.Button(_("Next"), scale=0, min_width=96, elem_id="drafts-after")
            self.where = gr.HTML(apply_default_css=False)
        self.outputs = [self.cards, self.where, self.row]

    def show(self, dataset: str, task_id: str, which: str, first: int, desk: Desk) -> Any:
        """A page of drafts. While one is edited it stays: what was typed would be lost."""
        if desk.editing:
            return [gr.skip()] * 3
        task_id = task_id or chosen(known_tasks(self.workspace, dataset), None) or ""
        return self._drawn(dataset, task_id, which, first)

    def _drawn(
        self,
        dataset: str,
        task_id: str,
        which: str,
        first: int,
        editing: int = 0,
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
    ) -> Markup:
        """Accepts or rejects the drafts on this page that are not in the data set."""
        if desk.editing:
            return messages.note(_("Draft {n} is open. Save it or cancel first.", n=desk.editing))
        found, _total = self._page(dataset, task_id, which, first)
        ids = [draft.id for draft in found if not draft.taken]
        try:
            getattr(review, act)(self.workspace, dataset, task_id, ids)
        except TunesmithError as error:
            return messages.error(error)
        return Markup()


def known_tasks(workspace: Workspace, dataset: str) -> list[DraftTask]:
    """The tasks of a data set, the newest first; none where there is no such data set."""
    try:
        return tasks.list_tasks(workspace, dataset)
    except TunesmithError:
        return []


def chosen(known: Sequence[DraftTask], task_id: str | None) -> str | None:
    """The task that is shown: the newest if none was chosen, as after a reload, or it is gone."""
    ids = [task.id for task in known]
    return task_id if task_id in ids else next(iter(ids), None)
