"""All data sets of the workspace: what they are, how large, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.data.registry import (
    damaged_datasets,
    delete_dataset,
    list_datasets,
    load_dataset_info,
    rename_dataset,
)
from core.errors import TunesmithError
from webui import background, library_table, messages
from webui.context import App, Shared, stamp
from webui.library_combine import Combining
from webui.library_files import PARTS, ROWS, link, write_recipe_file, write_rows

_NOTHING = messages.empty("No data sets yet", "Bring a file above, or use the sample.")


class Library:
    """Its components, handlers and wiring."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.writing = background.Tasks()
        self.order = gr.State({"by": "created", "descending": True})
        self.ticked = gr.State([])
        self.deleting = gr.State("")
        self.shown = gr.State("")
        self.table = gr.HTML(
            elem_id="library-table", js_on_load=library_table.CLICKS, apply_default_css=False,
            show_label=False,
        )
        self.combining = Combining(app, shared)
        with gr.Column(elem_classes="card", elem_id="library-detail"):
            self._build_detail()
        self.told = gr.HTML(elem_id="library-told", apply_default_css=False)
        self.confirm = gr.Button(
            "Delete for good", variant="stop", visible=False, scale=0, elem_id="library-confirm"
        )

    def _build_detail(self) -> None:
        self.title = gr.HTML(apply_default_css=False)
        with gr.Row():
            self.name = gr.Textbox(label="Name", max_length=80, max_lines=1)
            self.description = gr.Textbox(
                label="Description", placeholder="What it is, where it comes from", scale=2
            )
        with gr.Row(elem_classes="actions"):
            self.save = gr.Button("Save name and description")
            self.delete = gr.Button("Delete", variant="stop")
        with gr.Row(elem_classes="downloads"):
            self.part = gr.Radio(
                [(title, part) for part, title in PARTS.items()], value="", label="Download",
                info="With several parts, a column says which.", scale=0, min_width=320,
            )
            self.formats = [
                gr.Button(title, scale=0, min_width=120) for title in ROWS.values()
            ]
            self.recipe = gr.Button("Recipe (YAML)", scale=0, min_width=120)
            self.stop = gr.Button("Stop", variant="stop", visible=False, scale=0, min_width=96)
        self.file = gr.HTML(elem_id="library-file", apply_default_css=False)

    # -- handlers

    def draw(self, order: dict[str, Any], ticked: list[str], dataset: str) -> str:
        """The table as it is now."""
        sets = list_datasets(self.app.workspace)
        damaged = damaged_datasets(self.app.workspace)
        if not sets and not damaged:
            return _NOTHING
        return library_table.render(sets, damaged, **order, ticked=ticked, selected=dataset)

    def detail(self, dataset: str, shown: str):
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
        title = f"<h3>{messages.escape(info.name)} <small>{messages.escape(info.id)}</small></h3>"
        typed = (kept, kept) if same else (info.name, info.description)
        return title, *typed, dataset, *said

    def sort_by(self, order: dict[str, Any], event: gr.EventData):
        same = order["by"] == event.sort
        return {"by": event.sort, "descending": not order["descending"] if same else True}

    def select(self, event: gr.EventData):
        return event.dataset

    def tick(self, event: gr.EventData):
        return list(event.datasets)

    def rename(self, dataset: str, name: str, description: str):
        """Keeps name and description."""
        try:
            info = rename_dataset(self.app.workspace, dataset, name, description)
        except TunesmithError as error:
            return messages.error(error), gr.skip()
        return messages.note("Saved.", "finished"), stamp(info)

    def ask_delete(self, dataset: str):
        """Says what would be gone, and offers to do it."""
        text = f"This deletes {dataset}, which cannot be opened."
        try:
            info = load_dataset_info(self.app.workspace, dataset)
            size = messages.size(info.size_bytes())
            text = f"This deletes {info.name} with all its versions and drafts ({size})."
        except TunesmithError:
            pass  # a damaged one can be deleted, too
        note = messages.note(f"{text} It cannot be undone. Runs keep what they learned.", "stopped")
        return dataset, gr.Button(visible=True), note

    def ask_delete_damaged(self, event: gr.EventData):
        return self.ask_delete(event.dataset)

    def delete_now(self, asked: str, dataset: str):
        """Deletes what was asked about; the selection moves on if it was that."""
        hidden = gr.Button(visible=False)
        try:
            delete_dataset(self.app.workspace, asked, self.app.store)
        except TunesmithError as error:
            return gr.skip(), messages.error(error), hidden, []
        chosen = "" if asked == dataset else gr.skip()
        return chosen, messages.note("Deleted.", "finished"), hidden, []

    def download(
        self, kind: str, dataset: str, part: str, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Writes the rows to a file and links to it."""
        task = background.begin(
            lambda task: write_rows(self.app.workspace, dataset, kind, part, task)
        )
        for glance in self.writing.watch(request.session_hash, task):
            told = messages.progress(glance.fraction, glance.message or "Writing the rows")
            yield told, gr.Button(visible=True)
        hidden = gr.Button(visible=False)
        yield messages.error(task.error) if task.error else link(task.result), hidden

    def download_recipe(self, dataset: str) -> str:
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
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        each: dict[str, Any] = {"trigger_mode": "multiple", **quiet}  # of two quick clicks, too
        draw: dict[str, Any] = {
            "fn": self.draw, "inputs": [self.order, self.ticked, dataset], "outputs": self.table,
            "trigger_mode": "always_last", **quiet,
        }
        details = [
            self.title, self.name, self.description, self.shown, self.told, self.file,
            self.confirm,
        ]
        shared.on_rows(self.detail, [dataset, self.shown], details).then(**draw)
        shared.part["manage"].select(**draw)
        self.table.input(self.sort_by, self.order, self.order, **each).then(**draw)
        self.table.select(self.select, None, dataset, **each)
        self.table.like(self.tick, None, self.ticked, **each).then(
            self.combining.show, self.ticked, self.combining.outputs, **quiet
        )
        self.save.click(
            self.rename, [dataset, self.name, self.description], [self.told, shared.version],
            **quiet,
        )
        asked = [self.deleting, self.confirm, self.told]
        self.delete.click(self.ask_delete, dataset, asked, **quiet)
        self.table.apply(self.ask_delete_damaged, None, asked, **quiet)
        self.confirm.click(
            self.delete_now, [self.deleting, dataset],
            [dataset, self.told, self.confirm, self.ticked], **quiet,
        ).then(**draw)
        self.combining.wire()
        self._wire_downloads()

    def _wire_downloads(self) -> None:
        dataset = self.shared.dataset
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        save: dict[str, Any] = {
            "fn": None, "js": "() => { document.querySelector('#library-file a')?.click(); }"
        }
        for kind, button in zip(ROWS, self.formats, strict=True):
            button.click(
                self.download, [gr.State(kind), dataset, self.part], [self.file, self.stop],
                concurrency_limit=None, **quiet,
            ).then(**save)
        self.recipe.click(self.download_recipe, dataset, self.file, **quiet).then(**save)
        self.stop.click(self.stop_writing, None, None, **quiet)
