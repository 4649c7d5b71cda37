"""`verl`: a job folder for PPO with a critic on a Ray cluster, which Tunesmith does not run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, FAILED, Output, pairs
from core.language import _


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "verl",
        parents=[common],
        help=_("write a verl job for PPO with a critic on a Ray cluster"),
        description=_(
            "Writes a folder with settings, rows, reward functions, a command and a README "
            "for verl. Nothing is run here: PPO with a critic is not in TRL. The run's "
            "method is grpo or rloo, whose rewards and settings the job takes."
        ),
        usage="%(prog)s CONFIG|PRESET --output FOLDER [--section.field VALUE ...]",
    )
    parser.add_argument("config", metavar="CONFIG|PRESET", help=_("a YAML file or a preset's name"))
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help=_("a new folder")
    )
    parser.add_argument("--nodes", type=_count, default=1, help=_("machines (%(default)s)"))
    parser.add_argument("--gpus", type=_count, default=8, help=_("GPUs of each (%(default)s)"))
    parser.add_argument(
        "--check-with",
        metavar="PYTHON",
        help=_(
            "the Python of an environment with verl, against whose own config the settings "
            "are held; without it against the keys of one version that Tunesmith knows"
        ),
    )
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run(args: argparse.Namespace, output: Output) -> int:
    from core.rules import parse_config
    from core.rules.command import apply_overrides
    from core.rules.presets import open_config
    from core.verl.job import write_job
    from core.verl.settings import Cluster, check_with

    workspace = open_workspace(args)
    values, _preset = open_config(args.config, workspace)
    config = parse_config(apply_overrides(values, args.overrides))
    folder = args.output.expanduser().resolve()
    job = write_job(workspace, config, folder, Cluster(args.nodes, args.gpus))
    checked = check_with(args.check_with, job.settings) if args.check_with else job.checked
    rows = ", ".join(f"{count} {part}" for part, count in job.rows.items())
    data = {
        "folder": str(job.folder),
        "rows": job.rows,
        "left_out": job.left_out,
        "verl": checked.version,
        "unknown": dict(checked.wrong),
    }
    lines: list[tuple[str, Any]] = [
        (_("folder"), job.folder),
        (_("rows"), rows),
        (_("rows left out"), job.left_out),
    ]
    told = _("{n} not known", n=len(checked.wrong)) if checked.wrong else _("all known")
    lines.append((_("keys in verl {version}", version=checked.version), told))
    lines += [(key, why) for key, why in checked.wrong]
    lines.append((_("next"), _("read its README.md; it was written, not run")))
    output.result(data, pairs(lines))
    return FAILED if checked.wrong else DONE
