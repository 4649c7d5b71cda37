"""The README of an exported model: what it is, what it was made from, how to load it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from core.config import RunConfig, nest
from core.config.adapter import NAMES
from core.data.record import DatasetInfo
from core.evaluation.report import list_evaluations
from core.evaluation.verdict import verdict
from core.models.origin import maker_of, own_base, read_origin
from core.models.starter import STARTER_MODELS, StarterModel
from core.models.trained import TrainedModel
from core.runs.lineage import lineage_text

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PIPELINES = {
    "writer": "text-generation",
    "filler": "fill-mask",
    "classifier": "text-classification",
    "scorer": "text-classification",
}


@dataclass(frozen=True)
class Base:
    """The base model as the world knows it.

    `is_public` says that `name` is a Hub id; else it is the name of a folder on the machine that
    trained. `license` is an SPDX id in lower case, "" where it is not known. `is_copy` says that
    the weights in use came from a quantized copy, not from the Hub. `made_of` names the first base
    where this one was made of it by other runs.
    """

    name: str
    is_public: bool
    license: str = ""
    is_copy: bool = False
    made_of: str = ""


def base_of_run(trained: TrainedModel, loaded_from: str) -> Base:
    """The base of a run; one that another run made is known by that run's id."""
    origin, first = read_origin(trained.run), trained.config.model.model_name_or_path
    if origin is None or own_base(trained.run) is None:
        return describe_base(first, loaded_from)
    known = describe_base(first, first)
    return Base(maker_of(origin).run, False, known.license, made_of=known.name)


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
        _front_matter(base, format_name, trained.config),
        f"# {title}",
        _what_it_is(trained, base, dataset, format_name, dtype),
        "## How to load it",
        _loading(base, format_name, trained.config.training_method.makes),
        *_room(trained, format_name),
        "## How it was made",
        _settings(trained, base, dataset),
        *_measured(trained),
        "## What was checked",
        "\n".join(f"- {check}" for check in checks),
        "## Licence",
        _license(base, dataset),
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _front_matter(base: Base, format_name: str, config: RunConfig) -> str:
    method = config.method
    kind = [config.adapter.method.replace("_", "-")] if format_name == "adapter" else []
    values: dict[str, object] = {
        "library_name": "peft" if format_name == "adapter" else "transformers",
        "pipeline_tag": _PIPELINES[config.training_method.makes],
        "tags": ["tunesmith", method, *kind],
    }
    if base.is_public:
        values["base_model"] = base.name
        values["base_model_relation"] = "adapter" if format_name == "adapter" else "finetune"
    elif _HUB_ID.fullmatch(base.made_of):
        values |= {"base_model": base.made_of, "base_model_relation": "finetune"}
    if base.license:
        values["license"] = base.license
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _what_it_is(
    trained: TrainedModel, base: Base, dataset: DatasetInfo | None, format_name: str, dtype: str
) -> str:
    data = f"the data set {dataset.name}" if dataset else "a data set that is no longer there"
    state = "at the end of the run" if trained.checkpoint == "final" else f"at {trained.checkpoint}"
    of = f"**{base.name}**"
    if base.made_of:
        of = f"what run `{base.name}` made of **{base.made_of}**"
    if format_name == "adapter":
        what = (
            f"An adapter ({NAMES[trained.config.adapter.method]}) for {of}, trained on {data}. It "
            "holds only what was learned and needs its base to run."
        )
    else:
        what = (
            f"{of[0].upper()}{of[1:]}, trained on {data}: a whole model that needs nothing else. "
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


def _loading(base: Base, format_name: str, makes: str) -> str:
    note = ""
    name = base.name
    kind = "AutoModelForMaskedLM" if makes == "filler" else "AutoModelForCausalLM"
    if not base.is_public:
        name = f"path/to/{base.name}"
        if format_name == "adapter":
            note = (
                f"The base was a folder called `{base.name}` on the machine that trained; put "
                "the path of yours in its place.\n\n"
            )
        if format_name == "adapter" and base.made_of:
            note = (
                f"**The adapter is of no use alone, and not on {base.made_of} either.** Its base "
                f"is what run `{base.name}` made of {base.made_of}: export that run as a merged "
                "model and put its path in place. The merged export of this run needs nothing "
                "else.\n\n"
            )
    if base.is_copy and format_name == "adapter":
        note = (
            f"It was trained on a copy of {base.name} whose weights had been quantized to 4 bits "
            "and back. On the original weights it answers nearly, but not exactly, as it did "
            "here; the merged model answers exactly so.\n\n"
        )
    if makes == "classifier":
        code = _classifier_code(name, format_name)
    elif makes == "scorer":
        code = _scorer_code(name, format_name)
    elif format_name == "adapter":
        code = (
            "from peft import PeftModel\n"
            f"from transformers import {kind}, AutoTokenizer\n\n"
            f'base = {kind}.from_pretrained("{name}", dtype="auto")\n'
            'model = PeftModel.from_pretrained(base, "path/to/this/folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'
        )
    else:
        code = (
            f"from transformers import {kind}, AutoTokenizer\n\n"
            f'model = {kind}.from_pretrained("path/to/this/folder", dtype="auto")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'
        )
    return f"{note}```python\n{code}\n```"


def _room(trained: TrainedModel, format_name: str) -> list[str]:
    """What an adapter with new tokens needs of its base."""
    tokens = trained.new_tokens
    if tokens is None or format_name != "adapter":
        return []
    return [
        f"It brings {len(tokens.ids)} new tokens with it. Give the base as many rows of embeddings "
        f"before you load the adapter: `base.resize_token_embeddings({tokens.rows})`, if it has "
        "fewer."
    ]


def _classifier_code(name: str, format_name: str) -> str:
    if format_name != "adapter":
        return (
            "from transformers import pipeline\n\n"
            'give_labels = pipeline("text-classification", "path/to/this/folder", top_k=None)\n'
            'print(give_labels("A text."))'
        )
    return (
        "import json\n\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        'folder = "path/to/this/folder"\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        'ids = json.load(open(f"{folder}/label_mapping.json", encoding="utf-8"))["label2id"]\n'
        "base = AutoModelForSequenceClassification.from_pretrained(\n"
        f'    "{name}",\n'
        "    label2id=ids,\n"
        "    id2label={number: label for label, number in ids.items()},\n"
        "    pad_token_id=tokenizer.pad_token_id,\n"
        ")\n"
        "model = PeftModel.from_pretrained(base, folder)"
    )


def _scorer_code(name: str, format_name: str) -> str:
    place = '"path/to/this/folder"'
    load = f"AutoModelForSequenceClassification.from_pretrained({place}, num_labels=1)"
    peft, wrap = "", ""
    if format_name == "adapter":
        peft = "from peft import PeftModel\n"
        load = f'AutoModelForSequenceClassification.from_pretrained("{name}", num_labels=1)'
        wrap = f"\nmodel = PeftModel.from_pretrained(model, {place})"
    return (
        f"{peft}from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({place})\n"
        f"model = {load}{wrap}\n"
        "model.config.pad_token_id = tokenizer.pad_token_id\n"
        "turns = [\n"
        '    {"role": "user", "content": "A question"},\n'
        '    {"role": "assistant", "content": "An answer"},\n'
        "]\n"
        "text = tokenizer.apply_chat_template(turns, tokenize=False)\n"
        'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")\n'
        "print(model.eval()(**inputs).logits.item())  # higher is better"
    )


def _settings(trained: TrainedModel, base: Base, dataset: DatasetInfo | None) -> str:
    config = trained.config
    method = config.training_method.description
    if config.method == "cpo" and config.preference.cpo_loss_type == "simpo":
        method = "simple preference optimization (SimPO)"
    how = NAMES[config.adapter.method]
    text = f"By {method}, training {how}."
    before = lineage_text(trained.run)
    if before:
        text += f" It came {before}; the first base was "
        text += f"{base.made_of or base.name}."
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
