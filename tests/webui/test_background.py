"""Work that outlives a click, without a browser: who watches it, and where its end is told."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from core.data.record import Counts, DatasetInfo
from core.errors import ConfigError, DataError
from core.rules import parse_config
from tests.webui.fakes import fake_app
from webui.background import Task, Watches, begin, start_run
from webui.imports import Imports
from webui.works import bar

HOSTILE = "<b>many</b>"


def waits(released: threading.Event, result: Any = None) -> Any:
    """Work that tells how far it is until it may end."""

    def work(task: Task) -> Any:
        while not released.wait(0.01):
            task.tell(0.5, "half")
        if isinstance(result, Exception):
            raise result
        return result

    return work


def finish(imports: Imports, key: str, released: threading.Event) -> None:
    released.set()
    one = imports.get(key)
    assert one is not None and one.work.task.done.wait(10)


def test_what_a_page_has_turned_away_from_says_no_more_to_it() -> None:
    """Else the bar of one data set would stand under another, with a Stop that stops nothing."""
    watches, released = Watches(), threading.Event()
    task = begin(waits(released))
    said: list[str] = []
    began = threading.Event()

    def follow() -> None:
        with watches.watch("page", task, "towns") as watch:
            for _ in watch.glances():
                said.append("bar")
                began.set()
            if watch.wanted:
                said.append("end")

    page = threading.Thread(target=follow)
    page.start()
    assert began.wait(10)
    assert watches.turn("page", "topics") and not watches.turn("page", "topics")
    before = list(said)
    page.join(10)
    assert said == before and not task.done.is_set()
    with watches.watch("page", task, "towns") as late:
        assert not late.wanted and watches.watched("page") is None
    with watches.watch("other", task, "towns") as elsewhere:
        assert elsewhere.wanted and watches.watched("other") is task
    watches.turn("page", "towns")
    released.set()
    with watches.watch("page", task, "towns") as again:
        assert list(again.glances()) == [] or task.done.wait(10)
        assert again.wanted


def test_of_two_watches_of_a_page_the_last_goes_on() -> None:
    watches, released = Watches(), threading.Event()
    first, second = begin(waits(released)), begin(waits(released))
    left = threading.Event()

    def follow() -> None:
        with watches.watch("page", first) as watch:
            list(watch.glances())
            left.set()

    threading.Thread(target=follow).start()
    while watches.watched("page") is not first:
        assert not left.wait(0.01)
    with watches.watch("page", second) as watch:
        assert left.is_set() and watch.wanted and watches.watched("page") is second
    released.set()


def test_an_import_stands_in_every_page_but_in_the_form_that_shows_it() -> None:
    imports, released = Imports(), threading.Event()
    info = DatasetInfo(id="many", name=HOSTILE, form="text", counts=Counts(train=1200, eval=3))
    key, begun = imports.begin(HOSTILE, waits(released, info))
    assert imports.html("own", begun.work.task) == ""
    shown = imports.html("second", None)
    assert "Importing &lt;b&gt;many" in shown and 'data-act="stop"' in shown and "<b>" not in shown
    begun.told = "own"
    finish(imports, key, released)
    assert imports.html("own", None) == ""
    for page in ("second", "reloaded"):
        shown = imports.html(page, None)
        assert "1,200 rows to learn, 3 held out" in shown and 'data-act="open"' in shown
    imports.close(key, "own")
    assert imports.html("reloaded", None) == "", "its end was seen where it began"
    assert "1,200 rows" in imports.html("second", None), "it saw the beginning, and wants the end"
    imports.close(key, "second")
    assert imports.html("second", None) == "" and imports.get(key) is None


def test_a_failed_import_waits_until_somebody_has_read_why() -> None:
    imports, released = Imports(), threading.Event()
    key, _ = imports.begin("many", waits(released, DataError("No row is left.", "Mend it.")))
    finish(imports, key, released)
    for page in ("a", "b"):
        assert "many was not imported: No row is left." in imports.html(page, None)
    imports.close(key, "a")
    assert imports.html("b", None) == ""


def test_a_new_data_set_that_was_not_taken_up_is_offered() -> None:
    imports, released = Imports(), threading.Event()
    info = DatasetInfo(id="many", name="many", form="text")
    key, begun = imports.begin("many", waits(released, info))
    finish(imports, key, released)
    begun.told = "own"
    imports.offer(key)
    assert 'data-act="open"' in imports.html("own", None)


def test_a_bar_says_what_is_done_and_how_far_it_is() -> None:
    task = Task(fraction=0.25, message="Reading a.jsonl")
    assert "Importing a: Reading a.jsonl, 25%" in bar(task, "Importing a")
    task.begun -= 10
    assert "about 30 s left" in bar(task)
    task.fraction = 1.0
    assert "left" not in bar(task)


def test_a_run_that_cannot_start_fetches_no_model(tmp_path: Path) -> None:
    """The sample holds conversations, and a classifier learns from labels: minutes of download
    before that is said are lost."""
    app = fake_app(tmp_path / "workspace")
    config = parse_config({"method": "classification", "data": {"dataset": "sample"}})
    started = start_run(app.workspace, app.store, config)
    assert started.done.wait(60)
    assert isinstance(started.error, ConfigError)
    assert "data.dataset" in [problem.field for problem in started.error.problems]
    assert not any(app.workspace.models.iterdir())
