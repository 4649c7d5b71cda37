"""A run's curves: (step, value) of each metric, read from its events as they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.jobs.events import Event, EventReader
from core.runs.panels import LABEL_F1
from core.workspace import RunFolder

Point = tuple[int, float]
# Fields of a metrics event that are not curves.
_NOT_CURVES = frozenset({"time", "kind", "step", "epoch", "max_steps"})


class CurveReader:
    """The curves of one run, kept up to date by reading only what was added to its events."""

    def __init__(self, events_path: Path) -> None:
        self.curves: dict[str, list[Point]] = {}
        self._reader = EventReader(events_path)

    def update(self) -> bool:
        """Reads what is new; True when a curve has changed."""
        events = self._reader.read_new()
        return any([self.add(event) for event in events])

    def add(self, event: Event) -> bool:
        """Takes one event in; True when a curve has changed.

        A resumed run does the steps after its checkpoint again: what they gave before is dropped.
        """
        if event["kind"] == "state" and isinstance(event.get("resumed_from_step"), int):
            return any([self._drop(name, event["resumed_from_step"]) for name in self.curves])
        step = event.get("step")
        if not isinstance(step, int):
            return False
        changed = False
        for name, value in _values(event).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name not in _NOT_CURVES and number:
                self._drop(name, step - 1)
                self.curves.setdefault(name, []).append((step, float(value)))
                changed = True
        return changed

    def _drop(self, name: str, after: int) -> bool:
        """Removes the points after a step."""
        points = self.curves.get(name, [])
        keep = len(points)
        while keep and points[keep - 1][0] > after:
            keep -= 1
        dropped = keep < len(points)
        del points[keep:]
        return dropped


def _values(event: Event) -> Event:
    """What an event says by the names of curves: its metrics, or the F1 of each label."""
    if event["kind"] == "metrics":
        return event
    labels = event.get("by_label") if event["kind"] == "log" else None
    return {f"{LABEL_F1}{one['label']}": one["f1"] for one in labels or () if one["rows"]}


def curves(run_folder: Path) -> dict[str, list[Point]]:
    """Each metric of a run as (step, value), in the order of the steps."""
    reader = CurveReader(RunFolder(run_folder).events)
    reader.update()
    return reader.curves


def downsample(points: Sequence[Point], most: int = 1000) -> list[Point]:
    """At most `most` of the points, with the shape kept.

    The first and the last stay, and of each stretch between them the lowest and the highest: a
    spike is never lost.
    """
    if len(points) <= most or most < 4:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    kept: list[Point] = [points[0]]
    for number in range(stretches):
        begin = number * len(inner) // stretches
        end = (number + 1) * len(inner) // stretches
        bucket = inner[begin:end]
        low = min(range(len(bucket)), key=lambda index: bucket[index][1])
        high = max(range(len(bucket)), key=lambda index: bucket[index][1])
        kept += [bucket[index] for index in sorted({low, high})]
    return [*kept, points[-1]]
