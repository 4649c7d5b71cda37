"""RunConfig: everything that decides a run, its rules, and its way to and from YAML."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from core.config.extra import REFUSED, sft_config_fields
from core.config.fields import FieldSpec, Section, field_specs, knob
from core.config.sections import (
    AdapterSection,
    DataSection,
    EvaluationSection,
    ModelSection,
    TrackingSection,
)
from core.config.training import TrainingSection
from core.errors import ConfigError, Problem
from core.workspace import write_atomic


class RunConfig(Section):
    """Everything that decides a run."""

    name: str = knob("", "Name of the run", level="basic", max_length=80)
    """Shown in lists and charts. Empty takes the run's id."""

    method: Literal["sft"] = knob("sft", "Method")
    """Supervised fine-tuning: the model learns to answer as your rows do."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    adapter: AdapterSection = AdapterSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()

    def values(self) -> dict[str, Any]:
        """Every setting by its dotted path."""
        return flatten(self.model_dump())

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, by dotted path."""
        defaults = RunConfig().values()
        return {path: value for path, value in self.values().items() if value != defaults[path]}

    def to_yaml(self, *, full: bool = True) -> str:
        """YAML of every value, or with `full=False` of what differs from the defaults."""
        data = self.model_dump() if full else nest(self.changed())
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True) if data else ""

    def save(self, path: Path) -> None:
        write_atomic(path, self.to_yaml())


SPECS: tuple[FieldSpec, ...] = tuple(field_specs(RunConfig))
SPEC_BY_PATH: dict[str, FieldSpec] = {spec.path: spec for spec in SPECS}


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"training": {"seed": 1}} -> {"training.seed": 1}; dictionaries that are values stay whole."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in SPEC_BY_PATH:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """{"training.seed": 1} -> {"training": {"seed": 1}}."""
    data: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split(".")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return data


def parse_config(values: dict[str, Any]) -> RunConfig:
    """A RunConfig from nested or dotted values. Raises ConfigError with every problem at once."""
    nested = nest(flatten(values))
    try:
        config = RunConfig.model_validate(nested)
    except ValidationError as error:
        raise ConfigError([_problem(item) for item in error.errors()]) from error
    problems = rule_problems(config)
    if problems:
        raise ConfigError(problems)
    return config


def load_config(path: Path) -> RunConfig:
    """The RunConfig in a YAML file. Raises ConfigError, also when it is not YAML."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error}")], "Mend the file.") from error
    if not isinstance(data, dict):
        raise ConfigError([Problem(str(path), "is not a mapping of sections")], "Mend the file.")
    data.pop("preset", None)
    return parse_config(data)


def _problem(item: Any) -> Problem:
    """A pydantic error at the field's own path, with the nearest known name for a wrong key."""
    parts = [str(part) for part in item["loc"]]
    path = ".".join(parts)
    known = next(
        (".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in SPEC_BY_PATH),
        path,
    )
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path, list(SPEC_BY_PATH), n=1, cutoff=0.5)
        return Problem(path, "is not a setting" + (f"; did you mean {near[0]}?" if near else "."))
    message = item["msg"][0].lower() + item["msg"][1:]
    return Problem(known, f"{message} (given: {item['input']!r})")


def rule_problems(config: RunConfig) -> list[Problem]:
    """The rules that span fields and need nothing but the config. Each names all its fields."""
    found: list[Problem] = []

    def rule(broken: bool, field: str, also: str, message: str) -> None:
        if broken:
            found.append(Problem(field, message, (also,)))

    adapter, training = config.adapter, config.training
    evaluation, tracking = config.evaluation, config.tracking
    rule(
        adapter.quantization != "none" and adapter.method == "none",
        "adapter.quantization",
        "adapter.method",
        f"{adapter.quantization} with adapter.method none: quantized weights cannot be trained in "
        "full. Train LoRA, or set quantization to none.",
    )
    rule(
        training.precision == "fp16" and training.device == "cpu",
        "training.precision",
        "training.device",
        "fp16 with training.device cpu: a CPU trains in bf16 or fp32. Set precision to auto.",
    )
    rule(
        adapter.use_dora and adapter.init_lora_weights in ("pissa", "olora"),
        "adapter.init_lora_weights",
        "adapter.use_dora",
        f"{adapter.init_lora_weights} with adapter.use_dora: choose one of the two.",
    )
    rule(
        adapter.quantization != "none" and adapter.init_lora_weights in ("pissa", "olora"),
        "adapter.init_lora_weights",
        "adapter.quantization",
        f"{adapter.init_lora_weights} with adapter.quantization {adapter.quantization}: it changes "
        "the base weights, which are quantized. Use default.",
    )
    found += _checkpoint_problems(config)
    rule(
        evaluation.early_stopping_patience is not None and evaluation.eval_strategy == "no",
        "evaluation.early_stopping_patience",
        "evaluation.eval_strategy",
        "early stopping with evaluation.eval_strategy no: nothing is measured. Evaluate by steps "
        "or epoch.",
    )
    rule(
        training.lr_scheduler_type == "reduce_lr_on_plateau" and evaluation.eval_strategy == "no",
        "training.lr_scheduler_type",
        "evaluation.eval_strategy",
        "reduce_lr_on_plateau with evaluation.eval_strategy no: it needs a measured loss.",
    )
    rule(
        tracking.save_strategy == "no" and evaluation.early_stopping_patience is not None,
        "tracking.save_strategy",
        "evaluation.early_stopping_patience",
        "no checkpoints with early stopping: the best one could not be restored.",
    )
    found += _extra_problems(training.extra)
    return found


def _checkpoint_problems(config: RunConfig) -> list[Problem]:
    """load_best_model_at_end needs a checkpoint for each evaluation it may choose."""
    evaluation, tracking = config.evaluation, config.tracking
    wants_best = evaluation.load_best_model_at_end or evaluation.early_stopping_patience is not None
    if not wants_best or evaluation.eval_strategy == "no" and not evaluation.load_best_model_at_end:
        return []
    if evaluation.eval_strategy == "no":
        return [
            Problem(
                "evaluation.load_best_model_at_end",
                "the best checkpoint with evaluation.eval_strategy no: nothing is measured. "
                "Evaluate by steps or epoch.",
                ("evaluation.eval_strategy",),
            )
        ]
    if tracking.save_strategy != evaluation.eval_strategy:
        return [
            Problem(
                "tracking.save_strategy",
                f"{tracking.save_strategy} with evaluation.eval_strategy "
                f"{evaluation.eval_strategy}: to keep the best checkpoint, save when you evaluate.",
                ("evaluation.eval_strategy",),
            )
        ]
    if tracking.save_strategy == "steps" and tracking.save_steps % evaluation.eval_steps:
        return [
            Problem(
                "tracking.save_steps",
                f"{tracking.save_steps} is not a multiple of evaluation.eval_steps "
                f"({evaluation.eval_steps}): to keep the best checkpoint, save when you evaluate.",
                ("evaluation.eval_steps",),
            )
        ]
    return []


def _extra_problems(extra: dict[str, Any]) -> list[Problem]:
    known = sft_config_fields()
    own = {spec.name: spec.path for spec in SPECS}
    found = []
    for key in extra:
        if key in REFUSED:
            message = f"{key} is not allowed here: {REFUSED[key]}."
        elif key in own:
            message = f"{key} has its own field: set {own[key]}."
        elif key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            message = f"{key} is not a field of TRL's SFTConfig" + (
                f"; did you mean {near[0]}?" if near else "."
            )
        else:
            continue
        found.append(Problem("training.extra", message))
    return found
