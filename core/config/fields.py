"""Each hyper-parameter is declared once; this module reads the declarations back.

`knob` is pydantic's Field with what the page needs beside it. `field_specs` lists every field of a
section tree, for the form, the command line, the docs and the presets.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from core.language import N_, Said, Text, _

Level = Literal["basic", "advanced"]
KIND_NAMES = {
    "bool": N_("true or false"),
    "int": N_("a whole number"),
    "float": N_("a number"),
    "str": N_("text"),
    "list": N_("a list of texts"),
    "records": N_("a list of mappings"),
    "dict": N_("a mapping of names to values"),
}
_BOUNDS = {
    ">=": N_("{kind} of at least {least}"),
    ">": N_("{kind} above {least}"),
    "<=": N_("{kind} up to {most}"),
    "<": N_("{kind} below {most}"),
    ">=<=": N_("{kind} from {least} to {most}"),
    ">=<": N_("{kind} of at least {least} and below {most}"),
    "><=": N_("{kind} above {least} and up to {most}"),
    "><": N_("{kind} above {least} and below {most}"),
}


class Section(BaseModel):
    """A group of settings. The text under a field is its tooltip, help and line in the docs."""

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
    free_text: bool = False,
    **bounds: Any,
) -> Any:
    """A field with its label, its level and `when` it is shown.

    `when` maps dotted paths to the values for which the field matters; all must hold. Of a list
    one of its items is enough.
    `group` gathers fields under one fold within a section. `free_text` says that the text, or each
    text of the list, is written by a person for a person: it may be long and have commas.
    `bounds` go to pydantic (ge, le, ...).
    """
    extra: dict[str, Any] = {
        "label": label,
        "level": level,
        "when": when or {},
        "unit": unit,
        "group": group,
        "free_text": free_text,
    }
    if isinstance(default, list | dict | set):
        frozen = default
        return Field(
            default_factory=lambda: type(frozen)(frozen), json_schema_extra=extra, **bounds
        )
    return Field(default, json_schema_extra=extra, **bounds)


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One setting, as the form, the command line and the docs need it.

    `kind` is one of bool, int, float, str, choice, list, records (mappings in a list), dict. `auto`
    says that the word `auto` is allowed beside the kind, `optional` that the field may be empty
    (None), and `words` are the fixed words that may stand in place of a list, such as all-linear.
    """

    path: str
    kind: str
    default: Any
    label: Said = Said()
    help: Said = Said()
    level: Level
    when: dict[str, list[Any]]
    unit: Said = Said()
    group: str
    choices: tuple[Any, ...]
    minimum: float | None
    maximum: float | None
    exclusive_minimum: bool
    exclusive_maximum: bool
    auto: bool
    optional: bool
    words: tuple[str, ...] = ()
    free_text: bool = False

    @property
    def section(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def allowed(self) -> str:
        """What the field takes, to end a sentence: `a whole number from 1 to 4096, or auto`."""
        found = self._allowed_kind()
        for word in (*self.words, *(["auto"] if self.auto else [])):
            found = _("{allowed}, or {word}", allowed=found, word=word)
        return _("{allowed}, or empty", allowed=found) if self.optional else found

    def _allowed_kind(self) -> str:
        if self.choices:
            choices = ", ".join(str(choice) for choice in self.choices)
            if self.kind == "list":
                return _("any of {choices}", choices=choices)
            return _("one of {choices}", choices=choices)
        return within(
            KIND_NAMES[self.kind],
            self.minimum,
            self.maximum,
            self.exclusive_minimum,
            self.exclusive_maximum,
        )

    def shown(self, values: Mapping[str, Any]) -> bool:
        """Whether the field matters, given the current value of each dotted path."""
        return all(_meets(values.get(path), wanted) for path, wanted in self.when.items())


def within(kind: Text, least: float | None, most: float | None, above: bool, below: bool) -> Text:
    """A kind of value and its bounds, which with `above` and `below` are not allowed themselves."""
    signs = ("" if least is None else ">" if above else ">=") + (
        "" if most is None else "<" if below else "<="
    )
    template = _BOUNDS.get(signs, kind).template
    return _(template, kind=kind, least=_number(least), most=_number(most))


def _meets(value: Any, wanted: list[Any]) -> bool:
    """Whether a value, or one of its items when it is a list, is among those wanted."""
    return any(item in wanted for item in (value if isinstance(value, list) else [value]))


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
    kind, choices, auto, optional, words, inner = _kind(info.annotation)
    bounds: dict[str, float] = {}
    for constraint in [*info.metadata, *inner]:
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
        label=N_(str(extra.get("label") or path.rpartition(".")[2])),
        help=N_(" ".join((info.description or "").split())),
        level="basic" if extra.get("level") == "basic" else "advanced",
        when=when,
        unit=N_(str(extra.get("unit") or "")),
        group=str(extra.get("group") or ""),
        choices=choices,
        minimum=bounds.get("ge", bounds.get("gt")),
        maximum=bounds.get("le", bounds.get("lt")),
        exclusive_minimum="gt" in bounds,
        exclusive_maximum="lt" in bounds,
        auto=auto,
        optional=optional,
        words=words,
        free_text=bool(extra.get("free_text")),
    )


def _kind(
    annotation: Any,
) -> tuple[str, tuple[Any, ...], bool, bool, tuple[str, ...], list[Any]]:
    """(kind, choices, auto allowed, None allowed, words beside a list, bounds) of an annotation."""
    parts = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )
    optional = type(None) in parts
    fixed = [part for part in parts if typing.get_origin(part) is Literal]
    free = [part for part in parts if part is not type(None) and part not in fixed]
    # Words beside free values, such as `Literal["all-linear"] | list[str]`: the free kind counts.
    words = tuple(word for part in fixed for word in typing.get_args(part)) if free else ()
    auto = "auto" in words
    words = tuple(word for word in words if word != "auto")
    if not free:
        return "choice", typing.get_args(fixed[0]), auto, optional, words, []
    core, inner = free[0], []
    if typing.get_origin(core) is typing.Annotated:
        core, *inner = typing.get_args(core)
        inner = [item for info in inner for item in getattr(info, "metadata", [info])]
    origin = typing.get_origin(core) or core
    kind = "list" if origin in (list, tuple) else origin.__name__
    if kind == "list" and typing.get_origin(typing.get_args(core)[0]) is dict:
        kind = "records"
    return kind, _item_choices(core), auto, optional, words, inner


def _item_choices(core: Any) -> tuple[Any, ...]:
    """What an item of a list may be, where that is declared."""
    items = [item for item in typing.get_args(core) if typing.get_origin(item) is Literal]
    return typing.get_args(items[0]) if typing.get_origin(core) is list and items else ()


def _number(value: float | None) -> str:
    """A bound as a person writes it; empty where there is none."""
    return "" if value is None else f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
