"""A classifier's curves as small pictures: how far its probabilities hold, ROC, precision and
recall, and what each threshold gives."""

from __future__ import annotations

from collections.abc import Sequence

from core.evaluation.report import Report
from core.language import _
from webui import messages

Point = tuple[float, float]
_SIZE, _LEFT, _TOP, _EDGE = 220, 34, 8, 30


def drawn_curves(found: Report) -> str:
    """Empty where the report is from before there were curves."""
    pictures: list[tuple[str, str]] = []
    if found.calibration:
        points = [(one.sureness, one.right) for one in found.calibration]
        told = [
            _("{sure:.0%} sure: {right:.0%} of {rows} right",
              sure=one.sureness, right=one.right, rows=one.rows)
            for one in found.calibration
        ]  # fmt: skip
        drawn = _picture([(points, "")], _("How sure it is"), _("Share right"), dots=told)
        pictures.append((_("Calibration"), drawn))
    if found.curves is not None:
        curves = found.curves
        axes = _("False positive rate"), _("True positive rate")
        pictures.append(("ROC", _picture([(curves.roc, "")], *axes)))
        drawn = _picture([(curves.precision_recall, "")], _("Recall"), _("Precision"), line=False)
        pictures.append((_("Precision and recall"), drawn))
        lines = [
            ([(one.threshold, getattr(one, key)) for one in curves.thresholds], title)
            for key, title in (
                ("precision", _("Precision")),
                ("recall", _("Recall")),
                ("f1", "F1"),
            )
        ]
        second = found.labels[1] if len(found.labels) == 2 else ""
        threshold = _("Threshold of {label}", label=second)
        drawn = _picture(lines, threshold, _("Share"), line=False)
        pictures.append((_("What a threshold gives"), drawn))
    if not pictures:
        return ""
    cells = "".join(
        f"<figure><figcaption>{messages.escape(title)}</figcaption>{drawn}</figure>"
        for title, drawn in pictures
    )
    return f"<h3>{_('How far its probabilities hold')}</h3><div class='card curves'>{cells}</div>"


def _picture(
    lines: Sequence[tuple[Sequence[Point], str]],
    across: str,
    up: str,
    *,
    line: bool = True,
    dots: Sequence[str] = (),
) -> str:
    """Lines in a square from 0 to 1, each with its name; `line`: what chance, or truth, would be;
    `dots`: what the points of the first one say."""

    def place(point: Point) -> tuple[float, float]:
        width = _SIZE - _LEFT - 8
        return _LEFT + point[0] * width, _TOP + (1 - point[1]) * (_SIZE - _TOP - _EDGE)

    def path(points: Sequence[Point]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))

    parts = [f'<path class="axes" d="M{_LEFT} {_TOP}V{_SIZE - _EDGE}H{_SIZE - 8}"/>']
    if line:
        parts.append(f'<polyline class="chance" points="{path([(0, 0), (1, 1)])}"/>')
    for number, (points, name) in enumerate(lines):
        parts.append(f'<polyline class="line{number}" points="{path(points)}"/>')
        if name:
            parts.append(
                f'<text class="line{number}" x="{_LEFT + 6}" y="{_SIZE - _EDGE - 8 - 14 * number}">'
                f"{messages.escape(name)}</text>"
            )
    for point, told in zip(lines[0][0], dots, strict=False):
        x, y = place(point)
        title = f"<title>{messages.escape(told)}</title>"
        parts.append(f'<circle class="line0" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>')
    parts += [
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">1</text>',
        f'<text x="{_LEFT - 6}" y="{_SIZE - _EDGE}" text-anchor="end">0</text>',
        f'<text x="{_SIZE - 8}" y="{_SIZE - 14}" text-anchor="end">'
        f"{messages.escape(across)}</text>",
        f'<text x="10" y="{_SIZE // 2}" text-anchor="middle" '
        f'transform="rotate(-90 10 {_SIZE // 2})">{messages.escape(up)}</text>',
    ]
    label = messages.escape(_("{up} by {across}", up=up, across=across))
    return (
        f'<svg viewBox="0 0 {_SIZE} {_SIZE}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )
