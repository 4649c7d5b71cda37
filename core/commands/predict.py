"""`predict`: labels for the texts of a file, from a classifier."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import Output
from core.errors import DataError
from core.language import _, n_


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "predict",
        parents=[common],
        help=_("label the texts of a file or a data set with a classifier"),
        description=_("Each text's labels and the probability of every label, as JSON Lines."),
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument(
        "source", metavar="FILE", help=_("a file of texts, which becomes a data set, or a data set")
    )
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=_("where the lines are written to as well")
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, fetch_progress, follow, say_end
    from core.commands.runs import find_run
    from core.data.prepare import import_dataset
    from core.data.registry import list_datasets
    from core.jobs.store import Store
    from core.labelling.predictions import PREDICTIONS, read_predictions, submit_prediction

    store = Store.open(open_workspace(args))
    run_id = find_run(store, args.run_id)
    workspace = open_for_run(args, run_id, args.source)
    dataset = args.source
    if dataset not in {info.id for info in list_datasets(workspace)}:
        file = Path(args.source)
        if not file.expanduser().exists():
            raise DataError(_("{path} does not exist.", path=file), _("Check the spelling."))
        info = import_dataset(workspace, [file], eval_fraction=0.0, progress=fetch_progress)
        output.say(_("{file} is the data set {id} now.", file=file, id=info.id))
        dataset = info.id
    job = submit_prediction(workspace, store, run_id, dataset, args.checkpoint)
    job, _result = follow(workspace, store, job, output)
    say_end(job, output)
    path = workspace.root / job.folder / PREDICTIONS
    found = read_predictions(path.parent) if path.is_file() else []
    if found and args.output is not None:
        args.output.write_bytes(path.read_bytes())
    data = {"prediction": job.id, "run": run_id, "state": job.state, "error": job.error}
    counted = n_("{n} text labelled: {path}", "{n} texts labelled: {path}", len(found), path=path)
    output.result({**data, "file": str(path), "rows": len(found)}, counted if found else "")
    return exit_code(job)
