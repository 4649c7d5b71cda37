"""`data`: bring files in, look at them, delete them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, pairs, table

if TYPE_CHECKING:
    from core.data.registry import DatasetInfo

# Named here so that the help needs no imports; a test holds them against core.data.formats.
FORMS = ("text", "prompt-completion", "instruction", "messages", "sharegpt")
# How many rows and how many problems a person is shown.
_SHOWN = 3
_LISTED = 10


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("data", help="import, inspect, list, delete data sets")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    bring = actions.add_parser(
        "import",
        parents=[common],
        help="prepare files as a data set",
        description="Reads JSON, JSONL, CSV or Parquet, brings the rows into one form, splits off "
        "held-out rows, and says which rows cannot be used and why.",
    )
    bring.add_argument("sources", nargs="+", metavar="SOURCE", type=Path)
    bring.add_argument("--name", help="name of the data set (else the file's)")
    bring.add_argument("--form", choices=FORMS, help="form of the rows, if it is not detected")
    _add_map(bring)
    bring.add_argument(
        "--eval-fraction", type=float, default=0.1, metavar="F", help="share held out (%(default)s)"
    )
    bring.add_argument("--eval-file", type=Path, metavar="FILE", help="held-out rows of their own")
    bring.add_argument("--seed", type=int, default=42, help="of the split (%(default)s)")
    bring.add_argument(
        "--system-prompt", default="", metavar="TEXT", help="for rows that have none"
    )
    bring.set_defaults(run=run_import)

    inspect = actions.add_parser(
        "inspect", parents=[common], help="what a data set or a file holds, row by row"
    )
    inspect.add_argument("id", metavar="ID|FILE")
    inspect.add_argument("--form", choices=FORMS, help="read a file as this form")
    _add_map(inspect)
    inspect.add_argument("--rows", type=int, default=_SHOWN, metavar="N", help="rows to show")
    inspect.set_defaults(run=run_inspect)

    listing = actions.add_parser("list", parents=[common], help="every data set")
    listing.set_defaults(run=run_list)

    delete = actions.add_parser("delete", parents=[common], help="delete a data set")
    delete.add_argument("id", metavar="ID")
    delete.set_defaults(run=run_delete)


def _add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="which column holds which field, such as prompt=question; may be repeated",
    )


def run_import(args: argparse.Namespace, output: Output) -> int:
    from core.commands.progress import fetch_progress
    from core.data.prepare import import_dataset

    if not 0 <= args.eval_fraction < 1:
        raise UsageError("--eval-fraction is a share from 0 to below 1, such as 0.1.")
    info = import_dataset(
        open_workspace(args, *args.sources, args.eval_file),
        args.sources,
        name=args.name,
        form=args.form,
        mapping=_mapping(args.map),
        eval_source=args.eval_file,
        eval_fraction=args.eval_fraction,
        seed=args.seed,
        system_prompt=args.system_prompt,
        progress=fetch_progress,
    )
    _say_dropped(info, output)
    output.result(_record(info), _text(info))
    return DONE


def run_inspect(args: argparse.Namespace, output: Output) -> int:
    path = Path(args.id)
    if path.is_file():
        return _inspect_file(args, path, output)
    from core.data.registry import load_dataset_info, read_rows

    workspace = open_workspace(args)
    info = load_dataset_info(workspace, args.id)
    rows = read_rows(workspace, info.id, "train", 0, args.rows)
    text = "\n\n".join([_text(info), *(_row_text(row) for row in rows)])
    output.result({**_record(info), "dropped": _dropped(info), "rows": rows}, text)
    return DONE


def _inspect_file(args: argparse.Namespace, path: Path, output: Output) -> int:
    import dataclasses

    from core.data.sources import inspect_source

    mapping = _mapping(args.map)
    report = inspect_source(path, form=args.form, mapping=mapping, limit=max(args.rows, 1))
    rows = report.rows[: args.rows]
    text = pairs(
        [
            ("file", path),
            ("format", report.format),
            ("rows", report.total_rows),
            ("columns", ", ".join(report.columns)),
            ("form", report.form or "not recognised"),
            ("because", report.form_reason),
            ("to do", report.hint),
            ("mapping", ", ".join(f"{a}={b}" for a, b in report.mapping.items())),
        ]
    )
    for problem in report.problems[:_LISTED]:
        output.say(f"Line {problem['line']} would be dropped: {problem['reason']}")
    if report.problem_count > _LISTED:
        output.say(f"and {report.problem_count - _LISTED} more")
    data = {**dataclasses.asdict(report), "path": str(path), "rows": rows}
    output.result(data, "\n\n".join([text, *(_row_text(row) for row in rows)]))
    return DONE


def run_list(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import list_datasets

    infos = list_datasets(open_workspace(args))
    rows = [(i.id, i.name, i.form, i.counts.train, i.counts.eval, i.counts.dropped) for i in infos]
    titles = ("ID", "NAME", "FORM", "TRAIN", "HELD OUT", "DROPPED")
    text = table(titles, rows) if rows else "There are none yet. Bring one: data import FILE"
    output.result({"datasets": [_record(info) for info in infos]}, text)
    return DONE


def run_delete(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import delete_dataset

    delete_dataset(open_workspace(args), args.id)
    output.result({"deleted": args.id}, f"{args.id} is deleted.")
    return DONE


def _mapping(texts: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for text in texts:
        field, equals, column = text.partition("=")
        if not (field and equals and column):
            raise UsageError(f"--map takes FIELD=COLUMN, such as prompt=question, not {text!r}.")
        found[field] = column
    return found or None


def _record(info: DatasetInfo) -> dict[str, Any]:
    return {"dataset": info.id, **info.model_dump(mode="json", exclude={"dropped", "task"})}


def _dropped(info: DatasetInfo) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json") for row in info.dropped]


def _say_dropped(info: DatasetInfo, output: Output) -> None:
    for row in info.dropped[:_LISTED]:
        output.say(f"Dropped: line {row.line}: {row.reason}")
    more = info.counts.dropped - min(len(info.dropped), _LISTED)
    if more > 0:
        output.say(f"and {more} more, all in dataset.json")


def _text(info: DatasetInfo) -> str:
    return pairs(
        [
            ("data set", info.id),
            ("name", info.name),
            ("form", f"{info.form} ({info.form_reason})" if info.form_reason else info.form),
            ("training rows", info.counts.train),
            ("held-out rows", info.counts.eval),
            ("dropped rows", info.counts.dropped or None),
            ("from", ", ".join(source.file for source in info.sources)),
        ]
    )


def _row_text(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, indent=2, default=str)
