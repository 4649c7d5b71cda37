"""The README of an exported model: what it is, what it was made from, how to load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from core.config import RunConfig, nest
from core.config.adapter import NAMES
from core.data.record import DatasetInfo
from core.evaluation.report import list_evaluations
from core.evaluation.verdict import verdict
from core.export.format import HUB_ID, Base, Format, Part
from core.jobs.job import read_record
from core.models.trained import TrainedModel

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
) -> None:
    """Writes README.md. `parts` are the models in the folder, `checks` are sentences on what was
    verified; `lineage` tells of the runs before, as core.runs.lineage does."""
    run = trained.run.root
    title = (trained.config.name or read_record(run).get("name") or run.name).replace("\n", " ")
    sections = [
        _front_matter(base, form, trained.config),
        f"# {title}",
        _what_it_is(trained, base, dataset, form, dtype),
        "## How to load it",
        form.loading(base, trained.config.training_method.makes, parts),
        *form.needs(trained),
        "## How it was made",
        _settings(trained, base, dataset, lineage),
        *_measured(trained),
        *(["## What was checked", "\n".join(f"- {check}" for check in checks)] if checks else []),
        "## Licence",
        _license(base, dataset),
    ]
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _front_matter(base: Base, form: Format, config: RunConfig) -> str:
    values: dict[str, object] = {
        "library_name": form.library,
        "pipeline_tag": _PIPELINES[config.training_method.makes],
        "tags": ["tunesmith", config.method, *form.tags(config)],
    }
    if base.is_public:
        values |= {"base_model": base.name, "base_model_relation": form.relation}
    elif HUB_ID.fullmatch(base.made_of):
        values |= {"base_model": base.made_of, "base_model_relation": "finetune"}
    if base.license:
        values["license"] = base.license
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


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


def _measured(trained: TrainedModel) -> list[str]:
    """The verdict of the newest evaluation of this checkpoint, if there is one."""
    for one in list_evaluations(trained.run.root):
        if one.report and one.checkpoint == trained.checkpoint:
            told = f"{verdict(one.report)} (Measured on {one.report.rows} rows.)"
            return ["## How good it is", told]
    return []


def _license(base: Base, dataset: DatasetInfo | None) -> str:
    known = f"is under {base.license}" if base.license else "has a licence that its page names"
    return (
        f"The base, {base.made_of or base.name}, {known}; it holds for this model too. Whether the "
        "training data adds conditions is for whoever publishes this to say."
    )
