"""What a run says it is doing must be what it does, however long a step takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from core.jobs.events import EventWriter, read_events
from core.worker.training.callbacks import ReportEvents


def test_a_long_step_is_not_called_evaluating(tmp_path: Path) -> None:
    """Somebody would wait minutes for an evaluation that is over, and see nothing move."""
    path = tmp_path / "events.jsonl"
    report = ReportEvents(
        EventWriter(path),
        SimpleNamespace(args=SimpleNamespace(eval_strategy="no")),
        seconds_between=0.0,
    )
    state = SimpleNamespace(global_step=0, max_steps=4, epoch=0.0)
    report.on_prediction_step(None, state, None)
    report.on_step_begin(None, state, None)
    report.on_substep_end(None, state, None)
    report.on_substep_end(None, state, None)
    assert [event["message"] for event in read_events(path)] == [
        "Evaluating",
        "Training",
        "Training: batch 1 of step 1",
        "Training: batch 2 of step 1",
    ]
    report.on_step_begin(None, state, None)  # nothing was evaluated: nothing new to say
    assert len(list(read_events(path))) == 4
