"""RunConfig and its sections. The only place where a hyper-parameter is declared."""

from core.config.fields import FieldSpec, field_specs
from core.config.run import (
    SPEC_BY_PATH,
    SPECS,
    RunConfig,
    flatten,
    load_config,
    nest,
    parse_config,
    rule_problems,
)

__all__ = [
    "SPECS",
    "SPEC_BY_PATH",
    "FieldSpec",
    "RunConfig",
    "field_specs",
    "flatten",
    "load_config",
    "nest",
    "parse_config",
    "rule_problems",
]
