"""`evaluate`: measures a run on its held-out rows, against its base."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import Output, UsageError, table
from core.language import _, n_

if TYPE_CHECKING:
    from core.evaluation.intervals import Estimate
    from core.evaluation.report import Report


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "evaluate",
        parents=[common],
        help=_("measure a run on its held-out rows, against its base"),
        description=_("Loss, perplexity and, where the task has fields, the share of right ones."),
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    parser.add_argument("--max-rows", type=int, metavar="N", help=_("only so many rows"))
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help=_("longest answer (else half as long again as the longest expected one)"),
    )
    parser.add_argument("--no-base", action="store_true", help=_("leave the base model out"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.evaluation.report import read_report
    from core.evaluation.verdict import shown
    from core.jobs.store import Store
    from core.runs.submit import submit_evaluation

    if any(number is not None and number < 1 for number in (args.max_rows, args.max_new_tokens)):
        raise UsageError(_("--max-rows and --max-new-tokens are at least 1."))
    store = Store.open(open_workspace(args))
    run_id = find_run(store, args.run_id)
    workspace = open_for_run(args, run_id)
    params = {
        "checkpoint": args.checkpoint,
        "max_rows": args.max_rows,
        "max_new_tokens": args.max_new_tokens,
        "compare_base": not args.no_base,
    }
    job = submit_evaluation(workspace, store, run_id, params)
    job, _result = follow(workspace, store, job, output)
    say_end(job, output)
    folder = workspace.root / job.folder
    report = read_report(folder)
    data = {
        "evaluation": job.id,
        "run": job.run_id,
        "state": job.state,
        "error": job.error,
        "folder": str(folder),
        "result": shown(report) if report else None,
    }
    output.result(data, report_text(report) if report else "")
    return exit_code(job)


def report_text(report: Report) -> str:
    """The verdict, and below it base and tuned model side by side."""
    from core.evaluation.metrics import METRICS
    from core.evaluation.verdict import notes, verdict

    rows = []
    for key in METRICS:
        sides = report.number(key, "base"), report.number(key)
        if sides[1] is not None:
            rows.append((key.replace("_", " "), *map(_value, sides)))
        before = report.parts(key, "base")
        for name, number in report.parts(key).items():
            is_field = key == "fields"
            what = _("{name} right", name=name) if is_field else _("reward {name}", name=name)
            rows.append((what, _value(before.get(name)), _value(number)))
    titles = (n_("{n} row", "{n} rows", report.rows), _("BASE"), _("TUNED"))
    told = [_("Note: {note}", note=note) for note in notes(report)]
    return "\n".join([verdict(report), "", table(titles, rows), *told])


def _value(number: Estimate | None) -> str:
    """A number with its 95 % interval, where it has one."""
    if number is None:
        return "-"
    if number.low is None or number.high is None:
        return f"{number.value:.4g}"
    return _(
        "{value:.4g} ({low:.4g} to {high:.4g})",
        value=number.value,
        low=number.low,
        high=number.high,
    )
