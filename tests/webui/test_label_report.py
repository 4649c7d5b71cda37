"""A classifier's report must show where it errs, and not run off a phone or into markup."""

from __future__ import annotations

from typing import Any

from core.evaluation.intervals import Estimate
from core.evaluation.report import Report
from tests.webui.made_runs import HOSTILE
from webui.html import html as templates
from webui.report import MOST_IN_MAP, SHOWN_LABELS, label_parts, report


def made(names: list[str], counts: list[list[int]] | None) -> Report:
    """The report of a classifier."""
    number = {"value": 0.5, "low": 0.4, "high": 0.6}
    values: dict[str, Any] = {
        "method": "classification",
        "rows": 10,
        "part": "eval",
        "checkpoint": "final",
        "dataset": {"name": "topics"},
        "base": None,
        "tuned": {"accuracy": number, "f1_macro": number, "f1_weighted": number},
        "majority": {"labels": names[:1], "accuracy": 0.3, "f1_macro": 0.1},
        "by_label": [
            {
                "label": name,
                "precision": 0.5,
                "recall": 0.25,
                "f1": n / len(names),
                "rows": 4,
                "given": 2,
            }
            for n, name in enumerate(names)
        ],
        "confusion": counts,
        "labels": names,
        "differences": [],
    }
    return Report.model_validate(values)


def test_the_baseline_stands_beside_the_numbers_and_each_label_is_told() -> None:
    html = report(made(["law", "health"], [[3, 1], [0, 4]]))
    assert "Always law" in html and "30 %" in html and "50 %" in html
    assert html.index(">law</th>") < html.index(">health</th>")  # the hardest first
    assert "<b>law</b> for <b>health</b>: 1 of 4 rows" in html
    assert 'class="right"' in html and "law, taken for health: 1 of 4" in html


def test_only_a_number_with_an_interval_shows_one() -> None:
    """A mark at nought would be read as its lower end."""
    known = templates.report.cell(Estimate(0.9, 0.8, 0.95), True, "tuned")
    assert "80 to 95" in known and '<b style="left:80.0%;width:15.0%"></b>' in known
    assert "<b " not in templates.report.cell(Estimate(0.9), True, "tuned")


def test_a_row_of_numbers_keeps_its_columns_where_the_baseline_has_none() -> None:
    html = report(made(["law", "health"], [[3, 1], [0, 4]]))
    (line,) = [part for part in html.split("<tr>") if ">F1, weighted<" in part]
    assert line.count("<td") == 2


def test_many_labels_fold_away_and_the_map_gives_way_to_words() -> None:
    names = [f"label {n}" for n in range(MOST_IN_MAP + 1)]
    counts = [
        [int(said == (wanted + 1) % len(names)) for said in range(len(names))]
        for wanted in range(len(names))
    ]
    html = label_parts(made(names, counts))
    assert f"{len(names) - SHOWN_LABELS} more labels" in html
    assert '<table class="confusion">' not in html and ": 1 of 1 row<" in html


def test_several_labels_a_row_have_no_map_but_their_numbers() -> None:
    html = label_parts(made(["red", "blue"], None))
    assert "may have several labels" in html and ">red</th>" in html


def test_a_label_is_text_not_markup() -> None:
    assert "<img" not in report(made([HOSTILE, "b"], [[1, 2], [0, 0]]))


def test_other_reports_have_no_such_part() -> None:
    other = Report.model_validate({"rows": 1, "tuned": {"eval_loss": {"value": 1.0}}})
    assert label_parts(other) == ""
