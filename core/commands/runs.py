"""`runs`: what there is, and what can be done with it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import (
    DONE,
    Output,
    UsageError,
    pairs,
    spell_bytes,
    spell_seconds,
    spell_time,
    table,
)
from core.language import N_, _

if TYPE_CHECKING:
    from core.config import RunConfig
    from core.jobs.store import Store
    from core.runs.records import RunSummary
    from core.workspace import Workspace

_ACTIONS = {
    "list": N_("every run, newest first"),
    "show": N_("one run: settings, results, checkpoints"),
    "diff": N_("the settings in which runs differ"),
    "stop": N_("stop with a checkpoint, or take out of the queue"),
    "resume": N_(
        "go on from the last checkpoint; with settings (--training.num_train_epochs 5) as a new run"
    ),
    "delete": N_("delete a run's folder and all in it"),
    "rename": N_("change the name in lists and charts"),
    "note": N_("keep a note with the run"),
}


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("runs", help=", ".join(_ACTIONS))
    actions = parser.add_subparsers(title=_("actions"), metavar="ACTION", required=True)
    handlers: dict[str, Callable[..., int]] = {
        "list": _list,
        "show": _show,
        "diff": _diff,
        "stop": _stop,
        "resume": _resume,
        "delete": _delete,
        "rename": _rename,
        "note": _note,
    }
    for name, handler in handlers.items():
        does = _(_ACTIONS[name])
        action = actions.add_parser(
            name, parents=[common], help=does, description=f"{does[0].upper()}{does[1:]}"
        )
        if name != "list":
            action.add_argument("id", metavar="ID", help=_("the run's id, or the start of it"))
        if name == "diff":
            action.add_argument("others", metavar="ID", nargs="+", help=_("the runs beside it"))
        if name == "stop":
            action.add_argument(
                "--now", action="store_true", help=_("end it at once, without a checkpoint")
            )
        if name == "resume":
            action.add_argument(
                "--queue", action="store_true", help=_("hand it to the running app and come back")
            )
            action.add_argument(
                "--checkpoint",
                metavar="NAME",
                help=_("with settings: the checkpoint to go on from"),
            )
            action.add_argument(
                "--half-batch",
                action="store_true",
                help=_("half the rows at once, and as many in each step as before"),
            )
        if name == "delete":
            action.add_argument(
                "--though-built-on",
                action="store_true",
                help=_("also when other runs began with it; they keep what they need"),
            )
        if name in ("rename", "note"):
            action.add_argument("text", metavar="NAME" if name == "rename" else "TEXT")
        action.set_defaults(run=_with_store(handler))


def find_run(store: Store, text: str) -> str:
    """The id that `text` is or begins. Raises JobError if none or several do."""
    from core.errors import JobError

    ids = [job.id for job in store.list(kind="train")]
    if text in ids:
        return text
    found = [run_id for run_id in ids if text and run_id.startswith(text)]
    if len(found) > 1:
        shown = ", ".join(found[:5])
        raise JobError(
            _("{text} begins {n} runs: {runs}.", text=text, n=len(found), runs=shown),
            _("Say more of it."),
        )
    if not found:
        raise JobError(_("There is no run {run}.", run=text), _("See which there are: runs list."))
    return found[0]


def settle(workspace: Workspace, store: Store) -> None:
    """Brings the store up to date with workers that nobody looks after."""
    from core.jobs.job import ACTIVE

    if store.list(states=ACTIVE):
        from core.jobs.supervise import look_once

        look_once(workspace, store)


def _with_store(handler: Callable[..., int]) -> Callable[[argparse.Namespace, Output], int]:
    def run(args: argparse.Namespace, output: Output) -> int:
        from core.jobs.store import Store

        if args.overrides and handler is not _resume:
            raise UsageError(
                _("There is no option {option}.", option=args.overrides[0]),
                _("Only resume takes it."),
            )
        workspace = open_workspace(args)
        store = Store.open(workspace)
        try:
            settle(workspace, store)
            return handler(args, output, workspace, store)
        finally:
            store.close()

    return run


def _list(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.runs.records import list_runs

    summaries = list_runs(workspace, store)
    rows = [
        (
            run.id,
            run.job.name if run.job.name != run.id else "",
            _state(run),
            f"{run.job.step}/{run.job.max_steps}" if run.job.max_steps else str(run.job.step),
            run.job.best_eval_loss,
            spell_seconds(run.duration_seconds),
            spell_bytes(run.size_bytes),
            run.job.model,
            run.job.dataset,
        )
        for run in summaries
    ]
    titles = (
        *(_("RUN"), _("NAME"), _("STATE"), _("STEP"), _("EVAL LOSS"), _("TIME"), _("SIZE")),
        *(_("MODEL"), _("DATA")),
    )
    text = table(titles, rows) if rows else _("There are no runs yet. Start one: train quickstart")
    output.result({"runs": [_record(workspace, run) for run in summaries]}, text)
    return DONE


def _show(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.estimate.summary import devices_text, step_text
    from core.models.checkpoints import checkpoints
    from core.runs.cluster import place_in_cluster
    from core.runs.lineage import built_on, lineage, lineage_text
    from core.runs.records import STATE_WORDS, load_run
    from core.serve.servers import servers

    run = load_run(workspace, store, find_run(store, args.id))
    saved = checkpoints(run.folder.root)
    tasks = [job for job in store.list(run_id=run.id) if job.kind != "train"]
    answering = servers(workspace, store, run.id)
    config, place = _config(run), place_in_cluster(run.folder)
    data = {
        **_record(workspace, run),
        "config": config.model_dump() if config else None,
        "lineage": [one.own_fields() for one in lineage(run.folder)],
        "built_on": [later.id for later in built_on(store, run.id)],
        "checkpoints": [{"name": c.name, "step": c.step, "path": str(c.path)} for c in saved],
        "tasks": [
            {"id": t.id, "kind": t.kind, "state": t.state, "folder": str(workspace.root / t.folder)}
            for t in tasks
        ],
        "node": place or None,
        "servers": [server.as_dict() for server in answering],
    }
    job = run.job
    steps = _("{done} of {total}", done=job.step, total=job.max_steps)
    text = pairs(
        [
            (_("run"), run.id),
            (_("name"), job.name if job.name != run.id else None),
            (_("state"), _state(run)),
            (_("error"), job.error),
            (_("advice"), job.advice),
            (_("model"), job.model),
            (_("came"), lineage_text(run.folder) or None),
            (_("built on it"), ", ".join(later.id for later in built_on(store, run.id)) or None),
            (_("data"), job.dataset),
            (_("steps"), steps if job.max_steps else job.step),
            (_("best eval loss"), job.best_eval_loss),
            (_("made"), spell_time(job.created_at)),
            (_("took"), spell_seconds(run.duration_seconds)),
            (_("device"), job.device),
            (_("node"), place or None),
            (_("devices"), (config and devices_text(config)) or None),
            (_("rows a step"), (config and step_text(config)) or None),
            (_("size"), spell_bytes(run.size_bytes)),
            (_("checkpoints"), ", ".join(c.name for c in saved)),
            *((_("answers at"), f"{one.address}/v1") for one in answering),
            *((task.kind, f"{task.id} ({STATE_WORDS[task.state]})") for task in tasks),
            (_("note"), job.note),
            (_("folder"), run.folder.root),
            (_("resume"), f"runs resume {run.id}" if run.resumable else None),
        ]
    )
    output.result(data, text)
    return DONE


def _diff(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.rules import load_config
    from core.runs.differences import differences

    ids = [find_run(store, text) for text in (args.id, *args.others)]
    found = differences([load_config(workspace.run(run_id).config) for run_id in ids])
    rows = [(path, *(str(value) for value in values)) for path, values in found.items()]
    text = table((_("setting"), *ids), rows) if rows else _("Their settings are the same.")
    output.result({"runs": ids, "differences": found}, text)
    return DONE


def _stop(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.commands.train import record
    from core.jobs.queue import stop_job

    # An evaluation or export has an id of its own and can be stopped as well.
    job_id = args.id if store.find(args.id) else find_run(store, args.id)
    job = stop_job(workspace, store, job_id, now=args.now)
    if args.now:
        settle(workspace, store)  # without a server it is this process that ends the worker
    told = (
        _("{run} is out of the queue.", run=job.id)
        if job.state == "stopped"
        else _("{run} is stopping.", run=job.id)
    )
    output.result(record(workspace, job), told)
    return DONE


def _resume(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.commands.train import see_through
    from core.rules.command import apply_overrides
    from core.runs.extend import train_longer
    from core.runs.resume import resume_run, resume_with_half

    run_id = find_run(store, args.id)
    workspace = open_for_run(args, run_id)
    if args.overrides or args.checkpoint:
        changes = apply_overrides({}, args.overrides)
        job = train_longer(workspace, store, run_id, changes, checkpoint=args.checkpoint)
        output.say(
            _(
                "{run} goes on from {before} at step {step}.",
                run=job.id,
                before=run_id,
                step=job.step,
            )
        )
    elif args.half_batch:
        job = resume_with_half(workspace, store, run_id)
    else:
        job = resume_run(workspace, store, run_id)
    return see_through(workspace, store, job, output, queue=args.queue)


def _delete(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.runs.records import delete_run

    run_id = find_run(store, args.id)
    if run_id != args.id:
        raise UsageError(_("Deleting takes the whole id: runs delete {run}", run=run_id))
    delete_run(workspace, store, run_id, though_built_on=args.though_built_on)
    output.result({"deleted": run_id}, _("{name} is deleted.", name=run_id))
    return DONE


def _rename(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.commands.train import record
    from core.runs.records import rename_run

    job = rename_run(workspace, store, find_run(store, args.id), args.text)
    output.result(record(workspace, job), _("{run} is called {name}.", run=job.id, name=job.name))
    return DONE


def _note(args: argparse.Namespace, output: Output, workspace: Workspace, store: Store) -> int:
    from core.commands.train import record
    from core.runs.records import note_run

    job = note_run(workspace, store, find_run(store, args.id), args.text)
    output.result(record(workspace, job), _("The note is kept with {run}.", run=job.id))
    return DONE


def _state(run: RunSummary) -> str:
    from core.runs.records import STATE_WORDS

    if run.state == "died" and run.job.signal:
        return _("died (signal {signal})", signal=run.job.signal)
    if run.queue_position:
        return _("queued ({place}.)", place=run.queue_position)
    return str(STATE_WORDS[run.state])


def _record(workspace: Workspace, run: RunSummary) -> dict[str, Any]:
    from core.commands.train import record

    return {
        **record(workspace, run.job),
        "seconds": round(run.duration_seconds, 3),
        "size_bytes": run.size_bytes,
        "resumable": run.resumable,
        "queue_position": run.queue_position,
        "created_at": run.job.created_at,
        "device": run.job.device,
    }


def _config(run: RunSummary) -> RunConfig | None:
    """The run's settings; None when config.yaml cannot be read."""
    from core.errors import ConfigError
    from core.rules import load_config

    try:
        return load_config(run.folder.config)
    except ConfigError:
        return None
