"""`sweep`: runs over several values of settings, and which of them was best."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, table
from core.language import _

if TYPE_CHECKING:
    from core.jobs.job import Job
    from core.jobs.store import Store
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "sweep",
        parents=[common],
        help=_("try several values of settings and compare the runs"),
        description=_(
            "Starts a run for each combination of values, or for values drawn from ranges, and "
            "tells which is best by evaluation.metric_for_best_model. Ctrl-C stops it; --go-on "
            "takes it up again."
        ),
        usage="%(prog)s CONFIG|PRESET --over PATH=VALUE,VALUE [--over ...] [--search random] "
        "[--section.field VALUE ...]\n"
        "       %(prog)s --show SWEEP | --go-on SWEEP | --list",
    )
    parser.add_argument(
        "config", metavar="CONFIG|PRESET", nargs="?", help=_("a YAML file or a preset's name")
    )
    parser.add_argument(
        "--over",
        metavar="PATH=VALUES",
        action="append",
        default=[],
        help=_(
            "a setting and its values: training.learning_rate=1e-4,2e-4, or a range for random "
            "and tpe: training.learning_rate=1e-5..1e-3:log; values of a list stand between |"
        ),
    )
    parser.add_argument(
        "--search",
        choices=("grid", "random", "tpe"),
        default="grid",
        help=_(
            "grid tries each combination, random draws, tpe (Optuna) learns from the runs so far "
            "(%(default)s)"
        ),
    )
    parser.add_argument(
        "--trials", metavar="N", default=10, help=_("runs of random and tpe (%(default)s)")
    )
    parser.add_argument(
        "--at-once", metavar="N", default=1, help=_("runs in the queue at once (%(default)s)")
    )
    parser.add_argument(
        "--queue", action="store_true", help=_("leave it to the running app and come back at once")
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--show", metavar="SWEEP", help=_("the runs of a search, the best first"))
    way.add_argument("--go-on", metavar="SWEEP", help=_("take up a search that ended too soon"))
    way.add_argument("--list", action="store_true", help=_("all searches"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.jobs.store import Store
    from core.runs.sweep import find_sweep, go_on

    workspace = open_workspace(args)
    if args.config is None and not (args.show or args.go_on or args.list):
        raise UsageError(
            _("Nothing to search is named."), _("Name a preset and a setting with --over.")
        )
    store = Store.open(workspace)
    if args.list:
        return _list(store, output)
    if args.show:
        job = find_sweep(store, args.show)
    else:
        job = go_on(workspace, store, args.go_on) if args.go_on else _begin(args, workspace, store)
        if not args.queue:
            return _see_through(workspace, store, job, output)
    return _show(workspace, store, job, output)


def _begin(args: argparse.Namespace, workspace: Workspace, store: Store) -> Job:
    from core.commands.follow import fetch_progress
    from core.commands.train import read_config
    from core.models.location import ensure_model
    from core.runs.space import sweep_settings
    from core.runs.sweep import Sweep, submit_sweep

    settings = sweep_settings(
        over=args.over, search=args.search, trials=args.trials, at_once=args.at_once
    )
    config = read_config(workspace, args.config, args.overrides)
    _number = Sweep(config, settings).number  # before a model is fetched for nothing
    ensure_model(config.model.model_name_or_path, workspace, fetch_progress, fetch=False)
    return submit_sweep(workspace, store, config, settings)


def _see_through(workspace: Workspace, store: Store, job: Job, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end

    output.say(_("Search {sweep} of {n} runs", sweep=job.id, n=job.max_steps))
    job, _result = follow(workspace, store, job, output)
    say_end(job, output)
    if job.state != "finished":
        output.say(_("Go on with it: {command}", command=f"sweep --go-on {job.id}"))
    _show(workspace, store, job, output)
    return exit_code(job)


def _show(workspace: Workspace, store: Store, job: Job, output: Output) -> int:
    from core.runs.sweep import metric_of, ranked, trials

    found = ranked(trials(workspace, store, job), job)
    paths = list(dict.fromkeys(path for one in found for path in one.changes))
    metric = metric_of(job)
    rows = [
        [one.job.id, one.job.state, *(one.changes.get(path) for path in paths), one.score]
        for one in found
    ]
    record = {
        "sweep": job.id,
        "state": job.state,
        "error": job.error,
        "metric": metric,
        "runs": [
            {
                "run": one.job.id,
                "state": one.job.state,
                "changes": dict(one.changes),
                "score": one.score,
            }
            for one in found
        ],
    }
    output.result(record, table([_("run"), _("state"), *paths, metric], rows))
    return DONE


def _list(store: Store, output: Output) -> int:
    from core.runs.sweep import list_sweeps

    jobs = list_sweeps(store)
    record = [{"sweep": job.id, "name": job.name, "state": job.state} for job in jobs]
    rows = [[job.id, job.state, job.max_steps, job.name] for job in jobs]
    output.result({"sweeps": record}, table([_("search"), _("state"), _("runs"), _("name")], rows))
    return DONE
