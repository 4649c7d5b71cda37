"""More rows: a model writes drafts, a page at a time, and a person accepts, edits or rejects
each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from core.data.drafts import review, tasks
from core.data.jobs import check_free, submit_adding, submit_drafts
from core.data.registry import load_dataset_info
from core.errors import ConfigError, DataError, Problem, TunesmithError
from core.jobs.job import Job
from core.language import _, n_, speaking
from core.workspace import Workspace
from webui import messages
from webui.context import CHOICE, QUIET, App, Shared, version_of
from webui.data import draft_cards
from webui.data.draft_form import DraftForm
from webui.job_progress import JobProgress


class DraftsView:
    """Its components, handlers and wiring."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        with gr.Row(elem_classes="toolbar drafts-head"):
            self.task = gr.Dropdown([], label=_("Drafts"), scale=3, min_width=240, visible=False)
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
        self.tally = gr.Textbox(visible="hidden", label="Drafts so far")
        self.first = gr.Number(0, visible="hidden", precision=0, label="First draft")
        self.desk = gr.State(Desk())

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
                self.accept_all = gr.Button(_("Accept all shown"), scale=0, min_width=160)
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
        known = [task.id for task in found]
        chosen = task_id if task_id in known else next(iter(known), None)
        return {
            self.task: gr.Dropdown(
                [draft_cards.choice(task) for task in found], value=chosen, visible=bool(found)
            ),
            self.nothing: "" if found else draft_cards.no_drafts(),
            self.area: gr.Column(visible=bool(found)),
        }

    def show_task(self, dataset: str, task_id: str) -> dict[Any, Any]:
        """What the chosen task came to, and what can be done with it."""
        task_id = task_id or newest(self.app.workspace, dataset)
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
        }

    def go_on(self, dataset: str, task_id: str, rows: str, budget: str) -> str:
        """Goes on with a task that was stopped, within other limits."""
        workspace = self.app.workspace
        try:
            check_free(self.app.store, dataset)
            limits = {"rows": _number(rows), "token_budget": _number(budget) or None}
            tasks.change_task(workspace, dataset, task_id, limits)
            submit_drafts(workspace, self.app.store, dataset, task_id)
        except TunesmithError as error:
            return messages.error(error)
        return ""

    def add_rows(self, dataset: str, task_id: str) -> str:
        """Takes the accepted drafts into the data set, as a new version."""
        try:
            submit_adding(self.app.workspace, self.app.store, dataset, task_id)
        except TunesmithError as error:
            return messages.error(error)
        return ""

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

    def act_on_job(self, dataset: str, known: set[str], event: gr.EventData) -> Any:
        """Stop it, open what it made, or put its end away."""
        opened = self.jobs.act(known, event)
        return opened or gr.skip()

    def forget(self, dataset: str, task_id: str, desk: Desk) -> str:
        try:
            tasks.delete_task(self.app.workspace, dataset, task_id)
        except TunesmithError as error:
            return messages.error(error)
        desk.close()
        return messages.note(_("The drafts are deleted."), "finished")

    # -- wiring

    @property
    def watched(self) -> tuple[set[Component], set[Any]]:
        """The inputs and outputs of `news`."""
        return {self.task, *self.jobs.inputs}, {*self.told, *self.jobs.outputs}

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        # One after the other, in the order in which they were asked for: an answer that comes late
        # would show what was there before the last click. Each is quick.
        quiet: dict[str, Any] = {
            **QUIET,
            "concurrency_id": "drafts",
            "concurrency_limit": 1,
        }
        self.opened = {self.task, self.nothing, self.area}
        self.told = {
            self.area,
            self.summary,
            self.resuming,
            self.rows,
            self.budget,
            self.add,
            self.tally,
        }
        chosen = [dataset, self.task]
        page = [dataset, self.task, self.which, self.first, self.desk]
        show = {"fn": self.pages.show, "inputs": page, "outputs": self.pages.outputs}

        def shown(event: Any) -> Any:
            return event.then(self.show_task, chosen, self.told, **quiet).then(**show, **quiet)

        def changed(event: Any) -> None:
            """What comes after work has begun or ended."""
            shown(event.then(self.open, chosen, self.opened, **quiet)).then(
                lambda chosen: version_of(self.app, chosen), dataset, shared.version, **quiet
            )

        def begun(event: Any) -> None:
            """What comes after work was begun: seen at once, not at the next tick."""
            inputs, outputs = self.watched
            event.then(self.jobs.at_once(self.news), {dataset, *inputs}, outputs, **quiet)

        shown(shared.on_rows(self.open, chosen, list(self.opened), **quiet))
        closed = [self.form.panel, self.jobs.shown, self.said, self.first]
        dataset.change(None, None, closed, js=draft_cards.CLOSE, **CHOICE)
        changed(self.jobs.told.change(lambda: None, None, None, **quiet))
        acted = self.jobs.shown.select(
            self.act_on_job, [dataset, self.jobs.known], dataset, trigger_mode="multiple", **quiet
        )
        begun(acted)
        self.tally.change(**show, trigger_mode="always_last", **quiet)
        self._wire_writing(begun, quiet)
        self._wire_deciding(shown, begun, page, quiet)

    def _wire_writing(self, begun: Any, quiet: dict[str, Any]) -> None:
        dataset = self.shared.dataset
        form, fields = self.form, self.form.form
        inputs = {*fields.parts, dataset, self.desk}
        beginning = {*self.opened, form.panel, form.wrong, fields.marks, self.first}
        fields.wire()
        self.more.click(self.open_panel, dataset, {*form.shown, self.nothing}, **quiet)
        form.close.click(lambda: gr.Column(visible=False), None, form.panel, **quiet).then(
            self.open, [dataset, self.task], self.opened, **quiet
        )
        for part in fields.parts:
            part.select(
                form.offer_models, {part}, {fields.filled}, trigger_mode="always_last", **quiet
            )
        gr.on(fields.edits, self.mark, inputs, {fields.marks}, trigger_mode="always_last", **quiet)
        begun(form.start.click(self.begin, inputs, beginning, **quiet))
        limits = [dataset, self.task, self.rows, self.budget]
        begun(self.resume.click(self.go_on, limits, self.said, **quiet))

    def _wire_deciding(
        self, shown: Any, begun: Any, page: list[Any], quiet: dict[str, Any]
    ) -> None:
        chosen = [self.shared.dataset, self.task]
        decided = {*self.pages.outputs, self.said}
        # Several clicks before the first is answered: each of them counts.
        self.pages.cards.select(
            self.pages.decide, page, decided, trigger_mode="multiple", **quiet
        ).then(self.show_task, chosen, self.told, **quiet)
        for button, act in ((self.accept_all, "accept"), (self.reject_all, "reject")):
            shown(button.click(partial(self.pages.decide_all, act), page, self.said, **quiet))
        gr.on(
            [self.which.input, self.task.input],
            lambda desk: desk.close() or 0,
            self.desk,
            self.first,
            **CHOICE,
        ).then(self.show_task, chosen, self.told, **quiet).then(
            self.pages.show, page, self.pages.outputs, **quiet
        )
        for button, step in ((self.pages.before, -PAGE), (self.pages.after, PAGE)):
            shown(
                button.click(
                    lambda first, desk, step=step: desk.close() or max(int(first) + step, 0),
                    [self.first, self.desk],
                    self.first,
                    **quiet,
                )
            )
        begun(self.add.click(self.add_rows, chosen, self.said, **quiet))
        shown(
            self.delete.click(self.forget, [*chosen, self.desk], self.said, **quiet).then(
                self.open, chosen, self.opened, **quiet
            )
        )


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
            self.before = gr.Button(_("Previous"), scale=0, min_width=96)
            self.after = gr.Button(_("Next"), scale=0, min_width=96)
            self.where = gr.HTML(apply_default_css=False)
        self.outputs = [self.cards, self.where, self.row]

    def show(self, dataset: str, task_id: str, which: str, first: int, desk: Desk) -> Any:
        """A page of drafts. While one is edited it stays: what was typed would be lost."""
        if desk.editing:
            return [gr.skip()] * 3
        return self._drawn(dataset, task_id or newest(self.workspace, dataset), which, first)

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
    ) -> str:
        """Accepts or rejects the drafts on this page that are not in the data set."""
        if desk.editing:
            return messages.note(_("Draft {n} is open. Save it or cancel first.", n=desk.editing))
        found, _total = self._page(dataset, task_id, which, first)
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
