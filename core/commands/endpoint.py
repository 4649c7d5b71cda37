"""`serve RUN`: an OpenAI-compatible endpoint of what a run trained."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.commands.follow import JobView
from core.commands.opening import open_for_run, open_workspace
from core.commands.output import DONE, Output, pairs
from core.language import _

if TYPE_CHECKING:
    from core.serve.servers import Server
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "serve",
        parents=[common],
        help=_("let programs ask a run's model, as OpenAI's are asked"),
        description=_(
            "An endpoint on this machine for whatever speaks to OpenAI's: the run's model, its "
            "checkpoints and its base, each by its name. It asks for a key. Ctrl-C ends it."
        ),
    )
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument(
        "--checkpoint",
        metavar="NAME",
        nargs="+",
        default=[],
        help=_("these alone, such as final checkpoint-40 (else all that the run left)"),
    )
    for name in ("port", "quantization", "context"):
        parser.add_argument(f"--{name}", metavar="N", default=argparse.SUPPRESS, help=_help(name))
    parser.add_argument(
        "--background", action="store_true", help=_("come back as soon as it answers; it goes on")
    )
    parser.set_defaults(run=run, port=None)


def _help(name: str) -> str:
    from core.config.fields import field_specs
    from core.serve.settings import ServeSettings

    spec = next(spec for spec in field_specs(ServeSettings) if spec.name == name)
    choices = f" ({', '.join(map(str, spec.choices))})" if spec.choices else ""
    return f"{_(spec.help)}{choices}".replace("%", "%%")


class _Answers(Exception):
    """The server answers, and nobody has to wait any longer."""


class _View(JobView):
    """Tells, too, when a server answers."""

    def __init__(self, ready: Callable[[], None]) -> None:
        super().__init__()
        self._ready = ready

    def _show_server(self, event: dict[str, Any]) -> None:
        self.close()
        self._ready()


def run(args: argparse.Namespace, output: Output) -> int:
    from core.commands.follow import exit_code, follow, say_end
    from core.commands.runs import find_run
    from core.jobs.store import Store
    from core.serve.servers import server_of, submit_server
    from core.serve.settings import serve_settings

    named = {name: getattr(args, name, None) for name in ("port", "quantization", "context")}
    settings = serve_settings({name: value for name, value in named.items() if value is not None})
    store = Store.open(open_workspace(args))
    run_id = find_run(store, args.run_id)
    workspace = open_for_run(args, run_id)
    job = submit_server(workspace, store, run_id, settings, args.checkpoint)

    def ready() -> None:
        server = server_of(workspace, store.get(job.id))
        if server is None:  # it was stopped at that very moment
            return
        output.result(_record(workspace, server), _text(workspace, server))
        if args.background:
            raise _Answers
        output.say(_("Ctrl-C ends the server."))

    view = _View(ready)
    try:
        job, _result = follow(workspace, store, job, output, view)
    except _Answers:
        return DONE
    say_end(job, output)
    if output.as_json and job.state != "stopped":
        output.result({"server": job.id, "state": job.state, "error": job.error}, "")
    return exit_code(job)


def _record(workspace: Workspace, server: Server) -> dict[str, Any]:
    from core.models.hardware import local_devices
    from core.serve.examples import curl, python, vllm_command

    return {
        **server.as_dict(),
        "base_url": f"{server.address}/v1",
        "key_file": str(workspace.endpoint_key),
        "curl": curl(server),
        "python": python(server),
        "vllm": vllm_command(workspace, server, local_devices()),
    }


def _text(workspace: Workspace, server: Server) -> str:
    from core.models.hardware import local_devices
    from core.serve.examples import KEY_VARIABLE, curl, python, vllm_command

    key_file = shlex.quote(str(workspace.endpoint_key))
    facts = pairs(
        [
            (_("address"), f"{server.address}/v1"),
            (_("key"), f'export {KEY_VARIABLE}="$(cat {key_file})"'),
            (_("engine"), server.engine),
            (_("models"), ", ".join(server.models)),
            (_("stop"), f"runs stop {server.job.id}"),
        ]
    )
    faster = vllm_command(workspace, server, local_devices())
    told = _("On this machine's GPU vLLM answers faster:") if faster else ""
    return "\n\n".join(filter(None, [facts, curl(server), python(server), told, faster]))
