"""`data`: bring files in, look at them, delete them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.commands import data_look, data_steps, data_words, generate, templates
from core.commands.data_records import FORMS, add_map, info_text, read_map, record, say_dropped
from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, spell_bytes, table
from core.errors import DataError
from core.workspace import checked_id


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("data", help="import, inspect, prepare, list, export data sets")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    bring = actions.add_parser(
        "import",
        parents=[common],
        help="prepare files as a data set",
        description="Reads files, folders, archives or Hub data sets (hf:owner/name?split=train), "
        "brings the rows into one form, splits off held-out rows, and says which rows cannot be "
        "used and why.",
    )
    bring.add_argument("sources", nargs="+", metavar="SOURCE")
    bring.add_argument("--name", help="name of the data set (else the file's)")
    bring.add_argument("--form", choices=FORMS, help="form of the rows, if it is not detected")
    add_map(bring)
    bring.add_argument(
        "--eval-fraction", type=float, default=0.1, metavar="F", help="share held out (%(default)s)"
    )
    bring.add_argument(
        "--test-fraction", type=float, default=0.0, metavar="F", help="share kept for a test"
    )
    bring.add_argument("--eval-file", metavar="FILE", help="held-out rows of their own")
    bring.add_argument(
        "--recipe", type=Path, metavar="FILE", help="YAML of form, mapping and steps to use"
    )
    bring.add_argument("--saved-mapping", metavar="NAME", help="a mapping that was saved")
    bring.add_argument("--save-mapping", metavar="NAME", help="save the mapping under this name")
    bring.add_argument("--seed", type=int, default=42, help="of the split (%(default)s)")
    bring.add_argument(
        "--system-prompt", default="", metavar="TEXT", help="for rows that have none"
    )
    bring.set_defaults(run=run_import)

    data_look.add(actions, common)
    data_words.add(actions, common)

    listing = actions.add_parser("list", parents=[common], help="every data set")
    listing.set_defaults(run=run_list)

    delete = actions.add_parser("delete", parents=[common], help="delete a data set")
    delete.add_argument("id", metavar="ID")
    delete.set_defaults(run=run_delete)

    mappings = actions.add_parser("mappings", parents=[common], help="saved mappings of columns")
    mappings.add_argument("--delete", metavar="NAME", help="delete one, then list the others")
    mappings.set_defaults(run=run_mappings)

    data_steps.add(actions, common)
    templates.add_tokens(actions, common)
    generate.add(actions, common)


def run_import(args: argparse.Namespace, output: Output) -> int:
    from core.commands.progress import fetch_progress
    from core.data.mappings import load_mapping, save_mapping
    from core.data.prepare import import_dataset
    from core.data.steps import parse_steps, read_recipe

    for option, share in (
        ("--eval-fraction", args.eval_fraction),
        ("--test-fraction", args.test_fraction),
    ):
        if not 0 <= share < 1:
            raise UsageError(f"{option} is a share from 0 to below 1, such as 0.1.")
    mapping = read_map(args.map) or {}
    for source in (*args.sources, args.eval_file):
        if source and not source.startswith("hf:") and not Path(source).expanduser().exists():
            raise DataError(f"{source} does not exist.", "Check the spelling.")
    if args.save_mapping:
        checked_id(args.save_mapping)  # before the work, not after it
    workspace = open_workspace(args, *args.sources, args.eval_file)
    recipe = read_recipe(args.recipe) if args.recipe else {}
    if args.saved_mapping:
        saved = load_mapping(workspace, args.saved_mapping)
        recipe = {**saved.model_dump(include={"form", "mapping", "system_prompt"}), **recipe}
    info = import_dataset(
        workspace,
        args.sources,
        name=args.name,
        form=args.form or recipe.get("form"),
        mapping={**recipe.get("mapping", {}), **mapping} or None,
        eval_source=args.eval_file,
        eval_fraction=args.eval_fraction,
        test_fraction=args.test_fraction,
        seed=args.seed,
        system_prompt=args.system_prompt or recipe.get("system_prompt", ""),
        steps=parse_steps(recipe.get("steps", [])),
        progress=fetch_progress,
    )
    if args.save_mapping:
        save_mapping(
            workspace,
            args.save_mapping,
            info.source_form,
            info.mapping,
            info.system_prompt,
            info.columns,
        )
    say_dropped(info, output)
    for result in info.steps:
        data_steps.say_dropped(result, output)
    output.result(record(info), info_text(info))
    return DONE


def run_list(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import damaged_datasets, list_datasets

    workspace = open_workspace(args)
    infos, damaged = list_datasets(workspace), damaged_datasets(workspace)
    rows = [
        (
            info.id,
            info.name,
            info.form,
            info.counts.train,
            info.counts.eval,
            info.version,
            spell_bytes(info.size_bytes()),
        )
        for info in infos
    ]
    titles = ("ID", "NAME", "FORM", "TRAIN", "HELD OUT", "VERSION", "SIZE")
    text = table(titles, rows) if rows else "There are none yet. Bring one: data import FILE"
    for _, reason in damaged:
        output.say(reason)
    output.result(
        {
            "datasets": [record(info) for info in infos],
            "damaged": [{"dataset": name, "reason": reason} for name, reason in damaged],
        },
        text,
    )
    return DONE


def run_delete(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import delete_dataset
    from core.jobs.store import Store

    workspace = open_workspace(args)
    delete_dataset(workspace, args.id, Store.open(workspace))
    output.result({"deleted": args.id}, f"{args.id} is deleted.")
    return DONE


def run_mappings(args: argparse.Namespace, output: Output) -> int:
    from core.data.mappings import SavedMapping, delete_mapping, list_mappings

    workspace = open_workspace(args)
    if args.delete:
        delete_mapping(workspace, args.delete)
    records, rows = [], []
    for found in list_mappings(workspace):
        if isinstance(found, SavedMapping):
            records.append({**found.model_dump(), "problem": ""})
            columns = ", ".join(f"{a}={b!r}" for a, b in found.mapping.items())
            rows.append((found.name, found.form, columns))
        else:
            records.append({"name": found.name, "problem": found.problem})
            rows.append((found.name, "damaged", found.problem))
    text = table(("NAME", "FORM", "COLUMNS"), rows) if rows else "There are no saved mappings."
    output.result({"mappings": records}, text)
    return DONE
