"""How long a run will take: by two steps on trial in a process of its own, or by what earlier runs
on such a device did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from core.config import RunConfig
from core.config.run import rows_a_step
from core.errors import TunesmithError
from core.jobs.isolated import call_isolated
from core.jobs.store import Store
from core.language import _
from core.models.describe import describe_model
from core.models.location import local_model
from core.progress import Tell
from core.rules import load_config
from core.runs.curves import curves
from core.workspace import Workspace

# So many of the newest finished runs are looked at.
_LOOKED_AT = 30
# What has to be the same for a run's pace to be taken as it is.
_SAME = (
    "model.model_name_or_path",
    "method",
    "adapter.method",
    "adapter.quantization",
    "training.gradient_checkpointing",
)


@dataclass(frozen=True)
class Pace:
    """Tokens that a run learns from in a second, and how that is known. `is_exact` is False where
    it was worked out from a run of another kind."""

    tokens_per_second: float
    origin: str
    is_exact: bool
    run: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "tokens_per_second": round(self.tokens_per_second, 1),
            "origin": self.origin,
            "is_exact": self.is_exact,
            "run": self.run or None,
        }


def seconds_of(config: RunConfig, pace: Pace, counts: Mapping[str, Any] | None) -> float | None:
    """How long the training of `config`, without autos, takes at this pace; evaluations and the
    start come on top. `counts` are those of core.tokens.counts. None where they are missing."""
    if not counts or not counts.get("train_rows"):
        return None
    tokens, rows = float(counts["train_tokens"]), int(counts["train_rows"])
    training = config.training
    limit = config.data.max_train_samples
    if limit and limit < rows:
        tokens *= limit / rows
        rows = limit
    total = tokens * training.num_train_epochs
    batch = training.per_device_train_batch_size
    if training.max_steps > 0 and isinstance(batch, int):
        a_row = training.max_length if training.packing else tokens / rows
        total = training.max_steps * rows_a_step(config, batch) * a_row
    return total / pace.tokens_per_second


def pace_from_runs(
    workspace: Workspace, store: Store, config: RunConfig, device: str
) -> Pace | None:
    """The pace of the newest finished run of the same kind on such a device (cpu, cuda, mps); else
    that of one of the same method, by the sizes of the two models. None without any."""
    wanted = config.values()
    other: Pace | None = None
    finished = [job for job in store.list(kind="train", states={"finished"})][:_LOOKED_AT]
    for job in finished:
        if job.device.partition(":")[0] != device:
            continue
        folder = workspace.run(job.id)
        known = _config_of(folder.config)
        if known is None or known["method"] != config.method:
            continue
        speed = _speed_of(folder.events)
        if speed is None:
            continue
        name = job.name or job.id
        if all(known.get(path) == wanted[path] for path in _SAME):
            return Pace(speed, _("from your run {name}", name=name), True, job.id)
        if other is None:
            ratio = _ratio(workspace, str(known[_SAME[0]]), str(wanted[_SAME[0]]))
            if ratio is not None:
                origin = _("roughly, from your run {name} with other settings", name=name)
                other = Pace(speed * ratio, origin, False, job.id)
    return other


def _ratio(workspace: Workspace, known: str, wanted: str) -> float | None:
    """How many times as many parameters the model of a known run has."""
    sizes = [_parameters(workspace, name) for name in (known, wanted)]
    return sizes[0] / sizes[1] if sizes[0] and sizes[1] else None


def _parameters(workspace: Workspace, name: str) -> int | None:
    try:
        folder = local_model(workspace, name)
        return describe_model(folder).parameters if folder else None
    except TunesmithError:
        return None


def _config_of(path: Path) -> dict[str, Any] | None:
    try:
        return _read_config(path, path.stat().st_mtime)
    except (OSError, TunesmithError):
        return None  # a run from another version, or one that is being deleted


@lru_cache(maxsize=256)
def _read_config(path: Path, changed_at: float) -> dict[str, Any]:
    return load_config(path).values()


def _speed_of(path: Path) -> float | None:
    try:
        return _read_speed(path, path.stat().st_mtime)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _read_speed(path: Path, changed_at: float) -> float | None:
    """Tokens a second in the steps of a run, those of the beginning left out."""
    points = [value for _step, value in curves(path.parent).get("tokens_per_second", [])]
    points = points[len(points) // 4 :] if len(points) > 3 else points[1:]
    return median(points) if points else None


def try_run(workspace: Workspace, config: RunConfig, tell: Tell | None = None) -> dict[str, Any]:
    """Tries two steps of `config` on its longest rows and waits (`core.worker.training.run`).

    `tell` is told what is being done; what it raises ends the trial. Raises a TunesmithError.
    """
    steps = "core.worker.training.run:try_two_steps"
    result: dict[str, Any] = call_isolated(steps, str(workspace.root), config.values(), tell=tell)
    return result
