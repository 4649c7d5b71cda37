"""`chat`: talk to a run's model in the terminal, or ask it one thing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from core.commands.output import DONE, Output, UsageError
from core.workspace import Workspace

_HELP = "Ctrl-C stops an answer, /clear forgets the conversation, Ctrl-D or /exit leaves."


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "chat", parents=[common], help="talk to a run's model", description=_HELP
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument("--prompt", metavar="TEXT", help="ask this, print the answer and leave")
    parser.add_argument("--checkpoint", default="final", help="such as checkpoint-40 (%(default)s)")
    parser.add_argument("--base", action="store_true", help="talk to the run's base model instead")
    parser.add_argument("--system-prompt", metavar="TEXT", help="else the one the run was given")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is always the likeliest")
    parser.add_argument("--top-p", type=float, default=1.0, help="(%(default)s)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="(%(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    from core.chat.session import ChatSession
    from core.commands.runs import find_run
    from core.jobs.store import Store

    if output.as_json and args.prompt is None:
        raise UsageError("--json needs --prompt TEXT.")
    workspace = Workspace.open(getattr(args, "workspace", None))
    with closing(Store.open(workspace)) as store:
        run_id = find_run(store, args.run_id)
    raise NotImplementedError(ChatSession, run_id, Iterator, sys, DONE, Output)
