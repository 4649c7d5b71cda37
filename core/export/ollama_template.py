"""A chat template for Ollama, in Go's language, taken from how the model's own one in Jinja renders
conversations: what stands before and after each role's words. It is right or there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

Render = Callable[[list[dict[str, str]], bool], str]
"""A conversation as text; the second argument says whether it waits for an answer."""
_SYSTEM, _FIRST, _ANSWER, _SECOND = "SYSTEMSAYS", "FIRSTQUESTION", "FIRSTANSWER", "SECONDQUESTION"


@dataclass(frozen=True)
class Around:
    """What stands before and after the words of each role, before all of them, and where an answer
    begins. `default` is the system prompt of a conversation that brings none."""

    begin: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    answer: str
    default: str

    def render(self, messages: list[dict[str, str]]) -> str:
        """As Ollama would, with the default system prompt in its Modelfile."""
        if messages[0]["role"] != "system" and self.default:
            messages = [{"role": "system", "content": self.default}, *messages]
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        parts = [around[m["role"]][0] + m["content"] + around[m["role"]][1] for m in messages]
        return self.begin + "".join(parts) + self.answer

    def in_go(self, begin_token: str) -> str:
        """The template; `begin_token` is left out at its beginning, because llama.cpp adds it."""
        roles = (("system", self.system), ("user", self.user), ("assistant", self.assistant))
        clauses = "{{ else if ".join(
            f'eq .Role "{role}" }}}}{_text(before)}{{{{ .Content }}}}{_text(after)}'
            for role, (before, after) in roles
        )
        begin = self.begin.removeprefix(begin_token) if begin_token else self.begin
        return (
            f"{_text(begin)}{{{{ range .Messages }}}}{{{{ if {clauses}"
            f"{{{{ end }}}}{{{{ end }}}}{_text(self.answer)}"
        )


def around_of(render: Render, end: str) -> Around | None:
    """How a template frames each role, with `end` at the end of answers; None where it does more
    than that, such as putting the system prompt into the first question."""
    try:
        found = _found(render, end)
        return found if found is not None and _is_right(found, render) else None
    except Exception:  # a template raises what it likes at a conversation that it does not take
        return None


def _found(render: Render, end: str) -> Around | None:
    talk = [_says("user", _FIRST), _says("assistant", _ANSWER), _says("user", _SECOND)]
    head, between, after, last = _split(render(talk, True), _FIRST, _ANSWER, _SECOND)
    user_before = _before_user(head, after, end)
    begin, assistant_after = head.removesuffix(user_before), after.removesuffix(user_before)
    user_after = os.path.commonprefix([between, last])
    told = _split(render([_says("system", _SYSTEM), _says("user", _FIRST)], True), _SYSTEM, _FIRST)
    system_head, system_after = told[0], told[1].removesuffix(user_before)
    default = ""
    if begin.startswith(system_head) and begin.endswith(system_after):
        default = begin[len(system_head) : len(begin) - len(system_after)]
        begin = ""
    system_before = system_head.removeprefix(begin)
    return Around(
        begin,
        (system_before, system_after),
        (user_before, user_after),
        (between.removeprefix(user_after), assistant_after),
        last.removeprefix(user_after),
        default,
    )


def _is_right(found: Around, render: Render) -> bool:
    """Whether longer conversations are framed alike."""
    talk = [
        _says("user", "Is it 12 or 7?"),
        _says("assistant", "12."),
        _says("user", "Why?"),
        _says("assistant", "Because."),
        _says("user", "Thank you"),
    ]
    with_system = [_says("system", "Be brief."), *talk]
    return all(found.render(one) == render(one, True) for one in (talk, with_system, talk[:1]))


def _says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _split(text: str, *marks: str) -> list[str]:
    """The pieces around marks, each of which stands in the text once."""
    pieces = []
    for mark in marks:
        piece, text = text.split(mark)
        pieces.append(piece)
    return [*pieces, text]


def _before_user(head: str, after: str, end: str) -> str:
    """What stands before each question: the end of what is before the first and of what is between
    an answer and the next one, but for the answer's own `end` and the space after it."""
    first = len(after) - len(os.path.commonprefix([head[::-1], after[::-1]]))
    if end and end in after:
        rest = after[after.index(end) + len(end) :]
        first = max(first, len(after) - len(rest.lstrip()))
    return after[first:]


def _text(text: str) -> str:
    """Words as they are in a template of Go."""
    return text.replace("{{", '{{"{{"}}')
