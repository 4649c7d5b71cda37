"""`estimate`, `presets` and `doctor`: what a run would be, what there is, what is missing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, FAILED, Output, pairs, table

if TYPE_CHECKING:
    from core.workspace import Workspace


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    estimate = commands.add_parser(
        "estimate",
        parents=[common],
        help="tell what a run would be, without starting it",
        description="Base, trained share, rows, tokens and steps of a run, and what looks wrong.",
    )
    estimate.add_argument("config", metavar="CONFIG|PRESET", help="a YAML file or a preset's name")
    estimate.add_argument(
        "--tokens", action="store_true", help="count the tokens too (takes the model's tokenizer)"
    )
    estimate.set_defaults(run=run_estimate)

    presets = commands.add_parser(
        "presets", parents=[common], help="list the presets, or show one as YAML"
    )
    presets.add_argument("action", nargs="?", choices=["list", "show"], default="list")
    presets.add_argument("name", nargs="?", metavar="NAME")
    presets.set_defaults(run=run_presets)

    doctor = commands.add_parser(
        "doctor", parents=[common], help="check Python, packages, devices, memory and disk"
    )
    doctor.set_defaults(run=run_doctor)


def run_estimate(args: argparse.Namespace, output: Output) -> int:
    from core.commands.train import read_config
    from core.summary import summarize

    config = read_config(open_workspace(args), args.config, args.overrides)
    workspace = open_workspace(args, config.model.model_name_or_path)
    counts = _token_counts(workspace, config) if args.tokens else None
    summary = summarize(workspace, config, counts)
    output.result(summary.to_dict(), summary_text(summary))
    return DONE


def summary_text(summary: Any) -> str:
    """A Summary for a person."""
    about = "" if summary.parameters_exact else "about "
    share = f" ({summary.trainable_share:.2%})" if summary.trainable_share is not None else ""
    text = pairs(
        [
            ("base", summary.base),
            ("parameters", f"{about}{summary.parameters:,}" if summary.parameters else None),
            ("trained", f"{summary.trainable:,}{share}" if summary.trainable else None),
            ("training rows", _count(summary.train_rows)),
            ("held-out rows", _count(summary.eval_rows)),
            ("tokens in a pass", _count(summary.tokens)),
            ("steps", _count(summary.steps)),
        ]
    )
    return "\n".join([text, *(f"Note: {warning}" for warning in summary.warnings)])


def _count(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _token_counts(workspace: Workspace, config: Any) -> dict[str, Any]:
    from core.commands.progress import fetch_progress
    from core.data.preview import dataset_token_counts
    from core.jobs.pool import Pool
    from core.models.starter import ensure_model

    model = ensure_model(config.model.model_name_or_path, workspace, fetch_progress)
    pool = Pool(workspace.root)
    try:
        counts: dict[str, Any] = pool.submit(
            dataset_token_counts,
            workspace.root,
            config.data.dataset,
            str(model),
            config.training.max_length,
            config.data.assistant_only_loss,
            config.data.system_prompt,
        ).result()
    finally:
        pool.close()
    return counts


def run_presets(args: argparse.Namespace, output: Output) -> int:
    import yaml

    from core.commands.output import UsageError
    from core.config import nest
    from core.config.presets import list_presets, load_preset

    workspace = open_workspace(args)
    if args.action == "show":
        if not args.name:
            raise UsageError("presets show needs a preset's name: presets show quickstart")
        preset = load_preset(args.name, workspace)
        settings = nest(preset.settings)
        record = {**_record(preset), "settings": settings, "config": preset.config().model_dump()}
        about = f"# {preset.title}: {preset.description}\n# {preset.when}\n"
        output.result(record, about + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        return DONE
    presets = list_presets(workspace)
    rows = [(p.name, p.title, p.problem or p.when or p.description) for p in presets]
    output.result({"presets": [_record(p) for p in presets]}, table(("NAME", "TITLE", ""), rows))
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
