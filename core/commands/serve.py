"""Without a command: serves the page."""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import os
import re
import secrets
import shlex

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError
from core.jobs.process import staying
from core.language import _
from core.workspace import Workspace, write_atomic

_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,200}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(_("the page (without a command)"))
    group.add_argument("--host", default="127.0.0.1", help=_("address to serve at (%(default)s)"))
    group.add_argument(
        "--port", type=_port, default=7860, help=_("first port to try (%(default)s)"), metavar="N"
    )
    group.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        help=_("ask for this name and password; TUNESMITH_AUTH keeps them off the command line"),
    )
    group.add_argument(
        "--no-token",
        action="store_true",
        help=_("let everyone in who reaches the page from this machine, without a token"),
    )
    group.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help=_(
            "a name that a proxy shows the page under, with its port if it has one; may be repeated"
        ),
    )
    group.add_argument(
        "--no-browser", action="store_true", help=_("print the address and open no browser")
    )
    group.add_argument(
        "--root-path", metavar="/PATH", help=_("path under which a proxy shows the page")
    )


def run(args: argparse.Namespace, output: Output) -> int:
    auth = _auth(args.auth or os.environ.get("TUNESMITH_AUTH") or "")
    if auth is None and not is_loopback(args.host):
        raise UsageError(
            _(
                "Serving at {host} lets everyone who reaches this machine train, read and delete. "
                "Add --auth USER:PASSWORD, or serve at 127.0.0.1 and reach it through SSH: "
                "{command}",
                host=args.host,
                command=f"ssh -L {args.port}:127.0.0.1:{args.port} THIS-MACHINE",
            )
        )
    if output.as_json:
        raise UsageError(_("--json belongs to a command; the page only prints its address."))
    if args.no_token and auth:
        raise UsageError(_("--no-token is for a page without a password; leave it or --auth out."))
    workspace = open_workspace(args)
    secret = "" if args.no_token else _secret(workspace)
    if os.name != "nt" and workspace.root.stat().st_mode & 0o077:
        root = shlex.quote(str(workspace.root))
        output.say(
            _(
                "Other users of this machine can look into {folder}, which was made before. To "
                "keep them out: {command}",
                folder=workspace.root,
                command=f"chmod -R go= {root}",
            )
        )
    # By name: core has no import of webui, which is the layer above it. This is the one place
    # where the command line hands over to the page.
    with staying():
        page = importlib.import_module("webui.app")
    code = page.serve(
        workspace,
        host=args.host,
        port=args.port,
        secret=secret,
        auth=auth,
        allow_hosts=args.allow_host,
        open_browser=not args.no_browser,
        root_path=args.root_path,
    )
    return DONE if code is None else int(code)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost may be anything."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _auth(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise UsageError(_("--auth takes a name and a password with a colon between: ada:secret"))
    return user, password


def _secret(workspace: Workspace) -> str:
    """TUNESMITH_TOKEN, else the workspace's own: the same after a restart, so that open pages and
    programs go on. It is taken out of the environment, which workers get."""
    given = os.environ.pop("TUNESMITH_TOKEN", "").strip()
    if given:
        if not _TOKEN.fullmatch(given):
            raise UsageError(
                _("TUNESMITH_TOKEN is not a token."),
                _(
                    "Take 16 letters, digits, hyphens or underscores at least, such as those of "
                    "{command}",
                    command="python -c 'import secrets; print(secrets.token_urlsafe())'",
                ),
            )
        return given
    try:
        kept = workspace.token.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        kept = ""
    if not _TOKEN.fullmatch(kept):
        kept = secrets.token_urlsafe(32)
        write_atomic(workspace.token, kept + "\n")
    return kept


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(_("a port is a number from 1 to 65535"))
    return port
