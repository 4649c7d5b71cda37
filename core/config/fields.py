"""Each hyper-parameter is declared once; this module reads the declarations back.

`knob` is pydantic's Field with what the page needs beside it. `field_specs` lists every field of a
section tree, for the form, the command line, the docs and the presets.
"""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Level = Literal["basic", "advanced"]


class Section(BaseModel):
    """A group of settings. The docstring under a field is its tooltip, help and line in the docs."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        validate_assignment=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def knob(
    default: Any,
    label: str,
    *,
    level: Level = "advanced",
    when: dict[str, list[Any]] | None = None,
    unit: str = "",
    group: str = "",
    **bounds: Any,
) -> Any:
    """A field with its label, its level and `when` it is shown.

    `when` maps dotted paths to the values for which the field matters; all must hold.
    `group` gathers fields under one fold within a section. `bounds` go to pydantic (ge, le, ...).
    """
    extra = {"label": label, "level": level, "when": when or {}, "unit": unit, "group": group}
    if isinstance(default, list | dict | set):
        frozen = default
        return Field(
            default_factory=lambda: type(frozen)(frozen), json_schema_extra=extra, **bounds
        )
    return Field(default, json_schema_extra=extra, **bounds)


@dataclass(frozen=True)
class FieldSpec:
    """One setting, as the form, the command line and the docs need it.

    `kind` is one of bool, int, float, str, choice, list, dict. `auto` says that the word `auto`
    is allowed beside the kind, `optional` that the field may be empty (None).
    """

    path: str
    kind: str
    default: Any
    label: str
    help: str
    level: Level
    when: dict[str, list[Any]]
    unit: str
    group: str
    choices: tuple[Any, ...]
    minimum: float | None
    maximum: float | None
    exclusive_minimum: bool
    auto: bool
    optional: bool

    @property
    def section(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    def shown(self, values: dict[str, Any]) -> bool:
        """Whether the field matters, given the current value of each dotted path."""
        return all(values.get(path) in wanted for path, wanted in self.when.items())


def field_specs(model: type[BaseModel], prefix: str = "") -> list[FieldSpec]:
    """Every field of a section tree, in the order of declaration, nested ones by dotted path."""
    specs: list[FieldSpec] = []
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            specs += field_specs(annotation, f"{prefix}{name}.")
        else:
            specs.append(_spec(f"{prefix}{name}", info))
    return specs


def _spec(path: str, info: FieldInfo) -> FieldSpec:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    kind, choices, auto, optional = _kind(info.annotation)
    bounds: dict[str, float] = {}
    for constraint in info.metadata:
        for key in ("ge", "gt", "le", "lt"):
            value = getattr(constraint, key, None)
            if value is not None:
                bounds[key] = value
    default = info.get_default(call_default_factory=True)
    when: Any = extra.get("when") or {}
    return FieldSpec(
        path=path,
        kind=kind,
        default=None if default is PydanticUndefined else default,
        label=str(extra.get("label") or path.rpartition(".")[2]),
        help=" ".join((info.description or "").split()),
        level="basic" if extra.get("level") == "basic" else "advanced",
        when=when,
        unit=str(extra.get("unit") or ""),
        group=str(extra.get("group") or ""),
        choices=choices,
        minimum=bounds.get("ge", bounds.get("gt")),
        maximum=bounds.get("le", bounds.get("lt")),
        exclusive_minimum="gt" in bounds,
        auto=auto,
        optional=optional,
    )


def _kind(annotation: Any) -> tuple[str, tuple[Any, ...], bool, bool]:
    """(kind, choices, auto allowed, None allowed) of an annotation such as `int | Literal["auto"]`."""
    parts = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )
    optional = type(None) in parts
    parts = tuple(part for part in parts if part is not type(None))
    auto = len(parts) > 1 and any(typing.get_args(part) == ("auto",) for part in parts)
    if auto:
        parts = tuple(part for part in parts if typing.get_args(part) != ("auto",))
    if len(parts) > 1:
        # A choice beside free values, such as `Literal["all-linear"] | list[str]`: the list wins.
        parts = tuple(part for part in parts if typing.get_origin(part) is not Literal) or parts
    core = parts[0]
    origin = typing.get_origin(core)
    if origin is Literal:
        return "choice", typing.get_args(core), auto, optional
    if origin in (list, tuple):
        return "list", (), auto, optional
    if origin is dict or core is dict:
        return "dict", (), auto, optional
    return core.__name__, (), auto, optional
