"""Settings as somebody gave them become a RunConfig, or every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.config import RunConfig, checked_fields
from core.config.yaml_file import read_yaml
from core.errors import ConfigError, Problem
from core.rules.adapter import adapter_rules
from core.rules.devices import device_rules
from core.rules.extra import extra_rules
from core.rules.methods import method_rules
from core.rules.training import optimizer_rules, training_rules


def parse_config(values: dict[str, Any]) -> RunConfig:
    """A RunConfig from nested or dotted values. Raises ConfigError with every problem at once."""
    config = checked_fields(values)
    problems = rule_problems(config)
    if problems:
        raise ConfigError(problems)
    return config


def load_config(path: Path) -> RunConfig:
    """The RunConfig in a YAML file. Raises ConfigError, also when it is not YAML."""
    return parse_config(read_yaml(path))


def rule_problems(config: RunConfig) -> list[Problem]:
    """The rules that span fields and need nothing but the config. Each names all its fields."""
    return [
        *adapter_rules(config),
        *training_rules(config),
        *device_rules(config),
        *optimizer_rules(config),
        *method_rules(config),
        *extra_rules(config),
    ]
