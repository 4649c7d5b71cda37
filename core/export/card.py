"""The README of an exported model: what it is, what it was made from, how to load it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from core.config import nest
from core.data.record import DatasetInfo
from core.evaluation.reports import list_evaluations
from core.models.starter import STARTER_MODELS, StarterModel
from core.models.trained import TrainedModel

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_METHODS = {"sft": "supervised fine-tuning (SFT)"}


@dataclass(frozen=True)
class Base:
    """The base model as the world knows it.

    `is_public` says that `name` is a Hub id; else it is the name of a folder on the machine that
    trained. `license` is an SPDX id in lower case, "" where it is not known. `is_copy` says that
    the weights in use came from a quantized copy, not from the Hub.
    """

    name: str
    is_public: bool
    license: str = ""
    is_copy: bool = False


def describe_base(name: str, loaded_from: str) -> Base:
    """The base that a run calls `name` and that was loaded from a folder or the Hub."""
    starter = _starter(name)
    if starter is not None:
        # A model's folder from the Hub lies in its cache, named by commit.
        from_wheel = Path(loaded_from).name == starter.name
        is_copy = from_wheel and starter.source.member.endswith(".gguf")
        return Base(starter.hub_id, True, starter.license.lower(), is_copy)
    folder = Path(loaded_from)
    if folder.is_dir():
        return Base(folder.name, False, _license_in(folder / "README.md"))
    return Base(name, bool(_HUB_ID.fullmatch(name)))


def write_card(
    folder: Path,
    trained: TrainedModel,
    base: Base,
    dataset: DatasetInfo | None,
    *,
    format_name: str,
    dtype: str,
    checks: list[str],
) -> None:
    """Writes README.md. `checks` are sentences on what was verified."""
    title = (trained.config.name or trained.run.root.name).replace("\n", " ")
    parts = [
        _front_matter(base, format_name, dataset),
        f"# {title}",
        _what_it_is(trained, base, dataset, format_name, dtype),
        "## How to load it",
        _loading(base, format_name, dtype),
        "## How it was made",
        _settings(trained, base, dataset),
        *_measured(trained),
        "## What was checked",
        "\n".join(f"- {check}" for check in checks),
        "## Licence",
        _license(base, dataset),
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _front_matter(base: Base, format_name: str, dataset: DatasetInfo | None) -> str:
    values: dict[str, object] = {
        "library_name": "peft" if format_name == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["tunesmith", "sft", *(["lora"] if format_name == "adapter" else [])],
    }
    if base.is_public:
        values["base_model"] = base.name
        values["base_model_relation"] = "adapter" if format_name == "adapter" else "finetune"
    if base.license:
        values["license"] = base.license
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _what_it_is(
    trained: TrainedModel, base: Base, dataset: DatasetInfo | None, format_name: str, dtype: str
) -> str:
    data = f"the data set {dataset.name}" if dataset else "a data set that is no longer there"
    state = "at the end of the run" if trained.checkpoint == "final" else f"at {trained.checkpoint}"
    if format_name == "adapter":
        what = (
            f"A LoRA adapter for **{base.name}**, trained on {data}. It holds only what was "
            "learned and needs its base to run."
        )
    else:
        what = (
            f"**{base.name}**, trained on {data}: a whole model that needs nothing else. "
            f"Its weights are in {dtype}."
        )
    text = f"{what} Made with Tunesmith from run `{trained.run.root.name}`, {state}."
    if trained.config.adapter.quantization != "none":
        text += (
            f"\n\nIn training the base was held in {trained.config.adapter.quantization} to save "
            "memory. The export was made and checked with the base unquantized, so answers can "
            "differ a little from those seen in training."
        )
    return text


def _loading(base: Base, format_name: str, dtype: str) -> str:
    note = ""
    name = base.name
    if not base.is_public:
        name = f"path/to/{base.name}"
        if format_name == "adapter":
            note = (
                f"The base was a folder called `{base.name}` on the machine that trained; put "
                "the path of yours in its place.\n\n"
            )
    if base.is_copy and format_name == "adapter":
        note = (
            f"It was trained on a copy of {base.name} whose weights had been quantized to 4 bits "
            "and back. On the original weights it answers nearly, but not exactly, as it did "
            "here; the merged model answers exactly so.\n\n"
        )
    if format_name == "adapter":
        code = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")\n'
            'model = PeftModel.from_pretrained(base, "path/to/this/folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'
        )
    else:
        code = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'
        )
    return f"{note}```python\n{code}\n```"


def _settings(trained: TrainedModel, base: Base, dataset: DatasetInfo | None) -> str:
    config = trained.config
    method = _METHODS.get(config.method, config.method)
    how = "LoRA" if trained.is_adapter else "every weight"
    text = f"By {method}, training {how}."
    if dataset:
        text += (
            f" The data: {dataset.name}, {dataset.counts.train} rows to learn from and "
            f"{dataset.counts.eval} held out"
        )
        text += f" (fingerprint `{dataset.fingerprint[:16]}`)." if dataset.fingerprint else "."
    changed = config.changed()
    for path in ("name", "data.dataset", "data.dataset_fingerprint"):
        changed.pop(path, None)
    changed["model.model_name_or_path"] = base.name
    shown = yaml.safe_dump(nest(changed), sort_keys=False, allow_unicode=True)
    return f"{text} The settings that differ from Tunesmith's defaults:\n\n```yaml\n{shown}```"


def _measured(trained: TrainedModel) -> list[str]:
    """The verdict of the newest evaluation of this checkpoint, if there is one."""
    for report in list_evaluations(trained.run.root):
        if report.result and report.checkpoint == trained.checkpoint:
            rows = report.result["rows"]
            return ["## How good it is", f"{report.verdict} (Measured on {rows} rows.)"]
    return []


def _license(base: Base, dataset: DatasetInfo | None) -> str:
    known = f"is under {base.license}" if base.license else "has a licence that its page names"
    return (
        f"The base, {base.name}, {known}; it holds for this model too. Whether the training data "
        "adds conditions is for whoever publishes this to say."
    )


def _starter(name: str) -> StarterModel | None:
    return next((m for m in STARTER_MODELS.values() if name in (m.name, m.hub_id)), None)


def _license_in(readme: Path) -> str:
    """The licence that a model card's front matter names."""
    try:
        text = readme.read_text(encoding="utf-8", errors="replace")
        values = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, IndexError, yaml.YAMLError):
        return ""
    return str(values.get("license") or "").lower() if isinstance(values, dict) else ""
