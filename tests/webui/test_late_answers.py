"""Answers that come late on a slow machine: what was chosen last is what the page goes on to show.

The real page over a real data set; the handlers are called as Gradio calls them, each with what the
page held when it was asked.
"""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

import gradio as gr
import pytest

from core.data import rowfile
from core.data.prepare import import_dataset
from core.data.registry import load_dataset_info
from core.tokens.lens import Lens
from tests.waiting import LIMIT
from tests.webui.fakes import fake_app, owner_of
from webui.app import build
from webui.background import Newest
from webui.context import App, stamp
from webui.data import rows
from webui.data import tab as data
from webui.data.rows import AS_ROWS, PAGE, RowsView

ROWS = 20


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    app = fake_app(tmp_path_factory.mktemp("late") / "workspace")
    path = app.workspace.root / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"this is text {n}"}) + "\n" for n in range(ROWS)))
    import_dataset(app.workspace, [path], name="texts", eval_fraction=0.0)
    return app


@pytest.fixture(scope="module")
def page(app: App) -> gr.Blocks:
    return build(app)


def owner(page: gr.Blocks, kind: str) -> Any:
    """The one of this class that answers the page's events."""
    owners = [owner_of(function) for function in page.fns.values()]
    return next(one for one in owners if type(one).__name__ == kind)


@pytest.fixture
def view(page: gr.Blocks) -> RowsView:
    return owner(page, "RowsView")


@pytest.fixture
def asked(app: App, view: RowsView) -> dict[Any, Any]:
    """What one browser's session holds."""
    info = load_dataset_info(app.workspace, "texts")
    held = {one: getattr(one, "value", None) for one in view.inputs}
    return held | {
        view.shared.dataset: info.id,
        view.shared.version: stamp(info),
        view.look: AS_ROWS,
        view.part: "train",
        view.where: copy.deepcopy(view.where.value),
    }


def shown(view: RowsView, updates: dict[Any, Any]) -> str:
    return updates.get(view.place, "")


class Slow:
    """`rows_at` that waits for a word at its first call."""

    def __init__(self) -> None:
        self.reading, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *given: Any) -> Any:
        if not self.reading.is_set():
            self.reading.set()
            assert self.go_on.wait(LIMIT)
        return READ(*given)


READ, VERSION = rowfile.rows_at, rows.version_of


def test_a_click_is_not_undone_by_an_answer_that_was_asked_for_before(
    view: RowsView, asked: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    view.open(asked)
    slow = Slow()
    monkeypatch.setattr(rows, "rows_at", slow)
    late: list[dict[Any, Any]] = []
    thread = threading.Thread(target=lambda: late.append(view.show(asked)))
    thread.start()
    assert slow.reading.wait(LIMIT)
    turned = view.turn(asked, PAGE)
    slow.go_on.set()
    thread.join(LIMIT)
    assert "Rows 4 to 6" in shown(view, turned)
    assert late == [{view.rows: gr.skip()}]


@pytest.mark.parametrize("number", [0, -3, None, 10_000])
def test_a_number_that_no_row_has_goes_to_the_nearest(
    view: RowsView, asked: dict[Any, Any], number: int | None
) -> None:
    """Nothing else could be asked as long as it stood there."""
    given = {**asked, view.row: view.row.preprocess(number)}
    view.open(given)
    first = ROWS if number == 10_000 else 1
    assert view.go(given)[view.row] == first
    assert view.turn(given, -PAGE)[view.rows]


def test_a_click_on_what_the_page_began_with_is_not_undone_by_its_first_answer(
    view: RowsView, asked: dict[Any, Any]
) -> None:
    """The rows are drawn before the page has asked for any."""
    after = gr.EventData(view.after, {})
    turned = view.act(asked, after)
    assert "Rows 4 to 6" in shown(view, turned)
    assert view.open(asked) == {view.rows: gr.skip()}
    assert "Rows 7 to 9" in shown(view, view.act(asked, after))


def test_a_click_while_the_first_answer_is_made_is_not_undone_by_it(
    view: RowsView, asked: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was asked for first, and is made at the same time."""
    slow = Slow()
    monkeypatch.setattr(rows, "rows_at", slow)
    late: list[dict[Any, Any]] = []
    thread = threading.Thread(target=lambda: late.append(view.open(asked)))
    thread.start()
    assert slow.reading.wait(LIMIT)
    turned = view.act(asked, gr.EventData(view.after, {}))
    slow.go_on.set()
    thread.join(LIMIT)
    assert "Rows 4 to 6" in shown(view, turned)
    assert late == [{view.rows: gr.skip()}]


@pytest.mark.parametrize("slow_one", ["open", "act"])
def test_whichever_of_the_two_is_slower_to_begin(
    view: RowsView, asked: dict[Any, Any], monkeypatch: pytest.MonkeyPatch, slow_one: str
) -> None:
    """Both look for the version of the rows first, which reads a file."""
    reading, go_on = threading.Event(), threading.Event()
    late: list[dict[Any, Any]] = []
    after = gr.EventData(view.after, {})
    acts = {"open": lambda: view.open(asked), "act": lambda: view.act(asked, after)}

    def version_of(*given: Any) -> str:
        if threading.current_thread() is thread:
            reading.set()
            assert go_on.wait(LIMIT)
        return VERSION(*given)

    monkeypatch.setattr(rows, "version_of", version_of)
    thread = threading.Thread(target=lambda: late.append(acts[slow_one]()))
    thread.start()
    assert reading.wait(LIMIT)
    other = acts["act" if slow_one == "open" else "open"]()
    go_on.set()
    thread.join(LIMIT)
    opened, turned = (late[0], other) if slow_one == "open" else (other, late[0])
    assert "Rows 4 to 6" in shown(view, turned)
    assert "Rows 4 to 6" not in shown(view, opened)


def test_the_page_begins_with_what_its_first_answer_shows(
    app: App, page: gr.Blocks, view: RowsView, asked: dict[Any, Any]
) -> None:
    dataset = asked[view.shared.dataset]
    told = {"dataset": dataset}
    look = data.first_look(app, told)
    answer = view.open(asked)
    assert (look["rows"], look["place"]) == (answer[view.rows], answer[view.place])
    assert "this is text 0" in look["rows"] and not look["begun"]
    frame = owner(page, "_Data")
    answers = frame.open(dataset, asked[view.shared.lens], Newest())
    assert look["about"] in answers
    for other in ({**told, "tab": "train"}, {"tab": "nowhere"}):
        assert data.first_look(app, other) == {}
    for missing in ("../texts", "nobody", "<script>"):
        assert data.first_look(app, {"dataset": missing}) == {"begun": False}


def test_the_page_is_there_whatever_the_rows_are(app: App) -> None:
    """Else nobody could choose other ones."""
    path = app.workspace.root / "torn.jsonl"
    path.write_text('{"text": "this is text"}\n' * 20)
    torn = import_dataset(app.workspace, [path], name="torn", eval_fraction=0.0)
    torn.rows_path("train").write_bytes(b"no rows")
    look = data.first_look(app, {"dataset": "torn"})
    assert {*look} == {"begun", "numbers", "about"}


def test_the_page_does_not_begin_with_rows_that_are_long(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_AT_FIRST", 100)
    assert {*data.first_look(app, {"dataset": "texts"})} == {"begun", "numbers", "about"}


def test_two_quick_clicks_turn_two_pages(view: RowsView, asked: dict[Any, Any]) -> None:
    view.open(asked)
    view.turn(asked, PAGE)
    assert "Rows 7 to 9" in shown(view, view.turn(asked, PAGE))
    assert "Rows 4 to 6" in shown(view, view.turn(asked, -PAGE))


def test_the_last_page_is_whole_however_often_next_is_clicked(
    view: RowsView, asked: dict[Any, Any]
) -> None:
    view.open(asked)
    for _ in range(ROWS):
        last = view.turn(asked, PAGE)
    assert f"Rows 19 to {ROWS} of {ROWS}" in shown(view, last)


def test_the_same_rows_opened_again_stay_where_they_were_left(
    view: RowsView, asked: dict[Any, Any]
) -> None:
    view.open(asked)
    view.turn(asked, PAGE)
    assert view.open(asked) == {view.rows: gr.skip()}
    assert "Rows 4 to 6" in shown(view, view.show(asked))


def test_a_number_that_is_being_typed_is_not_written_over(
    view: RowsView, asked: dict[Any, Any]
) -> None:
    view.open(asked)
    assert view.show(asked)[view.row] == gr.skip()
    gone = view.go({**asked, view.row: 20})
    assert gone[view.row] == 20
    assert "Rows 20 to 20" in shown(view, gone)


def test_found_rows_can_be_turned_while_the_search_goes_on(
    view: RowsView, asked: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "TELL_EVERY", -1.0)
    view.open(asked)
    asked = {**asked, view.words: "text 1"}
    searching = view.find(asked)
    next(searching)
    assert "4 to 6 of" in shown(view, view.turn(asked, PAGE))
    *_, last = searching
    assert "4 to 6 of 11 rows" in shown(view, last)


def test_a_search_ends_when_its_rows_are_left(
    view: RowsView, asked: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "TELL_EVERY", -1.0)
    view.open(asked)
    asked = {**asked, view.words: "text"}
    searching = view.find(asked)
    next(searching)
    left = view.leave_search(asked)
    assert left[view.words] == ""
    assert list(searching) == []
    assert f"Rows 1 to 3 of {ROWS}" in shown(view, view.show(asked))


def test_another_way_to_read_the_rows_is_not_another_data_set(app: App, page: gr.Blocks) -> None:
    """Else who has turned the page is taken back to the first row when the tokens are counted."""
    data = owner(page, "_Data")
    info = load_dataset_info(app.workspace, "texts")
    told = data.tell(info.id, Lens("nowhere", 192).write(), Newest())
    again = data.tell(info.id, Lens("nowhere", 64).write(), Newest())
    assert told[-1] == again[-1] == stamp(info)


def test_what_is_selected_is_not_selected_once_more(app: App, page: gr.Blocks) -> None:
    """By the time the answer comes, another data set may be selected."""
    data = owner(page, "_Data")
    info = load_dataset_info(app.workspace, "texts")
    opened = data.open(info.id, "", Newest())
    assert opened[1] == gr.skip()
    assert data.open("gone", "", Newest())[1] == "sample"
