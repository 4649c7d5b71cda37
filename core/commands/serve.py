"""Without a command: serves the page."""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import os

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the page (without a command)")
    group.add_argument("--host", default="127.0.0.1", help="address to serve at (%(default)s)")
    group.add_argument(
        "--port", type=_port, default=7860, help="first port to try (%(default)s)", metavar="N"
    )
    group.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        help="ask for this name and password; TUNESMITH_AUTH keeps them off the command line",
    )
    group.add_argument(
        "--no-browser", action="store_true", help="print the address and open no browser"
    )
    group.add_argument(
        "--root-path", metavar="/PATH", help="path under which a proxy shows the page"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    auth = _auth(args.auth or os.environ.get("TUNESMITH_AUTH") or "")
    if auth is None and not is_loopback(args.host):
        raise UsageError(
            f"Serving at {args.host} lets everyone who reaches this machine train, read and "
            "delete. Add --auth USER:PASSWORD, or serve at 127.0.0.1 and reach it through SSH: "
            f"ssh -L {args.port}:127.0.0.1:{args.port} THIS-MACHINE"
        )
    if output.as_json:
        raise UsageError("--json belongs to a command; the page only prints its address.")
    workspace = open_workspace(args)
    # By name: core has no import of webui, which is the layer above it. This is the one place
    # where the command line hands over to the page.
    page = importlib.import_module("webui.app")
    code = page.serve(
        workspace,
        host=args.host,
        port=args.port,
        auth=auth,
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
        raise UsageError("--auth takes a name and a password with a colon between: ada:secret")
    return user, password


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return port
