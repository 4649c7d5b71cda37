"""What a job's events tell of it: its last state, its worker, how far it came, its best loss.

The supervisor brings it into the store while the job is at work; a store that was lost learns it
from the same events.
"""

from __future__ import annotations

from typing import Any

from core.jobs.events import Event, event_seconds


class Told:
    """Takes in events in their order. `state` is the last one of a state."""

    def __init__(self) -> None:
        self.state: Event | None = None
        self._values: dict[str, Any] = {}
        self._losses: list[tuple[int, float]] = []  # (step, loss on held-out rows)

    def add(self, event: Event) -> None:
        if event["kind"] == "state":
            self._add_state(event)
        if event["kind"] in ("progress", "metrics"):
            for name in ("step", "max_steps"):
                if isinstance(event.get(name), int):
                    self._values[name] = event[name]
        step, loss = event.get("step"), event.get("eval_loss")
        if event["kind"] == "metrics" and isinstance(step, int) and isinstance(loss, int | float):
            self._losses = [one for one in self._losses if one[0] < step] + [(step, loss)]

    def _add_state(self, event: Event) -> None:
        before = self.state.get("state") if self.state else "queued"
        if event.get("state") == "starting" and before != "queued":
            return  # a scheduler that did not know that its worker is there already
        self.state = event
        again = event.get("resumed_from_step")
        if isinstance(again, int):  # the steps after it count as they go this time
            self._values["step"] = again
            self._losses = [one for one in self._losses if one[0] <= again]
        if event.get("state") == "running":
            self._values |= {name: event.get(name) for name in ("pid", "pid_started_at")}

    @property
    def values(self) -> dict[str, Any]:
        """Fields of the job, as far as they were told."""
        best = {"best_eval_loss": min(loss for _, loss in self._losses)} if self._losses else {}
        return self._values | best

    @property
    def end(self) -> dict[str, Any]:
        """How it ended, as the store has it; of a state that is an end."""
        assert self.state is not None
        why = {name: self.state.get(name) for name in ("error", "advice", "signal")}
        return {**why, "ended_at": event_seconds(self.state)}
