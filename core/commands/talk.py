"""A conversation in the terminal: what is typed is asked; a line that begins with / is about the
conversation."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.commands.output import DONE, Output
from core.errors import TunesmithError, reason_of
from core.language import N_, _

if TYPE_CHECKING:
    from core.chat.settings import ChatSettings, ColumnState

Message = dict[str, Any]
# What core.chat.settings has, which takes a moment to import.
SAMPLINGS = ("exact", "balanced", "varied")
SETTINGS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "seed",
    "enable_thinking",
)
_REMEMBERED = 1000  # lines

# What it is called, what it takes, what it does.
_COMMANDS = (
    ("/help", "", N_("says this")),
    ("/clear", "", N_("forgets the conversation")),
    ("/undo", "", N_("takes the last question and its answer back")),
    ("/again", "", N_("asks the last question again")),
    ("/system", N_("[TEXT]"), N_("shows or changes the system prompt, and begins anew")),
    ("/set", N_("[NAME VALUE]"), N_("shows or changes how it answers")),
    ("/save", N_("FILE"), N_("adds the conversation to a file of rows (JSON Lines)")),
    ("/exit", "", N_("leaves, as Ctrl-D does; Ctrl-C stops an answer")),
)


class Talk:
    """`ask` answers a conversation with settings; what was typed is remembered in `history`."""

    def __init__(
        self,
        ask: Callable[[list[Message], ChatSettings, Output], ColumnState],
        settings: ChatSettings,
        system: str,
        output: Output,
        history: Path | None = None,
    ) -> None:
        self.ask, self.settings, self.system, self.output = ask, settings, system, output
        self.history = history
        self.said: list[Message] = []

    def run(self) -> int:
        """Until /exit or the end of the input."""
        self.output.say(_("/help says what can be done; /exit or Ctrl-D leaves."))
        with _remembering(self.history):
            while (text := self._read()) is not None:
                word, _space, rest = text.strip().partition(" ")
                if word == "/exit":
                    break
                if word.startswith("/"):
                    self._obey(word, rest.strip())
                elif word:
                    self._answer(text)
        return DONE

    def _answer(self, text: str) -> None:
        asked = [*(self.said or self._beginning()), {"role": "user", "content": text}]
        state = self.ask(asked, self.settings, self.output)
        self.said = [*asked, {"role": "assistant", "content": state.text}]

    def _beginning(self) -> list[Message]:
        return [{"role": "system", "content": self.system}] if self.system else []

    def _obey(self, word: str, rest: str) -> None:
        do = {
            "/help": self._help,
            "/clear": self._clear,
            "/undo": self._undo,
            "/again": self._again,
            "/system": self._change_system,
            "/set": self._set,
            "/save": self._save,
        }.get(word)
        if do is None:
            self.output.say(_("There is no {command}; /help says which there are.", command=word))
            return
        try:
            do(rest)
        except TunesmithError as error:
            self.output.say(str(error))

    def _help(self, rest: str) -> None:
        lines = [
            (f"{word} {_(takes)}" if takes else word, _(does)) for word, takes, does in _COMMANDS
        ]
        wide = max(len(left) for left, _does in lines)
        self.output.say("\n".join(f"{left:<{wide}}  {does}" for left, does in lines))

    def _clear(self, rest: str) -> None:
        self.said = []
        self.output.say(_("Forgotten."))

    def _undo(self, rest: str) -> str | None:
        """The question that was taken back."""
        if not self.said:
            self.output.say(_("Nothing was asked yet."))
            return None
        *self.said, question, _answer = self.said
        if not any(one["role"] == "user" for one in self.said):
            self.said = []
        return str(question["content"])

    def _again(self, rest: str) -> None:
        question = self._undo(rest)
        if question is not None:
            self._answer(question)

    def _change_system(self, rest: str) -> None:
        if rest:
            self.system, self.said = rest, []
        self.output.say(self.system or _("No system prompt."))

    def _set(self, rest: str) -> None:
        from core.chat.settings import chat_settings

        if rest:
            name, _space, value = rest.replace("=", " ", 1).partition(" ")
            held = {**self.settings.model_dump(), name.replace("-", "_"): value.strip() or None}
            self.settings = chat_settings(held)
        held = self.settings.model_dump()
        self.output.say("\n".join(f"{name} {held[name]}" for name in SETTINGS))

    def _save(self, rest: str) -> None:
        if not self.said or not rest:
            self.output.say(_("Ask something first, and name the file: /save talk.jsonl"))
            return
        try:
            with Path(rest).expanduser().open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": self.said}, ensure_ascii=False) + "\n")
        except OSError as error:
            self.output.say(_("{file}: {reason}", file=rest, reason=reason_of(error)))
            return
        self.output.say(_("Added to {file}.", file=rest))

    def _read(self) -> str | None:
        """The next line; None at the end. Ctrl-C takes back what was typed."""
        while True:
            try:
                if not sys.stdin.isatty():
                    return input()
                with contextlib.redirect_stdout(self.output.stream):
                    return input("> ")
            except EOFError:
                return None
            except KeyboardInterrupt:
                self.output.say("\n" + _("(Ctrl-D leaves)"))


@contextlib.contextmanager
def _remembering(history: Path | None) -> Any:
    """Gives `input` its editing, and the lines of before, for the owner of the workspace alone."""
    try:
        import readline
    except ImportError:
        history = None
    if history is None:
        yield
        return
    readline.set_history_length(_REMEMBERED)
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            history.touch(mode=0o600)
            readline.write_history_file(history)
