"""A field of a pydantic model that holds a sentence."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from core.language import pack, unpack


def _read(value: Any) -> str:
    text = unpack(value)
    if not isinstance(text, str):
        raise ValueError("a sentence is text, or a template with its values")
    return text


Sentence = Annotated[
    str,
    PlainValidator(_read),
    PlainSerializer(pack, when_used="json"),
    WithJsonSchema({"type": "string"}),
]
"""Kept as its template and values, read in the language in use; a plain str stays what it is."""
