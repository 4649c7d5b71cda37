"""`evaluate`: measures a run on its held-out rows, against its base."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import Output, UsageError, table
from core.errors import DataError
from core.language import _, n_

if TYPE_CHECKING:
    from core.evaluation.report import Report
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "evaluate",
        parents=[common],
        help=_("measure a run on its held-out rows, against its base"),
        description=_("Loss, perplexity and, where the task has fields, the share of right ones."),
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    parser.add_argument(
        "--max-rows",
        "--limit",
        type=int,
        metavar="N",
        help=_("only so many rows; with --tasks the first of each task"),
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help=_("longest answer (else half as long again as the longest expected one)"),
    )
    parser.add_argument("--no-base", action="store_true", help=_("leave the base model out"))
    _add_rows(parser.add_mutually_exclusive_group())
    _add_tasks(parser)
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="MODEL",
        help=_(
            "another model on the same rows, as often as you like: run:ID, run:ID@checkpoint-40, "
            "model:FOLDER, gguf:FILE, endpoint:MODEL"
        ),
    )
    parser.add_argument(
        "--pattern", metavar="REGEX", help=_("what a right answer contains, as its own number")
    )
    parser.add_argument(
        "--no-general", action="store_true", help=_("leave the general prompts out")
    )
    parser.add_argument(
        "--judge",
        metavar="MODEL",
        help=_(
            "a model that compares the answers, in both orders: one of --against's names, or a "
            "model of the endpoint in the environment"
        ),
    )
    parser.add_argument("--rubric", metavar="TEXT", help=_("what counts for the judge"))
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help=_("also write the report there, by its ending: .html, .md, .json, .jsonl (the rows)"),
    )
    parser.set_defaults(run=run)


def _add_rows(rows: Any) -> None:
    rows.add_argument("--dataset", metavar="ID", help=_("the rows of another data set"))
    rows.add_argument(
        "--file", metavar="FILE", help=_("the rows of a file, which becomes a data set")
    )
    rows.add_argument(
        "--benchmark",
        metavar="FILE",
        help=_(
            "the questions of a file: with choices, the most probable one counts, else the answer"
        ),
    )
    rows.add_argument(
        "--tasks",
        metavar="NAME[,NAME]",
        help=_("tasks of lm-eval by name, such as arc_easy,gsm8k"),
    )


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    """What lm-eval takes beside the names of tasks, called as there."""
    parser.add_argument(
        "--include", metavar="FOLDER", help=_("a folder with tasks of your own, as YAML")
    )
    parser.add_argument(
        "--num-fewshot",
        type=int,
        metavar="N",
        help=_("examples before each question of a task (else each task's own number)"),
    )
    parser.add_argument(
        "--apply-chat-template",
        action="store_true",
        help=_("ask the tasks through the model's chat template"),
    )


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.evaluation.document import ENDINGS, write_document
    from core.evaluation.report import read_report
    from core.evaluation.verdict import shown
    from core.jobs.store import Store
    from core.runs.submit import submit_evaluation

    if args.report is not None and args.report.suffix not in ENDINGS:
        raise UsageError(_("--report takes a file that ends in {names}.", names=", ".join(ENDINGS)))
    if any(number is not None and number < 1 for number in (args.max_rows, args.max_new_tokens)):
        raise UsageError(_("--max-rows and --max-new-tokens are at least 1."))
    of_tasks = args.include, args.num_fewshot, args.apply_chat_template or None
    if args.tasks is None and any(one is not None for one in of_tasks):
        raise UsageError(
            _("--include, --num-fewshot and --apply-chat-template need the names: --tasks NAME.")
        )
    store = Store.open(open_workspace(args))
    run_id = find_run(store, args.run_id)
    others = [*args.against, *filter(None, [args.judge])]
    named = [target.partition(":")[2] for target in others]
    workspace = open_for_run(args, run_id, args.file, args.benchmark, args.include, *named)
    params = _params(args)
    params["dataset"] = args.dataset or _imported(workspace, args.file, output)
    job = submit_evaluation(workspace, store, run_id, params)
    job, _result = follow(workspace, store, job, output)
    say_end(job, output)
    folder = workspace.root / job.folder
    report = read_report(folder)
    if report and args.report is not None:
        write_document(folder, args.report)
        output.say(_("Written: {file}", file=args.report))
    data = {
        "evaluation": job.id,
        "run": job.run_id,
        "state": job.state,
        "error": job.error,
        "folder": str(folder),
        "result": shown(report) if report else None,
    }
    output.result(data, report_text(report) if report else "")
    return exit_code(job)


def _params(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of the job, but for the data set."""
    from core.evaluation.lm_eval_tasks import parse_tasks

    tasks = parse_tasks(args.tasks or "")
    if args.tasks is not None and not tasks:
        raise UsageError(_("--tasks takes names with commas between them, such as arc_easy,gsm8k."))
    return {
        "checkpoint": args.checkpoint,
        "max_rows": args.max_rows,
        "max_new_tokens": args.max_new_tokens,
        "compare_base": not args.no_base,
        "against": args.against,
        "pattern": args.pattern,
        "general": not args.no_general,
        "judge": args.judge,
        "rubric": args.rubric,
        "benchmark": args.benchmark,
        "tasks": tasks,
        "include": args.include,
        "num_fewshot": args.num_fewshot,
        "apply_chat_template": args.apply_chat_template,
    }


def _imported(workspace: Workspace, file: str | None, output: Output) -> str | None:
    """The data set that a file becomes, all of it to be measured."""
    if file is None:
        return None
    from core.commands.follow import fetch_progress
    from core.data.prepare import import_dataset

    if not Path(file).expanduser().exists():
        raise DataError(_("{path} does not exist.", path=file), _("Check the spelling."))
    info = import_dataset(workspace, [Path(file)], eval_fraction=0.0, progress=fetch_progress)
    output.say(_("{file} is the data set {id} now.", file=file, id=info.id))
    return info.id


def report_text(report: Report) -> str:
    """The verdict, and below it base and tuned model side by side."""
    from core.evaluation.general import AREAS
    from core.evaluation.metrics import METRICS
    from core.evaluation.verdict import notes, verdict

    sides = [report.base or {}, *(other.numbers for other in report.others), report.tuned]
    rows = []
    for key in METRICS:
        number = report.tuned.get(key)
        if isinstance(number, dict):
            for name in number:
                what = _("{name} right", name=name) if key == "fields" else name
                what = _("reward {name}", name=name) if key == "rewards" else what
                found = [side.get(key) for side in sides]
                parts = [one.get(name) if isinstance(one, dict) else None for one in found]
                rows.append((what, *map(_value, parts)))
        elif number is not None:
            rows.append((key.replace("_", " "), *(_value(side.get(key)) for side in sides)))
    for skill in report.general:
        others = [_NONE] * len(report.others)
        base = _NONE if skill.base is None else f"{skill.base}/{skill.prompts}"
        what = f"{_(AREAS.get(skill.area, skill.area))} ({skill.language})"
        rows.append((what, base, *others, f"{skill.tuned}/{skill.prompts}"))
    titles = (
        n_("{n} row", "{n} rows", report.rows),
        _("BASE"),
        *(other.title for other in report.others),
        _("TUNED"),
    )
    told = [_("Note: {note}", note=note) for note in notes(report)]
    return "\n".join([verdict(report), "", table(titles, rows), *told])


_NONE = "-"


def _value(number: object) -> str:
    """A number with its 95 % interval, where it has one."""
    from core.evaluation.intervals import Estimate

    if not isinstance(number, Estimate):
        return _NONE
    if number.low is None or number.high is None:
        return f"{number.value:.4g}"
    return _(
        "{value:.4g} ({low:.4g} to {high:.4g})",
        value=number.value,
        low=number.low,
        high=number.high,
    )
