"""Reports outlive the program that wrote them: what is in a workspace opens, and says the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from core.commands.evaluate import report_text
from core.evaluation.document import html
from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS
from core.evaluation.report import Report, list_evaluations, note, read_report
from core.evaluation.verdict import notes, shown, verdict
from core.language import PSEUDO, _, speaking
from webui.report import report as drawn

WRITTEN_BEFORE = Path(__file__).parent / "written_before"
KINDS = ["answers", "fields", "labels", "pairs", "rewards", "texts"]


def stored(name: str) -> dict[str, Any]:
    """A result.json of the time when reports had no version and held their sentences."""
    text = (WRITTEN_BEFORE / f"{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@pytest.mark.parametrize("name", KINDS)
def test_a_report_written_before_opens_and_says_the_same(name: str, tmp_path: Path) -> None:
    """All evaluations that a person has would be lost with an update."""
    old = stored(name)
    assert "version" not in old
    folder = tmp_path / "evaluations" / "e1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(old), encoding="utf-8")
    [found] = list_evaluations(tmp_path)
    assert found.report is not None and found.state == "finished"
    assert verdict(found.report) == old["verdict"]
    assert notes(found.report) == old["notes"]
    page, text = drawn(found.report), report_text(found.report)
    assert old["dataset"]["name"] in page and old["verdict"].split(".")[0] in text
    told = shown(found.report)
    for key in ("rows", "part", "tuned", "base", "difference", "verdict", "notes"):
        assert told[key] == old[key], key
    assert len(told["differences"]) == len(old["differences"])


@pytest.mark.parametrize("name", KINDS)
def test_every_number_of_a_report_has_a_name_and_a_place_on_the_page(name: str) -> None:
    """A number would be measured and never seen."""
    found = Report.model_validate(stored(name))
    assert set(found.tuned) <= set(METRICS)
    page = drawn(found)
    for key in found.tuned:
        assert f">{METRICS[key].title}" in page


def test_what_is_stored_has_no_sentences_and_is_read_again_as_it_was() -> None:
    """Its words would stay in the language of the day on which it was measured."""
    numbers = {"eval_loss": {"value": 1.0, "low": 0.9, "high": 1.1}}
    told = note("spread", measured=2, total=6)
    found = Report.model_validate({"rows": 2, "tuned": numbers, "notes": [told]})
    written = found.model_dump(mode="json")
    assert "verdict" not in written
    assert written["notes"] == [{"key": "spread", "values": {"measured": 2, "total": 6}}]
    again = Report.model_validate(json.loads(json.dumps(written)))
    assert again == found
    assert notes(again) == ["2 of 6 rows were measured, spread evenly."]


def test_why_a_row_was_left_out_is_said_in_the_readers_language(tmp_path: Path) -> None:
    numbers = {"eval_loss": {"value": 1.0, "low": 0.9, "high": 1.1}}
    told = note("left_out", rows=2, reason=_("Its text is empty."))
    written = Report(rows=2, tuned=numbers, notes=[told]).model_dump(mode="json")  # type: ignore[arg-type]
    (tmp_path / "result.json").write_text(json.dumps(written))
    again = read_report(tmp_path)
    assert again is not None
    assert notes(again) == ["2 rows cannot be measured; the first: Its text is empty."]
    with speaking(PSEUDO):
        assert notes(again)[0].count("⟦") == 3
        assert verdict(again).startswith("⟦") and METRICS["eval_loss"].title.startswith("⟦")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"version": 99, "rows": 1, "tuned": {}}, "later Tunesmith"),
        ({"rows": 3, "checkpoint": "final", "tuned": {}}, "no eval_loss"),
    ],
)
def test_a_report_that_cannot_be_read_is_passed_over_with_a_warning(
    content: dict[str, Any], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The page of the run would not open."""
    (tmp_path / "result.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert read_report(tmp_path) is None
    assert why in caplog.text


def test_an_interval_that_begins_at_zero_is_drawn_from_there() -> None:
    points = [(8, Estimate(0.5, 0.0, 1.0), "red", "Tuned"), (26, Estimate(0.5), "red", "Base")]
    drawing = [{"name": "F1", "y": 8, "points": points, "below": 50}]
    svg = html.document.document("en", [], drawing, [], [])
    assert 'x1="220.0" x2="600.0"' in svg and 'x1="410.0" x2="410.0"' in svg
