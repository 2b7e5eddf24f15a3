"""Files that this host made in shared mode and holds: what is written to them stays here until somebody else looks.

The coordinator grants a hold with the creation of a file. While it lasts, what other hosts ask about the file waits
there until this one has written the data and let go; so writes, cuts, reads and attributes need no round trip, and what
has returned here is seen everywhere all the same. Files are written in batches: many small ones share a segment and one
request (`WriteHeld`), which is the end of their holds. That happens when another host asks (`returned`), at fsync and
sync, at `flush_age_s`, when a batch of closed files is worth it, and when memory or the reserved space is short.

A file stays as it is while it is being written; who wants to change it waits, and finds it let go. Changes of its
attributes by this host are made at the coordinator, and *pin* the file: it is not written before they are answered.

The time of a write is shown here, and recorded later. It is this host's, as far as the coordinator's clock may show the
same: that one showed the file's first time after it was asked for it, and before it answered.

Failure: storing waits as everything does (`patiently`); what fails then stays, with the error on its file, and is tried
again. A crash of the host loses what was not written, as it does without sharing. After `fail` all get that error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from redfs.client.fs.config import Buffer, Stored
from redfs.client.fs.local_engine import Place
from redfs.client.fs.remembered import Remembered
from redfs.client.fs.space import SpaceReservation
from redfs.core.endings import Endings
from redfs.core.errors import CommitRefused, InternalError, NotAllowed, RedfsError
from redfs.core.namespace.xattrs import xattr_flag
from redfs.core.records import SLOT_BYTES, Inode
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")

MAX_FILE_BYTES = 1 << 20
"""A larger file is written through: it has better segments to itself."""
MAX_HELD_BYTES = 32 << 20
"""Of all files together: four segments."""
MAX_HELD_FILES = 8 * 1024
"""Some 8 MiB beside the data. The coordinator grants twice as many."""
BATCH_FILES = 512
"""Written at once: some 50 ms of the coordinator's state thread. So many closed files are worth a batch."""
BATCHES_IN_FLIGHT = 4
STORE_ROUNDS = 16
"""Attempts to store one batch: each one more means that blocks that it counted on were deleted meanwhile."""


class HeldFile:
    """One file. It was empty when it was made."""

    __slots__ = (
        "asked_s", "batch", "changes", "content", "error", "ino", "inode", "is_closed", "last_ns", "made_ns",
        "mtime_ns", "pins", "since_s",
    )  # fmt: skip

    def __init__(self, ino: int, inode: Inode, asked_s: float, now_s: float) -> None:
        self.ino = ino
        self.inode = inode
        """As it is recorded, without what is held."""
        self.content = bytearray()
        self.mtime_ns: int | None = None
        """Of the last write that is not recorded; None: the recorded times count."""
        self.made_ns = inode.mtime_ns
        """What the coordinator's clock showed between `asked_s` and `since_s`."""
        self.last_ns = inode.mtime_ns
        self.asked_s, self.since_s = asked_s, now_s
        self.changes = 0
        self.is_closed = False
        self.pins = 0
        self.batch: asyncio.Task[None] | None = None
        """It is being written."""
        self.error: RedfsError | None = None

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to record."""
        return bool(self.content) or self.mtime_ns is not None

    @property
    def shown(self) -> Inode:
        """As a user sees it."""
        return self.over(self.inode)

    def over(self, inode: Inode) -> Inode:
        """The inode with what is held."""
        size, times = len(self.content), self.mtime_ns
        if times is None:
            return inode._replace(size=size)
        return inode._replace(size=size, mtime_ns=times, ctime_ns=max(times, inode.ctime_ns))


class HeldFiles:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        place: Place,
        patiently: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
        numbered: Callable[[Callable[[int, int], dict[str, Any]]], Awaitable[Any]],
        remembered: Remembered,
    ) -> None:
        """`numbered` sends a change under a number until it is answered."""
        self._place = place
        self._config = place.config
        self._clock = place.clock
        self._patiently = patiently
        self._numbered = numbered
        self._remembered = remembered
        self.space = SpaceReservation(
            place.session, place.volume_id, replace(place.config, dirty_bytes=MAX_HELD_BYTES), lambda: self.bytes
        )
        self.files: dict[int, HeldFile] = {}
        """By inode, in the order in which they were made."""
        self.bytes = 0
        self.endings = Endings()
        """Inodes whose holds ended: what was read of them just before may lack what was held."""
        self.failed: RedfsError | None = None
        self._lost: dict[int, RedfsError] = {}
        """Open inodes whose data could not be written ever, until they are closed."""
        self._ready_files = self._ready_bytes = 0
        """Of closed files that wait for a batch."""
        self._batches: set[asyncio.Task[None]] = set()
        self._progress: list[asyncio.Future[None]] = []
        self._creating = 0
        self._asked: set[int] = set()
        """Inodes that were asked back before they were known here."""
        self._retry_at_s = 0.0
        self._pause_s = self._config.retry_first_s

    # ------------------------------------------------------------ beginning and end of a hold

    @property
    def is_wanted(self) -> bool:
        """Whether a new file should be held."""
        return self.failed is None and len(self.files) < MAX_HELD_FILES and self.bytes < MAX_HELD_BYTES

    @contextmanager
    def creating(self) -> Iterator[Callable[[int, Inode], None]]:
        """While a file is being made; call what comes with its inode where the hold was granted."""
        self._creating += 1
        asked_s = self._clock()

        def made(ino: int, inode: Inode) -> None:
            if ino not in self._asked:  # else the answer was slower than the order, and it is let go already
                self.files[ino] = HeldFile(ino, inode, asked_s, self._clock())

        try:
            yield made
        finally:
            self._creating -= 1
            if not self._creating:
                self._asked.clear()

    def get(self, ino: int) -> HeldFile | None:
        """The file, if it is held."""
        return self.files.get(ino)

    def _remove(self, file: HeldFile) -> None:
        self._not_ready(file)
        self.bytes -= len(file.content)
        del self.files[file.ino]
        self.endings.note(file.ino)

    def gone(self, ino: int) -> None:
        """The inode is no more: its data is not needed. The coordinator knows."""
        file = self.files.get(ino)
        if file is not None:
            self._remove(file)

    def closed(self, ino: int) -> bool:
        """The last close. Whether the hold ends with it, as there is nothing to write."""
        self._lost.pop(ino, None)
        file = self.files.get(ino)
        if file is None or file.batch is not None:
            return False
        if not file.is_dirty or not file.inode.nlink:
            self._remove(file)
            return True
        file.is_closed = True
        self._ready_files += 1
        self._ready_bytes += len(file.content)
        if self._ready_files >= BATCH_FILES or self._ready_bytes >= self._config.batch_bytes:
            self._begin([file for file in self.files.values() if file.is_closed])
        return False

    def opened(self, ino: int) -> None:
        """It is open again."""
        file = self.files.get(ino)
        if file is not None:
            self._not_ready(file)

    def _not_ready(self, file: HeldFile) -> None:
        if file.is_closed:
            file.is_closed = False
            self._ready_files -= 1
            self._ready_bytes -= len(file.content)

    # ------------------------------------------------------------ what needs no round trip

    def shown(self, ino: int, inode: Inode) -> Inode:
        """An inode as the coordinator told it, with what is held of it."""
        file = self.files.get(ino)
        return inode if file is None else file.over(inode)

    def lacks_attribute(self, ino: int, name: bytes) -> bool:
        """Whether it is known without a round trip that an extended attribute is not set."""
        file = self.files.get(ino)
        return file is not None and not file.inode.flags & xattr_flag(name)

    def write(self, file: HeldFile, offset: int, data: Buffer) -> bool:
        """Lays bytes over the file. False where it must be let go first."""
        end = offset + len(data)
        if not self._may_become(file, max(end, len(file.content))):
            return False
        content = file.content
        if offset > len(content):
            content.extend(bytes(offset - len(content)))
        before = len(content)
        content[offset:end] = data
        self.bytes += len(content) - before
        self._touch(file)
        self.space.written(len(data))
        return True

    def cut(self, file: HeldFile, size: int) -> bool:
        """Cuts or extends the file. False where it must be let go first."""
        if not self._may_become(file, size):
            return False
        content = file.content
        before = len(content)
        if size < before:
            del content[size:]
        else:
            content.extend(bytes(size - before))
        self.bytes += size - before
        self._touch(file)
        return True

    def _may_become(self, file: HeldFile, size: int) -> bool:
        if file.batch is not None or self.failed is not None or size > MAX_FILE_BYTES:
            return False
        after = self.bytes + size - len(file.content)
        if size > len(file.content) and after > min(MAX_HELD_BYTES, self.space.granted_bytes):
            self._begin(list(self.files.values()))
            return False
        return True

    def _touch(self, file: HeldFile) -> None:
        self._not_ready(file)
        now_s = self._clock()
        earliest_ns = file.made_ns + int((now_s - file.since_s) * 1e9)
        latest_ns = file.made_ns + int((now_s - file.asked_s) * 1e9)
        now_ns = min(max(self._place.now_ns(), earliest_ns), latest_ns)
        file.mtime_ns = file.last_ns = max(now_ns, file.last_ns + 1)
        file.changes += 1

    @asynccontextmanager
    async def pinned(self, ino: int) -> AsyncIterator[HeldFile | None]:
        """While this host changes the inode at the coordinator; the file, if it is held: then it stays so."""
        while (file := self.files.get(ino)) is not None and file.batch is not None:
            await self._turn()
        if file is None:
            yield None
            return
        file.pins += 1
        try:
            yield file
        finally:
            file.pins -= 1
            self._wake()

    def changed(self, ino: int, inode: Inode) -> None:
        """An inode as it is recorded after a change of this host."""
        file = self.files.get(ino)
        if file is not None and inode.ctime_ns >= file.inode.ctime_ns:
            file.inode = inode

    # ------------------------------------------------------------ writing and letting go

    async def let_go(self, inodes: Sequence[int]) -> None:
        """Returns when these are written and not held any more. Raises why one could not be written."""
        wanted = [file for file in map(self.files.get, inodes) if file is not None]
        for file in wanted:
            file.error = None
        while True:
            wanted = [file for file in wanted if self.files.get(file.ino) is file]
            failed = [file.error for file in wanted if file.error is not None]
            if failed:
                raise failed[0]
            if not wanted:
                return
            if self.failed is not None:
                raise self.failed
            self._begin(wanted, urgent=True)
            await self._turn()

    async def flush(self) -> None:
        """Returns when everything written so far is recorded. Raises the first error, after trying everything."""
        await self.let_go([file.ino for file in self.files.values() if file.is_dirty])

    async def returned(self, inodes: Sequence[int]) -> None:
        """Another host asks about these: returns when they are let go. Raises why not."""
        unknown = [ino for ino in inodes if ino not in self.files]
        if self._creating:
            self._asked.update(unknown)
        if unknown:
            await self._tell(None, [pb.HeldFile(ino=ino) for ino in unknown])
        await self.let_go(inodes)

    def tick(self) -> None:
        """From time to time: writes what is old, and tries again what failed."""
        now_s = self._clock()
        self._begin([f for f in self.files.values() if f.is_dirty and now_s - f.since_s >= self._config.flush_age_s])

    def _begin(self, files: Sequence[HeldFile], *, urgent: bool = False) -> None:
        """Begins to write as many of the files as may be now."""
        if self.failed is not None or (not urgent and self._clock() < self._retry_at_s):
            return
        free = [file for file in files if file.batch is None and not file.pins and (urgent or file.is_dirty)]
        while free and len(self._batches) < BATCHES_IN_FLIGHT:
            batch = [free.pop(0)]
            size = len(batch[0].content)
            while free and len(batch) < BATCH_FILES and size + len(free[0].content) <= self._config.batch_bytes:
                size += len(free[0].content)
                batch.append(free.pop(0))
            self._start(batch)

    def _start(self, batch: list[HeldFile]) -> None:
        work = asyncio.create_task(self._write(batch), name="write held files")
        self._batches.add(work)
        for file in batch:
            self._not_ready(file)
            file.batch = work
        work.add_done_callback(lambda _: self._ended(work, batch))

    def _ended(self, work: asyncio.Task[None], batch: Sequence[HeldFile]) -> None:
        self._batches.discard(work)
        error: BaseException | None = asyncio.CancelledError() if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, RedfsError | asyncio.CancelledError):
            log.error("writing held files broke off", exc_info=error)
        for file in batch:
            file.batch = None
            if self.files.get(file.ino) is not file:
                continue  # its inode is gone
            if error is None:
                self._remove(file)
            elif not isinstance(error, asyncio.CancelledError):
                file.error = error if isinstance(error, RedfsError) else InternalError(f"the mount failed ({error!r})")
        if error is None:
            self._pause_s = self._config.retry_first_s
        elif isinstance(error, RedfsError) and self.failed is None:
            log.warning("data of %d new files could not be stored yet: %s", len(batch), error)
            self._retry_at_s = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, self._config.retry_max_s)
        self._wake()

    async def _write(self, batch: Sequence[HeldFile]) -> None:
        """Stores and records the files together."""
        blocks = [
            bytes(file.content[start : start + SLOT_BYTES])
            for file in batch
            for start in range(0, len(file.content), SLOT_BYTES)
        ]
        dedupe = True
        for _ in range(STORE_ROUNDS):
            stored: Stored | None = None
            if blocks:
                stored = await self._patiently(lambda: self._place.store.store(blocks, dedupe=dedupe))  # noqa: B023
            try:
                await self._record(stored, batch)
                return
            except CommitRefused as error:
                log.info("%d blocks that new files counted on are gone: storing again", len(error.missing_blocks))
                dedupe = False
                await self._abandon(stored)
            except BaseException:
                await self._abandon(stored)
                raise
        raise InternalError("blocks that new files were to hold are gone again and again")

    async def _abandon(self, stored: Stored | None) -> None:
        if stored is not None:
            await self._place.store.abandon(stored)

    async def _record(self, stored: Stored | None, batch: Sequence[HeldFile]) -> None:
        refs = iter(stored.refs if stored is not None else ())
        told = []
        for file in batch:
            told.append(pb.HeldFile(ino=file.ino, size=len(file.content), mtime_ns=file.mtime_ns))
            for _ in range(0, len(file.content), SLOT_BYTES):
                block, length = next(refs)
                told[-1].parts.add(block_id=block, bytes=length)
        try:
            await self._tell(stored, told)
        except NotAllowed as error:
            await self._abandon(stored)
            await self._lose(batch, error)

    async def _lose(self, batch: Sequence[HeldFile], error: NotAllowed) -> None:
        """The coordinator does not take the data of one of the files: others have seen it without."""
        if len(batch) > 1:
            for file in batch:
                await self._write([file])
            return
        log.error("unsaved changes of inode %d are lost: %s", batch[0].ino, error)
        self._lost[batch[0].ino] = error

    async def _tell(self, stored: Stored | None, files: Sequence[pb.HeldFile]) -> None:
        def request(number: int, answered: int) -> dict[str, Any]:
            return {
                "write_held": pb.WriteHeld(
                    volume_id=self._place.volume_id,
                    lineage=self._place.lineage,
                    number=number,
                    answered=answered,
                    segments=stored.segments if stored is not None else (),
                    blocks=stored.blocks if stored is not None else (),
                    files=files,
                )
            }

        with self._remembered.changing(file.ino for file in files):
            await self._numbered(request)

    async def _turn(self) -> None:
        """Waits until something has changed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._progress.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiting, self._progress = self._progress, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------ the end

    def error_of(self, ino: int) -> RedfsError | None:
        """Why data of the file could not be stored so far."""
        file = self.files.get(ino)
        return self._lost.get(ino) if file is None else file.error

    @property
    def dirty_inodes(self) -> list[int]:
        """Those with something to record."""
        return [file.ino for file in self.files.values() if file.is_dirty]

    def fail(self, error: RedfsError) -> None:
        """Nothing can be stored any more: everybody gets the error."""
        if self.failed is None:
            self.failed = error
        self._wake()

    async def ended(self) -> None:
        """Returns when nothing is being written."""
        while self._batches:
            await self._turn()

    async def stop(self) -> None:
        """Ends all work, whatever is left."""
        await self.space.stop()
        work = list(self._batches)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
