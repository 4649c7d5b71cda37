"""The table of runs as HTML: one row each, a tiny loss curve, what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from core.runs.curves import CurveReader, downsample
from core.runs.lineage import lineage_text
from core.runs.records import RunSummary
from webui import messages

# Columns that can be sorted: key -> (label, value of a run, empty values last).
SORT_KEYS: dict[str, tuple[str, Callable[[RunSummary], Any]]] = {
    "name": ("Run", lambda run: (run.job.name or run.id).casefold()),
    "state": ("State", lambda run: run.state),
    "best": ("Best eval loss", lambda run: run.job.best_eval_loss),
    "model": ("Model", lambda run: run.job.model.casefold()),
    "data": ("Data", lambda run: run.job.dataset.casefold()),
    "duration": ("Duration", lambda run: run.duration_seconds),
    "size": ("Size", lambda run: run.size_bytes),
    "created": ("Started", lambda run: run.job.created_at),
}
# Clicks on the table: a heading sorts, a tick compares, a row opens, a button acts.
CLICKS = """
element.addEventListener('click', (event) => {
  const head = event.target.closest('[data-sort]');
  if (head) return trigger('input', {sort: head.dataset.sort});
  const act = event.target.closest('[data-act]');
  if (act) return trigger('apply', {act: act.dataset.act, run: act.dataset.run});
  if (event.target.closest('label, input')) return;
  const row = event.target.closest('[data-run]');
  if (row) trigger('select', {run: row.dataset.run});
});
element.addEventListener('change', (event) => {
  if (!event.target.matches('input[data-tick]')) return;
  const ticked = [...element.querySelectorAll('input[data-tick]:checked')];
  trigger('like', {runs: ticked.map((box) => box.dataset.tick)});
});
"""


def sort(runs: Sequence[RunSummary], by: str, descending: bool) -> list[RunSummary]:
    """The runs in the order of one column; those without a value come last either way."""
    value = SORT_KEYS.get(by, SORT_KEYS["created"])[1]
    known = [run for run in runs if value(run) is not None]
    unknown = [run for run in runs if value(run) is None]
    return sorted(known, key=value, reverse=descending) + unknown


def sparkline(points: Sequence[tuple[int, float]], width: int = 96, height: int = 24) -> str:
    """A curve as a small picture, scaled to its own lowest and highest value."""
    few = downsample(points, 48)
    if len(few) < 2:
        return '<span class="soft">-</span>'
    values = [value for _, value in few]
    low, high = min(values), max(values)
    first, last = few[0][0], few[-1][0]
    spots = " ".join(
        f"{(step - first) / max(last - first, 1) * (width - 2) + 1:.1f},"
        f"{height - 2 - (value - low) / ((high - low) or 1) * (height - 4):.1f}"
        for step, value in few
    )
    told = f"Loss from {messages.loss(values[0])} to {messages.loss(values[-1])}"
    return (
        f'<svg class="spark" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{told}"><title>{told}</title><polyline points="{spots}"/></svg>'
    )


class RunTable:
    """Renders the table; keeps a curve reader for each run, so that only new events are read."""

    def __init__(self) -> None:
        self._readers: dict[str, CurveReader] = {}
        self._origins: dict[str, str] = {}

    def loss(self, run: RunSummary) -> list[tuple[int, float]]:
        reader = self._readers.setdefault(run.id, CurveReader(run.folder.events))
        reader.update()
        return reader.curves.get("loss", [])

    def _came(self, run: RunSummary) -> str:
        """What the run began with, which never changes."""
        if run.id not in self._origins:
            self._origins[run.id] = lineage_text(run.folder)
        text = self._origins[run.id]
        return f'<small class="came">{messages.escape(text)}</small>' if text else ""

    def render(
        self,
        runs: Sequence[RunSummary],
        *,
        by: str = "created",
        descending: bool = True,
        ticked: Sequence[str] = (),
        selected: str = "",
    ) -> str:
        heads = "".join(
            self._head(key, label, by, descending) for key, (label, _) in SORT_KEYS.items()
        )
        rows = "".join(
            self._row(run, run.id in ticked, run.id == selected)
            for run in sort(runs, by, descending)
        )
        return (
            '<div class="table-scroll"><table class="runs"><thead><tr>'
            f'<th><span class="sr-only">Compare</span></th>{heads}<th>Loss</th>'
            '<th><span class="sr-only">Actions</span></th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def _head(self, key: str, label: str, by: str, descending: bool) -> str:
        order = ("descending" if descending else "ascending") if key == by else "none"
        arrow = {"descending": "\u2193", "ascending": "\u2191", "none": ""}[order]
        return (
            f'<th aria-sort="{order}"><button type="button" class="sort" data-sort="{key}">'
            f"{label} <span aria-hidden='true'>{arrow}</span></button></th>"
        )

    def _row(self, run: RunSummary, ticked: bool, selected: bool) -> str:
        job, name = run.job, messages.escape(run.job.name or run.id)
        waiting = f" <small>no. {run.queue_position}</small>" if run.queue_position else ""
        when = datetime.fromtimestamp(job.created_at).strftime("%d %b %H:%M")
        cells = [
            f'<label><input type="checkbox" data-tick="{run.id}" {"checked" if ticked else ""}>'
            f'<span class="sr-only">Compare {name}</span></label>',
            f'<button type="button" class="run-name">{name}</button>'
            + (f"<small>{messages.escape(job.note)}</small>" if job.note else "")
            + self._came(run),
            messages.badge(run.state, job.signal) + waiting,
            messages.loss(job.best_eval_loss),
            messages.escape(job.model),
            messages.escape(job.dataset),
            messages.duration(run.duration_seconds),
            messages.size(run.size_bytes),
            when,
            sparkline(self.loss(run)),
            actions(run),
        ]
        labels = ["", *[label for label, _ in SORT_KEYS.values()], "Loss", ""]
        body = "".join(
            f'<td data-label="{label}">{cell}</td>'
            for label, cell in zip(labels, cells, strict=True)
        )
        return f'<tr data-run="{run.id}" class="{"selected" if selected else ""}">{body}</tr>'


def actions(run: RunSummary) -> str:
    """The buttons that make sense in the run's state."""
    offered = []
    if run.state == "queued":
        if (run.queue_position or 1) > 1:
            offered.append(("first", "Run next"))
        offered.append(("stop", "Cancel"))
    elif run.state in ("starting", "running"):
        offered.append(("stop", "Stop"))
    elif run.resumable:
        offered.append(("resume", "Resume"))
    return "".join(
        f'<button type="button" class="small" data-act="{act}" data-run="{run.id}">{word}</button>'
        for act, word in offered
    )
