"""Turns pydantic's errors into problems at the field's own path, each saying what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from core.config.fields import FieldSpec
from core.errors import Problem, nearest
from core.language import N_, _, speaking

# Names that other tools give to a setting, so that a config brought along can be mended quickly.
_FAMILIAR = {
    "adapter.alpha": "adapter.lora_alpha",
    "adapter.dropout": "adapter.lora_dropout",
    "adapter.kind": "adapter.method",
    "adapter.name": "adapter.method",
    "adapter.rank": "adapter.r",
    "adapter.type": "adapter.method",
    "adapter_type": "adapter.method",
    "base_model": "model.model_name_or_path",
    "batch_size": "training.per_device_train_batch_size",
    "bf16": "training.precision",
    "context_length": "training.max_length",
    "cutoff_len": "training.max_length",
    "data.name": "data.dataset",
    "data.path": "data.dataset",
    "dataset_name": "data.dataset",
    "epochs": "training.num_train_epochs",
    "evaluation_strategy": "evaluation.eval_strategy",
    "finetuning_type": "adapter.method",
    "fp16": "training.precision",
    "grad_accum": "training.gradient_accumulation_steps",
    "load_in_4bit": "adapter.quantization",
    "load_in_8bit": "adapter.quantization",
    "lora_r": "adapter.r",
    "lora_rank": "adapter.r",
    "lora_target": "adapter.target_modules",
    "lora_target_modules": "adapter.target_modules",
    "lr": "training.learning_rate",
    "lr_scheduler": "training.lr_scheduler_type",
    "max_seq_len": "training.max_length",
    "max_seq_length": "training.max_length",
    "model": "model.model_name_or_path",
    "model.name": "model.model_name_or_path",
    "model.path": "model.model_name_or_path",
    "model_name": "model.model_name_or_path",
    "num_epochs": "training.num_train_epochs",
    "optimizer": "training.optim",
    "peft_type": "adapter.method",
    "quantization_bit": "adapter.quantization",
    "scheduler": "training.lr_scheduler_type",
    "sequence_len": "training.max_length",
    "target_layers": "adapter.target_modules",
    "train_type": "adapter.method",
    "tuner_type": "adapter.method",
    "warmup": "training.warmup_steps",
    "warmup_ratio": "training.warmup_steps",
}
_NO_SETTING = N_("is not a setting. python launch.py train --help lists them all.")


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
            found[path] = Problem(path, _("is a section: name its settings below it."))
        else:
            found[path] = Problem(path, _message(specs[path], item))
    return list(found.values())


def unknown_field(path: str, specs: Mapping[str, FieldSpec]) -> Problem:
    """A key that is no setting, with the one that was meant, where that is plain: one of this name
    elsewhere, what other tools call so, a slip of the pen, or the only one whose title or help has
    these words."""
    section, _dot, name = path.rpartition(".")
    by_name = {known.rpartition(".")[2]: known for known in specs}
    here = {spec.name: known for known, spec in specs.items() if spec.section == section}
    near = nearest(name, here) or nearest(name, by_name)
    meant = (
        _FAMILIAR.get(path)
        or by_name.get(name)
        or _FAMILIAR.get(name)
        or ((by_name | here)[near] if near else None)
        or _by_its_words(name, [specs[known] for known in here.values()] or list(specs.values()))
    )
    if not meant:
        return Problem(path, _NO_SETTING)
    return Problem(path, _("is not a setting; did you mean {meant}?", meant=meant))


def _by_its_words(name: str, specs: Sequence[FieldSpec]) -> str | None:
    """The one setting whose title, or else whose help, has all the words of a name, which are
    English."""
    words = set(name.lower().split("_"))
    with speaking("en"):
        labels, helps = [spec.label for spec in specs], [spec.help for spec in specs]
    for texts in (labels, helps):
        found = [
            spec.path
            for spec, text in zip(specs, texts, strict=True)
            if words <= set(re.findall(r"\w+", text.lower()))
        ]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _leaves(path: str, value: Any) -> list[str]:
    """The settings below a section that does not exist; a plain value's own path."""
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(f"{path}.{key}", item)]
    return [path]


def _message(spec: FieldSpec, item: Any) -> str:
    given = repr(item["input"])
    kind, context = item["type"], item.get("ctx") or {}
    if kind == "string_too_short":
        return _("must not be empty.")
    if kind == "string_too_long":
        return _("must not be longer than {most} characters.", most=context["max_length"])
    if kind == "string_pattern_mismatch":
        return _("is not allowed (given: {given}). {help}", given=given, help=spec.help)
    choices = map(str, spec.choices) if spec.kind == "choice" else ()
    near, allowed = nearest(str(item["input"]), choices), spec.allowed
    if near:
        return _(
            "must be {allowed} (given: {given}). Did you mean {near}?",
            allowed=allowed,
            given=given,
            near=near,
        )
    return _("must be {allowed} (given: {given}).", allowed=allowed, given=given)
