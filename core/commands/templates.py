"""`templates`: the chat templates of the workspace; `data tokens`: rows as a model sees them."""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path
from typing import Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, FAILED, Output, UsageError, table
from core.language import _

_PARTS = ("train", "eval", "test")


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "templates", help=_("list, show, check, save, delete chat templates")
    )
    actions = parser.add_subparsers(title=_("actions"), metavar="ACTION", required=True)

    listing = actions.add_parser("list", parents=[common], help=_("every chat template"))
    listing.set_defaults(run=run_list)

    show = actions.add_parser("show", parents=[common], help=_("print one"))
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=run_show)

    check = actions.add_parser(
        "check", parents=[common], help=_("what is wrong with a file, if so")
    )
    check.add_argument("file", metavar="FILE", type=Path)
    check.set_defaults(run=run_check)

    save = actions.add_parser("save", parents=[common], help=_("keep a file as an own template"))
    save.add_argument("name", metavar="NAME")
    save.add_argument("file", metavar="FILE", type=Path)
    save.set_defaults(run=run_save)

    delete = actions.add_parser("delete", parents=[common], help=_("delete one of your own"))
    delete.add_argument("name", metavar="NAME")
    delete.set_defaults(run=run_delete)


def add_tokens(actions: Any, common: argparse.ArgumentParser) -> None:
    """The action below `data`."""
    tokens = actions.add_parser(
        "tokens",
        parents=[common],
        help=_("rows as a model sees them, and what of them is learned"),
        description=_(
            "Renders rows with a chat template and cuts them as a run would. Each line is "
            "read, learned (it carries loss) or cut off."
        ),
    )
    tokens.add_argument("id", metavar="ID")
    tokens.add_argument("--part", choices=_PARTS, default="train")
    tokens.add_argument("--row", type=int, default=1, metavar="N", help=_("first row (1)"))
    tokens.add_argument("--rows", type=int, default=1, metavar="N", help=_("how many (1)"))
    tokens.add_argument("--model", metavar="MODEL", help=_("whose tokenizer (else the starter's)"))
    tokens.add_argument("--max-length", type=int, metavar="TOKENS", help=_("where rows are cut"))
    template = tokens.add_mutually_exclusive_group()
    template.add_argument("--chat-template", default="model", metavar="NAME")
    template.add_argument("--template-file", type=Path, metavar="FILE", help=_("one not saved yet"))
    tokens.add_argument(
        "--system-prompt", default="", metavar="TEXT", help=_("for rows without one")
    )
    add_learn(tokens)
    tokens.set_defaults(run=run_tokens)


def add_learn(parser: argparse.ArgumentParser) -> None:
    """Options for what of a conversation is learned, as in a run's settings."""
    parser.add_argument(
        "--learn",
        default="answers",
        metavar="TURNS",
        help=_(
            "what is learned, as data.learn: answers, last_answer, marked or everything (answers)"
        ),
    )
    parser.add_argument(
        "--learn-thoughts",
        default="all",
        metavar="THOUGHTS",
        help=_("what of thoughts, as data.learn_thoughts: all, not_empty or none (all)"),
    )
    parser.add_argument(
        "--whole-conversation",
        action="store_const",
        const="everything",
        dest="learn",
        help=_("learn from the questions too: --learn everything"),
    )


def learned(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_learn`'s options say, for a Lens. Raises ConfigError."""
    from core.config import checked_fields

    given = {"data.learn": args.learn, "data.learn_thoughts": args.learn_thoughts}
    data = checked_fields(given).data
    return {"learn": data.learn, "learn_thoughts": data.learn_thoughts}


def run_list(args: argparse.Namespace, output: Output) -> int:
    from core.tokens.chat_templates import list_templates

    found = list_templates(open_workspace(args))
    records = [{"name": one.name, "title": one.title, "source": one.source} for one in found]
    rows = [(one.name, one.source, one.title) for one in found]
    output.result({"templates": records}, table((_("NAME"), "", _("TITLE")), rows))
    return DONE


def run_show(args: argparse.Namespace, output: Output) -> int:
    from core.tokens.chat_templates import load_template

    text = load_template(args.name, open_workspace(args))
    output.result({"name": args.name, "text": text}, text.rstrip("\n"))
    return DONE


def run_check(args: argparse.Namespace, output: Output) -> int:
    from core.tokens.chat_templates import check_template, template_remarks

    text = _read(args.file)
    problem = check_template(text)
    if problem is None:
        remarks = template_remarks(text)
        sound = {"ok": True, "line": None, "message": None, "remarks": remarks}
        output.result(sound, "\n".join([_("The template is fit."), *remarks]))
        return DONE
    record = {"ok": False, "line": problem.line, "message": problem.message}
    output.result(record, str(problem))
    return FAILED


def run_save(args: argparse.Namespace, output: Output) -> int:
    from core.tokens.chat_templates import save_template

    saved = save_template(open_workspace(args), args.name, _read(args.file))
    output.result(
        {"name": saved.name, "title": saved.title},
        _("Saved. Use it with --data.chat_template {name}.", name=saved.name),
    )
    return DONE


def run_delete(args: argparse.Namespace, output: Output) -> int:
    from core.tokens.chat_templates import delete_template

    delete_template(open_workspace(args), args.name)
    output.result({"deleted": args.name}, _("{name} is deleted.", name=args.name))
    return DONE


def run_tokens(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.config import RunConfig
    from core.data.registry import load_dataset_info
    from core.data.rowfile import count_rows
    from core.errors import DataError
    from core.jobs.limits import SHORT, limited
    from core.jobs.process import named
    from core.models.location import ensure_model
    from core.tokens.chat_templates import check_template
    from core.tokens.lens import Lens

    if args.row < 1 or args.rows < 1:
        raise UsageError(_("Rows are counted from 1."), _("Give --row and --rows of at least 1."))
    defaults = RunConfig()
    name = args.model or defaults.model.model_name_or_path
    workspace = open_workspace(args, name)
    template = _read(args.template_file) if args.template_file else ""
    problem = check_template(template) if template else None
    if problem:
        raise DataError(
            _("The template cannot be used. {problem}", problem=problem),
            _("Change it at that place."),
        )
    ensure_model(name, workspace, fetch_progress)
    info = load_dataset_info(workspace, args.id)
    count = count_rows(info.rows_path(args.part))
    if args.row > count:
        raise DataError(
            _(
                "The {part} part of {name} has no row {row:,}.",
                part=args.part,
                name=info.name,
                row=args.row,
            ),
            _("It has {count:,}.", count=count),
        )
    indices = list(range(args.row - 1, min(args.row - 1 + args.rows, count)))
    # Here and not in a worker: this process ends with the answer, and a fork server would take
    # longer to start than the tokenizer takes to load.
    lens = Lens(
        name,
        args.max_length or defaults.training.max_length,
        system_prompt=args.system_prompt,
        chat_template=args.chat_template,
        **learned(args),
    )
    named("core.worker.tokenizers:open_tokenizer")(workspace, lens, template)
    with limited(SHORT):  # as in the page: the model's own template may be without end, too
        seen = named("core.worker.tokenizers:preview_rows")(
            workspace, args.id, lens, args.part, indices, template
        )
    text = "\n\n".join(
        f"{_('Row {n}', n=index + 1)}\n{_row_text(row)}"
        for index, row in zip(indices, seen, strict=True)
    )
    output.result({"rows": seen}, text)
    return DONE


def _row_text(row: dict[str, Any]) -> str:
    lines: list[str] = []
    for side in row["sides"]:
        lines.append(
            _(
                "{side}: {tokens:,} tokens, {learned:,} learned",
                side=side["title"] or _("Row"),
                tokens=side["full_length"],
                learned=side["loss_tokens"],
            )
        )
        for learned, tokens in groupby(side["tokens"], key=lambda token: token[2]):
            lines.append(_stretch(_("learned") if learned else _("read"), tokens))
        if side["full_length"] > side["length"]:
            lines.append(_stretch(_("cut off"), side["cut_tokens"]))
    if row["label"]:
        lines.append(_("Label: {label}", label=row["label"]))
    if row["answer"]:
        lines.append(_("Reference answer: {answer}", answer=row["answer"]))
    lines += [_("Note: {note}", note=note) for note in row["notes"]]
    if row["error"]:
        lines.append(_("Not learned from: {error}", error=row["error"]))
    return "\n".join(lines)


def _stretch(what: str, tokens: Any) -> str:
    from wcwidth import ljust

    text = "".join(token[0] for token in tokens).replace("\n", "↵")
    return f"  {ljust(what, 8)} {text}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            _("{path} cannot be read: {error}.", path=path, error=error), _("Give a text file.")
        ) from error
