"""Lists whose choices change while they are shown.

Gradio refuses a value that a list does not offer. It compares with what the server answered last,
the page sends what it showed when the person clicked: with two answers under way the two differ,
and a person who did nothing wrong reads "Value: ... is not in the list of choices". Each handler
of such a list looks up what it is given and takes what is there instead, so here the value goes on
as it is. Fields whose choices stay the same are Gradio's own.
"""

from __future__ import annotations

from abc import ABCMeta
from typing import Any, TypeVar

import gradio as gr

_List = TypeVar("_List", gr.Dropdown, gr.Radio)


def _as_sent(_component: gr.components.Component, payload: Any) -> Any:
    return payload


def _changing(component: type[_List]) -> type[_List]:
    """The component without the comparison. It is drawn as the one it comes from (`is_template`),
    and made past Gradio's own metaclass, which writes a .pyi file beside the source of a class."""
    attributes = {"__module__": __name__, "is_template": True, "preprocess": _as_sent}
    return ABCMeta.__new__(type(component), component.__name__, (component,), attributes)


Dropdown = _changing(gr.Dropdown)
Radio = _changing(gr.Radio)
