"""Push: one Watch stream of the coordinator for all browsers that look, as server-sent events.

    event: coordinator   {"reachable": true, "error": null}       at the start, and when it changes
    event: changed       {"tree": true, "nodes": false, "jobs": false, "schedules": false}
    event: figures       {"read_bytes": ..., "written_bytes": ..., "operations": ..., "busy_us": ..., "at_ms": ...}

A browser that is slow gets less often what is newest, never a backlog: what waits for it is one set of flags and one
set of figures. When the coordinator was away, everything counts as changed, so that a page asks for it again. The
stream runs only while somebody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from redfs.client.cli.output import message_data
from redfs.client.console.coordinator import Coordinator
from redfs.client.console.streaming import Streamed
from redfs.core.errors import RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.console")

MAX_LISTENERS = 64
"""Pages that listen at once; people with a dozen tabs are far below."""
KEEPALIVE_S = 15.0
"""A comment line after so much silence, so that everybody on the way knows that the connection lives."""
STALL_S = 30.0
"""A browser that takes nothing for so long has gone."""
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 1.0
"""Between attempts to reach the coordinator; it is found within that when it is back."""
RETRY_REFUSED_S = 10.0
"""When it answers and refuses, nothing is won by asking often."""
FLAGS = ("tree", "nodes", "jobs", "schedules")


class Listener:
    """One browser: what it has not been told yet."""

    def __init__(self) -> None:
        self.changed = dict.fromkeys(FLAGS, False)
        self.figures: dict[str, Any] | None = None
        self.state: dict[str, Any] | None = None
        self.news = asyncio.Event()

    def take(self) -> list[tuple[str, Any]]:
        """What is to be told now, in order; it counts as told."""
        events: list[tuple[str, Any]] = []
        if self.state is not None:
            events.append(("coordinator", self.state))
        if any(self.changed.values()):
            events.append(("changed", self.changed))
        if self.figures is not None:
            events.append(("figures", self.figures))
        self.state, self.figures = None, None
        self.changed = dict.fromkeys(FLAGS, False)
        self.news.clear()
        return events


class Events:
    """See the module. Belongs to one event loop; ended by `close`."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._listeners: set[Listener] = set()
        self._watching: asyncio.Task[None] | None = None
        self._state: dict[str, Any] | None = None
        """Of the coordinator, as last told; None before the first word from it."""
        self.closed = asyncio.Event()

    @property
    def listeners(self) -> int:
        """Browsers that listen now."""
        return len(self._listeners)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[Listener]:
        listener = Listener()
        self._listeners.add(listener)
        if self._state is not None:
            # The stream said everything at its start, and this listener was not there yet.
            listener.state = self._state
            listener.changed = dict.fromkeys(FLAGS, True)
            listener.news.set()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="watch the coordinator")
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._watching.cancel()
                self._watching, self._state = None, None

    def answer(self) -> Streamed:
        """The answer to a browser that wants to listen. Unavailable where too many do."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise Unavailable(f"{MAX_LISTENERS} pages listen to this console already: close one")
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        return Streamed(self.stream(), headers, what="events", stall_s=STALL_S)

    async def stream(self) -> AsyncGenerator[bytes]:
        """The events as bytes, for one browser, until the console ends."""
        yield b"retry: 1000\n\n"
        ending = asyncio.ensure_future(self.closed.wait())
        try:
            with self._listening() as listener:
                while not self.closed.is_set():
                    news = asyncio.ensure_future(listener.news.wait())
                    await asyncio.wait({news, ending}, timeout=KEEPALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                    news.cancel()
                    events = listener.take()
                    yield b"".join(_encoded(name, data) for name, data in events) or b": still here\n\n"
        finally:
            ending.cancel()

    def close(self) -> None:
        """Ends all streams: nothing else would, and the server waits for them."""
        self.closed.set()

    # ------------------------------------------------------------ the coordinator's words

    async def _watch(self) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            try:
                async with aclosing(self._coordinator.stream("Watch", pb.WatchRequest(), timeout_s=None)) as stream:
                    async for message in stream:
                        pause_s = RETRY_FIRST_S
                        self._take(message)
                error: RedfsError = self._coordinator.gone()
            except RedfsError as refused:
                error = refused
            except Exception as unexpected:
                log.exception("watching the coordinator failed")
                error = Unavailable(f"watching the coordinator failed: {unexpected!r}")
            self._tell_state(False, {"code": error.code, "message": str(error)})
            if not isinstance(error, Unavailable):
                pause_s = RETRY_REFUSED_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _take(self, message: pb.Changed) -> None:
        self._tell_state(True, None)
        figures = None
        if message.HasField("figures"):
            figures = message_data(message.figures) | {"at_ms": time.time_ns() // 1_000_000}
        for listener in self._listeners:
            for flag in FLAGS:
                listener.changed[flag] |= getattr(message, flag)
            if figures is not None:
                listener.figures = figures
            if figures is not None or any(listener.changed.values()):
                listener.news.set()

    def _tell_state(self, reachable: bool, error: dict[str, Any] | None) -> None:
        state = {"reachable": reachable, "error": error}
        if state == self._state:
            return
        self._state = state
        for listener in self._listeners:
            listener.state = state
            listener.news.set()


def _encoded(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
