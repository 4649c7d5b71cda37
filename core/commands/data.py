"""`data`: bring files in, look at them, count them, delete them; and what the commands below `data`
share: how columns are named, and how a data set is told of."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands import data_drafts, data_steps, templates
from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, pairs, spell_bytes, table
from core.errors import DataError
from core.language import _
from core.workspace import checked_id

if TYPE_CHECKING:
    from core.data.record import DatasetInfo


_PARTS = ("train", "eval", "test")
_SHOWN = 3


# Named here so that the help needs no imports; a test holds them against core.data.forms.
FORMS = (
    *("text", "prompt-completion", "instruction", "messages", "sharegpt", "preference"),
    *("unpaired-preference", "prompt-only", "labelled-text"),
)

LISTED = 10
"""How many dropped rows a person is shown."""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("data", help=_("import, inspect, prepare, list, export data sets"))
    actions = parser.add_subparsers(title=_("actions"), metavar="ACTION", required=True)

    bring = actions.add_parser(
        "import",
        parents=[common],
        help=_("prepare files as a data set"),
        description=_(
            "Reads files, folders, archives or Hub data sets (hf:owner/name?split=train), "
            "brings the rows into one form, splits off held-out rows, and says which rows "
            "cannot be used and why."
        ),
    )
    bring.add_argument("sources", nargs="+", metavar="SOURCE")
    bring.add_argument("--name", help=_("name of the data set (else the file's)"))
    bring.add_argument("--form", choices=FORMS, help=_("form of the rows, if it is not detected"))
    add_map(bring)
    bring.add_argument(
        "--eval-fraction",
        type=float,
        default=0.1,
        metavar="F",
        help=_("share held out (%(default)s)"),
    )
    bring.add_argument(
        "--test-fraction", type=float, default=0.0, metavar="F", help=_("share kept for a test")
    )
    bring.add_argument("--eval-file", metavar="FILE", help=_("held-out rows of their own"))
    bring.add_argument(
        "--recipe", type=Path, metavar="FILE", help=_("YAML of form, mapping and steps to use")
    )
    bring.add_argument("--saved-mapping", metavar="NAME", help=_("a mapping that was saved"))
    bring.add_argument("--save-mapping", metavar="NAME", help=_("save the mapping under this name"))
    bring.add_argument("--seed", type=int, default=42, help=_("of the split (%(default)s)"))
    bring.add_argument(
        "--system-prompt", default="", metavar="TEXT", help=_("for rows that have none")
    )
    bring.set_defaults(run=run_import)

    _add_looks(actions, common)
    _add_words(actions, common)

    listing = actions.add_parser("list", parents=[common], help=_("every data set"))
    listing.set_defaults(run=run_list)

    delete = actions.add_parser("delete", parents=[common], help=_("delete a data set"))
    delete.add_argument("id", metavar="ID")
    delete.set_defaults(run=run_delete)

    mappings = actions.add_parser("mappings", parents=[common], help=_("saved mappings of columns"))
    mappings.add_argument("--delete", metavar="NAME", help=_("delete one, then list the others"))
    mappings.set_defaults(run=run_mappings)

    data_steps.add(actions, common)
    templates.add_tokens(actions, common)
    data_drafts.add(actions, common)


def run_import(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.data.mappings import load_mapping, save_mapping
    from core.data.prepare import import_dataset
    from core.data.steps import parse_steps, read_recipe
    from core.data.turn_keys import unused_text

    for option, share in (
        ("--eval-fraction", args.eval_fraction),
        ("--test-fraction", args.test_fraction),
    ):
        if not 0 <= share < 1:
            raise UsageError(
                _("{option} is a share from 0 to below 1, such as 0.1.", option=option)
            )
    mapping = read_map(args.map) or {}
    for source in (*args.sources, args.eval_file):
        if source and not source.startswith("hf:") and not Path(source).expanduser().exists():
            raise DataError(_("{path} does not exist.", path=source), _("Check the spelling."))
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
    for warning in warnings(info):
        output.say(_("Warning: {warning}", warning=warning))
    say_dropped(info, output)
    if info.unused_keys:
        output.say(unused_text(info.unused_keys))
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
    titles = (
        "ID",
        *(_("NAME"), _("FORM"), _("TRAIN"), _("HELD OUT"), _("VERSION"), _("SIZE")),
    )
    text = table(titles, rows) if rows else _("There are none yet. Bring one: data import FILE")
    for _name, reason in damaged:
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
    output.result({"deleted": args.id}, _("{name} is deleted.", name=args.id))
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
            rows.append((found.name, _("damaged"), found.problem))
    titles = (_("NAME"), _("FORM"), _("COLUMNS"))
    text = table(titles, rows) if rows else _("There are no saved mappings.")
    output.result({"mappings": records}, text)
    return DONE


def _add_looks(actions: Any, common: argparse.ArgumentParser) -> None:
    """The actions below `data` that only look."""
    inspect = actions.add_parser(
        "inspect", parents=[common], help=_("what a data set or a source holds, row by row")
    )
    inspect.add_argument(
        "id", metavar="ID|SOURCE", help=_("a data set, file, folder, hf:owner/name")
    )
    inspect.add_argument("--form", choices=FORMS, help=_("read a source as this form"))
    add_map(inspect)
    inspect.add_argument("--part", choices=_PARTS, default="train")
    inspect.add_argument("--row", type=int, default=1, metavar="N", help=_("first row (1)"))
    inspect.add_argument("--rows", type=int, default=_SHOWN, metavar="N", help=_("rows to show"))
    inspect.set_defaults(run=run_inspect)

    statistics = actions.add_parser(
        "statistics",
        parents=[common],
        help=_("lengths in tokens, labels, languages, duplicates"),
        description=_("Counts the rows to learn with a model's own tokenizer."),
    )
    statistics.add_argument("id", metavar="ID")
    statistics.add_argument(
        "--model", metavar="MODEL", help=_("whose tokenizer (else the starter's)")
    )
    statistics.add_argument(
        "--max-length", type=int, metavar="TOKENS", help=_("where rows are cut")
    )
    statistics.add_argument("--chat-template", default="", metavar="NAME")
    statistics.add_argument("--rows", type=int, metavar="N", help=_("look at so many (else all)"))
    templates.add_learn(statistics)
    statistics.set_defaults(run=run_statistics)


def run_inspect(args: argparse.Namespace, output: Output) -> int:
    from core.data.registry import list_datasets, load_dataset_info, read_rows

    path = Path(args.id)
    if args.id.startswith("hf:") or path.is_file():
        return _inspect_source(args, output)
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise DataError(
            _("{path} does not exist.", path=args.id), _("Check the spelling of the path.")
        )
    workspace = open_workspace(args)
    if path.is_dir() and args.id not in {info.id for info in list_datasets(workspace)}:
        return _inspect_source(args, output)
    info = load_dataset_info(workspace, args.id)
    rows = read_rows(workspace, info.id, args.part, max(args.row - 1, 0), args.rows)
    text = "\n\n".join([info_text(info), *(row_text(row) for row in rows)])
    output.result({**record(info), "dropped": dropped_rows(info), "rows": rows}, text)
    return DONE


def _inspect_source(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.data.inspection import inspect_source
    from core.data.turn_keys import unused_text

    report = inspect_source(
        args.id,
        form=args.form,
        mapping=read_map(args.map),
        limit=max(args.rows, 1),
        workspace=open_workspace(args, args.id),
        progress=fetch_progress,
    )
    rows = report.rows[: args.rows]
    within = _("{format} in {container}", format=report.format, container=report.container)
    text = pairs(
        [
            (_("source"), args.id),
            (_("format"), within if report.container else report.format),
            (_("encoding"), report.encoding),
            (_("files"), len(report.files) if len(report.files) > 1 else None),
            (_("rows"), report.total_rows),
            (_("columns"), ", ".join(report.columns)),
            (_("form"), report.form or _("not recognised")),
            (_("because"), report.form_reason),
            (_("to do"), report.hint),
            (_("mapping"), ", ".join(f"{a}={b}" for a, b in report.mapping.items())),
        ]
    )
    for warning in report.warnings:
        output.say(_("Warning: {warning}", warning=warning))
    for left_out in report.skipped[:LISTED]:
        output.say(_("Left out: {what}", what=left_out))
    for problem in report.problems[:LISTED]:
        output.say(
            _("{file}, line {line} would be dropped: {reason}", **problem)
            if len(report.files) > 1
            else _("Line {line} would be dropped: {reason}", **problem)
        )
    if report.problem_count > LISTED:
        output.say(_("and {n:,} more", n=report.problem_count - LISTED))
    if report.unused_keys:
        output.say(unused_text(report.unused_keys))
    data = {**dataclasses.asdict(report), "path": args.id, "rows": rows}
    output.result(data, "\n\n".join([text, *(row_text(row) for row in rows)]))
    return DONE


def run_statistics(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.config import RunConfig
    from core.jobs.process import named
    from core.models.location import ensure_model
    from core.tokens.lens import Lens

    for option, number in (("--max-length", args.max_length), ("--rows", args.rows)):
        if number is not None and number < 1:
            raise UsageError(_("{option} is a number of at least 1.", option=option))
    defaults = RunConfig()
    name = args.model or defaults.model.model_name_or_path
    workspace = open_workspace(args, name)
    ensure_model(name, workspace, fetch_progress)
    max_length = args.max_length or defaults.training.max_length
    # Here and not in a worker: this process ends with the answer.
    found = named("core.worker.tokenizers:dataset_statistics")(
        workspace,
        args.id,
        Lens(name, max_length, chat_template=args.chat_template, **templates.learned(args)),
        max_rows=args.rows,
        progress=lambda fraction: fetch_progress(fraction, _("Counting")),
    )
    alike = about_alike(args.id, dict(found["labels"]))
    if alike:
        output.say(_("Warning: {warning}", warning=alike))
    told = {"dataset": args.id, "model": name, **found, "warnings": [alike] if alike else []}
    output.result(told, _statistics_text(name, found))
    return DONE


def _statistics_text(model: str, found: dict[str, Any]) -> str:
    from core.tokens.thoughts import taken_out

    lengths = [
        (_("{what} tokens", what=what), _percentiles(told["percentiles"]))
        for what, told in found["lengths"].items()
    ]
    suggested = found.get("suggested") or {}
    repeated = found.get("duplicates")
    cut = {name: found[name] for name in ("cut_rows", "cut_tokens")}
    rows: list[tuple[str, Any]] = [
        (_("model"), model),
        (_("rows"), _("{done:,} of {total:,}", done=found["rows"], total=found["rows_total"])),
        *lengths,
        (_("cut"), _("{cut_rows:,} rows lose {cut_tokens:,} tokens", **cut)),
        (_("an epoch"), _("{n:,} tokens", n=found["epoch"]["tokens"])),
        (_("nothing learned"), found["rows_without_loss"] or None),
        (_("thoughts"), taken_out(*found["lost_thoughts"]) or None),
        (_("repeated rows"), repeated or None),
        (_("labels"), _counted(found["labels"])),
        (_("languages"), _counted(found["languages"])),
        (_("turns"), _counted(found["turns"])),
        ("max_length", f"{suggested['value']}: {suggested['reason']}" if suggested else None),
    ]
    return pairs(rows)


def _percentiles(found: dict[str, float]) -> str:
    return ", ".join(f"{name}: {value:,.0f}" for name, value in found.items())


def _counted(found: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in found[:LISTED])


def _add_words(actions: Any, common: argparse.ArgumentParser) -> None:
    words = actions.add_parser(
        "words",
        parents=[common],
        help=_("words that the model's tokenizer breaks into many pieces"),
        description=_(
            "Lists frequent words of the rows to learn that the model's tokenizer breaks "
            "into many pieces, and what a token of their own would save. Give them to a run "
            "with --vocabulary.new_tokens."
        ),
    )
    words.add_argument("id", metavar="ID")
    words.add_argument("--model", metavar="MODEL", help=_("whose tokenizer (else the starter's)"))
    words.add_argument("--most", type=int, default=20, metavar="N", help=_("list so many (20)"))
    words.add_argument(
        "--min-count", type=int, default=5, metavar="N", help=_("only words that come so often (5)")
    )
    words.add_argument(
        "--min-pieces", type=int, default=3, metavar="N", help=_("only words of so many tokens (3)")
    )
    words.set_defaults(run=run_words)


def run_words(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.config import RunConfig
    from core.jobs.process import named
    from core.models.location import ensure_model

    for option in ("most", "min_count", "min_pieces"):
        if getattr(args, option) < 1:
            raise UsageError(
                _("{option} is a number of at least 1.", option=f"--{option.replace('_', '-')}")
            )
    name = args.model or RunConfig().model.model_name_or_path
    workspace = open_workspace(args, name)
    ensure_model(name, workspace, fetch_progress)
    # Here and not in a worker: this process ends with the answer.
    found = named("core.worker.tokenizers:fragmented_words")(
        workspace,
        args.id,
        name,
        most=args.most,
        min_count=args.min_count,
        min_pieces=args.min_pieces,
        progress=lambda share: fetch_progress(share, _("Counting words")),
    )
    rows = [
        (
            one["word"],
            one["count"],
            f"{one['pieces']}: {' '.join(one['split'])}",
            one["saved"],
        )
        for one in found["words"]
    ]
    text = table((_("word"), _("times"), _("tokens now"), _("tokens saved")), rows)
    if not rows:
        text = _("No word that comes often enough falls into so many pieces.")
    output.result({"dataset": args.id, "model": name, **found}, text)
    return DONE


def add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help=_("which column holds which field, such as prompt=question; may be repeated"),
    )


def read_map(texts: list[str]) -> dict[str, str] | None:
    """The mapping in `--map` options. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        field, equals, column = text.partition("=")
        if not (field and equals and column):
            raise UsageError(
                _("--map takes FIELD=COLUMN, such as prompt=question, not {text!r}.", text=text)
            )
        found[field] = column
    return found or None


def record(info: DatasetInfo) -> dict[str, Any]:
    told = info.model_dump(exclude={"dropped", "task"})
    return {"dataset": info.id, **told, "warnings": warnings(info)}


def warnings(info: DatasetInfo) -> list[str]:
    """What the import left out that matters, and labels that are as good as the same."""
    alike = about_alike(info.id, info.labels)
    return [*info.warnings, *([alike] if alike else [])]


def about_alike(dataset: str, labels: Mapping[str, int]) -> str:
    """A remark on labels that are as good as the same, with the command that merges them."""
    import yaml

    from core.data.steps.labels import about_alike, merging

    step = merging(labels)
    if step is None:
        return ""
    names = yaml.safe_dump(step.names, default_flow_style=True, allow_unicode=True, width=10**9)
    spec = f"{step.op} names={shlex.quote(names.strip())}"
    quoted = shlex.quote(spec) if set(spec) & set('"$`\\!') else f'"{spec}"'
    command = f"data prepare {dataset} --step {quoted}"
    return _("{alike} Merge them: {command}", alike=about_alike(labels), command=command)


def dropped_rows(info: DatasetInfo) -> list[dict[str, Any]]:
    return [row.model_dump() for row in info.dropped]


def say_dropped(info: DatasetInfo, output: Output) -> None:
    for row in info.dropped[:LISTED]:
        told = {"line": row.line, "reason": row.reason}
        output.say(
            _("Dropped: {file}, line {line}: {reason}", file=row.file, **told)
            if len(info.sources) > 1
            else _("Dropped: line {line}: {reason}", **told)
        )
    more = info.counts.dropped - min(len(info.dropped), LISTED)
    if more > 0:
        output.say(
            _(
                "and {n:,} more; dataset.json lists {listed:,} of them",
                n=more,
                listed=len(info.dropped),
            )
        )


def info_text(info: DatasetInfo) -> str:
    return pairs(
        [
            (_("data set"), info.id),
            (_("name"), info.name),
            (_("form"), f"{info.form} ({info.form_reason})" if info.form_reason else info.form),
            (_("training rows"), info.counts.train),
            (_("held-out rows"), info.counts.eval),
            (_("test rows"), info.counts.test or None),
            (_("dropped rows"), info.counts.dropped or None),
            (_("not used in turns"), _counted(list(info.unused_keys.items()))),
            (_("from"), ", ".join(source.file for source in info.sources)),
        ]
    )


def row_text(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, indent=2, default=str)
