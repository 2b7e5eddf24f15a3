"""A mount that outlives its session: cut off for too long, it has its volume again when it can, without a remount.

The coordinator ends a session whose lease lapsed when somebody else wants the volume, or after a while. Then

1. the mount is *cut off* (`Vfs.cut_off`), at once: the gate is shut, what is under way fails, what was not committed is
   lost and named in the log, and the open handles that have to be told of it are remembered;
2. everything that was begun under the old session ends, and what belonged to it is forgotten: in another session its
   numbers are unknown, and asking for one of them would end that session too;
3. another session is begun, and the volume attached in it as it was at first. It is found by its number, whatever it
   is named by now. Somebody else may have it for as long as they like: it is asked for again after a pause;
4. the mount goes on as the volume stands now, alone or sharing it (`Vfs.go_on`). Handles of inodes that are there go
   on; the kernel drops what it remembers.

Meanwhile requests wait at the gate, and get EIO after `give_up_s`. The session may end again at any time: then all of
it is done again. Where the volume was deleted the mount ends. Unmounting does not wait for any of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from redfs.client.fs.config import Session
from redfs.client.fs.following import Following, Kernel
from redfs.client.fs.sharing import Sharing
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import InternalError, LeaseLapsed, NotFound, RedfsError
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")


class RenewableSession(Session, Protocol):
    """What is needed of `client.session.CoordinatorSession` besides."""

    def goes_on_anew(self) -> None: ...

    def ends_for_good(self) -> None: ...

    async def begin_anew(self) -> None: ...


class Reattaching:
    """See the module. Belongs to the vfs's event loop."""

    def __init__(
        self,
        session: RenewableSession,
        vfs: Vfs,
        kernel: Kernel,
        following: Following,
        sharing: Sharing,
        wanted: pb.Attach,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`wanted`: how the volume was attached."""
        self.forsake: list[Callable[[], Awaitable[None]]] = []
        """What ends and forgets all that others have of a session that ended."""
        self.resume: list[Callable[[], Awaitable[None]]] = []
        """Called when another session has the volume, before requests go on."""
        self._session = session
        self._vfs = vfs
        self._kernel = kernel
        self._following = following
        self._sharing = sharing
        self._wanted = pb.Attach()
        self._wanted.CopyFrom(wanted)
        self._wanted.volume_id = vfs.volume_id
        self._sleep = sleep
        self._work: asyncio.Task[None] | None = None
        vfs.outlives_sessions = True

    def lapsed(self) -> None:
        """The session has ended. To be called at once when it does."""
        vfs = self._vfs
        vfs.on_lapsed()
        if not vfs.is_cut_off:
            return  # the mount ended before
        self._session.goes_on_anew()
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._reattach(), name="reattach")
            self._work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Task[None]) -> None:
        if self._work is work:
            self._work = None
        if not work.cancelled() and (error := work.exception()) is not None:
            log.error("attaching the volume again broke off", exc_info=error)
            self._vfs.fail(InternalError(f"'{self._vfs.volume_name}' cannot be attached again ({error!r}): unmount it"))
            self._session.ends_for_good()

    async def stop(self) -> None:
        """The mount ends, wherever it stands."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        if self._vfs.is_cut_off:
            self._session.ends_for_good()

    # ------------------------------------------------------------ the way back

    async def _reattach(self) -> None:
        vfs = self._vfs
        while vfs.is_cut_off:
            await self._end_what_was()
            try:
                await self._session.begin_anew()
                await self._attach()
            except LeaseLapsed as error:
                log.warning("requests wait: the session ended again: %s", error)
            except NotFound:
                self._session.ends_for_good()
                vfs.gone()
                return
            except RedfsError as error:
                log.warning("requests wait: there is no session with the coordinator yet: %s", error)
            if vfs.is_cut_off:
                await self._sleep(vfs.config.retry_max_s)
        if vfs.failure is not None:
            self._session.ends_for_good()

    async def _end_what_was(self) -> None:
        """Returns when nothing is under way that was begun under the session that ended."""
        await self._following.forsake()
        await self._vfs.gate.empty()
        await self._vfs.engine.stop()
        for forsake in self.forsake:
            await forsake()

    async def _attach(self) -> None:
        """Until the volume is there again. Raises LeaseLapsed where the session ended, NotFound where it is deleted."""
        vfs = self._vfs
        async with self._following.turn:
            opened = vfs.open_inodes
            told = ""
            while True:
                try:
                    await self._go_on()
                    break
                except (LeaseLapsed, NotFound):
                    raise
                except RedfsError as error:
                    if str(error) != told:
                        log.warning("requests wait: '%s' cannot be had again yet: %s", vfs.volume_name, error)
                        told = str(error)
                    await self._sleep(vfs.config.retry_max_s)
            self._kernel.rolled_back()
            for resume in self.resume:
                await resume()
            if vfs.failure is not None:
                return  # it ended again
            log.warning("'%s' is attached again: requests go on", vfs.volume_name)
            await self._following.drop_pages(opened)
            if vfs.failure is not None:
                return
            vfs.gate.open(by_force=True)
            await self._following.forget_moved()
        if vfs.is_shared:
            await self._sharing.alone(vfs.volume_id)  # an order to that effect may have come too early

    async def _go_on(self) -> None:
        vfs = self._vfs
        reply = await self._session.call(attach=self._wanted)
        if reply.shared:
            await self._session.call(declare_open=pb.DeclareOpen(volume_id=vfs.volume_id, open_inodes=vfs.open_inodes))
        await vfs.go_on(reply)
