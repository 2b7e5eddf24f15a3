"""A mount that follows its volume when that is rolled back: held, then rebased. The mount's side of the conversation.

Order **hold** (a Flush with `hold`): lets no request begin (`gate.py`), waits for those under way, commits everything,
answers. From then on nothing that a program is told is written can be missing in the snapshot that the roll-back keeps.
A hold ends by a Rebase, or after the order's own bound by asking the coordinator for the volume's lineage: never
without knowing it, since what is accepted for the old lineage after a roll-back would be lost.

Order **rebase**: the file system goes on as the new lineage (`Vfs.rebase`), the kernel drops the pages of open files,
then requests go in again, and names and attributes that the kernel remembers time out; only then comes the answer. A
Rebase with the lineage that the mount has lets a held one go.

An order may be lost: the mount asks as well when its stream is resumed, and when a commit is refused because the volume
was rolled back. Nothing else tells it, and nothing has to: a volume is rolled back only while all its live mounts are
held, and a mount whose lease lapsed has lost it.

Failure: what the session raises while the new lineage is learned is tried again, with the gate closed; requests wait
and get EIO after `give_up_s`. When the session has ended, the file system says so itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from redfs.client.fs.config import Session
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import LeaseLapsed, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")

DROP_S = 10.0
"""For the kernel to drop pages of open files, which waits for nothing but reads and writes: it takes milliseconds."""
SLACK_S = 0.1
"""The kernel counts its timeouts in ticks, rounded up."""


class Kernel(Protocol):
    """What the kernel remembers of the mount, and how it is made to forget it."""

    timeout_s: float
    """Names and attributes are asked for again after this."""

    async def write_back(self) -> None:
        """Has it write what programs changed through shared mappings. Its requests come meanwhile."""
        ...

    def rolled_back(self) -> None:
        """From now on the first open of an inode must not keep its pages."""
        ...

    async def forget(self, inodes: Sequence[int]) -> None:
        """Drops pages and attributes of open inodes. Requests come meanwhile, and must be answered."""
        ...

    def moved(self, ino: int, path: Callable[[int], Sequence[bytes] | None]) -> None:
        """Another host has moved a folder; `path` tells where it is. Requests come of that, and must be answered."""
        ...

    async def forget_names(self, names: Sequence[tuple[int, bytes]]) -> None:
        """Drops names, each with the inode of its folder. Requests come meanwhile, and must be answered."""
        ...


class Following:
    """See the module. Belongs to the vfs's event loop."""

    def __init__(
        self,
        session: Session,
        vfs: Vfs,
        kernel: Kernel,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._vfs = vfs
        self._kernel = kernel
        self._clock = clock
        self._sleep = sleep
        self.turn = asyncio.Lock()
        """One order after the other, as they came."""
        self._number = 0
        """Of the hold that counts. A hold, and what ends one, counts up."""
        self._holding: asyncio.Task[None] | None = None
        self._promised = False
        """The coordinator was told that the mount is held: it may have rolled back since."""
        self._asking: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ orders

    async def hold(self, volume_id: int, hold_s: float) -> None:
        """Returns when nothing begins and everything is committed. Raises why not; then requests go on."""
        if volume_id != self._vfs.volume_id:
            return
        until_s = self._clock() + hold_s
        async with self.turn:
            self._number += 1
            number = self._number
            self._later(self._end_hold(number, until_s))
            self._holding = asyncio.ensure_future(self._hold())
            try:
                await asyncio.wait({self._holding})
                if self._holding.cancelled() or number != self._number:
                    raise Unavailable("the roll-back was given up before everything was committed")
                self._holding.result()
                self._promised = True
            except RedfsError:
                if number == self._number and not self._promised:
                    self._let_go()
                raise
            finally:
                self._holding.cancel()
                self._holding = None

    async def _hold(self) -> None:
        vfs = self._vfs
        if vfs.failure is not None:
            raise vfs.failure
        if vfs.gate.is_open and not vfs.read_only:
            await self._kernel.write_back()
        vfs.gate.close()
        await vfs.gate.empty()
        while not vfs.is_clean:
            await vfs.sync()

    async def rebase(self, order: pb.Rebase) -> None:
        """Returns when nothing of another lineage is shown any more."""
        if order.volume_id != self._vfs.volume_id:
            return
        if self._holding is not None:
            self._holding.cancel()
        async with self.turn:
            await self._follow(order.lineage, order.root)
            self._let_go()

    async def resumed(self) -> None:
        """The stream was away: an order may be lost."""
        if not self._vfs.is_snapshot and self._vfs.failure is None:
            reply = await self._ask()
            async with self.turn:
                await self._follow(reply.lineage, reply.root)

    def refused(self) -> None:
        """A commit was refused because the volume was rolled back: nothing goes on before the new state is known."""
        self._vfs.gate.close()
        self._number += 1
        self._later(self._end_hold(self._number, self._clock()))

    async def forsake(self) -> None:
        """The session has ended: no hold of it counts any more, and nothing is asked."""
        self._number += 1
        self._promised = False
        await self.stop()

    async def stop(self) -> None:
        """Ends what waits."""
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    # ------------------------------------------------------------ the ways on

    def _let_go(self) -> None:
        """The lineage is known to be the volume's."""
        self._number += 1
        self._promised = False
        self._vfs.gate.open()

    def open_gate(self) -> None:
        """Lets requests go on, unless the mount promised to be held."""
        if not self._promised:
            self._vfs.gate.open()

    async def _ask(self) -> pb.AttachReply:
        attach = pb.Attach(volume_id=self._vfs.volume_id, read_only=self._vfs.read_only)
        reply: pb.AttachReply = await self._session.call(attach=attach)
        return reply

    async def _end_hold(self, number: int, until_s: float) -> None:
        """When its time is over, asks how the volume stands, until there is an answer."""
        if (left_s := until_s - self._clock()) > 0:
            await self._sleep(left_s)
        while number == self._number and self._vfs.failure is None:
            try:
                reply = await self._ask()
            except LeaseLapsed as error:
                self._vfs.fail(error)
                return
            except RedfsError as error:
                log.warning("requests wait: how the volume stands after a roll-back is not known yet: %s", error)
                await self._sleep(self._vfs.config.retry_max_s)
                continue
            if number != self._number:
                return
            if self._holding is not None:
                self._holding.cancel()
            async with self.turn:
                await self._follow(reply.lineage, reply.root)
                if number == self._number:
                    log.warning("a roll-back of '%s' was given up: requests go on", self._vfs.volume_name)
                    self._let_go()
            return

    async def _follow(self, lineage: int, root: bytes) -> None:
        """Goes on as that lineage, if it is a later one: they count up, and an answer may be older than an order."""
        vfs = self._vfs
        if lineage <= vfs.lineage or vfs.failure is not None:
            return
        log.info("'%s' was rolled back: going on with the state that it has now", vfs.volume_name)
        vfs.gate.close()
        while True:
            try:
                opened = await vfs.rebase(lineage, root)
                break
            except RedfsError as error:
                if vfs.failure is not None:
                    return
                log.warning("requests wait: the state after the roll-back cannot be read yet: %s", error)
                await self._sleep(vfs.config.retry_max_s)
        self._kernel.rolled_back()
        await self.drop_pages(opened)
        self._let_go()
        switched_s = self._clock()
        await self.forget_moved()
        await self._sleep(max(0.0, switched_s + self._kernel.timeout_s + SLACK_S - self._clock()))

    async def drop_pages(self, opened: Sequence[int]) -> None:
        """With the gate closed, which stays so for all but data: equal times and sizes of another state would tell the
        kernel that the pages which it has of open files are good. Only then may it be told attributes."""
        self._vfs.gate.let_data_pass()
        try:
            async with asyncio.timeout(DROP_S):
                await self._kernel.forget(opened)
        except TimeoutError:
            log.error("the kernel does not drop the pages of open files: they may show old data for a moment")

    async def forget_moved(self) -> None:
        """Has the kernel forget where folders were that are elsewhere now: else they may seem stale for a while."""
        try:
            moved = await self._vfs.moved_folders()
        except RedfsError as error:
            log.warning("folders that the roll-back moved may give ESTALE while others are renamed: %s", error)
            return
        if moved:
            await self._kernel.forget_names(moved)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("following a roll-back broke off", exc_info=error)
