"""Inode numbers granted by the coordinator in ranges, fetched ahead of need.

A number that was granted and not used is never used. Fails as the session's calls do.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from redfs.client.fs.config import FsConfig, Session
from redfs.core.errors import RedfsError
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")


class InodeNumbers:
    """The stock of a mount. Belongs to one event loop."""

    def __init__(self, session: Session, volume_id: int, config: FsConfig) -> None:
        self._session = session
        self._volume_id = volume_id
        self._config = config
        self._ranges: deque[range] = deque()
        self._left = 0
        self._filling: asyncio.Task[None] | None = None

    def take_now(self) -> int | None:
        """A number, if one is in stock."""
        if not self._ranges:
            return None
        first = self._ranges[0]
        number = first[0]
        if len(first) > 1:
            self._ranges[0] = first[1:]
        else:
            self._ranges.popleft()
        self._left -= 1
        if self._left < self._config.inode_grant // 2 and self._filling is None:
            self._begin_filling().add_done_callback(_log_failure)
        return number

    async def take(self) -> int:
        """A number, waiting for a grant if need be."""
        while True:
            number = self.take_now()
            if number is not None:
                return number
            await self.fill()

    async def fill(self) -> None:
        """Asks for a range; those who ask at once share one question."""
        await asyncio.shield(self._filling or self._begin_filling())

    def _begin_filling(self) -> asyncio.Task[None]:
        self._filling = asyncio.ensure_future(self._fill())
        return self._filling

    async def _fill(self) -> None:
        try:
            reply = await self._session.call(
                grant_inodes=pb.GrantInodes(volume_id=self._volume_id, count=self._config.inode_grant)
            )
            if reply.count:
                self._ranges.append(range(reply.first, reply.first + reply.count))
                self._left += reply.count
        finally:
            self._filling = None

    async def stop(self) -> None:
        """Ends a question in the background."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)


def _log_failure(filling: asyncio.Task[None]) -> None:
    if not filling.cancelled() and isinstance(filling.exception(), RedfsError):
        log.warning("no inode numbers were granted: %s", filling.exception())
