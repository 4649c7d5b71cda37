"""All data sets of the workspace: what they are, how large, how old, what can be done with them,
and the files of them that a person takes away."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from markupsafe import Markup

from core.data.forms import FORMS
from core.data.record import DatasetInfo
from core.data.registry import (
    damaged_datasets,
    delete_dataset,
    export_rows,
    list_datasets,
    load_dataset_info,
    rename_dataset,
)
from core.data.steps import write_recipe
from core.data.versions import recipe_of
from core.errors import TunesmithError
from core.jobs.isolated import call_isolated
from core.language import N_, _
from core.workspace import Workspace
from webui import background, messages, tables
from webui.context import QUIET, App, Shared, of_trigger, stamp
from webui.data.combine import Combining
from webui.html import html


class Library:
    """Its components, handlers and wiring."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.writing = background.Tasks()
        self.order = gr.State(tables.NEWEST)
        self.ticked = gr.State([])
        self.deleting = gr.State("")
        self.shown = gr.State("")
        self.table = gr.HTML(
            elem_id="library-table",
            js_on_load=tables.CLICKS,
            apply_default_css=False,
            show_label=False,
        )
        self.combining = Combining(app, shared)
        with gr.Column(elem_classes="card", elem_id="library-detail"):
            self._build_detail()
        self.told = gr.HTML(elem_id="library-told", apply_default_css=False)
        self.confirm = gr.Button(
            _("Delete for good"), variant="stop", visible=False, scale=0, elem_id="library-confirm"
        )

    def _build_detail(self) -> None:
        self.title = gr.HTML(apply_default_css=False)
        with gr.Row():
            self.name = gr.Textbox(label=_("Name"), max_length=80, max_lines=1)
            self.description = gr.Textbox(
                label=_("Description"), placeholder=_("What it is, where it comes from"), scale=2
            )
        with gr.Row(elem_classes="actions"):
            self.save = gr.Button(_("Save name and description"))
            self.delete = gr.Button(_("Delete"), variant="stop")
        with gr.Row(elem_classes="downloads"):
            self.part = gr.Radio(
                [(_(title), part) for part, title in PARTS.items()],
                value="",
                label=_("Download"),
                info=_("With several parts, a column says which."),
                scale=0,
                min_width=320,
            )
            self.formats = [
                gr.Button(title, scale=0, min_width=120, elem_id=f"download-{kind}")
                for kind, title in ROWS.items()
            ]
            self.recipe = gr.Button(_("Recipe (YAML)"), scale=0, min_width=120)
            self.stop = gr.Button(_("Stop"), variant="stop", visible=False, scale=0, min_width=96)
        self.file = gr.HTML(elem_id="library-file", apply_default_css=False)

    # -- handlers

    def draw(self, order: dict[str, Any], ticked: list[str], dataset: str) -> Markup:
        """The table as it is now."""
        sets = list_datasets(self.app.workspace)
        damaged = damaged_datasets(self.app.workspace)
        if not sets and not damaged:
            return messages.empty(
                _("No data sets yet"), _("Bring a file above, or use the sample.")
            )
        return render(sets, damaged, **order, ticked=ticked, selected=dataset)

    def detail(self, dataset: str, shown: str) -> Any:
        """Name and description of the chosen data set. What a person has typed, and what was said
        and asked of it, stays; of another set it is forgotten."""
        same, kept = dataset == shown, gr.skip()
        said = (kept,) * 3 if same else ("", "", gr.Button(visible=False))
        try:
            info = load_dataset_info(self.app.workspace, dataset) if dataset else None
        except TunesmithError as error:
            return messages.error(error), "", "", dataset, *said
        if info is None:
            return "", "", "", dataset, *said
        title = html.library.title(info.name, info.id)
        typed = (kept, kept) if same else (info.name, info.description)
        return title, *typed, dataset, *said

    def select(self, event: gr.EventData) -> Any:
        return event.id

    def rename(self, dataset: str, name: str, description: str) -> Any:
        """Keeps name and description."""
        try:
            info = rename_dataset(self.app.workspace, dataset, name, description)
        except TunesmithError as error:
            return messages.error(error), gr.skip()
        return messages.note(_("Saved."), "finished"), stamp(info)

    def ask_delete(self, dataset: str) -> Any:
        """Says what would be gone, and offers to do it."""
        text = _("This deletes {dataset}, which cannot be opened.", dataset=dataset)
        try:
            info = load_dataset_info(self.app.workspace, dataset)
            size = messages.size(info.size_bytes())
            text = _(
                "This deletes {name} with all its versions and drafts ({size}).",
                name=info.name,
                size=size,
            )
        except TunesmithError:
            pass  # a damaged one can be deleted, too
        text = _("{what} It cannot be undone. Runs keep what they learned.", what=text)
        return dataset, gr.Button(visible=True), messages.note(text, "stopped")

    def ask_delete_damaged(self, event: gr.EventData) -> Any:
        return self.ask_delete(event.id)

    def delete_now(self, asked: str, dataset: str) -> Any:
        """Deletes what was asked about; the selection moves on if it was that."""
        hidden = gr.Button(visible=False)
        try:
            delete_dataset(self.app.workspace, asked, self.app.store)
        except TunesmithError as error:
            return gr.skip(), messages.error(error), hidden, []
        chosen = "" if asked == dataset else gr.skip()
        return chosen, messages.note(_("Deleted."), "finished"), hidden, []

    def download(
        self, dataset: str, part: str, event: gr.EventData, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Writes the rows, or the recipe, to a file and links to it."""
        kind = of_trigger(event, dict(zip(self.formats, ROWS, strict=True)), "")
        if not kind:
            yield self.recipe_link(dataset), gr.skip()
            return
        task = background.begin(
            lambda task: write_rows(self.app.workspace, dataset, kind, part, task)
        )
        for glance in self.writing.watch(request.session_hash, task):
            told = messages.progress(glance.fraction, glance.message or _("Writing the rows"))
            yield told, gr.Button(visible=True)
        hidden = gr.Button(visible=False)
        yield messages.error(task.error) if task.error else link(task.result), hidden

    def recipe_link(self, dataset: str) -> Markup:
        """The steps of the data set as a file that other data can go through."""
        try:
            return link(write_recipe_file(self.app.workspace, dataset))
        except TunesmithError as error:
            return messages.error(error)

    def stop_writing(self, request: gr.Request) -> None:
        self.writing.stop(request.session_hash)

    # -- wiring

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        quiet = QUIET
        each: dict[str, Any] = {"trigger_mode": "multiple", **quiet}  # of two quick clicks, too
        draw: dict[str, Any] = {
            "fn": self.draw,
            "inputs": [self.order, self.ticked, dataset],
            "outputs": self.table,
            "trigger_mode": "always_last",
            **quiet,
        }
        details = [
            self.title,
            self.name,
            self.description,
            self.shown,
            self.told,
            self.file,
            self.confirm,
        ]
        shared.on_rows(self.detail, [dataset, self.shown], details).then(**draw)
        self.table.input(tables.reorder, self.order, self.order, **each).then(**draw)
        self.table.select(self.select, None, dataset, **each)
        self.table.like(tables.tick, self.ticked, self.ticked, **each).then(
            self.combining.show, self.ticked, self.combining.outputs, **quiet
        )
        self.save.click(
            self.rename,
            [dataset, self.name, self.description],
            [self.told, shared.version],
            **quiet,
        )
        asked = [self.deleting, self.confirm, self.told]
        self.delete.click(self.ask_delete, dataset, asked, **quiet)
        self.table.apply(self.ask_delete_damaged, None, asked, **quiet)
        self.confirm.click(
            self.delete_now,
            [self.deleting, dataset],
            [dataset, self.told, self.confirm, self.ticked],
            **quiet,
        ).then(**draw)
        self.combining.wire()
        self._wire_downloads()

    def _wire_downloads(self) -> None:
        dataset = self.shared.dataset
        quiet = QUIET
        gr.on(
            [button.click for button in (*self.formats, self.recipe)],
            self.download,
            [dataset, self.part],
            [self.file, self.stop],
            concurrency_limit=None,
            **quiet,
        ).then(None, js="() => { document.querySelector('#library-file a')?.click(); }")
        self.stop.click(self.stop_writing, None, None, **quiet)


# Columns that can be sorted: key -> (label, value of a set).
SORT_KEYS: dict[str, tuple[str, Callable[[DatasetInfo], Any]]] = {
    "name": (N_("Data set"), lambda info: info.name.casefold()),
    "form": (N_("Form"), lambda info: info.form),
    "rows": (N_("Rows to learn"), lambda info: info.counts.train),
    "eval": (N_("Held out"), lambda info: info.counts.eval),
    "version": (N_("Version"), lambda info: info.version),
    "size": (N_("Size"), DatasetInfo.size_bytes),
    "created": (N_("Last change"), lambda info: info.created_at),
}


def form_title(form: str) -> str:
    """A standard form as a person reads it."""
    return next((known.title for known in FORMS.values() if known.standard == form), form)


def render(
    sets: Sequence[DatasetInfo],
    damaged: Sequence[tuple[str, str]],
    *,
    by: str,
    descending: bool,
    first: int,
    ticked: Sequence[str],
    selected: str,
) -> Markup:
    """The table in the order of one column; what cannot be opened stands below, with the reason."""
    value = SORT_KEYS.get(by, SORT_KEYS["created"])[1]
    titles = [(key, _(label)) for key, (label, _value) in SORT_KEYS.items()]
    heads = tables.heads(titles, by, descending)
    shown, pager = tables.page(sorted(sets, key=value, reverse=descending), first)
    rows = [
        {
            "id": info.id,
            "name": info.name,
            "ticked": info.id in ticked,
            "selected": info.id == selected,
            "cells": [
                (label, *cell) for (_key, label), cell in zip(titles, _cells(info), strict=True)
            ],
        }
        for info in shown
    ]
    return html.library.table(heads, rows, damaged, len(titles), pager)


def _cells(info: DatasetInfo) -> list[tuple[str, str]]:
    """What stands in each column, and in small print behind it."""
    counts = info.counts
    test = _("and {n:,} for a test", n=counts.test) if counts.test else ""
    kept = _("of {n} kept", n=len(info.versions)) if len(info.versions) > 1 else ""
    return [
        (info.name, info.description),
        (form_title(info.form), ""),
        (f"{counts.train:,}", ""),
        (f"{counts.eval:,}", test),
        (f"{info.version}", kept) if info.version else ("-", ""),
        (messages.size(info.size_bytes()), ""),
        (_when(info.created_at), ""),
    ]


def _when(created_at: str) -> str:
    try:
        return _("{when:%d %b %Y %H:%M}", when=datetime.fromisoformat(created_at))
    except ValueError:
        return "-"


ROWS = {"jsonl": "JSON Lines", "parquet": "Parquet"}
PARTS = {"": N_("All parts"), "train": N_("To learn"), "eval": N_("Held out")}


def write_rows(
    workspace: Workspace, dataset: str, kind: str, part: str, task: background.Task
) -> Path:
    """Writes the rows of a part (all if "") and returns the file. Raises DataError."""
    info = load_dataset_info(workspace, dataset)
    if part:
        info.rows_path(part)
    path = _place(workspace, info, f"{info.name}{'-' if part else ''}{part}", kind)
    parts = (part,) if part else ()
    call_isolated(export_rows, workspace, dataset, path, parts=parts, tell=task.tell)
    return path


def write_recipe_file(workspace: Workspace, dataset: str) -> Path:
    """Writes what makes the same kind of set of another file. Raises DataError."""
    info = load_dataset_info(workspace, dataset)
    path = _place(workspace, info, f"{info.name}-recipe", "yaml")
    path.write_text(write_recipe(recipe_of(info)), encoding="utf-8")
    return path


def link(path: Path) -> Markup:
    """A link that saves the file."""
    size = messages.size(path.stat().st_size)
    file = html.library.file(f"gradio_api/file={quote(str(path))}", path.name)
    told = Markup(_("{file} is ready, {size}. It is kept here for a day."))
    return html.plain.aside(told.format(file=file, size=size))


def _place(workspace: Workspace, info: DatasetInfo, name: str, ending: str) -> Path:
    """Where a file lies that the page may serve; it is swept away after a day."""
    folder = workspace.downloads(info.id) / uuid.uuid4().hex
    folder.mkdir(parents=True)
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
    return folder / f"{plain[:80]}.{ending}"
