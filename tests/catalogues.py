"""The catalogues of texts: what the source says, what is translated, what is wrong with it.

    python -m tests.catalogues     brings core/locale/*/LC_MESSAGES/tunesmith.po up to date with the
                                   source, compiles them, and says what is missing

Which files are read, and how, stands in pyproject.toml (tool.babel).
"""

from __future__ import annotations

import ast
import io
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from string import Formatter
from typing import IO, Any

import yaml
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.frontend import parse_keywords
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from core.language import DOMAIN, LOCALE
from core.tokens.chat_templates import title_in

ROOT = Path(__file__).resolve().parents[1]


def extracted() -> Catalog:
    """Every text that the source shows to a person."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["babel"]
    found = extract_from_dir(
        ROOT,
        [(each["pattern"], each["method"]) for each in told["mappings"]],
        {each["pattern"]: each.get("options", {}) for each in told["mappings"]},
        DEFAULT_KEYWORDS | parse_keywords(told["keywords"]),
        strip_comment_tags=True,
        comment_tags=["Translators:"],
        directory_filter=lambda folder: Path(folder).name not in ("tests", "workspace", ".venv"),
    )
    catalogue = Catalog(project="Tunesmith", charset="utf-8")
    for file, _line, text, comments, context in sorted(found, key=lambda one: one[:2]):
        catalogue.add(text, None, [(file, 0)], auto_comments=comments, context=context)
    return catalogue


def texts_of_python(
    file: IO[bytes], keywords: Mapping[str, Any], tags: Sequence[str], options: Mapping[str, Any]
) -> Iterator[tuple[int, str, str | tuple[str, ...], list[str]]]:
    """Babel's way to read a file, by its syntax tree: what stands inside an f-string counts too.
    Raises SyntaxError where a text is none that can be looked up."""
    for node in ast.walk(ast.parse(file.read())):
        if isinstance(node, ast.ClassDef):
            yield from ((line, "N_", text, []) for line, text in _declared(node))
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        name = node.func.id
        many = 2 if name == "n_" else 1
        if name not in ("_", "N_", "n_") or not isinstance(
            node.args[0], ast.Constant | ast.JoinedStr
        ):
            continue  # `_(declared)` says anew what was declared elsewhere
        texts = tuple(one.value for one in node.args[:many] if isinstance(one, ast.Constant))
        if len(texts) != many:
            raise SyntaxError(f"{file.name}:{node.lineno}: a template is one plain string")
        yield node.lineno, name, texts if many > 1 else texts[0], []


def _declared(section: ast.ClassDef) -> Iterator[tuple[int, str]]:
    """What a class of settings says of itself where it has a title, and of each field that is a
    `knob`: its label, its unit and the text under it."""
    named = any(
        isinstance(one, ast.Assign) and _is(one.targets[0], "title") for one in section.body
    )
    if named and (text := ast.get_docstring(section)):
        yield section.lineno, " ".join(text.split())
    for one, below in pairwise(section.body):
        made = one.value if isinstance(one, ast.AnnAssign) else None
        if not (isinstance(made, ast.Call) and _is(made.func, "knob")):
            continue
        units = [one.value for one in made.keywords if one.arg == "unit"]
        texts = [*made.args[1:2], *units, *([below.value] if isinstance(below, ast.Expr) else [])]
        for text in texts:
            yield text.lineno, " ".join(ast.literal_eval(text).split())


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def texts_of_chat_template(
    file: IO[bytes], keywords: Mapping[str, Any], tags: Sequence[str], options: Mapping[str, Any]
) -> Iterator[tuple[int, str, str, list[str]]]:
    """What a chat template that comes with Tunesmith is called."""
    yield 0, "N_", title_in(file.read().decode()), []


def texts_of_preset(
    file: IO[bytes], keywords: Mapping[str, Any], tags: Sequence[str], options: Mapping[str, Any]
) -> Iterator[tuple[int, str, str, list[str]]]:
    """What a shipped preset, or the sample data set, says of itself."""
    document = yaml.safe_load(file)
    for key in ("title", "description", "when"):
        if key in document:
            yield 0, "N_", document[key], []


def translated(language: str) -> Catalog:
    path = LOCALE / language / "LC_MESSAGES" / f"{DOMAIN}.po"
    with path.open("rb") as file:
        return read_po(file, locale=language, domain=DOMAIN)


def written(catalogue: Catalog) -> bytes:
    """The catalogue as its file has it."""
    file = io.BytesIO()
    write_po(file, catalogue, width=100, include_lineno=False, ignore_obsolete=True)
    return file.getvalue()


def compiled(catalogue: Catalog) -> bytes:
    """The catalogue as gettext reads it. The same texts give the same bytes."""
    file = io.BytesIO()
    write_mo(file, catalogue)
    return file.getvalue()


def problems(source: Catalog, theirs: Catalog) -> Iterator[str]:
    """What is not translated, and what has other values than its source."""
    for message in source:
        if not message.id:
            continue
        one = theirs.get(_first(message), message.context)
        if one is None or not all(_strings(one)) or one.fuzzy:
            yield f"not translated: {_first(message)!r}"
            continue
        wanted = _values(_first(message))
        for text in _strings(one):
            differ = (_values(text) ^ wanted) - ({"n"} if message.pluralizable else set())
            if differ:
                yield f"{_first(message)!r} has other values than {text!r}: {sorted(differ)}"


def key(message: Message) -> tuple[str, str | None]:
    return _first(message), message.context


def _first(message: Message) -> str:
    return message.id if isinstance(message.id, str) else message.id[0]


def _strings(message: Message) -> tuple[str, ...]:
    said = message.string or ""
    return (said,) if isinstance(said, str) else tuple(said)


def _values(template: str) -> set[str]:
    """The names in braces; {} of a text that is never formatted are none."""
    try:
        return {name for _text, name, _spec, _how in Formatter().parse(template) if name}
    except ValueError:
        return set()


def main() -> int:
    source, missing = extracted(), 0
    for folder in sorted(LOCALE.glob("*/LC_MESSAGES")):
        language, place = folder.parent.name, folder / f"{DOMAIN}.po"
        theirs = translated(language)
        theirs.update(source, no_fuzzy_matching=True)
        theirs.obsolete.clear()
        place.write_bytes(written(theirs))
        place.with_suffix(".mo").write_bytes(compiled(theirs))
        wrong = list(problems(source, theirs))
        missing += len(wrong)
        print(
            "\n".join([*wrong, f"{language}: {len(theirs)} texts, {len(wrong)} wrong or missing"])
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
