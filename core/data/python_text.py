"""Lists and objects as Python writes them, and pandas' and datasets' `to_csv` with it: in quotes
that JSON does not know, with None and True and numpy's arrays. Nothing of it is executed."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from core.language import _

MOST_CHARS = 2**20
"""A longer text is not read: Python needs a hundred times its size for it."""

LISTS = ("[", "{", "(", "array(", "OrderedDict(")
"""How a text begins that may be a list or an object."""

_BEGINNING = re.compile(
    r"\s*(?:(?:array|OrderedDict)\()?[\[({]\s*(?:(?:(?:array|OrderedDict)\()?[\[({]\s*)*"
    r"(?:'|np\.|array\(|-?\d[\d.e+-]*\s*[,:\]) \n]|(?:None|True|False|nan)\b)"
)
"""How a list or object begins that JSON cannot say, or says in another way. A text in double quotes
may be either, so `is_python` also looks for what only Python writes."""

_DOUBLE_QUOTED = re.compile(r'\s*[\[({]\s*(?:[\[({]\s*)*"(?:[^"\\]|\\.)*"\s*[,:\])} \n]', re.S)
_OF_TEXTS = re.compile(r"\s*(?:array\()?\[\s*['\"]")
_OF_TURNS = re.compile(
    r"\s*(?:array\()?\[\s*\{\s*(['\"])(?:role|from|speaker|content|value|text)\1\s*:"
)
_SPEAKERS = "user|human|prompter|assistant|gpt|bot|model|chatgpt|system|developer|tool|function"
_OF_TURNS_LATER = re.compile(
    r"\s*(?:array\()?\[\s*\{\s*'(?:[^{}]{0,300}?'(?:role|from|speaker)'\s*:|"
    rf".{{0,2000}}?'(?:role|from|speaker)'\s*:\s*'(?:{_SPEAKERS})')",
    re.S,
)
"""The same in Python's quotes, behind other keys such as an id or an object."""
_OF_ORDERED_TURNS = re.compile(
    r"\s*(?:array\()?\[\s*OrderedDict\([\[{(]?\s*[\[({]?\s*'(?:role|from|speaker|content|value|text)'"
    rf"|\s*\[\s*OrderedDict\(.{{0,2000}}?'(?:role|from|speaker)'\s*[:,]\s*'(?:{_SPEAKERS})'",
    re.S,
)
_PIECES = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\[\](){},:]|[^\s\[\](){},:'"]+|['"]""", re.S
)


class NotRead(ValueError):
    """Why a text that looks as Python writes lists cannot be read."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_python(text: str) -> bool:
    """Whether a text looks like a list or object as Python writes it, from beginning to end."""
    lists = text.lstrip().startswith(LISTS)
    if not lists or not text.rstrip().endswith(("]", "}", ")")):
        return False
    return bool(_BEGINNING.match(text) or _DOUBLE_QUOTED.match(text))


def begins_as_turns(text: str) -> str:
    """The kind of quotes in a text that begins as a list of turns does, in JSON or in Python, also
    if it is cut off; "" for another text."""
    found = _OF_TURNS.match(text)
    if found:
        return found[1]
    return "'" if _OF_TURNS_LATER.match(text) or _OF_ORDERED_TURNS.match(text) else ""


def begins_as_texts(text: str) -> bool:
    """Whether a text begins as a list of texts does, in JSON or in Python."""
    return bool(_OF_TEXTS.match(text))


def read_python(text: str) -> Any:
    """The value that the text is, with what JSON knows inside. Raises NotRead."""
    if len(text) > MOST_CHARS:
        raise NotRead(_("it is longer than {most:,} characters", most=MOST_CHARS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a text that is no Python may warn of its escapes
            tree = ast.parse(_with_commas(text.strip()), mode="eval")
        return ast.literal_eval(_Plain().visit(tree))
    except NotRead:
        raise
    except (RecursionError, MemoryError) as error:
        raise NotRead(_("it is nested too deeply")) from error
    except SyntaxError as error:
        raise NotRead(_("it is cut off, or it is not what Python writes")) from error
    except (ValueError, TypeError) as error:
        raise NotRead(_("it holds more than texts, numbers, lists and objects")) from error


def _with_commas(text: str) -> str:
    """With a comma between values that stand side by side: numpy writes none."""
    pieces: list[str] = []
    ended = False
    for piece in _PIECES.findall(text):
        if ended and (piece in ("[", "{") or piece[0] not in "[](){},:"):
            pieces.append(",")
        pieces.append(piece)
        ended = piece in ("]", "}", ")") or piece[0] not in "[](){},:"
    return " ".join(pieces)


def _of_pairs(pairs: ast.AST) -> ast.Dict:
    """The object that a list of names and values is."""
    items = pairs.elts if isinstance(pairs, ast.List) else []
    both = [item.elts for item in items if isinstance(item, ast.List) and len(item.elts) == 2]
    if not isinstance(pairs, ast.List) or len(both) < len(items):
        raise NotRead(_("it holds more than texts, numbers, lists and objects"))
    return ast.Dict([key for key, _value in both], [value for _key, value in both])


class _Plain(ast.NodeTransformer):
    """Lists for arrays, tuples and sets, null for nan, text for the names of an object."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = ast.unparse(node.func).removeprefix("collections.")
        if name == "OrderedDict":
            pairs = self.visit(node.args[0]) if node.args else ast.Dict([], [])
            return pairs if isinstance(pairs, ast.Dict) else self.visit(_of_pairs(pairs))
        if not (name == "array" or name.startswith(("np.", "numpy."))) or not node.args:
            raise NotRead(_("it holds more than texts, numbers, lists and objects"))
        made: ast.AST = self.visit(node.args[0])
        return made

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in ("nan", "null"):
            return ast.Constant(None)
        return ast.Constant(node.id == "true") if node.id in ("true", "false") else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if node.value is ...:
            raise NotRead(_("it was shortened with ... when it was written"))
        if isinstance(node.value, (bytes, complex)):
            raise NotRead(_("it holds more than texts, numbers, lists and objects"))
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        return ast.List([self.visit(item) for item in node.elts], ast.Load())

    def visit_Set(self, node: ast.Set) -> ast.AST:
        return ast.List([self.visit(item) for item in node.elts], ast.Load())

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        for key in node.keys:
            if not isinstance(key, ast.Constant):
                raise NotRead(_("it holds an object without names"))
        keys = [ast.Constant(str(key.value)) for key in node.keys if isinstance(key, ast.Constant)]
        return ast.Dict([*keys], [self.visit(value) for value in node.values])
