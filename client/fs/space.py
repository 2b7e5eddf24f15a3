"""The space reserved at the coordinator for dirty data, so that a full pool is told at write time.

The coordinator's grant is absolute: it replaces the one before. It is asked for well ahead, and again after every
`reserve_refresh_bytes` that were written, since a pool fills up under a grant that was given long ago.

Fails as the session's calls do. Waiting for dirty data to shrink, where the grant no longer covers it, is left to the
file system.
"""

from __future__ import annotations

import asyncio
import logging

from redfs.client.fs.config import FsConfig, Session
from redfs.core.errors import NoSpace, RedfsError
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")


class SpaceReservation:
    """Plain bytes that may be dirty. Belongs to one event loop."""

    def __init__(self, session: Session, volume_id: int, config: FsConfig) -> None:
        self.granted_bytes = 0
        self._session = session
        self._volume_id = volume_id
        self._config = config
        self._written_bytes = 0
        self._asking: asyncio.Task[None] | None = None

    async def ask(self) -> None:
        """Asks for a new grant; those who ask at once share one question."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        try:
            self._written_bytes = 0
            reply = await self._session.call(
                reserve=pb.Reserve(volume_id=self._volume_id, wanted_bytes=self._config.dirty_bytes)
            )
            self.granted_bytes = reply.granted_bytes
        except NoSpace:
            self.granted_bytes = 0
        finally:
            self._asking = None

    def written(self, size: int) -> None:
        """Counts writes; asks in the background when it is time."""
        self._written_bytes += size
        if self._written_bytes >= self._config.reserve_refresh_bytes and self._asking is None:
            self._written_bytes = 0
            asking = self._asking = asyncio.ensure_future(self._ask())
            asking.add_done_callback(_log_failure)

    async def stop(self) -> None:
        """Ends a question in the background."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)


def _log_failure(asking: asyncio.Task[None]) -> None:
    if not asking.cancelled() and isinstance(asking.exception(), RedfsError):
        log.warning("the space reservation was not renewed: %s", asking.exception())
