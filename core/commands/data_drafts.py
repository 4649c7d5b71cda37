"""`data generate` and `data drafts`: rows that a model writes, and what a person does with them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, pairs, table
from core.language import N_, _

if TYPE_CHECKING:
    from core.data.drafts.tasks import Draft, DraftTask
    from core.workspace import Workspace


# Named here so that parsing needs no imports; a test holds them against DraftSettings.
SETTINGS = (
    "kind source model rows instruction examples rows_per_request only_label temperature "
    "max_new_tokens requests_per_minute requests_at_once timeout_seconds token_budget input_price "
    "output_price max_cost seed"
).split()
_EMPTY = ("", "none", "empty")
_STATES = {
    "working": N_("working"),
    "stopped": N_("stopped"),
    "finished": N_("finished"),
    "failed": N_("failed"),
}
_STATUSES = {
    "new": N_("new"),
    "accepted": N_("accepted"),
    "rejected": N_("rejected"),
    "taken": N_("taken over"),
}
_SHOWN = 10


def add(actions: Any, common: argparse.ArgumentParser) -> None:
    """The actions below `data`."""
    generate = actions.add_parser(
        "generate",
        parents=[common],
        help=_("let a model write rows, as drafts"),
        description=_(
            "A model writes rows after those of a data set: by an OpenAI-compatible "
            "endpoint, whose URL and key stand in TUNESMITH_OPENAI_BASE_URL and "
            "TUNESMITH_OPENAI_API_KEY (else OPENAI_BASE_URL and OPENAI_API_KEY), or on this "
            "machine. They are drafts: `data drafts` accepts, edits, rejects them and takes "
            "them over."
        ),
        late_epilog=_settings_help,
    )
    generate.add_argument("id", metavar="ID")
    generate.add_argument(
        "--resume", metavar="TASK", help=_("go on with a task, with other limits if they are given")
    )
    for name in SETTINGS:
        option = "--" + name.replace("_", "-")
        generate.add_argument(option, dest=f"setting_{name}", help=argparse.SUPPRESS)
    generate.set_defaults(run=run_generate)

    drafts = actions.add_parser(
        "drafts", parents=[common], help=_("accept, edit or reject drafts, and take them over")
    )
    drafts.add_argument("id", metavar="ID")
    drafts.add_argument("--task", metavar="TASK", help=_("which drafts (else the newest)"))
    drafts.add_argument(
        "--status", choices=("new", "accepted", "rejected", "taken"), help=_("show only these")
    )
    drafts.add_argument("--offset", type=int, default=0, metavar="N", help=_("show from here on"))
    drafts.add_argument("--rows", type=int, default=_SHOWN, metavar="N", help=_("drafts to show"))
    for verb, does in (
        ("accept", _("accept all new ones, or such as 1,4,7-9")),
        ("reject", _("reject all new ones, or such as 1,4,7-9")),
    ):
        drafts.add_argument(f"--{verb}", metavar="all|NUMBERS", help=does)
    drafts.add_argument(
        "--edit", nargs=2, metavar=("NUMBER", "JSON"), help=_("put another row in a draft's place")
    )
    drafts.add_argument(
        "--apply", action="store_true", help=_("take the accepted drafts over into the data set")
    )
    drafts.add_argument("--name", help=_("of the data set, if the drafts become one of their own"))
    drafts.add_argument("--delete", action="store_true", help=_("delete the task and its drafts"))
    drafts.set_defaults(run=run_drafts)


def run_generate(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import fetch_progress
    from core.data.drafts import run, tasks

    given = {name: getattr(args, f"setting_{name}") for name in SETTINGS}
    values = {
        name: None if text.strip().lower() in _EMPTY and name not in _TEXTS else text
        for name, text in given.items()
        if text is not None
    }
    workspace = open_workspace(args, values.get("model") if _is_local(values) else None)
    if args.resume:
        task = tasks.change_task(workspace, args.id, args.resume, values)
    else:
        task = tasks.begin(workspace, args.id, values)
    output.say(
        _("Task {task}, asking {host}", task=task.id, host=task.host)
        if task.host
        else _("Task {task}", task=task.id)
    )
    try:
        task = run.run_drafts(workspace.root, task.dataset, task.id, fetch_progress)
    except BaseException:
        output.say(
            _("To go on: {command}", command=f"data generate {task.dataset} --resume {task.id}")
        )
        raise
    output.result(_record(task), _text(task))
    return DONE


_TEXTS = ("instruction", "only_label", "model")


def _is_local(values: dict[str, Any]) -> bool:
    return values.get("source") == "local"


def run_drafts(args: argparse.Namespace, output: Output) -> int:
    from core.data.drafts import review, tasks

    workspace = open_workspace(args)
    known = tasks.list_tasks(workspace, args.id)
    task_id = args.task or (known[0].id if known else None)
    if task_id is None:
        output.result({"tasks": []}, _("There are no drafts yet. Begin some: data generate ID"))
        return DONE
    if args.delete:
        tasks.delete_task(workspace, args.id, task_id)
        output.result({"deleted": task_id}, _("{name} is deleted.", name=task_id))
        return DONE
    for verb, change in (("accept", review.accept), ("reject", review.reject)):
        text = getattr(args, verb)
        if text is not None:
            change(workspace, args.id, task_id, _ids(text, workspace, args.id, task_id))
    if args.edit:
        number, row = args.edit
        review.edit(workspace, args.id, task_id, _ids(number)[0], _row(row))
    made = None
    if args.apply:
        made = review.add_to_dataset(workspace, args.id, task_id, name=args.name)
    task = tasks.load_task(workspace, args.id, task_id)
    drafts, count = review.read_drafts(
        workspace, args.id, task_id, args.offset, args.rows, args.status
    )
    data = {
        **_record(task),
        "count": count,
        "drafts": [_draft_record(draft) for draft in drafts],
        "tasks": [other.id for other in known],
        "applied_to": made.id if made else None,
    }
    text = _text(task) + ("\n\n" + _table(drafts) if drafts else "")
    if made:
        rows = made.counts.train
        text += "\n\n" + _("Taken over into {data}: {rows} training rows.", data=made.id, rows=rows)
    output.result(data, text)
    return DONE


def _ids(
    text: str, workspace: Workspace | None = None, dataset_id: str = "", task_id: str = ""
) -> list[int]:
    """The drafts that `all` or such as 1,4,7-9 names."""
    if text.strip() == "all" and workspace is not None:
        from core.data.drafts.review import read_drafts

        drafts, _count = read_drafts(workspace, dataset_id, task_id, 0, 10**9, "new")
        return [draft.id for draft in drafts]
    ids: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(
                _("{text!r} names no drafts.", text=text),
                _("Write all, or numbers such as 1,4,7-9."),
            )
        ids += range(int(first), int(last or first) + 1)
    return ids


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise UsageError(
            _("The row is not JSON: {error}.", error=error), _("Quote it for the shell.")
        ) from error
    if not isinstance(row, dict):
        raise UsageError(
            _("The row is no JSON object."), _("Such as {row}.", row='{"text": "..."}')
        )
    return row


def _record(task: DraftTask) -> dict[str, Any]:
    return {"task": task.id, **task.model_dump(mode="json", exclude={"id"})}


def _draft_record(draft: Draft) -> dict[str, Any]:
    return {
        "id": draft.id,
        "status": "taken" if draft.taken else draft.status,
        "edited": draft.edited,
        "seeds": list(draft.seeds),
        "row": draft.row,
    }


def _text(task: DraftTask) -> str:
    tally = task.tally
    cost = None if tally.cost is None or task.settings.source == "local" else f"{tally.cost:.4f}"
    counts = {"read": tally.input_tokens, "written": tally.output_tokens}
    tokens = (
        _("{read} read, {written} written (estimated)", **counts)
        if tally.estimated
        else _("{read} read, {written} written", **counts)
    )
    state = _STATES[task.state]
    return pairs(
        [
            (_("task"), task.id),
            (_("state"), f"{state}: {task.reason}" if task.reason else state),
            (_("drafts"), _("{done} of {total}", done=tally.drafts, total=task.settings.rows)),
            (_("new"), tally.new),
            (_("accepted"), tally.accepted or None),
            (_("rejected"), tally.rejected or None),
            (_("taken over"), tally.taken or None),
            (_("there already"), tally.duplicates or None),
            (_("no rows"), ", ".join(f"{n} x {why}" for why, n in tally.unusable.items())),
            (_("requests"), tally.requests),
            (_("tokens"), tokens),
            (_("cost"), cost),
        ]
    )


def _table(drafts: Sequence[Draft]) -> str:
    from core.data.rowtext import row_text

    lines = []
    for draft in drafts:
        text = " ".join(row_text(draft.row).split())
        label = ", ".join(draft.row.get("labels", []))
        shown = f"[{label}] {text}" if label else text
        status = _STATUSES["taken" if draft.taken else draft.status]
        short = shown if len(shown) <= 80 else shown[:77] + "..."
        lines.append((draft.id, status, short))
    return table(("#", _("STATUS"), _("ROW")), lines)


def _settings_help() -> str:
    from core.config.fields import field_specs
    from core.data.drafts.settings import DraftSettings

    lines: list[str] = [_("settings:")]
    for spec in field_specs(DraftSettings):
        default = _("empty") if spec.default in (None, "") else spec.default
        takes = _("Takes {allowed}. Default: {default}.", allowed=spec.allowed, default=default)
        lines += [f"  --{spec.name.replace('_', '-')}", f"      {spec.help}", f"      {takes}"]
    return "\n".join(lines)
