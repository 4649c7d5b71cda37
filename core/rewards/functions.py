"""What a reward function says of one answer: a number, or None where it does not apply.

All of it is text in, number out, without a model: the same for the same text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import regex

from core.errors import TrainingError
from core.language import _
from core.rewards.kinds import (
    ExactAnswer,
    JsonSchema,
    JsonValid,
    Length,
    NumericAnswer,
    Regex,
    Reward,
)
from core.rewards.texts import (
    Number,
    after_marker,
    boxed,
    last_line,
    numbers_in,
    only_block,
    same_number,
    without_thinking,
)

Score = float | None
# Signs around an answer that say nothing of it. Not those of a number: minus, plus, percent.
_AROUND = " \t\r\n\"'`*_.,;:!?()[]{}<>“”‘’„«»。，！？；：、"
_REGEX_SECONDS = 2.0
_NO_JSON = object()


def exact_answer(options: ExactAnswer, text: str, answer: str | None) -> Score:
    """1.0 or 0.0; None without a reference answer."""
    wanted = None if answer is None else _plain(_reference(answer, options.marker), options)
    if not wanted:
        return None
    found: str | None = text
    if options.find == "last_line":
        found = last_line(text)
    elif options.find == "after_marker":
        found = after_marker(text, options.marker)
    elif options.find == "boxed":
        found = boxed(text)
    return float(found is not None and _plain(found, options) == wanted)


def numeric_answer(options: NumericAnswer, text: str, answer: str | None) -> Score:
    """1.0 or 0.0; None when the reference answer has no number."""
    wanted = None if answer is None else _last(_reference(answer, options.marker))
    if wanted is None:
        return None
    found: Number | None
    if options.find == "last_number":
        found = _last(text)
    else:
        marked = options.find == "after_marker"
        part = after_marker(text, options.marker) if marked else boxed(text)
        numbers = numbers_in(part or "")
        found = numbers[0] if numbers else None
    return float(found is not None and same_number(found, wanted, options.tolerance))


def json_valid(options: JsonValid, text: str, _answer: str | None) -> Score:
    """1.0 for JSON of the kind that is wanted, else 0.0."""
    value = _json(text, options.where)
    if value is _NO_JSON:
        return 0.0
    kinds = {"any": object, "object": dict, "array": list}
    return float(isinstance(value, kinds[options.top]))


def json_schema(options: JsonSchema, text: str, _answer: str | None) -> Score:
    """1.0 for JSON that matches, `only_json` for other JSON, else 0.0.

    Raises TrainingError when the schema cannot be used for this JSON.
    """
    value = _json(text, options.where)
    if value is _NO_JSON:
        return 0.0
    try:
        fits = _validator(json.dumps(options.json_schema)).is_valid(value)
    except RecursionError:
        fits = False  # nested deeper than anything sensible
    return 1.0 if fits else options.only_json


def matches(
    options: Regex, text: str, _answer: str | None, seconds: float = _REGEX_SECONDS
) -> Score:
    """1.0 when the pattern is found, else 0.0. Raises TrainingError when it takes too long."""
    pattern = compiled(options)
    search = pattern.fullmatch if options.match == "whole" else pattern.search
    try:
        return float(search(text, timeout=seconds) is not None)
    except TimeoutError:
        raise TrainingError(
            _(
                "the pattern {pattern} took more than {seconds:g} s for a text of {count:,} "
                "characters",
                pattern=repr(options.pattern),
                seconds=seconds,
                count=len(text),
            ),
            _("Write it without repeats inside repeats, such as (a+)+."),
        ) from None


def length(options: Length, text: str, count_tokens: Callable[[str], int]) -> Score:
    """How near the length is to the wanted one, 0.0 to 1.0."""
    count = {"characters": len, "words": _words, "tokens": count_tokens}[options.unit](text)
    if options.target is not None:
        return max(0.0, 1 - abs(count - options.target) / options.target)
    if options.minimum is not None and count < options.minimum:
        return count / options.minimum
    if options.maximum is not None and count > options.maximum:
        return max(0.0, 1 - (count - options.maximum) / options.maximum)
    return 1.0


PLAIN: dict[str, Callable[[Any, str, str | None], Score]] = {
    "exact_answer": exact_answer,
    "numeric_answer": numeric_answer,
    "json_valid": json_valid,
    "json_schema": json_schema,
    "regex": matches,
}
"""The kinds that need nothing but the text and the reference answer."""


def read_part(options: Reward, text: str) -> str:
    """What of the text of an answer a function reads."""
    return without_thinking(text) if getattr(options, "skip_thinking", False) else text


def compiled(options: Regex) -> Any:
    """The pattern. Raises ValueError when it is none."""
    flags = regex.DOTALL * options.dot_all | regex.IGNORECASE * options.ignore_case
    try:
        return regex.compile(options.pattern, flags)
    except regex.error as error:
        raise ValueError(str(error)) from None


def schema_problem(schema: Mapping[str, Any]) -> str:
    """Why JSON cannot be checked against a schema; empty when it can."""
    from jsonschema.exceptions import SchemaError

    try:
        _validator(json.dumps(schema)).is_valid({})
    except SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path)
        return f"{place or 'schema'}: {error.message}"
    except RecursionError:
        return _("it refers to itself without end")
    except TrainingError as error:
        return error.message
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


@lru_cache(maxsize=32)
def _validator(schema_text: str) -> Any:
    """The checker of a schema. Raises jsonschema's SchemaError when it is none."""
    from jsonschema import Draft202012Validator, validators
    from referencing import Registry

    schema = json.loads(schema_text)
    kind = validators.validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    safe = validators.extend(kind, {"pattern": _pattern, "$ref": _reference_to(kind)})
    # An empty registry: what is not in the schema is not fetched from anywhere.
    return safe(schema, registry=Registry())


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Any:
    """The keyword `pattern`, with a time limit."""
    from jsonschema.exceptions import ValidationError

    if not isinstance(instance, str):
        return
    try:
        found = regex.search(pattern, instance, timeout=_REGEX_SECONDS)
    except TimeoutError:
        raise TrainingError(
            _(
                "the schema's pattern {pattern} took more than {seconds:g} s",
                pattern=repr(pattern),
                seconds=_REGEX_SECONDS,
            ),
            _("Write it without repeats inside repeats, such as (a+)+."),
        ) from None
    if found is None:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _reference_to(kind: Any) -> Callable[..., Any]:
    """The keyword `$ref`, whose failure says which part is missing."""
    from referencing.exceptions import Unresolvable

    follow = kind.VALIDATORS["$ref"]

    def checked(validator: Any, ref: str, instance: Any, schema: Any) -> Any:
        try:
            yield from follow(validator, ref, instance, schema) or ()
        except Unresolvable:
            raise TrainingError(
                _("the schema refers to {part}, which is not in it", part=repr(ref)),
                _("Put that part under $defs; nothing is fetched from the network."),
            ) from None

    return checked


def _json(text: str, where: str) -> Any:
    """The JSON of an answer, or _NO_JSON."""
    try:
        return json.loads(only_block(text) if where == "block" else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NO_JSON


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _reference(answer: str, marker: str) -> str:
    """The reference itself, where the row has a whole solution that ends with it."""
    return after_marker(answer, marker) or boxed(answer) or answer


def _plain(text: str, options: ExactAnswer) -> str:
    """A text as it is compared."""
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if options.ignore_punctuation:
        text = text.strip(_AROUND)
    return text.casefold() if options.ignore_case else text


def _last(text: str) -> Number | None:
    numbers = numbers_in(text)
    return numbers[-1] if numbers else None


def _words(text: str) -> int:
    return len(text.split())
