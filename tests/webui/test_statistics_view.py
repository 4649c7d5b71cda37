"""The numbers of a data set in words and charts: shares that are never rounded to a lie."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from core.data.record import Counts, DatasetInfo
from core.tokens.lens import Lens
from core.tokens.statistics import Tally, summarize
from tests.webui.test_messages import HOSTILE, Tags, assert_harmless
from webui import charts
from webui.data import statistics

LENS = Lens("a model", 10)


def found(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "form": "messages",
        "rows": 100,
        "rows_total": 100,
        "lengths": {"total": Counter({5: 60, 20: 40}), "answer": Counter({2: 100})},
        "sides": Counter({5: 60, 20: 40}),
        "begins": Counter({1: 90, 15: 10}),
        "turns": Counter({2: 80, 4: 20}),
        "languages": Counter({"en": 99, "?": 1}),
    }
    return summarize(Tally(**{**settings, **changes}), LENS.max_length)


def info(rows: int) -> DatasetInfo:
    return DatasetInfo(id="a", name="a", form="messages", counts=Counts(train=rows))


def text_of(html: str) -> str:
    return " ".join(Tags(html).text.split())


def test_the_figures_say_what_the_cut_takes_and_what_teaches_nothing() -> None:
    shown = text_of(statistics.figures(found(), True))
    assert "Tokens1,100" in shown.replace(" ", "").replace("1.1k", "1,100")
    assert "Rows cut40 %" in shown
    assert "Tokens lost36 %" in shown
    assert "10 rows teach nothing: no token of the first 10 carries loss." in shown


def test_what_was_counted_of_some_rows_says_so() -> None:
    some = found(rows_total=5000)
    assert "about" in text_of(statistics.figures(some, True))
    said = statistics.state(info(5000), LENS, some, True)
    assert "From 100 of the 5,000 rows to learn" in said
    assert "All 100 rows" in statistics.state(info(100), LENS, found(), True)


def test_without_a_model_no_length_is_made_up() -> None:
    nothing = found(lengths={}, sides=Counter(), begins=Counter())
    shown = text_of(statistics.figures(nothing, False))
    assert "Tokens" not in shown
    assert "Duplicates0" in shown
    assert "not on this machine yet" in statistics.state(info(100), LENS, nothing, False)
    assert statistics.lengths(nothing, "") == []


def test_the_cut_is_drawn_where_it_is_in_the_chart_of_whole_rows_alone() -> None:
    whole, answers = statistics.lengths(found(), "key")
    assert [mark["x"] for mark in whole["marks"]] == [10]
    assert answers["marks"] == []
    assert sum(whole["lines"][0]["y"]) == 100
    assert len(whole["lines"][0]["x"]) == len(whole["lines"][0]["y"])


def test_a_histogram_tells_each_bar_on_hover() -> None:
    chart = charts.histogram([10, 20, 40], [3, 1200], x="tokens", scale="log")
    assert chart["log_x"] is True
    assert chart["lines"][0]["text"][1] == "20 to 40: 1,200 rows"
    assert charts.histogram([], [], x="tokens")["lines"][0]["y"] == []


@pytest.mark.parametrize(
    ("most", "least", "told"), [(50, 10, True), (49, 10, False), (10, 10, False)]
)
def test_uneven_labels_are_pointed_out(most: int, least: int, told: bool) -> None:
    html = statistics.shares(found(labels=Counter({"a": most, "b": least})))
    assert ("times the rows of b" in text_of(html)) is told


def test_many_labels_are_listed_up_to_a_point() -> None:
    labels = Counter({f"label {n}": 100 - n for n in range(statistics.MOST_LISTED + 7)})
    shown = text_of(statistics.shares(found(labels=labels)))
    assert "and 7 more" in shown


@pytest.mark.parametrize(
    ("rare", "shown"), [(1, "under 0.1 %"), (50, "0.5 %"), (9999, "over 99.9 %")]
)
def test_a_share_is_never_rounded_to_none_or_all(rare: int, shown: str) -> None:
    html = statistics.shares(found(labels=Counter({"rare": rare, "rest": 10_000 - rare})))
    assert shown in text_of(html)


def test_labels_are_shown_as_text() -> None:
    assert_harmless(statistics.shares(found(labels=Counter({HOSTILE: 3, "a": 1}))))
    assert_harmless(statistics.figures(found(unusable=1, reason=HOSTILE), True))
    assert_harmless(statistics.state(info(1), Lens(HOSTILE, 9), found(), True))


def test_a_suggestion_that_is_set_already_offers_nothing_to_press() -> None:
    suggested = found()["suggested"]
    assert "Suggested max_length: 128" in statistics.advice(suggested, False)
    assert "max_length 128 fits this data" in statistics.advice(suggested, True)
