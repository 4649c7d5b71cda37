"""What a person reads, in the language that they read.

    _("{rows} rows are cut", rows=n)              a sentence, in the language in use
    n_("{n} row", "{n} rows", n)                  one that depends on a number, which is {n}
    N_("Learning rate")                           what is declared once, when a module is imported;
                                                  `_(declared)` where it is shown

English is the source; the catalogues are core/locale/<language>/LC_MESSAGES/tunesmith.{po,mo}
(README, "Texts"). A sentence is a `Text`: a str that remembers its template and values. So one that
is written by a worker and read a year later, or was made for somebody who reads another language,
is shown to each reader in theirs: `pack` and `unpack` are what stored files and events have, and
`_(text)`, `str(text)` and `f"{text}"` say it anew in the language in use.
"""

from __future__ import annotations

import gettext
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

# Each by its code, with its own name and what `<html lang>` calls it.
LANGUAGES = {"en": "English", "zh": "中文"}
HTML_LANGUAGES = {"en": "en", "zh": "zh-CN", "pseudo": "en"}
PSEUDO = "pseudo"  # for tests: what is not in it never went through gettext
VARIABLE = "TUNESMITH_LANGUAGE"
LOCALE = Path(__file__).resolve().parent / "locale"
DOMAIN = "tunesmith"

_in_use: ContextVar[str] = ContextVar("language", default="en")
_KEYS = {"_", "many", "n", "with"}
# A template that was stored: named values alone, and no width that takes all memory.
_SOUND = re.compile(r"(?:[^{}]|\{\{|\}\}|\{[a-z]\w*(?:![rs])?(?::[^{}]{0,5})?\})*", re.I)


class Text(str):
    """A sentence in the language that was in use when it was made."""

    template: str
    many: str | None
    n: float
    values: Mapping[str, Any]

    def __new__(
        cls, template: str, many: str | None, n: float, values: Mapping[str, Any], said: str | None
    ) -> Text:
        text = super().__new__(cls, _say(template, many, n, values) if said is None else said)
        text.template, text.many, text.n, text.values = template, many, n, values
        return text

    def __str__(self) -> str:
        return _say(self.template, self.many, self.n, self.values)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return Text, (self.template, self.many, self.n, self.values, super().__str__())

    def __copy__(self) -> Text:
        return self

    def __deepcopy__(self, memo: Any) -> Text:
        return self


def _(template: str, /, **values: Any) -> Text:
    """The sentence in the language in use. A `Text` is said anew; its own values stay."""
    if isinstance(template, Text):
        return Text(template.template, template.many, template.n, template.values, None)
    return Text(template, None, 0, values, None)


def n_(one: str, many: str, n: float, /, **values: Any) -> Text:
    """The sentence for the number `n`, which the templates have as {n}."""
    return Text(one, many, n, {"n": n, **values}, None)


def N_(template: str) -> Text:
    """A sentence without values that is declared before anybody's language is known."""
    return Text(template, None, 0, {}, template)


class Said:
    """A field of a dataclass, or of a class, that holds a declared text: read, it is in the
    language in use.

    title: Said = Said()
    title = Said(N_("Learning rate"))
    """

    def __init__(self, default: str | None = None) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_said_{name}"

    def __get__(self, instance: object, owner: type) -> str:
        text: str | None = getattr(instance, "__dict__", {}).get(self.name, self.default)
        if text is None:
            raise AttributeError(self.name)
        return _(text) if isinstance(text, Text) else text

    def __set__(self, instance: Any, value: str) -> None:
        instance.__dict__[self.name] = value


def _say(template: str, many: str | None, n: float, values: Mapping[str, Any]) -> str:
    language = _in_use.get()
    if language == "en" or not template:  # catalogues have their header under ""
        said = template if many is None or n == 1 else many
    elif language == PSEUDO:
        said = _pseudo(template if many is None or n == 1 else many)
    else:
        known = _catalogue(language)
        said = known.gettext(template) if many is None else known.ngettext(template, many, int(n))
    return said.format(**values) if values else said


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE, [language])


@cache
def _pseudo(template: str) -> str:
    """Between brackets, with the capitals and the lengths that other languages have."""
    parts = re.split(r"(\{[^{}]*\}|<[^<>]*>|&\w+;|%(?:\(\w+\))?[rs])", template)
    marked = "".join(part if i % 2 else part.translate(_ACCENTS) for i, part in enumerate(parts))
    return f"⟦{marked}⟧"


_ACCENTS = str.maketrans("aeiouAEIOUcny", "àéîõüÀÉÎÕÜçñý")


def language() -> str:
    """The code of the language in use."""
    return _in_use.get()


def use(code: str) -> None:
    """From now on, in this thread and what begins from it."""
    _in_use.set(code)


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """While it lasts, sentences are made in the language `code`."""
    before = _in_use.set(code)
    try:
        yield
    finally:
        _in_use.reset(before)


def known_language(name: str | None) -> str | None:
    """The language that `zh_CN.UTF-8`, `zh-Hans-CN` or `en` asks for; None where we have none."""
    code = re.split(r"[-_.@]", (name or "").strip().lower())[0]
    return code if code in LANGUAGES or code == PSEUDO else None


def language_of_shell(environ: Mapping[str, str] = os.environ) -> str:
    """What the environment asks for, as gettext reads it."""
    names = (VARIABLE, "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
    asked = (part for name in names for part in environ.get(name, "").split(":") if part)
    return known_language(next(asked, None)) or "en"


def language_accepted(header: str) -> str | None:
    """The first of ours in an Accept-Language header, by the weights that it gives."""
    wanted = []
    for place, part in enumerate(header.split(",")):
        name, _sep, weight = part.partition(";")
        try:
            share = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            share = 0.0
        code = known_language(name)
        if code in LANGUAGES and share > 0:
            wanted.append((-share, place, code))
    return min(wanted)[2] if wanted else None


def pack(value: Any) -> Any:
    """What is stored of it: each `Text` as its template and values, anything else as it is."""
    if isinstance(value, Text):
        packed: dict[str, Any] = {"_": value.template}
        if value.many is not None:
            packed |= {"many": value.many, "n": value.n}
        if value.values:
            packed["with"] = {name: pack(_plain(one)) for name, one in value.values.items()}
        return packed
    if isinstance(value, Mapping):
        return {name: pack(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [pack(one) for one in value]
    return value


def _plain(value: Any) -> Any:
    """A value as JSON keeps it: what else may stand in a sentence stands there as text."""
    if value is None or isinstance(value, str | int | float | Mapping | list | tuple):
        return value
    return value.item() if hasattr(value, "item") else str(value)  # numpy's and torch's numbers


def unpack(value: Any) -> Any:
    """The opposite of `pack`, in the language in use. What makes no sentence stays as it is."""
    if isinstance(value, dict):
        if isinstance(value.get("_"), str) and value.keys() <= _KEYS:
            return _unpacked(value)
        return {name: unpack(one) for name, one in value.items()}
    if isinstance(value, list):
        return [unpack(one) for one in value]
    return value


def _unpacked(packed: dict[str, Any]) -> Any:
    template, many, values = packed["_"], packed.get("many"), packed.get("with") or {}
    if not all(_SOUND.fullmatch(one) for one in (template, many) if one is not None):
        return template
    try:
        return Text(template, many, packed.get("n", 0), unpack(values), None)
    except (TypeError, ValueError, LookupError, AttributeError):
        return template
