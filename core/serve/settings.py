"""How a server is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from core.config.fields import Section, field_specs, knob
from core.config.problems import problems_of
from core.errors import ConfigError


class ServeSettings(Section):
    """How a server is started."""

    port: int = knob(0, "Port", level="basic", ge=0, le=65535)
    """Programs reach it there, on this machine alone. 0 takes a free one, another one each time."""

    quantization: Literal["f16", "q8_0"] = knob("f16", "Size of the weights", level="basic")
    """In llama.cpp. q8_0 takes half the memory, is faster on most machines, and answers nearly as
    the trained model."""

    context: int = knob(4096, "Longest conversation", unit="tokens", ge=64, le=1048576)
    """Prompt and answer together, of each of the requests that are answered at once. A model that
    reads less gets less."""


def serve_settings(values: Mapping[str, Any]) -> ServeSettings:
    """Settings from plain values. Raises ConfigError that names each wrong one."""
    try:
        return ServeSettings.model_validate(dict(values))
    except ValidationError as error:
        specs = {spec.path: spec for spec in field_specs(ServeSettings)}
        raise ConfigError(problems_of(error, specs)) from error
