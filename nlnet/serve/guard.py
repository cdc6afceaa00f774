"""What surrounds every answer: who may ask, the security headers, and the rest of an upload."""

import asyncio
import contextlib
import ipaddress
import secrets
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The policy of answers that are no page; the page has its own, with a nonce.
NOTHING = "default-src 'none'; frame-ancestors 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LINGER = 5.0  # seconds for which the rest of a refused upload is read


class Guard:
    """Refuses requests of others before the application sees them; adds the security headers.

    With a token, a request needs it: as `Authorization: Bearer TOKEN`, or in the address as
    `?token=TOKEN`. Without a token the server listens on this machine only. Then the names in
    `Host` and `Origin` must be names of this machine, so that no other web page can ask, also not
    one whose name leads here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", NOTHING)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            status, text = refusal
            answer = JSONResponse({"error": text}, status_code=status)
            await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason why a request is refused; None if it is not."""
        headers = Headers(scope=scope)
        if self._token is not None:
            if self._has_token(scope, headers, self._token):
                return None
            return 401, "a token is needed: open the address that the server printed at its start"
        host = headers.get("host", "")
        if not is_local_name(_host_name(f"//{host}")):
            return 403, f"the host {host} is not this machine; open the address that was printed"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, f"a page of {origin} may not ask this server; open the printed address"
        return None

    def _has_token(self, scope: Scope, headers: Headers, token: str) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return secrets.compare_digest(given.encode(), token.encode())


class Lingering:
    """Reads the rest of a body for a while after the answer, so that the client gets the answer.

    If a connection is closed while data arrives, the client may lose the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = scope["method"] == "POST"

        async def note_end() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def linger() -> None:
            while unread:
                await note_end()

        async def send_then_linger(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and unread:
                await send({**message, "more_body": True})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(linger(), LINGER)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, note_end, send_then_linger)


def is_local_name(name: str) -> bool:
    """Whether a host name or address is always this machine."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host_name(address: str) -> str:
    """The host of an address without its port; empty if it is malformed."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
