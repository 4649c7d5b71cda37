"""`chat`: talk to a run's model in the terminal, or ask it one thing."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_for_run, open_workspace
from core.commands.output import DONE, Output, UsageError
from core.language import N_, _

if TYPE_CHECKING:
    from core.chat.session import ChatSession, ChatSettings, Column, ColumnState

_HELP = N_("Ctrl-C stops an answer, /clear forgets the conversation, /exit or Ctrl-D leaves.")

Message = dict[str, Any]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "chat", parents=[common], help=_("talk to a run's model"), description=_(_HELP)
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument("--prompt", metavar="TEXT", help=_("ask this, print the answer and leave"))
    parser.add_argument(
        "--checkpoint", default="final", help=_("such as checkpoint-40 (%(default)s)")
    )
    parser.add_argument(
        "--base", action="store_true", help=_("talk to the run's base model instead")
    )
    parser.add_argument(
        "--system-prompt", metavar="TEXT", help=_("else the one that the run was trained with")
    )
    for name in ("temperature", "top_p", "max_new_tokens", "seed"):
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, metavar="N", dest=name, help=_("as on the page"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    if output.as_json and args.prompt is None:
        raise UsageError(_("--json needs --prompt TEXT."))
    from core.chat.session import ChatSession, conversation, trained_system_prompt
    from core.chat.settings import chat_settings
    from core.commands.follow import fetch_progress
    from core.commands.runs import find_run
    from core.jobs.store import Store

    names = ("temperature", "top_p", "max_new_tokens", "seed")
    settings = chat_settings({n: getattr(args, n) for n in names if getattr(args, n) is not None})
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
        if args.prompt is None:
            return _talk(session, settings, lambda text: conversation(text, system), output)
        messages = conversation(args.prompt, system)
        state = _answer(session, messages, settings, output, quiet=output.as_json)
    record = {
        "run": run_id,
        "model": column.base or column.checkpoint,
        "prompt": args.prompt,
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


def _talk(
    session: ChatSession,
    settings: ChatSettings,
    begin: Callable[[str], list[Message]],
    output: Output,
) -> int:
    """Reads what is typed, answers it, and keeps the conversation until it is cleared."""
    output.say(_(_HELP))
    said: list[Message] = []
    while True:
        text = _read(output)
        if text is None or text.strip() == "/exit":
            return DONE
        if text.strip() == "/clear":
            said = []
            output.say(_("Forgotten."))
        if not text.strip() or text.strip() == "/clear":
            continue
        said = [*said, {"role": "user", "content": text}] if said else begin(text)
        state = _answer(session, said, settings, output)
        said.append({"role": "assistant", "content": state.text})


def _read(output: Output) -> str | None:
    """The next line; None at the end. Ctrl-C takes back what was typed."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives `input` its editing and its history

    while True:
        try:
            if not sys.stdin.isatty():
                return input()
            with contextlib.redirect_stdout(output.stream):
                return input("> ")
        except EOFError:
            return None
        except KeyboardInterrupt:
            output.say("\n" + _("(Ctrl-D leaves)"))


def _answer(
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
