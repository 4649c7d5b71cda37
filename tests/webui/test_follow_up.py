"""What follows a run on the page: a chain, a longer training, half the batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from core.jobs.events import EventWriter
from core.rules import parse_config
from core.runs.records import list_runs
from tests.jobs.bench import Bench
from webui.follow_up import FollowUp
from webui.runs import RunTable


@pytest.fixture
def bench(workspace: Path) -> Iterator[Bench]:
    bench = Bench(workspace)
    yield bench
    bench.close()


def _buttons(bench: Bench) -> FollowUp:
    # They use no more of the app than this.
    app: Any = SimpleNamespace(workspace=bench.workspace, store=bench.store)
    after = FollowUp(app, SimpleNamespace())  # type: ignore[arg-type]
    with gr.Blocks():
        after.build_half()
        after.build()
    return after


def _seen(after: FollowUp, job: Any) -> list[bool]:
    """Half the batch, the row, continue, longer."""
    return [bool(getattr(part, "visible", True)) for part in after.shown(job)[:4]]


def test_the_buttons_fit_how_the_run_ended(bench: Bench) -> None:
    """A person would be offered what cannot be done, or not what could."""
    after = _buttons(bench)
    job = bench.add(steps=2)
    folder = bench.folder(job)
    parse_config({"training.per_device_train_batch_size": 4}).save(folder / "config.yaml")
    assert _seen(after, None)[:2] == [False, False]
    assert _seen(after, job)[:2] == [False, False]  # it waits

    bench.store.transition(job.id, {"queued"}, "failed")
    assert _seen(after, bench.store.get(job.id)) == [False, False, False, False]
    EventWriter(folder / "events.jsonl").write("error", message="", type="MemoryRanOut")
    assert _seen(after, bench.store.get(job.id))[0]
    parse_config({"training.per_device_train_batch_size": 1}).save(folder / "config.yaml")
    assert not _seen(after, bench.store.get(job.id))[0]


def test_the_table_says_what_a_run_began_with(bench: Bench) -> None:
    """Three runs of one chain would look like three strangers."""
    job = bench.add(steps=1)
    origin = bench.folder(job) / "origin"
    origin.mkdir()
    (origin / "origin.json").write_text(
        '{"run": "a-run", "name": "<b>", "method": "sft", "checkpoint": "final", '
        '"how": "merge", "before": []}'
    )
    drawn = RunTable().render(list_runs(bench.workspace, bench.store))
    assert '<small class="came">from &lt;b&gt; (sft, merged)</small>' in drawn
