"""Imports at work, and their ends until somebody has seen them: of every page, whoever began them.

An import belongs to the server, not to a browser. The form that began it shows it; after a reload,
and in every other page, it stands above the form.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.data.record import DatasetInfo
from core.errors import TunesmithError
from webui import background, messages
from webui.works import Work

_MOST_SEEN = 20


@dataclass
class Import:
    """Rows that become a data set."""

    name: str
    work: Work
    known_to: set[str] = field(default_factory=set)
    """Pages that showed it while it was at work: they show its end, too."""
    told: str = ""
    """The page whose form has told its end."""
    closed: bool = False
    """Whether somebody has seen its end."""

    def html(self, key: str) -> str:
        """How far it is, or what came of it, with what can be done about that."""
        task = self.work.task
        if not task.done.is_set():
            return f'<li class="under-way">{self.work.bar()}{_button("stop", key, self.name)}</li>'
        buttons = _button("dismiss", key, self.name)
        if task.error is None:
            return f"<li>{_arrived(task.result)}{_button('open', key, self.name)}{buttons}</li>"
        return f"<li>{failure(task.error, self.name)}{buttons}</li>"


class Imports:
    """The imports of a server, by a key."""

    def __init__(self) -> None:
        self._imports: dict[str, Import] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def begin(self, name: str, work: Callable[[background.Task], Any]) -> tuple[str, Import]:
        """Starts `work(task)`, which gives the record of the new data set."""
        title = f"Importing {name}"
        begun = Import(name, Work(title, background.begin(work, title)))
        key = str(next(self._numbers))
        with self._lock:
            # Pages that were left without a word still count as those that know of one.
            for old in [key for key, one in self._imports.items() if one.closed][:-_MOST_SEEN]:
                del self._imports[old]
            self._imports[key] = begun
        return key, begun

    def get(self, key: str) -> Import | None:
        return self._imports.get(key)

    def html(self, page: str, in_form: background.Task | None) -> str:
        """What a page shows beside its form, which shows the import whose task is `in_form`."""
        with self._lock:
            shown = [
                (key, one)
                for key, one in self._imports.items()
                if one.work.task is not in_form and one.told != page
                and (not one.closed or page in one.known_to)
            ]
            for _, one in shown:
                if not one.work.task.done.is_set():
                    one.known_to.add(page)
        items = "".join(one.html(key) for key, one in shown)
        return f'<ul class="imports">{items}</ul>' if items else ""

    def close(self, key: str, page: str) -> None:
        """The page has seen the end. Pages that showed it at work go on showing it."""
        with self._lock:
            one = self._imports.get(key)
            if one is None:
                return
            one.closed = True
            one.known_to.discard(page)
            if not one.known_to:
                del self._imports[key]

    def offer(self, key: str) -> None:
        """The form told the end, and the new data set was not taken up there."""
        one = self._imports.get(key)
        if one is not None:
            one.told = ""


def failure(error: TunesmithError, name: str) -> str:
    """Why nothing came of an import."""
    if isinstance(error, background.Stopped):
        return messages.note(f"Stopped. {name} was not imported.", "stopped")
    return messages.error(f"{name} was not imported: {error.message}", error.hint)


def _arrived(info: DatasetInfo) -> str:
    counts = info.counts
    parts = [f"{counts.train:,} rows to learn"]
    parts += [f"{counts.eval:,} held out"] if counts.eval else []
    parts += [f"{counts.test:,} for a test"] if counts.test else []
    parts += [f"{counts.dropped:,} dropped"] if counts.dropped else []
    return messages.note(f"{info.name} is imported: {', '.join(parts)}.", "finished")


_WORDS = {"stop": "Stop", "open": "Open it", "dismiss": "Dismiss"}


def _button(act: str, key: str, name: str) -> str:
    label = messages.escape(f"{_WORDS[act]}: {name}")
    return (
        f'<button type="button" class="small" data-act="{act}" data-at="{key}" '
        f'aria-label="{label}">{_WORDS[act]}</button>'
    )
