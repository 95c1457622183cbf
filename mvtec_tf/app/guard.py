"""Who may ask the page what: names of its host, sessions, the password, forged forms, what is too large.

A browser is recognised by a session cookie that no script can read and no other site sends along. Whatever changes
something needs the session's token besides, or the password as `Authorization: Bearer`, which no browser sends unasked.
"""

import collections
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from mvtec_tf.app.settings import ServeSettings

COOKIE = "mvtec_tf_session"
TOKEN_HEADER = "x-csrf-token"
# Programs say it instead where there is no password: a page of another site cannot send a header of its own.
PROGRAM_HEADER = "x-mvtec-tf"
_SAFE = ("GET", "HEAD")
# What may be asked without a password.
_OPEN = ("/login", "/healthz", "/static/")
# So many wrong passwords from one address in so many seconds.
TRIES, WITHIN_SECONDS = 10, 300.0
_MOST_SESSIONS = 10_000
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_TOO_MUCH = "The request is larger than {:,} bytes, which is what this page takes. Send fewer or smaller files."


class Guard:
    """Sessions and the password.

    Args:
      password: "": anybody who reaches the page may use it.
      clock: seconds, for the limit of tries.
    """

    def __init__(self, password: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._salt, self._key = secrets.token_bytes(16), secrets.token_bytes(32)
        self._hash = self._digest(password) if password else b""
        self._clock = clock
        self._sessions: collections.OrderedDict[bytes, None] = collections.OrderedDict()
        self._failures: dict[str, collections.deque[float]] = {}

    @property
    def asks(self) -> bool:
        """Whether there is a password."""
        return bool(self._hash)

    def waits(self, address: str) -> bool:
        """Whether an address has guessed too often to be heard now."""
        failures = self._failures.get(address, collections.deque())
        while failures and failures[0] < self._clock() - WITHIN_SECONDS:
            failures.popleft()
        return len(failures) >= TRIES

    def opens(self, password: str, address: str) -> bool:
        """Whether it is the password; an address that has guessed too often is not heard."""
        if self.waits(address):
            return False
        if hmac.compare_digest(self._digest(password), self._hash):
            self._failures.pop(address, None)
            return True
        if len(self._failures) > _MOST_SESSIONS:
            self._failures.clear()
        self._failures.setdefault(address, collections.deque()).append(self._clock())
        return False

    def enter(self) -> str:
        """A new session that has given the password."""
        session = secrets.token_urlsafe(32)
        self._sessions[self._mark(session)] = None
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def leave(self, session: str) -> None:
        """Ends a session."""
        self._sessions.pop(self._mark(session), None)

    def knows(self, session: str) -> bool:
        """Whether a session may use the page."""
        return bool(session) and (not self.asks or self._mark(session) in self._sessions)

    def token(self, session: str) -> str:
        """What a form of this session carries."""
        return hmac.new(self._key, session.encode(), "sha256").hexdigest()

    def is_own(self, session: str, token: str) -> bool:
        """Whether a form is of this session."""
        return bool(session) and hmac.compare_digest(self.token(session).encode(), token.encode())

    def _digest(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode(), salt=self._salt, n=2**12, r=8, p=1)

    def _mark(self, session: str) -> bytes:
        return hashlib.sha256(session.encode()).digest()


class Door:
    """ASGI middleware: lets a request in, or says why not.

    Args:
      app: behind it.
      guard: of the sessions.
      settings: of the page.
    """

    def __init__(self, app: Any, guard: Guard, settings: ServeSettings) -> None:
        self._app, self._guard = app, guard
        self._names = {"localhost", settings.host.lower()}
        if not settings.is_local:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._local = settings.is_local
        # Boundaries and fields beside the files.
        self._most = settings.max_files * settings.most_bytes + 2**20

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        session = _cookie(headers)
        program = self._is_program(scope, headers)
        refused = self._refused(scope, headers, session, program)
        state = scope.setdefault("state", {})
        fresh = "" if session else secrets.token_urlsafe(32)
        state |= {"session": session or fresh, "token": self._guard.token(session or fresh), "program": program}

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                there = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    there.setdefault(name, value)
                there.setdefault("Cache-Control", "no-store")
                if fresh and "set-cookie" not in there:
                    there.append("set-cookie", cookie(fresh))
            await send(message)

        if refused is not None:
            await refused(scope, receive, sent)
            return
        await self._app(scope, _counted(receive, self._most), sent)

    def _refused(self, scope: Any, headers: Headers, session: str, program: bool) -> Response | None:
        host, path = headers.get("host", ""), scope["path"]
        if not self._is_own(host):
            return _told(path, "This page has another name. Open it by the address that it was started with.", 421)
        if scope["method"] not in _SAFE:
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2] != host:
                return _told(path, "A form of another site was not taken.", 403)
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > self._most:
                return _told(path, _TOO_MUCH.format(self._most), 413)
        if not self._guard.asks or program or self._guard.knows(session):
            return None
        if path.startswith(_OPEN):
            return None
        if path.startswith("/api/") or path == "/metrics" or scope["method"] not in _SAFE:
            text = "Log in, or send the password as Authorization: Bearer."
            return JSONResponse({"error": text}, 401, {"WWW-Authenticate": "Bearer"})
        return RedirectResponse("/login", 303)

    def _is_program(self, scope: Any, headers: Headers) -> bool:
        """Whether a program asks that needs no token: it has shown what no page of another site can send."""
        if not self._guard.asks:
            return PROGRAM_HEADER in headers
        kind, _, password = headers.get("authorization", "").partition(" ")
        address = (scope.get("client") or ("",))[0]
        return kind.lower() == "bearer" and self._guard.opens(password.strip(), address)

    def _is_own(self, host: str) -> bool:
        """Whether a Host header names this page: a name of another site that leads here is none of it."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        if name in self._names:
            return True
        try:
            found = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Names can be made to lead anywhere, addresses cannot.
        return found.is_loopback or not self._local


def _told(path: str, text: str, status: int) -> Response:
    return JSONResponse({"error": text}, status) if path.startswith("/api/") else PlainTextResponse(text, status)


def cookie(session: str) -> str:
    """The header that hands out a session; the browser forgets it when it is closed."""
    return f"{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict"


def _cookie(headers: Mapping[str, str]) -> str:
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and 20 <= len(value) <= 100 and value.isascii():
            return value
    return ""


def _counted(receive: Any, most: int) -> Any:
    """What is received, up to so many bytes: a request may say nothing, or less, of its length."""
    seen = 0

    async def counted() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, _TOO_MUCH.format(most))
        return message

    return counted
