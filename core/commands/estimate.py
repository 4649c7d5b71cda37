"""`estimate`: what a run would be, whether it fits, and how long it takes, without starting it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, pairs, spell_bytes, spell_seconds
from core.language import _

if TYPE_CHECKING:
    from pathlib import Path

    from core.config import RunConfig
    from core.estimate.changes import Change
    from core.estimate.pace import Pace
    from core.estimate.plan import RunEstimate
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "estimate",
        parents=[common],
        help=_("tell what a run would be, whether it fits and how long it takes"),
        description=_(
            "Rows, tokens and steps of a run, its memory part by part, what would make it "
            "fit, and its time, without starting it. Every setting is an option: "
            "--training.max_length 256."
        ),
        usage="%(prog)s CONFIG|PRESET [--section.field VALUE ...] [--tokens] [--trial] "
        "[--device-memory SIZE]",
    )
    parser.add_argument("config", metavar="CONFIG|PRESET", help=_("a YAML file or a preset's name"))
    parser.add_argument(
        "--tokens",
        action="store_true",
        help=_("count the tokens too (takes the model's tokenizer)"),
    )
    parser.add_argument(
        "--trial",
        action="store_true",
        help=_("train two steps on the longest rows to measure time and memory; nothing is kept"),
    )
    parser.add_argument(
        "--device-memory",
        metavar="SIZE",
        help=_("ask for a GPU with so much memory, such as 24GB, that need not be here"),
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.train import read_config
    from core.config.run import as_run
    from core.estimate.changes import changes_that_fit
    from core.estimate.plan import estimate_run, imagined
    from core.estimate.summary import step_text, summarize
    from core.models.hardware import probe

    config = read_config(open_workspace(args), args.config, args.overrides)
    name = config.model.model_name_or_path
    workspace = open_workspace(args, name)
    hardware = imagined(probe(), args.device_memory) if args.device_memory else probe()
    counts = _token_counts(workspace, config) if args.tokens or args.trial else None
    summary = summarize(workspace, config, counts)
    model = _folder(workspace, name)
    estimate = estimate_run(model, config, hardware, rows=summary.train_rows, token_counts=counts)
    changes = changes_that_fit(estimate)
    trial = _trial(workspace, config, output) if args.trial else None
    pace = _pace(workspace, estimate, trial)
    seconds = _seconds(estimate, pace, counts)
    known = summary.to_dict()
    if estimate.memory:
        known["memory_bytes"] = estimate.memory.total
    known["seconds"] = seconds
    record = {
        **known,
        **estimate.to_dict(),
        "changes": [change.to_dict() for change in changes],
        "pace": pace.to_dict() if pace else None,
        "trial": trial,
    }
    step = step_text(estimate.config or as_run(config))
    parts = [_plan_text(summary, step), *_memory_text(estimate, changes), _time_text(pace, seconds)]
    if trial:
        parts.append(
            _(
                "The trial took {size} of memory at most.",
                size=spell_bytes(trial["memory_bytes"]),
            )
        )
    parts += [
        _("Note: {warning}", warning=warning) for warning in (*summary.refused, *summary.warnings)
    ]
    output.result(record, "\n".join(parts))
    return DONE


def _folder(workspace: Workspace, name: str) -> Path | None:
    from core.errors import TunesmithError
    from core.models.location import local_model

    try:
        return local_model(workspace, name)
    except TunesmithError:
        return None  # the summary says why


def _plan_text(summary: Any, step: str) -> str:
    share = f" ({summary.trainable_share:.2%})" if summary.trainable_share is not None else ""
    parameters = _count(summary.parameters or None, exact=summary.parameters_exact)
    return pairs(
        [
            (_("base"), summary.base),
            (_("parameters"), parameters),
            (_("trained"), f"{summary.trainable:,}{share}" if summary.trainable else None),
            (_("training rows"), _count(summary.train_rows)),
            (_("held-out rows"), _count(summary.eval_rows)),
            (_("tokens in a pass"), _count(summary.tokens)),
            (_("steps"), _count(summary.steps, exact=summary.steps_exact)),
            (_("rows a step"), step or None),
        ]
    )


def _count(number: int | None, *, exact: bool = True) -> str | None:
    if number is None or exact:
        return None if number is None else f"{number:,}"
    return _("about {n:,}", n=number)


def _memory_text(estimate: RunEstimate, changes: list[Change]) -> list[str]:
    """The parts, whether they fit, and what would help."""
    memory = estimate.memory
    if memory is None:
        return [_("Memory: {why}.", why=estimate.why_not)]
    told = {
        "size": spell_bytes(memory.total),
        "free": spell_bytes(memory.free_bytes or 0),
        "device": estimate.device.name,
    }
    rows = [(f"  {_(name)}", spell_bytes(size)) for name, size in memory.parts.items()]
    lines = [
        _("Memory: fits, {size} of {free} free on {device}", **told)
        if memory.fits
        else _("Memory: does not fit, {size} of {free} free on {device}", **told),
        pairs(rows),
    ]
    if estimate.chosen:
        said = ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in estimate.chosen)
        lines.append(_("On auto: {settings}", settings=said))
    if memory.batch and memory.batch.is_assumed:
        lines.append(_("Each row is taken to be as long as it may be; --tokens counts them."))
    if memory.doubt:
        lines.append(_("Less sure: {why}.", why=memory.doubt))
    if changes and not changes[0].fits:
        lines.append(_("Nothing makes it fit here; the smallest is:"))
    elif changes:
        lines.append(_("Any of these makes it fit:"))
    for change in changes:
        options = " ".join(f"--{path} {value}" for path, value in change.settings.items())
        size = spell_bytes(change.total)
        told = {"change": change.title, "size": size, "costs": change.costs}
        lines.append(f"  {_('{change}: {size}. {costs}', **told)}\n    {options}")
    return lines


def _time_text(pace: Pace | None, seconds: float | None) -> str:
    if pace is None:
        return _("Time: not known; --trial tries two steps.")
    speed = _("{n:,.0f} tokens a second, {origin}", n=pace.tokens_per_second, origin=pace.origin)
    if seconds is None:
        return _("Time: {speed}; --tokens counts how many there are.", speed=speed)
    return _("Time: about {time} of training ({speed})", time=spell_seconds(seconds), speed=speed)


def _pace(workspace: Workspace, estimate: RunEstimate, trial: dict[str, Any] | None) -> Pace | None:
    from core.estimate.pace import Pace, pace_from_runs
    from core.jobs.store import Store

    if trial:
        return Pace(trial["tokens_per_second"], _("from a trial of two steps"), True)
    if estimate.config is None:
        return None
    store = Store.open(workspace)
    return pace_from_runs(workspace, store, estimate.config, estimate.device.kind)


def _seconds(
    estimate: RunEstimate, pace: Pace | None, counts: dict[str, Any] | None
) -> float | None:
    from core.estimate.pace import seconds_of

    if pace is None or estimate.config is None:
        return None
    return seconds_of(estimate.config, pace, counts)


def _trial(workspace: Workspace, config: RunConfig, output: Output) -> dict[str, Any]:
    from core.commands.follow import fetch_progress
    from core.estimate.pace import try_run
    from core.models.location import ensure_model

    ensure_model(config.model.model_name_or_path, workspace, fetch_progress)
    said: set[str] = set()

    def tell(share: float, message: str) -> None:
        if message not in said:
            said.add(message)
            output.say(f"{message} ...")

    return try_run(workspace, config, tell)


def _token_counts(workspace: Workspace, config: RunConfig) -> dict[str, Any]:
    from core.commands.follow import fetch_progress
    from core.jobs.pool import Pool
    from core.models.location import ensure_model
    from core.tokens.lens import Lens

    ensure_model(config.model.model_name_or_path, workspace, fetch_progress)
    pool = Pool(workspace.root)
    try:
        asked = pool.submit(
            "core.worker.tokenizers:token_counts",
            workspace,
            config.data.dataset,
            Lens.of(config),
            within=None,  # all rows, and Ctrl-C ends it
        )
        counts: dict[str, Any] = asked.result()
    finally:
        pool.close()
    return counts
