"""RunConfig: everything that decides a run, its way to and from YAML, and what follows from its
settings by arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.config.adapter import AdapterSection
from core.config.fields import FieldSpec, Section, field_specs, knob
from core.config.preference import PreferenceSection
from core.config.problems import problems_of
from core.config.reinforcement import ReinforcementSection
from core.config.sections import (
    ClassificationSection,
    DataSection,
    EvaluationSection,
    ModelSection,
    TextSection,
    VocabularySection,
)
from core.config.tracking import TrackingSection
from core.config.training import TrainingSection
from core.config.yaml_file import read_yaml, yaml_text
from core.errors import ConfigError, Problem
from core.language import _
from core.methods import METHODS, Method, MethodName
from core.workspace import write_atomic


class RunConfig(Section):
    """Everything that decides a run."""

    name: str = knob("", "Name of the run", level="basic", max_length=80)
    """Shown in lists and charts. Empty: its model, data set and adapter name it."""

    method: MethodName = knob("sft", "Method", level="basic")
    """Supervised fine-tuning learns to answer as your rows do. Continued pre-training (cpt) reads
    plain text on, masked language modelling (mlm) teaches an encoder the words of a field. DPO,
    ORPO and CPO learn from pairs of a better and a worse answer, KTO from answers judged one by
    one; a reward model learns from pairs to score answers. GRPO and RLOO learn from rewards for
    answers of their own. Classification learns the labels of texts."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    adapter: AdapterSection = AdapterSection()
    training: TrainingSection = TrainingSection()
    classification: ClassificationSection = ClassificationSection()
    preference: PreferenceSection = PreferenceSection()
    reinforcement: ReinforcementSection = ReinforcementSection()
    text: TextSection = TextSection()
    vocabulary: VocabularySection = VocabularySection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()

    @property
    def training_method(self) -> Method:
        """What is declared of its method."""
        return METHODS[self.method]

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
        return yaml_text(data) if data else ""

    def save(self, path: Path) -> None:
        write_atomic(path, self.to_yaml())


SPECS: tuple[FieldSpec, ...] = tuple(field_specs(RunConfig))
SPEC_BY_PATH: dict[str, FieldSpec] = {spec.path: spec for spec in SPECS}


FORMER: dict[str, tuple[str, dict[Any, Any]]] = {
    "data.assistant_only_loss": ("data.learn", {True: "answers", False: "everything"})
}
"""Settings by the names that they had before: the name of now, and what each value is called."""


def renamed(flat: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted path, those of earlier names under the names of now. Raises ConfigError
    where a setting stands there under both, or with a value that it never had."""
    found: dict[str, Any] = {}
    for path, value in flat.items():
        if path not in FORMER:
            found[path] = value
            continue
        name, values = FORMER[path]
        if name in flat:
            problem = _(
                "is the earlier name of {name}, which is set too. Remove one of them.", name=name
            )
            raise ConfigError([Problem(path, problem)])
        if not isinstance(value, bool):
            problem = _(
                "takes true or false (given: {given}); now it is {name}.",
                given=repr(value),
                name=name,
            )
            raise ConfigError([Problem(path, problem)])
        found[name] = values[value]
    return found


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"training": {"seed": 1}} -> {"training.seed": 1}; a mapping that is a value stays whole."""
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
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[name] = value
    return data


def checked_fields(values: dict[str, Any]) -> RunConfig:
    """A RunConfig from nested or dotted values, each of which its field allows; whether they go
    together is for core.rules to say. Raises ConfigError with every problem at once."""
    try:
        return RunConfig.model_validate(nest(renamed(flatten(values))))
    except ValidationError as error:
        raise ConfigError(problems_of(error, SPEC_BY_PATH)) from error


def read_config(path: Path) -> RunConfig:
    """The settings that stand with a run. What goes together was checked when it was submitted.
    Raises ConfigError, also when the file is not YAML."""
    return checked_fields(read_yaml(path))


_QUICK_BATCH = 8


def continues(config: RunConfig) -> bool:
    """Whether the run begins with what another run made."""
    return bool(config.model.start_from != "base" and config.model.from_run)


def run_and_checkpoint(config: RunConfig) -> tuple[str, str]:
    """(id of the run to begin with, its checkpoint): `quiet-otter@checkpoint-40` has both."""
    run_id, _, checkpoint = config.model.from_run.partition("@")
    return run_id, checkpoint or "final"


def device_count(config: RunConfig) -> int:
    """How many devices train together, on all nodes of a cluster that share the run."""
    return devices_on_a_node(config) * config.training.ray_num_nodes


def devices_on_a_node(config: RunConfig) -> int:
    """How many train together in one machine; `all` has been settled before, or is taken for
    one."""
    asked = config.training.devices
    if asked == "all":
        return 1
    return len(asked.split(",")) if "," in asked else int(asked)


def settle_devices(config: RunConfig, here: Sequence[str]) -> RunConfig:
    """`all` devices as the number of those that there are `here`, by their labels; the CPU is
    one. Of a cluster's devices nothing is known here."""
    if config.training.devices != "all" or config.training.ray_address:
        return config
    kind = config.training.device.partition(":")[0]
    same = [label for label in here if label != "cpu" and kind in ("auto", label.partition(":")[0])]
    changed = config.model_copy(deep=True)
    changed.training.devices = str(max(1, len(same)))
    return changed


def rows_a_step(config: RunConfig, batch: int) -> int:
    """The effective batch: how many rows each optimizer step learns from, with `batch` rows at once
    on each device."""
    return batch * config.training.gradient_accumulation_steps * device_count(config)


def answers_a_step(config: RunConfig, batch: int) -> int:
    """How many answers are written at once with `batch` rows at once."""
    batches = config.reinforcement.steps_per_generation
    return batch * (config.training.gradient_accumulation_steps if batches is None else batches)


def nearest_batch(config: RunConfig, batch: int) -> int:
    """The batch size nearest to `batch` with which a step has whole groups of answers."""
    group = config.reinforcement.num_generations
    least = next(n for n in range(1, group + 1) if answers_a_step(config, n) % group == 0)
    return max(least, round(batch / least) * least)


def batches_an_epoch(config: RunConfig, rows: int, batch: int) -> int:
    """How many batches an epoch has: prompts that fill no whole step are left out of it."""
    prompts = max(1, answers_a_step(config, batch) // config.reinforcement.num_generations)
    times = answers_a_step(config, batch) // batch * config.reinforcement.num_iterations
    return rows // prompts * times


def quick_settings(config: RunConfig) -> dict[str, Any]:
    """What a quick trial changes, by dotted path; empty without one. No rule is broken by it."""
    if config.training_method.makes != "classifier" or not config.classification.quick:
        return {}
    batch = config.training.per_device_train_batch_size
    wanted: dict[str, Any] = {
        "training.num_train_epochs": min(1.0, config.training.num_train_epochs),
        "training.per_device_train_batch_size": batch
        if isinstance(batch, int) and batch < _QUICK_BATCH
        else _QUICK_BATCH,
        "training.gradient_accumulation_steps": 1,
        "evaluation.eval_strategy": "no",
        "evaluation.load_best_model_at_end": False,
        "evaluation.early_stopping_patience": None,
    }
    if config.training.lr_scheduler_type == "reduce_lr_on_plateau":  # it needs evaluations
        wanted["training.lr_scheduler_type"] = "constant"
    values = config.values()
    return {path: value for path, value in wanted.items() if values[path] != value}


def as_run(config: RunConfig) -> RunConfig:
    """The config as the run will take it: with what a quick trial changes."""
    changed = config.model_copy(deep=True)
    for path, value in quick_settings(config).items():
        section, _, name = path.partition(".")
        # At once: each alone could break a bound that all together keep.
        setattr(getattr(changed, section), name, value)
    return changed
