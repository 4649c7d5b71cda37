"""`data prepare` and what belongs to it: steps, versions, data sets put together and taken out."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, pairs, table
from core.language import _

if TYPE_CHECKING:
    from core.data.record import DatasetInfo, StepResult
    from core.data.steps.base import Step

_LISTED = 10


def add(actions: Any, common: argparse.ArgumentParser) -> None:
    """The actions below `data` that change a data set by recorded steps."""
    prepare = actions.add_parser(
        "prepare",
        parents=[common],
        help=_("clean and shape a data set by recorded steps"),
        description=_(
            "Adds steps to those of the data set, or replaces them by those of a YAML file, "
            "and makes a new version of it. `data undo` goes back."
        ),
    )
    prepare.add_argument("id", metavar="ID")
    prepare.add_argument(
        "--step",
        action="append",
        default=[],
        metavar="'OP NAME=VALUE ...'",
        help=_("a step to add, such as 'cap_per_class most=500'; may be repeated"),
    )
    prepare.add_argument(
        "--steps", type=Path, metavar="FILE", help=_("YAML that replaces all steps")
    )
    prepare.add_argument("--note", default="", help=_("what the new version is for"))
    prepare.add_argument(
        "--try", action="store_true", dest="only_try", help=_("only say what the first rows become")
    )
    prepare.set_defaults(run=run_prepare)
    _add_versions(actions, common)

    steps = actions.add_parser("steps", parents=[common], help=_("every kind of step, or one"))
    steps.add_argument("op", nargs="?", metavar="OP")
    steps.set_defaults(run=run_steps)

    export = actions.add_parser(
        "export", parents=[common], help=_("write the rows to a file, or the recipe to YAML")
    )
    export.add_argument("id", metavar="ID")
    export.add_argument("path", type=Path, metavar="FILE", help=_("in .jsonl, .parquet or .yaml"))
    export.add_argument("--part", action="append", default=[], choices=("train", "eval", "test"))
    export.set_defaults(run=run_export)

    combine = actions.add_parser("combine", parents=[common], help=_("put data sets together"))
    combine.add_argument("sets", nargs="+", metavar="ID[:WEIGHT]")
    combine.add_argument("--name")
    combine.add_argument("--seed", type=int, default=42)
    combine.set_defaults(run=run_combine)

    rename = actions.add_parser("rename", parents=[common], help=_("another name or description"))
    rename.add_argument("id", metavar="ID")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("--description")
    rename.set_defaults(run=run_rename)


def _add_versions(actions: Any, common: argparse.ArgumentParser) -> None:
    undo = actions.add_parser("undo", parents=[common], help=_("go back to the version before"))
    undo.add_argument("id", metavar="ID")
    undo.set_defaults(run=run_undo)

    versions = actions.add_parser(
        "versions", parents=[common], help=_("list, choose, prune versions")
    )
    versions.add_argument("id", metavar="ID")
    versions.add_argument(
        "--use", type=int, metavar="N", help=_("make this version the current one")
    )
    versions.add_argument(
        "--prune", action="store_true", help=_("delete those that no waiting run needs")
    )
    versions.set_defaults(run=run_versions)


def run_prepare(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.data.registry import load_dataset_info
    from core.data.steps import parse_steps, read_recipe, with_step
    from core.data.versions import apply_steps, recorded_steps, try_in_order

    if not args.step and not args.steps:
        raise UsageError(_("Name a --step, or a file of --steps. `data steps` lists them."))
    workspace = open_workspace(args)
    added = [read_step(text) for text in args.step]
    if args.only_try:
        # Steps of a file replace all, so they are tried on the rows as they were imported.
        first = parse_steps(read_recipe(args.steps)["steps"]) if args.steps else []
        results = try_in_order(
            workspace,
            args.id,
            [*first, *added],
            imported=bool(args.steps),
            progress=fetch_progress,
        )
        text = "\n\n".join(result_text(result) for result in results)
        output.result({"results": [result.model_dump() for result in results]}, text)
        return DONE
    if args.steps:
        steps = parse_steps(read_recipe(args.steps)["steps"])
    else:
        steps = recorded_steps(load_dataset_info(workspace, args.id))
    for step in added:
        steps = with_step(steps, step)
    info = apply_steps(workspace, args.id, steps, note=args.note, progress=fetch_progress)
    for result in info.steps:
        say_dropped(result, output)
    text = "\n\n".join([_version_text(info), *(result_text(result) for result in info.steps)])
    output.result(_version_record(info), text)
    return DONE


def read_step(text: str) -> Step:
    """A step from `op name=value ...`, values as in YAML. Raises UsageError, ConfigError or
    DataError."""
    import yaml

    from core.data.steps import parse_step

    try:
        op, *settings = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            _("--step {text!r} cannot be read: {error}.", text=text, error=error)
        ) from error
    spec: dict[str, Any] = {"op": op}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(
                _(
                    "--step takes NAME=VALUE after the step's name, not {text!r}.",
                    text=setting,
                )
            )
        try:
            spec[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            spec[name] = value
    return parse_step(spec, op)


def say_dropped(result: StepResult, output: Output) -> None:
    """The first rows that a step dropped, and why it did nothing, on standard error."""
    if result.remark:
        output.say(f"{result.step['op']}: {result.remark}")
    for drop in result.listed[:_LISTED]:
        output.say(
            _(
                "{step}: {part} row {row} dropped: {reason}",
                step=result.step["op"],
                part=drop.part,
                row=drop.index + 1,
                reason=drop.reason,
            )
        )
    if result.dropped > _LISTED:
        n = result.dropped - _LISTED
        output.say(_("{step}: and {n:,} more", step=result.step["op"], n=n))


def result_text(result: StepResult) -> str:
    reasons = sorted(result.reasons.items(), key=lambda item: -item[1])
    return pairs(
        [
            (_("step"), f"{result.step['op']} ({result.title})"),
            (_("rows in"), result.rows_in),
            (_("rows out"), result.rows_out),
            (_("dropped"), result.dropped or None),
            (_("changed"), result.changed or None),
            (_("parts"), ", ".join(f"{part} {rows:,}" for part, rows in result.parts.items())),
            *((_("because"), f"{reason} ({count:,})") for reason, count in reasons[:_LISTED]),
            (_("note"), result.remark),
        ]
    )


def run_steps(args: argparse.Namespace, output: Output) -> int:
    from core.config.fields import field_specs
    from core.data.steps import known_steps, parse_step

    kinds = known_steps()
    if args.op:
        kind = kinds.get(args.op) or type(parse_step({"op": args.op}))
        kinds = {args.op: kind}
    records = []
    lines = []
    for op, kind in kinds.items():
        specs = field_specs(kind)
        fields = [
            {"name": s.path, "allowed": s.allowed, "default": s.default, "help": s.help}
            for s in specs
        ]
        forms = list(kind.forms)
        records.append({"op": op, "title": kind.title, "forms": forms, "fields": fields})
        lines.append(f"{op}: {kind.about()}")
        if args.op:
            lines += [f"  {s.path} ({s.allowed}; {s.default!r}): {s.help}" for s in specs]
    output.result({"steps": records}, "\n".join(lines))
    return DONE


def run_undo(args: argparse.Namespace, output: Output) -> int:
    from core.data.versions import undo

    info = undo(open_workspace(args), args.id)
    output.result(_version_record(info), _version_text(info))
    return DONE


def run_versions(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import load_dataset_info
    from core.data.versions import prune_versions, use_version
    from core.jobs.store import Store

    workspace = open_workspace(args)
    if args.use is not None:
        use_version(workspace, args.id, args.use)
    pruned = prune_versions(workspace, args.id, Store.open(workspace)) if args.prune else []
    info = load_dataset_info(workspace, args.id)
    rows = [
        (
            "*" if one.number == info.version else "",
            one.number,
            one.created_at[:16].replace("T", " "),
            one.counts.train,
            one.counts.eval,
            one.counts.test,
            ", ".join(result.step["op"] for result in one.steps) or "-",
            one.note,
        )
        for one in info.versions
    ]
    titles = (
        *("", _("VERSION"), _("MADE"), _("TRAIN"), _("HELD OUT"), _("TEST"), _("STEPS"), _("NOTE")),
    )
    data = {
        "dataset": info.id,
        "version": info.version,
        "versions": [one.model_dump(exclude={"steps"}) for one in info.versions],
        "pruned": pruned,
    }
    output.result(data, table(titles, rows) if rows else _("It has one version."))
    return DONE


def run_export(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.data.registry import export_rows, load_dataset_info
    from core.data.steps import write_recipe
    from core.data.versions import recipe_of
    from core.workspace import write_atomic

    workspace = open_workspace(args)
    if args.path.suffix in (".yaml", ".yml"):
        write_atomic(args.path, write_recipe(recipe_of(load_dataset_info(workspace, args.id))))
        output.result({"path": str(args.path)}, _("The recipe is in {path}.", path=args.path))
        return DONE
    count = export_rows(workspace, args.id, args.path, parts=args.part, progress=fetch_progress)
    output.result(
        {"path": str(args.path), "rows": count},
        _("{rows:,} rows are in {path}.", rows=count, path=args.path),
    )
    return DONE


def run_combine(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.data.combine import combine_datasets

    weighted = [_weighted(text) for text in args.sets]
    info = combine_datasets(
        open_workspace(args), weighted, name=args.name, seed=args.seed, progress=fetch_progress
    )
    output.result(_version_record(info), _version_text(info))
    return DONE


def _weighted(text: str) -> tuple[str, float]:
    dataset_id, colon, weight = text.partition(":")
    try:
        return dataset_id, float(weight) if colon else 1.0
    except ValueError as error:
        raise UsageError(
            _("{text!r} has no number after the colon, such as tickets:0.5.", text=text)
        ) from error


def run_rename(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import rename_dataset

    info = rename_dataset(open_workspace(args), args.id, args.name, args.description)
    output.result(
        {"dataset": info.id, "name": info.name},
        _("{data} is now called {name}.", data=info.id, name=info.name),
    )
    return DONE


def _version_record(info: DatasetInfo) -> dict[str, Any]:
    kept = {"id", "name", "form", "version", "counts", "fingerprint", "labels", "steps"}
    return {"dataset": info.id, **info.model_dump(include=kept)}


def _version_text(info: DatasetInfo) -> str:
    labels = ", ".join(f"{name} {count:,}" for name, count in info.labels.items())
    return pairs(
        [
            (_("data set"), info.id),
            (_("version"), info.version),
            (_("training rows"), info.counts.train),
            (_("held-out rows"), info.counts.eval),
            (_("test rows"), info.counts.test or None),
            (_("labels"), labels),
        ]
    )
