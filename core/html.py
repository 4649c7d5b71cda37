"""HTML from Jinja2 templates: what a user, a file or a model wrote is escaped by itself.

A file of templates holds macros, and `Templates` finds them by name: `html.report.line(label=...)`
is the macro `line` of `report.html`. It gives Markup, which another macro takes as it is; any other
text is escaped. A line break between two tags, with the spaces around it, is not part of the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup

from core.language import _, n_


class _Lines(Extension):
    """Takes away the line breaks between tags. Jinja still counts them."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"(?<=[>}])( *\n\s*)(?=[<{])", r"{#\1#}", source)


class Macros(Protocol):
    """What a file of templates holds."""

    def __getattr__(self, name: str) -> Callable[..., Markup]: ...


class Templates:
    """The templates of a folder, each an attribute; read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._all = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            auto_reload=False,
            extensions=[_Lines],
            trim_blocks=True,
            undefined=StrictUndefined,
        )
        self._all.globals |= {"_": _, "n_": n_}

    def __getattr__(self, name: str) -> Macros:
        return cast(Macros, self._all.get_template(f"{name}.html").module)
