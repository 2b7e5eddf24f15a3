"""One event loop in a thread of its own, for blocking functions that do their work with coroutines.

gRPC's asyncio side serves every loop that it ever met and complains about those that were closed, so there is one for
the life of the process, started when it is first needed. `run` may be called from any thread but this one. Fails as the
coroutine does; an interruption (Ctrl-C) cancels it, waits for its end and is passed on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(work: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine, from the background loop."""
    ended = threading.Event()

    async def watched() -> T:
        try:
            return await work
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(watched(), _started())
    try:
        return future.result()
    except BaseException:
        # Cancelling ends the future at once and the coroutine when it has cleaned up.
        if future.cancel():
            ended.wait()
        else:
            wait([future])
        raise


def _started() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            import uvloop

            _loop = uvloop.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="redfs-loop", daemon=True).start()
        return _loop
