"""`export`: what a run trained, in a form to take away, checked."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import DONE, Output, UsageError, pairs, spell_bytes, table
from core.export.combine import WAYS, Way
from core.export.formats import format_names, formats
from core.export.package import write_zip
from core.export.unfinished import delete_unfinished, unfinished_bytes
from core.language import _

if TYPE_CHECKING:
    from core.jobs.store import Store


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "export",
        parents=[common],
        help=_("write what a run trained, checked"),
        description=_(
            "Writes the model with a README. It is then opened by what it is meant for and must "
            "answer as base and adapter do together, and not as the base alone. One that was "
            "stopped or killed goes on when it is asked for again with the same settings."
        ),
        epilog=_(
            "GPTQ and AWQ are not among the forms: they need packages of their own (GPTQModel, "
            "llm-compressor) and a GPU. Make them from the merged model."
        ),
    )
    parser.add_argument("run_id", metavar="RUN")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--format", choices=format_names())
    what.add_argument(
        "--delete-unfinished",
        action="store_true",
        help=_("write nothing; delete what stopped and killed exports of the run left"),
    )
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    for option in {one.name: one for form in formats().values() for one in form.options}.values():
        of = ", ".join(form.name for form in formats().values() if option in form.options)
        names = [name for name, _title in option.choices]
        parser.add_argument(
            f"--{option.name}",
            nargs="+",
            choices=names,
            metavar=option.name.upper(),
            help=_(
                "of {formats}: {names} ({default})",
                formats=of,
                names=", ".join(names),
                default=", ".join(option.default),
            ),
        )
    _add_combining(parser)
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help=_("copy it to this new folder, or file.zip")
    )
    parser.set_defaults(run=run)


def _add_combining(parser: argparse.ArgumentParser) -> None:
    defaults = Way()
    parser.add_argument(
        "--with",
        dest="others",
        nargs="+",
        default=[],
        metavar="RUN[@CHECKPOINT]=WEIGHT",
        help=_("take in the LoRA adapters of other runs on the same base, each by its weight"),
    )
    parser.add_argument(
        "--weight",
        type=float,
        default=defaults.weight,
        help=_("with --with: the weight of RUN itself (%(default)s)"),
    )
    parser.add_argument(
        "--combine",
        choices=WAYS,
        default=defaults.combination_type,
        metavar="WAY",
        help=_("with --with: {names} (%(default)s)", names=", ".join(WAYS)),
    )
    parser.add_argument(
        "--density",
        type=float,
        default=defaults.density,
        help=_("with ties, dare and magnitude_prune: the share that is kept (%(default)s)"),
    )


def _combination(args: argparse.Namespace, store: Store) -> dict[str, Any] | None:
    from core.commands.runs import find_run

    if not args.others:
        return None
    others = []
    for text in args.others:
        name, _sign, weight = text.rpartition("=")
        run_id, _at, checkpoint = name.partition("@")
        try:
            share: dict[str, Any] = {"weight": float(weight)}
        except ValueError:
            run_id = ""
        if not run_id:
            raise UsageError(
                _("{text} is no RUN=WEIGHT or RUN@CHECKPOINT=WEIGHT.", text=repr(text)),
                _("Write such as: --with quiet-otter=0.5"),
            )
        share["run"] = find_run(store, run_id)
        others.append({**share, **({"checkpoint": checkpoint} if checkpoint else {})})
    way = {"weight": args.weight, "combination_type": args.combine, "density": args.density}
    return {**way, "others": others}


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
    run_folder = workspace.run(run_id).root
    if args.delete_unfinished:
        size = delete_unfinished(run_folder)
        told = _("Deleted {size} of unfinished exports.", size=spell_bytes(size))
        output.result({"run": run_id, "deleted_bytes": size}, told)
        return DONE
    params = {"format": args.format, "checkpoint": args.checkpoint}
    params |= {one.name: getattr(args, one.name) for one in formats()[args.format].options}
    params["combination"] = _combination(args, store)
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
        "unfinished_bytes": unfinished_bytes(run_folder),
    }
    if job.state == "finished":
        data["folder"] = str(folder / result["path"])
        if args.output is not None:
            data["output"] = str(_copy(data, args.output.expanduser()))
    output.result(data, "\n\n".join(filter(None, [_text(data) if result else "", _left(data)])))
    return exit_code(job)


def _left(data: dict[str, Any]) -> str:
    if not data["unfinished_bytes"]:
        return ""
    return _(
        "Unfinished exports of this run take {size}. The next one of the same settings goes on "
        "from them; to delete them: export {run} --delete-unfinished",
        size=spell_bytes(data["unfinished_bytes"]),
        run=data["run"],
    )


def _copy(data: dict[str, Any], place: Path) -> Path:
    """Copies the folder to where it was asked for, as a zip if its name says so."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix == ".zip":
        write_zip(Path(data["folder"]), place)
    else:
        shutil.copytree(data["folder"], place)
    return place.resolve()


def _text(data: dict[str, Any]) -> str:
    result = data["result"]
    checks = [
        (str(check["name"]), f"{_('yes') if check['ok'] else _('NO')}, {check['detail']}")
        for check in result["checks"]
    ]
    others = (result.get("combination") or {}).get("others", [])
    combined = ", ".join(f"{one['run']} ({one['weight']:g})" for one in others)
    told = pairs(
        [
            (_("format"), result["format"]),
            (_("combined with"), combined),
            (_("size"), spell_bytes(result["size_bytes"])),
            *checks,
            (_("folder"), data.get("folder")),
            (_("copied to"), data.get("output")),
        ]
    )
    return "\n\n".join(filter(None, [told, _table(result)]))


def _table(result: dict[str, Any]) -> str:
    """What was measured of each model in the export, under the trained model and its base."""
    has_fields = any(one.get("fields_right") is not None for one in result["parts"])
    heads = [_("file"), _("size"), _("load s"), _("tokens/s"), _("perplexity")]
    heads += [_("fields right")] * has_fields
    rows = [
        [one["file"] or result["format"], _("failed, see above")]
        if one["error"]
        else [
            one["file"] or result["format"],
            spell_bytes(one["size_bytes"]),
            f"{one['load_seconds']:.1f}",
            _number(one["tokens_per_second"]),
            _number(one["perplexity"]),
            "" if one.get("fields_right") is None else f"{100 * one['fields_right']:.1f} %",
        ]
        for one in result["parts"]
    ]
    if result["perplexity"] is not None:
        rows += [
            [_("(trained)"), "", "", "", _number(result["perplexity"])],
            [_("(base)"), "", "", "", _number(result["base_perplexity"])],
        ]
    rows = [[*row, *[""] * len(heads)][: len(heads)] for row in rows]
    return table(heads, rows) if rows else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
