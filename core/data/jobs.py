"""Long work on data as jobs: what is asked for, what a worker does, and what it tells of the end.

A command calls the same functions of `core.data` in its own process; here they run in a worker
that outlives the page and the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.data.combine import combine_datasets
from core.data.drafts import review
from core.data.drafts.run import run_drafts
from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.data.steps import parse_steps
from core.data.steps.base import Step
from core.data.uploads import discard_uploads, sources_of
from core.data.values import ALSO, joined
from core.data.versions import apply_steps
from core.errors import JobError
from core.jobs.devices import DATA
from core.jobs.job import Job
from core.jobs.kinds import KINDS
from core.jobs.queue import dismiss_job, enqueue, forget_old_jobs, new_folder
from core.jobs.store import Store
from core.jobs.task import stoppable
from core.language import _, n_
from core.progress import Tell
from core.workspace import Workspace

# Of one data set only one of these at a time, for each group.
_CHANGING = ("prepare", "add-drafts")
_WRITING = ("drafts", "add-drafts")


def submit_import(
    workspace: Workspace, store: Store, sources: Sequence[str], name: str, **how: Any
) -> Job:
    """An import of sources; `how` are arguments of `import_dataset`."""
    steps = [step.spec() for step in how.pop("steps", ())]
    params = {"sources": [str(one) for one in sources], "how": {**how, "name": name or None}}
    return _submit(workspace, store, "import", name, {**params, "steps": steps})


def submit_combine(
    workspace: Workspace,
    store: Store,
    weighted: Sequence[tuple[str, float]],
    *,
    name: str | None = None,
    seed: int = 42,
) -> Job:
    """One data set of several, (id, weight) each."""
    params = {"weighted": [list(pair) for pair in weighted], "name": name, "seed": seed}
    return _submit(workspace, store, "combine", name or _("the data sets"), params)


def submit_steps(
    workspace: Workspace,
    store: Store,
    dataset_id: str,
    steps: Sequence[Step],
    *,
    title: str,
    note: str = "",
) -> Job:
    """A new version of a data set. Raises JobError while its rows are being changed."""
    params = {"steps": [step.spec() for step in steps], "note": note}
    return _submit(workspace, store, "prepare", title, params, dataset_id, _CHANGING)


def submit_drafts(workspace: Workspace, store: Store, dataset_id: str, task_id: str) -> Job:
    """A stretch of work on a task that writes drafts. Raises JobError while there is one."""
    return _submit(workspace, store, "drafts", _("Writing drafts"), {"task": task_id}, dataset_id)


def submit_adding(workspace: Workspace, store: Store, dataset_id: str, task_id: str) -> Job:
    """The accepted drafts of a task become rows. Raises JobError while rows are being changed."""
    title = _("Adding the accepted rows")
    groups = (*_CHANGING, *_WRITING)
    return _submit(workspace, store, "add-drafts", title, {"task": task_id}, dataset_id, groups)


def check_free(store: Store, dataset_id: str, kinds: Sequence[str] = _WRITING) -> None:
    """Raises JobError while a job of these kinds is at work on the data set."""
    for job in _of(store, dataset_id, kinds):
        if not job.ended:
            work = _(KINDS[job.kind].doing).format(name=job.name)
            raise JobError(_("{work} is still going on.", work=work), _("Wait for it, or stop it."))


def _of(store: Store, dataset_id: str, kinds: Sequence[str]) -> list[Job]:
    return [job for job in store.list() if job.dataset == dataset_id and job.kind in kinds]


def _submit(
    workspace: Workspace,
    store: Store,
    kind: str,
    name: str,
    params: dict[str, Any],
    dataset_id: str = "",
    groups: Sequence[str] = _WRITING,
) -> Job:
    forget_old_jobs(workspace, store)
    with store.transaction():
        if dataset_id:
            check_free(store, dataset_id, groups)
            for job in _of(store, dataset_id, groups):
                dismiss_job(workspace, store, job.id)  # what comes now takes its place
        job_id, folder = new_folder(store, workspace.jobs)
        job = Job(
            id=job_id,
            kind=kind,
            run_id="",
            folder=folder.relative_to(workspace.root).as_posix(),
            name=name,
            device=DATA,
            dataset=dataset_id,
            params={**params, "dataset": dataset_id},
        )
        return enqueue(workspace, store, job)


# What a worker does: (workspace, parameters of the job, how to say how far it is) -> the result.


@stoppable
def run_import(workspace: Workspace, params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    steps = parse_steps(params["steps"])
    info = import_dataset(workspace, params["sources"], **params["how"], steps=steps, progress=tell)
    # After a stop or an error they may be imported in another way.
    discard_uploads(workspace, Store.open(workspace), sources_of(params), readers=1)
    return _result(info)


@stoppable
def run_combine(workspace: Workspace, params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    weighted = [(dataset_id, weight) for dataset_id, weight in params["weighted"]]
    how = {"name": params["name"], "seed": params["seed"]}
    return _result(combine_datasets(workspace, weighted, **how, progress=tell))


@stoppable
def run_steps(workspace: Workspace, params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    steps = parse_steps(params["steps"])
    how = {"note": params["note"], "progress": tell}
    return _result(apply_steps(workspace, params["dataset"], steps, **how))


@stoppable
def run_writing(workspace: Workspace, params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    task = run_drafts(workspace.root, params["dataset"], params["task"], tell)
    return {"task": task.id, "drafts": task.tally.drafts}


@stoppable
def run_adding(workspace: Workspace, params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    dataset_id = params["dataset"]
    info = review.add_to_dataset(workspace, dataset_id, params["task"], progress=tell)
    return {**_result(info), "as_its_own": info.id != dataset_id}


def _result(info: DatasetInfo) -> dict[str, Any]:
    return {
        "dataset": info.id,
        "name": info.name,
        "version": info.version,
        **info.counts.model_dump(include={"train", "eval", "test", "dropped"}),
    }


# What a person reads of a result.


def imported(job: Job, result: Mapping[str, Any]) -> str:
    held_out, test, dropped = result["eval"], result["test"], result["dropped"]
    parts: list[str] = [_to_learn(result)]
    parts += [_("{rows:,} held out", rows=held_out)] if held_out else []
    parts += [_("{rows:,} for a test", rows=test)] if test else []
    parts += [_("{rows:,} dropped", rows=dropped)] if dropped else []
    return _("{name} is imported: {parts}.", name=result["name"], parts=joined(ALSO, parts))


def _to_learn(result: Mapping[str, Any]) -> str:
    return n_("{n:,} row to learn", "{n:,} rows to learn", result["train"])


def combined(job: Job, result: Mapping[str, Any]) -> str:
    return _("{name} is put together: {rows}.", name=result["name"], rows=_to_learn(result))


def prepared(job: Job, result: Mapping[str, Any]) -> str:
    return _("{name}: version {version} is in use.", name=job.name, version=result["version"])


def added(job: Job, result: Mapping[str, Any]) -> str:
    if result["as_its_own"]:
        return _(
            "Pairs and answers have another form: they are the data set {name} now.",
            name=result["name"],
        )
    return _("Added. Version {version} is in use.", version=result["version"])
