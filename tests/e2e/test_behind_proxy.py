"""The page under a path of another server, whose proxy takes that path off or leaves it on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.serving import Served
from tests.waiting import LIMIT


@contextmanager
def proxy(target: str, prefix: str, *, takes_off: bool) -> Iterator[tuple[str, list[str]]]:
    """Its address, with the prefix; and the paths that were asked for outside the prefix."""
    port = urlsplit(target).port
    outside: list[str] = []
    loop = asyncio.new_event_loop()
    started: list[asyncio.Server] = []
    ready = threading.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, version = line.split(" ")
        if not path.startswith(f"{prefix}/"):
            if path != "/favicon.ico":  # a browser asks for it by itself
                outside.append(path)
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        path = path.removeprefix(prefix) if takes_off else path
        kept = [one for one in lines if not one.lower().startswith("connection:")]
        asked = [f"{method} {path} {version}", *kept, "Connection: close", "", ""]
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        to_server.write("\r\n".join(asked).encode("latin-1"))
        await asyncio.gather(pump(reader, to_server), pump(from_server, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def serve() -> None:
        started.append(await asyncio.start_server(answer, "127.0.0.1", 0))
        ready.set()

    loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert ready.wait(LIMIT)
    own = started[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{own}{prefix}/", outside
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT)


PREFIX = "/tunesmith"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("proxied") / "workspace", "--root-path", PREFIX)
    yield server
    server.end()


@pytest.mark.e2e
@pytest.mark.parametrize("takes_off", [True, False], ids=["path taken off", "path left on"])
def test_the_page_works_under_a_path(
    served: Served, page: Page, tmp_path: Path, takes_off: bool
) -> None:
    """The path of the README's example is the one of our own files too."""
    with proxy(served.address, PREFIX, takes_off=takes_off) as (address, outside):
        page.goto(f"{address}?tab=data")
        expect(page.locator("#rows")).to_contain_text("Triage the ticket")
        path = tmp_path / "words.csv"
        path.write_text("text,label\ngood,yes\nbad,no\n")
        page.locator("#drop input[type=file]").set_input_files(path)
        panel = page.locator("#import")
        panel.get_by_role("button", name="Import", exact=True).click()
        expect(page.locator("#rows")).to_contain_text("good")
        page.get_by_role("tab", name="Configure").click()
        expect(page.locator("#start")).to_be_visible()
        page.reload()
        expect(page.locator("#start")).to_be_visible()
        assert outside == []
        page.goto("about:blank")
