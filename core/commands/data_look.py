"""`data inspect` and `data statistics`: what a file or a data set holds."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from core.commands.data_records import (
    FORMS,
    LISTED,
    add_map,
    dropped_rows,
    info_text,
    read_map,
    record,
    row_text,
)
from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, pairs
from core.errors import DataError

_PARTS = ("train", "eval", "test")
_SHOWN = 3


def add(actions: Any, common: argparse.ArgumentParser) -> None:
    """The actions below `data` that only look."""
    inspect = actions.add_parser(
        "inspect", parents=[common], help="what a data set or a source holds, row by row"
    )
    inspect.add_argument("id", metavar="ID|SOURCE", help="a data set, file, folder, hf:owner/name")
    inspect.add_argument("--form", choices=FORMS, help="read a source as this form")
    add_map(inspect)
    inspect.add_argument("--part", choices=_PARTS, default="train")
    inspect.add_argument("--row", type=int, default=1, metavar="N", help="first row (1)")
    inspect.add_argument("--rows", type=int, default=_SHOWN, metavar="N", help="rows to show")
    inspect.set_defaults(run=run_inspect)

    statistics = actions.add_parser(
        "statistics",
        parents=[common],
        help="lengths in tokens, labels, languages, duplicates",
        description="Counts the rows to learn with a model's own tokenizer.",
    )
    statistics.add_argument("id", metavar="ID")
    statistics.add_argument("--model", metavar="MODEL", help="whose tokenizer (else the starter's)")
    statistics.add_argument("--max-length", type=int, metavar="TOKENS", help="where rows are cut")
    statistics.add_argument("--chat-template", default="", metavar="NAME")
    statistics.add_argument("--rows", type=int, metavar="N", help="look at so many (else all)")
    statistics.set_defaults(run=run_statistics)


def run_inspect(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import list_datasets, load_dataset_info, read_rows

    path = Path(args.id)
    if args.id.startswith("hf:") or path.is_file():
        return _inspect_source(args, output)
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise DataError(f"{args.id} does not exist.", "Check the spelling of the path.")
    workspace = open_workspace(args)
    if path.is_dir() and args.id not in {info.id for info in list_datasets(workspace)}:
        return _inspect_source(args, output)
    info = load_dataset_info(workspace, args.id)
    rows = read_rows(workspace, info.id, args.part, max(args.row - 1, 0), args.rows)
    text = "\n\n".join([info_text(info), *(row_text(row) for row in rows)])
    output.result({**record(info), "dropped": dropped_rows(info), "rows": rows}, text)
    return DONE


def _inspect_source(args: argparse.Namespace, output: Output) -> int:
    from core.commands.progress import fetch_progress
    from core.data.inspection import inspect_source

    report = inspect_source(
        args.id,
        form=args.form,
        mapping=read_map(args.map),
        limit=max(args.rows, 1),
        workspace=open_workspace(args, args.id),
        progress=fetch_progress,
    )
    rows = report.rows[: args.rows]
    text = pairs(
        [
            ("source", args.id),
            ("format", " in ".join(part for part in (report.format, report.container) if part)),
            ("encoding", report.encoding),
            ("files", len(report.files) if len(report.files) > 1 else None),
            ("rows", report.total_rows),
            ("columns", ", ".join(report.columns)),
            ("form", report.form or "not recognised"),
            ("because", report.form_reason),
            ("to do", report.hint),
            ("mapping", ", ".join(f"{a}={b}" for a, b in report.mapping.items())),
        ]
    )
    for left_out in report.skipped[:LISTED]:
        output.say(f"Left out: {left_out}")
    for problem in report.problems[:LISTED]:
        file = f"{problem['file']}, line" if len(report.files) > 1 else "Line"
        output.say(f"{file} {problem['line']} would be dropped: {problem['reason']}")
    if report.problem_count > LISTED:
        output.say(f"and {report.problem_count - LISTED} more")
    data = {**dataclasses.asdict(report), "path": args.id, "rows": rows}
    output.result(data, "\n\n".join([text, *(row_text(row) for row in rows)]))
    return DONE


def run_statistics(args: argparse.Namespace, output: Output) -> int:
    from core.commands.progress import fetch_progress
    from core.config import RunConfig
    from core.jobs.process import named
    from core.models.location import ensure_model
    from core.tokens.lens import Lens

    for option, number in (("--max-length", args.max_length), ("--rows", args.rows)):
        if number is not None and number < 1:
            raise UsageError(f"{option} is a number of at least 1.")
    defaults = RunConfig()
    name = args.model or defaults.model.model_name_or_path
    workspace = open_workspace(args, name)
    ensure_model(name, workspace, fetch_progress)
    max_length = args.max_length or defaults.training.max_length
    # Here and not in a worker: this process ends with the answer.
    found = named("core.worker.tokenizers:dataset_statistics")(
        workspace,
        args.id,
        Lens(name, max_length, chat_template=args.chat_template),
        max_rows=args.rows,
        progress=lambda fraction: fetch_progress(fraction, "Counting"),
    )
    output.result({"dataset": args.id, "model": name, **found}, _statistics_text(name, found))
    return DONE


def _statistics_text(model: str, found: dict[str, Any]) -> str:
    lengths = [
        (f"{what} tokens", _percentiles(told["percentiles"]))
        for what, told in found["lengths"].items()
    ]
    suggested = found.get("suggested") or {}
    repeated = found.get("duplicates")
    rows: list[tuple[str, Any]] = [
        ("model", model),
        ("rows", f"{found['rows']:,} of {found['rows_total']:,}"),
        *lengths,
        ("cut", f"{found['cut_rows']:,} rows lose {found['cut_tokens']:,} tokens"),
        ("an epoch", f"{found['epoch']['tokens']:,} tokens"),
        ("nothing learned", found["rows_without_loss"] or None),
        ("repeated rows", repeated or None),
        ("labels", _counted(found["labels"])),
        ("languages", _counted(found["languages"])),
        ("turns", _counted(found["turns"])),
        ("max_length", f"{suggested['value']}: {suggested['reason']}" if suggested else None),
    ]
    return pairs(rows)


def _percentiles(found: dict[str, float]) -> str:
    return ", ".join(f"{name}: {value:,.0f}" for name, value in found.items())


def _counted(found: list[list[Any]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in found[:LISTED])
