"""Carries out copies into one volume (`copy_files`) for a mount, or for a session that has it without a mount.

The source is attached as a view, which keeps its blocks stored. It is given back only when everything that names them
is committed, whether the copy succeeded or not: a commit that names blocks which are gone could not be repaired, since
nobody here has their bytes. Where that cannot be waited for (the mount ends), the view goes with the session, whose end
comes after the last commit.

Fails with Busy where too many copies are under way, with Unavailable where the mount ends meanwhile, and as
`copy_files` does; errors of the file system become those that people are told (`core/errors.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from errno import EEXIST, EFBIG, EISDIR, EMLINK, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EROFS
from typing import Any, Final

from redfs.client.fs.config import Session
from redfs.client.fs.copy_files import Copied, Source, copy_files
from redfs.client.fs.metadata import Metadata
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import (
    AlreadyExists,
    Busy,
    FsError,
    InternalError,
    NoSpace,
    NotAllowed,
    NotFound,
    RedfsError,
    Unavailable,
)
from redfs.core.records import decode_root
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")

MAX_COPIES = 8
"""Copies into one volume at a time: each has a cache of records of its own, and they share one write log."""
FINISH_S = 10.0
"""For copies that have their name, and only wait for their commit, where the mount ends: it commits all anyway."""
SOURCE_RECORDS = 32 * 1024
"""Records of the source kept: 25 MiB, many times what one page of a folder needs."""

ERRORS: Final[dict[int, type[RedfsError]]] = {
    ENOENT: NotFound,
    EEXIST: AlreadyExists,
    ENOSPC: NoSpace,
    EROFS: NotAllowed,
    EFBIG: NotAllowed,
    EMLINK: NotAllowed,
    ENOTDIR: Busy,
    EISDIR: Busy,
    ENOTEMPTY: Busy,
}
"""What people are told where the file system refuses; the last three come from somebody who changes the same folder."""


async def _show_nothing(parent: int, name: bytes) -> None:
    """Nobody remembers names of this volume but the vfs."""


class Copier:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        session: Session,
        vfs: Vfs,
        *,
        show: Callable[[int, bytes], Awaitable[None]] = _show_nothing,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._vfs = vfs
        self._show = show
        """Makes the kernel look again for a name in a folder."""
        self._sleep = sleep
        self._tasks: set[asyncio.Task[pb.CopyFilesReply]] = set()
        self._whole: set[asyncio.Task[Any]] = set()
        """Those whose copy has its name."""
        self._under_way: set[tuple[int, bytes]] = set()
        self._ending = False

    async def on_copy(self, volume_id: int, request: pb.CopyFiles) -> pb.CopyFilesReply:
        """The coordinator's order. `unattended` in the reply where this mount is about to end."""
        if volume_id != self._vfs.volume_id:
            raise InternalError(f"volume {volume_id} is not the one that is mounted here")
        if self._ending:
            return pb.CopyFilesReply(unattended=True)
        return await self.copy(request)

    async def copy(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        """Carries out a request; when it returns the copy is durable."""
        if len(self._tasks) >= MAX_COPIES:
            raise Busy(f"{MAX_COPIES} copies into '{self._vfs.volume_name}' are under way: wait for the end of one")
        task = asyncio.create_task(self._carry_out(request), name="copy")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.cancelled():
            raise Unavailable(f"the mount of '{self._vfs.volume_name}' ended while it copied: look, and copy again")
        return task.result()

    def _ended(self, task: asyncio.Task[pb.CopyFilesReply]) -> None:
        self._tasks.discard(task)
        self._whole.discard(task)

    async def finish(self) -> None:
        """Takes no more copies and waits for those under way."""
        self._ending = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Takes no more copies and ends those under way, but for what is whole and only waits for its commit. To be
        called before the volume is closed."""
        self._ending = True
        for task in self._tasks - self._whole:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FINISH_S)
        for task in self._whole:
            task.cancel()
        await self.finish()

    async def _carry_out(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        attached = await self._session.call(attach=pb.Attach(name=request.source, read_only=True, view=True))
        view_id: int = attached.volume.volume_id
        config = replace(self._vfs.config, cached_records=SOURCE_RECORDS)
        source = Source(Metadata(self._session, view_id, decode_root(attached.root), config), request.source)
        lineage = self._vfs.lineage
        try:
            copied = await copy_files(source, self._vfs, request, under_way=self._under_way)
            whole = asyncio.current_task()
            assert whole is not None
            self._whole.add(whole)
        except FsError as error:
            await self._let_go(view_id)
            if self._vfs.lineage != lineage:
                raise Unavailable(f"{request.target!r} was rolled back while it was copied to: copy again") from error
            told = ERRORS.get(error.errno, InternalError)
            raise told(f"copying to {request.target} failed: {error}") from error
        except RedfsError:
            await self._let_go(view_id)
            raise
        await self._let_go(view_id)
        await self._shown(copied)
        return copied.reply

    async def _let_go(self, view_id: int) -> None:
        """Waits until everything so far is durable, then gives the view back. Raises why the mount has failed."""
        pause_s = self._vfs.config.retry_first_s
        while True:
            try:
                await self._vfs.engine.barrier()
                break
            except RedfsError as error:
                if self._vfs.failure is not None:
                    raise
                log.warning("a copy waits for its commit: %s", error)
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, self._vfs.config.retry_max_s)
        await self._session.call(detach=pb.Detach(volume_id=view_id))

    async def _shown(self, copied: Copied) -> None:
        try:
            await self._show(copied.parent, copied.name)
        except OSError as error:
            log.debug("the kernel was not told of %r: %s", copied.name, error)
