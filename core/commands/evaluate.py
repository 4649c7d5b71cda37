"""`evaluate`: measures a run on its held-out rows, against its base."""

from __future__ import annotations

import argparse
from typing import Any

from core.commands.opening import open_workspace
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
        "--max-new-tokens", type=int, default=128, metavar="N", help="longest answer (%(default)s)"
    )
    parser.add_argument("--no-base", action="store_true", help="leave the base model out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.jobs.store import Store
    from core.jobs.submit import submit_evaluation

    if (args.max_rows is not None and args.max_rows < 1) or args.max_new_tokens < 1:
        raise UsageError("--max-rows and --max-new-tokens are at least 1.")
    workspace = open_workspace(args)
    store = Store.open(workspace)
    params = {
        "checkpoint": args.checkpoint,
        "max_rows": args.max_rows,
        "max_new_tokens": args.max_new_tokens,
        "compare_base": not args.no_base,
    }
    job = submit_evaluation(workspace, store, find_run(store, args.run_id), params)
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
    """The base and the tuned model side by side, and the verdict."""
    base, tuned = result.get("base") or {}, result.get("tuned") or {}
    names = [name for name in {**base, **tuned} if name != "fields"]
    rows = [(_title(name), _value(base.get(name)), _value(tuned.get(name))) for name in names]
    fields = {**(base.get("fields") or {}), **(tuned.get("fields") or {})}
    for name in fields:
        pair = [(side.get("fields") or {}).get(name) for side in (base, tuned)]
        rows.append((f"{name} right", _value(pair[0]), _value(pair[1])))
    lines = [table(("", "BASE", "TUNED"), rows), f"{result.get('rows')} rows"]
    return "\n".join([*lines, str(result.get("verdict") or "")]).strip()


def _title(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    """A number, with its 95 % interval where it has one."""
    if isinstance(value, dict) and "value" in value:
        low, high = value.get("low"), value.get("high")
        span = f" ({low:.3g} to {high:.3g})" if low is not None and high is not None else ""
        return f"{value['value']:.4g}{span}" if value["value"] is not None else "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
