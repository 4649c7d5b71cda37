"""Opens the workspace that a command line asks for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from core.language import LANGUAGES, _
from core.workspace import Workspace


def common_arguments() -> argparse.ArgumentParser:
    """The options that every command takes."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument(
        "--workspace",
        metavar="FOLDER",
        help=_("where data sets, runs and models are kept (else TUNESMITH_WORKSPACE, ./workspace)"),
    )
    parser.add_argument(
        "--allow",
        metavar="FOLDER",
        action="append",
        help=_("a further folder to read data and models from; may be repeated"),
    )
    parser.add_argument(
        "--language",
        choices=tuple(LANGUAGES),
        help=_("the language to speak (else what LANG and its like ask for, or English)"),
    )
    parser.add_argument(
        "--json", action="store_true", help=_("print one JSON object on standard output")
    )
    return parser


def open_for_run(args: argparse.Namespace, run_id: str, *named: str | None) -> Workspace:
    """The workspace, with leave to read the base model that the run was started from, and what the
    shell's user `named`."""
    from core.errors import ConfigError
    from core.rules import load_config

    workspace = open_workspace(args)
    try:
        base = load_config(workspace.run(run_id).config).model.model_name_or_path
    except ConfigError:  # whoever needs the config says so
        return workspace
    return open_workspace(args, base, *named)


def open_workspace(args: argparse.Namespace, *named: Path | str | None) -> Workspace:
    """The workspace, with leave to read the allowed folders and what the shell's user `named`.

    The worker processes that this one starts get the same leave, through their environment. What
    this process and they write from now on is for its owner alone.
    """
    os.umask(0o077)
    paths = [Path(item).expanduser().resolve() for item in named if item]
    folders = [str(path if path.is_dir() else path.parent) for path in paths if path.exists()]
    allowed = [*getattr(args, "allow", []), *folders]
    workspace = Workspace.open(getattr(args, "workspace", None), allowed)
    if allowed:
        os.environ["TUNESMITH_ALLOW"] = os.pathsep.join(map(str, workspace.allowed))
    return workspace
