"""The forms in which a trained model can be taken away: a file for each, called as the form is
asked for, with its `FORMAT`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from core.errors import ExportError
from core.language import _

if TYPE_CHECKING:
    from core.export.format import Format


def format_names() -> tuple[str, ...]:
    """What there is to ask for; reads no format."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@lru_cache
def formats() -> Mapping[str, Format]:
    """Every format by its name, in the order in which a person is offered them."""
    found: list[Format] = [
        importlib.import_module(f"{__name__}.{name}").FORMAT for name in format_names()
    ]
    return MappingProxyType({one.name: one for one in sorted(found, key=lambda one: one.place)})


def find_format(name: str) -> Format:
    """The format of a name. Raises ExportError."""
    if name not in format_names():
        raise ExportError(
            _("There is no format {asked!r}.", asked=name),
            _("Take {names}.", names=", ".join(format_names())),
        )
    return formats()[name]
