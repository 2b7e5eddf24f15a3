"""Requests about names that are under way, and waiting for them before a moved folder is shown.

The kernel lets a folder have one name. When it meets one under another name than it knows, because another host has
moved it, it moves it too; but not while requests of this host that change names hold the locks of the folders
concerned, for which they wait here. After a second try the program gets ESTALE. So who is about to show a moved folder
first lets the requests end that are under way, within reason: two that wait for each other go on after that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

QUIET_S = 1.0
"""Longest wait for requests that are under way."""
RELEASE_S = 0.002
"""Until the programs that got their answers have let go of the kernel's locks."""


class NameRequests:
    """See the module. Belongs to one event loop."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep
        self._under_way: set[asyncio.Future[None]] = set()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """For the time of one request."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(ended)
        try:
            yield
        finally:
            self._under_way.discard(ended)
            ended.set_result(None)

    async def quiet(self) -> None:
        """Returns when those have ended that are under way now. Not to be called from inside of one."""
        if self._under_way:
            await asyncio.wait(list(self._under_way), timeout=QUIET_S)
            await self._sleep(RELEASE_S)
