"""A chat as the web process and the commands hold it: the models are in a process of their own.

Nothing here imports torch. `close` ends that process, and with it all the memory that it held."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from core.chat.settings import ChatSettings, Column, ColumnState, LoadedModels, Piece
from core.data.registry import read_rows
from core.errors import DataError, JobError, ModelError
from core.jobs.process import WorkerContext, call_named, context
from core.language import _, language
from core.models.location import ensure_model
from core.models.trained import FINAL, find_trained
from core.progress import Tell
from core.rules import load_config
from core.tokens.prompts import Message
from core.workspace import Workspace

__all__ = ["ChatSession", "ChatSettings", "Column", "ColumnState", "LoadedModels", "Piece"]


IDLE_SECONDS = 30 * 60.0
# How long an answer that was stopped may take to end, and a process to go.
_STOP_SECONDS = 20.0
_END_SECONDS = 5.0


@dataclass
class _Worker:
    """The process and this end of the pipe to it."""

    process: Any
    connection: Connection
    sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, *message: Any) -> None:
        with self.sending:
            self.connection.send(message)

    def end(self) -> None:
        """Ends the process, whatever it is doing, and returns when it is gone."""
        self.process.terminate()
        self.process.join(_END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(_END_SECONDS)


class ChatSession:
    """Models side by side that answer the same prompt.

    One answer at a time; `stop`, `close` and `loaded` may be called from any thread meanwhile.
    `idle_seconds` without a question unload the models; the next question loads them again.
    `processes` is where the worker comes from, by default this program's fork server.
    """

    def __init__(
        self,
        workspace_root: Path | str | Workspace,
        *,
        idle_seconds: float = IDLE_SECONDS,
        processes: WorkerContext | None = None,
    ) -> None:
        if isinstance(workspace_root, Workspace):
            self.workspace = workspace_root
        else:
            self.workspace = Workspace.open(workspace_root)
        self.idle_seconds = idle_seconds
        self._processes = processes or context()
        self.columns: tuple[Column, ...] = ()
        self._worker: _Worker | None = None
        self._loaded: LoadedModels | None = None
        self._busy = threading.Lock()
        self._number = 0

    def __enter__(self) -> ChatSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def loaded(self) -> LoadedModels | None:
        """What is in memory now, None when nothing is."""
        worker, loaded = self._worker, self._loaded
        if worker is None or loaded is None or not worker.process.is_alive():
            return None
        try:
            return replace(loaded, memory_bytes=_memory(loaded.pid))
        except psutil.Error:  # it has just ended
            return None

    def start(self, columns: Sequence[Column], progress: Tell | None = None) -> LoadedModels:
        """Loads the columns' models; at once when they are loaded already.

        `progress` gets (share, message). Raises TunesmithError: a run or model that is not there,
        too little memory.
        """
        with self._alone():
            return self._start(columns, progress or (lambda share, message: None))

    def stream(
        self, column_index: int, messages: Sequence[Message], settings: ChatSettings
    ) -> Iterator[Piece]:
        """One column's answer, piece by piece. Raises ModelError when it cannot answer."""
        for _column, piece, _more in self._ask({column_index: list(messages)}, settings):
            if piece.error:
                raise ModelError(piece.error)
            yield piece

    def ask(
        self,
        messages_per_column: Mapping[int, Sequence[Message]] | Sequence[Sequence[Message]],
        settings: ChatSettings,
    ) -> Iterator[list[ColumnState]]:
        """The answers of all columns as they grow: every column's state, again and again.

        There is a conversation for each column or, as a mapping, for those that are asked. What
        goes wrong in one column is in its state's `error`, and the others go on. Who is slow
        to take a state gets several pieces at once; who closes the iterator stops the answers.
        """
        given = messages_per_column
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
        asked = {column: list(messages) for column, messages in pairs}
        states = [ColumnState(done=i not in asked) for i in range(len(self.columns))]
        is_new = False
        for column, piece, more in self._ask(asked, settings):
            states[column] = states[column].plus(piece)
            is_new = more
            if not more:
                yield list(states)
        if is_new:
            yield list(states)

    def stop(self) -> None:
        """Ends the answers that are being written after the token at hand. Does not wait."""
        worker = self._worker
        if worker is not None and self._busy.locked():
            with suppress(OSError):  # it has ended, and so have its answers
                worker.send("stop", self._number)

    def close(self) -> None:
        """Ends the process: its memory is free when this returns. `start` begins anew."""
        worker, self._worker, self._loaded = self._worker, None, None
        if worker is not None:
            worker.end()

    def _start(self, columns: Sequence[Column], progress: Tell) -> LoadedModels:
        if not columns:
            raise ModelError(_("No model was chosen."), _("Choose at least one."))
        loaded = self.loaded
        if loaded is not None and self.columns == tuple(columns):
            return loaded
        self.close()
        bases = [
            self._base(column, lambda share, message: progress(share / 2, message))
            for column in columns
        ]
        progress(0.5, _("Starting"))
        ours, theirs = self._processes.Pipe()
        arguments = (theirs, str(self.workspace.root), self.idle_seconds)
        process = self._processes.Process(
            target=call_named,
            args=("core.worker.chat.server:serve", *arguments),
            name="chat",
            daemon=True,
        )
        process.start()
        theirs.close()
        worker = self._worker = _Worker(process, ours)
        worker.send("load", language(), [_labelled(column) for column in columns], bases)
        while True:
            match self._receive(worker):
                case ("progress", share, message):
                    progress(0.5 + share / 2, message)
                case ("failed", message, hint):
                    self.close()
                    raise ModelError(message, hint)
                case ("ready", models):
                    self.columns = tuple(columns)
                    self._loaded = replace(models, columns=self.columns)
                    progress(1.0, _("Ready"))
                    return self._loaded

    def _base(self, column: Column, progress: Tell) -> str:
        """The folder or Hub id of the column's base, fetched if need be."""
        if column.run_id is None:
            name = column.base or ""
        else:
            run = self.workspace.run(column.run_id)
            name = find_trained(run, column.checkpoint or FINAL).base
        return str(ensure_model(name, self.workspace, progress))

    def _ask(
        self, asked: dict[int, list[Message]], settings: ChatSettings
    ) -> Iterator[tuple[int, Piece, bool]]:
        """(column, piece, whether more has come already), until all columns are done."""
        with self._alone():
            self._number += 1
            number, answered = self._number, False
            worker, said = self._asked("ask", language(), number, asked, settings)
            try:
                while not answered:
                    match said:
                        case ("piece", _, column, piece):
                            yield column, piece, worker.connection.poll()
                            said = self._receive(worker)
                        case ("answered", _):
                            answered = True
                        case _:
                            said = self._receive(worker)
            finally:
                if not answered:
                    self._abandon(worker, number)

    def _asked(self, *message: Any) -> tuple[_Worker, Any]:
        """The worker that was asked, and the first that it says."""
        while True:
            worker = self._awake()
            try:
                worker.send(*message)
                return worker, worker.connection.recv()
            except (EOFError, OSError) as error:
                worker.process.join(_END_SECONDS)
                if self._worker is not worker or worker.process.exitcode != 0:
                    raise self._gone(worker) from error
                # It went to sleep just then.

    def _awake(self) -> _Worker:
        """The worker, with its models loaded again if it had gone to sleep."""
        if self._worker is None:
            raise ModelError(_("No model is loaded."), _("Load one first."))
        process = self._worker.process
        if not process.is_alive() and process.exitcode == 0:
            self._start(self.columns, lambda share, message: None)
        return self._worker

    def _abandon(self, worker: _Worker, number: int) -> None:
        """Nobody listens any more: the answers are stopped and what has come is thrown away."""
        deadline = time.monotonic() + _STOP_SECONDS
        with suppress(OSError, EOFError):
            worker.send("stop", number)
            while worker.connection.poll(max(0.0, deadline - time.monotonic())):
                if worker.connection.recv()[0] == "answered":
                    return
            worker.end()  # it does not listen either

    def _receive(self, worker: _Worker) -> Any:
        try:
            return worker.connection.recv()
        except (EOFError, OSError) as error:
            raise self._gone(worker) from error

    def _gone(self, worker: _Worker) -> ModelError:
        """What to say when the worker has ended."""
        if self._worker is not worker:
            return ModelError(_("The models were unloaded."), _("Load them again."))
        worker.process.join(_END_SECONDS)
        code = worker.process.exitcode
        self.close()
        if code is not None and code < 0:
            return ModelError(
                _(
                    "The chat's process died ({signal}), most often for want of memory.",
                    signal=_signal_name(-code),
                ),
                _("Load the models again, fewer or smaller ones if it happens again."),
            )
        return ModelError(
            _("The chat's process ended (code {code}).", code=code), _("Load the models again.")
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(timeout=1.0):
            raise JobError(_("The models are still busy."), _("Wait for the answer, or stop it."))
        try:
            yield
        finally:
            self._busy.release()


def _labelled(column: Column) -> Column:
    return replace(column, label=column.label or column.run_id or column.base or "")


def _memory(pid: int) -> int:
    """Of a process and what it started, in bytes."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


def _signal_name(number: int) -> str:
    try:
        return _("signal {number}, {name}", number=number, name=signal.Signals(number).name)
    except ValueError:
        return _("signal {number}", number=number)


# One question, one answer; and what a run's model expects to be told first. No torch.

_ROWS_LOOKED_AT = 50


def chat_once(
    where: Path | str | Workspace | ChatSession,
    run_id: str | None,
    checkpoint: str | None,
    prompt: str,
    settings: ChatSettings | None = None,
    *,
    base: str | None = None,
    system_prompt: str | None = None,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """The answer of a run's checkpoint, or of the model `base`, to one prompt.

    `system_prompt` None takes the one that the run was trained with, "" none. `on_text` gets the
    answer bit by bit. `where` is a workspace, or a session of one; its models are unloaded at
    the end. Raises TunesmithError.
    """
    with where if isinstance(where, ChatSession) else ChatSession(where) as session:
        if system_prompt is None:
            system_prompt = trained_system_prompt(session.workspace, run_id) if run_id else ""
        session.start([Column(run_id, checkpoint, base)])
        answer = ""
        messages = conversation(prompt, system_prompt)
        for piece in session.stream(0, messages, settings or ChatSettings()):
            answer += piece.text
            if on_text and piece.text:
                on_text(piece.text)
        return answer


def conversation(prompt: str, system_prompt: str = "") -> list[Message]:
    """A conversation that begins with this prompt."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": prompt}]


def trained_system_prompt(workspace: Workspace, run_id: str) -> str:
    """The system prompt that the run's rows began with most often; "" when they had none.

    A model tuned with one answers best when it gets the same one in chat.
    """
    config = load_config(workspace.run(run_id).config)
    try:
        rows = read_rows(
            workspace,
            config.data.dataset,
            limit=_ROWS_LOOKED_AT,
            fingerprint=config.data.dataset_fingerprint,
        )
    except DataError:  # the data set was deleted since
        return config.data.system_prompt
    found = Counter(_system_prompt(row) or config.data.system_prompt for row in rows)
    return found.most_common(1)[0][0] if found else config.data.system_prompt


def _system_prompt(row: dict[str, Any]) -> str:
    messages = row.get("prompt") or row.get("messages") or []
    return next((str(m["content"]) for m in messages if m["role"] == "system"), "")
