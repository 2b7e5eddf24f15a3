"""Moves dirty data into the pool: freezes it in batches of a segment, stores them, and records what was stored.

Batches are picked in this order: files that somebody waits for (fsync, truncation, rename over a name), files that
are due (old, or memory is short), then full slots and closed files as soon as there is a segment's worth of them, so
that many small files travel together. Several batches are stored at once, but the batches of one file are recorded
in the order in which they were begun, and a file's slots behind its recorded end go in ascending order: so its
recorded size never covers bytes that were written and are not recorded.

A batch's rows and its blocks enter the write log as one write-set. A slot that would list more than 16 pieces is
rewritten whole: its stored bytes are read and stored again with the new ones.

Failure: what a batch held becomes dirty again, its files carry the error until a flush of them succeeds, waiters get
it, and everything is tried again after a pause. Nothing is dropped. After `fail` every waiter gets that error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from redfs.client.fs.committer import Committer
from redfs.client.fs.config import Buffer, FsConfig, Reader, Store, Stored
from redfs.client.fs.metadata import Metadata
from redfs.client.fs.write_buffer import DirtyFile, Layer, WriteBuffer
from redfs.client.fs.write_log import DataBatch, WriteLog
from redfs.core.errors import InternalError, LeaseLapsed, NotFound, RedfsError
from redfs.core.namespace import Miss, Outcome, View, WriteSet, record_data
from redfs.core.records import MAX_PIECES, SLOT_BYTES, Inode, Key, Piece, Slot, generation_of, inode_key, slot_key
from redfs.core.slots import merge_plan, overlay, slot_count

log = logging.getLogger("redfs.fs")

COMPOSE_ATTEMPTS = 4
"""Looks at a slot whose blocks are replaced while it is read; each replacement is a commit of this mount."""


class _Item(NamedTuple):
    """One frozen slot of a batch."""

    file: DirtyFile
    number: int
    layer: Layer


class _Block(NamedTuple):
    """What is stored of an item: one block, and how the slot is made up with it."""

    data: Buffer
    pieces: list[tuple[int, int, int]]
    """(offset in the slot, length, offset in the block)."""
    whole: bool
    """The pieces are the entire slot: nothing of the old one shows through."""


class _Batch:
    """Frozen slots that are stored together."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.bytes = 0
        self.after: set[_Batch] = set()
        """Batches of the same files that must be recorded first."""
        self.failed: RedfsError | None = None
        self.done = asyncio.Event()


class Flusher:
    """See the module."""

    def __init__(
        self,
        metadata: Metadata,
        buffer: WriteBuffer,
        write_log: WriteLog,
        committer: Committer,
        store: Store,
        reader: Reader,
        config: FsConfig,
        *,
        clock: Callable[[], float],
        on_failed: Callable[[RedfsError], None],
    ) -> None:
        self.last_error: RedfsError | None = None
        """Why the last batch failed; None once one succeeded."""
        self.failed: RedfsError | None = None
        self._metadata = metadata
        self._buffer = buffer
        self._log = write_log
        self._committer = committer
        self._store = store
        self._reader = reader
        self._config = config
        self._clock = clock
        self._on_failed = on_failed
        self._urgent: dict[int, DirtyFile] = {}
        self._due: dict[int, DirtyFile] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_batch: dict[int, _Batch] = {}
        self._progress: list[asyncio.Future[None]] = []
        self._retry_at_s = 0.0
        self._pause_s = config.retry_first_s

    # ------------------------------------------------------------ what the file system calls

    def kick(self) -> None:
        """After writes and closes: begins what is worth it."""
        if self._buffer.ready_bytes >= self._config.batch_bytes or len(self._buffer.ready) >= self._config.batch_blocks:
            self._pump()

    def tick(self) -> None:
        """From time to time: begins what is old, and tries again what failed."""
        now_s = self._clock()
        for file in self._buffer.files.values():
            if file.is_active and now_s - file.since_s >= self._config.flush_age_s:
                self._due[file.ino] = file
        self._pump()

    @property
    def is_idle(self) -> bool:
        """Whether no batch is under way."""
        return not self._tasks

    def relieve(self) -> None:
        """Memory is short: everything is due, in the order in which it was first written."""
        for file in self._buffer.files.values():
            if file.is_active:
                self._due[file.ino] = file
        self._pump()

    async def flush(self, ino: int) -> None:
        """Returns when all data written to the inode so far is recorded in the write log. Raises why it failed."""
        file = self._buffer.files.get(ino)
        if file is None:
            return
        tick = self._buffer.tick
        while file.dirty_since(tick):
            if self.failed is not None:
                raise self.failed
            if file.is_active:
                self._urgent[ino] = file
            file.error = None
            self._pump(now=True)
            await self.progress()
            if file.error is not None:
                self._urgent.pop(ino, None)
                raise file.error

    async def flush_all(self) -> None:
        """Returns when all data written so far is recorded. Raises the first failure after trying everything."""
        files = list(self._buffer.files.values())
        self._urgent.update((file.ino, file) for file in files if file.is_active)
        results = await asyncio.gather(*[self.flush(file.ino) for file in files], return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    @contextmanager
    def held(self, ino: int) -> Iterator[None]:
        """While inside, no flush of the inode begins."""
        file = self._buffer.files.get(ino)
        if file is None:
            yield
            return
        file.held += 1
        try:
            yield
        finally:
            file.held -= 1
            if file.is_active:
                self._due[ino] = file
            self._wake()

    async def settle(self, ino: int) -> None:
        """Waits until no flush of the inode is under way. Hold the file meanwhile, or another begins."""
        file = self._buffer.files.get(ino)
        while file is not None and file.is_frozen:
            if self.failed is not None:
                raise self.failed
            await self.progress()

    async def progress(self) -> None:
        """Waits until some batch has ended, well or not, or a commit gave room."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._progress.append(waiter)
        await waiter

    def fail(self, error: RedfsError) -> None:
        """Nothing can be stored any more: everybody gets the error."""
        if self.failed is None:
            self.failed = self.last_error = error
        self._wake()

    async def stop(self) -> None:
        """Ends the batches under way, whatever is left."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------ picking

    def _pump(self, *, now: bool = False) -> None:
        """Begins batches while there is reason to and room for them."""
        if self.failed is not None or (not now and self._clock() < self._retry_at_s):
            return
        while len(self._tasks) < self._config.batches_in_flight:
            batch = self._pick()
            if not batch.items:
                return
            task = asyncio.create_task(self._carry_out(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a flush broke off", exc_info=error)
            self.fail(InternalError(f"a flush broke off: {error!r}"))
            self._on_failed(self.failed or InternalError(repr(error)))
        self._pump()
        self._wake()

    def _wake(self) -> None:
        waiters, self._progress = self._progress, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _pick(self) -> _Batch:
        batch = _Batch()
        for files in (self._urgent, self._due):
            for ino, file in list(files.items()):
                if not self._take(batch, file, everything=True):
                    return batch
                del files[ino]
            if batch.items and files is self._urgent:
                return batch  # somebody waits: nothing else is stored along
        buffer = self._buffer
        worth = buffer.ready_bytes >= self._config.batch_bytes or len(buffer.ready) >= self._config.batch_blocks
        if worth or batch.items:
            for file in list(buffer.ready.values()):
                if not self._take(batch, file, everything=file.full == 0):
                    return batch
                if not file.full:
                    buffer.unready(file)
        return batch

    def _take(self, batch: _Batch, file: DirtyFile, *, everything: bool) -> bool:
        """Freezes what may go of a file. False when the batch is full and the file may have more."""
        if file.held or not file.slots:
            return True
        inode = cast("Inode | None", self._metadata.peek(inode_key(file.ino)))
        end_slot = (inode.size if inode is not None else 0) // SLOT_BYTES
        numbers = sorted(file.slots)
        last_full = -1
        if not everything:
            for number in reversed(numbers):
                active = file.slots[number].active
                if active is not None and active.bytes == SLOT_BYTES:
                    last_full = number
                    break
        for number in numbers:
            slot = file.slots[number]
            active = slot.active
            if active is None:
                continue
            if slot.frozen is not None:
                if number >= end_slot:
                    return True  # what lies behind must wait until the file is recorded up to here
                continue
            if not everything:
                if number > last_full:
                    return True
                if active.bytes < SLOT_BYTES and number < end_slot:
                    continue
            if batch.bytes + active.bytes > self._config.batch_bytes or len(batch.items) >= self._config.batch_blocks:
                return False
            before = self._last_batch.get(file.ino)
            if before is not None and before is not batch:
                batch.after.add(before)
            self._last_batch[file.ino] = batch
            batch.items.append(_Item(file, number, self._buffer.freeze(file, number, self._clock())))
            batch.bytes += active.bytes
        return True

    # ------------------------------------------------------------ storing and recording

    async def _carry_out(self, batch: _Batch) -> None:
        left = list(batch.items)
        stored: Stored | None = None
        try:
            await self._fetch_slots(batch)
            while left:
                items, blocks = await self._compose_segment(left)
                stored = await self._store.store([block.data for block in blocks])
                for before in batch.after:
                    await before.done.wait()
                    if before.failed is not None:
                        raise before.failed
                await self._record(items, blocks, stored)
                stored = None
                del left[: len(items)]
        except RedfsError as error:
            await self._give_back(batch, left, error, stored)
        finally:
            batch.after.clear()
            batch.done.set()
            for item in batch.items:
                if self._last_batch.get(item.file.ino) is batch:
                    del self._last_batch[item.file.ino]

    async def _compose_segment(self, items: list[_Item]) -> tuple[list[_Item], list[_Block]]:
        """The first items and their blocks, as many as go into a segment: slots that are merged outgrow the batch."""
        blocks: list[_Block | None] = []
        merged: list[int] = []
        room = self._config.batch_bytes
        for item in items:
            block = self._compose_plain(item)
            room -= SLOT_BYTES if block is None else len(block.data)
            if blocks and room < 0:
                break
            if block is None:
                merged.append(len(blocks))
            blocks.append(block)
        found = await asyncio.gather(*[self._compose_merged(items[index]) for index in merged])
        for index, block in zip(merged, found, strict=True):
            blocks[index] = block
        return items[: len(blocks)], [block for block in blocks if block is not None]

    async def _fetch_slots(self, batch: _Batch) -> None:
        """Fetches the records of all slots that are written in part, together."""
        for _ in range(2):  # inodes, then slots
            keys: list[Key] = []
            for file, number, layer in batch.items:
                if layer.bytes < SLOT_BYTES:
                    try:
                        _stored_slot(self._metadata, file.ino, number)
                    except Miss as miss:
                        keys += miss.keys
            if not keys:
                return
            await self._metadata.fetch(Miss(keys=dict.fromkeys(keys)))

    def _compose_plain(self, item: _Item) -> _Block | None:
        """The block of an item that is stored as it was written; None where the slot must be merged or is not known."""
        layer = item.layer
        if layer.bytes == SLOT_BYTES:
            return _Block(layer.joined(), [(0, SLOT_BYTES, 0)], True)
        try:
            old = _stored_slot(self._metadata, item.file.ino, item.number).value
        except Miss:
            return None
        pieces = _pieces(layer)
        if not old and len(pieces) <= MAX_PIECES:
            return _Block(layer.joined(), pieces, True)
        if len(_with_pieces(old, pieces, 1 << 62)) <= MAX_PIECES:
            return _Block(layer.joined(), pieces, False)
        return None

    async def _compose_merged(self, item: _Item) -> _Block:
        """The block of an item whose slot is rewritten whole, if it still must be."""
        for _ in range(COMPOSE_ATTEMPTS - 1):
            try:
                return await self._compose_now(item)
            except NotFound:
                # A block of the old slot was replaced by another copy while it was read: look again.
                continue
        return await self._compose_now(item)

    async def _compose_now(self, item: _Item) -> _Block:
        layer = item.layer
        old = (await self._metadata.run(_stored_slot, item.file.ino, item.number)).value
        block = self._compose_plain(item)
        if block is not None:
            return block
        plan = merge_plan(_with_pieces(old, _pieces(layer), 1 << 62))
        data = bytearray(plan.length)
        extents = [e for e in merge_plan(old).extents if e.block]
        for extent, stored in zip(extents, await self._reader.read_many([e.block for e in extents]), strict=True):
            to = extent.offset - plan.offset
            part = memoryview(stored)[extent.block_offset : extent.block_offset + extent.length]
            data[to : to + extent.length] = part
        layer.read_into(data, 0, plan.offset, plan.length)
        return _Block(data, [(plan.offset, plan.length, 0)], True)

    async def _record(self, items: list[_Item], blocks: list[_Block], stored: Stored) -> None:
        """Puts the items into the write log, as one write-set with their blocks."""
        if len(stored.refs) != len(blocks):
            raise InternalError(f"{len(blocks)} blocks were stored, {len(stored.refs)} came back")
        if not self._committer.has_room:
            await self._committer.room()
        by_file: dict[int, list[int]] = {}
        for index, item in enumerate(items):
            by_file.setdefault(item.file.ino, []).append(index)

        def operation(view: View) -> Outcome[None]:
            writes: WriteSet = {}
            for ino, indexes in by_file.items():
                file = items[indexes[0]].file
                if file.orphaned:
                    continue
                slots: dict[int, Slot] = {}
                size = 0
                for index in indexes:
                    item, block = items[index], blocks[index]
                    old = () if block.whole else _stored_slot(view, ino, item.number).value
                    slots[item.number] = _with_pieces(old, block.pieces, stored.refs[index][0])
                    size = max(size, item.number * SLOT_BYTES + item.layer.end)
                inode = cast("Inode | None", view.get(inode_key(ino)))
                times = file.mtime_ns
                changed = None if times is None or inode is None else max(times, inode.ctime_ns)
                writes.update(record_data(view, ino, slots, size, times, changed).writes)
            return Outcome(None, writes)

        outcome = await self._metadata.run(operation)
        self._reader.learn_stored(stored.blocks, stored.segments)
        charge = sum([item.layer.charge for item in items])

        def released() -> None:
            self._buffer.charged_bytes -= charge
            self._wake()

        self._log.append(outcome.writes, DataBatch(stored, [block.data for block in blocks], released))
        for item in items:
            self._buffer.recorded(item.file, item.number)
        for indexes in by_file.values():
            file = items[indexes[0]].file
            if not file.is_active and not file.is_frozen:
                file.mtime_ns = None
                file.error = None
            self._buffer.forget_if_clean(file)
        self.last_error = None
        self._pause_s = self._config.retry_first_s
        self._committer.appended()

    async def _give_back(self, batch: _Batch, left: list[_Item], error: RedfsError, stored: Stored | None) -> None:
        for item in left:
            self._buffer.returned(item.file, item.number)
            item.file.error = error
            self._due[item.file.ino] = item.file
        batch.failed = error
        self.last_error = error
        self._retry_at_s = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._config.retry_max_s)
        if isinstance(error, LeaseLapsed):
            self.fail(error)
            return
        log.warning("a flush of %d slots failed and is tried again: %s", len(left), error)
        if stored is not None:
            try:
                await self._store.abandon(stored)
            except RedfsError as failure:
                log.warning("segments of the failed flush stay until the session ends: %s", failure)


def _stored_slot(view: View, ino: int, number: int) -> Outcome[Slot]:
    """The slot as it is recorded; nothing is ever stored behind a file's size, so that needs no look."""
    inode = cast("Inode | None", view.get(inode_key(ino)))
    if inode is None or number >= slot_count(inode.size):
        return Outcome((), {})
    record: Any = view.get(slot_key(ino, generation_of(inode.generations, number), number))
    return Outcome(record or (), {})


def _pieces(layer: Layer) -> list[tuple[int, int, int]]:
    """(offset in the slot, length, offset in the block) of a layer's ranges, stored one after another as one block."""
    pieces: list[tuple[int, int, int]] = []
    at = 0
    for start, length in layer.ranges():
        pieces.append((start, length, at))
        at += length
    return pieces


def _with_pieces(slot: Slot, pieces: list[tuple[int, int, int]], block: int) -> Slot:
    for offset, length, block_offset in pieces:
        slot = overlay(slot, Piece(offset, length, block, block_offset))
    return slot
