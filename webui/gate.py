"""Who may come in: an ASGI middleware before everything that is served, Gradio's routes included.

In this order:
- the Host that is asked for is one that is served: a page of elsewhere whose name was pointed at
  this machine (DNS rebinding) is refused;
- the page that asks is our own (Origin, Referer, Sec-Fetch-Site): another site may link to the
  page, and nothing else;
- whoever asks has the key: the token of the printed address, or with `--auth` the name and the
  password. It is asked for once and then kept in a cookie; a program sends the token as a header.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import psutil
from markupsafe import Markup
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.commands.serve import is_loopback
from core.language import (
    HTML_LANGUAGES,
    PSEUDO,
    _,
    known_language,
    language,
    language_accepted,
    speaking,
)
from webui.html import html

_COOKIE_SECONDS = 30 * 24 * 3600
_LOGIN_BYTES = 16 * 1024
_LONGEST_DELAY = 30.0  # seconds
_WAITING = 4  # logins of one client that may wait for their turn
_FORGOTTEN = 900.0  # seconds after which wrong passwords no longer count
_CLIENTS = 1000
LANGUAGE_COOKIE = "tunesmith-language"
ANY_ADDRESS = ("0.0.0.0", "::", "")
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
}


@dataclass(frozen=True)
class Hosts:
    """The names that the page is served under: those of the address that it listens at, and
    `named`, the owner's further ones (a name, or a name with a port)."""

    listens: str
    named: tuple[str, ...] = ()

    def serves(self, netloc: str) -> bool:
        name = _name(netloc)
        return name in self._own() or name in map(_name, self.named)

    def is_named(self, netloc: str) -> bool:
        return netloc.lower() in (name.lower() for name in self.named)

    def _own(self) -> set[str]:
        machine = socket.gethostname().lower()
        if is_loopback(self.listens):
            return {"localhost", "127.0.0.1", "::1", self.listens.lower()}
        if self.listens not in ANY_ADDRESS:
            return {self.listens.lower(), machine, f"{machine}.local"}
        interfaces = psutil.net_if_addrs().values()  # now: a laptop's addresses change
        addresses = {one.address.partition("%")[0].lower() for each in interfaces for one in each}
        return {"localhost", "127.0.0.1", "::1", machine, f"{machine}.local", *addresses}


@dataclass(frozen=True)
class Key:
    """What opens: the token, or with `auth` the name and the password. `secret` is the token; with
    `auth` it only makes the cookie one that nobody can work out from the password."""

    secret: str
    auth: tuple[str, str] | None = None

    @property
    def cookie(self) -> tuple[str, str]:
        """Name and value. Ports share their cookies: each workspace's has a name of its own."""
        meant = "\n".join(self.auth) if self.auth else "token"
        value = hmac.new(self.secret.encode(), meant.encode(), hashlib.sha256).hexdigest()
        return f"tunesmith-{hashlib.sha256(value.encode()).hexdigest()[:8]}", value

    def is_token(self, text: str | None) -> bool:
        return self.auth is None and _same(text or "", self.secret)

    def is_held_by(self, asked: HTTPConnection) -> bool:
        """Whether a request brings it: as a cookie, or the token as a header."""
        name, value = self.cookie
        if _same(asked.cookies.get(name, ""), value):
            return True
        scheme, _space, token = asked.headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        return self.is_token(bearer) or self.is_token(asked.headers.get("x-tunesmith-token"))

    def is_login(self, user: str, password: str) -> bool:
        if self.auth is None:
            return False
        right = [_same(user.strip(), self.auth[0]), _same(password, self.auth[1])]
        return all(right)


class Gate:
    """Lets a request through to `app`, or answers it. Without a key everybody has it."""

    def __init__(self, app: ASGIApp, hosts: Hosts, key: Key | None, root_path: str = "") -> None:
        self.app, self.hosts, self.key, self.root_path = app, hosts, key, root_path
        self.language = language()
        self._logins = _Logins()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        with speaking(self._language(asked)):
            await self._answer(asked, scope, receive, send)

    def _language(self, asked: HTTPConnection) -> str:
        """What was chosen in the header, else what the browser prefers, else the server's."""
        chosen = known_language(asked.cookies.get(LANGUAGE_COOKIE))
        accepted = language_accepted(asked.headers.get("accept-language", ""))
        return chosen or (self.language if self.language == PSEUDO else accepted) or self.language

    async def _answer(
        self, asked: HTTPConnection, scope: Scope, receive: Receive, send: Send
    ) -> None:
        path = self._path(scope)
        answer = self._refused(asked, path)
        if answer is None and scope["type"] == "http":
            answer = await self._asked_for_key(Request(scope, receive), path)
        elif answer is None and not self._is_open_to(asked):
            answer = Response(status_code=403)
        if answer is None:
            await self.app(scope, receive, _made_safe(send, path))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, _made_safe(send, path))

    def _path(self, scope: Scope) -> str:
        """The path below the root path, which a proxy may have taken off or not."""
        path = str(scope["path"])
        below = path.removeprefix(self.root_path)
        return below if self.root_path and below[:1] in ("", "/") else path

    def _is_open_to(self, asked: HTTPConnection) -> bool:
        return self.key is None or self.key.is_held_by(asked)

    def _refused(self, asked: HTTPConnection, path: str) -> Response | None:
        names = asked.headers.getlist("host")
        if len(names) != 1 or not self.hosts.serves(names[0]):
            return _no_such_host(asked.headers, names[0] if names else "")
        if self._is_foreign(asked.headers, names[0]) and not _is_link(asked, path):
            return _told(
                asked.headers,
                403,
                _("This was asked for by another site"),
                _(
                    "Tunesmith answers its own page only. Is this its own page behind a proxy? "
                    "Then start it with --allow-host and the name that the browser shows."
                ),
            )
        return None

    def _is_foreign(self, headers: Headers, host: str) -> bool:
        """Whether a page of another origin asks. What no browser sends is a program's."""
        site = headers.get("sec-fetch-site", "")
        if site in ("cross-site", "same-site"):
            return True
        source = headers.get("origin") or ("" if site else headers.get("referer"))
        if not source:
            return False
        origin = urlsplit(source).netloc
        if origin and origin.lower() == host.lower() or self.hosts.is_named(origin):
            return False
        # A proxy may have put another Host there than the browser knows.
        return not (site == "same-origin" and self.hosts.serves(origin))

    async def _asked_for_key(self, request: Request, path: str) -> Response | None:
        """What is answered to a request without the key, or with one that comes to be kept."""
        key = self.key
        if key is None:
            return None
        if key.auth and path.rstrip("/") == "/login" and request.method == "POST":
            return await self._login(request, key)
        if key.auth and path.rstrip("/") == "/logout":
            return self._without_key()
        token = request.query_params.get("token")
        if path in ("", "/") and request.method == "GET" and token and key.is_token(token):
            rest = [(k, v) for k, v in parse_qsl(request.url.query, True) if k != "token"]
            return self._with_key(key, urlencode(rest))
        if key.is_held_by(request):
            return None
        return _login_page(request) if key.auth else _token_page(request, bool(token))

    def _with_key(self, key: Key, query: str) -> Response:
        answer = RedirectResponse("./" + (f"?{query}" if query else ""), 303)
        self._keep(answer, key)
        return answer

    def _keep(self, answer: Response, key: Key) -> None:
        name, value = key.cookie
        answer.set_cookie(
            name,
            value,
            max_age=_COOKIE_SECONDS,
            path=self.root_path or "/",
            httponly=True,
            samesite="lax",
        )
        answer.headers["Cache-Control"] = "no-store"

    def _without_key(self) -> Response:
        answer = RedirectResponse("./", 303)
        if self.key:
            answer.delete_cookie(self.key.cookie[0], path=self.root_path or "/")
        return answer

    async def _login(self, request: Request, key: Key) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _LOGIN_BYTES:
            return _told(request.headers, 413, _("That is too long"), _("Try again."))
        body = (await request.body()).decode(errors="replace")
        form = {name: values[0] for name, values in parse_qs(body).items()}
        right = await self._logins.ask(request, key, form)
        if right is None:
            return _told(
                request.headers,
                429,
                _("Too many logins at once"),
                _("Try again in half a minute."),
                {"Retry-After": f"{_LONGEST_DELAY:g}"},
            )
        if not right:
            return _login_page(request, _("The name or the password is wrong."))
        if _reads(request.headers):
            return self._with_key(key, form.get("then", ""))
        answer = JSONResponse({"success": True})
        self._keep(answer, key)
        return answer


@dataclass
class _Attempts:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    wrong: int = 0
    last: float = 0.0


class _Logins:
    """Passwords are tried one after the other for each client, and after each wrong one the next
    waits longer."""

    def __init__(self) -> None:
        self._by_client: dict[str, _Attempts] = {}

    async def ask(self, request: Request, key: Key, form: Mapping[str, str]) -> bool | None:
        """Whether the login is right; None when too many of this client wait already."""
        client = self._of(request.client.host if request.client else "")
        if client.waiting >= _WAITING:
            return None
        client.waiting += 1
        try:
            async with client.turn:
                if key.is_login(form.get("username", ""), form.get("password", "")):
                    client.wrong = 0
                    return True
                client.wrong += 1
                # Held for as long also when nobody waits for the answer any more.
                await asyncio.sleep(min(_LONGEST_DELAY, 2.0 ** (client.wrong - 2)))
                return False
        finally:
            client.waiting -= 1
            client.last = time.monotonic()

    def _of(self, name: str) -> _Attempts:
        now = time.monotonic()
        for old in [
            known
            for known, one in self._by_client.items()
            if not one.waiting and (now - one.last > _FORGOTTEN or not one.wrong)
        ]:
            del self._by_client[old]
        if name not in self._by_client and len(self._by_client) >= _CLIENTS:
            name = ""  # all further ones are one
        return self._by_client.setdefault(name, _Attempts(last=now))


def _is_link(asked: HTTPConnection, path: str) -> bool:
    """Whether somebody follows a link to the page, which another site may have."""
    told = asked.headers
    return (
        asked.scope.get("method") in ("GET", "HEAD")
        and path in ("", "/")
        and "origin" not in told
        and told.get("sec-fetch-mode", "navigate") == "navigate"
        and told.get("sec-fetch-dest", "document") == "document"
    )


def _made_safe(send: Send, path: str) -> Send:
    """Adds what keeps a browser from taking an answer for something else. Files that somebody
    uploaded or made are saved, never shown as a page of ours."""
    is_file = path.startswith(("/gradio_api/file=", "/gradio_api/file/"))

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_SAFE)
            if is_file:
                said = headers.get("content-disposition", "attachment")
                headers["Content-Disposition"] = said.replace("inline", "attachment", 1)
                headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
        await send(message)

    return sent


def _name(netloc: str) -> str:
    """The name or the address of `name:port`, in small letters."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _reads(headers: Headers) -> bool:
    """Whether a person reads the answer, in a browser."""
    return "text/html" in headers.get("accept", "")


def _told(
    headers: Headers,
    status: int,
    title: str,
    what: str,
    more: dict[str, str] | None = None,
    form: Markup | None = None,
) -> Response:
    """A plain page for a person, the same in JSON for a program."""
    kept = {"Cache-Control": "no-store", **(more or {})}
    if not _reads(headers):
        told = _("{title}. {what}", title=title, what=what)
        return JSONResponse({"detail": told}, status, kept)
    page = html.gate.page(HTML_LANGUAGES[language()], title, what, form or Markup())
    return HTMLResponse(page, status, kept)


def _no_such_host(headers: Headers, host: str) -> Response:
    name = _name(host) or _("that name")
    return _told(
        headers,
        403,
        _("Tunesmith is not served as {name}", name=name),
        _(
            "Open the address that it printed when it was started. If a proxy or a network shows "
            "it under this name, start it with --allow-host and the name."
        ),
    )


def _token_page(request: Request, is_wrong: bool) -> Response:
    wrong = _("That token is not the one of this workspace.") if is_wrong else ""
    how = _(
        "Open the whole address that Tunesmith printed when it was started, with ?token= at its "
        "end; it also stands in server.json in the workspace. A program sends the token as a "
        "header: Authorization: Bearer TOKEN."
    )
    return _told(
        request.headers,
        403,
        _("This page needs its token"),
        f"{wrong} {how}".strip(),
        form=html.gate.token(),
    )


def _login_page(request: Request, wrong: str = "") -> Response:
    then = "" if request.method == "POST" else request.url.query
    return _told(
        request.headers,
        401,
        _("Log in"),
        wrong or _("Tunesmith asks for the name and password it was started with."),
        form=html.gate.login(then),
    )
