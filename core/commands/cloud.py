"""`cloud`: trains a run once more on a machine rented from Hugging Face Jobs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, table
from core.language import _

if TYPE_CHECKING:
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "cloud",
        parents=[common],
        help=_("train a run once more on a rented machine (Hugging Face Jobs)"),
        description=_(
            "Sends the run's script (export RUN --format script) with its rows to a private "
            "repository, rents a machine, follows it to its end, and brings the trained model from "
            "the same repository back as a run. Ctrl-C ends what is rented."
        ),
        usage="%(prog)s RUN --flavor NAME --repo OWNER/NAME [--minutes N]\n"
        "       %(prog)s [RUN] --hardware\n"
        "       %(prog)s RUN --follow",
    )
    parser.add_argument("run_id", metavar="RUN", nargs="?")
    parser.add_argument("--flavor", default="", metavar="NAME", help=_("the hardware"))
    parser.add_argument("--repo", default="", metavar="OWNER/NAME")
    parser.add_argument(
        "--minutes", default=60, metavar="N", help=_("the longest it may take (%(default)s)")
    )
    parser.add_argument(
        "--hardware",
        action="store_true",
        help=_("what can be rented, its price, and what the run would cost on it"),
    )
    parser.add_argument(
        "--follow", action="store_true", help=_("follow what is rented for the run already")
    )
    parser.add_argument(
        "--queue", action="store_true", help=_("leave it to the running app and come back at once")
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.hub.cloud import cloud_settings, follow_again, submit_cloud
    from core.jobs.store import Store

    workspace = open_workspace(args)
    store = Store.open(workspace)
    run_id = find_run(store, args.run_id) if args.run_id else None
    if args.hardware:
        return _hardware(workspace, run_id, output)
    if run_id is None:
        raise UsageError(_("No run is named."), _("Name one: runs list shows them."))
    if args.follow:
        job = follow_again(workspace, store, run_id)
    else:
        given = {"repo_id": args.repo, "flavor": args.flavor, "minutes": args.minutes}
        job = submit_cloud(workspace, store, run_id, cloud_settings(given))
    result: dict[str, Any] = {}
    if not args.queue:
        job, result = follow(workspace, store, job, output)
        say_end(job, output)
    told = ""
    if result:
        from core.hub.cloud import trained_there

        told = trained_there(job, result)
    output.result({"cloud": job.id, "state": job.state, **result}, told)
    return DONE if args.queue else exit_code(job)


def _hardware(workspace: Workspace, run_id: str | None, output: Output) -> int:
    from core.hub.cloud import hardware, operations_of

    found = hardware(operations_of(workspace, run_id) if run_id else None)
    rows = [
        [
            one.name,
            one.detail,
            f"{one.price:.4f}",
            "-" if one.minutes is None else f"{one.minutes:.0f}",
            "-" if one.cost is None else f"{one.cost:.2f}",
        ]
        for one in found
    ]
    titles = [_("name"), _("hardware"), _("$ a minute"), _("minutes, about"), _("$ in all, about")]
    record = [
        {"name": one.name, "detail": one.detail, "price": one.price, "minutes": one.minutes}
        for one in found
    ]
    output.result({"hardware": record}, table(titles, rows))
    return DONE
