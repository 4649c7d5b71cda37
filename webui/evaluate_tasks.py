"""Tasks of lm-eval, by name, in place of the rows: looked up as soon as they are named, with the
offer to install lm-eval."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import ModelError, TunesmithError
from core.evaluation.lm_eval_tasks import check_include, check_names, parse_tasks
from core.language import _, n_
from core.setup.extras import missing
from webui import messages
from webui.context import QUIET, App
from webui.extras import ExtrasView
from webui.tokens import finished

Updates = dict[Any, Any]


class TasksView:
    """Its fields, and what is said of the names below them."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.names = gr.Textbox(
            label=_("Or tasks of lm-eval"),
            info=_("Public benchmarks by name, with commas between them."),
            placeholder="arc_easy,arc_challenge",
            elem_id="evaluate-tasks",
            max_lines=1,
        )
        with gr.Row(visible=False, elem_classes="picker", elem_id="evaluate-tasks-how") as self.how:
            # No number field: an empty one is 0 to Gradio, and a task has its own number.
            self.shots = gr.Textbox(
                label=_("Examples before each question"),
                info=_("Few-shot; empty: each task's own number."),
                elem_id="evaluate-num_fewshot",
                max_lines=1,
                min_width=200,
            )
            self.include = gr.Textbox(
                label=_("Folder with tasks of your own"),
                info=_("As YAML, in a folder that the server was allowed."),
                elem_id="evaluate-include",
                max_lines=1,
                min_width=220,
            )
            self.chat = gr.Checkbox(
                False,
                label=_("Through the chat template"),
                info=_("Published numbers are mostly without."),
                elem_id="evaluate-apply_chat_template",
                min_width=200,
            )
        self.extras = ExtrasView(app, "evaluate-extras", lambda data: missing(["lm-eval"]))
        self.said = gr.HTML(elem_id="evaluate-tasks-said", apply_default_css=False)
        self.fields = {self.names, self.shots, self.include, self.chat}

    def params(self, data: Updates) -> dict[str, Any]:
        """Those of the job. Raises TunesmithError for a name or a number that is known to be none,
        and for a folder that may not be read."""
        names, include = self._asked(data)
        lists = _lists(self._folder(include)) if names else []
        known = [finished(self.app.answers.get(_key(one))) for one in lists]
        if None not in known:
            check_names(names, [*chain(*filter(None, known))])
        return {
            "tasks": names,
            "include": include if names and include else None,
            "num_fewshot": _number(data[self.shots]) if names else None,
            "apply_chat_template": bool(data[self.chat] and names),
        }

    def _asked(self, data: Updates) -> tuple[list[str], str]:
        """The names, and the folder with tasks of one's own."""
        return parse_tasks(data[self.names] or ""), (data[self.include] or "").strip()

    def _folder(self, include: str) -> str | None:
        """Where the tasks of one's own are. Raises WorkspaceError where they may not be."""
        return str(check_include(include, self.app.workspace)) if include else None

    # -- handlers

    def look(self, data: Updates) -> Iterator[Updates]:
        """Whether there are such tasks, once lm-eval's list is read: that takes seconds."""
        names, include = self._asked(data)
        lacking = missing(["lm-eval"]) if names else []
        yield {self.how: gr.Row(visible=bool(names)), self.said: "", **self.extras.follow(lacking)}
        if not names or lacking:
            return
        try:
            lists = _lists(self._folder(include))
            yield {self.said: messages.progress(None, _("Reading lm-eval's list of tasks"))}
            known: list[str] = []
            for one in lists:
                if not known or not {*names} <= {*known}:
                    known += self._known(one).result()
            check_names(names, known)
        except TunesmithError as problem:
            yield {self.said: messages.error(problem)}
            return
        told = n_(
            "lm-eval has it. Base and tuned model are asked its first rows.",
            "lm-eval has all {n}. Base and tuned model are asked the first rows of each.",
            len(names),
        )
        yield {self.said: messages.note(told)}

    def clear(self) -> Updates:
        """Once they are asked: the next evaluation is one of rows again."""
        return {self.names: "", self.said: "", self.how: gr.Row(visible=False)}

    # -- wiring

    def wire(self) -> None:
        inputs, outputs = self.fields, {self.how, self.said, *self.extras.outputs}
        # One after the other in a page, else an answer to what was typed before may come last.
        slow = {**QUIET, "trigger_mode": "always_last", "concurrency_limit": None}
        fields = self.names, self.include
        gr.on(
            [e for one in fields for e in (one.blur, one.submit)],
            self.look,
            inputs,
            outputs,
            **slow,
        )
        self.extras.wire(inputs).then(self.look, inputs, outputs, **slow)

    def _known(self, folder: str | None) -> Future[list[str]]:
        """The names of a list, from a worker or remembered."""
        answers, key = self.app.answers, _key(folder)
        if key not in answers or (answers[key].done() and answers[key].exception()):
            asked = "core.worker.evaluation.harness:task_names"
            answers[key] = self.app.pool.submit(asked, folder)
        return answers[key]


def _lists(folder: str | None) -> list[str | None]:
    """A folder of tasks of one's own, and lm-eval's list, which takes longer to read."""
    return [folder, None] if folder else [None]


def _key(folder: str | None) -> tuple[Any, ...]:
    """What a list of names is remembered by: another one where a task of one's own is."""
    files = [*Path(folder).rglob("*.y*ml")] if folder else []
    return "task_names", folder, tuple((str(file), file.stat().st_mtime_ns) for file in files)


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise ModelError(
            _("{text!r} is no number of examples.", text=text),
            _("Write a whole number, or nothing."),
        )
    return int(text)
