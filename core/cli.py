"""The commands. `python launch.py COMMAND` and `python -m core.cli COMMAND` both end here.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.commands import (
    chat,
    cloud,
    data,
    endpoint,
    estimate,
    evaluate,
    export,
    hub,
    info,
    predict,
    rewards,
    runs,
    serve,
    sweep,
    templates,
    train,
    verl,
)
from core.commands.opening import common_arguments
from core.commands.output import (
    DONE,
    FAILED,
    STOPPED,
    WRONG_USE,
    Output,
    UsageError,
)
from core.errors import ConfigError, TunesmithError, WorkspaceError, reason_of
from core.language import N_, _, known_language, language_of_shell, n_, speaking
from core.progress import Stopped

_GROUPS = (
    *(train, sweep, runs, data, templates, rewards, evaluate, predict, chat, export),
    *(endpoint, hub, cloud, verl, estimate, info),
)
_TAKE_A_VALUE = (
    *("--workspace", "--language", "--host", "--port", "--auth", "--root-path"),
    *("--allow", "--allow-host"),
)
_EPILOG = N_(
    """\
also, with launch.py:
  setup    make or update the environment, and nothing else; --with NAME adds what some
           settings need, such as galore or wandb
  test     run Tunesmith's own tests

Without a command the page is served. Exit codes: 0 done, 1 failed, 2 wrong use, 130 stopped."""
)
# Argparse asks its own module for each of its words: these.
argparse._ = lambda text: text and _(text)  # type: ignore[attr-defined]
argparse.ngettext = n_  # type: ignore[attr-defined]
_ARGPARSE = (
    N_("usage: "),
    N_("positional arguments"),
    N_("options"),
    N_("%(heading)s:"),
    N_("show this help message and exit"),
    N_("argument %(argument_name)s: %(message)s"),
    N_("invalid %(type)s value: %(value)r"),
    N_("invalid choice: %(value)r (choose from %(choices)s)"),
    N_("unrecognized arguments: %s"),
    N_("the following arguments are required: %s"),
    N_("one of the arguments %s is required"),
    N_("not allowed with argument %s"),
    N_("ignored explicit argument %r"),
    N_("expected one argument"),
    N_("expected at least one argument"),
    n_("expected %s argument", "expected %s arguments", 2),
)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Breaks lines where a terminal's end is: Chinese has no blanks, and wider characters."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        from wcwidth import wrap

        return wrap(" ".join(text.split()), width)


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving the process, so that `main` reports every mistake alike.

    `late_epilog` makes the end of the help, when somebody asks for it.
    """

    def __init__(self, *, late_epilog: Callable[[], str] | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", _Help)
        super().__init__(allow_abbrev=False, **options)
        self._late_epilog = late_epilog

    def format_help(self) -> str:
        if self._late_epilog is not None:
            self.epilog = self._late_epilog()
        return super().format_help()

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(_("{problem}.", problem=message), self.format_usage().strip())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with speaking(_language(words)):
        return _main(words, Output(as_json="--json" in words))


def _language(words: Sequence[str]) -> str:
    """What `--language` asks for, which is known before the help is made; else the shell's."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--language" and (asked := known_language(value if equals else following)):
            return asked
    return language_of_shell()


def _main(words: list[str], output: Output) -> int:
    try:
        # What a library prints must not get between the lines of the result.
        with contextlib.redirect_stdout(sys.stderr):
            return _run(words, output)
    except SystemExit as error:  # --help and --version
        return error.code if isinstance(error.code, int) else FAILED
    except (KeyboardInterrupt, Stopped):
        output.say("\n" + _("Stopped."))
        return STOPPED
    except (UsageError, ConfigError) as error:
        output.error(error)
        return WRONG_USE
    except TunesmithError as error:
        output.error(error)
        return FAILED
    except BrokenPipeError:
        # The reader, `head` say, has seen enough. Nothing is left to flush at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # a folder that cannot be written, a full disk
        why = reason_of(error)
        place = error.filename
        told = _("{place}: {why}.", place=place, why=why) if place else _("{why}.", why=why)
        hint = _("Look at its rights and at the room on its disk, then try again.")
        output.error(WorkspaceError(told, hint))
        return FAILED
    except Exception as error:
        traceback.print_exc()
        output.error(error)
        return FAILED


def _run(words: list[str], output: Output) -> int:
    overrides: list[str] = []
    if _command(words) in ("train", "sweep", "estimate", "runs", "verl"):
        from core.rules.command import split_overrides

        words, overrides = split_overrides(words)
    with contextlib.redirect_stdout(output.stream):  # argparse prints --help here
        args = build_parser().parse_args(words)
    args.overrides = overrides
    return int(args.run(args, output))


def _command(words: Sequence[str]) -> str:
    """The first word that is neither an option nor an option's value."""
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            return word
        if word in _TAKE_A_VALUE:
            waiting = waiting[1:]
    return ""


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    program = "python launch.py" if Path(sys.argv[0]).name == "launch.py" else "python -m core.cli"
    common = common_arguments()
    parser = _Parser(
        prog=program,
        description=_("Tunesmith fine-tunes language models in the browser or from the shell."),
        epilog=_(_EPILOG),
        parents=[common],
    )
    serve.add_arguments(parser)
    parser.set_defaults(run=serve.run)
    commands = parser.add_subparsers(title=_("commands"), metavar="COMMAND", parser_class=_Parser)
    for group in _GROUPS:
        group.add(commands, common)
    return parser


if __name__ == "__main__":
    sys.exit(main())
