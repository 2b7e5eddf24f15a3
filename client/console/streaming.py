"""Answers that go on for long: sent piece by piece, ended when the browser goes or takes nothing.

The framework's own streaming answer leaves three things out that matter here: a bound on how long a browser may take
nothing, an orderly end of the generator when it goes, and breaking the connection off, without a traceback, where the
data cannot be read on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from redfs.core.errors import RedfsError

log = logging.getLogger("redfs.console")

STALL_S = 60.0
"""A browser that takes nothing for so long has gone."""


class Streamed(Response):
    """Sends `first` and what `data` yields (no body at all without `data`); closes `held` in the end, however it
    comes. Headers are sent as given: where the length is known, the caller says it."""

    def __init__(
        self,
        data: AsyncGenerator[bytes] | None,
        headers: Mapping[str, str],
        *,
        what: str,
        first: bytes = b"",
        status_code: int = 200,
        held: contextlib.AsyncExitStack | None = None,
        stall_s: float | None = None,
    ) -> None:
        # Not through the base class, which would add a length of its own.
        self.status_code = status_code
        self.background = None
        self.body = b""
        self.raw_headers = [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        self._data = data
        self._what = what
        self._first = first
        self._held = held
        self._stall_s = STALL_S if stall_s is None else stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(send), name=f"send {self._what}")
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            if self._data is not None:
                await self._data.aclose()
            if self._held is not None:
                await self._held.aclose()
        if not sending.cancelled() and (error := sending.exception()) is not None:
            if not isinstance(error, RedfsError | TimeoutError | OSError):
                raise error
            # Returning before the end makes the server break the connection off.
            log.warning("sending %s broke off: %s", self._what, str(error) or "the browser takes nothing")

    async def _send_all(self, send: Send) -> None:
        async with asyncio.timeout(self._stall_s):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if self._data is not None:
            await self._send(send, self._first)
            async for chunk in self._data:
                await self._send(send, chunk)
        async with asyncio.timeout(self._stall_s):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, chunk: bytes) -> None:
        async with asyncio.timeout(self._stall_s):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _gone(receive: Receive) -> None:
    """Returns when the browser has ended the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
