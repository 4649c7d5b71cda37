"""`evaluate`: measures a run on its held-out rows, against its base."""

from __future__ import annotations

import argparse
from typing import Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import Output, UsageError, table


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "evaluate",
        parents=[common],
        help="measure a run on its held-out rows, against its base",
        description="Loss, perplexity and, where the task has fields, the share of right ones.",
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument("--checkpoint", default="final", help="such as checkpoint-40 (%(default)s)")
    parser.add_argument("--max-rows", type=int, metavar="N", help="only so many rows")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="longest answer (else half as long again as the longest expected one)",
    )
    parser.add_argument("--no-base", action="store_true", help="leave the base model out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.jobs.store import Store
    from core.runs.submit import submit_evaluation

    if any(number is not None and number < 1 for number in (args.max_rows, args.max_new_tokens)):
        raise UsageError("--max-rows and --max-new-tokens are at least 1.")
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
    job, result = follow(workspace, store, job, output)
    say_end(job, output)
    data = {
        "evaluation": job.id,
        "run": job.run_id,
        "state": job.state,
        "error": job.error,
        "folder": str(workspace.root / job.folder),
        "result": result or None,
    }
    output.result(data, result_text(result) if result else "")
    return exit_code(job)


def result_text(result: dict[str, Any]) -> str:
    """The verdict, and below it base and tuned model side by side."""
    sides = [result.get("base") or {}, result["tuned"]]
    rows = [
        (name.replace("_", " "), *(_value(side.get(name)) for side in sides))
        for name in sides[1]
        if name not in ("fields", "rewards")
    ]
    for name in sides[1].get("rewards") or {}:
        values = [(side.get("rewards") or {}).get(name) for side in sides]
        rows.append((f"reward {name}", *map(_value, values)))
    for name in sides[1].get("fields") or {}:
        values = [(side.get("fields") or {}).get(name) for side in sides]
        rows.append((f"{name} right", *map(_value, values)))
    notes = [f"Note: {note}" for note in result.get("notes") or []]
    titles = (f"{result['rows']} rows", "BASE", "TUNED")
    return "\n".join([str(result["verdict"]), "", table(titles, rows), *notes])


def _value(number: dict[str, Any] | None) -> str:
    """A number with its 95 % interval, where it has one."""
    if number is None:
        return "-"
    low, high = number.get("low"), number.get("high")
    span = "" if low is None or high is None else f" ({low:.4g} to {high:.4g})"
    return f"{number['value']:.4g}{span}"
