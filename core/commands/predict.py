"""`predict`: labels for the texts of a file, from a classifier."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import Output, UsageError
from core.errors import DataError
from core.language import _, n_
from core.workspace import write_atomic


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "predict",
        parents=[common],
        help=_("label the texts of a file or a data set with a classifier"),
        description=_("Each text's labels and the probability of every label, as JSON Lines."),
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument(
        "source", metavar="FILE", help=_("a file of texts, such as JSONL or CSV, or a data set")
    )
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=_("where it is written to as well, as .jsonl or .csv"),
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.data.registry import list_datasets
    from core.jobs.store import Store
    from core.jobs.task import read_result
    from core.labelling.predictions import (
        ENDINGS,
        PREDICTIONS,
        labelled,
        left_out_rows,
        submit_prediction,
    )

    if args.output is not None and args.output.suffix not in ENDINGS:
        raise UsageError(_("--output takes a file that ends in {names}.", names=", ".join(ENDINGS)))
    store = Store.open(open_workspace(args))
    run_id = find_run(store, args.run_id)
    workspace = open_for_run(args, run_id, args.source)
    is_dataset = args.source in {info.id for info in list_datasets(workspace)}
    source = args.source if is_dataset else Path(args.source).expanduser()
    if isinstance(source, Path) and not source.exists():
        raise DataError(_("{path} does not exist.", path=source), _("Check the spelling."))
    job = submit_prediction(workspace, store, run_id, source, args.checkpoint)
    job, _result = follow(workspace, store, job, output)
    say_end(job, output)
    path = workspace.root / job.folder / PREDICTIONS
    result = read_result(path.parent) or {}
    rows, left_out = result.get("rows", 0), result.get("left_out", 0)
    if rows and args.output is not None:
        write_atomic(args.output, labelled(path.parent, args.output.suffix))
    if left_out:
        output.say(left_out_rows(left_out))
    data = {"prediction": job.id, "run": run_id, "state": job.state, "error": job.error}
    counted = n_("{n} text labelled: {path}", "{n} texts labelled: {path}", rows, path=path)
    found = {"file": str(path), "rows": rows, "left_out": left_out}
    output.result({**data, **found}, counted if rows else "")
    return exit_code(job)
