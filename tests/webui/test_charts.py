"""Charts must stay quick and true: few points, no lost spike, the same colour for the same run."""

from __future__ import annotations

import json

import pytest

from webui.charts import MOST_POINTS, Line, columns, figure, run_colour, smooth


def test_a_long_curve_is_drawn_with_at_most_a_thousand_points_and_keeps_its_spike() -> None:
    points = [(step, 1.0) for step in range(50_000)]
    points[31_234] = (31_234, 99.0)
    [line] = figure([Line("loss", points)], y="loss")["lines"]
    assert len(line["x"]) <= MOST_POINTS
    assert max(line["y"]) == 99.0
    assert (line["x"][0], line["x"][-1]) == (0, 49_999)


def test_a_short_curve_is_drawn_as_it_is() -> None:
    [line] = figure([Line("loss", [(1, 2.5), (2, 2.25)])], y="loss")["lines"]
    assert (line["x"], line["y"]) == ([1, 2], [2.5, 2.25])


def test_a_figure_is_plain_json_without_numbers_that_json_lacks() -> None:
    lines = [Line("a", [(1, 1e-9)], "run-1", "dots"), Line("b", [])]
    text = json.dumps(figure(lines, y="loss", key="run log", log=True), allow_nan=False)
    assert json.loads(text)["log"] is True


def test_a_run_keeps_its_colour() -> None:
    """Else two charts of the same run look like two runs."""
    assert run_colour("20261121-2214-quiet-otter") == run_colour("20261121-2214-quiet-otter")
    assert len({run_colour(f"run-{number}") for number in range(100)}) == 8


def test_smoothing_starts_at_the_first_value_and_follows_a_step() -> None:
    smoothed = smooth([(step, 4.0 if step < 50 else 1.0) for step in range(200)])
    assert smoothed[0] == (0, 4.0)
    assert smoothed[49][1] == pytest.approx(4.0)
    assert 1.0 < smoothed[60][1] < 4.0
    assert smoothed[199][1] < 1.2


def test_smoothing_of_a_longer_run_begins_like_that_of_a_shorter_one() -> None:
    """Points are added to what was drawn: a new one must not move the old ones."""
    points = [(step, float(step % 5)) for step in range(100)]
    assert smooth(points)[:60] == smooth(points[:60])


def test_values_are_rounded_to_what_can_be_seen() -> None:
    assert columns([(1, 0.12345678901)])["y"] == [0.1234568]
