"""Charts: what is drawn is decided here, how it looks in assets/charts.js.

A chart is a `gr.HTML` whose value is a figure (`figure`) in plain JSON; the browser draws it with
plotly.js in the page's colours of the moment, so that light and dark match without the server, and
keeps the reader's zoom as long as `key` stays the same. plotly's Python package is never imported.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from core.language import _, n_
from core.runs.curves import Point, downsample
from webui.html import html

MOST_POINTS = 1000
RUN_COLOURS = 8
REACH = 25
MOST_KEPT = 0.96


@dataclass(frozen=True)
class Line:
    """One curve. `colour` is a token of tokens.css (accent, ink-soft, run-0 ... run-7, failed)."""

    name: str
    points: Sequence[Point]
    colour: str = "accent"
    style: Literal["line", "faint", "dots", "dashed"] = "line"


def figure(
    lines: Iterable[Line],
    *,
    y: str,
    key: str = "",
    log: bool = False,
    legend: bool = True,
) -> dict[str, Any]:
    """The value of a chart: at most 1,000 points a curve, whatever its length."""
    return {
        "key": key,
        "x": _("training step"),
        "y": y,
        "log": log,
        "legend": legend,
        "lines": [
            {
                "name": line.name,
                "colour": line.colour,
                "style": line.style,
                **columns(downsample(line.points, MOST_POINTS)),
            }
            for line in lines
        ],
    }


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x: str,
    title: str = "",
    scale: Literal["linear", "log"] = "linear",
    cut: float | None = None,
    key: str = "",
) -> dict[str, Any]:
    """The value of a chart of how many (`counts[i]`) lie from `edges[i]` to `edges[i + 1]`.

    `cut` is drawn as a line across; what lies beyond it is lost.
    """
    told = [
        n_(
            "{low:,} to {high:,}: {n:,} row",
            "{low:,} to {high:,}: {n:,} rows",
            count,
            low=low,
            high=high,
        )
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    bars = {
        "name": "",
        "colour": "accent",
        "style": "bars",
        "x": list(edges),
        "y": [*counts, 0] if counts else [],
        "text": [*told, ""],
    }
    # On a logarithmic scale there is no place for 0.
    marks = (
        [{"x": cut, "text": _("cut at {length:,}", length=cut), "colour": "failed"}] if cut else []
    )
    return {
        "key": key,
        "title": title,
        "x": x,
        "y": _("rows"),
        "log": False,
        "log_x": scale == "log",
        "legend": False,
        "lines": [bars],
        "marks": marks,
    }


def parallel(
    axes: Sequence[dict[str, Any]], scores: Sequence[float], *, key: str, higher: bool
) -> dict[str, Any]:
    """The value of a chart of parallel coordinates: each of `axes` has `label`, `values` by the
    line, and `tickvals` with `ticktext`. The lines are coloured by their scores, the best in the
    accent."""
    return {
        "key": key,
        "x": "",
        "y": "",
        "parallel": list(axes),
        "scores": list(scores),
        "higher": higher,
        "lines": [],
    }


def columns(points: Sequence[Point]) -> dict[str, list[float]]:
    """Points as plotly takes them, rounded to seven figures: no eye sees the eighth."""
    return {
        "x": [step for step, _value in points],
        "y": [float(f"{value:.7g}") for _step, value in points],
    }


def chart(label: str, *, height: int = 320, elem_id: str | None = None) -> gr.HTML:
    """A component for figures. Its space is there before the first value. Set its value to
    `figure(...)`, or to None for an empty frame."""
    return gr.HTML(
        value=None,
        html_template=html.charts.chart(label, height),
        js_on_load="const draw = () => tunesmith.draw(element.querySelector('.chart'), "
        "props.value); draw(); watch('value', draw);",
        elem_id=elem_id,
        elem_classes="chart-box",
        apply_default_css=False,
    )


def charts(label: str) -> gr.HTML:
    """A component for several figures, one after the other. Its value is a list of figures, each
    with a `title`."""
    return gr.HTML(
        value=None,
        html_template=html.charts.charts(label),
        js_on_load="const draw = () => tunesmith.drawAll(element.querySelector('.charts'), "
        "props.value); draw(); watch('value', draw);",
        elem_classes="chart-box",
        apply_default_css=False,
    )


def run_colour(run_id: str) -> str:
    """The run's colour, the same in every chart."""
    return f"run-{zlib.crc32(run_id.encode()) % RUN_COLOURS}"


def smooth(points: Sequence[Point]) -> list[Point]:
    """A running average whose reach grows with the run, so that a short run is not held back.

    The n-th value keeps n / (n + REACH) of the average before it, at most MOST_KEPT; each average
    depends on earlier points only, so that points can be added.
    """
    smoothed: list[Point] = []
    average = 0.0
    for number, (step, value) in enumerate(points):
        kept = min(MOST_KEPT, number / (number + REACH))
        average = kept * average + (1 - kept) * value
        smoothed.append((step, average))
    return smoothed
