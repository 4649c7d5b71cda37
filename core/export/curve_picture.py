"""A run's curves as a small picture for the card: SVG, which every page shows and no library draws
here without a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 260, 56, 16, 36
_COLOURS = ("#0f6f78", "#c2571a")


def picture(curves: Mapping[str, Sequence[Point]]) -> str:
    """The lines of (step, value), with the values of both axes at their ends; "" for no point."""
    drawn = {name: points for name, points in curves.items() if points}
    if not drawn:
        return ""
    steps = [step for points in drawn.values() for step, _value in points]
    values = [value for points in drawn.values() for _step, value in points]
    first, last, low, high = min(steps), max(steps), min(values), max(values)

    def place(point: Point) -> str:
        across = (point[0] - first) / ((last - first) or 1)
        up = (point[1] - low) / ((high - low) or 1)
        x = _LEFT + across * (_WIDTH - _LEFT - 16)
        y = _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)
        return f"{x:.1f},{y:.1f}"

    lines = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" '
        f'points="{" ".join(place(point) for point in points)}"/>'
        f'<text x="{_LEFT + 12 + 110 * at}" y="{_HEIGHT - 6}" fill="{colour}">{escape(name)}</text>'
        for at, (colour, (name, points)) in enumerate(zip(_COLOURS, drawn.items(), strict=False))
    ]
    ends = [
        (_LEFT - 8, _TOP + 8, "end", f"{high:.3g}"),
        (_LEFT - 8, _HEIGHT - _BOTTOM, "end", f"{low:.3g}"),
        (_WIDTH - 16, _HEIGHT - 6, "end", f"step {last:g}"),
    ]
    texts = [
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#5b6670">{text}</text>'
        for x, y, anchor, text in ends
    ]
    corner = f"M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - 16}"
    axes = f'<path d="{corner}" fill="none" stroke="#c9d1d6"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{axes}{"".join(lines)}{"".join(texts)}'
        "</svg>\n"
    )
