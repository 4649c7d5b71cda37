"""`train`: starts a run from a preset or a YAML file, and sees it through."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, pairs, spell_seconds

if TYPE_CHECKING:
    from core.config import RunConfig
    from core.jobs.store import Job, Store
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "train",
        parents=[common],
        help="start a run from a preset or a YAML file",
        description="Starts a run and shows its progress. Ctrl-C stops it with a checkpoint. "
        "Every setting is an option: --training.learning_rate 1e-4.",
        usage="%(prog)s CONFIG|PRESET [--section.field VALUE ...] [--name NAME] [--queue]",
        late_epilog=_field_help,
    )
    parser.add_argument("config", metavar="CONFIG|PRESET", help="a YAML file or a preset's name")
    parser.add_argument(
        "--queue",
        action="store_true",
        help="put it in the queue of the running app and come back at once",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.progress import fetch_progress
    from core.jobs.process import context
    from core.jobs.scheduler import live_server
    from core.jobs.store import Store
    from core.jobs.submit import submit_run
    from core.models.starter import ensure_model

    config = read_config(open_workspace(args), args.config, args.overrides)
    model = config.model.model_name_or_path
    workspace = open_workspace(args, model)
    if not args.queue and live_server(workspace) is None:
        context().warm()  # imports torch in the background, while the model is looked for
    ensure_model(model, workspace, fetch_progress)
    store = Store.open(workspace)
    job = submit_run(workspace, store, config)
    return see_through(workspace, store, job, output, queue=args.queue)


def read_config(workspace: Workspace, source: str, overrides: Sequence[str]) -> RunConfig:
    """The configuration of a command line. Raises ConfigError with every problem."""
    from core.config import parse_config
    from core.config.command import apply_overrides
    from core.config.presets import open_config

    values, _ = open_config(source, workspace)
    return parse_config(apply_overrides(values, overrides))


def see_through(
    workspace: Workspace, store: Store, job: Job, output: Output, *, queue: bool
) -> int:
    """Leaves a submitted run in the queue, or follows it to its end."""
    from core.commands.follow import exit_code, follow, say_end
    from core.jobs.scheduler import live_server

    if queue:
        is_served = live_server(workspace) is not None
        when = "The running app takes it." if is_served else "It starts when the app runs."
        output.result(record(workspace, job), f"{job.id} is queued. {when}")
        return DONE
    output.say(f"Run {job.id} in {workspace.root / job.folder}")
    job, _ = follow(workspace, store, job, output)
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
    steps = f"{job.step} of {job.max_steps}" if job.max_steps else str(job.step)
    return pairs(
        [
            ("run", job.id),
            ("state", job.state),
            ("steps", steps),
            ("best eval loss", job.best_eval_loss),
            ("took", spell_seconds(job.seconds())),
            ("folder", workspace.root / job.folder),
        ]
    )


def _field_help() -> str:
    from core.config.command import field_help

    return "every setting:\n" + field_help()
