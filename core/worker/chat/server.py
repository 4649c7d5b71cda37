"""The chat's worker process: holds the models, writes answers token by token into a pipe.

It does one thing at a time and looks into the pipe after each token, so a stop takes effect at
once. It ends when it is told to, when nobody has asked for a while, and when the process that
started it ends, however that happens.

Messages to it: ("load", language, columns, bases), ("ask", language, number, {column: messages},
settings), ("stop", number), ("close",). From it: ("progress", share, message),
("ready", LoadedModels), ("failed", message, hint), ("piece", number, column, Piece),
("answered", number).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch
from transformers.utils import logging as transformers_logging

from core.chat.settings import ChatSettings, Column, LoadedModels, Piece
from core.errors import ModelError, TunesmithError
from core.jobs.process import exit_with_parent
from core.language import use
from core.tokens.prompts import Message
from core.worker.chat.decode import TextPieces
from core.worker.chat.llama import LlamaVoice
from core.worker.chat.loaded import Models, Voice, out_of_memory
from core.worker.chat.voices import GapVoice, LabelVoice, ScoreVoice, SilentVoice
from core.workspace import Workspace

# Columns that share a model take turns of so many tokens: switching adapters takes time too.
_TURN_TOKENS = 4


class _Closed(Exception):
    """The other end is gone or wants this process to end."""


def serve(connection: Connection, workspace_root: str, idle_seconds: float) -> None:
    """The process's main function. Ends after `idle_seconds` without a request."""
    exit_with_parent()
    transformers_logging.disable_progress_bar()
    worker = _Worker(connection, Workspace.open(workspace_root))
    try:
        while connection.poll(idle_seconds):
            worker.handle(connection.recv())
    except (_Closed, EOFError, ConnectionError):
        pass  # whoever held the other end knows
    sys.stdout.flush()
    os._exit(0)  # at once, with all its memory


@dataclass
class _Track:
    """A column that is answering."""

    column: int
    voice: Voice | LlamaVoice
    tokens: Generator[int | None]
    pieces: TextPieces
    longest: int
    count: int = 0
    seconds: float = 0.0
    begun: float = field(default_factory=time.perf_counter)
    first_seconds: float = 0.0

    def step(self) -> Piece:
        """The next bit of the answer: a token, or part of the prompt read."""
        begun = time.perf_counter()
        try:
            token = next(self.tokens)
        except StopIteration:
            reason = "length" if self.count >= self.longest else "end"
            return self._piece(self.pieces.rest(), reason)
        if token is None:
            return Piece("")
        # The first token took the time of reading the prompt; speed is that of writing.
        now = time.perf_counter()
        self.first_seconds = self.first_seconds or now - self.begun
        if isinstance(self.voice, LlamaVoice):  # which goes on writing while others are asked
            self.seconds = now - self.begun - self.first_seconds
        elif self.count:
            self.seconds += now - begun
        self.count += 1
        return self._piece(self.pieces.add(token), "")

    def stopped(self) -> Piece:
        return self._piece(self.pieces.rest(), "stopped")

    def failed(self, error: Exception) -> Piece:
        told = out_of_memory(error) or error
        text = str(told) if isinstance(told, TunesmithError) else f"{type(told).__name__}: {told}"
        return Piece(self.pieces.rest(), True, self.count, reason="error", error=text)

    def _piece(self, text: str, reason: str) -> Piece:
        speed = (self.count - 1) / self.seconds if self.count > 1 and self.seconds else 0.0
        first = round(self.first_seconds, 3)
        return Piece(text, bool(reason), self.count, round(speed, 1), reason, first_seconds=first)


def _at_once(
    voice: LabelVoice | ScoreVoice | GapVoice | SilentVoice, messages: list[Message]
) -> Piece:
    """The whole answer of a column that does not write."""
    try:
        return Piece(voice.answer(messages), True, reason="end")
    except Exception as error:  # an error in one column must not end the others
        told = out_of_memory(error) or error
        text = str(told) if isinstance(told, TunesmithError) else f"{type(told).__name__}: {told}"
        return Piece("", True, reason="error", error=text)


class _Worker:
    def __init__(self, connection: Connection, workspace: Workspace) -> None:
        self.connection = connection
        self.models = Models(workspace)
        self.columns: list[Column] = []

    def handle(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("load", spoken, columns, bases):
                use(spoken)
                self.load(columns, bases)
            case ("ask", spoken, number, asked, settings):
                use(spoken)
                self.answer(number, asked, settings)
            case ("close",):
                raise _Closed
            case ("stop", _):
                pass  # the answer was complete already

    def load(self, columns: list[Column], bases: list[str]) -> None:
        def tell(share: float, message: str) -> None:
            self.connection.send(("progress", share, message))

        try:
            self.models.load(columns, bases, tell)
        except TunesmithError as error:
            self.connection.send(("failed", error.message, error.hint))
            return
        except Exception as error:  # whatever a library raises, the person must be told
            known = out_of_memory(error) or ModelError(f"{type(error).__name__}: {error}")
            self.connection.send(("failed", known.message, known.hint))
            return
        self.columns = columns
        self.connection.send(("ready", self.loaded()))

    def loaded(self) -> LoadedModels:
        gpu = torch.cuda.memory_reserved() if torch.cuda.is_initialized() else 0
        return LoadedModels(
            pid=os.getpid(),
            columns=tuple(self.columns),
            device=self.models.device,
            dtypes=tuple(voice.dtype for voice in self.models.voices),
            memory_bytes=psutil.Process().memory_info().rss,
            gpu_memory_bytes=gpu,
            notes=tuple(self.models.notes),
        )

    def answer(self, number: int, asked: dict[int, list[Message]], settings: ChatSettings) -> None:
        """Answers in every column asked, in turns, until all are done or a stop comes."""
        tracks = [
            track
            for column, messages in asked.items()
            if (track := self._begin(number, column, messages, settings))
        ]
        while tracks:
            turn = _TURN_TOKENS if len(tracks) > 1 else 1
            for track in list(tracks):
                if self._stop_asked(number):
                    for other in tracks:
                        other.tokens.close()
                        self._send(number, other, other.stopped())
                    tracks = []
                    break
                if not self._turn(number, track, turn):
                    tracks.remove(track)
        self.connection.send(("answered", number))

    def _begin(
        self, number: int, column: int, messages: list[Message], settings: ChatSettings
    ) -> _Track | None:
        voice = self.models.voices[column]
        if not isinstance(voice, Voice | LlamaVoice):
            self.connection.send(("piece", number, column, _at_once(voice, messages)))
            return None
        try:
            prompt = voice.prompt(messages, **settings.variables())
            longest = voice.room(prompt, settings.max_new_tokens)
        except TunesmithError as error:
            piece = Piece("", True, reason="error", error=str(error))
            self.connection.send(("piece", number, column, piece))
            return None
        tokens = voice.tokens(prompt, settings, longest)
        return _Track(column, voice, tokens, TextPieces(voice.tokenizer), longest)

    def _turn(self, number: int, track: _Track, tokens: int) -> bool:
        """Lets a column write some tokens; False when its answer is complete."""
        track.voice.take_turn()
        for _ in range(tokens):
            try:
                piece = track.step()
            except Exception as error:  # an error in one column must not end the others
                piece = track.failed(error)
            if piece.text or piece.done or piece.tokens:
                self._send(number, track, piece)
            if piece.done:
                return False
            if self.connection.poll(0):
                return True  # somebody wants something: see to it first
        return True

    def _send(self, number: int, track: _Track, piece: Piece) -> None:
        self.connection.send(("piece", number, track.column, piece))

    def _stop_asked(self, number: int) -> bool:
        while self.connection.poll(0):
            message = self.connection.recv()
            if message == ("stop", number):
                return True
            if message[0] == "close":
                raise _Closed
        return False
