"""What a run says of itself until its training begins: progress and what was chosen for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from core.config import RunConfig
from core.jobs.events import EventWriter
from core.language import _
from core.progress import Stopped
from core.worker.training.resolve import Choice, with_choices
from core.worker.training.rows import Rows
from core.workspace import RunFolder

_SECONDS_BETWEEN = 0.5


class Reporter:
    """Writes the events of a run's beginning, and sees when it is asked to stop."""

    def __init__(self, run: RunFolder) -> None:
        self.events = EventWriter(run.events)
        self._stop_request = run.stop_request
        self._told = ("", 0.0)  # message, when

    def doing(self, message: str) -> None:
        self.events.write("progress", message=message)

    def check_stop(self) -> None:
        """Raises Stopped when a stop was asked for."""
        if self._stop_request.exists():
            raise Stopped

    def tell(self, share: float, message: str) -> None:
        """For what takes long; `share` from 0 to 1. Raises Stopped when a stop was asked for."""
        self.check_stop()
        said, when = self._told
        now = time.monotonic()
        if message == said and now - when < _SECONDS_BETWEEN:
            return
        self._told = (message, now)
        self.events.write("progress", fraction=round(share, 4), message=message)

    def chosen(self, config: RunConfig, choices: Sequence[Choice]) -> RunConfig:
        """`config` with the choices for what stands on auto; each is told with its reason."""
        values = config.values()
        made = [choice for choice in choices if values[choice.field] == "auto"]
        for choice in made:
            self.note(choice.field, choice.value, choice.reason)
        return with_choices(config, made)

    def note(self, field: str, value: Any, reason: str) -> None:
        choice = {"field": field, "value": value, "reason": reason}
        name = field.rpartition(".")[2]
        message = _("{name}: {value} ({reason})", name=name, value=value, reason=reason)
        self.events.write("log", level="info", message=message, choice=choice)

    def rows(self, train: Rows, held_out: Rows | None) -> None:
        """How much there is to learn from, and what had to be left out."""
        for rows in (train, held_out):
            warning = rows.warning() if rows else None
            if warning:
                self.events.write("log", level="warning", message=warning)
        counts = {"rows": len(train.lengths), "tokens": train.tokens}
        message = _("{rows:,} train rows of {tokens:,} tokens.", **counts)
        if held_out:
            message = _(
                "{rows:,} train rows of {tokens:,} tokens, {held_out:,} held out.",
                **counts,
                held_out=len(held_out.lengths),
            )
        self.events.write("log", level="info", message=message)

    def trainable(self, model: Any) -> None:
        """How many weights are trained."""
        total = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        message = _(
            "{trained:,} weights are trained, {share:.2%} of {total:,}.",
            trained=trained,
            share=trained / total,
            total=total,
        )
        self.events.write("log", level="info", message=message)
