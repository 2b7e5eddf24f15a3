"""Whose turn it is to ask a volume's mounts for something that closes them for a while: one conversation at a time.

A mount that is held for a roll-back and recalled for sharing at once would have two askers wait for one another's end.
Belongs to one event loop, and is empty after a restart, as the conversations are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redfs.core.errors import Busy


class Turns:
    """A lock for each volume that somebody talks about."""

    def __init__(self) -> None:
        self._locks: dict[int, tuple[asyncio.Lock, list[int]]] = {}
        """volume -> its lock, and in a list of one how many have or want it."""
        self.ended: Callable[[int], None] = lambda volume_id: None
        """Called when the last conversation about a volume is over."""

    @asynccontextmanager
    async def turn(self, volume_id: int, patience_s: float) -> AsyncIterator[None]:
        """The only conversation about the volume. Busy where the one before does not end in time."""
        lock, users = self._locks.setdefault(volume_id, (asyncio.Lock(), [0]))
        users[0] += 1
        try:
            try:
                async with asyncio.timeout(patience_s):
                    await lock.acquire()
            except TimeoutError:
                raise Busy("the volume's mounts are busy with another request for too long: try again") from None
            try:
                yield
            finally:
                lock.release()
        finally:
            users[0] -= 1
            if not users[0]:
                del self._locks[volume_id]
                self.ended(volume_id)

    def taken(self, volume_id: int) -> bool:
        """Whether somebody talks with the volume's mounts, or is about to."""
        return volume_id in self._locks
