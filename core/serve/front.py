"""The server that programs ask: checks the key, finds the model, and lets an engine answer.

What it says goes to programs, in English and in the form of OpenAI's errors.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, CLASSIFY = "/v1/embeddings", "/v1/classify"
_ROUTES = (CHAT, COMPLETIONS, EMBEDDINGS, CLASSIFY)
# What a web server says of a client that did not wait for its answer.
_GONE = 499


@dataclass(frozen=True)
class ServedModel:
    """A model by the name that requests call it: a run's checkpoint, or with None its base."""

    id: str
    checkpoint: str | None


class Engine(Protocol):
    """What answers. `routes` are those that it has an answer to; the first of `models` answers a
    request that names none. `why` tells why no better engine answers."""

    @property
    def name(self) -> str: ...

    @property
    def why(self) -> str: ...

    @property
    def models(self) -> Sequence[ServedModel]: ...

    @property
    def routes(self) -> Sequence[str]: ...

    async def answer(self, route: str, model: ServedModel, body: dict[str, Any]) -> Response:
        """The answer to a request; cancelled when nobody waits for it any more. Raises Refused."""

    def check(self) -> None:
        """Raises TunesmithError when it cannot answer any more."""

    def close(self) -> None:
        """Ends it, and the answers that it is giving."""


class Refused(Exception):
    """A request that cannot be answered."""

    def __init__(
        self, message: str, status: int = 400, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        kind = "authentication_error" if status == 401 else "invalid_request_error"
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": code}

    def response(self) -> Response:
        return JSONResponse({"error": self.error}, self.status)


def _has_to_be(what: str, **bounds: Any) -> Any:
    return Field(None, description=what, **bounds)


class _Asked(BaseModel, strict=True):
    """The settings of an answer that an engine would take though they mean nothing, or refuse in
    words of its own; the bounds are OpenAI's."""

    temperature: float | None = _has_to_be("a number from 0 to 2", ge=0, le=2)
    top_p: float | None = _has_to_be("a number from 0 to 1", ge=0, le=1)
    presence_penalty: float | None = _has_to_be("a number from -2 to 2", ge=-2, le=2)
    frequency_penalty: float | None = _has_to_be("a number from -2 to 2", ge=-2, le=2)
    max_tokens: int | None = _has_to_be("a whole number from 1 on", ge=1)
    max_completion_tokens: int | None = _has_to_be("a whole number from 1 on", ge=1)
    seed: int | None = _has_to_be("a whole number")
    stop: str | list[str] | None = _has_to_be("a text, or a list of texts")
    stream: bool | None = _has_to_be("true or false")


_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class Front:
    """The routes of a server and what each does."""

    def __init__(self, engine: Engine, key: str) -> None:
        self._engine, self._key = engine, key.encode()
        self._began = int(time.time())
        self.app = Starlette(
            routes=[
                Route("/v1/models", self._list, methods=["GET"]),
                Route("/v1/models/{model:path}", self._show, methods=["GET"]),
                *(Route(route, self._ask, methods=["POST"]) for route in _ROUTES),
            ],
            exception_handlers={
                Refused: lambda request, error: error.response(),
                HTTPException: _no_route,
            },
        )

    async def _list(self, request: Request) -> Response:
        self._let_in(request)
        models = [self._described(model) for model in self._engine.models]
        return JSONResponse({"object": "list", "data": models})

    async def _show(self, request: Request) -> Response:
        self._let_in(request)
        return JSONResponse(self._described(self._model(request.path_params["model"])))

    async def _ask(self, request: Request) -> Response:
        self._let_in(request)
        route, body = request.url.path, await _body(request)
        model = self._model(body.get("model") or self._engine.models[0].id)
        if route not in self._engine.routes:
            there = ", ".join(self._engine.routes)
            raise Refused(f"{model.id} has no answer at {route}. It has one at {there}.")
        if route == EMBEDDINGS and body.get("dimensions") is not None:
            raise Refused(
                "The model's own number of dimensions is the only one.", param="dimensions"
            )
        if route == CHAT:
            _check_messages(body.get("messages"))
        if route in (CHAT, COMPLETIONS):
            _check_settings(body)
        return await _while_awaited(request, self._engine.answer(route, model, body))

    def _let_in(self, request: Request) -> None:
        """Raises Refused without the key, whose time to compare tells nothing of it."""
        kind, _space, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key):
            raise Refused("The API key is missing or wrong.", 401, "invalid_api_key")

    def _model(self, name: Any) -> ServedModel:
        for model in self._engine.models:
            if model.id == name:
                return model
        there = ", ".join(model.id for model in self._engine.models)
        told = f"There is no model {name!r} here. There are: {there}."
        raise Refused(told, 404, "model_not_found", "model")

    def _described(self, model: ServedModel) -> dict[str, Any]:
        base = next((one.id for one in self._engine.models if one.checkpoint is None), None)
        return {
            "id": model.id,
            "object": "model",
            "created": self._began,
            "owned_by": "tunesmith",
            "parent": base if model.checkpoint else None,
        }


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise Refused(f"The request is no JSON: {error}.") from error
    if not isinstance(body, dict):
        raise Refused("The request is no JSON object.")
    return body


def _check_messages(messages: Any) -> None:
    """Raises Refused for a conversation that no model here can read."""
    if not isinstance(messages, list) or not messages:
        raise Refused("messages has to be a list of one or more.", param="messages")
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(f"{where} has no role.", param=where)
        if message["role"] not in _ROLES:
            there = ", ".join(_ROLES)
            raise Refused(f"{where} has an unknown role. There are: {there}.", param=where)
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("text", "refusal"):
                raise Refused(
                    f"{where} has a part of type {kind!r}. The models here read text alone.",
                    param=where,
                )


def _check_settings(body: dict[str, Any]) -> None:
    """Raises Refused for settings of an answer that mean nothing."""
    try:
        _Asked.model_validate(body)
    except ValidationError as wrong:
        name = str(wrong.errors()[0]["loc"][0])
        raise Refused(
            f"{name} has to be {_Asked.model_fields[name].description}.", param=name
        ) from None


async def _while_awaited(request: Request, answer: Awaitable[Response]) -> Response:
    """The answer, which is given up when the client does not wait for it any more."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else Response(status_code=_GONE)
    finally:
        leaving.cancel()
        answering.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = f"There is no {request.method} {request.url.path} here."
    return Refused(told, error.status_code).response()
