"""Data: bring rows, see what they are taken for, and look at them as the model will."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, wait
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
        self.stop = gr.Button("Stop the download", visible=False, scale=0)
        self.fetching = background.Tasks()
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

    def tell(self, dataset: str, lens_text: str):
        """The numbers on top; the tokens as far as a worker has counted them."""
        try:
            info = load_dataset_info(self.app.workspace, dataset)
        except TunesmithError as error:
            return messages.error(error), ""
        counting = count_tokens(self.app, info.id, Lens.read(lens_text))
        waiting = counting is not None and not counting.done()
        return data_view.numbers(info, finished(counting), waiting), data_view.about(info)

    def show(self, dataset: str, part: str, look: str, first: int, lens_text: str):
        """A page of rows, as they are or as the model sees them."""
        try:
            info = load_dataset_info(self.app.workspace, dataset)
            total = info.counts.eval if part == "eval" else info.counts.train
            found = read_rows(self.app.workspace, dataset, part, first, PAGE) if total else []
        except TunesmithError as error:
            return messages.error(error), "", gr.Button(visible=False)
        where = _where(first, len(found), total)
        if look == AS_ROWS or not found:
            return data_view.rows(found, first), where, gr.Button(visible=False)
        lens = Lens.read(lens_text)
        seen = view_rows(self.app, dataset, part, _page(first, len(found)), lens)
        return _through(seen, first, where, lens)

    def wait(self, dataset: str, part: str, look: str, first: int, lens_text: str) -> None:
        """Until the worker has answered what `show` and `tell` asked; they are then asked again.

        It shows nothing itself: by then another data set may be selected.
        """
        lens = Lens.read(lens_text)
        asked = [count_tokens(self.app, dataset, lens)]
        if look == AS_TOKENS and asked[0] is not None:
            counts = load_dataset_info(self.app.workspace, dataset).counts
            total = counts.eval if part == "eval" else counts.train
            count = min(PAGE, total - first)
            asked.append(view_rows(self.app, dataset, part, _page(first, count), lens))
        wait([answer for answer in asked if answer is not None], timeout=PATIENCE)

    def fetch_model(self, lens_text: str, request: gr.Request) -> Iterator[Any]:
        """Brings the model here, with its progress in the rows' place."""
        task = background.fetch_model(self.app.workspace, Lens.read(lens_text).model)
        for glance in self.fetching.watch(request.session_hash, task):
            yield messages.progress(glance.fraction, glance.message), gr.Button(visible=True)
        yield messages.error(task.error) if task.error else "", gr.Button(visible=False)

    def stop_fetching(self, request: gr.Request) -> None:
        self.fetching.stop(request.session_hash)

    # -- wiring

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        self.importing.wire()
        page = [dataset, self.part, self.look, self.first, shared.lens]
        always: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_limit": None, **quiet}
        show = {"fn": self.show, "inputs": page, "outputs": [self.rows, self.place, self.fetch]}
        tell = {
            "fn": self.tell, "inputs": page[:1] + page[-1:], "outputs": [self.numbers, self.about]
        }

        def shown(event: Any) -> None:
            """What follows a change: at once what is known, and again when the worker answers."""
            event.then(**tell, **always)
            event.then(**show, **always).then(
                self.wait, page, None, trigger_mode="multiple", concurrency_limit=None, **quiet
            ).then(**show, **always).then(**tell, **always)

        opened = [self.choice, dataset, self.first, self.welcome]
        shown(
            gr.on([shared.tab["data"].select, dataset.change], self.open, dataset, opened, **quiet)
        )
        self.choice.input(lambda chosen: chosen, self.choice, dataset, **quiet)
        shown(self.look.input(lambda: None, None, None, **quiet))
        shown(self.part.input(lambda: 0, None, self.first, **quiet))
        for button, step in ((self.before, -PAGE), (self.after, PAGE)):
            shown(
                button.click(
                    lambda first, part, chosen, step=step: self.turn(first, step, part, chosen),
                    [self.first, self.part, dataset],
                    self.first,
                    **quiet,
                )
            )
        fetched = self.fetch.click(
            self.fetch_model,
            shared.lens,
            [self.rows, self.stop],
            concurrency_limit=None,
            **quiet,
        )
        shown(fetched)
        self.stop.click(self.stop_fetching, None, None, **quiet)
        self.train.click(lambda: shared.go("configure"), None, shared.tabs, **quiet)

    def turn(self, first: int, step: int, part: str, dataset: str) -> int:
        """The first row of the page before or after, within the part."""
        counts = load_dataset_info(self.app.workspace, dataset).counts
        total = counts.eval if part == "eval" else counts.train
        last = max(0, (total - 1) // PAGE * PAGE)
        return min(max(0, int(first or 0) + step), last)


def _page(first: int, count: int) -> tuple[int, ...]:
    return tuple(range(first, first + count))


def _through(seen: Future[Any] | None, first: int, where: str, lens: Lens) -> tuple[Any, ...]:
    """The rows through the tokenizer of the model chosen in Configure, or what they wait for."""
    hidden = gr.Button(visible=False)
    if seen is None:
        text = f"{lens.model} is not on this machine yet; its tokenizer is needed for this."
        return messages.note(text), where, gr.Button(visible=True)
    if not seen.done():
        text = f"Reading with the tokenizer of {lens.model}"
        return messages.progress(None, text), where, hidden
    try:
        tokens = data_view.tokens(seen.result(), first, lens.max_length)
    except TunesmithError as error:
        return messages.error(error), where, hidden
    return tokens, where + data_view.legend(lens.model, lens.max_length), hidden


def _where(first: int, count: int, total: int) -> str:
    if not total:
        return '<p class="aside">No rows in this part.</p>'
    return f'<p class="aside">Rows {first + 1} to {first + count} of {total:,}</p>'
