"""Conditions and templates that a person writes over the names of a row.

A condition is a Python expression of names, numbers, texts, comparisons, `and`, `or`, `not`, `in`,
and a few functions, evaluated by the library simpleeval:

    label == "law" and words(text) < 500 and "http" not in text

Whatever is not named here is refused before a row is read, and what is left is bounded: no powers,
no repeated texts or lists, a depth and a length, and a time for a regular expression.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any

import regex
from simpleeval import EvalWithCompoundTypes, InvalidExpression

from core.data.read.row import Row
from core.data.rowtext import named_values, value_of
from core.data.values import Unusable
from core.errors import DataError, did_you_mean
from core.language import _

_CONSTANTS = {"true": True, "false": False, "none": None}
_METHODS = ("startswith", "endswith", "lower", "upper", "strip", "count", "split")
_NAMED = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ALLOWED = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.cmpop),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.IfExp),
    *(ast.Name, ast.Constant, ast.Load, ast.List, ast.Tuple, ast.Subscript, ast.Slice),
    *(ast.Call, ast.Attribute),
)
_LONGEST = 2000  # characters of a condition
_DEEPEST = 50  # brackets, calls and operators one inside the other
_MATCH_SECONDS = 2.0
_REASON_CHARS = 200


def _words(text: Any) -> int:
    return len(str(text or "").split())


def _length(value: Any) -> int:
    return 0 if value is None else len(value) if hasattr(value, "__len__") else len(str(value))


def _matches(pattern: str, text: Any) -> bool:
    # Some patterns take longer than anybody lives on a text that they almost match.
    try:
        return regex.search(pattern, str(text or ""), timeout=_MATCH_SECONDS) is not None
    except TimeoutError as error:
        raise DataError(
            _(
                "The pattern {pattern} takes longer than {seconds:g} seconds on a text.",
                pattern=pattern[:100],
                seconds=_MATCH_SECONDS,
            ),
            _("Write it without repeats inside repeats, such as a+ instead of (a+)+."),
        ) from error


def _product(a: Any, b: Any) -> Any:
    """Of numbers: a text or a list times a number would have no bound."""
    return _number(a) * _number(b)


def _remainder(a: Any, b: Any) -> Any:
    """Of numbers: with a text it would be a format of any width."""
    return _number(a) % _number(b)


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError("only numbers can be multiplied or divided")
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": _length,
    "words": _words,
    "lower": lambda text: str(text or "").lower(),
    "matches": _matches,
    "number": lambda value: float(value),
}
"""What a condition may call. matches(pattern, text) searches a regular expression."""


def condition(expression: str, columns: Sequence[str]) -> Callable[[Row], bool]:
    """A test of rows. Raises DataError, naming the place, for what is no condition over
    `columns`; the test raises Unusable where it cannot be answered for a row."""
    tree = _checked(expression.strip(), columns)
    evaluator = EvalWithCompoundTypes(functions=dict(FUNCTIONS), names={})
    evaluator.operators = {**evaluator.operators, ast.Mult: _product, ast.Mod: _remainder}

    def holds(row: Row) -> bool:
        values = named_values(row)
        evaluator.names = {**dict.fromkeys(columns), **_CONSTANTS, **values}
        evaluator.functions = {**FUNCTIONS, "col": values.get}
        try:
            return bool(evaluator.eval(expression, previously_parsed=tree))
        except (
            InvalidExpression,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            regex.error,
        ) as error:
            raise Unusable(
                _("the condition cannot be answered: {reason}", reason=_reason(error))
            ) from error

    return holds


def _checked(expression: str, columns: Sequence[str]) -> ast.expr:
    if len(expression) > _LONGEST:
        raise DataError(
            _("The condition has {characters:,} characters.", characters=len(expression)),
            _("It may have {longest:,}: make several steps of it.", longest=_LONGEST),
        )
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        place = getattr(error, "offset", None)
        why = getattr(error, "msg", error)
        raise DataError(
            _(
                "The condition cannot be read at character {place}: {error}.",
                place=place,
                error=why,
            )
            if place
            else _("The condition cannot be read: {error}.", error=why),
            _('Write it like: label == "law" and len(text) > 20'),
        ) from error
    if _depth(tree) > _DEEPEST:
        raise DataError(_("The condition is nested too deeply."), _("Write it in a simpler way."))
    for node in ast.walk(tree):
        _check_node(node, columns)
    return tree


def _depth(tree: ast.AST) -> int:
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _check_node(node: ast.AST, columns: Sequence[str]) -> None:
    if not isinstance(node, _ALLOWED):
        raise DataError(
            _("The condition cannot use {what}.", what=type(node).__name__.lower()),
            _(
                "It knows names, numbers, texts, lists, comparisons, and, or, not, in, + - * / % "
                "and {functions}.",
                functions=", ".join([*FUNCTIONS, "col"]),
            ),
        )
    known = [*columns, *_CONSTANTS, *FUNCTIONS, "col"]
    named = node.id if isinstance(node, ast.Name) else None
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    if called == "col":
        known, named = list(columns), _first_text(node)
        if named is None:
            raise DataError(
                _("col() needs the name of a column."), _('Such as col("my column") > 3')
            )
    if called == "matches":
        _check_pattern(_first_text(node))
    if named is not None and named not in known:
        raise DataError(
            _(
                "The condition names {name}, which no row has{end}",
                name=named,
                end=did_you_mean(named, known),
            ),
            _("The names are {columns}; texts stand in quotes.", columns=", ".join(columns)),
        )
    if isinstance(node, ast.Attribute) and node.attr not in _METHODS:
        raise DataError(
            _("The condition cannot use .{name}.", name=node.attr),
            _("It may use {methods}.", methods=", ".join(_METHODS)),
        )


def _first_text(call: ast.AST) -> str | None:
    """What a call is given first, if that is a text in quotes."""
    first = call.args[0] if isinstance(call, ast.Call) and call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _check_pattern(pattern: str | None) -> None:
    try:
        regex.compile(pattern or "")
    except regex.error as error:
        raise DataError(
            _(
                "The pattern {pattern} cannot be read: {error}.",
                pattern=str(pattern)[:100],
                error=error,
            ),
            _("A sign such as ( that is meant as such needs a backslash before it."),
        ) from error


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_REASON_CHARS]


def template(text: str, columns: Sequence[str]) -> Callable[[Row], str]:
    """Fills `{column}` in a text with a row's values; `{{` and `}}` stand for braces.

    Raises DataError for a column that no row has; the filling raises Unusable where this row
    does not have it.
    """
    for found in _NAMED.finditer(text):
        name = found.group(1)
        if name is not None and name not in columns:
            raise DataError(
                _(
                    "The template names {{{name}}}, which no row has{end}",
                    name=name,
                    end=did_you_mean(name, columns),
                ),
                _("The names are {columns}.", columns=", ".join(columns)),
            )
        if name is None and found.group() in "{}":
            raise DataError(
                _(
                    "A brace stands alone at character {place} of the template.",
                    place=found.start() + 1,
                ),
                _("Write {{ or }} for a brace that is meant as such."),
            )

    def fill(row: Row) -> str:
        def put(found: re.Match[str]) -> str:
            if found.group(1) is None:
                return found.group()[0]
            value = value_of(row, found.group(1))
            if value is None:
                raise Unusable(_("the column {column} is missing", column=found.group(1)))
            return "\n".join(map(str, value)) if isinstance(value, list) else str(value)

        return _NAMED.sub(put, text)

    return fill
