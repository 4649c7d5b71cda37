"""`presets` and `doctor`: what there is, what is missing."""

from __future__ import annotations

import argparse
from typing import Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, FAILED, Output, table
from core.language import _


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    presets = commands.add_parser(
        "presets", parents=[common], help=_("list the presets, or show one as YAML")
    )
    presets.add_argument("action", nargs="?", choices=["list", "show"], default="list")
    presets.add_argument("name", nargs="?", metavar="NAME")
    presets.set_defaults(run=run_presets)

    doctor = commands.add_parser(
        "doctor", parents=[common], help=_("check Python, packages, devices, memory and disk")
    )
    doctor.set_defaults(run=run_doctor)


def run_presets(args: argparse.Namespace, output: Output) -> int:
    import yaml

    from core.commands.output import UsageError
    from core.config import nest
    from core.rules.presets import list_presets, load_preset

    workspace = open_workspace(args)
    if args.action == "show":
        if not args.name:
            raise UsageError(_("presets show needs a preset's name: presets show quickstart"))
        preset = load_preset(args.name, workspace)
        settings = nest(preset.settings)
        record = {**_record(preset), "settings": settings, "config": preset.config().model_dump()}
        about = f"# {preset.title}: {preset.description}\n# {preset.when}\n"
        output.result(record, about + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        return DONE
    presets = list_presets(workspace)
    rows = [(p.name, p.title, p.problem or p.when or p.description) for p in presets]
    output.result(
        {"presets": [_record(p) for p in presets]}, table((_("NAME"), _("TITLE"), ""), rows)
    )
    return DONE


def _record(preset: Any) -> dict[str, Any]:
    return {
        "name": preset.name,
        "title": preset.title,
        "description": preset.description,
        "when": preset.when,
        "builtin": preset.builtin,
        "problem": preset.problem or None,
    }


def run_doctor(args: argparse.Namespace, output: Output) -> int:
    import dataclasses

    from core.doctor import diagnose, render
    from core.models.hardware import probe

    hardware = probe()
    checks = diagnose(open_workspace(args).root, hardware=hardware)
    is_well = all(check.ok for check in checks)
    data = {
        "ok": is_well,
        "checks": [dataclasses.asdict(check) for check in checks],
        "hardware": hardware.as_dict(),
    }
    output.result(data, render(checks))
    return DONE if is_well else FAILED
