"""Data: bring rows, see what they are taken for, look at them as the model will, and shape them.

This file is the frame: the import above, the chosen data set below, its parts one at a time. Each
part is a class of its own with components, handlers and wiring.
"""

from __future__ import annotations

from concurrent.futures import wait
from typing import Any

import gradio as gr

from core.data.record import SAMPLE_ID
from core.data.registry import list_datasets, load_dataset_info
from core.errors import TunesmithError
from core.tokens.lens import Lens
from webui import data_view, messages
from webui.context import App, Shared, stamp
from webui.drafts_view import DraftsView
from webui.import_form import ImportForm
from webui.library import Library
from webui.newest import Newest
from webui.rows_view import RowsView
from webui.shape_view import ShapeView
from webui.statistics_view import StatisticsView
from webui.token_answers import count_tokens, finished

# The first count waits for its worker process, in seconds.
PATIENCE = 120
_PARTS = {
    "rows": RowsView,
    "numbers": StatisticsView,
    "shape": ShapeView,
    "drafts": DraftsView,
    "manage": Library,
}
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
        self.counted = gr.State("")
        self.newest = gr.State(Newest())
        self.views: dict[str, Any] = {}
        with gr.Tabs(elem_id="parts", overflow_behavior="wrap"):
            for name, view in _PARTS.items():
                with shared.part[name].render():
                    self.views[name] = view(app, shared)

        self.at_work = [
            self.importing, self.views["shape"], self.views["drafts"],
            self.views["manage"].combining,
        ]

    # -- handlers

    def open(self, dataset: str, lens_text: str, newest: Newest):
        """The tab is opened, another data set selected or its rows changed: all that is known."""
        asked = newest.ask()
        found = {info.id: info for info in list_datasets(self.app.workspace)}
        sets = [(info.name, identity) for identity, info in found.items()]
        if SAMPLE_ID not in found:
            sets.append(("Sample: support tickets", SAMPLE_ID))
        chosen = dataset if dataset in found else SAMPLE_ID
        fresh = not self.app.store.list(kind="train")
        told = self._told(chosen, lens_text)
        if not newest.is_newest(asked):
            return (gr.skip(),) * (3 + len(told))
        # What is selected already is not selected again: by now it may be another.
        selected = gr.skip() if chosen == dataset else chosen
        return gr.Dropdown(sets, value=chosen), selected, gr.Row(visible=fresh), *told

    def tell(self, dataset: str, lens_text: str, newest: Newest):
        """The numbers on top again."""
        asked = newest.ask()
        told = self._told(dataset, lens_text)
        return told if newest.is_newest(asked) else (gr.skip(),) * len(told)

    def _told(self, dataset: str, lens_text: str) -> tuple[Any, ...]:
        """The numbers on top, what is counted at this moment, and the stamp of the rows."""
        try:
            info = load_dataset_info(self.app.workspace, dataset)
        except TunesmithError as error:
            return messages.error(error), "", gr.skip(), gr.skip()
        counting = count_tokens(self.app, info.id, Lens.read(lens_text))
        waiting = counting is not None and not counting.done()
        numbers = data_view.numbers(info, finished(counting), waiting)
        waits = f"{stamp(info)} {lens_text}" if waiting else gr.skip()
        return numbers, data_view.about(info), waits, stamp(info)

    def wait(self, dataset: str, lens_text: str) -> None:
        """Until the worker has counted what `tell` asked for; that is then asked again.

        It shows nothing itself: by then another data set may be selected.
        """
        counting = count_tokens(self.app, dataset, Lens.read(lens_text))
        if counting is not None:
            wait([counting], timeout=PATIENCE)

    def tick(self, data: dict[Any, Any]) -> dict[Any, Any]:
        """How far the work on data is: one request for all of it."""
        news: dict[Any, Any] = {}
        for part in self.at_work:
            news |= part.news(data)
        return news or {self.counted: gr.skip()}

    # -- wiring

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        each: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": None, **quiet}
        self.importing.wire()
        for view in self.views.values():
            view.wire()
        seen = [dataset, shared.lens]
        told = [self.numbers, self.about, self.counted, shared.version]
        gr.on(
            [shared.tab["data"].select, dataset.change, shared.version.change],
            self.open, [*seen, self.newest], [self.choice, dataset, self.welcome, *told], **each,
        )
        self.counted.change(self.wait, seen, None, **each).then(
            self.tell, [*seen, self.newest], told, **each
        )
        inputs, outputs = ({one for sets in both for one in sets} for both in zip(
            *(part.watched for part in self.at_work), strict=True
        ))
        shared.ticker.tick(self.tick, {dataset, *inputs}, {self.counted, *outputs}, **quiet)
        self.choice.input(lambda chosen: chosen, self.choice, dataset, **each)
        self.train.click(lambda: shared.go("configure"), None, shared.tabs, **quiet)
