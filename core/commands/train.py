"""`train`: starts a run from a preset or a YAML file, and sees it through."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, pairs, spell_seconds
from core.language import _

if TYPE_CHECKING:
    from core.config import RunConfig
    from core.jobs.job import Job
    from core.jobs.store import Store
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "train",
        parents=[common],
        help=_("start a run from a preset or a YAML file"),
        description=_(
            "Starts a run and shows its progress. Ctrl-C stops it with a checkpoint. Every "
            "setting is an option: --training.learning_rate 1e-4."
        ),
        usage="%(prog)s CONFIG|PRESET [--section.field VALUE ...] [--name NAME] [--queue]\n"
        "       %(prog)s CONFIG|PRESET --ray ADDRESS [...]\n"
        "       %(prog)s --from-run RUN [CONFIG|PRESET] [--section.field VALUE ...]",
        late_epilog=_field_help,
    )
    parser.add_argument(
        "config",
        metavar="CONFIG|PRESET",
        nargs="?",
        help=_("a YAML file or a preset's name; with --from-run else the settings of that run"),
    )
    parser.add_argument(
        "--from-run",
        metavar="RUN",
        help=_(
            "begin with the model of this run (RUN@checkpoint-40 for a checkpoint), merged "
            "unless --model.start_from says stack or continue"
        ),
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help=_("train on a node of the Ray cluster there, as --training.ray_address"),
    )
    parser.add_argument(
        "--queue",
        action="store_true",
        help=_("put it in the queue of the running app and come back at once"),
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.errors import ConfigError
    from core.jobs.process import context
    from core.jobs.scheduler import live_server
    from core.jobs.store import Store
    from core.models.location import ensure_model, local_model
    from core.runs.check import start_problems
    from core.runs.cluster import cluster_problems
    from core.runs.submit import submit_run

    if args.config is None and args.from_run is None:
        raise UsageError(_("Nothing to train is named."), _("Name a preset, such as quickstart."))
    ray = ["--training.ray_address", args.ray] if args.ray else []
    config = read_config(open_workspace(args), args.config, [*args.overrides, *ray], args.from_run)
    model = config.model.model_name_or_path
    workspace = open_workspace(args, model)
    fetching = local_model(workspace, model) is None
    problems = start_problems(workspace, config) or cluster_problems(config) if fetching else []
    if problems:  # before a model is fetched for nothing; else submit_run says it
        raise ConfigError(problems)
    if not args.queue and live_server(workspace) is None:
        context().warm()  # imports torch in the background, while the model is looked for
    ensure_model(model, workspace, fetch_progress, fetch=False)
    store = Store.open(workspace)
    job = submit_run(workspace, store, config)
    return see_through(workspace, store, job, output, queue=args.queue)


def read_config(
    workspace: Workspace,
    source: str | None,
    overrides: Sequence[str],
    from_run: str | None = None,
) -> RunConfig:
    """The configuration of a command line: of a preset or a file, and with `from_run` of a run
    that begins with that one. Raises ConfigError with every problem."""
    from core.rules import parse_config
    from core.rules.command import apply_overrides
    from core.rules.presets import open_config

    values = open_config(source, workspace)[0] if source else {}
    if from_run:
        values |= _of_run(workspace, from_run, whole=source is None)
    return parse_config(apply_overrides(values, overrides))


def _of_run(workspace: Workspace, named: str, *, whole: bool) -> dict[str, Any]:
    """What a run that begins with `named` takes from it: all its settings, or which model it is."""
    from core.commands.runs import find_run
    from core.jobs.store import Store
    from core.runs.lineage import values_to_continue

    text, _at, checkpoint = named.partition("@")
    store = Store.open(workspace)
    try:
        run_id = find_run(store, text)
    finally:
        store.close()
    values = values_to_continue(workspace, run_id, checkpoint or "final").values()
    if whole:
        return values
    paths = ("model_name_or_path", "model_revision", "start_from", "from_run")
    return {f"model.{name}": values[f"model.{name}"] for name in paths}


def see_through(
    workspace: Workspace, store: Store, job: Job, output: Output, *, queue: bool
) -> int:
    """Leaves a submitted run in the queue, or follows it to its end."""
    from core.commands.follow import exit_code, follow, say_end
    from core.jobs.scheduler import live_server

    if queue:
        is_served = live_server(workspace) is not None
        told = (
            _("{run} is queued. The running app takes it.", run=job.id)
            if is_served
            else _("{run} is queued. It starts when the app runs.", run=job.id)
        )
        output.result(record(workspace, job), told)
        return DONE
    output.say(_("Run {run} in {folder}", run=job.id, folder=workspace.root / job.folder))
    job, _result = follow(workspace, store, job, output)
    say_end(job, output)
    output.result(record(workspace, job), _text(workspace, job))
    return exit_code(job)


def record(workspace: Workspace, job: Job) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "run": job.id,
        "name": job.name,
        "state": job.state,
        "model": job.model,
        "dataset": job.dataset,
        "step": job.step,
        "max_steps": job.max_steps,
        "best_eval_loss": job.best_eval_loss,
        "seconds": round(job.seconds(), 3),
        "folder": str(workspace.root / job.folder),
        "error": job.error,
        "advice": job.advice,
        "signal": job.signal,
        "note": job.note,
    }


def _text(workspace: Workspace, job: Job) -> str:
    from core.runs.records import STATE_WORDS

    steps = _("{done} of {total}", done=job.step, total=job.max_steps)
    return pairs(
        [
            (_("run"), job.id),
            (_("state"), STATE_WORDS[job.state]),
            (_("steps"), steps if job.max_steps else job.step),
            (_("best eval loss"), job.best_eval_loss),
            (_("took"), spell_seconds(job.seconds())),
            (_("folder"), workspace.root / job.folder),
        ]
    )


def _field_help() -> str:
    from core.rules.command import field_help

    return _("every setting:") + "\n" + field_help()
