"""`export`: a run's adapter or merged model, checked, as a folder and a zip."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import Output, UsageError, pairs, spell_bytes
from core.export.formats import format_names
from core.language import _


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "export",
        parents=[common],
        help=_("write a run's adapter or merged model, checked"),
        description=_(
            "Writes the model with its tokenizer and a README. A merged model is checked to "
            "answer as base and adapter do together, and not as the base alone."
        ),
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument("--format", required=True, choices=format_names())
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help=_("of the merged weights; auto is the base's (%(default)s)"),
    )
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help=_("copy it to this new folder, or file.zip")
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.jobs.store import Store
    from core.runs.submit import submit_export

    if args.output is not None and args.output.expanduser().exists():
        raise UsageError(_("{path} is there already. Name a new folder or file.", path=args.output))
    store = Store.open(open_workspace(args))
    run_id = find_run(store, args.run_id)
    workspace = open_for_run(args, run_id)
    params = {"format": args.format, "checkpoint": args.checkpoint, "dtype": args.dtype}
    job = submit_export(workspace, store, run_id, params)
    job, result = follow(workspace, store, job, output)
    say_end(job, output)
    folder = workspace.root / job.folder
    data: dict[str, Any] = {
        "export": job.id,
        "run": job.run_id,
        "state": job.state,
        "error": job.error,
        "result": result or None,
    }
    if job.state == "finished":
        data |= {"folder": str(folder / result["path"]), "zip": str(folder / result["zip"])}
        if args.output is not None:
            data["output"] = str(_copy(data, args.output.expanduser()))
    output.result(data, _text(data) if result else "")
    return exit_code(job)


def _copy(data: dict[str, Any], place: Path) -> Path:
    """Copies the zip or the folder to where it was asked for."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix == ".zip":
        shutil.copyfile(data["zip"], place)
    else:
        shutil.copytree(data["folder"], place)
    return place.resolve()


def _text(data: dict[str, Any]) -> str:
    result = data["result"]
    checks = [
        (str(check["name"]), f"{_('yes') if check['ok'] else _('NO')}, {check['detail']}")
        for check in result["checks"]
    ]
    return pairs(
        [
            (_("format"), result["format"]),
            (_("size"), spell_bytes(result["size_bytes"])),
            *checks,
            (_("folder"), data.get("folder")),
            ("zip", data.get("zip")),
            (_("copied to"), data.get("output")),
        ]
    )
