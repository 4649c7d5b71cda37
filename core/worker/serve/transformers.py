"""transformers as the engine, for what llama.cpp cannot read: one answer at a time, each written as
in the page's chat."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from core.chat.settings import ChatSettings, Column, chat_settings
from core.errors import ConfigError, ModelError
from core.serve.answers import Answer, Reason, Usage, broken_off
from core.serve.front import CHAT, COMPLETIONS, EMBEDDINGS, Refused, ServedModel
from core.worker.chat.decode import TextPieces, TooLong, next_tokens, room_for_answer
from core.worker.chat.loaded import Models, Voice
from core.worker.models.classifier import longest_input
from core.worker.serve.asked import Asked
from core.worker.serve.embeddings import embeddings


@dataclass(frozen=True)
class _Piece:
    """A bit of an answer; the last one says why it is that, and how many tokens there were."""

    text: str
    reason: Reason | None = None
    tokens: int = 0


class TransformersEngine:
    """The run's checkpoints and its base, in this process."""

    name = "transformers"

    def __init__(self, asked: Asked, why: str) -> None:
        self.why = why
        run, base = asked.first.run.root.name, str(asked.base)
        # Each of those that do not share their base would have a copy of it.
        trained = asked.trained if asked.first.shares_base else asked.trained[:1]
        columns = [Column(run_id=run, checkpoint=one.checkpoint) for one in trained]
        self.models = [asked.served(one) for one in trained]
        if asked.first.is_adapter:
            columns.append(Column(base=base))
            self.models.append(ServedModel(asked.base_name, None))
        models = Models(asked.workspace)
        models.load(columns, [base] * len(columns), lambda share, said: asked.tell(0.5, said))
        self._voices = dict(zip(self.models, models.voices, strict=True))
        # Virtual tokens change answers, not what the model makes of a text.
        is_prompt = asked.first.config.adapter.is_prompt
        self.routes = (CHAT, COMPLETIONS) if is_prompt else (CHAT, COMPLETIONS, EMBEDDINGS)
        self._pool = ThreadPoolExecutor(1)

    async def answer(self, route: str, model: ServedModel, body: dict[str, Any]) -> Response:
        voice = self._voices[model]
        if not isinstance(voice, Voice):
            raise Refused(f"{model.id} writes no text.")
        if route == EMBEDDINGS:
            loop = asyncio.get_running_loop()
            working = loop.run_in_executor(self._pool, _embeddings, model.id, voice, body)
            return JSONResponse(await working)
        ids = _prompt(voice, route, body)
        settings, stops = _settings(body, voice, ids)
        pieces = self._pieces(voice, ids, settings, stops)
        told = Answer(model.id, route == CHAT)
        if not body.get("stream"):
            text, reason, tokens = "", None, 0
            async with aclosing(pieces):
                async for piece in pieces:
                    text += piece.text
                    reason, tokens = piece.reason, piece.tokens
            return JSONResponse(told.whole(text, reason or "stop", Usage(len(ids), tokens)))
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        events = _events(told, pieces, len(ids) if with_usage else None)
        return StreamingResponse(events, media_type="text/event-stream")

    def check(self) -> None:
        """It lives as long as this process."""

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _pieces(
        self, voice: Voice, ids: list[int], settings: ChatSettings, stops: list[str]
    ) -> AsyncGenerator[_Piece, None]:
        """The answer as it is written; nobody writes on when this is closed."""
        loop, gone = asyncio.get_running_loop(), threading.Event()
        written: asyncio.Queue[_Piece | Exception] = asyncio.Queue()

        def work() -> None:
            try:
                for piece in _write(voice, ids, settings, stops):
                    if gone.is_set():
                        return
                    loop.call_soon_threadsafe(written.put_nowait, piece)
            except Exception as error:  # whoever waits must be told
                loop.call_soon_threadsafe(written.put_nowait, error)

        writing = self._pool.submit(work)
        try:
            while True:
                piece = await written.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.reason:
                    return
        finally:
            gone.set()
            writing.cancel()


def _embeddings(name: str, voice: Voice, body: dict[str, Any]) -> dict[str, Any]:
    voice.take_turn()
    longest = longest_input(voice.model, voice.tokenizer, 1_000_000)
    return embeddings(name, voice.model, voice.tokenizer, body, longest)


def _write(
    voice: Voice, ids: list[int], settings: ChatSettings, stops: list[str]
) -> Iterator[_Piece]:
    """What could be the beginning of a text to stop at is held back until that is known."""
    voice.take_turn()
    most, count, held = settings.max_new_tokens, 0, ""
    texts = TextPieces(voice.tokenizer)
    longest = max(map(len, stops), default=1) - 1
    for token in next_tokens(voice.model, ids, settings, voice.ends, most):
        if token is None:
            yield _Piece("")
            continue
        count += 1
        held += texts.add(token)
        ends = [held.find(stop) for stop in stops if stop in held]
        if ends:
            yield _Piece(held[: min(ends)], "stop", count)
            return
        if len(held) > longest:
            yield _Piece(held[: len(held) - longest])
            held = held[len(held) - longest :]
    yield _Piece(held + texts.rest(), "length" if count >= most else "stop", count)


async def _events(
    told: Answer, pieces: AsyncGenerator[_Piece, None], prompt_tokens: int | None
) -> AsyncIterator[str]:
    async with aclosing(pieces):
        if told.is_chat:
            yield told.first()
        try:
            async for piece in pieces:
                if piece.text:
                    yield told.piece(piece.text)
                if piece.reason:
                    usage = None if prompt_tokens is None else Usage(prompt_tokens, piece.tokens)
                    yield told.last(piece.reason, usage)
        except Exception as error:  # the stream has begun: its end is all that can tell
            yield broken_off(f"{type(error).__name__}: {error}")


def _prompt(voice: Voice, route: str, body: dict[str, Any]) -> list[int]:
    if route == COMPLETIONS:
        text = body.get("prompt")
        if not isinstance(text, str) or not text:
            raise Refused("prompt must be a text.", param="prompt")
        return [int(one) for one in voice.tokenizer(text, verbose=False)["input_ids"]]
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns or not all(_is_turn(turn) for turn in turns):
        raise Refused("messages must be a list of turns with role and content.", param="messages")
    try:
        return voice.prompt([{**turn, "content": _text(turn["content"])} for turn in turns])
    except ModelError as error:
        raise Refused(str(error), param="messages") from error


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and "role" in turn and isinstance(turn.get("content"), str | list)


def _text(content: str | list[Any]) -> str:
    """A turn's content, also where it comes in parts."""
    if isinstance(content, str):
        return content
    with contextlib.suppress(TypeError, KeyError):
        return "".join(str(part["text"]) for part in content)
    raise Refused("A part of a turn's content has no text.", param="messages")


def _settings(body: dict[str, Any], voice: Voice, ids: list[int]) -> tuple[ChatSettings, list[str]]:
    """(how to write, the texts to stop at)."""
    if body.get("n") not in (None, 1):
        raise Refused("Only one answer can be had at a time.", param="n")
    named = {name: body[name] for name in ("temperature", "top_p", "seed") if body.get(name)}
    if body.get("temperature") == 0:
        named["temperature"] = 0
    wanted = body.get("max_completion_tokens") or body.get("max_tokens") or 1_000_000
    try:
        asked = chat_settings({**named, "max_new_tokens": wanted})
        room = room_for_answer(voice.model, ids, asked.max_new_tokens)
    except ConfigError as error:
        raise Refused(str(error)) from error
    except TooLong as error:
        raise Refused(error.message, code="context_length_exceeded") from error
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else [str(one) for one in stops]
    return asked.model_copy(update={"max_new_tokens": room}), [one for one in stops if one]
