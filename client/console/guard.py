"""What stands before every request: who may ask, how much, and what a browser may do with the answer.

The console has no log-in: it listens on this machine unless told otherwise, and what must be kept out there is other
web pages in the user's browser.

- **Host.** Only requests to an address (127.0.0.1, any IP), to `localhost`, or to a name that was allowed are served.
  A page whose name was pointed at this machine (DNS rebinding) sends its own name and is refused, for reads too.
- **Changes** need the header `X-RedFS-Console: 1`. A page of another site can send it only after asking (a CORS
  preflight), and that is refused: there are no CORS headers at all.
- **Answers** may be used by this page only (content policy, no sniffing, no framing, no embedding elsewhere), and those
  of the API are not kept.

A body has a bound and must come within a time. Everything here is pure ASGI, so that streams pass untouched.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Collection
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redfs.client.console import errors
from redfs.core.errors import InvalidArgument, NotAllowed

log = logging.getLogger("redfs.console")

API = "/api/v1"
CHANGE_HEADER = b"x-redfs-console"
READING_METHODS = ("GET", "HEAD")
MAX_BODY_BYTES = 64 * 1024
"""The longest request names a thousand nodes to free; a path has a few KiB."""
TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes"
MAX_HOST_CHARS = 255
BODY_TIMEOUT_S = 15.0
"""For the whole body of a request: a kilobyte from a browser."""
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """See the module. `hosts`: names beside localhost under which the console may be asked for."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _with_ours(scope["path"], message.get("headers", ()))}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, guarded_send)
            return
        try:
            await self._app(scope, _bounded(scope, receive), guarded_send)
        except Exception as error:
            # An answer that was begun and not ended makes the server break the connection off.
            log.error("unexpected error in %s %s", scope["method"], scope["path"], exc_info=error)
            if not started:
                await errors.answer_to_unexpected(error)(scope, receive, guarded_send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host):
            name = _host_name(host)[:MAX_HOST_CHARS]
            return errors.answer(
                NotAllowed(
                    f"this console is not called {name!r}: use its address, or start it with --allow-host {name}"
                )
            )
        if scope["method"] not in READING_METHODS and headers.get(CHANGE_HEADER) != b"1":
            return errors.answer(NotAllowed("a change needs the header X-RedFS-Console: 1"))
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
            return JSONResponse(errors.body(InvalidArgument.code, TOO_LARGE), status_code=413)
        return None

    def _is_ours(self, host: str) -> bool:
        name = _host_name(host)
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # nobody points an address at another machine


def _host_name(host: str) -> str:
    """The name or address in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower().rstrip(".") if ":" in host else host.lower().rstrip(".")


def _with_ours(path: str, headers: Any) -> list[tuple[bytes, bytes]]:
    kept = b"no-store" if path.startswith(API) else b"no-cache"
    ours = (*HEADERS, (b"cache-control", kept))
    names = {name for name, _ in ours}
    return [*((name, value) for name, value in headers if name.lower() not in names), *ours]


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """The body, as long as it is short and quick. After it, what comes is the browser's leaving, which has time."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + BODY_TIMEOUT_S
    got = 0
    complete = scope["method"] in READING_METHODS

    async def bounded_receive() -> Message:
        nonlocal got, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline_s):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not come within {BODY_TIMEOUT_S:.0f} s") from None
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            complete = not message.get("more_body", False)
        return message

    return bounded_receive
