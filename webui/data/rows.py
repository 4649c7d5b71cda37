"""Rows of the chosen data set: as they are, or as the model sees them; any of them, at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.rowfile import find_rows, release_memory, rows_at
from core.errors import TunesmithError
from core.language import N_, _
from core.tokens.lens import Lens
from webui import messages
from webui.background import Newest
from webui.choice import Radio
from webui.context import CHOICE, HIDDEN, QUIET, App, Shared, begun, of_trigger, version_of
from webui.data import row_cards
from webui.data import row_cards as token_view
from webui.html import html
from webui.template_choice import TemplateChoice
from webui.tokens import ModelFetch, view_rows

PAGE = 3
AS_ROWS, AS_TOKENS = "rows", "tokens"
PARTS = {"train": N_("To learn"), "eval": N_("Held out"), "test": N_("Test")}
# The first look through a tokenizer waits for its worker process, in seconds.
PATIENCE = 120
# So long a handler waits for the worker before it says that it is waiting, in seconds.
SOON = 1.0
# A search tells how far it is so often, in seconds, and ends with so many rows.
TELL_EVERY = 0.5
MOST_FOUND = 1000
# The page does not begin with rows of more characters: they would be sent twice.
MOST_AT_FIRST = 100_000

Updates = dict[Component, Any]


@dataclass
class Where(Newest):
    """Where a browser's session is in the rows.

    It is kept here and not in the page: of two clicks, the second goes on from the first also when
    that one's answer is still on its way.
    """

    version: str = ""
    """The stamp of the rows that were opened."""
    lens: str = ""
    """How they became tokens then."""
    first: int = 0
    """Counts rows of the part, or of those that were `found`."""
    found: list[int] | None = None
    search: object = None
    """The search that is at work."""

    def move(self, first: int, found: list[int] | None = None) -> None:
        """To another place; it ends a search."""
        self.first, self.found, self.search = first, found, None


@dataclass(frozen=True)
class _Look:
    """What is to be shown."""

    dataset: str
    part: str
    how: str
    words: str
    lens: Lens
    draft: str
    where: Where

    def places(self, info: DatasetInfo) -> list[int]:
        """The numbers of the rows on this page."""
        first, found = self.where.first, self.where.found
        if found is not None:
            return found[first : first + PAGE]
        return list(range(first, min(first + PAGE, self.total(info))))

    def total(self, info: DatasetInfo) -> int:
        if self.where.found is not None:
            return len(self.where.found)
        return int(getattr(info.counts, self.part))


class RowsView:
    """Its components, handlers and wiring."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        with gr.Row(elem_classes="toolbar rows-bar"):
            self.part = Radio(
                [(_(PARTS["train"]), "train")],
                value="train",
                label=_("Part"),
                elem_id="rows-part",
                scale=0,
                min_width=120,
            )
            self.look = gr.Radio(
                [(_("Rows"), AS_ROWS), (_("As the model sees them"), AS_TOKENS)],
                value=AS_ROWS,
                label=_("Show"),
                scale=0,
                min_width=280,
            )
            self.words = gr.Textbox(
                label=_("Find in the rows"),
                placeholder=_("words, a label, a file's name"),
                max_lines=1,
                submit_btn=_("Find"),
                min_width=220,
                elem_id="find-rows",
            )
        self.templates = TemplateChoice(app, shared)
        self._build_place()
        self.rows = begun("rows", elem_id="rows")
        self.model = ModelFetch(app, shared)
        self.where = gr.State(Where())
        self.late = gr.Textbox(**HIDDEN, label="What the worker was asked late")
        self.inputs = {
            shared.dataset,
            shared.lens,
            self.part,
            self.look,
            self.words,
            self.where,
            self.templates.draft,
            self.row,
        }
        self.outputs = {
            self.part,
            self.place,
            self.rows,
            self.model.button,
            self.row,
            self.before,
            self.after,
            self.everything,
            self.late,
        }

    def _build_place(self) -> None:
        with gr.Row(elem_classes="toolbar rows-place"):
            self.before = gr.Button(_("Previous"), scale=0, min_width=96, elem_id="rows-before")
            self.after = gr.Button(_("Next"), scale=0, min_width=96, elem_id="rows-after")
            # No minimum: with less in it Gradio would refuse whatever else is asked here, too.
            self.row = gr.Number(
                1,
                label=_("Go to row"),
                precision=0,
                scale=0,
                min_width=110,
                elem_id="go-to-row",
            )
            self.place = begun("place", elem_id="rows-where")
            self.everything = gr.Button(_("Show all rows"), visible=False, scale=0, min_width=120)

    # -- handlers

    def open(self, data: dict[Component, Any]) -> Updates:
        """Another data set or version: its parts, from the first row. The same one again, as after
        a look at another tab, stays where it was left; as tokens they may be others now."""
        look = self._asked(data)
        where, version, lens = look.where, self._version(look), data[self.shared.lens]
        # At once, for a click on what the page began with may be answered at the same time.
        before = where.version, where.lens
        asked = where.ask() if version != before[0] else None
        if asked:
            where.move(0)
        where.version, where.lens = version, lens
        as_tokens = look.how == AS_TOKENS
        lists = self.templates.follow(lens) if as_tokens else {}
        if not asked:
            others = as_tokens and lens != before[1]
            return lists | (self._shown(look, moved=False) if others else self._nothing_new)
        return lists | (self._shown(look, asked) if look.dataset else {self.rows: ""})

    def act(self, data: dict[Component, Any], event: gr.EventData) -> Updates:
        """One of the controls above the rows, perhaps of those that the page began with."""
        look = self._asked(data)
        if not look.where.version:
            look.where.version, look.where.lens = self._version(look), data[self.shared.lens]
        acts = {
            self.part: self.choose_part,
            self.row: self.go,
            self.before: partial(self.turn, step=-PAGE),
            self.after: partial(self.turn, step=PAGE),
        }
        done: Updates = of_trigger(event, acts, self.show)(data)
        return done

    def show(self, data: dict[Component, Any]) -> Updates:
        """The page again, after another setting."""
        return self._shown(self._asked(data), moved=False)

    def choose_part(self, data: dict[Component, Any]) -> Updates:
        look = self._asked(data)
        look.where.move(0)
        return self._shown(look)

    def turn(self, data: dict[Component, Any], step: int) -> Updates:
        """The page before or after; at the end of the rows it stays there."""
        look = self._asked(data)
        first = max(look.where.first + step, 0)
        if first < look.total(self._info(look)):
            look.where.first = first
        return self._shown(look)

    def go(self, data: dict[Component, Any]) -> Updates:
        """To the row whose number was typed; a search is left for it."""
        look = self._asked(data)
        look.where.move(int(data[self.row] or 1) - 1)
        return self._shown(look)

    def find(self, data: dict[Component, Any]) -> Iterator[Updates]:
        """The rows that contain the words: the first as soon as they are found."""
        look = self._asked(data)
        where = look.where
        where.move(0)
        if not look.words:
            yield self._shown(look)
            return
        mine = where.search = object()
        told, early = monotonic(), False
        found: list[int] = []
        for looked in find_rows(self._info(look).rows_path(look.part), look.words):
            found += looked.rows
            if len(found) >= MOST_FOUND or where.search is not mine:
                break
            if monotonic() - told > TELL_EVERY:
                yield self._searching(look, found, looked.looked / looked.total, early)
                told, early = monotonic(), early or len(found) >= PAGE
        release_memory()
        if where.search is mine:
            where.first = where.first if where.found is not None else 0
            where.found, where.search = found[:MOST_FOUND], None
            yield self._shown(look)

    def leave_search(self, data: dict[Component, Any]) -> Updates:
        """All rows again, from the first."""
        look = self._asked(data)
        look.where.move(0)
        return {**self._shown(look), self.words: ""}

    def wait(self, data: dict[Component, Any]) -> None:
        """Until the worker has answered what was asked; `show` then shows it.

        It shows nothing itself: by then other rows may be asked for.
        """
        look = self._asked(data)
        if look.how != AS_TOKENS or not look.dataset:
            return
        with suppress(TunesmithError):  # `show` has said it
            asked = self._tokens(look, look.places(self._info(look)))
            if asked is not None:
                wait([asked], timeout=PATIENCE)

    # -- what handlers share

    def _asked(self, data: Mapping[Component, Any]) -> _Look:
        return _Look(
            dataset=data[self.shared.dataset],
            part=data[self.part] or "train",
            how=data[self.look],
            words=(data[self.words] or "").strip(),
            where=data[self.where],
            lens=Lens.read(data[self.shared.lens]),
            draft=data[self.templates.draft],
        )

    def _version(self, look: _Look) -> str:
        return version_of(self.app, look.dataset) or look.dataset

    def _info(self, look: _Look) -> DatasetInfo:
        return load_dataset_info(self.app.workspace, look.dataset)

    def _tokens(self, look: _Look, places: list[int]) -> Any:
        return view_rows(self.app, look.dataset, look.part, places, look.lens, look.draft)

    def _shown(self, look: _Look, asked: object = None, *, moved: bool = True) -> Updates:
        """The page of rows and all that says where in the data set it is; nothing if more was asked
        meanwhile (since `asked`). The number of the row is being typed, perhaps: it follows only a
        move."""
        where = look.where
        asked = asked or where.ask()
        try:
            info = self._info(look)
            if look.part not in info.parts:
                look = replace(look, part="train")
                where.move(0)
            total = look.total(info)
            where.first = min(max(where.first, 0), max(total - 1, 0))
            places = look.places(info)
            drawn = self._drawn(look, info, places)
        except TunesmithError as error:
            drawn, places, total = {self.rows: messages.error(error)}, [], 0
            info = None
        if not where.is_newest(asked):
            return self._nothing_new
        return {
            self.model.button: self.model.offer(False),
            **drawn,
            **self._where(look, places, total, moved),
            self.part: _parts(info, look.part) if info else gr.skip(),
        }

    @property
    def _nothing_new(self) -> Updates:
        return {self.rows: gr.skip()}

    def _where(self, look: _Look, places: list[int], total: int, moved: bool) -> Updates:
        first = look.where.first
        return {
            self.place: _place(look, places, total),
            self.row: (places[0] + 1 if places else 1) if moved else gr.skip(),
            self.before: gr.Button(interactive=first > 0),
            self.after: gr.Button(interactive=first + len(places) < total),
            self.everything: gr.Button(_("Show all rows"), visible=look.where.found is not None),
        }

    def _drawn(self, look: _Look, info: DatasetInfo, places: list[int]) -> Updates:
        """The rows, or what they wait for."""
        if not places:
            return {self.rows: _nothing(look)}
        if look.how == AS_TOKENS:
            return self._through(look, info, places)
        found = list(rows_at(info.rows_path(look.part), places).values())
        words = look.words if look.where.found is not None else ""
        return {self.rows: row_cards.rows(found, places, words)}

    def _through(self, look: _Look, info: DatasetInfo, places: list[int]) -> Updates:
        """The rows through the tokenizer of the model chosen in Configure."""
        lens = look.lens
        asked = self._tokens(look, places)
        if asked is None:
            text = _(
                "{model} is not on this machine yet; its tokenizer is needed for this.",
                model=lens.model,
            )
            return {self.rows: messages.note(text), self.model.button: self.model.offer()}
        wait([asked], timeout=SOON)
        if not asked.done():
            text = _("Reading with the tokenizer of {model}", model=lens.model)
            return {self.rows: messages.progress(None, text), self.late: str(monotonic())}
        method = lens.method if lens.goes_on and "text" in info.form else ""
        chips = token_view.tokens(asked.result(), places, lens.max_length, info.form, method)
        title = _("a template that is not saved") if look.draft else self.templates.title(lens)
        legend = token_view.legend(lens.model, title, lens.max_length, method)
        return {self.rows: legend + chips}

    def _searching(self, look: _Look, found: list[int], share: float, early: bool) -> Updates:
        """How far a search is, and its first rows as soon as there is a page of them. They can be
        turned meanwhile."""
        shown: Updates = {}
        if len(found) >= PAGE:
            look.where.found = list(found)
            shown = {self.after: gr.Button(interactive=True)} if early else self._shown(look)
        return {
            **shown,
            self.place: messages.progress(share, _("{n:,} found so far", n=len(found))),
            self.everything: gr.Button(_("Stop the search"), visible=True),
        }

    # -- wiring

    def wire(self) -> None:
        shared = self.shared
        # Each is answered, at once; what was asked last is shown.
        each: dict[str, Any] = {
            **CHOICE,
            "concurrency_limit": None,
        }
        inputs, outputs = self.inputs, self.outputs
        shared.on_rows(self.open, inputs, {*outputs, *self.templates.lists}).then(
            None, js="() => document.documentElement.removeAttribute('data-first')", **QUIET
        )
        triggers = [self.look.input, self.templates.draft.change, self.part.input]
        triggers += [self.row.submit, self.before.click, self.after.click]
        gr.on(triggers, self.act, inputs, outputs, **each)
        # Only when the rows could not be shown at once.
        self.late.change(self.wait, inputs, None, **each).then(self.show, inputs, outputs, **each)
        self.templates.wire(self.look, AS_TOKENS)
        self.model.wire().then(self.show, inputs, outputs, **each)
        finding = self.words.submit(self.find, inputs, outputs, **each)
        self.everything.click(
            self.leave_search, inputs, {*outputs, self.words}, cancels=[finding], **each
        )


def first_look(info: DatasetInfo) -> dict[str, str]:
    """The first rows and where they are, by the parts of the page that show them."""
    look = _Look(info.id, "train", AS_ROWS, "", Lens.read(""), "", Where())
    places = look.places(info)
    found = list(rows_at(info.rows_path(look.part), places).values())
    drawn = row_cards.rows(found, places) if places else _nothing(look)
    if len(drawn) > MOST_AT_FIRST:
        return {}
    return {"rows": drawn, "place": _place(look, places, look.total(info))}


def _parts(info: DatasetInfo, chosen: str) -> Any:
    choices = [(_(PARTS[part]), part) for part in info.parts]
    return gr.Radio(choices, value=chosen, visible=len(choices) > 1)


def _place(look: _Look, places: list[int], total: int) -> str:
    if not places:
        return ""
    if look.where.found is None:
        text = _(
            "Rows {first:,} to {last:,} of {total:,}",
            first=places[0] + 1,
            last=places[-1] + 1,
            total=total,
        )
    elif total == 1:
        text = _("1 row contains {words!r}", words=look.words)
    else:
        text = _(
            "{first:,} to {last:,} of {total} rows that contain {words!r}",
            first=look.where.first + 1,
            last=look.where.first + len(places),
            total=_("{n:,} or more", n=total) if total >= MOST_FOUND else f"{total:,}",
            words=look.words,
        )
    return html.plain.aside(text)


def _nothing(look: _Look) -> Markup:
    if look.where.found is not None:
        return messages.empty(
            _("Nothing found"), _("No row of this part contains {words!r}.", words=look.words)
        )
    return messages.empty(_("No rows in this part"), _("They may have been split off or dropped."))
