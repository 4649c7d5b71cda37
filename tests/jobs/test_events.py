"""events.jsonl: what the charts, the states and the next server are read from."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy
from hypothesis import given
from hypothesis import strategies as some

from core.jobs.events import EventReader, EventWriter, event_seconds, read_attempt, read_events


def test_an_event_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Else charts show other numbers than the training logged."""
    path = tmp_path / "events.jsonl"
    EventWriter(path).write("metrics", step=3, loss=numpy.float32(0.5), note="Zürich\nagain")
    (event,) = read_events(path)
    assert event["kind"] == "metrics"
    assert (event["step"], event["loss"], event["note"]) == (3, 0.5, "Zürich\nagain")
    assert abs(event_seconds(event) - path.stat().st_mtime) < 5


def test_a_loss_that_is_not_finite_is_null(tmp_path: Path) -> None:
    """NaN is no JSON: a browser could read nothing of the run any more."""
    path = tmp_path / "events.jsonl"
    EventWriter(path).write("metrics", loss=float("nan"), parts=[float("inf"), 1.0])
    assert "NaN" not in path.read_text()
    assert read_events(path)[0]["loss"] is None
    assert read_events(path)[0]["parts"] == [None, 1.0]


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    """A long run's file read anew at each poll would slow the page down."""
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read_new() == []
    writer = EventWriter(path)
    writer.write("log", message="one")
    assert [event["message"] for event in reader.read_new()] == ["one"]
    assert reader.read_new() == []
    writer.write("log", message="two")
    assert [event["message"] for event in reader.read_new()] == ["two"]


def test_a_line_torn_by_a_kill_spoils_neither_the_next_nor_the_reader(tmp_path: Path) -> None:
    """A run that was killed while it wrote must be readable, and go on in the same file."""
    path = tmp_path / "events.jsonl"
    writer, reader = EventWriter(path), EventReader(path)
    writer.write("log", message="before")
    with path.open("ab") as file:
        file.write(b'{"time": "2026-11-22T04:00:00+00:00", "kind": "metr')
    assert [event["message"] for event in reader.read_new()] == ["before"]
    writer.write("log", message="after")
    assert [event["message"] for event in reader.read_new()] == ["after"]


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    """The worker and the scheduler write to the same file."""
    path = tmp_path / "events.jsonl"

    def write(name: str) -> None:
        for number in range(200):
            EventWriter(path).write("log", message=name * 100, number=number)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = read_events(path)
    assert len(events) == 400
    assert {event["message"] for event in events} == {"a" * 100, "b" * 100}


@given(cuts=some.lists(some.integers(0, 400), max_size=6))
def test_a_file_read_in_any_pieces_gives_each_event_once(
    tmp_path_factory: object, cuts: list[int]
) -> None:
    """The reader sees the file at any moment, also in the middle of a line or a letter."""
    folder = tmp_path_factory.mktemp("events")  # type: ignore[attr-defined]
    whole, growing = folder / "whole", folder / "growing"
    for number in range(5):
        EventWriter(whole).write("log", message=f"é{number}")
    data = whole.read_bytes()
    reader, seen, written = EventReader(growing), [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        with growing.open("ab") as file:
            file.write(data[written:cut])
        written = cut
        seen += [event["message"] for event in reader.read_new()]
    assert seen == [f"é{number}" for number in range(5)]


def test_the_last_attempt_begins_where_the_run_was_queued_last(tmp_path: Path) -> None:
    """Else a resumed run would be taken for ended, by the end of the attempt before."""
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    for state in ("queued", "running", "died", "queued", "running"):
        writer.write("state", state=state)
    assert [event["state"] for event in read_attempt(path)] == ["queued", "running"]


def test_a_replaced_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    """A folder that was deleted and copied back must not be half read."""
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    for _ in range(3):
        EventWriter(path).write("log", message="old")
    reader.read_new()
    os.unlink(path)
    EventWriter(path).write("log", message="new")
    assert [event["message"] for event in reader.read_new()] == ["new"]
