"""`hub`: who is logged in to the Hugging Face Hub, finding and fetching models there and on
ModelScope, and the caches that they lie in; `push`: an export or a data set goes there."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import (
    DONE,
    FAILED,
    Output,
    UsageError,
    pairs,
    spell_bytes,
    spell_time,
    table,
)
from core.errors import reason_of
from core.export.formats import format_names
from core.language import _, n_
from core.progress import Stopped, Tell

if TYPE_CHECKING:
    from core.hub.account import Account
    from core.hub.plan import Plan
    from core.hub.search import Found


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "hub",
        parents=[common],
        help=_("log in to the Hugging Face Hub, find and fetch models there"),
        description=_(
            "The token is kept where huggingface_hub keeps it, and nowhere else. It is read from "
            "the keyboard or from standard input, never from the command line, which others can "
            "see."
        ),
    )
    actions = parser.add_subparsers(title=_("actions"), metavar="ACTION", required=True)
    for name, told, run in (
        ("login", _("keep a token, once the Hub knows it"), _login),
        ("logout", _("forget every token that is kept"), _logout),
        ("whoami", _("whose token is kept, and what it may do"), _whoami),
    ):
        action = actions.add_parser(name, parents=[common], help=told, description=told)
        action.set_defaults(run=run)
    _add_pull(actions, common)
    _add_push(commands, common)


def _add_pull(actions: Any, common: argparse.ArgumentParser) -> None:
    told = _("find models by words, those alone that can be used here")
    action = actions.add_parser("search", parents=[common], help=told, description=told)
    action.add_argument("words", metavar="WORDS", nargs="+")
    where = action.add_mutually_exclusive_group()
    where.add_argument("--datasets", action="store_true", help=_("find data sets"))
    where.add_argument("--modelscope", action="store_true", help=_("find models on ModelScope"))
    action.set_defaults(run=_search)
    told = _("fetch a model into the Hub's cache, or ModelScope's; one that broke off goes on")
    action = actions.add_parser("pull", parents=[common], help=told, description=told)
    action.add_argument("repo", metavar="[modelscope:]OWNER/NAME")
    action.add_argument("--revision", help=_("a branch, tag or commit (else main)"))
    action.set_defaults(run=_pull)
    told = _("what lies in the caches of the Hub and of ModelScope")
    cache = actions.add_parser("cache", parents=[common], help=told, description=told)
    cached = cache.add_subparsers(title=_("actions"), metavar="ACTION", required=True)
    told = _("list it, what was used last first")
    action = cached.add_parser("list", parents=[common], help=told, description=told)
    action.set_defaults(run=_cache_list)
    told = _("delete a repository from it, with all its revisions")
    action = cached.add_parser("delete", parents=[common], help=told, description=told)
    action.add_argument("repo", metavar="[modelscope:]OWNER/NAME")
    action.add_argument(
        "--dataset", action="store_true", help=_("the data set of that name, not the model")
    )
    action.add_argument(
        "--force", action="store_true", help=_("also when runs of the workspace need the model")
    )
    action.set_defaults(run=_cache_delete)


def _add_push(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "push",
        parents=[common],
        help=_("push an export of a run, or a data set, to the Hugging Face Hub"),
        description=_(
            "Sends what is new or changed, in one commit. A push that broke off goes on when it is "
            "started again."
        ),
    )
    parser.add_argument("run_id", metavar="RUN", nargs="?")
    parser.add_argument("--dataset", metavar="ID", help=_("push this data set instead of a run"))
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME")
    parser.add_argument("--export", metavar="ID", default="", help=_("else the newest"))
    parser.add_argument(
        "--format", choices=format_names(), default="", help=_("the newest export of this format")
    )
    parser.add_argument(
        "--private", action="store_true", help=_("a repository that is made is for you alone")
    )
    parser.add_argument("--branch", default="main", help=_("made if it is not there (%(default)s)"))
    parser.add_argument("--pr", action="store_true", help=_("as a pull request"))
    parser.add_argument("--message", default="", help=_("what the commit is called"))
    parser.add_argument(
        "--card",
        metavar="FILE",
        type=Path,
        help=_("the model card: takes the place of the export's README.md and is kept with it"),
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help=_("only say what would be done; change nothing on the Hub"),
    )
    parser.add_argument(
        "--force", action="store_true", help=_("push an export though a check of it failed")
    )
    parser.set_defaults(run=_push)


def _login(args: argparse.Namespace, output: Output) -> int:
    from core.hub.account import log_in
    from core.hub.answers import token_page

    if sys.stdin.isatty():
        output.say(_("Make a token that may write at {place}.", place=token_page()))
        token = getpass.getpass(_("Token (it is not shown): "))
    else:
        token = sys.stdin.readline()
    return _say_who(log_in(token), output)


def _logout(args: argparse.Namespace, output: Output) -> int:
    from core.hub.account import log_out

    known = log_out()
    told = _("Logged out: the token is forgotten.") if known else _("Nobody was logged in.")
    output.result({"logged_out": known}, told)
    return DONE


def _whoami(args: argparse.Namespace, output: Output) -> int:
    from core.hub.account import who_am_i

    account = who_am_i(anew=True)
    if account is None:
        output.result({"account": None}, _("Nobody is logged in. Log in: hub login"))
        return FAILED
    return _say_who(account, output)


def _say_who(account: Account, output: Output) -> int:
    text = pairs(
        [
            (_("name"), account.name),
            (_("organizations"), ", ".join(account.organizations)),
            (_("token"), account.token_name),
            (_("rights"), account.may()),
            (_("Hub"), account.endpoint),
        ]
    )
    output.result({"account": asdict(account)}, text)
    return DONE


def _search(args: argparse.Namespace, output: Output) -> int:
    from core.hub.search import DATASET, MODEL, search, search_modelscope

    words = " ".join(args.words)
    if args.modelscope:
        found = search_modelscope(words)
    else:
        found = search(words, DATASET if args.datasets else MODEL)
    text = _found_text(found) if found else _("Nothing that can be used here has these words.")
    output.result({"found": [asdict(one) for one in found]}, text)
    return DONE


def _found_text(found: list[Found]) -> str:
    head = [_("name"), _("parameters"), _("size"), _("licence"), _("downloads"), _("access")]
    rows = [
        [
            one.repo_id,
            "-" if one.parameters is None else f"{one.parameters:,}",
            "-" if one.size_bytes is None else spell_bytes(one.size_bytes),
            one.licence or "-",
            f"{one.downloads:,}",
            _("on request: {place}", place=one.url) if one.gated else _("open"),
        ]
        for one in found
    ]
    return table(head, rows)


def _pull(args: argparse.Namespace, output: Output) -> int:
    from core.hub.pull import look, pull

    with _until_interrupted() as tell:
        asked = look(args.repo, revision=args.revision)
        output.say(
            n_(
                "{repo}: {n} file, {size}",
                "{repo}: {n} files, {size}",
                asked.files,
                repo=asked.repo_id,
                size=spell_bytes(asked.size_bytes),
            )
        )
        folder = pull(asked, tell)
    text = _("{repo} is here: {folder}", repo=asked.repo_id, folder=folder)
    output.result({"pulled": asdict(asked), "folder": str(folder)}, text)
    return DONE


@contextmanager
def _until_interrupted() -> Iterator[Tell]:
    """Ctrl-C ends the threads of a download, too: they stop at their next sign of progress."""
    from core.commands.follow import fetch_progress

    pressed = threading.Event()

    def tell(share: float, message: str) -> None:
        if pressed.is_set():
            raise Stopped
        fetch_progress(share, message)

    def interrupt(*_: object) -> None:
        pressed.set()
        raise Stopped

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield tell
    finally:
        signal.signal(signal.SIGINT, before)


def _cache_list(args: argparse.Namespace, output: Output) -> int:
    from core.hub.cache import list_cached

    cached = list_cached()
    rows = [
        [one.repo_id, one.kind, spell_bytes(one.size_bytes), spell_time(one.last_used)]
        for one in cached
    ]
    head = [_("repository"), _("kind"), _("size"), _("last used")]
    text = table(head, rows) if rows else _("The cache is empty.")
    output.result({"cached": [asdict(one) for one in cached]}, text)
    return DONE


def _cache_delete(args: argparse.Namespace, output: Output) -> int:
    from core.hub.cache import check_unused, delete_cached
    from core.hub.search import DATASET, MODEL
    from core.jobs.store import Store

    if not (args.force or args.dataset):
        with contextlib.closing(Store.open(open_workspace(args))) as store:
            check_unused(store, args.repo)
    gone = delete_cached(args.repo, DATASET if args.dataset else MODEL)
    size = spell_bytes(gone.size_bytes)
    text = _("{repo} is deleted, which frees {size}.", repo=gone.repo_id, size=size)
    output.result({"deleted": asdict(gone)}, text)
    return DONE


def _push(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.export.card import save_card
    from core.hub.plan import parse_settings
    from core.hub.push import export_to_push, plan_push, pushed, submit_push
    from core.jobs.store import Store

    if (args.run_id is None) == (args.dataset is None):
        raise UsageError(_("Name a run or, with --dataset, a data set."))
    if args.card is not None and args.run_id is None:
        raise UsageError(_("--card is for the export of a run."))
    settings = parse_settings(
        {
            "repo_id": args.repo,
            "private": args.private,
            "branch": args.branch,
            "create_pr": args.pr,
            "message": args.message,
        }
    )
    workspace = open_workspace(args)
    store = Store.open(workspace)
    what: dict[str, Any] = {"dataset_id": args.dataset or ""}
    if args.run_id is not None:
        run_id = find_run(store, args.run_id)
        export = export_to_push(workspace, run_id, args.export, args.format, args.force)
        what["export"] = export
        if args.card is not None and export.path is not None:
            save_card(export.path, _card_in(args.card))
    if args.dry_run:
        plan = plan_push(workspace, settings, **what)
        output.result({"plan": plan.as_dict()}, _plan_text(plan))
        return DONE
    job, result = follow(workspace, store, submit_push(workspace, store, settings, **what), output)
    say_end(job, output)
    data = {"push": job.id, "state": job.state, "error": job.error, "result": result or None}
    output.result(data, pushed(job, result) if result else "")
    return exit_code(job)


def _card_in(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            _("{file} cannot be read: {reason}.", file=file, reason=reason_of(error)),
            _("Name a text file."),
        ) from error


def _plan_text(plan: Plan) -> str:
    from core.hub.plan import STATES

    known = plan.exists
    kind = (_("there, private") if known else _("to be made, private")) if plan.private else None
    kind = kind or (_("there, public") if known else _("to be made, public"))
    branch = plan.branch if plan.branch_exists else _("{name} (new)", name=plan.branch)
    if plan.create_pr:
        branch = _("a pull request to main")
    rows = [[one.path, spell_bytes(one.size_bytes), _(STATES[one.state])] for one in plan.files]
    files = table([_("file"), _("size"), _("state")], rows)
    others = (
        n_("{n} more file is only there, and stays.", "{n} more are only there, and stay.", n)
        if (n := plan.others)
        else ""
    )
    sums = n_(
        "{n} file to send, {size}.",
        "{n} files to send, {size}.",
        len(plan.to_send),
        size=spell_bytes(plan.bytes_to_send),
    )
    head = pairs([(_("repository"), plan.url), (_("it is"), kind), (_("branch"), branch)])
    return "\n".join(part for part in (head, "", files, "", sums, others) if part or part == "")
