"""RunConfig and its sections. The only place where a hyper-parameter is declared."""

from core.config.fields import FieldSpec, field_specs
from core.config.run import (
    FORMER,
    SPEC_BY_PATH,
    SPECS,
    RunConfig,
    checked_fields,
    flatten,
    nest,
    read_config,
    renamed,
)

__all__ = [
    "FORMER",
    "SPECS",
    "SPEC_BY_PATH",
    "FieldSpec",
    "RunConfig",
    "field_specs",
    "flatten",
    "checked_fields",
    "nest",
    "read_config",
    "renamed",
]
