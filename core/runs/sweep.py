"""A search over settings: a job that puts runs into the queue, one or several at once, and tells
the best. The runs are runs like any others; what the search knows of them stands with each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.config.run import as_run
from core.errors import ConfigError, JobError, Problem, WorkspaceError
from core.jobs.devices import DATA
from core.jobs.job import Job
from core.jobs.queue import enqueue, new_folder, stop_job
from core.jobs.store import Store
from core.jobs.task import Task
from core.language import _, n_
from core.progress import Stopped
from core.rules import parse_config
from core.runs.check import start_problems
from core.runs.curves import curves
from core.runs.naming import MOST, run_title, shortened
from core.runs.space import (
    Space,
    SweepSettings,
    Tried,
    check_space,
    parse_space,
    propose,
    with_changes,
)
from core.runs.submit import submit_run
from core.setup.extras import missing
from core.workspace import Workspace

KIND = "sweep"
_LOOK_SECONDS = 0.5
# So many runs that fail, with none before them that did not, end a search.
_FAILURES = 3


@dataclass(frozen=True)
class Sweep:
    """What was asked for: the settings that all runs share, and those that differ."""

    config: RunConfig
    settings: SweepSettings

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Sweep:
        return cls(parse_config(params["config"]), SweepSettings(**params["settings"]))

    @cached_property
    def space(self) -> Space:
        return parse_space(self.settings.over, self.settings.search)

    @cached_property
    def number(self) -> int:
        """How many runs it has. Raises ConfigError where one of them could not start."""
        if as_run(self.config).evaluation.eval_strategy == "no":
            message = _("never: a search compares its runs by what an evaluation measures.")
            raise ConfigError([Problem("evaluation.eval_strategy", message)])
        return check_space(self.space, self.settings, self.config)

    @property
    def higher(self) -> bool:
        return self.config.evaluation.greater_is_better


@dataclass(frozen=True)
class Trial:
    """One run of a search. `score` is its best value of the metric, None while it has none, or
    where it did not come to its end."""

    number: int
    job: Job
    changes: Mapping[str, Any]
    score: float | None

    @property
    def failed(self) -> bool:
        return self.job.ended and self.job.state != "finished"


def submit_sweep(
    workspace: Workspace, store: Store, config: RunConfig, settings: SweepSettings
) -> Job:
    """Puts a search into the queue. Raises ConfigError where one of its runs could not start, each
    problem at its setting or at `over`, and JobError where a package is missing."""
    number = Sweep(config, settings).number
    if problems := start_problems(workspace, config):
        raise ConfigError(problems)
    for extra in missing(["optuna"] if settings.search == "tpe" else []):
        raise JobError(
            _("{packages} is not installed.", packages=extra.title),
            _("Install it with: {command}", command=extra.command),
        )
    params = {"config": config.values(), "settings": settings.model_dump()}
    return _put(workspace, store, config.name or run_title(workspace, config), number, params)


def go_on(workspace: Workspace, store: Store, sweep_id: str) -> Job:
    """A search that ended before its end, once more from where it was: what its runs gave counts.
    Raises JobError for one that is at work or has tried everything."""
    before = find_sweep(store, sweep_id)
    if not before.ended or before.state == "finished":
        raise JobError(_("{sweep} has nothing left to do.", sweep=sweep_id))
    params = {**before.params, "before": [*_whole(before)]}
    return _put(workspace, store, before.name, before.max_steps, params)


def _put(workspace: Workspace, store: Store, name: str, number: int, params: dict[str, Any]) -> Job:
    sweep_id, folder = new_folder(store, workspace.jobs)
    job = Job(
        id=sweep_id,
        kind=KIND,
        run_id="",
        folder=folder.relative_to(workspace.root).as_posix(),
        name=name,
        device=DATA,
        model=params["config"]["model.model_name_or_path"],
        dataset=params["config"]["data.dataset"],
        max_steps=number,
        params=params,
    )
    return enqueue(workspace, store, job)


def list_sweeps(store: Store) -> list[Job]:
    """All searches, newest first, but for those that were gone on with since."""
    found = store.list(kind=KIND)
    earlier = {one for job in found for one in job.params.get("before", [])}
    kept = [job for job in found if job.id not in earlier]
    return sorted(kept, key=lambda job: job.created_at, reverse=True)


def find_sweep(store: Store, sweep_id: str) -> Job:
    """Raises JobError where there is no such search."""
    job = store.find(sweep_id)
    if job is None or job.kind != KIND:
        raise JobError(_("There is no search {sweep}.", sweep=sweep_id))
    return job


def metric_of(job: Job) -> str:
    """What tells the best run, by the name of its curve: what tells the best checkpoint."""
    best: str = job.params["config"]["evaluation.metric_for_best_model"]
    return f"eval_{best.removeprefix('eval_')}"


def trials(workspace: Workspace, store: Store, job: Job) -> list[Trial]:
    """The runs of a search, in the order of their numbers; one that was deleted is not there."""
    metric = metric_of(job)
    higher = job.params["config"]["evaluation.greater_is_better"]
    found: dict[int, Trial] = {}
    for run in store.list(kind="train"):
        place = run.params.get(KIND)
        if not place or run.params.get("put_by") not in _whole(job):
            continue
        score = _score(workspace, run, metric, higher) if run.state == "finished" else None
        trial = Trial(place["number"], run, place["changes"], score)
        known = found.get(trial.number)
        # One that was stopped is tried once more when the search goes on.
        if known is None or known.job.created_at < run.created_at:
            found[trial.number] = trial
    return [found[number] for number in sorted(found)]


def ranked(found: Sequence[Trial], job: Job) -> list[Trial]:
    """The best first; those without a score come last."""
    sign = -1 if job.params["config"]["evaluation.greater_is_better"] else 1
    scored = [one for one in found if one.score is not None]
    return [
        *sorted(scored, key=lambda one: sign * (one.score or 0.0)),
        *[one for one in found if one.score is None],
    ]


def _whole(job: Job) -> tuple[str, ...]:
    """The ids of a search and of those that it goes on with."""
    return job.id, *job.params.get("before", [])


def _score(workspace: Workspace, run: Job, metric: str, higher: bool) -> float | None:
    return _best(workspace.root / run.folder, run.ended_at, metric, higher)


@lru_cache(4096)
def _best(folder: Path, _ended_at: float | None, metric: str, higher: bool) -> float | None:
    """Of a run that has ended: asked for again and again, and read once."""
    values = [value for _step, value in curves(folder).get(metric, [])]
    return (max if higher else min)(values, default=None)


def run_sweep(folder: Path, workspace_root: Path) -> str:
    """The work of a search, in a worker: `at_once` runs in the queue until all have ended."""
    task = Task(Path(folder))
    workspace = Workspace.open(workspace_root)
    store = Store.open(workspace)
    try:
        work = _Work(task, workspace, store)
        try:
            work.run()
        except Stopped:
            work.stop()
            return "stopped"
        task.finish(work.result())
        return "finished"
    finally:
        store.close()


class _Work:
    def __init__(self, task: Task, workspace: Workspace, store: Store) -> None:
        self.task, self.workspace, self.store = task, workspace, store
        self.job = store.get(task.folder.name)
        self.sweep = Sweep.of(self.job.params)
        self.refused: set[int] = set()
        """Runs whose settings do not go together, which only a draw can bring about."""

    def trials(self) -> list[Trial]:
        return trials(self.workspace, self.store, self.job)

    def run(self) -> None:
        while True:
            found = self.trials()
            self._tell(found)
            self._give_up(found)
            waiting = [one for one in found if not one.job.ended]
            left = self._left(found)
            if not waiting and not left:
                return
            for number in left[: max(0, self.sweep.settings.at_once - len(waiting))]:
                self._submit(number, found)
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        for one in self.trials():
            if not one.job.ended:
                try:
                    stop_job(self.workspace, self.store, one.job.id)
                except JobError:
                    continue  # it ended meanwhile

    def result(self) -> dict[str, Any]:
        best = ranked(self.trials(), self.job)[:1]
        found = [{"run": one.job.id, "score": one.score} for one in best if one.score is not None]
        return {"runs": self.sweep.number, "metric": metric_of(self.job), "best": found}

    def _left(self, found: Sequence[Trial]) -> list[int]:
        """The numbers that are still to be tried."""
        done = {one.number for one in found if one.job.state != "stopped"} | self.refused
        done |= {one.number for one in found if one.job.belongs_to(self.job.id)}
        return [number for number in range(self.sweep.number) if number not in done]

    def _submit(self, number: int, found: Sequence[Trial]) -> None:
        sweep = self.sweep
        tried = [Tried(one.changes, one.score) for one in found]
        changes = propose(
            sweep.space,
            sweep.settings.search,
            number,
            tried,
            higher=sweep.higher,
            seed=sweep.config.training.seed,
        )
        try:
            config = with_changes(sweep.config, changes)
            config.name = _name(self.job.name, changes)
            place = {"number": number, "changes": changes}
            params = {"put_by": self.job.id, KIND: place}
            submit_run(self.workspace, self.store, config, params=params)
        except (ConfigError, WorkspaceError) as error:
            self.refused.add(number)
            self.task.log(f"{_told(changes)}: {error}", "warning")

    def _give_up(self, found: Sequence[Trial]) -> None:
        """When nothing comes of the first runs, nothing will of the others."""
        ended = [one for one in found if one.job.ended and one.job.state != "stopped"]
        if len(ended) >= _FAILURES and all(one.failed for one in ended):
            raise JobError(
                _("The first {n} runs failed.", n=len(ended)), str(ended[-1].job.error or "")
            )
        if len(self.refused) == self.sweep.number:
            raise JobError(_("None of the runs could be started."), _("The log says why."))

    def _tell(self, found: Sequence[Trial]) -> None:
        ended = sum(one.job.ended for one in found) + len(self.refused)
        message = n_(
            "{done} of {n} run has ended",
            "{done} of {n} runs have ended",
            self.sweep.number,
            done=ended,
        )
        self.task.check_stop()
        self.task.tell(min(ended / self.sweep.number, 0.99), message)


def _name(title: str, changes: Mapping[str, Any]) -> str:
    """What a run of a search is called: what is its own comes last and is never cut."""
    end = f": {_told(changes)}"
    return (shortened(title, max(1, MOST - len(end))) + end)[:MOST]


def _told(changes: Mapping[str, Any]) -> str:
    """Such as `learning_rate 0.0002, r 16`."""
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in changes.items())


def searched(job: Job, result: Mapping[str, Any]) -> str:
    """What came of a search, in a sentence."""
    if not result["best"]:
        return _("{name}: no run came to its end.", name=job.name)
    return _(
        "{name}: the best of {n} runs has {metric} {score:.4g}.",
        name=job.name,
        n=result["runs"],
        metric=result["metric"],
        score=result["best"][0]["score"],
    )
