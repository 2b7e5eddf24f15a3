"""The space reserved at the coordinator for dirty data, so that a full pool is told at write time.

A volume's quota is kept the same way: the coordinator says by how much what is committed may grow, and every byte
written since counts against it, whether it makes the volume grow or not; when it is used up, everything dirty is
committed and the coordinator asked again.

The coordinator's grant is absolute: it replaces the one before. It is asked for well ahead, and again after every
`reserve_refresh_bytes` that were written, since a pool fills up under a grant that was given long ago.

Fails as the session's calls do. Waiting for dirty data to shrink, where the grant no longer covers it, is left to the
file system.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf

from redfs.client.fs.config import FsConfig, Session
from redfs.core.errors import NoSpace, RedfsError
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")


class SpaceReservation:
    """Plain bytes that may be dirty. Belongs to one event loop."""

    def __init__(
        self, session: Session, volume_id: int, config: FsConfig, dirty_bytes: Callable[[], int] = lambda: 0
    ) -> None:
        self.granted_bytes = 0
        self.quota_bytes: float = inf
        """Bytes that may still be written before the coordinator must be asked what the quota leaves."""
        self.freeing = False
        """What was deleted is still being freed: more of the quota will be left soon."""
        self._session = session
        self._volume_id = volume_id
        self._config = config
        self._dirty_bytes = dirty_bytes
        self._written_bytes = 0
        self._copied_bytes = 0
        """Taken over since the last question was asked."""
        self._asking: asyncio.Task[None] | None = None

    async def ask(self) -> None:
        """Asks for a new grant; those who ask at once share one question."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        try:
            self._written_bytes = self._copied_bytes = 0
            uncounted = self._dirty_bytes()
            reply = await self._session.call(
                reserve=pb.Reserve(volume_id=self._volume_id, wanted_bytes=self._config.dirty_bytes)
            )
            self.granted_bytes = reply.granted_bytes
            self.freeing = reply.freeing
            self.quota_bytes = inf
            if reply.has_quota:
                self.quota_bytes = reply.quota_left_bytes - uncounted - self._written_bytes - self._copied_bytes
        except NoSpace:
            self.granted_bytes = 0
        finally:
            self._asking = None

    def written(self, size: int) -> None:
        """Counts writes; asks in the background when it is time."""
        self._written_bytes += size
        self.quota_bytes -= size
        if self._written_bytes >= self._config.reserve_refresh_bytes and self._asking is None:
            asking = self._asking = asyncio.ensure_future(self._ask())
            asking.add_done_callback(_log_failure)

    def copied(self, size: int) -> None:
        """Counts what refers to blocks that are stored already: it takes of the quota, but no room in the pool."""
        self._copied_bytes += size
        self.quota_bytes -= size

    async def stop(self) -> None:
        """Ends a question in the background."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)


def _log_failure(asking: asyncio.Task[None]) -> None:
    if not asking.cancelled() and isinstance(asking.exception(), RedfsError):
        log.warning("the space reservation was not renewed: %s", asking.exception())
