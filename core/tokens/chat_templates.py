"""Chat templates: those that come with Tunesmith, the owner's own, and what is wrong with one.

A template is a Jinja program that makes one text of a conversation. It is compiled here as
transformers does it (the same sandbox, filters and tags), without importing transformers, so that
the page can check what a person types: in a process of its own, for the sandbox keeps a program
from files and not from loops without end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import DataError, JobError
from core.jobs.isolated import call_isolated
from core.jobs.limits import Limit
from core.jobs.process import context
from core.progress import Tell
from core.workspace import RunFolder, Workspace, write_atomic

MODELS_OWN = "model"
"""The name that means the template that the model brings itself."""

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "templates"

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,59}")
_TITLE = re.compile(r"\A\s*\{#-?\s*(.+?)\s*-?#\}", re.DOTALL)
_MOST_CHARACTERS = 100_000
_LIMIT = Limit(seconds=10, memory_bytes=2**30)
_USER, _ANSWER = "What is the time?", "It is noon."
_PROBE = [
    {"role": "user", "content": _USER},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": "Thank you."},
]
_MARK = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<[a-z]+(?:_[a-z0-9]+)+>|\[/?[A-Za-z_]{2,20}\]|</?s>"
)


@dataclass(frozen=True)
class Template:
    """A chat template by name. `title` is what lists show."""

    name: str
    title: str
    source: Literal["bundled", "own"]
    text: str


@dataclass(frozen=True)
class TemplateProblem:
    """What is wrong with a template and at which line (1 is the first; None where unknown)."""

    line: int | None
    message: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.message}" if self.line else self.message


def list_templates(workspace: Workspace) -> list[Template]:
    """The bundled templates, then the owner's own, each by name."""
    found = []
    for source, folder in (("bundled", BUNDLED), ("own", own_folder(workspace))):
        for path in sorted(folder.glob("*.jinja")):
            text = path.read_text(encoding="utf-8", errors="replace")
            title = _TITLE.match(text)
            shown = " ".join(title[1].split())[:80] if title else path.stem
            found.append(Template(path.stem, shown, "own" if source == "own" else "bundled", text))
    return found


def load_template(name: str, workspace: Workspace) -> str:
    """The text of a bundled or own template. Raises DataError naming those that are near."""
    for folder in (BUNDLED, own_folder(workspace)):
        path = folder / f"{name}.jinja"
        if _NAME.fullmatch(name) and path.is_file():
            return path.read_text(encoding="utf-8")
    known = [template.name for template in list_templates(workspace)]
    near = get_close_matches(name, known, 3, 0.5) or known
    raise DataError(
        f"There is no chat template {name!r}.", f"Choose {MODELS_OWN}, or {', '.join(near)}."
    )


def save_template(workspace: Workspace, name: str, text: str) -> Template:
    """Keeps a template under a name of the owner's. Raises DataError when the name is taken by a
    bundled one, cannot be a file's name, or the template has a problem."""
    if not _NAME.fullmatch(name) or name == MODELS_OWN:
        raise DataError(
            f"{name!r} cannot be the name of a template.",
            "Take lower-case letters, digits, hyphens, dots and underscores, such as my-chatml.",
        )
    if (BUNDLED / f"{name}.jinja").is_file():
        raise DataError(f"{name} is a template that comes with Tunesmith.", "Take another name.")
    problem = check_template(text)
    if problem:
        raise DataError(f"The template cannot be used. {problem}", "Change it at that place.")
    write_atomic(own_folder(workspace) / f"{name}.jinja", text)
    return next(one for one in list_templates(workspace) if one.name == name)


def delete_template(workspace: Workspace, name: str) -> None:
    """Deletes one of the owner's own; runs keep the copy they were started with. Raises
    DataError when there is none."""
    path = own_folder(workspace) / f"{name}.jinja"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise DataError(
            f"There is no own chat template {name!r}.", "Those that come with Tunesmith stay."
        )
    path.unlink()


def own_folder(workspace: Workspace) -> Path:
    return workspace.root / "templates"


def check_template(text: str) -> TemplateProblem | None:
    """What is wrong with a template: its syntax, an error on rendering a short conversation, or
    words of the conversation that it leaves out. None when it is fit."""
    if not text.strip():
        return TemplateProblem(None, "The template is empty.")
    if len(text) > _MOST_CHARACTERS:
        return TemplateProblem(None, f"The template is longer than {_MOST_CHARACTERS:,} letters.")
    try:
        found: TemplateProblem | None = call_isolated(
            f"{__name__}:problem_of", text, within=_LIMIT, workers=context((__name__,))
        )
    except JobError as error:
        return TemplateProblem(None, f"It cannot be rendered. {error.message}")
    return found


def problem_of(text: str, progress: Tell | None = None) -> TemplateProblem | None:
    """What `check_template` says, found in this process: compiling counts out what is constant, and
    rendering does what the template says."""
    try:
        template = _environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        return TemplateProblem(error.lineno, _sentence(error))
    except RecursionError:
        return TemplateProblem(None, "The template is nested too deeply.")
    try:
        rendered = _render(template, _PROBE[:2])
        asked = _render(template, _PROBE, add_generation_prompt=True)
    except MemoryError:
        raise
    except Exception as error:  # a template is a program: it raises what it likes
        return TemplateProblem(_line_of(error.__traceback__), _sentence(error))
    for who, words in (("user", _USER), ("assistant", _ANSWER)):
        if words not in rendered or words not in asked:
            return TemplateProblem(None, f"The words of the {who} are missing in what it renders.")
    return None


def template_of_model(folder: Path) -> str:
    """The text of the template that a model's folder holds; "" where it has none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    found = settings.get("chat_template") or ""
    if isinstance(found, list):
        found = {item.get("name"): item.get("template") for item in found}
    if isinstance(found, dict):
        found = found.get("default") or next(iter(found.values()), "")
    return str(found or "")


@lru_cache(maxsize=32)
def names_used(text: str) -> frozenset[str]:
    """Which of `tools`, `tool_calls` and `generation` (its marks) a template makes use of."""
    try:
        tree = _environment().parse(text)
    except jinja2.TemplateSyntaxError:
        return frozenset()
    used = {"tools"} & meta.find_undeclared_variables(tree)
    words = {node.attr for node in tree.find_all(nodes.Getattr)}
    words |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    used |= {"tool_calls"} & words
    if re.search(r"\{%-?\s*generation\s*-?%\}", text):
        used.add("generation")
    return frozenset(used)


def split_marks(text: str, tokenizer: Any) -> list[str]:
    """The marks that a template writes and that are several tokens to this tokenizer, such as
    `<|eot_id|> is 6 tokens for this model`: it would learn to spell them."""
    try:
        template = _environment().from_string(text)
        rendered = _render(template, _PROBE, add_generation_prompt=True)
    except Exception:  # noqa: BLE001 - `check_template` says what is wrong with it
        return []
    vocabulary = tokenizer.get_vocab()
    found = []
    for mark in dict.fromkeys(_MARK.findall(rendered)):
        if mark in vocabulary:
            continue
        count = len(tokenizer(mark, add_special_tokens=False, verbose=False)["input_ids"])
        if count > 1:
            found.append(f"{mark} is {count} tokens for this model")
    return found


def use_template(tokenizer: Any, text: str) -> Any:
    """Sets the tokenizer's template; what is saved with the tokenizer then carries it.

    A tokenizer that does not itself begin texts with a begin token gets a template that does not
    either, whatever model the template was written for.
    """
    begin = tokenizer.bos_token_id
    if begin is None or list(tokenizer("a", verbose=False)["input_ids"])[:1] != [begin]:
        text = text.replace("{{- bos_token }}\n", "")
    tokenizer.chat_template = text
    return tokenizer


def use_runs_own(tokenizer: Any, run_folder: Path) -> Any:
    """The tokenizer with the template that a run was started with, if that was a named one."""
    path = RunFolder(run_folder).chat_template
    if not path.is_file():
        return tokenizer
    return use_template(tokenizer, path.read_text(encoding="utf-8"))


def keep_with_run(run_folder: Path, name: str, workspace: Workspace) -> None:
    """Copies the named template into a run's folder, once: what is changed or deleted later does
    not change the run, and a resumed run goes on with the template it began with."""
    path = RunFolder(run_folder).chat_template
    if name not in ("", MODELS_OWN) and not path.is_file():
        write_atomic(path, load_template(name, workspace))


class _Generation(Extension):
    """The tag around what a model writes; it changes nothing in the text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """As `transformers.utils.chat_template_utils` makes it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _render(
    template: jinja2.Template, messages: list[dict[str, str]], add_generation_prompt: bool = False
) -> str:
    return template.render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=add_generation_prompt,
        bos_token="",
        eos_token="",
    )


def _line_of(trace: TracebackType | None) -> int | None:
    """The line of the template at which it failed."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text[:1].upper() + text[1:].rstrip(".") + "."
