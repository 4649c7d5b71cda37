"""The page in each language: the same page, made when somebody first asks for it in that language.

Gradio declares a page's texts when it is built, so there is one page a language; which one answers
is decided for each request by `webui.gate`. What they show, runs and data sets, is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio.to_thread
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from core.jobs.process import staying
from core.language import language, speaking


class Pages:
    """An ASGI app: `make` builds the page in the language in use, the first one at once."""

    def __init__(self, make: Callable[[], FastAPI]) -> None:
        self._make = make
        self._first = language()
        with staying():
            self._made = {self._first: make()}
        self._started: dict[str, asyncio.Task[ASGIApp]] = {}
        self._open: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        page = await asyncio.shield(self._page(language()))
        await page(scope, receive, send)

    def _page(self, code: str) -> asyncio.Task[ASGIApp]:
        started = self._started.get(code)
        if started is None or (started.done() and started.exception()):
            started = self._started[code] = asyncio.create_task(self._start(code))
        return started

    async def _start(self, code: str) -> ASGIApp:
        with speaking(code):
            if code not in self._made:
                self._made[code] = await anyio.to_thread.run_sync(self._make)
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._open.append(asyncio.create_task(self._keep(self._made[code], ready)))
        await ready
        return self._made[code]

    async def _keep(self, page: FastAPI, ready: asyncio.Future[None]) -> None:
        """A page's queue and what else it started, until the server ends: in one task, as they
        must be."""
        try:
            async with page.router.lifespan_context(page):
                ready.set_result(None)
                await self._ending.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._page(self._first)
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._ending.set()
        await asyncio.gather(*self._open)
        await send({"type": "lifespan.shutdown.complete"})
