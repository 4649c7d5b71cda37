"""Work that outlives a click, without a browser: who watches it, and that it can be stopped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.rules import parse_config
from tests.waiting import LIMIT
from tests.webui.fakes import fake_app
from webui.background import Task, Watches, begin, start_run


def waits(released: threading.Event, result: Any = None) -> Any:
    """Work that tells how far it is until it may end."""

    def work(task: Task) -> Any:
        while not released.wait(0.01):
            task.tell(0.5, "half")
        if isinstance(result, Exception):
            raise result
        return result

    return work


def test_what_a_page_has_turned_away_from_says_no_more_to_it() -> None:
    """Else the bar of one data set would stand under another, with a Stop that stops nothing."""
    watches, released = Watches(), threading.Event()
    task = begin(waits(released))
    said: list[str] = []
    began = threading.Event()

    def follow() -> None:
        with watches.watch("page", task) as watch:
            for _ in watch.glances():
                said.append("bar")
                began.set()
            if watch.wanted:
                said.append("end")

    page = threading.Thread(target=follow)
    page.start()
    assert began.wait(LIMIT)
    assert watches.leave("page") is task and watches.leave("page") is None
    before = list(said)
    page.join(LIMIT)
    assert said == before and not task.done.is_set()
    released.set()
    with watches.watch("page", task) as again:
        assert list(again.glances()) == [] or task.done.wait(LIMIT)
        assert again.wanted


def test_work_that_is_stopped_says_so() -> None:
    task = begin(waits(threading.Event()))
    task.stop()
    assert task.done.wait(LIMIT)
    assert task.stopped and task.error is not None and task.result is None


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


def test_a_run_that_cannot_start_fetches_no_model(tmp_path: Path) -> None:
    """The sample holds conversations, and a classifier learns from labels: minutes of download
    before that is said are lost."""
    app = fake_app(tmp_path / "workspace")
    config = parse_config({"method": "classification", "data": {"dataset": "sample"}})
    started = start_run(app.workspace, app.store, config)
    assert started.done.wait(LIMIT)
    assert isinstance(started.error, ConfigError)
    assert "data.dataset" in [problem.field for problem in started.error.problems]
    assert not any(app.workspace.models.iterdir())
