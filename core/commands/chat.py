"""`chat`: talk to a run's model in the terminal, or ask it one thing."""

from __future__ import annotations

import argparse
import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import DONE, Output, UsageError
from core.commands.talk import SAMPLINGS, SETTINGS, Message, Talk
from core.errors import reason_of
from core.language import N_, _

if TYPE_CHECKING:
    from core.chat.session import ChatSession, ChatSettings, Column, ColumnState

_ABOUT = N_("Without a prompt you talk to it: /help says how.")


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "chat", parents=[common], help=_("talk to a run's model"), description=_(_ABOUT)
    )
    parser.add_argument("run_id", metavar="RUN")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--prompt", metavar="TEXT", help=_("ask this, print the answer and leave"))
    asked.add_argument("--file", metavar="FILE", help=_("ask what stands in it; - reads the input"))
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    parser.add_argument(
        "--base", action="store_true", help=_("talk to the run's base model instead")
    )
    parser.add_argument(
        "--system-prompt", metavar="TEXT", help=_("else the one that the run was trained with")
    )
    parser.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        default="balanced",
        help=_("exact takes the most probable word, varied draws from many (%(default)s)"),
    )
    for name in SETTINGS:
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, metavar="N", dest=name, help=_("as on the page"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    prompt = _read_prompt(args.file) if args.file else args.prompt
    if output.as_json and prompt is None:
        raise UsageError(_("--json needs --prompt TEXT or --file FILE."))
    from core.chat.session import ChatSession, conversation, trained_system_prompt
    from core.chat.settings import chat_settings, sampling
    from core.commands.follow import fetch_progress
    from core.commands.runs import find_run
    from core.jobs.store import Store

    given = {name: getattr(args, name) for name in SETTINGS}
    given = {name: value for name, value in given.items() if value is not None}
    settings = chat_settings({**sampling(args.sampling), **given})
    with contextlib.closing(Store.open(open_workspace(args))) as store:
        run_id = find_run(store, args.run_id)
    workspace = open_for_run(args, run_id)
    system = args.system_prompt
    if system is None:
        system = trained_system_prompt(workspace, run_id)
    column = _column(args, run_id, workspace)
    with ChatSession(workspace) as session:
        for note in session.start([column], fetch_progress).notes:
            output.say(note)
        if prompt is None:
            history = workspace.root / "chat-history" if sys.stdin.isatty() else None
            return Talk(partial(answer, session), settings, system, output, history).run()
        messages = conversation(prompt, system)
        state = answer(session, messages, settings, output, quiet=output.as_json)
    record = {
        "run": run_id,
        "model": column.base or column.checkpoint,
        "prompt": prompt,
        "answer": state.text,
        "tokens": state.tokens,
        "tokens_per_second": state.tokens_per_second,
        "reason": state.reason,
    }
    output.result(record, "")
    return DONE


def _column(args: argparse.Namespace, run_id: str, workspace: Any) -> Column:
    """The run's checkpoint, or with --base the model that the run began from."""
    from core.chat.session import Column
    from core.rules import load_config

    if not args.base:
        return Column(run_id, args.checkpoint)
    base = load_config(workspace.run(run_id).config).model.model_name_or_path
    return Column(base=base)


def _read_prompt(name: str) -> str:
    """What is asked. Raises UsageError for a file that holds no text."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(_("{file}: {reason}", file=name, reason=reason_of(error))) from error
    if not text.strip():
        raise UsageError(_("{file} is empty.", file=name))
    return text.strip()


def answer(
    session: ChatSession,
    messages: list[Message],
    settings: ChatSettings,
    output: Output,
    *,
    quiet: bool = False,
) -> ColumnState:
    """Prints the answer as it comes, and returns it; Ctrl-C ends it early."""
    from core.chat.session import ColumnState

    state = ColumnState()
    asking = session.stream(0, messages, settings)
    try:
        for piece in asking:
            state = state.plus(piece)
            if not quiet:
                output.stream.write(piece.text)
                output.stream.flush()
    except KeyboardInterrupt:
        asking.close()  # type: ignore[attr-defined]  # a generator: this stops the answer
        if quiet:
            raise
    if not quiet:
        output.stream.write("\n")
        output.stream.flush()
    return state
