"""Any OpenAI-compatible endpoint: one question, one reply, at the pace that was set.

Its URL and key stand in the environment and nowhere else: errors, records and the page name its
host only, and a reply that repeats the key is cleaned of it before anyone sees it.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from core.errors import ModelError
from core.language import _

_OWN = ("TUNESMITH_OPENAI_BASE_URL", "TUNESMITH_OPENAI_API_KEY")
_GENERAL = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
_TRIES = 6
FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
# An endpoint that wants to be left alone for longer is asked another day.
_LONGEST_ASKED_WAIT = 600.0
_CONNECT_SECONDS = 10.0
_AGAIN = (408, 429, 500, 502, 503, 504, 529)

Message = dict[str, Any]
Wait = Callable[[float], Awaitable[None]]


class RequestSettings(Protocol):
    """What is asked of an endpoint, and how patiently: seconds, tokens, requests."""

    @property
    def model(self) -> str: ...
    @property
    def temperature(self) -> float: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def requests_at_once(self) -> int: ...
    @property
    def timeout_seconds(self) -> float: ...


class Refused(Exception):
    """Why the endpoint will not answer this one request; others may fare better."""


@dataclass(frozen=True)
class Reply:
    """What a model said. `cut`: it ended at its longest length. `estimated`: the tokens were
    not told and are guessed from the characters."""

    text: str
    input_tokens: int
    output_tokens: int
    cut: bool = False
    estimated: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where requests go. The key is left out of every text that is made of it."""

    url: str = field(repr=False)
    key: str = field(repr=False, default="")

    @property
    def host(self) -> str:
        import httpx2

        return httpx2.URL(self.url).host

    def address(self, path: str) -> str:
        return self.url.rstrip("/").removesuffix("/chat/completions") + path

    def clean(self, text: str) -> str:
        """`text` without the key and the URL."""
        for secret, shown in ((self.key, "[key]"), (self.url, self.host)):
            text = text.replace(secret, shown) if secret else text
        return text


def endpoint_from(environment: Mapping[str, str] | None = None) -> Endpoint:
    """The endpoint that the environment names. Raises ModelError when it names none.

    OPENAI_API_KEY never goes to the server of TUNESMITH_OPENAI_BASE_URL: each key with its URL.
    """
    import httpx2

    given = os.environ if environment is None else environment
    own_key = given.get(_OWN[1], "").strip()
    url, key = given.get(_OWN[0], "").strip(), own_key
    if not url:
        url, key = given.get(_GENERAL[0], "").strip(), own_key or given.get(_GENERAL[1], "").strip()
    hint = _(
        "Set {url}, such as http://127.0.0.1:8080/v1, and {key} if it needs a key, in the "
        "environment that Tunesmith is started from.",
        url=_OWN[0],
        key=_OWN[1],
    )
    if not url:
        raise ModelError(_("No endpoint is known."), hint)
    try:
        is_web = httpx2.URL(url).scheme in ("http", "https") and bool(httpx2.URL(url).host)
    except httpx2.InvalidURL:
        is_web = False
    if not is_web or not key.isascii():
        raise ModelError(_("The endpoint's URL or key cannot be used as it is."), hint)
    return Endpoint(url, key)


def endpoint_host() -> str:
    """The host that would be asked, to show it; "" when none is set or it cannot be used."""
    try:
        return endpoint_from().host
    except ModelError:
        return ""


class Pace:
    """Spreads requests evenly over a minute, and holds all of them back when told to."""

    def __init__(
        self,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = asyncio.sleep,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self.interval = 60.0 / per_minute
        self.first_wait = first_wait
        self._clock, self.wait = clock, wait
        self._next = clock()

    async def turn(self) -> None:
        """Returns when the next request may go."""
        while (ahead := self._next - self._clock()) > 0:
            await self.wait(ahead)
        self._next = self._clock() + self.interval

    async def before_try(self, number: int) -> None:
        """Waits 1, 2, 4, ... seconds and up to a quarter more, so that requests do not come back at
        once."""
        longer = min(self.first_wait * 2 ** (number - 1), _LONGEST_WAIT)
        await self.wait(longer * random.uniform(1, 1.25))

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long."""
        self._next = max(self._next, self._clock() + seconds)


class EndpointModel:
    """Asks an endpoint. Use as `async with`; it can answer several requests at once."""

    def __init__(self, endpoint: Endpoint, settings: RequestSettings, pace: Pace) -> None:
        import httpx2

        self.endpoint, self.settings, self.pace = endpoint, settings, pace
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        seconds = settings.timeout_seconds
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds)),
            limits=httpx2.Limits(max_connections=settings.requests_at_once),
        )
        self._limit_name = "max_tokens"

    async def __aenter__(self) -> EndpointModel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """The reply. Asks again when the endpoint is busy, fails or is too slow.

        Raises Refused when it will not answer this request, ModelError when it answers none.
        """

        def body() -> dict[str, Any]:
            return {
                "messages": list(messages),
                "temperature": self.settings.temperature,
                self._limit_name: self.settings.max_new_tokens,
            }

        return self._read(await self._response("/chat/completions", body), messages)

    async def log_probabilities(self, tokens: Sequence[int]) -> list[tuple[str, float]]:
        """What the model says to a text given as tokens: each token's own text and logarithm of its
        probability, 0 for the first. Raises as `ask` does, Refused also where nobody tells."""
        body = {
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
        }
        response = await self._response("/completions", lambda: body)
        try:
            told = response.json()["choices"][0]["logprobs"]
            pairs = zip(told["tokens"], told["token_logprobs"], strict=True)
            found = [(str(text), float(logprob or 0.0)) for text, logprob in pairs]
        except (ValueError, LookupError, TypeError):
            found = []
        if len(found) < len(tokens):
            raise Refused(_("the endpoint tells no probabilities of a text that it is given"))
        return found[: len(tokens)]

    async def _response(self, path: str, body: Callable[[], dict[str, Any]]) -> Any:
        problem = ""
        for attempt in range(_TRIES):
            if attempt:
                await self.pace.before_try(attempt)
            await self.pace.turn()
            response, problem = await self._sent(path, body())
            if response is None:
                continue
            if response.status_code == 200:
                return response
            problem = self._said(response)
            if not self._retries(response, problem):
                continue
            self._give_up(response, problem)
        raise ModelError(
            _(
                "The endpoint {host} gave no answer in {tries} tries: {reason}.",
                host=self.endpoint.host,
                tries=_TRIES,
                reason=problem,
            ),
            _(
                "What was written so far is kept. Go on later, with fewer requests at once or a "
                "longer wait for a reply."
            ),
        )

    async def _sent(self, path: str, body: dict[str, Any]) -> tuple[Any, str]:
        """(the response, "") or (None, why there is none)."""
        import httpx2

        body = {"model": self.settings.model, **body}
        try:
            # The client's own limit starts anew with each byte; this one is for the whole reply.
            async with asyncio.timeout(self.settings.timeout_seconds):
                return await self._client.post(self.endpoint.address(path), json=body), ""
        except (httpx2.TimeoutException, TimeoutError):
            seconds = self.settings.timeout_seconds
            return None, _("no reply within {seconds:g} s", seconds=seconds)
        except httpx2.ConnectError:
            return None, _("no connection")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return None, _("the connection broke ({error})", error=type(error).__name__)

    def _retries(self, response: Any, problem: str) -> bool:
        """Whether this was the end of it. Otherwise the next try is prepared here."""
        status = response.status_code
        if (
            status == 400
            and "max_completion_tokens" in problem
            and self._limit_name == "max_tokens"
        ):
            self._limit_name = "max_completion_tokens"
            return False
        if status not in _AGAIN or "insufficient_quota" in response.text:
            return True
        seconds = retry_after(response.headers.get("retry-after", ""), time.time())
        if seconds > _LONGEST_ASKED_WAIT:
            return True
        self.pace.hold(seconds)
        return False

    def _give_up(self, response: Any, problem: str) -> None:
        status = response.status_code
        told = {"host": self.endpoint.host, "status": status, "problem": problem}
        later = _("What was written so far is kept: go on when that is mended.")
        if status in (401, 403):
            raise ModelError(
                _("The endpoint {host} does not accept the key ({status}).", **told),
                _(
                    "Check {key} in the environment, and whether the key may use the model "
                    "{model}. {later}",
                    key=_OWN[1],
                    model=self.settings.model,
                    later=later,
                ),
            )
        if status in (404, 405):
            raise ModelError(
                _(
                    "The endpoint {host} knows no model {model}, or its URL is not that of an "
                    "OpenAI-compatible API ({status}: {problem}).",
                    model=self.settings.model,
                    **told,
                ),
                _(
                    "Check the model's name and {url}, which mostly ends in /v1. {later}",
                    url=_OWN[0],
                    later=later,
                ),
            )
        if 300 <= status < 400:
            raise ModelError(
                _("The endpoint {host} sends requests elsewhere ({status}).", **told),
                _(
                    "Set {url} to where it leads; keys are not sent along. {later}",
                    url=_OWN[0],
                    later=later,
                ),
            )
        if status in _AGAIN or status == 402:
            raise ModelError(
                _(
                    "The endpoint {host} takes no more requests for now ({status}: {problem}).",
                    **told,
                ),
                _("Is the credit used up? {later}", later=later),
            )
        raise Refused(_("the endpoint refused the request ({status}: {problem})", **told))

    def _said(self, response: Any) -> str:
        """What an error reply says, short and without the key."""
        try:
            found = response.json()
            found = found.get("error", found) if isinstance(found, dict) else found
            text = str(found.get("message", found) if isinstance(found, dict) else found)
        except ValueError:
            text = response.reason_phrase
        text = " ".join(self.endpoint.clean(text).split()).rstrip(".")
        return text if len(text) <= 200 else text[:197] + "..."

    def _read(self, response: Any, messages: Sequence[Message]) -> Reply:
        try:
            data = response.json()
            choice = data["choices"][0]
            content = choice["message"].get("content") or ""
            if isinstance(content, list):
                content = "".join(str(part.get("text", "")) for part in content)
            if not isinstance(content, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Refused(_("the endpoint's reply is no chat completion")) from None
        cut = choice.get("finish_reason") == "length"
        text = self.endpoint.clean(content)
        usage = data.get("usage")
        told = usage if isinstance(usage, dict) else {}
        read, wrote = told.get("prompt_tokens"), told.get("completion_tokens")
        if isinstance(read, int) and isinstance(wrote, int) and min(read, wrote) >= 0:
            return Reply(text, read, wrote, cut)
        chars = sum(len(str(message["content"])) for message in messages)
        read, wrote = estimate_tokens(chars), estimate_tokens(len(text))
        return Reply(text, read, wrote, cut, estimated=True)


def estimate_tokens(chars: int) -> int:
    """Tokens of a text of so many characters, rather too many: three characters each."""
    return chars // 3 + 1


def retry_after(value: str, now: float) -> float:
    """Seconds that a Retry-After header asks for, in seconds or as a date; 0 when it is neither."""
    text = value.strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (ValueError, TypeError):
        return 0.0
