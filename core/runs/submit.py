"""A run, an evaluation or an export goes into the queue; what is refused, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.config.run import continues, run_and_checkpoint, settle_devices
from core.data.registry import load_dataset_info
from core.errors import ConfigError, ExportError, JobError, ModelError
from core.evaluation.answers.regex_match import check_pattern
from core.evaluation.benchmark import read_benchmark
from core.evaluation.judge import judge_of
from core.evaluation.lm_eval_tasks import check_tasks
from core.evaluation.report import asked_kind
from core.evaluation.targets import Target, check_target, parse_target
from core.export.combine import find_shares, parse_combination
from core.export.formats import find_format
from core.jobs.events import read_events
from core.jobs.job import Job
from core.jobs.kinds import KINDS
from core.jobs.queue import enqueue, new_folder
from core.jobs.store import Store
from core.language import _
from core.models.hardware import local_devices
from core.models.trained import FINAL, find_trained
from core.rules import parse_config
from core.runs.check import start_problems
from core.runs.cluster import cluster_problems
from core.runs.naming import run_title
from core.runs.origin_files import lay_longer, lay_origin
from core.runs.records import run_job
from core.runs.resume import asked_devices
from core.setup.extras import missing
from core.tokens.chat_templates import keep_with_run
from core.workspace import RunFolder, Workspace


def submit_run(
    workspace: Workspace,
    store: Store,
    config: RunConfig,
    *,
    parent_id: str | None = None,
    resume_from: str | None = None,
    devices: Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Job:
    """Puts a training in the queue: its folder with config.yaml and job.json, then its row.

    `resume_from` is the folder of a checkpoint to begin from; one of the run `parent_id` comes
    along into the new run, with the curves before it. `devices` is what this machine has (looked
    up when not given), `params` what else the job is to know. Raises ConfigError when the config
    does not fit this machine or the data set, WorkspaceError when the checkpoint lies outside what
    may be read.
    """
    begin_at = workspace.confine(resume_from) if resume_from else None
    config = settle_devices(config, local_devices() if devices is None else devices)
    config = parse_config(config.model_dump())
    problems = start_problems(workspace, config, devices, goes_on=begin_at is not None)
    problems = problems or cluster_problems(config)
    if problems:
        raise ConfigError(problems)
    # Whatever becomes of the data set while the run waits: it learns from what it is now.
    info = load_dataset_info(workspace, config.data.dataset)
    config.data.dataset_fingerprint = info.fingerprint
    run_id, folder = new_folder(store, workspace.runs)
    config.save(folder / "config.yaml")
    # It may be changed or deleted while the run waits.
    keep_with_run(folder, config.data.chat_template, workspace)
    params = {**(params or {}), **asked_devices(config)}
    try:
        begin, step = _take_over(workspace, RunFolder(folder), config, parent_id, begin_at)
    except BaseException:
        shutil.rmtree(folder)
        raise
    if begin is not None:
        params["resume_from"] = begin
    elif continues(config):
        parent_id, _ = run_and_checkpoint(config)
    job = Job(
        id=run_id,
        kind="train",
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=config.name or run_title(workspace, config),
        device=params["device"],
        model=config.model.model_name_or_path,
        dataset=config.data.dataset,
        step=step,
        max_steps=max(0, config.training.max_steps),
        parent_id=parent_id,
        params=params,
    )
    return enqueue(workspace, store, job)


def submit_evaluation(
    workspace: Workspace, store: Store, run_id: str, params: dict[str, Any]
) -> Job:
    """Puts an evaluation of a run's model in the queue (`params`: see
    `core.worker.evaluation.evaluator`; the job keeps a copy of a `benchmark`). Raises ModelError
    when it left none, and TunesmithError for another model that cannot be asked, rows that are not
    there, a pattern that is none."""
    for target in params.get("against") or []:
        check_target(parse_target(target), workspace)
    if params.get("dataset"):
        load_dataset_info(workspace, params["dataset"])
    if params.get("judge"):
        check_target(judge_of(params["judge"]), workspace)
    if params.get("pattern"):
        check_pattern(params["pattern"])
    if asked_kind(params):
        _check_asked(workspace, store, run_id, params)
    file = _check_benchmark(workspace, params) if params.get("benchmark") else None
    return _submit_task(workspace, store, "evaluate", run_id, params, file)


def _check_asked(workspace: Workspace, store: Store, run_id: str, params: dict[str, Any]) -> None:
    """Raises TunesmithError where a benchmark or tasks cannot be asked: of this run, or of others
    too, or both at once."""
    check_target(Target("run", run_job(store, run_id).id, params["checkpoint"]), workspace)
    if params.get("judge"):
        raise ModelError(
            _("A benchmark has right answers: no judge is asked."), _("Leave the judge out.")
        )
    others = [parse_target(text) for text in params.get("against") or []]
    if params.get("benchmark") and any(one.kind not in ("run", "model") for one in others):
        raise ModelError(
            _("A benchmark is asked of runs and model folders: they tell how likely a choice is."),
            _("Leave the other models out."),
        )
    if params.get("tasks"):
        if others:
            raise ModelError(
                _("Tasks of lm-eval are asked of the run's model and its base alone."),
                _("Leave the other models out."),
            )
        if params.get("benchmark") or params.get("dataset"):
            raise ModelError(
                _("Tasks of lm-eval bring their own questions."),
                _("Leave the file and the data set out."),
            )
        check_tasks(params, workspace)


def _check_benchmark(workspace: Workspace, params: dict[str, Any]) -> Path:
    """The file of a benchmark, and its name in `params` that of the job's copy. Raises DataError
    where it has no question."""
    file = workspace.confine(params["benchmark"])
    read_benchmark(file)
    copied = f"benchmark{''.join(file.suffixes)}"
    params |= {"benchmark": copied, "benchmark_name": file.name}
    return file


def submit_export(workspace: Workspace, store: Store, run_id: str, params: dict[str, Any]) -> Job:
    """Puts an export of a run's model in the queue. Raises ModelError when it left none, or none
    of this format, and ExportError for choices that there are not and packages that are missing."""
    form = find_format(str(params.get("format")))
    for option in form.options:
        option.read(params.get(option.name))
    if run_job(store, run_id):
        trained = find_trained(workspace.run(run_id), str(params.get("checkpoint") or FINAL))
        why_not = form.why_not(trained.config)
        if why_not:
            raise ModelError(*why_not)
        if combination := parse_combination(params.get("combination")):
            if not (form.is_model and trained.is_adapter):
                raise ExportError(
                    _("Nothing can be combined in this form."),
                    _("Export it as a merged model, an adapter or GGUF."),
                )
            find_shares(workspace, trained, combination)
    for extra in missing([form.extra] if form.extra else []):
        raise ExportError(
            _("{packages} is not installed.", packages=extra.title),
            _("Install it with: {command}", command=extra.command),
        )
    return _submit_task(workspace, store, "export", run_id, params)


def _take_over(
    workspace: Workspace,
    run: RunFolder,
    config: RunConfig,
    parent_id: str | None,
    checkpoint: Path | None,
) -> tuple[str | None, int]:
    """(the checkpoint that the run begins at, its step), once what the run needs of another one is
    in its folder: a model, or a parent's checkpoint with its curves as far as that."""
    if checkpoint is None:
        lay_origin(run, config, workspace)
        return None, 0
    if parent_id is None:
        return str(checkpoint), 0
    parent = workspace.run(parent_id)
    if checkpoint.parent != parent.checkpoints.resolve():
        raise JobError(
            _("{path} is no checkpoint of {run}.", path=checkpoint, run=parent_id),
            _("Choose one that the run left."),
        )
    place = lay_longer(run, parent, checkpoint.name)
    step = int(checkpoint.name.rpartition("-")[2])
    with run.events.open("w", encoding="utf-8") as file:
        for event in read_events(parent.events):
            if event["kind"] in ("metrics", "sample") and event.get("step", step + 1) <= step:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
    return place.relative_to(run.root).as_posix(), step


def _submit_task(
    workspace: Workspace,
    store: Store,
    kind: str,
    run_id: str,
    params: dict[str, Any],
    benchmark: Path | None = None,
) -> Job:
    run = run_job(store, run_id)
    find_trained(workspace.run(run_id), params.get("checkpoint", FINAL))
    task_id, folder = new_folder(store, workspace.run(run_id).root / KINDS[kind].folder)
    if benchmark is not None:
        shutil.copyfile(benchmark, folder / params["benchmark"])
    job = Job(
        id=task_id,
        kind=kind,
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=f"{kind} {run.name}",
        model=run.model,
        dataset=run.dataset,
        params=params,
    )
    return enqueue(workspace, store, job)
