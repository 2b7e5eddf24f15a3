"""The gate that requests of a mount pass, closed while the volume goes on as another state or in another mode.

It is *shut* while the mount is cut off: then it stays closed whoever opens it, until it is opened by force.

`inside` counts the requests under way. Whoever closes the gate waits until it is `empty`; requests that come meanwhile
are `admitted` when it opens again. The owner of the requests bounds that wait; they hold their places in the
FUSE loop (`MAX_REQUESTS`), so no more than those wait here.

Plain state of one event loop; nothing here fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """See the module. A request counts itself, as the adapter does inline, or uses `passed`."""

    __slots__ = ("_changed", "inside", "is_open", "is_shut", "lets_data_pass")

    def __init__(self) -> None:
        self.is_open = True
        self.is_shut = False
        self.lets_data_pass = False
        """Closed, but reads and writes of open files go in: the kernel may wait for some while it drops pages."""
        self.inside = 0
        self._changed: list[asyncio.Future[None]] = []

    def close(self) -> None:
        """Requests wait from now on; those under way go on."""
        self.is_open = False

    def shut(self) -> None:
        """Closes it to all who would open it."""
        self.is_open, self.is_shut, self.lets_data_pass = False, True, False

    def let_data_pass(self) -> None:
        """Lets reads and writes of open files in, and nothing else, until it is opened or shut."""
        self.lets_data_pass = True
        self._wake()

    def open(self, *, by_force: bool = False) -> None:
        """Lets everything in that waits, unless it is shut."""
        if by_force:
            self.is_shut = False
        if not self.is_shut:
            self.is_open, self.lets_data_pass = True, False
            self._wake()

    def left(self) -> None:
        """To be called when a request went out while the gate is closed."""
        if not self.inside:
            self._wake()

    async def admitted(self, *, data: bool = False) -> None:
        """Returns when the gate is open, or lets `data` pass. Count yourself in before the next await."""
        while not (self.is_open or (data and self.lets_data_pass)):
            await self._change()

    async def empty(self) -> None:
        """Returns when nothing is inside, or the gate was opened again."""
        while self.inside and not self.is_open:
            await self._change()

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Inside of it is inside of the gate: for what changes the volume and is no request of the kernel."""
        await self.admitted()
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            if not self.is_open:
                self.left()

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._changed = self._changed, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
