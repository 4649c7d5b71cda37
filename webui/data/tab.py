"""Data: bring rows, see what they are taken for, look at them as the model will, and shape them.

This file is the frame: the import above, the chosen data set with its numbers below, its parts one
at a time. Each part is a class of its own with components, handlers and wiring.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import wait
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.data.record import SAMPLE_ID, DatasetInfo, read_record
from core.data.registry import list_datasets, load_dataset_info
from core.data.steps.labels import about_alike
from core.data.turn_keys import unused_text
from core.errors import TunesmithError
from core.language import _, n_
from core.tokens.lens import Lens
from webui import messages
from webui.background import Newest
from webui.choice import Dropdown
from webui.context import CHOICE, DATA_PARTS, QUIET, App, Shared, begun, stamp
from webui.data import rows
from webui.data.drafts import Desk, DraftsView
from webui.data.import_form import ImportForm
from webui.data.import_sources import dropped, line_of
from webui.data.library import Library
from webui.data.rows import RowsView
from webui.data.shape import ShapeView
from webui.data.statistics import StatisticsView
from webui.html import html
from webui.tokens import count_tokens, finished

log = logging.getLogger(__name__)
# The first count waits for its worker process, in seconds.
PATIENCE = 120
_PARTS = {
    "rows": RowsView,
    "numbers": StatisticsView,
    "shape": ShapeView,
    "drafts": DraftsView,
    "manage": Library,
}


def build(app: App, shared: Shared) -> None:
    _Data(app, shared).wire()


def first_look(app: App, query: Mapping[str, str]) -> dict[str, Any]:
    """What Data shows when the page is opened, by the parts of the page that show it: a browser has
    drawn it before it could have asked. Nothing of another tab, or of what cannot be opened."""
    if query.get("tab", "data") != "data":
        return {}
    look: dict[str, Any] = {}
    try:
        look |= {"begun": bool(app.store.list(kind="train"))}
        info = read_record(app.workspace.dataset(query.get("dataset") or SAMPLE_ID))
        look |= {"numbers": numbers_html(info, None, True), "about": about_html(info)}
        look |= rows.first_look(info)
    except (TunesmithError, OSError):
        pass  # whoever asks for it is told why
    except Exception:
        log.exception("the page begins without rows")
    return look


class _Data:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        with gr.Row(elem_classes="welcome") as self.welcome:
            gr.HTML(html.data_tab.first_steps(), apply_default_css=False)
            sample = gr.Button(_("Start the sample run"), variant="primary", scale=0, min_width=200)
            shared.sample_buttons.append(sample)
        self.importing = ImportForm(app, shared)
        with gr.Row(elem_classes="toolbar"):
            self.choice = Dropdown([], label=_("Data set"), scale=3, min_width=240)
            self.train = gr.Button(_("Train on this data"), scale=0, min_width=160)
        self.numbers = begun("numbers", elem_classes="strip")
        self.about = begun("about")
        self.counted = gr.State("")
        self.newest = gr.State(Newest())
        self.views: dict[str, Any] = {}
        with gr.Tabs(elem_id="parts", overflow_behavior="wrap"):
            for name, title in DATA_PARTS:
                with shared.part[name].render():
                    heading = html.data_tab.title(_(title))
                    gr.HTML(heading, elem_classes="sr-only", apply_default_css=False)
                    self.views[name] = _PARTS[name](app, shared)

        self.at_work = [
            self.importing,
            self.views["shape"],
            self.views["drafts"],
            self.views["manage"].combining,
        ]

    # -- handlers

    def open(self, dataset: str, lens_text: str, newest: Newest) -> Any:
        """The tab is opened, another data set selected or its rows changed: all that is known."""
        asked = newest.ask()
        found = {info.id: info for info in list_datasets(self.app.workspace)}
        sets = [(info.name, identity) for identity, info in found.items()]
        if SAMPLE_ID not in found:
            sets.append((_("Sample: support tickets"), SAMPLE_ID))
        chosen = dataset if dataset in found else SAMPLE_ID
        fresh = not self.app.store.list(kind="train")
        told = self._told(chosen, lens_text)
        if not newest.is_newest(asked):
            return (gr.skip(),) * (3 + len(told))
        # What is selected already is not selected again: by now it may be another.
        selected = gr.skip() if chosen == dataset else chosen
        return gr.Dropdown(sets, value=chosen), selected, gr.Row(visible=fresh), *told

    def tell(self, dataset: str, lens_text: str, newest: Newest) -> Any:
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
        numbers = numbers_html(info, finished(counting), waiting)
        waits = f"{stamp(info)} {lens_text}" if waiting else gr.skip()
        return numbers, about_html(info), waits, stamp(info)

    def wait(self, dataset: str, lens_text: str) -> None:
        """Until the worker has counted what `tell` asked for; that is then asked again.

        It shows nothing itself: by then another data set may be selected.
        """
        counting = count_tokens(self.app, dataset, Lens.read(lens_text))
        if counting is not None:
            wait([counting], timeout=PATIENCE)

    def leave(self, desk: Desk, request: gr.Request) -> None:
        """Another data set: a step that was tried with the last one, and a draft of it that is
        being changed, say no more here."""
        self.views["shape"].trial.end(request.session_hash or "")
        desk.close()

    def tick(self, data: dict[Any, Any]) -> dict[Any, Any]:
        """How far the work on data is: one request for all of it."""
        news: dict[Any, Any] = {}
        for part in self.at_work:
            news |= part.news(data)
        return news or {self.counted: gr.skip()}

    # -- wiring

    def wire(self) -> None:
        shared, dataset = self.shared, self.shared.dataset
        quiet = QUIET
        each: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": None, **quiet}
        self.importing.wire()
        for name, view in self.views.items():
            shared.building = name
            view.wire()
        shared.building = "data"
        seen = [dataset, shared.lens]
        told = [self.numbers, self.about, self.counted, shared.version]
        dataset.change(self.leave, self.views["drafts"].desk, None, **CHOICE)
        opened = shared.shown["data"].select(
            self.open,
            [*seen, self.newest],
            [self.choice, dataset, self.welcome, *told],
            **each,
        )
        self.counted.change(self.wait, seen, None, **each).then(
            self.tell, [*seen, self.newest], told, **each
        )
        inputs, outputs = (
            {one for sets in both for one in sets}
            for both in zip(*(part.watched for part in self.at_work), strict=True)
        )
        shared.on_tick(self.tick, {dataset, *inputs}, {self.counted, *outputs})
        ticked = opened.then(self.tick, {dataset, *inputs}, {self.counted, *outputs}, **quiet)
        shared.drawn("data", ticked)
        self.choice.input(lambda chosen: chosen, self.choice, dataset, **each)
        shared.opens("configure", self.train)


def numbers_html(info: DatasetInfo, counts: Mapping[str, Any] | None, counting: bool) -> Markup:
    """Rows kept, held out and dropped; tokens and the longest row when they are counted."""
    known = counts or {}
    items: list[tuple[str, ...]] = [
        (_("Rows to learn"), messages.count(info.counts.train)),
        (_("Held out"), messages.count(info.counts.eval), _("For evaluation; never trained on")),
        (_("Dropped"), messages.count(info.counts.dropped + _by_steps(info)), _dropped_where(info)),
        *_token_figures(known, _("counting") if counting else "-"),
    ]
    if info.counts.test:
        items.insert(2, (_("Test"), messages.count(info.counts.test), _("Seen by no run")))
    return messages.figures(items) + _losses(known) + _dropped_of(info)


def _by_steps(info: DatasetInfo) -> int:
    return sum(result.dropped for result in info.steps)


def _dropped_where(info: DatasetInfo) -> str:
    steps = _by_steps(info)
    if not steps:
        return _("Rows that cannot be learned from")
    return _(
        "{dropped:,} at the import, {by_steps:,} by steps: see Clean and shape",
        dropped=info.counts.dropped,
        by_steps=steps,
    )


def _token_figures(known: Mapping[str, Any], waiting: str) -> list[tuple[str, str, str]]:
    """Tokens, the longest row and rows that are cut; of many rows the first are counted."""
    tokens = longest = cut = waiting
    about = bool(known.get("estimated"))
    if "train_tokens" in known:
        tokens = (messages.short if about else messages.count)(known["train_tokens"])
        longest = _("{n:,} tokens", n=known.get("longest") or 0)
        cut = n_("{n} row", "{n:,} rows", known.get("cut_rows") or 0)
        if about:
            tokens, cut = _("about {n}", n=tokens), _("about {n}", n=cut)
    figures: list[tuple[str, str, str]] = [
        (_("Tokens"), tokens, _("In one pass")),
        (_("Longest row"), longest, _("Before the cut")),
        (_("Cut"), cut, _("Rows that lose their end")),
    ]
    if not about:
        return figures
    rows = known["counted_rows"]
    return [
        (title, value, _("{what}; from the first {rows:,} rows", what=what, rows=rows))
        for title, value, what in figures
    ]


def _losses(counts: Mapping[str, Any]) -> Markup:
    """Rows that the model cannot use, which is no fault of the file."""
    lost = counts.get("rows_without_loss", 0) + counts.get("unusable_rows", 0)
    if not lost:
        return Markup()
    reason = counts.get("first_reason") or ""
    text = n_(
        "{n} row is left out with this model: {reason}",
        "{n:,} rows are left out with this model: {reason}",
        lost,
        reason=reason,
    )
    if counts.get("estimated") and lost > 1:
        text = _("About {n:,} rows are left out with this model: {reason}", n=lost, reason=reason)
    return messages.note(text, "stopped")


def _dropped_of(info: DatasetInfo) -> Markup:
    if not info.counts.dropped:
        return Markup()
    lines = [(line_of(row.file, row.line), f"{row.reason} ({row.part})") for row in info.dropped]
    title = n_(
        "{n} row dropped at the import: which and why",
        "{n:,} rows dropped at the import: which and why",
        info.counts.dropped,
    )
    return dropped(title, info.counts.dropped, lines)


def about_html(info: DatasetInfo) -> Markup:
    """Where the data set comes from and how it was split."""
    files = ", ".join(source.file for source in info.sources)
    split = info.split
    if split.eval_source:
        made = _("From {files}; held out: {source}.", files=files, source=split.eval_source)
    elif info.counts.eval:
        made = _(
            "From {files}; held out: {share:.0%} by seed {seed}.",
            files=files,
            share=split.eval_fraction,
            seed=split.seed,
        )
    else:
        made = _("From {files}; nothing held out.", files=files)
    told = info.description, info.form_reason, unused_text(info.unused_keys)
    text = " ".join(str(part) for part in told if part)
    notes = [
        messages.note(one, "stopped") for one in [*info.warnings, about_alike(info.labels)] if one
    ]
    return html.data_tab.about(text, made, notes)
