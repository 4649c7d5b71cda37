"""A run of supervised fine-tuning or DPO as a script of TRL and PEFT, with its rows."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from string import Template
from typing import Any

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.errors import ExportError
from core.export.format import Base
from core.language import _
from core.models.modelscope import fetching_code
from core.models.trained import TrainedModel
from core.tokens.tokenize import NO_LOSS
from core.worker.models.loading import DTYPES, quantization_config

_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
_SCRIPT = Template('''\
# /// script
# requires-python = ">=3.11"
# dependencies = [
$dependencies
# ]
# ///
"""Trains again what Tunesmith's run $run trained, with TRL, transformers and PEFT alone.

    uv run train.py [--model FOLDER_OR_ID] [--output FOLDER]

train.jsonl, and eval.jsonl where rows were held out, hold the rows as the run's trainer got them:
$columns
The chat template and that choice were applied by Tunesmith and are not repeated here: to train on
other rows, tokenize them alike. The tokenizer beside this file pads the rows and is saved with the
model.

Losses are the run's but for rounding: Tunesmith computes no padding, which changes nothing but the
speed. `eval_loss` is TRL's mean over batches; Tunesmith's is one over tokens.$note
"""

import argparse
from pathlib import Path

import torch
from datasets import load_dataset
$imports
$tokenized
HERE = Path(__file__).resolve().parent

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default=$model, help="the base: a folder or an id on the Hub")
parser.add_argument("--output", default="output", help="folder of checkpoints and of the result")
given = parser.parse_args()
$fetching
tokenizer = AutoTokenizer.from_pretrained(HERE)
rows = load_dataset(
    "json", data_files={path.stem: str(path) for path in sorted(HERE.glob("*.jsonl"))}
)
model = AutoModelForCausalLM.from_pretrained(
    given.model,
$loading
)
args = $config(
    output_dir=given.output,
$settings
)
trainer = $trainer(
    model=model,
    args=args,
    train_dataset=rows["train"],
    eval_dataset=rows.get("eval"),
    processing_class=tokenizer,
$more
)
trainer.train()
trainer.save_model(f"{given.output}/final")
trainer.save_state()
''')

_SFT_COLUMNS = """\
`input_ids` are a row's tokens, cut at $max_length; `labels` are the same tokens where the run
learned from them (data.learn: $learn) and -100 elsewhere."""
_DPO_COLUMNS = """\
`prompt_ids` are the tokens of a conversation, `chosen_ids` and `rejected_ids` those of the better
and the worse answer, cut at $max_length."""
_TOKENIZED = """

class TokenizedDPOTrainer(DPOTrainer):
    def _prepare_dataset(self, dataset, *given, **options):
        return dataset  # its rows are tokens already


"""


def write(
    folder: Path, trained: TrainedModel, base: Base, tokenizer: Any, info: DatasetInfo
) -> dict[str, int]:
    """Writes train.py, train.jsonl and, for a run that evaluated, eval.jsonl; the number of rows
    of each. Raises DataError when nothing can be learned from the rows."""
    config = trained.config
    counts = {"train": _write_rows(folder, "train", info, tokenizer, config)}
    if config.evaluation.eval_strategy != "no":
        counts["eval"] = _write_rows(folder, "eval", info, tokenizer, config)
    (folder / "train.py").write_text(script(trained, base), encoding="utf-8")
    return counts


def _write_rows(
    folder: Path, part: Part, info: DatasetInfo, tokenizer: Any, config: RunConfig
) -> int:
    from core.worker.training.preference import judged_rows
    from core.worker.training.text import sft_rows

    limit = config.data.max_train_samples if part == "train" else None
    read = judged_rows if config.training_method.is_paired else sft_rows
    rows = read(info, part, tokenizer, config, limit=limit).dataset
    with (folder / f"{part}.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_pair(row) if config.training_method.is_paired else row) + "\n")
    return len(rows)


def _pair(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """A preference in the columns that TRL's collator takes. Raises ExportError where the answers
    do not stand after one prompt and in one piece."""
    prompts, answers = [], []
    for side in ("chosen", "rejected"):
        ids, labels = row[f"{side}_input_ids"], row[f"{side}_labels"]
        learned = [place for place, label in enumerate(labels) if label != NO_LOSS]
        prompts.append(ids[: learned[0]])
        answers.append(ids[learned[0] : learned[-1] + 1])  # what comes after changes no loss
        is_whole = len(answers[-1]) == len(learned)
        if not is_whole or prompts[-1] != prompts[0]:
            raise ExportError(
                _(
                    "The answers of a row do not follow one prompt in one piece, which TRL's "
                    "DPOTrainer needs."
                ),
                _("Export it in another form."),
            )
    return {"prompt_ids": prompts[0], "chosen_ids": answers[0], "rejected_ids": answers[1]}


def script(trained: TrainedModel, base: Base) -> str:
    """The text of train.py."""
    from core.worker.training.adapters import peft_config

    config = trained.config
    transformers, more, packages = ["AutoModelForCausalLM", "AutoTokenizer"], [], list(_PACKAGES)
    if config.adapter.quantization != "none":
        transformers.append("BitsAndBytesConfig")
        packages.append("bitsandbytes")
    adapter = peft_config(config)
    imports = [] if adapter is None else [f"from peft import {type(adapter).__name__}"]
    if adapter is not None:
        more.append(f"peft_config={_call(adapter)},")
    evaluation = config.evaluation
    if evaluation.early_stopping_patience is not None:
        transformers.append("EarlyStoppingCallback")
        patience = evaluation.early_stopping_patience, evaluation.early_stopping_threshold
        more.append(f"callbacks=[EarlyStoppingCallback{patience!r}],")
    imports.append(f"from transformers import {', '.join(transformers)}")
    kind = "DPO" if config.training_method.is_paired else "SFT"
    imports.append(f"from trl import {kind}Config, {kind}Trainer")
    columns = Template(_DPO_COLUMNS if kind == "DPO" else _SFT_COLUMNS)
    note = "\nThe run took its base from a quantized copy: here it is the exact one."
    fetching = ""
    if base.is_of_modelscope:
        imports.insert(0, "from modelscope_hub import HubApi")
        packages.append("modelscope-hub")
        fetching = (
            f"if given.model == {base.name!r}:\n    given.model = {fetching_code(base.name)}\n"
        )
    return _SCRIPT.substitute(
        dependencies="\n".join(f'#     "{name}=={_version(name)}",' for name in packages),
        run=trained.run.root.name,
        columns=columns.substitute(max_length=config.training.max_length, learn=config.data.learn),
        config=f"{kind}Config",
        trainer="TokenizedDPOTrainer" if kind == "DPO" else "SFTTrainer",
        tokenized=_TOKENIZED if kind == "DPO" else "",
        note=note if base.is_copy else "",
        imports="\n".join(imports),
        model=repr(base.name),
        fetching=fetching,
        loading=_lines(_loading(config)),
        settings=_lines(f"{name}={value!r}," for name, value in _settings(trained).items()),
        more=_lines(more),
    )


def _loading(config: RunConfig) -> list[str]:
    precision = config.training.precision if config.adapter.is_adapter else "fp32"
    found = [f"dtype={DTYPES[precision]},"]
    if config.model.model_revision != "main":
        found.append(f"revision={config.model.model_revision!r},")
    if config.model.attn_implementation != "auto":
        found.append(f"attn_implementation={config.model.attn_implementation!r},")
    bits = quantization_config(config, precision)
    if bits is None:
        return found
    found.append(f"device_map={ {'': config.training.device}!r},")
    given = "load_in_8bit=True"
    if bits.load_in_4bit:
        given = (
            f"load_in_4bit=True, bnb_4bit_quant_type={bits.bnb_4bit_quant_type!r}, "
            f"bnb_4bit_use_double_quant={bits.bnb_4bit_use_double_quant}, "
            f"bnb_4bit_compute_dtype={bits.bnb_4bit_compute_dtype}"
        )
    return [*found, f"quantization_config=BitsAndBytesConfig({given}),"]


def _settings(trained: TrainedModel) -> dict[str, Any]:
    """What TRL's config is given beside its defaults, as core.worker.training gives it."""
    from trl import DPOConfig, SFTConfig

    from core.worker.training.preference import dpo_arguments
    from core.worker.training.recipe import arguments

    config = trained.config
    of_method: dict[str, Any] = {
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "loss_type": config.training.sft_loss_type,
    }
    if config.training_method.is_paired:
        of_method = dpo_arguments(config)
        of_method["eval_on_start"] = config.evaluation.eval_strategy != "no"
    given = {"max_length": None, **of_method, **arguments(config, trained.run)}
    defaults = _defaults(DPOConfig if config.training_method.is_paired else SFTConfig)
    del given["output_dir"], given["disable_tqdm"]
    best = given["metric_for_best_model"]
    if best:  # the exponential of the loss, which TRL does not log: both fall together
        given["metric_for_best_model"] = best.replace("perplexity", "loss")
    return {
        name: value.value if isinstance(value, Enum) else value
        for name, value in given.items()
        if value != defaults.get(name)
    }


def _call(config: Any) -> str:
    """Code that makes an adapter's config again, such as LoraConfig(r=16)."""
    defaults = _defaults(type(config))
    plain = type(config)()
    values = []
    for name in defaults:
        value = getattr(config, name, None)
        if value != getattr(plain, name, None):
            value = value.value if isinstance(value, Enum) else value
            values.append(f"{name}={sorted(value) if isinstance(value, set) else value!r},")
    return f"{type(config).__name__}(\n{_lines(values, 8)}\n    )"


def _defaults(kind: Any) -> dict[str, Any]:
    """What a dataclass takes, with its defaults."""
    return {
        one.name: one.default_factory()
        if one.default_factory is not dataclasses.MISSING
        else one.default
        for one in dataclasses.fields(kind)
        if one.init
    }


def _lines(lines: Iterable[str], indent: int = 4) -> str:
    return "\n".join(f"{' ' * indent}{line}" for line in lines)


def _version(package: str) -> str:
    """Without the mark of a build, such as +cpu, which no index has."""
    return importlib.metadata.version(package).partition("+")[0]
