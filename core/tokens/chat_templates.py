"""Chat templates: those that come with Tunesmith, the owner's own, and what is wrong with one.

A template is a Jinja program that makes one text of a conversation. It is compiled here as
transformers does it (the same sandbox, filters and tags), without importing transformers, so that
the page can check what a person types: in a process of its own, for the sandbox keeps a program
from files and not from loops without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
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
from core.language import N_, _
from core.progress import Tell
from core.workspace import RunFolder, Workspace, write_atomic

MODELS_OWN = "model"
"""The name that means the template that the model brings itself."""

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "templates"

FROM_TRL = {
    "deepseek-r1": ("deepseek_r1_distill_training", N_("DeepSeek-R1, every thought kept")),
    "glm-4.5": ("glm4moe_training", N_("GLM-4.5, the thoughts of the last question kept")),
    "gpt-oss": ("gptoss_training", N_("gpt-oss (Harmony), the thought of the last answer kept")),
    "qwen3": ("qwen3_training", N_("Qwen3, every thought kept")),
    "qwen3.5": ("qwen3_5_think_training", N_("Qwen3.5, every thought kept")),
}
"""Templates for models that think: name -> (file in TRL's package, title). They come after the
owner's own, who may have had one of that name before."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,59}")
_TITLE = re.compile(r"\A\s*\{#-?\s*(.+?)\s*-?#\}", re.DOTALL)
_MOST_CHARACTERS = 100_000
RENDERING = Limit(seconds=10, memory_bytes=2**30)
_USER, _ANSWER = "What is the time?", "It is noon."
_PROBE = [
    {"role": "user", "content": _USER},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": "Thank you."},
]
_LONG = [
    {"role": "user" if number % 2 else "assistant", "content": f"What turn {number} says."}
    for number in range(1, 10)
]
_SYSTEM = {"role": "system", "content": "Be brief."}
_CALL = {"type": "function", "function": {"name": "clock", "arguments": {}}}
_CALLED: list[dict[str, Any]] = [
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "name": "clock", "content": "12:00"},
]
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "Tells the time.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
_EOS, _BEGIN, _END = "</s>", "\x02", "\x03"
_THOUGHT = "The sun is high."
THOUGHT_KEYS = ("reasoning_content", "thinking", "reasoning")
"""The keys under which templates look for a thought."""

_END_OF_TURN = N_("the end of a turn")
_MARK = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<[a-z]+(?:_[a-z0-9]+)+>|\[/?[A-Za-z_]{2,20}\]|</?s>"
)
_CLOSING = re.compile(r"\s*(<[^<>\s]{1,40}>|\[\|[^\[\]\s]{1,40}\|\])")


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
        if not self.line:
            return self.message
        return _("Line {line}: {problem}", line=self.line, problem=self.message)


def list_templates(workspace: Workspace) -> list[Template]:
    """The bundled templates, then the owner's own, each by name."""
    own = _in_folder(own_folder(workspace), "own")
    taken = {template.name for template in own}
    bundled = _in_folder(BUNDLED, "bundled")
    bundled += [
        Template(name, _(title), "bundled", path.read_text(encoding="utf-8"))
        for name, (_file, title) in FROM_TRL.items()
        if name not in taken and (path := _from_trl(name)) is not None
    ]
    return [*sorted(bundled, key=lambda one: one.name), *own]


def _in_folder(folder: Path, source: Literal["bundled", "own"]) -> list[Template]:
    found = []
    for path in sorted(folder.glob("*.jinja")):
        text = path.read_text(encoding="utf-8", errors="replace")
        title = title_in(text) or path.stem
        found.append(Template(path.stem, _(title) if source == "bundled" else title, source, text))
    return found


def title_in(text: str) -> str:
    """What a template is called in its first comment; "" where it has none."""
    title = _TITLE.match(text)
    return " ".join(title[1].split())[:80] if title else ""


def _from_trl(name: str) -> Path | None:
    """The file of a template in the installed TRL, which is not imported; None where there is
    none."""
    spec = find_spec("trl")
    if name not in FROM_TRL or spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "chat_templates" / f"{FROM_TRL[name][0]}.jinja"
    return path if path.is_file() else None


def load_template(name: str, workspace: Workspace) -> str:
    """The text of a bundled or own template. Raises DataError naming those that are near."""
    if _NAME.fullmatch(name):
        files = [folder / f"{name}.jinja" for folder in (BUNDLED, own_folder(workspace))]
        for path in (*files, _from_trl(name)):
            if path is not None and path.is_file():
                return path.read_text(encoding="utf-8")
    known = [template.name for template in list_templates(workspace)]
    near = get_close_matches(name, known, 3, 0.5) or known
    raise DataError(
        _("There is no chat template {name!r}.", name=name),
        _("Choose {own}, or {names}.", own=MODELS_OWN, names=", ".join(near)),
    )


def save_template(workspace: Workspace, name: str, text: str) -> Template:
    """Keeps a template under a name of the owner's. Raises DataError when the name is taken by a
    bundled one, cannot be a file's name, or the template has a problem."""
    if not _NAME.fullmatch(name) or name == MODELS_OWN:
        raise DataError(
            _("{name!r} cannot be the name of a template.", name=name),
            _("Take lower-case letters, digits, hyphens, dots and underscores, such as my-chatml."),
        )
    is_own = (own_folder(workspace) / f"{name}.jinja").is_file()
    if (BUNDLED / f"{name}.jinja").is_file() or (name in FROM_TRL and not is_own):
        raise DataError(
            _("{name} is a template that comes with Tunesmith.", name=name), _("Take another name.")
        )
    problem = check_template(text)
    if problem:
        raise DataError(
            _("The template cannot be used. {problem}", problem=problem),
            _("Change it at that place."),
        )
    write_atomic(own_folder(workspace) / f"{name}.jinja", text)
    return next(one for one in list_templates(workspace) if one.name == name)


def delete_template(workspace: Workspace, name: str) -> None:
    """Deletes one of the owner's own; runs keep the copy they were started with. Raises
    DataError when there is none."""
    path = own_folder(workspace) / f"{name}.jinja"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise DataError(
            _("There is no own chat template {name!r}.", name=name),
            _("Those that come with Tunesmith stay."),
        )
    path.unlink()


def own_folder(workspace: Workspace) -> Path:
    return workspace.root / "templates"


def check_template(text: str, within: Limit = RENDERING) -> TemplateProblem | None:
    """What is wrong with a template: its syntax, an error on rendering a short or a longer
    conversation, words of it that are left out, generation marks around something else than an
    answer, or that nothing ends an answer. None when it is fit."""
    if not text.strip():
        return TemplateProblem(None, _("The template is empty."))
    if len(text) > _MOST_CHARACTERS:
        return TemplateProblem(
            None,
            _("The template is longer than {letters:,} letters.", letters=_MOST_CHARACTERS),
        )
    try:
        found: TemplateProblem | None = call_isolated(
            f"{__name__}:problem_of", text, within=within, workers=context((__name__,))
        )
    except JobError as error:
        return TemplateProblem(None, _("It cannot be rendered. {reason}", reason=error.message))
    return found


def problem_of(text: str, progress: Tell | None = None) -> TemplateProblem | None:
    """What `check_template` says, found in this process: compiling counts out what is constant, and
    rendering does what the template says."""
    try:
        template = _environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        return TemplateProblem(error.lineno, _sentence(error))
    except RecursionError:
        return TemplateProblem(None, _("The template is nested too deeply."))
    try:
        rendered = _render(template, _PROBE[:2])
        asked = _render(template, _PROBE, add_generation_prompt=True)
        longer = _render(template, _LONG, add_generation_prompt=True)
    except MemoryError:
        raise
    except Exception as error:  # a template is a program: it raises what it likes
        return TemplateProblem(_line_of(error.__traceback__), _sentence(error))
    for role, words in (("user", _USER), ("assistant", _ANSWER)):
        if words not in rendered or words not in asked:
            return TemplateProblem(
                None, _("The words of the {role} are missing in what it renders.", role=role)
            )
    for number, turn in enumerate(_LONG, 1):
        if turn["content"] not in longer:
            message = _(
                "The words of the {role} in turn {number} of {turns} are missing in what it "
                "renders.",
                role=turn["role"],
                number=number,
                turns=len(_LONG),
            )
            return TemplateProblem(None, message)
    _render_others(text, template)
    wrong = _wrong_marks(text) or _without_end(template)
    return TemplateProblem(None, wrong) if wrong else None


def _render_others(text: str, template: jinja2.Template) -> None:
    """Renders conversations that a template need not know, only to see that it comes to an end."""
    with_tools = [*_LONG[:1], *_CALLED, *_LONG[1:]]
    talks: list[tuple[list[dict[str, Any]], Any]] = [([_SYSTEM, *_LONG], None)]
    if names_used(text) & {"tools", "tool_calls"}:
        talks += [(with_tools, _TOOLS), ([_SYSTEM, *with_tools], _TOOLS)]
    for messages, tools in talks:
        try:
            _render(template, messages, add_generation_prompt=True, tools=tools)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - it may refuse a system turn, or calls
            continue


def _wrong_marks(text: str) -> str:
    """What is wrong with a template's generation marks, in a sentence; "" where they stand around
    the answer, and where there are none."""
    if "generation" not in names_used(text):
        return ""
    rendered = _render(_environment(_ShownGeneration).from_string(text), _PROBE, eos_token=_EOS)
    marked = re.findall(f"{_BEGIN}(.*?){_END}", rendered, re.DOTALL)
    if not marked or any(_ANSWER in one for one in marked):
        return ""
    wrong = _("Its generation marks leave out the words of the assistant.")
    if not any(one.strip() for one in marked):
        wrong = _("Its generation marks are empty: nothing would be learned.")
    mend = _("Set {% generation %} before the words of the assistant, {% endgeneration %} behind.")
    return _("{message} {hint}", message=wrong, hint=mend)


def _without_end(template: jinja2.Template) -> str:
    """That nothing ends an answer, in a sentence; "" where something is written behind the last
    one, or where the next turn begins with a mark that no answer begins with."""
    rendered = _render(template, [*_PROBE, {**_PROBE[1]}], eos_token=_EOS)
    before, asked = (
        _render(template, _PROBE[:1], add_generation_prompt=prompt, eos_token=_EOS)
        for prompt in (False, True)
    )
    opening = asked.removeprefix(before)
    next_turn = _CLOSING.match(rendered.partition(_ANSWER)[2])
    if rendered.rpartition(_ANSWER)[2].strip() or (next_turn and next_turn[1] not in opening):
        return ""
    return _(
        "Nothing ends an answer in what it renders, so that a model would never learn to "
        "stop. Write {{ eos_token }}, or the mark that the model stops at, behind the "
        "words of the assistant."
    )


def template_remarks(text: str) -> list[str]:
    """What a person should know of a sound template, a sentence for each."""
    try:
        found: list[str] = call_isolated(
            f"{__name__}:remarks_on", text, within=RENDERING, workers=context((__name__,))
        )
    except JobError as error:
        return [_("With other conversations it cannot be rendered. {reason}", reason=error.message)]
    return found


def remarks_on(text: str, progress: Tell | None = None) -> list[str]:
    """What `template_remarks` says, found in this process."""
    remarks = []
    stop = left_out_stop(text)
    if stop:
        remarks.append(
            _(
                "Its generation marks leave out {stop}, which ends an answer. It is learned "
                "nevertheless: without it a model would never stop.",
                stop=stop,
            )
        )
    return [*remarks, *_remarks_on_thoughts(text)]


@lru_cache(maxsize=32)
def left_out_stop(text: str) -> str:
    """What ends an answer and is left out by a template's generation marks; "" where they have it,
    and where the template has no marks or does not render."""
    if "generation" not in names_used(text):
        return ""
    with suppress(Exception):  # `check_template` says what is wrong with it
        template = _environment(_ShownGeneration).from_string(text)
        rendered = _render(template, _PROBE, eos_token=_EOS)
        inside, _mark, rest = rendered.partition(_BEGIN)[2].partition(_END)
        if inside.rstrip().endswith(_ANSWER):
            found = _MARK.match(rest.lstrip())
            return found[0] if found else _END_OF_TURN
    return ""


def _remarks_on_thoughts(text: str) -> list[str]:
    key = thought_key(text)
    first, last = f"{_THOUGHT} First.", f"{_THOUGHT} Last."

    def answer(thought: str) -> dict[str, str]:
        if key:
            return {**_PROBE[1], key: thought}
        return {**_PROBE[1], "content": f"<think>\n{thought}\n</think>\n\n{_ANSWER}"}

    try:
        talk = [_PROBE[0], answer(first), _PROBE[2], answer(last)]
        rendered = _render(_environment().from_string(text), talk)
    except Exception:  # noqa: BLE001 - `check_template` says what is wrong with it
        return []
    if last not in rendered:
        return [_("It takes the thoughts out of answers: they are neither read nor learned.")]
    if first not in rendered:
        return [_("It takes the thoughts of earlier turns out: they are neither read nor learned.")]
    return []


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


@lru_cache(maxsize=32)
def thought_key(text: str) -> str:
    """The key of a turn under which a template looks for the thought before an answer; "" where
    it knows none. It is tried out: the names alone also stand for other things."""
    try:
        template = _environment().from_string(text)
    except jinja2.TemplateSyntaxError:
        return ""
    for key in THOUGHT_KEYS:
        with suppress(Exception):  # a template is a program: it raises what it likes
            if _THOUGHT in _render(template, [_PROBE[0], {**_PROBE[1], key: _THOUGHT}]):
                return key
    return ""


def split_marks(text: str, tokenizer: Any) -> list[str]:
    """The marks that a template writes and that are several tokens to this tokenizer, such as
    `<|eot_id|> is 6 tokens for this model`: it would learn to spell them."""
    try:
        template = _environment().from_string(text)
        rendered = _render(template, _PROBE, add_generation_prompt=True)
    except Exception:  # noqa: BLE001 - `check_template` says what is wrong with it
        return []
    vocabulary = tokenizer.get_vocab()
    found: list[str] = []
    for mark in dict.fromkeys(_MARK.findall(rendered)):
        if mark in vocabulary:
            continue
        count = len(tokenizer(mark, add_special_tokens=False, verbose=False)["input_ids"])
        if count > 1:
            found.append(_("{mark} is {count} tokens for this model", mark=mark, count=count))
    return found


def use_template(tokenizer: Any, text: str) -> Any:
    """Sets the tokenizer's template; what is saved with the tokenizer then carries it.

    A tokenizer that does not itself begin texts with a begin token gets a template that does not
    either, whatever model the template was written for.
    """
    begin = tokenizer.bos_token_id
    if begin is None or list(tokenizer("a", verbose=False)["input_ids"])[:1] != [begin]:
        text = text.replace("{{- bos_token }}\n", "").replace("{{bos_token}}", "")
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


class _ShownGeneration(_Generation):
    """The same with its beginning and end written into the text."""

    def parse(self, parser: Parser) -> list[nodes.Node]:
        begin, end = (nodes.Output([nodes.TemplateData(mark)]) for mark in (_BEGIN, _END))
        return [begin, *super().parse(parser), end]


def _environment(generation: type[Extension] = _Generation) -> ImmutableSandboxedEnvironment:
    """As `transformers.utils.chat_template_utils` makes it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[generation, loopcontrols]
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
    template: jinja2.Template,
    messages: Sequence[dict[str, Any]],
    add_generation_prompt: bool = False,
    eos_token: str = "",
    tools: list[dict[str, Any]] | None = None,
) -> str:
    return template.render(
        messages=messages,
        tools=tools,
        documents=None,
        add_generation_prompt=add_generation_prompt,
        bos_token="",
        eos_token=eos_token,
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
