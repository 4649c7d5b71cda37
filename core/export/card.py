"""The README of an exported model: what it is, what it was made from, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from core.config import RunConfig, nest
from core.config.adapter import NAMES
from core.config.fields import Section, knob
from core.data.record import DatasetInfo
from core.errors import ConfigError, Problem
from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS
from core.evaluation.report import Report, list_evaluations
from core.evaluation.verdict import verdict
from core.export.combine import Combination
from core.export.curve_picture import Point, picture
from core.export.format import HUB_ID, Base, Format, Part
from core.jobs.job import read_record
from core.language import _
from core.models.trained import TrainedModel
from core.workspace import write_atomic

CARD = "README.md"
_PIPELINES = {
    "writer": "text-generation",
    "filler": "fill-mask",
    "classifier": "text-classification",
    "scorer": "text-classification",
}


def write_card(
    folder: Path,
    trained: TrainedModel,
    base: Base,
    dataset: DatasetInfo | None,
    *,
    form: Format,
    dtype: str,
    parts: Sequence[Part],
    checks: list[str],
    lineage: str = "",
    combination: Combination | None = None,
    curves: Mapping[str, Sequence[Point]] | None = None,
) -> None:
    """Writes README.md, and a picture of the run's `curves`. `parts` are the models in the folder,
    `checks` are sentences on what was verified; `lineage` tells of the runs before, as
    core.runs.lineage does; `combination` of the runs whose adapters were taken in."""
    run = trained.run.root
    title = (trained.config.name or read_record(run).get("name") or run.name).replace("\n", " ")
    # An evaluation is of the run's own adapter, not of what is combined with it.
    report = _newest_report(trained) if combination is None else None
    drawn = picture({name: (curves or {}).get(name, ()) for name in ("loss", "eval_loss")})
    if drawn:
        (folder / "curves.svg").write_text(drawn, encoding="utf-8")
    sections = [
        _front_matter(title, base, form, trained.config, report, combination),
        f"# {title}",
        _what_it_is(trained, base, dataset, form, dtype),
        "## How to load it",
        form.loading(base, trained.config.training_method.makes, parts),
        *form.needs(trained),
        "## How it was made",
        _settings(trained, base, dataset, lineage),
        *([_combined(trained, combination)] if combination else []),
        *(["![Loss by step](curves.svg)"] if drawn else []),
        f"Made with {_versions()}.",
        *(["## How good it is", _measured(report)] if report else []),
        *(["## What was checked", "\n".join(f"- {check}" for check in checks)] if checks else []),
        "## Intended use and limits",
        _USE,
        "## Licence",
        _license(base, dataset),
    ]
    (folder / CARD).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


_MOST_CHARACTERS = 1_000_000


class CardText(Section):
    """The card of an export, as a person edits it."""

    card: str = knob("", "README.md", level="basic", free_text=True)
    """The card as it will be sent. It begins with what the Hub reads (YAML between two lines of
    `---`), then comes Markdown. What you change is kept with the export."""


def read_card(folder: Path) -> str:
    """The card of an export."""
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def save_card(folder: Path, text: str) -> bool:
    """Keeps an edited card with its export; whether it is another one now. Raises ConfigError for
    one that the Hub would not understand."""
    text = text.replace("\r\n", "\n").strip() + "\n"
    if text.strip() == read_card(folder).strip():
        return False
    if wrong := _wrong_with(text):
        raise ConfigError([Problem("card", wrong)])
    write_atomic(folder / CARD, text)
    return True


def _wrong_with(text: str) -> str:
    from huggingface_hub import ModelCard

    if len(text) > _MOST_CHARACTERS:
        return _("it has more than {n:,} characters", n=_MOST_CHARACTERS)
    head, end, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not end:
        return _("it must begin with YAML between two lines of ---")
    try:
        if not isinstance(yaml.safe_load(head), dict):
            return _("its YAML must be names with values, such as license: mit")
        ModelCard(text)
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        reason = str(getattr(error, "problem", None) or error)
        if at is None:
            return _("its YAML cannot be read: {reason}", reason=reason)
        return _("its YAML cannot be read at line {n}: {reason}", n=at.line + 2, reason=reason)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # what model-index must hold
        return _(
            "its YAML is not what the Hub expects: {reason}", reason=" ".join(str(error).split())
        )
    return "" if body.strip() else _("there is nothing after its YAML")


_USE = """To be filled in by whoever publishes it:

- What it is for, and for whom: ...
- What it must not be used for: ...
- Where it fails, and what was not measured: ..."""


def _front_matter(
    title: str,
    base: Base,
    form: Format,
    config: RunConfig,
    report: Report | None,
    combination: Combination | None,
) -> str:
    """What the Hub reads, as huggingface_hub writes it."""
    from huggingface_hub import EvalResult, ModelCardData

    task = _PIPELINES[config.training_method.makes]
    found: dict[str, Any] = {}
    if base.is_public:
        found = {"base_model": base.name, "base_model_relation": form.relation}
    elif HUB_ID.fullmatch(base.made_of):
        found = {"base_model": base.made_of, "base_model_relation": "finetune"}
    if report is not None:
        found["model_name"] = title
        found["eval_results"] = [
            EvalResult(
                task_type=task,
                dataset_type=report.dataset.id or "own",
                dataset_name=report.dataset.name or "its own held-out rows",
                metric_type=key,
                metric_value=round(number.value, 4),
                metric_name=f"{METRICS[key].title}",
            )
            for key, number in _numbers(report)
        ]
    values = ModelCardData(
        library_name=form.library,
        pipeline_tag=task,
        tags=[
            "tunesmith",
            config.method,
            *form.tags(config),
            *(["merge"] if combination else []),
        ],
        license=base.license or None,
        **found,
    )
    return f"---\n{values.to_yaml()}\n---"


def _newest_report(trained: TrainedModel) -> Report | None:
    """Of the evaluations of this checkpoint."""
    found = (one for one in list_evaluations(trained.run.root) if one.report)
    return next((one.report for one in found if one.checkpoint == trained.checkpoint), None)


def _numbers(report: Report) -> list[tuple[str, Estimate]]:
    """The tuned model's numbers that are one number, by the key of their metric."""
    found = [(key, report.number(key)) for key in METRICS if key in report.tuned]
    return [(key, number) for key, number in found if number is not None]


def _versions() -> str:
    names = ("torch", "transformers", "peft", "trl", "datasets")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _what_it_is(
    trained: TrainedModel, base: Base, dataset: DatasetInfo | None, form: Format, dtype: str
) -> str:
    data = f"the data set {dataset.name}" if dataset else "a data set that is no longer there"
    state = "at the end of the run" if trained.checkpoint == "final" else f"at {trained.checkpoint}"
    of = f"**{base.name}**"
    if base.made_of:
        of = f"what run `{base.name}` made of **{base.made_of}**"
    what = form.what(of, data, trained.config, dtype)
    text = f"{what} Made with Tunesmith from run `{trained.run.root.name}`, {state}."
    if trained.config.adapter.quantization != "none":
        text += (
            f"\n\nIn training the base was held in {trained.config.adapter.quantization} to save "
            "memory. The export was made and checked with the base unquantized, so answers can "
            "differ a little from those seen in training."
        )
    return text


def _settings(trained: TrainedModel, base: Base, dataset: DatasetInfo | None, lineage: str) -> str:
    config = trained.config
    method = config.training_method.description
    if config.method == "cpo" and config.preference.cpo_loss_type == "simpo":
        method = "simple preference optimization (SimPO)"
    how = NAMES[config.adapter.method]
    text = f"By {method}, training {how}."
    if lineage:
        text += f" It came {lineage}; the first base was {base.made_of or base.name}."
    if dataset:
        text += (
            f" The data: {dataset.name}, {dataset.counts.train} rows to learn from and "
            f"{dataset.counts.eval} held out"
        )
        text += f" (fingerprint `{dataset.fingerprint[:16]}`)." if dataset.fingerprint else "."
    changed = config.changed()
    for path in ("name", "data.dataset", "data.dataset_fingerprint"):
        changed.pop(path, None)
    changed["model.model_name_or_path"] = base.made_of or base.name
    shown = yaml.safe_dump(nest(changed), sort_keys=False, allow_unicode=True)
    return f"{text} The settings that differ from Tunesmith's defaults:\n\n```yaml\n{shown}```"


def _combined(trained: TrainedModel, combination: Combination) -> str:
    """Whose adapters are in it."""
    way = combination.way
    how = f"`{way.combination_type}`"
    if combination.prunes:
        how += f" with density {way.density:g}"
    shares = [(trained.run.root.name, trained.checkpoint, way.weight)]
    shares += [(one.run, one.checkpoint, one.weight) for one in combination.others]
    lines = ["| run | checkpoint | weight |", "|---|---|---|"]
    lines += [f"| {run} | {checkpoint} | {weight:g} |" for run, checkpoint, weight in shares]
    return (
        "**The adapters of several runs on one base are combined in it**, by PEFT's "
        f"`add_weighted_adapter`, {how}. What stands above is of the first run.\n\n"
        + "\n".join(lines)
    )


def _measured(report: Report) -> str:
    """The verdict of an evaluation and its numbers with their intervals."""
    lines = ["| | tuned (95 % interval) | base |", "|---|---|---|"]
    for key, number in _numbers(report):
        base = report.number(key, "base")
        lines.append(
            f"| {METRICS[key].title} | {_spelled(number)} | {_spelled(base) if base else ''} |"
        )
    return f"{verdict(report)} (Measured on {report.rows} rows.)\n\n" + "\n".join(lines)


def _spelled(number: Estimate) -> str:
    if number.low is None or number.high is None:
        return f"{number.value:.4g}"
    return f"{number.value:.4g} ({number.low:.4g} to {number.high:.4g})"


def _license(base: Base, dataset: DatasetInfo | None) -> str:
    known = f"is under {base.license}" if base.license else "has a licence that its page names"
    text = (
        f"The base, {base.made_of or base.name}, {known}; it holds for this model too. Whether the "
        "training data adds conditions is for whoever publishes this to say."
    )
    if "-nc" in base.license:
        text += " **It allows no commercial use.**"
    elif base.license in _OWN_CONDITIONS or base.license.startswith(("llama", "gemma")):
        text += " **It has conditions of its own: read them before you publish this.**"
    return text


_OWN_CONDITIONS = ("other", "unknown")
