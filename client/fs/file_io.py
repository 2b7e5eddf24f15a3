"""Reading and writing the bytes of files: dirty data over stored data, read-ahead, room for writes, truncation.

A read is synchronous as far as slots and blocks are in memory. What is missing is fetched and the read looks again
from the start, because a flush or a commit may have moved things meanwhile; blocks never change, so those that were
fetched stay good.

Read-ahead: a sequential reader's window doubles up to `prefetch_max_bytes`. Readers of small files, one after another,
bring the slots of the neighbours in the folder with one call and their segment's blocks with another.

Fails with NoSpace when neither the reservation nor the bound of dirty data leaves room and flushing does not help,
with the error of failed flushes when memory for writes is short, with Corrupt for what cannot be read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from errno import EFBIG
from typing import Any, cast

from redfs.client.fs.committer import Committer
from redfs.client.fs.config import Buffer, FsConfig, Reader
from redfs.client.fs.flusher import Flusher
from redfs.client.fs.handles import Handle, MovedEnd
from redfs.client.fs.metadata import Metadata
from redfs.client.fs.space import SpaceReservation
from redfs.client.fs.write_buffer import WriteBuffer
from redfs.core.errors import Corrupt, FsError, NoSpace, NotFound, RedfsError
from redfs.core.namespace import Miss
from redfs.core.namespace import getattr as engine_getattr
from redfs.core.records import (
    MAX_FILE_BYTES,
    SLOT_BYTES,
    Inode,
    Key,
    Slot,
    generation_of,
    inode_key,
    slot_key,
)
from redfs.core.slots import resolve, slot_count, slot_range

log = logging.getLogger("redfs.fs")

READ_ROUNDS = 64
"""Looks that one read takes: each needs one fetch at most, or follows a replaced block."""
GONE_ROUNDS = 4
"""Of these, how often a block may turn out to be gone before it counts as damage."""
QUOTA_LOOK_S = 0.1
QUOTA_LOOKS = 100
"""A write that meets the quota waits so often for what is being freed: ten seconds, some millions of slots."""
SEQUENTIAL_SLACK_BYTES = 2 * 1024 * 1024
"""The kernel sends a reader's requests two at a time, so they overtake each other by this much at most."""
_ZEROS = bytes(SLOT_BYTES)


class FileIo:
    """See the module."""

    def __init__(
        self,
        metadata: Metadata,
        buffer: WriteBuffer,
        flusher: Flusher,
        committer: Committer,
        space: SpaceReservation,
        reader: Reader,
        config: FsConfig,
        *,
        clock: Callable[[], float],
        now_ns: Callable[[], int],
        folder_of: Callable[[int], int],
    ) -> None:
        self._metadata = metadata
        self._buffer = buffer
        self._flusher = flusher
        self._committer = committer
        self._space = space
        self._reader = reader
        self._config = config
        self._clock = clock
        self._now_ns = now_ns
        self._folder_of = folder_of
        self._small_before = 0
        """Folder of the small file whose data was missing last."""

    # ------------------------------------------------------------ writing

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Takes `data`, which must not change afterwards, as dirty. Waits while too much is dirty."""
        size = len(data)
        if not size:
            return 0
        if offset + size > MAX_FILE_BYTES:
            raise FsError(EFBIG)
        buffer = self._buffer
        after = buffer.charged_bytes + size
        space = self._space
        if after > self._config.dirty_bytes or after > space.granted_bytes or size > space.quota_bytes:
            await self._room(size)
        if handle.moved_end is not None:
            offset = await self._appending(handle, handle.moved_end, offset, size)
        filled = buffer.write(handle.ino, offset, data, self._now_ns(), self._clock())
        space.written(size)
        if filled:
            self._flusher.kick()
        if after > self._config.dirty_bytes // 2 and self._flusher.is_idle:
            self._flusher.relieve()
            self._committer.push()
        return size

    async def _appending(self, handle: Handle, moved: MovedEnd, offset: int, size: int) -> int:
        """Where a write belongs after a roll-back: an append goes to the end, wherever the kernel thinks that it is.

        The kernel chooses the offset of an append by the size that it remembers, and asks for no other before it.
        """
        inode = (await self._metadata.run(engine_getattr, handle.ino)).value
        file = self._buffer.files.get(handle.ino)
        end = inode.size if file is None else max(inode.size, file.end)
        if handle.appends and moved.offset in (offset, None):
            moved.offset = offset + size
            return end
        if handle.appends and offset == end:
            handle.moved_end = None  # the kernel has asked for the size since
        elif moved.offset is not None:
            moved.offset = max(moved.offset, offset + size)
        return offset

    async def _room(self, size: int) -> None:
        buffer, space, flusher = self._buffer, self._space, self._flusher
        looks = 0
        while True:
            if self._committer.failed is not None:
                raise self._committer.failed
            after = buffer.charged_bytes + size
            if after > self._config.dirty_bytes:
                if not buffer.charged_bytes:
                    return
            else:
                if after > space.granted_bytes or size > space.quota_bytes:
                    await space.ask()
                if buffer.charged_bytes + size <= space.granted_bytes and size <= space.quota_bytes:
                    return
                if not buffer.charged_bytes:
                    if size > space.quota_bytes:
                        # What was deleted here may not be committed yet, or not be freed yet.
                        if looks and not (space.freeing and looks < QUOTA_LOOKS):
                            raise NoSpace("the volume's quota is reached: delete files in it, or raise the quota")
                        if looks:
                            await asyncio.sleep(QUOTA_LOOK_S)
                        looks += 1
                        await self._committer.barrier()
                        continue
                    raise NoSpace("the pool is full: delete files or snapshots, or add disks")
            flusher.relieve()
            self._committer.push()
            if flusher.last_error is not None:
                raise flusher.last_error
            await flusher.progress()

    async def before_cut(self, ino: int, size: int) -> bool:
        """Inside `Flusher.held`: cuts dirty data at `size`. False where some of it must be flushed first.

        Data between the recorded end of the file and a new size behind it goes first, or the size would cover bytes
        that are not recorded.
        """
        await self._flusher.settle(ino)
        self._buffer.cut(ino, size)
        inode = (await self._metadata.run(engine_getattr, ino)).value
        return ino not in self._buffer.files or size <= inode.size

    # ------------------------------------------------------------ reading

    async def read(self, handle: Handle, offset: int, size: int) -> Buffer:
        """The bytes of a range; fewer at the file's end. The result must be used before the next write."""
        ino = handle.ino
        have: dict[int, Buffer] = {}
        gone = 0
        for look in range(READ_ROUNDS):
            inode = cast("Inode | None", self._metadata.peek(inode_key(ino)))
            if inode is None:
                inode = (await self._metadata.run(engine_getattr, ino)).value
            file = self._buffer.files.get(ino)
            end = inode.size if file is None else max(inode.size, file.end)
            if offset >= end:
                return b""
            length = min(size, end - offset)
            dirty = file is not None and self._buffer.has(ino, offset, length)
            if dirty:
                view = self._buffer.view(ino, offset, length)
                if view is not None:
                    return view
            if not look:
                self._read_ahead(handle, inode, offset, length)
            missing: list[int] = []
            try:
                parts = self._parts(ino, inode, offset, length, have, missing, dirty=dirty)
            except Miss as miss:
                await self._fetch_slots(ino, inode, miss)
                continue
            if not missing:
                if not dirty:
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                out = bytearray().join(parts)
                self._buffer.overlay(ino, offset, out)
                return out
            if inode.size <= self._config.small_file_bytes:
                self._reader.prefetch(missing, whole_segments=True)
            try:
                have.update(zip(missing, await self._reader.read_many(missing), strict=True))
            except NotFound as error:
                gone += 1
                if gone >= GONE_ROUNDS:
                    raise Corrupt(f"a block of inode {ino} is nowhere to be found: {error}") from error
                self._forget_slots(ino, inode, offset, length)
        raise Corrupt(f"inode {ino} could not be read at {offset}: its data keeps changing place")

    def _parts(
        self,
        ino: int,
        inode: Inode,
        offset: int,
        length: int,
        have: dict[int, Buffer],
        missing: list[int],
        *,
        dirty: bool,
    ) -> list[Buffer]:
        """The stored bytes of a range, in parts; names blocks that are not in memory in `missing`."""
        parts: list[Buffer] = []
        slots = slot_count(inode.size)
        cached = self._reader.cached
        unknown: list[Key] = []
        for number, start, part, _ in slot_range(offset, length):
            if number >= slots or (dirty and self._buffer.covers(ino, number, start, part)):
                parts.append(_ZEROS[:part])
                continue
            key = slot_key(ino, generation_of(inode.generations, number), number)
            if not self._metadata.knows(key):
                unknown.append(key)
                continue
            slot: Any = self._metadata.get(key)
            for _, extent_bytes, block, block_offset in resolve(slot or (), start, part):
                if not block:
                    parts.append(_ZEROS[:extent_bytes])
                    continue
                data = have.get(block)
                if data is None:
                    data = cached(block)
                if data is None:
                    missing.append(block)
                elif block_offset == 0 and len(data) == extent_bytes:
                    parts.append(data)
                else:
                    parts.append(memoryview(data)[block_offset : block_offset + extent_bytes])
        if unknown:
            raise Miss(keys=unknown)
        if missing:
            missing[:] = dict.fromkeys(missing)
        return parts

    def _forget_slots(self, ino: int, inode: Inode, offset: int, length: int) -> None:
        """Makes the next look ask the coordinator which blocks a range has, unless this mount just wrote them."""
        for number, _, _, _ in slot_range(offset, length):
            self._metadata.forget(slot_key(ino, generation_of(inode.generations, number), number))

    async def _fetch_slots(self, ino: int, inode: Inode, miss: Miss) -> None:
        """Fetches the slots that a read lacks, and what is likely to be read next."""
        if slot_count(inode.size) == 1 and inode.size <= self._config.small_file_bytes:
            neighbours = self._neighbours(ino)
            if neighbours:
                await self._metadata.fetch(Miss(keys=[*miss.keys, *neighbours]))
                return
        first = int.from_bytes(miss.keys[0].obj[12:], "big")
        await self._fetch_slot_page(ino, inode, first)

    async def _fetch_slot_page(self, ino: int, inode: Inode, first: int) -> None:
        generation = generation_of(inode.generations, first)
        end = min(slot_count(inode.size), first + self._config.slots_page)
        for start, _ in inode.generations:
            if start > first:
                end = min(end, start)
                break
        reply = await self._metadata.fetch_slots(ino, generation, first, max(1, end - first))
        self._reader.learn(reply.blocks, reply.segments)

    def _neighbours(self, ino: int) -> list[Key]:
        """Slot keys of small files in the same folder, where this is the second small file read there in a row."""
        folder = self._folder_of(ino)
        again = folder != 0 and folder == self._small_before
        self._small_before = folder
        if not again:
            return []
        children = self._metadata.children(folder)
        own_hash = next((h for h, child in children if child == ino), 0)
        half = self._config.small_file_window // 2
        if len(children) <= 2 * half:
            likely = [child for _, child in children]
        else:
            by_age = sorted([child for _, child in children if child > ino])[:half]
            by_hash = [child for _, child in sorted([c for c in children if c[0] > own_hash])[:half]]
            likely = [*by_age, *by_hash]
        keys: dict[Key, None] = {}
        for child in likely:
            inode = cast("Inode | None", self._metadata.peek(inode_key(child)))
            if inode is not None and inode.mode >> 12 == 8 and 0 < inode.size <= self._config.small_file_bytes:
                key = slot_key(child, generation_of(inode.generations, 0), 0)
                if child != ino and not self._metadata.knows(key):
                    keys[key] = None
        return list(keys)

    # ------------------------------------------------------------ read-ahead

    def _read_ahead(self, handle: Handle, inode: Inode, offset: int, length: int) -> None:
        """Keeps `window` bytes on the way to memory in front of a sequential reader."""
        expected = handle.next_offset
        if not expected - SEQUENTIAL_SLACK_BYTES <= offset <= expected + SEQUENTIAL_SLACK_BYTES:
            handle.next_offset = handle.ahead = offset + length
            handle.window = 0
            return
        handle.next_offset = max(expected, offset + length) if handle.window or offset else offset + length
        if inode.size <= SLOT_BYTES or (offset < expected and handle.window):
            return
        config = self._config
        ahead = max(handle.ahead, offset + length)
        if handle.window and ahead - handle.next_offset > handle.window // 2:
            return
        handle.window = min(config.prefetch_max_bytes, max(config.prefetch_first_bytes, 2 * handle.window))
        upto = min(inode.size, handle.next_offset + handle.window)
        if upto <= ahead:
            return
        handle.ahead = upto
        first, end = ahead // SLOT_BYTES, slot_count(upto)
        if self._prefetch(handle.ino, inode, first, end) or (
            handle.fetching is not None and not handle.fetching.done()
        ):
            return
        handle.fetching = asyncio.ensure_future(self._fetch_and_prefetch(handle.ino, inode, first, end))

    def _prefetch(self, ino: int, inode: Inode, first: int, end: int) -> bool:
        """Begins to fetch the blocks of slots. False, and nothing done, where a slot is not known."""
        blocks: dict[int, None] = {}
        for number in range(first, end):
            key = slot_key(ino, generation_of(inode.generations, number), number)
            if not self._metadata.knows(key):
                return False
            for piece in cast(Slot, self._metadata.peek(key) or ()):
                blocks[piece.block] = None
        if blocks:
            self._reader.prefetch(list(blocks), whole_segments=True)
        return True

    async def _fetch_and_prefetch(self, ino: int, inode: Inode, first: int, end: int) -> None:
        try:
            for _ in range(1 + (end - first) // self._config.slots_page * 2 + len(inode.generations)):
                unknown = next(
                    (
                        number
                        for number in range(first, end)
                        if not self._metadata.knows(slot_key(ino, generation_of(inode.generations, number), number))
                    ),
                    None,
                )
                if unknown is None:
                    break
                await self._fetch_slot_page(ino, inode, unknown)
            self._prefetch(ino, inode, first, end)
        except RedfsError as error:
            log.debug("read-ahead of inode %d was left out: %s", ino, error)
