"""A classifier's curves as small pictures: how far its probabilities hold, ROC, precision and
recall, and what each threshold gives."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from core.evaluation.report import Report
from core.language import _
from webui.html import html

Point = tuple[float, float]


def drawn_curves(found: Report) -> Markup:
    """Empty where the report is from before there were curves."""
    pictures: list[tuple[str, Markup]] = []
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
    return html.label_curves.curves(pictures) if pictures else Markup()


def _picture(
    lines: Sequence[tuple[Sequence[Point], str]],
    across: str,
    up: str,
    *,
    line: bool = True,
    dots: Sequence[str] = (),
) -> Markup:
    """Lines in a square from 0 to 1, each with its name; `line`: what chance, or truth, would be;
    `dots`: what the points of the first one say."""
    first = list(zip(lines[0][0], dots, strict=False))
    return html.label_curves.picture(lines, across, up, line, first)
