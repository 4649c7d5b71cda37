"""How a run stands and what to do next, told for each way it can be or end."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.jobs.events import EventWriter
from core.jobs.job import Job
from core.jobs.store import Store
from core.rules import parse_config
from core.workspace import Workspace
from tests.webui.made_runs import make_run
from webui import train
from webui.live import LiveRun, LiveRuns


def made(workspace: Path, state: str, **fields: object) -> tuple[Job, LiveRun]:
    place = Workspace.open(workspace)
    job = make_run(place, Store.open(place), state=state, steps=50, **fields)
    return job, LiveRuns(place).get(job.id)


@pytest.mark.parametrize(
    ("state", "fields", "told"),
    [
        ("queued", {}, "Waiting for its turn"),
        ("stopping", {}, "a checkpoint is being written"),
        ("stopped", {}, "Stopped at step 50. Resume goes on"),
        ("failed", {"error": "The loss is nan.", "advice": "Lower it."}, "Lower it. Resume"),
        ("died", {"signal": 9}, "ended by signal 9"),
    ],
)
def test_the_outcome_says_what_happened_and_what_to_do(
    workspace: Path, state: str, fields: dict, told: str
) -> None:
    job, live = made(workspace, state, **fields)
    assert told in train.outcome(job, live, resumable=True)


def test_a_run_without_a_checkpoint_is_not_told_to_resume(workspace: Path) -> None:
    job, live = made(workspace, "died", signal=9)
    assert not train.is_resumable(job, live.folder)
    assert "Resume" not in train.outcome(job, live, resumable=False)
    (live.folder.checkpoints / "checkpoint-40").mkdir(parents=True)
    assert train.is_resumable(job, live.folder)


def test_a_finished_run_is_not_resumable(workspace: Path) -> None:
    job, live = made(workspace, "finished")
    (live.folder.checkpoints / "checkpoint-40").mkdir(parents=True)
    assert not train.is_resumable(job, live.folder)


def test_figures_have_units_and_the_time_that_matters(workspace: Path) -> None:
    job, live = made(workspace, "running")
    text = train.figures(job, live)
    assert "50 of 50" in text and "Time left" in text and "12 s" in text
    job, live = made(workspace, "finished")
    assert "Took" in train.figures(job, live)
    assert "2 min 40 s" in train.figures(job, live)


def test_a_run_on_several_devices_says_so(workspace: Path) -> None:
    """Its curves are compared with those of other runs, which learned from as many rows a step or
    not; and two of the cards are not free."""
    job, live = made(workspace, "running")
    several = {"devices": 2, "strategy": "zero3", "offload": True, "per_device_train_batch_size": 4}
    for settings, shown in (({}, ""), (several, "2 devices (zero3, offload)")):
        values = {f"training.{name}": value for name, value in settings.items()}
        parse_config(values).save(live.folder.config)
        text = train.headline(job, "", live.config())
        assert ("devices" in text) == bool(shown) and shown in text
    assert 'title="8: 4 at once x 1 before each step x 2 devices (zero3, offload)"' in text


def test_a_run_on_a_cluster_says_where(workspace: Path) -> None:
    """Somebody looks there for what it does to the others; resumed, it may be on another node."""
    job, live = made(workspace, "running")
    events = EventWriter(live.folder.events)
    events.write("log", level="info", message="", node="node-7", node_id="7", cards="0,3")
    for shown in (True, False):
        live.update()
        news = train.news_of(job, live, False, {})
        assert news is not None
        assert ("node-7, GPU 0,3" in news.texts["headline"]) == shown
        events.write("state", state="queued")


def test_what_a_run_warned_of_is_shown_once(workspace: Path) -> None:
    """A broken checkpoint would be left aside without a word."""
    job, live = made(workspace, "running")
    events = EventWriter(live.folder.events)
    for _ in range(2):
        events.write("log", level="warning", message="checkpoint-8 cannot be <used>.")
    events.write("log", level="info", message="Saved checkpoint-9.")
    live.update()
    news = train.news_of(job, live, False, {})
    assert news is not None
    assert news.texts["outcome"].count("checkpoint-8 cannot be &lt;used&gt;.") == 1
    assert "checkpoint-9" not in news.texts["outcome"]


def test_what_was_chosen_stands_in_the_form_s_words(workspace: Path) -> None:
    """Gradient checkpointing would be False here and off in Configure."""
    _, live = made(workspace, "running")
    field = "training.gradient_checkpointing"
    live.choices[field] = {"field": field, "value": False, "reason": "it fits"}
    assert "<b>off</b>" in train.choices(live)


def test_answers_stand_under_one_another_with_the_wanted_one(workspace: Path) -> None:
    job, live = made(workspace, "running")
    run_view_samples = train.samples(live)
    assert run_view_samples.index("answer at step 40") < run_view_samples.index("the answer")


def test_only_what_changed_is_sent(workspace: Path) -> None:
    """A page that is redrawn each second loses the reader's place and burns the network."""
    job, live = made(workspace, "running")
    first = train.news_of(job, live, False, {})
    assert first is not None
    assert set(first.texts) == {"headline", "outcome", "figures", "samples", "choices", "log"}
    cursor = {key: first.drawing[key] for key in ("run", "generation", "counts", "digest", "seen")}
    assert train.news_of(job, live, False, cursor) is None
    cursor["log_open"] = True
    live.folder.log.write_text("loading")
    second = train.news_of(job, live, False, cursor)
    assert second is not None
    assert set(second.texts) == {"log"}
    assert not second.state_changed


def test_another_run_is_sent_whole(workspace: Path) -> None:
    job, live = made(workspace, "running")
    first = train.news_of(job, live, False, {})
    assert first is not None
    other, other_live = made(workspace, "failed")
    cursor = {key: first.drawing[key] for key in ("run", "generation", "counts", "digest", "seen")}
    second = train.news_of(other, other_live, False, cursor)
    assert second is not None
    assert second.drawing["whole"] and "headline" in second.texts


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_broken_cursor_counts_as_none(text: str) -> None:
    assert train.read_cursor(text) == {}


def test_the_log_s_end_is_shown_without_the_bars_that_were_overwritten(workspace: Path) -> None:
    path = workspace / "worker.log"
    path.write_text("old\n" * 9000 + "  10%\r 100%\nlast line\n")
    text = train.log_tail(path)
    assert "last line" in text and " 100%" in text and "10%\r" not in text
    assert len(text) < 20_000
    path.write_text("before\n" + "".join(f"\r{n}/300" for n in range(301)) + "\r\nend\n")
    told = train.log_tail(path)
    assert "before\n300/300\nend" in told and "299/300" not in told
    assert "nothing yet" in train.log_tail(workspace / "none.log")
