"""Data: bring rows, see what they are taken for, and look at them as the model will."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import gradio as gr

from core.data.record import SAMPLE_ID
from core.data.registry import list_datasets, load_dataset_info, read_rows
from core.errors import TunesmithError
from webui import background, data_view, messages
from webui.context import App, Shared
from webui.import_form import ImportForm
from webui.lens import Lens, count_tokens, finished, view_rows

PAGE = 3
AS_ROWS, AS_TOKENS = "rows", "tokens"
PARTS = {"train": "To learn", "eval": "Held out"}
# The first look through a tokenizer waits for its worker process, in seconds.
PATIENCE = 120
_WELCOME = (
    "<p><b>New here?</b> The sample data, a small model and quick settings are already chosen. "
    "One button trains it, in some minutes on a laptop.</p>"
)


def build(app: App, shared: Shared) -> None:
    _Data(app, shared).wire()


class _Data:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        with gr.Row(visible=False, elem_classes="welcome") as self.welcome:
            gr.HTML(_WELCOME, apply_default_css=False)
            sample = gr.Button("Start the sample run", variant="primary", scale=0, min_width=200)
            shared.sample_buttons.append(sample)
        self.importing = ImportForm(app, shared)
        with gr.Row(elem_classes="toolbar"):
            self.choice = gr.Dropdown([], label="Data set", scale=3, min_width=240)
            self.train = gr.Button("Train on this data", scale=0, min_width=160)
        self.numbers = gr.HTML(elem_classes="strip", apply_default_css=False)
        self.about = gr.HTML(apply_default_css=False)
        with gr.Row(elem_classes="toolbar rows-bar"):
            self.part = gr.Radio(
                [(title, part) for part, title in PARTS.items()], value="train", label="Part",
                scale=0, min_width=200,
            )
            self.look = gr.Radio(
                [("Rows", AS_ROWS), ("As the model sees them", AS_TOKENS)], value=AS_ROWS,
                label="Show", scale=0, min_width=280,
            )
            self.before = gr.Button("Previous", scale=0, min_width=96)
            self.after = gr.Button("Next", scale=0, min_width=96)
        self.place = gr.HTML(apply_default_css=False)
        self.rows = gr.HTML(elem_id="rows", apply_default_css=False)
        self.fetch = gr.Button("Fetch the model", visible=False, scale=0)
        self.first = gr.Number(0, visible="hidden", precision=0, label="First row")

    # -- handlers

    def open(self, dataset: str):
        """The tab is opened or another data set selected."""
        sets = [(info.name, info.id) for info in list_datasets(self.app.workspace)]
        known = {identity for _, identity in sets}
        if SAMPLE_ID not in known:
            sets.append(("Sample: support tickets", SAMPLE_ID))
        chosen = dataset if dataset in known else SAMPLE_ID
        fresh = not self.app.store.list(kind="train")
        return gr.Dropdown(sets, value=chosen), chosen, 0, gr.Row(visible=fresh)

    def tell(self, dataset: str, lens_text: str) -> Iterator[Any]:
        """The numbers on top; the tokens follow when a worker has counted them."""
        try:
            info = load_dataset_info(self.app.workspace, dataset)
        except TunesmithError as error:
            yield messages.error(error), ""
            return
        counting = count_tokens(self.app, info.id, Lens.read(lens_text))
        if counting is None or not counting.done():
            yield data_view.numbers(info, None, counting is not None), data_view.about(info)
        if counting is not None:
            wait([counting], timeout=PATIENCE)
            counts = finished(counting)
            yield data_view.numbers(info, counts, False), data_view.about(info)

    def show(self, dataset: str, part: str, look: str, first: int, lens_text: str) -> Iterator[Any]:
        """A page of rows, as they are or as the model sees them."""
        try:
            info = load_dataset_info(self.app.workspace, dataset)
            total = info.counts.eval if part == "eval" else info.counts.train
            found = read_rows(self.app.workspace, dataset, part, first, PAGE) if total else []
        except TunesmithError as error:
            yield messages.error(error), "", gr.Button(visible=False)
            return
        where = _where(first, len(found), total)
        hidden = gr.Button(visible=False)
        if look == AS_ROWS or not found:
            yield data_view.rows(found, first), where, hidden
            return
        yield from self._through(info.id, part, first, len(found), where, Lens.read(lens_text))

    def _through(
        self, dataset: str, part: str, first: int, count: int, where: str, lens: Lens
    ) -> Iterator[Any]:
        """The same rows through the tokenizer of the model chosen in Configure."""
        seen = view_rows(self.app, dataset, part, list(range(first, first + count)), lens)
        if seen is None:
            text = f"{lens.model} is not on this machine yet; its tokenizer is needed for this."
            yield messages.note(text), where, gr.Button(visible=True)
            return
        hidden = gr.Button(visible=False)
        if not seen.done():
            text = f"Reading with the tokenizer of {lens.model}"
            yield messages.progress(None, text), where, hidden
        try:
            tokens = data_view.tokens(seen.result(timeout=PATIENCE), first, lens.max_length)
        except TunesmithError as error:
            tokens = messages.error(error)
        legend = data_view.legend(lens.model, lens.max_length)
        yield tokens, where + legend, hidden

    def fetch_model(self, lens_text: str) -> Iterator[Any]:
        """Brings the model here, with its progress in the rows' place."""
        task = background.fetch_model(self.app.workspace, Lens.read(lens_text).model)
        for glance in task.glances():
            yield messages.progress(glance.fraction, glance.message)
        yield messages.error(task.error) if task.error else ""

    # -- wiring

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        self.importing.wire()
        page = [dataset, self.part, self.look, self.first, shared.lens]
        show: dict[str, Any] = {
            "fn": self.show,
            "inputs": page,
            "outputs": [self.rows, self.place, self.fetch],
            "trigger_mode": "always_last",
            "concurrency_limit": None,
            **quiet,
        }
        tell: dict[str, Any] = {
            "fn": self.tell,
            "inputs": [dataset, shared.lens],
            "outputs": [self.numbers, self.about],
            "trigger_mode": "always_last",
            "concurrency_limit": None,
            **quiet,
        }
        opened = gr.on(
            [shared.tab["data"].select, dataset.change],
            self.open,
            dataset,
            [self.choice, dataset, self.first, self.welcome],
            **quiet,
        )
        opened.then(**show)
        opened.then(**tell)
        self.choice.input(lambda chosen: chosen, self.choice, dataset, **quiet)
        self.look.input(**show)
        self.part.input(lambda: 0, None, self.first, **quiet).then(**show)
        for button, step in ((self.before, -PAGE), (self.after, PAGE)):
            button.click(
                lambda first, part, chosen, step=step: self.turn(first, step, part, chosen),
                [self.first, self.part, dataset],
                self.first,
                **quiet,
            ).then(**show)
        fetched = self.fetch.click(
            self.fetch_model, shared.lens, self.rows, concurrency_limit=None, **quiet
        )
        fetched.then(**show)
        fetched.then(**tell)
        self.train.click(lambda: shared.go("configure"), None, shared.tabs, **quiet)

    def turn(self, first: int, step: int, part: str, dataset: str) -> int:
        """The first row of the page before or after, within the part."""
        counts = load_dataset_info(self.app.workspace, dataset).counts
        total = counts.eval if part == "eval" else counts.train
        last = max(0, (total - 1) // PAGE * PAGE)
        return min(max(0, int(first or 0) + step), last)


def _where(first: int, count: int, total: int) -> str:
    if not total:
        return '<p class="aside">No rows in this part.</p>'
    return f'<p class="aside">Rows {first + 1} to {first + count} of {total:,}</p>'
