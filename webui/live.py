"""A run as it is watched: what its events say, read once for all browsers, and only what is new.

The browser says what it has drawn (a cursor); the answer is either the few points since then or,
when that does not fit (another run, a resumed run, too many points), the whole curves thinned out.
So nothing has to be remembered for each browser, and a reload or a lost answer mends itself. Of
answers that were rewarded the first and the latest are kept to read.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from core.config import RunConfig
from core.errors import TunesmithError
from core.jobs.events import Event, EventReader
from core.language import _, speaking
from core.rules import load_config
from core.runs.curves import CurveReader, Point, downsample
from core.runs.panels import LOSS, Panel, panels
from core.workspace import RunFolder, Workspace
from webui.charts import MOST_POINTS, columns, smooth
from webui.html import html

# Whole curves are thinned to this many points, so that new ones can be added before the next time.
THINNED = 750
REMEMBERED_RUNS = 4
LOG_LINES = 200
# Those of the small charts to fewer.
THINNED_SMALL = 250


@dataclass
class Sample:
    """One prompt and its answers over time, as (step, answer)."""

    prompt: list[dict[str, Any]]
    expected: str | None
    answers: list[tuple[int, str]] = field(default_factory=list)

    @property
    def question(self) -> str:
        return _last_question(self.prompt)


def _last_question(prompt: Sequence[Mapping[str, Any]]) -> str:
    asked = [str(turn.get("content", "")) for turn in prompt if turn.get("role") == "user"]
    return asked[-1] if asked else ""


class LiveRun:
    """What the events of one run have said so far. Safe from several threads."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.progress: Event = {}
        self.node: Event = {}
        """What was told of the cluster's node that this attempt is on."""
        self.samples: dict[int, Sample] = {}
        self.rollouts = Rollouts()
        self.choices: dict[str, dict[str, Any]] = {}
        self.warnings: dict[str, None] = {}
        """What the run warned of, each once, in the order in which it was said."""
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.generation = 0
        """Grows when points were taken back: a resumed run does some steps again."""
        self._reader = EventReader(folder.events)
        self._curves = CurveReader(folder.events)
        self._config: tuple[int, RunConfig | None] = (0, None)
        self._lock = threading.Lock()

    def update(self) -> None:
        """Reads what was added to the events. Sentences are kept in English, whoever asks first,
        and said anew where they are shown."""
        with self._lock, speaking("en"):
            for event in self._reader.read_new():
                self._take(event)

    def curve(self, metric: str, divisor: float = 1.0) -> list[Point]:
        """The points of a metric, divided by what its chart divides them by."""
        points = self._curves.curves.get(metric, [])
        return points if divisor == 1 else [(step, value / divisor) for step, value in points]

    def panels(self, *, everything: bool = False) -> list[Panel]:
        """The charts beside the loss that have something to show."""
        last = {name: points[-1][1] for name, points in self._curves.curves.items() if points}
        config = self.config()
        return panels(config.method if config else "", last, everything=everything)

    def config(self) -> RunConfig | None:
        """The settings of the run, which are there before it is; None of another version's: its
        common curves can still be drawn."""
        try:
            written = self.folder.config.stat().st_mtime_ns
            if written != self._config[0]:
                self._config = written, load_config(self.folder.config)
        except (TunesmithError, OSError):
            return None
        return self._config[1]

    def last(self, metric: str) -> float | None:
        points = self._curves.curves.get(metric)
        return points[-1][1] if points else None

    def news(self, cursor: Mapping[str, Any]) -> dict[str, Any] | None:
        """The charts and points that a browser with `cursor` lacks; None when it has them all."""
        with self._lock:
            shown = self.panels(everything=bool(cursor.get("all")))
            curves = {
                curve.metric: self.curve(curve.metric, curve.divisor)
                for panel in (LOSS, *shown)
                for curve in panel.curves
            }
            curves["loss_smooth"] = smooth(curves["loss"])
        drawn_as = [_drawn(panel) for panel in shown]
        digest = zlib.crc32(json.dumps(drawn_as).encode())
        counts = {name: len(points) for name, points in curves.items()}
        same = cursor.get("run") == self.folder.root.name
        known = cursor.get("counts") if same else None
        if not isinstance(known, dict) or cursor.get("generation") != self.generation:
            known = {}
        if known == counts and cursor.get("digest") == digest:
            return None
        added = {name: points[known.get(name, 0) :] for name, points in curves.items()}
        drawn = _number(cursor.get("drawn"))
        fits = drawn + max(map(len, added.values()), default=0) <= MOST_POINTS
        whole = not known or not fits
        sent = {name: _thinned(name, points) for name, points in curves.items()} if whole else added
        return {
            "run": self.folder.root.name,
            "generation": self.generation,
            "counts": counts,
            "whole": whole,
            "digest": digest,
            "panels": drawn_as if whole or cursor.get("digest") != digest else None,
            "curves": {name: columns(points) for name, points in sent.items() if points},
        }

    def _take(self, event: Event) -> None:
        self._curves.add(event)
        kind = event["kind"]
        if "node" in event or event.get("state") == "queued":
            self.node = event if "node" in event else {}
        if kind == "state" and isinstance(event.get("resumed_from_step"), int):
            self._take_back(event["resumed_from_step"])
        elif kind == "progress":
            self.progress = {**self.progress, "message": "", **event}
        elif kind == "sample" and "rewards" in event:
            self.rollouts.take(event)
        elif kind == "sample":
            self._take_sample(event)
        elif kind == "log":
            choice = event.get("choice")
            if isinstance(choice, dict) and "field" in choice:
                self.choices[str(choice["field"])] = choice
            if event.get("level") == "warning":
                self.warnings[event.get("message", "")] = None
            self.log.append(str(event.get("message", "")))
        elif kind == "error":
            self.log.append(str(event.get("message", "")))

    def _take_sample(self, event: Event) -> None:
        sample = self.samples.setdefault(
            int(event.get("index", 0)), Sample(event.get("prompt") or [], event.get("expected"))
        )
        step = int(event.get("step", 0))
        sample.answers = [answer for answer in sample.answers if answer[0] < step]
        sample.answers.append((step, str(event.get("answer", ""))))

    def _take_back(self, step: int) -> None:
        self.generation += 1
        self.progress = {}
        self.rollouts.take_back(step)
        for sample in self.samples.values():
            sample.answers = [answer for answer in sample.answers if answer[0] <= step]


class LiveRuns:
    """The runs that are being watched, the last few of them."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, run_id: str) -> LiveRun:
        """The run, up to date. Raises WorkspaceError for what is not an id."""
        with self._lock:
            run = self._runs.get(run_id) or LiveRun(self._workspace.run(run_id))
            self._runs[run_id] = run
            self._runs.move_to_end(run_id)
            while len(self._runs) > REMEMBERED_RUNS:
                self._runs.popitem(last=False)
        run.update()
        return run


def _drawn(panel: Panel) -> dict[str, Any]:
    """A chart as the browser draws it."""
    return {
        "title": _(panel.title),
        "sentence": _(panel.sentence),
        "lines": [
            {
                "metric": curve.metric,
                "name": _(curve.name) if curve.name else "",
                "style": curve.style,
                "colour": colour,
            }
            for curve, colour in zip(panel.curves, panel.colours(), strict=True)
        ],
    }


def _thinned(name: str, points: list[Point]) -> list[Point]:
    large = name in ("loss", "eval_loss", "loss_smooth")
    return downsample(points, THINNED if large else THINNED_SMALL)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


LATEST = 3
"""Beside the first step, so many of the last ones are shown."""


@dataclass(frozen=True)
class Completion:
    """An answer with its reward in all and by function (None where one does not apply)."""

    text: str
    reward: float
    rewards: dict[str, float | None]


@dataclass
class Rollout:
    """Some of the answers to one prompt that were written at a step, the best first."""

    step: int
    prompt: Sequence[dict[str, Any]]
    expected: str | None
    completions: list[Completion] = field(default_factory=list)

    @property
    def question(self) -> str:
        return _last_question(self.prompt)


class Rollouts:
    """Those of a run by step: the first and the latest."""

    def __init__(self) -> None:
        self._of_step: dict[int, Rollout] = {}

    def take(self, event: Event) -> None:
        """Takes a `sample` event with rewards in."""
        step = int(event.get("step", 0))
        if event.get("index", 0) == 0 or step not in self._of_step:
            self.take_back(step - 1)
            self._of_step[step] = Rollout(step, event.get("prompt") or [], event.get("expected"))
            for old in list(self._of_step)[1:-LATEST]:
                del self._of_step[old]
        self._of_step[step].completions.append(
            Completion(
                str(event.get("answer", "")),
                float(event.get("reward", 0.0)),
                dict(event.get("rewards") or {}),
            )
        )

    def take_back(self, after: int) -> None:
        """Forgets what came after a step: a resumed run does it again."""
        self._of_step = {step: one for step, one in self._of_step.items() if step <= after}

    def shown(self) -> list[Rollout]:
        """The latest first, and last how it began."""
        return [self._of_step[step] for step in sorted(self._of_step, reverse=True)]


def completions(rollouts: Rollouts) -> Markup:
    """A card for each step, with the answers and what each function gave them."""
    shown = rollouts.shown()
    return html.live.completions(shown) if shown else Markup()
