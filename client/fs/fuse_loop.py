"""pyfuse3's asyncio mode with less work for each request.

pyfuse3 was written for trio; its asyncio mode registers the FUSE descriptor anew for every request and hands its
reader lock from task to task even where the first one comes straight back. Here the descriptor stays registered, and
the lock goes to another task only when its holder is busy with a request that waits. Measured on small requests, this
saves a fifth of the client's time. And a program that makes one request after the other is expected for a moment before
this process sleeps: being woken is the largest part of a small request (extracting a source tree takes a third less).

`enable` must be called before `pyfuse3.init`. It replaces three names that pyfuse3 looks up in its `pyfuse3.asyncio`
module; a pyfuse3 that no longer has them fails here at once, with an AttributeError.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections import deque
from typing import Any

import pyfuse3
import pyfuse3.asyncio

from redfs.client.fs.fuse_init import Negotiation

SPIN_S = 60e-6
"""Time spent looking for the next request before sleeping: about what a program takes to send it. Being woken takes as
long on many machines, twice that on virtual ones, so this costs no more than sleeping; twice as long gained nothing."""
HOT_S = 0.001
"""Only where the request before came this recently: an idle mount sleeps."""


class ReaderLock:
    """Held by the task that waits for the next request. Whoever comes first gets it, also before those who wait."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._looks = False

    async def __aenter__(self) -> None:
        if not self._is_held:
            self._is_held = True
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    async def __aexit__(self, *error: object) -> None:
        self._is_held = False
        if self._waiting and not self._looks:
            self._looks = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looks = False
        if not self._is_held and self._waiting:
            self._is_held = True
            self._waiting.popleft().set_result(None)


class Readiness:
    """Waits until the FUSE descriptor can be read, for the one task that holds the lock."""

    def __init__(self) -> None:
        self.negotiation = Negotiation()
        self._waiter: asyncio.Future[None] | None = None
        self._is_registered = False
        self._fd = -1
        self._poll: select.poll | None = None
        self._last_s = 0.0

    async def wait(self, fd: int) -> None:
        """Returns when the descriptor is readable; raises ClosedResourceError once it is closing."""
        if self.negotiation.is_under_way:
            self.negotiation.end(fd)
        await self._wait(fd)
        if not self.negotiation.is_begun:
            self._unregister()
            self.negotiation.begin(fd)

    async def _wait(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        self._fd = fd
        if self._comes_soon(fd):
            await asyncio.sleep(0)
            return
        waiter = self._waiter = loop.create_future()
        if not self._is_registered:
            self._is_registered = True
            loop.add_reader(fd, self._readable)
        await waiter
        self._last_s = time.perf_counter()

    def _comes_soon(self, fd: int) -> bool:
        """Looks for the next request for a moment, while one follows the other."""
        now_s = time.perf_counter()
        if now_s - self._last_s > HOT_S:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        end_s = now_s + SPIN_S
        poll = self._poll.poll
        while not poll(0):
            if time.perf_counter() > end_s:
                return False
        self._last_s = time.perf_counter()
        return True

    def is_unmounted(self) -> bool:
        """Whether the kernel has nothing to do with this mount any more."""
        if self._fd < 0:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
        return any(event & select.POLLERR for _, event in self._poll.poll(0))

    def _readable(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.set_result(None)
        else:
            # Every task is busy: no use in being told again and again.
            self._unregister()

    def _unregister(self) -> None:
        if self._is_registered:
            self._is_registered = False
            asyncio.get_running_loop().remove_reader(self._fd)

    def closing(self, fd: int) -> None:
        """The session ends: the waiting task is told."""
        self._unregister()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(pyfuse3.asyncio.ClosedResourceError())


def enable() -> Readiness:
    """Switches pyfuse3 to asyncio. `closing` of the result must be called when its main loop has ended."""
    module: Any = pyfuse3.asyncio
    for name in ("Lock", "wait_readable", "notify_closing"):
        getattr(module, name)
    readiness = Readiness()
    module.Lock = ReaderLock
    module.wait_readable = readiness.wait
    module.notify_closing = readiness.closing
    pyfuse3.asyncio.enable()
    return readiness
