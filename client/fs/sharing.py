"""How a mount goes from having its volume alone to sharing it, and back, while programs work.

- **Recall**: another host wants to write to the volume too. Nothing begins, everything is committed, the delegation and
  the list of open inodes are given back; from then on operations run at the coordinator. The order is confirmed when
  the kernel remembers nothing any more from before: its memory of names and attributes is over, the pages of open
  files are dropped. Only then is the other host let in.
- **Alone**: no other mount is left. Nothing begins, the delegation is asked for, and operations run here again.
- **Forget**: the pages of some inodes may be wrong though their times and sizes are what the kernel knows.
- **Moved**: another host has moved a folder, which the kernel may know under its old name.

One order goes after the other, also with those of a roll-back (`following.py`). What a failure leaves: before the
delegation was given back, everything as it was; after it, requests wait until the new engine works. An order that was
lost with a stream is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from stat import S_IFDIR

from redfs.client.fs.config import Session
from redfs.client.fs.following import SLACK_S, Following, Kernel
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import Busy, RedfsError
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")

QUIET_S = 5.0
"""Requests under way get this long to end before the mount becomes the only one; else it tries again later."""


class Sharing:
    """See the module. Belongs to the vfs's event loop."""

    def __init__(
        self,
        session: Session,
        vfs: Vfs,
        kernel: Kernel,
        following: Following,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._vfs = vfs
        self._kernel = kernel
        self._following = following
        self._clock = clock
        self._sleep = sleep

    async def recall(self, volume_id: int) -> None:
        """Returns when nothing is remembered here or by the kernel. Raises why not; then all is as it was."""
        vfs = self._vfs
        if volume_id != vfs.volume_id:
            return
        async with self._following.turn:
            if vfs.is_shared:
                return
            if vfs.failure is not None:
                raise vfs.failure
            log.info("'%s' is going to be shared with another host", vfs.volume_name)
            try:
                if vfs.gate.is_open and not vfs.read_only:
                    await self._kernel.write_back()
                vfs.gate.close()
                await vfs.gate.empty()
                while not vfs.is_clean:
                    await vfs.sync()
                reply = await self._session.call(
                    give_back=pb.GiveBack(volume_id=volume_id, open_inodes=vfs.open_inodes)
                )
            except BaseException:
                self._following.open_gate()
                raise
            opened = await self._go_on(reply.attached)
            switched_s = self._clock()
            self._following.open_gate()
            await self._kernel.forget(opened)
            await self._sleep(max(0.0, switched_s + self._kernel.timeout_s + SLACK_S - self._clock()))

    async def alone(self, volume_id: int) -> None:
        """Returns when the mount has the volume alone, or does not any more."""
        vfs = self._vfs
        while volume_id == vfs.volume_id and vfs.is_shared and vfs.failure is None:
            async with self._following.turn:
                if not vfs.is_shared:
                    return
                try:
                    if await self._become_exclusive():
                        return
                finally:
                    self._following.open_gate()
            await self._sleep(vfs.config.retry_first_s)

    async def _become_exclusive(self) -> bool:
        """False where requests that are under way take too long."""
        vfs = self._vfs
        vfs.gate.close()
        try:
            async with asyncio.timeout(QUIET_S):
                await vfs.gate.empty()
                while not vfs.is_clean:
                    await vfs.sync()
        except TimeoutError:
            return False
        except RedfsError as error:
            log.warning("the volume stays shared: what is held of new files could not be stored yet: %s", error)
            return False
        reply = await self._session.call(become_exclusive=pb.BecomeExclusive(volume_id=vfs.volume_id))
        if reply.attached.shared:
            return True  # others have come
        opened = await self._go_on(reply.attached)
        log.info("'%s' is not shared with other hosts any more", vfs.volume_name)
        self._kernel.rolled_back()  # its pages may be older than what the other hosts wrote last
        self._following.open_gate()
        await self._kernel.forget(opened)
        return True

    async def _go_on(self, attached: pb.AttachReply) -> list[int]:
        """The mode is another one by now: there is no way back."""
        while True:
            try:
                return await self._vfs.go_on(attached)
            except RedfsError as error:
                if self._vfs.failure is not None:
                    raise
                log.warning("requests wait: the volume cannot be read yet: %s", error)
                await self._sleep(self._vfs.config.retry_max_s)

    async def forget(self, volume_id: int, inodes: Sequence[int]) -> None:
        """Returns when the kernel has no pages of these inodes."""
        if volume_id == self._vfs.volume_id:
            await self._kernel.forget(inodes)

    def moved(self, order: pb.Moved) -> None:
        """The kernel learns where the folder is now, if it may have met it. A lost order costs little."""
        vfs = self._vfs
        if order.volume_id == vfs.volume_id and vfs.is_shared and order.ino in vfs.names.places:
            vfs.names.saw(order.ino, order.parent, order.name, S_IFDIR)
            self._kernel.moved(order.ino, vfs.names.names_to)

    async def resumed(self) -> None:
        """The stream was away, perhaps because the coordinator begins anew: it is told what is open and held here.

        First of all, since no operation on the volume is answered on any host before that.
        """
        vfs = self._vfs
        vfs.forget_remembered()
        if vfs.is_shared and vfs.failure is None:
            declared = pb.DeclareOpen(volume_id=vfs.volume_id, open_inodes=vfs.open_inodes, held_inodes=vfs.held_inodes)
            try:
                await self._session.call(declare_open=declared)
            except Busy as error:
                log.info("nothing was declared: %s", error)  # this mount is alone by now, and learns it
        await self._following.resumed()
