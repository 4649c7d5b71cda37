"""Numbers of the chosen data set: lengths in tokens, what the cut takes, labels, languages; counted
by core.tokens.statistics, drawn here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.steps.labels import about_alike
from core.errors import TunesmithError
from core.jobs.isolated import call_isolated
from core.language import N_, _, n_
from core.models.location import local_model
from core.tokens.learn import Learn
from core.tokens.lens import Lens
from core.tokens.statistics import read_statistics
from core.tokens.thoughts import taken_out
from webui import background, charts, messages
from webui.background import Newest
from webui.context import HIDDEN, QUIET, App, Shared
from webui.html import html
from webui.tokens import ModelFetch, sample_statistics

FIELD = "training.max_length"
# The first look through a tokenizer waits for its worker process, in seconds.
PATIENCE = 120
# So long a handler waits for the worker before it says that it is waiting, in seconds.
SOON = 0.5
# So many countings of whole data sets are remembered.
REMEMBERED = 32

Updates = dict[Component, Any]
_Key = tuple[str, str, str, str, str, Learn]


class StatisticsView:
    """Its components, handlers and wiring."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.rest: dict[_Key, background.Task] = {}
        with gr.Row(elem_classes="toolbar numbers-state"):
            self.state = gr.HTML(apply_default_css=False, elem_id="numbers-state")
            self.count = gr.Button(_("Count all rows"), visible=False, scale=0, min_width=130)
            self.halt = gr.Button(_("Stop counting"), visible=False, scale=0, min_width=130)
        self.model = ModelFetch(app, shared)
        self.figures = gr.HTML(elem_classes="strip", apply_default_css=False, elem_id="numbers")
        with gr.Row(elem_classes="toolbar advice", visible=False) as self.advice:
            self.reason = gr.HTML(apply_default_css=False, elem_id="suggested")
            self.use = gr.Button(_("Use it"), variant="primary", scale=0, min_width=100)
        self.lengths = charts.charts(_("Lengths of rows in tokens"))
        self.shares = gr.HTML(apply_default_css=False, elem_id="numbers-shares")
        self.suggested = gr.Number(
            0, visible="hidden", container=False, precision=0, label=_("Suggested max_length")
        )
        self.late = gr.Textbox(**HIDDEN, label="What the worker was asked late")
        self.ticker = gr.Timer(1, active=False)
        self.newest = gr.State(Newest())
        self.inputs = {shared.dataset, shared.lens, self.newest}
        self.outputs = {
            self.state,
            self.count,
            self.halt,
            self.model.button,
            self.figures,
            self.advice,
            self.reason,
            self.use,
            self.lengths,
            self.shares,
            self.suggested,
            self.late,
            self.ticker,
        }

    # -- handlers

    def show(self, data: dict[Component, Any]) -> Updates:
        """The numbers as far as they are known."""
        if not data[self.shared.dataset]:
            return {self.late: gr.skip()}
        newest = data[self.newest]
        asked = newest.ask()
        try:
            shown = self._shown(*self._asked(data))
        except TunesmithError as error:
            shown = {self.state: messages.error(error)}
        return shown if newest.is_newest(asked) else {self.late: gr.skip()}

    def wait(self, data: dict[Component, Any]) -> None:
        """Until the worker has counted what was asked; `show` then shows it."""
        if data[self.shared.dataset]:
            with suppress(TunesmithError):  # `show` has said it
                counting = self._sample(*self._asked(data))
                if counting is not None:
                    wait([counting], timeout=PATIENCE)

    def tick(self, data: dict[Component, Any]) -> Updates:
        """How far the rest is counted; all numbers again when it is."""
        try:
            info, lens = self._asked(data)
            task = self.rest.get(self._key(info, lens))
            if task is None or task.done.is_set():
                return self._shown(info, lens)
        except TunesmithError as error:
            return {self.state: messages.error(error), self.ticker: gr.Timer(active=False)}
        return {self.state: counting(task.fraction, info)}

    def count_all(self, data: dict[Component, Any]) -> Updates:
        """Counts every row, after that was stopped or has failed."""
        info, lens = self._asked(data)
        self.rest.pop(self._key(info, lens), None)
        return self._shown(info, lens)

    def stop_counting(self, data: dict[Component, Any]) -> Updates:
        info, lens = self._asked(data)
        task = self.rest.get(self._key(info, lens))
        if task is not None:
            task.stop()
            task.done.wait(PATIENCE)
        return self._shown(info, lens)

    def take(self, suggested: float, lens_text: str) -> tuple[str, str]:
        """The suggested max_length, for Configure's field and for how rows become tokens."""
        length = int(suggested)
        filled = self.shared.form.fill({FIELD: length})[self.shared.form.filled]
        return filled, replace(Lens.read(lens_text), max_length=length).write()

    # -- what handlers share

    def _asked(self, data: dict[Component, Any]) -> tuple[DatasetInfo, Lens]:
        info = load_dataset_info(self.app.workspace, data[self.shared.dataset])
        return info, Lens.read(data[self.shared.lens])

    def _sample(self, info: DatasetInfo, lens: Lens) -> Future[dict[str, Any]] | None:
        return sample_statistics(self.app, info.id, lens)

    def _known(self, info: DatasetInfo, lens: Lens, path: Path | None) -> dict[str, Any] | None:
        """What was counted of all rows, if it was."""
        return read_statistics(self.app.workspace, info, lens.whole, str(path or ""))

    def _shown(self, info: DatasetInfo, lens: Lens) -> Updates:
        path = local_model(self.app.workspace, lens.model)
        quiet: Updates = {
            self.count: gr.Button(visible=False),
            self.halt: gr.Button(visible=False),
            self.model.button: self.model.offer(path is None),
            self.ticker: gr.Timer(active=False),
        }
        known = self._known(info, lens, path)
        if known is not None:
            return {**quiet, **self._numbers(info, lens, known, path is not None)}
        counting = self._sample(info, lens)
        if counting is not None:
            wait([counting], timeout=SOON)
        if counting is None or not counting.done():
            told = messages.progress(None, _("Counting"))
            return {**quiet, self.state: told, self.late: str(monotonic())}
        found = counting.result()
        shown = self._numbers(info, lens, found, path is not None)
        if found["complete"]:
            return {**quiet, **shown}
        return {**quiet, **shown, **self._resting(info, lens, path)}

    def _resting(self, info: DatasetInfo, lens: Lens, path: Path | None) -> Updates:
        """The counting of the rest: begun now, under way, or ended before its end."""
        key = self._key(info, lens)
        task = self.rest.get(key)
        if task is None:
            while len(self.rest) >= REMEMBERED:
                self.rest.pop(next(iter(self.rest)))
            seen = lens.whole if path else replace(lens, model="")
            work = self._count_work(info.id, seen)
            task = self.rest[key] = background.begin(work, _("Counting the rest"))
        if not task.done.is_set():
            return {
                self.state: counting(task.fraction, info),
                self.halt: gr.Button(visible=True),
                self.ticker: gr.Timer(active=True),
            }
        again: Updates = {self.count: gr.Button(visible=True)}
        if task.error is not None and not task.stopped:
            again[self.state] = messages.error(task.error)
        return again

    def _count_work(self, dataset: str, lens: Lens) -> Callable[[background.Task], None]:
        question = "core.worker.tokenizers:count_every_row", self.app.workspace, dataset, lens
        return lambda task: call_isolated(*question, tell=task.tell)

    def _key(self, info: DatasetInfo, lens: Lens) -> _Key:
        template, learn = lens.chat_template, lens.learning.answers
        return (info.id, info.fingerprint, lens.model, lens.system_prompt, template, learn)

    def _numbers(
        self, info: DatasetInfo, lens: Lens, found: dict[str, Any], tokens: bool
    ) -> Updates:
        suggested = found["suggested"] or {}
        value = suggested.get("value", 0)
        already = value == lens.max_length
        return {
            self.state: state(info, lens, found, tokens),
            self.figures: figures(found, tokens),
            self.advice: gr.Row(visible=bool(suggested)),
            self.reason: advice(suggested, already) if suggested else "",
            self.use: gr.Button(_("Use {n:,}", n=value), visible=not already),
            self.suggested: value,
            self.lengths: lengths(found, f"{info.fingerprint} {lens.model}"),
            self.shares: shares(found),
        }

    # -- wiring

    def wire(self) -> None:
        shared = self.shared
        each: dict[str, Any] = {
            "trigger_mode": "multiple",
            **QUIET,
            "concurrency_limit": None,
        }
        show = {"fn": self.show, "inputs": self.inputs, "outputs": self.outputs}

        # Nothing is looked at again and again while nobody sees it.
        gr.on(
            [part.select for name, part in shared.part.items() if name != "numbers"],
            None,
            None,
            self.ticker,
            js='() => ({ __type__: "update", active: false })',
            **QUIET,
        )
        shared.on_rows(self.show, self.inputs, self.outputs)
        self.model.wire().then(**show, **each)
        # Only when the numbers could not be shown at once.
        self.late.change(self.wait, self.inputs, None, **each).then(**show, **each)
        self.ticker.tick(self.tick, self.inputs, self.outputs, **QUIET, concurrency_limit=None)
        self.count.click(self.count_all, self.inputs, self.outputs, **each)
        self.halt.click(self.stop_counting, self.inputs, self.outputs, **each)
        shared.finally_wire.append(self._wire_setting)

    def _wire_setting(self) -> None:
        """Configure's field is there only when all tabs have been built."""
        shared, form = self.shared, self.shared.form
        self.use.click(
            self.take,
            [self.suggested, shared.lens],
            [form.filled, shared.lens],
            **QUIET,
        )


Found = Mapping[str, Any]

# So many labels or languages are listed, the most frequent first.
MOST_LISTED = 30
# The most frequent label has so many times the rows of the rarest: worth a word.
UNEVEN = 5
_TITLES = {
    "total": N_("Whole rows"),
    "prompt": N_("Prompts"),
    "answer": N_("Answers"),
    "chosen": N_("Chosen answers"),
    "rejected": N_("Rejected answers"),
}


def state(info: DatasetInfo, lens: Lens, found: Found, tokens: bool) -> str:
    """How many rows were counted, and with which tokenizer."""
    rows, total = found["rows"], found["rows_total"]
    counted = _("All {total:,} rows to learn were counted", total=total)
    if not found["complete"]:
        counted = _(
            "From {rows:,} of the {total:,} rows to learn, taken from its whole length",
            rows=rows,
            total=total,
        )
    if tokens:
        text = _("{counted}, with the tokenizer of {model}.", counted=counted, model=lens.model)
    else:
        text = _(
            "{counted}. Lengths need the tokenizer of {model}, which is not on this machine yet.",
            counted=counted,
            model=lens.model,
        )
    return html.plain.aside(text)


def counting(share: float | None, info: DatasetInfo) -> Markup:
    """How far the counting of all rows is, while the numbers of some are shown."""
    text = _("Shown from some rows; counting all {n:,}", n=info.counts.train)
    if share is not None:
        text = _("{text}: {share:.0%}", text=text, share=share)
    return messages.progress(share, text)


def figures(found: Found, tokens: bool) -> Markup:
    """The figures on top, and what is wrong with rows."""
    items: list[tuple[str, str, str]] = []
    complete = found["complete"]
    if tokens:
        epoch = found["epoch"]["tokens"]
        whole = messages.short(epoch / max(1 - found["cut_tokens_share"], 1e-9))
        epoch = messages.short(epoch)
        if not complete:
            whole, epoch = _("about {n}", n=whole), _("about {n}", n=epoch)
        cut, lost = _share(found["cut_rows_share"]), _share(found["cut_tokens_share"])
        items += [
            (_("Tokens"), whole, _("In all rows to learn, before the cut")),
            (_("Tokens per epoch"), epoch, _("After the cut at max_length")),
            (_("Rows cut"), cut, _("They lose their end at max_length")),
            (_("Tokens lost"), lost, _("Behind the cut; never learned")),
        ]
    again = _("Rows that repeat an earlier one")
    if not complete:
        again = _("Rows that repeat an earlier one, among those counted")
    items.append((_("Duplicates"), messages.count(found["duplicates"]), again))
    return messages.figures(items) + _defects(found, tokens)


def _defects(found: Found, tokens: bool) -> Markup:
    lines = []
    without, unusable = found["rows_without_loss"], found["unusable_rows"]
    at = found["max_length"]
    if tokens and without and at and found["cut_rows"]:
        text = n_(
            "{n} row teaches nothing: no token of the first {length:,} carries loss.",
            "{n:,} rows teach nothing: no token of the first {length:,} carries loss.",
            without,
            length=at,
        )
        lines.append(text)
    elif tokens and without:
        text = n_(
            "{n} row teaches nothing: no token carries loss.",
            "{n:,} rows teach nothing: no token carries loss.",
            without,
        )
        lines.append(text)
    if unusable:
        text = n_(
            "{n} row is refused by the chat template: {reason}",
            "{n:,} rows are refused by the chat template: {reason}",
            unusable,
            reason=found["unusable_reason"],
        )
        lines.append(text)
    lost = taken_out(*found["lost_thoughts"])
    if lost:
        text = _("{lost} Another chat template may keep them.", lost=lost)
        if not found["complete"]:
            text = _("{text} Those of the rows that were counted.", text=text)
        lines.append(text)
    return Markup().join(messages.note(line, "stopped") for line in lines)


def advice(suggested: Found, already: bool) -> Markup:
    """The max_length to take, and why."""
    value = suggested["value"]
    title = _("Suggested max_length: {n:,}", n=value)
    if already:
        title = _("max_length {n:,} fits this data", n=value)
    told = _("{reason} Longer rows take more memory and time.", reason=suggested["reason"])
    return html.statistics.advice(title, told)


def lengths(found: Found, key: str) -> list[dict[str, Any]]:
    """A histogram for whole rows, prompts and answers; the cut is drawn in the first."""
    drawn = []
    for name, title in _TITLES.items():
        known = found["lengths"].get(name)
        if known and known["counts"]:
            drawn.append(
                charts.histogram(
                    known["edges"],
                    known["counts"],
                    x=_("tokens"),
                    title=_("{what}: {numbers}", what=title, numbers=_told(known)),
                    scale=known["scale"],
                    cut=found["max_length"] if name == "total" else None,
                    key=f"{key} {name}",
                )
            )
    return drawn


def _told(known: Found) -> str:
    at = known["percentiles"]
    return _(
        "{mean:,.0f} tokens on average, half up to {half:,}, 95 % up to {most:,}, "
        "longest {longest:,}",
        mean=known["mean"],
        half=at["50"],
        most=at["95"],
        longest=at["max"],
    )


def shares(found: Found) -> Markup:
    """Labels, languages and turns as bars."""
    parts = []
    if found["labels"]:
        alike = about_alike(dict(found["labels"]))
        note = _("{alike} One click in Clean and shape merges them.", alike=alike) if alike else ""
        parts.append(_bars(_("Labels"), found["labels"], note or _balance(found["labels"])))
    if len(found["turns"]) > 1:
        turns = [[n_("{n} turn", "{n} turns", n), rows] for n, rows in found["turns"]]
        parts.append(_bars(_("Turns in a row"), turns, _("Without the system turn.")))
    if found["languages"]:
        named = [[_("not sure") if code == "?" else code, n] for code, n in found["languages"]]
        seen = sum(rows for _code, rows in found["languages"])
        parts.append(_bars(_("Languages"), named, _("Guessed from {n:,} rows.", n=seen)))
    return html.statistics.shares(parts)


def _balance(labels: Sequence[Sequence[Any]]) -> str:
    most, least = labels[0], labels[-1]
    if len(labels) < 2 or most[1] < UNEVEN * least[1]:
        return ""
    times = most[1] / least[1]
    return _(
        "{most} has {times:,.0f} times the rows of {least}. A cap for each label is in Clean and "
        "shape.",
        most=most[0],
        times=times,
        least=least[0],
    )


def _bars(
    title: str, items: Sequence[Sequence[Any]], note: str = ""
) -> tuple[str, str, list[tuple[str, float, int, str]], int]:
    """Names with their counts, each with its share; and how many are not listed."""
    total = sum(count for _name, count in items) or 1
    most = max(count for _name, count in items) or 1
    lines = [
        (name, count / most, count, _share(count / total)) for name, count in items[:MOST_LISTED]
    ]
    return title, note, lines, len(items) - MOST_LISTED


def _share(part: float) -> str:
    """A share in percent: never 0 % of something, never 100 % where something is missing."""
    if 0 < part < 0.001:
        return _("under 0.1 %")
    if 0.999 < part < 1:
        return _("over 99.9 %")
    percent = 100 * part
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"
