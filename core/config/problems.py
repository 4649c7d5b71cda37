"""Turns pydantic's errors into problems at the field's own path, each saying what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from core.config.fields import FieldSpec
from core.errors import Problem

# Names that other tools give to a setting, so that a config brought along can be mended quickly.
_FAMILIAR = {
    "batch_size": "training.per_device_train_batch_size",
    "bf16": "training.precision",
    "cutoff_len": "training.max_length",
    "dataset_name": "data.dataset",
    "epochs": "training.num_train_epochs",
    "evaluation_strategy": "evaluation.eval_strategy",
    "finetuning_type": "adapter.method",
    "fp16": "training.precision",
    "load_in_4bit": "adapter.quantization",
    "load_in_8bit": "adapter.quantization",
    "lora_r": "adapter.r",
    "lora_rank": "adapter.r",
    "lora_target": "adapter.target_modules",
    "lora_target_modules": "adapter.target_modules",
    "lr": "training.learning_rate",
    "max_seq_len": "training.max_length",
    "max_seq_length": "training.max_length",
    "model": "model.model_name_or_path",
    "model_name": "model.model_name_or_path",
    "quantization_bit": "adapter.quantization",
    "warmup_ratio": "training.warmup_steps",
}


def problems_of(error: ValidationError, specs: Mapping[str, FieldSpec]) -> list[Problem]:
    """One problem for each wrong field, in the order of the config."""
    found: dict[str, Problem] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        path = next((prefix for prefix in prefixes if prefix in specs), prefixes[0])
        if path in found:  # each branch of a union reports on its own
            continue
        if item["type"] == "extra_forbidden":
            for name in _leaves(path, item["input"]):
                found[name] = unknown_field(name, specs)
        elif path not in specs:
            found[path] = Problem(path, "is a section: name its settings below it.")
        else:
            found[path] = Problem(path, _message(specs[path], item))
    return list(found.values())


def unknown_field(path: str, specs: Mapping[str, FieldSpec]) -> Problem:
    """A key that is no setting, with the nearest one."""
    name = path.rpartition(".")[2]
    same_name = [known for known in specs if known.rpartition(".")[2] == name]
    near = (
        same_name[:1]
        or [_FAMILIAR[name] for _ in range(name in _FAMILIAR)]
        or difflib.get_close_matches(path, list(specs), n=1, cutoff=0.6)
        or _nearest_name(name, specs)
    )
    return Problem(
        path, f"is not a setting; did you mean {near[0]}?" if near else "is not a setting."
    )


def _leaves(path: str, value: Any) -> list[str]:
    """The settings below a section that does not exist; a plain value's own path."""
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(f"{path}.{key}", item)]
    return [path]


def _nearest_name(name: str, specs: Mapping[str, FieldSpec]) -> list[str]:
    by_name = {path.rpartition(".")[2]: path for path in specs}
    return [by_name[near] for near in difflib.get_close_matches(name, list(by_name), n=1)]


def _message(spec: FieldSpec, item: Any) -> str:
    given = f"(given: {item['input']!r})"
    kind, context = item["type"], item.get("ctx") or {}
    if kind == "string_too_short":
        return "must not be empty."
    if kind == "string_too_long":
        return f"must not be longer than {context['max_length']} characters."
    if kind == "string_pattern_mismatch":
        return f"is not allowed {given}. {spec.help}"
    near = ""
    if spec.kind == "choice":
        close = difflib.get_close_matches(str(item["input"]), [str(c) for c in spec.choices], n=1)
        near = f" Did you mean {close[0]}?" if close else ""
    return f"must be {spec.allowed} {given}.{near}"
