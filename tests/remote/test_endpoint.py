"""Where requests go, with which key, and how fast."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest

from core.errors import ModelError
from core.remote.endpoint import Endpoint, Pace, endpoint_from, retry_after


def test_each_key_goes_to_its_own_url_only() -> None:
    """OpenAI's key must not go to somebody else's server."""
    both = {
        "TUNESMITH_OPENAI_BASE_URL": "http://gpu-box:8000/v1",
        "OPENAI_BASE_URL": "https://api.example.org/v1",
        "OPENAI_API_KEY": "general",
    }
    assert (endpoint_from(both).host, endpoint_from(both).key) == ("gpu-box", "")
    own = both | {"TUNESMITH_OPENAI_API_KEY": "own"}
    assert endpoint_from(own).key == "own"
    del both["TUNESMITH_OPENAI_BASE_URL"]
    assert (endpoint_from(both).host, endpoint_from(both).key) == ("api.example.org", "general")


@pytest.mark.parametrize(
    "url", ["", "gpu-box:8000/v1", "file:///etc/passwd", "http:///v1", "http://a:b:c/v1"]
)
def test_a_url_that_cannot_be_asked_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ModelError) as caught:
        endpoint_from({"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "secret"})
    assert "secret" not in str(caught.value) and (not url or url not in str(caught.value))


def test_an_endpoint_never_shows_its_key_or_address() -> None:
    endpoint = Endpoint("https://user:word@host.example:8443/v1/", "sk-1")
    assert repr(endpoint) == "Endpoint()" and endpoint.host == "host.example"
    address = endpoint.address("/chat/completions")
    assert address == "https://user:word@host.example:8443/v1/chat/completions"
    assert Endpoint(address).address("/completions") == endpoint.address("/completions")
    cleaned = endpoint.clean(f"key sk-1 at {endpoint.url}")
    assert cleaned == "key [key] at host.example"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("", 0),
        ("soon", 0),
        ("-3", 0),
        ("nan", 0),
        (formatdate(1030.0, usegmt=True), 30),
        (formatdate(900.0, usegmt=True), 0),
    ],
)
def test_retry_after_is_read_in_both_its_forms(value: str, seconds: float) -> None:
    assert retry_after(value, now=1000.0) == pytest.approx(seconds)


class FakeTime:
    """A clock that goes on only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    async def wait(self, seconds: float) -> None:
        self.now += seconds


def test_no_minute_has_more_requests_than_allowed() -> None:
    time = FakeTime()
    pace = Pace(30, clock=lambda: time.now, wait=time.wait)
    starts: list[float] = []

    async def ask(count: int) -> None:
        for _ in range(count):
            await pace.turn()
            starts.append(time.now)

    async def all_at_once() -> None:
        await asyncio.gather(*(ask(20) for _ in range(5)))

    asyncio.run(all_at_once())
    assert len(starts) == 100
    assert all(sum(t <= s < t + 59.999 for s in starts) <= 30 for t in starts)
    assert max(starts) == pytest.approx(99 * 2.0)  # and no slower than that


def test_everybody_waits_when_the_endpoint_asks_for_it() -> None:
    time = FakeTime()
    pace = Pace(60, clock=lambda: time.now, wait=time.wait)
    pace.hold(45)
    asyncio.run(pace.turn())
    assert time.now == 45
    pace.hold(0.1)  # never sooner than the pace allows
    asyncio.run(pace.turn())
    assert time.now == 46
