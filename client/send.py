"""`redfs send`: a node of the tree as a stream of bytes, whole or what differs from a snapshot that it goes on from.

The node is frozen by a view for as long as it is sent; a mounted volume is asked to flush first. Records are read page
by page, the blocks that they name a few groups ahead of the writing, so memory has a bound. What only unlinked files
that are still open, or cuts that are not cleaned up yet, keep is left out. The format is core/send_stream.py's.

Raises NotFound, InvalidArgument (a base that the node does not go on from), Unavailable where the stream cannot be
written, and what reading raises. What was written by then is no whole stream, and `receive` refuses it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from stat import S_ISREG
from typing import Any, BinaryIO, NamedTuple

from redfs.client.api import Pool
from redfs.client.background_loop import run
from redfs.client.data import codec
from redfs.client.data.cache import BlockCache
from redfs.client.data.config import MIB, DataConfig
from redfs.client.data.reader import MAX_LOCATE, BlockReader
from redfs.client.node_pool import NodePool
from redfs.client.session import CoordinatorSession
from redfs.core.errors import InternalError, InvalidArgument, NotAllowed, Unavailable
from redfs.core.namespace import slot_is_dead
from redfs.core.records import (
    OBJECT_BYTES,
    Inode,
    Kind,
    decode_inode,
    decode_root,
    decode_slot,
    inode_key,
    object_ino,
    split_slot_object,
)
from redfs.core.send_stream import (
    BLOCK_WINDOW,
    MAX_GROUP_PLAIN_BYTES,
    MAX_GROUP_RECORD_BYTES,
    MAX_GROUP_ROWS,
    Buffer,
    Header,
    Row,
    SentBlock,
    StreamWriter,
    Totals,
)
from redfs.proto.gen import cluster_pb2 as pb

GROUPS_AHEAD = 4
"""Groups of up to 8 MiB that are read while one is written."""
INODES_PAGE = 1024
"""Inodes read together, with all that belongs to them: their number bounds what is kept of them."""
ROWS_PAGE = 4096
SENT_REMEMBERED = BLOCK_WINDOW // 2
"""Blocks that are not sent again. Half of what the receiver remembers: a group's own blocks push old ones out before
its records are looked at, and there are fewer than the other half of them."""
CACHE_BYTES = 32 * MIB
"""Of the reader: blocks are used once, so this is for neighbours that one request brings."""

Progress = Callable[[int], None]
"""Called with the plain bytes of file data that went by so far."""


class _Group(NamedTuple):
    """Records and the blocks that they name first, on their way."""

    rows: list[Row]
    blocks: asyncio.Task[list[SentBlock]] | None


def send(
    pool: str, node: str, file: BinaryIO, *, base: str = "", progress: Progress = lambda _: None
) -> tuple[Header, Totals]:
    """Writes the node to `file`; with `base`, a snapshot that it goes on from, only what differs from that. Blocks."""
    with Pool.connect(pool) as api:
        sent = api.volume(node)
        if sent.kind == "zero":
            raise NotAllowed("the zero volume holds nothing to send")
        if base and api.volume(base).kind != "snapshot":
            raise InvalidArgument(f"'{base}' is no snapshot: only what is frozen can be gone on from")
        if sent.kind == "live":
            # Comparing a volume with itself asks its mount to flush, and reads nothing.
            list(api.diff(node, node))
    return run(_send(pool, sent, base, file, progress))


async def _send(pool: str, sent: pb.Volume, base: str, file: BinaryIO, progress: Progress) -> tuple[Header, Totals]:
    session = await CoordinatorSession.open(pool, f"{socket.gethostname()}:{os.getpid()}:send {sent.name}")
    nodes = NodePool(session, DataConfig())
    reader = BlockReader(session, nodes, BlockCache(CACHE_BYTES))
    try:
        view = await session.call(attach=pb.Attach(name=sent.name, view=True))
        since = await session.call(attach=pb.Attach(name=base, view=True)) if base else None
        sender = _Sender(session, reader, view, since, file, progress)
        try:
            return await sender.run()
        finally:
            await sender.close()
    finally:
        await reader.close()
        await nodes.close()
        await session.close()


def stream_id(pool_id: str, lineage: int, epoch: int) -> str:
    """What names a frozen point for good."""
    return f"{pool_id}:{lineage}:{epoch}"


class _Sender:
    """One stream."""

    def __init__(
        self,
        session: CoordinatorSession,
        reader: BlockReader,
        view: pb.AttachReply,
        since: pb.AttachReply | None,
        file: BinaryIO,
        progress: Progress,
    ) -> None:
        self._session = session
        self._reader = reader
        self._view = view
        self._since = since
        self._file = file
        self._progress = progress
        self._sent: dict[int, None] = {}
        self._done_bytes = 0
        self._groups: deque[_Group] = deque()
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="redfs-send")
        self._packing = ThreadPoolExecutor(DataConfig().workers, thread_name_prefix="redfs-pack")

    async def run(self) -> tuple[Header, Totals]:
        header = self._header()
        writer = await self._write(lambda: StreamWriter(self._put, header))
        async for rows in self._changes() if self._since else self._everything():
            async for group in self._grouped(rows):
                self._groups.append(group)
                while len(self._groups) > GROUPS_AHEAD:
                    await self._write_group(writer)
        while self._groups:
            await self._write_group(writer)
        totals = await self._write(writer.end)
        await self._write(self._file.flush)
        return header, totals

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = [group.blocks for group in self._groups if group.blocks is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for threads in (self._writing, self._packing):
            threads.shutdown(wait=True)

    def _header(self) -> Header:
        volume, pool_id = self._view.volume, self._session.pool_id
        since = self._since
        return Header(
            decode_root(self._view.root).hash_seed,
            volume.created_ns,
            pool_id,
            stream_id(pool_id, self._view.lineage, self._view.epoch),
            stream_id(pool_id, since.lineage, since.epoch) if since else "",
            volume.name,
            volume.name.partition("@")[2] or time.strftime("sent-%Y%m%d-%H%M%S", time.gmtime()),
            volume.protection,
            volume.compression,
            volume.description,
        )

    # ------------------------------------------------------------ the file

    async def _write(self, job: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._writing, job)

    def _put(self, data: Buffer) -> None:
        view = memoryview(data)
        try:
            while view:
                # An unbuffered file may take a part only.
                view = view[self._file.write(view) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unavailable(f"the stream cannot be written: {error.strerror}") from error

    async def _write_group(self, writer: StreamWriter) -> None:
        rows, task = self._groups[0]
        blocks = await task if task is not None else []
        self._groups.popleft()

        def write() -> None:
            if blocks:
                writer.blocks(blocks)
            writer.records(rows)

        await self._write(write)
        self._done_bytes += sum(block.plain_bytes for block in blocks)
        self._progress(self._done_bytes)

    # ------------------------------------------------------------ blocks

    async def _grouped(self, rows: Sequence[Row]) -> AsyncIterator[_Group]:
        """The rows in groups of bounded size, each with the blocks that are not sent yet."""
        named: dict[int, None] = {}
        for row in rows:
            if row.kind == Kind.SLOT and row.value:
                named.update(dict.fromkeys(piece.block for piece in decode_slot(row.value)))
        known = await self._locate([block for block in named if block not in self._sent])
        group: list[Row] = []
        blocks: list[pb.Block] = []
        plain_bytes = record_bytes = 0
        for row in rows:
            fresh = []
            if row.kind == Kind.SLOT and row.value:
                wanted = dict.fromkeys(piece.block for piece in decode_slot(row.value))
                unsent = [block for block in wanted if block not in self._sent]
                late = [block for block in unsent if block not in known]
                if late:
                    # Sent long ago, and pushed out while this page was worked on.
                    known.update(await self._locate(late))
                fresh = [known[block] for block in unsent]
            more = sum(block.plain_bytes for block in fresh)
            size = len(row.obj) + len(row.value)
            if group and (
                plain_bytes + more > MAX_GROUP_PLAIN_BYTES
                or record_bytes + size > MAX_GROUP_RECORD_BYTES
                or len(group) >= MAX_GROUP_ROWS
            ):
                yield self._group(group, blocks)
                group, blocks, plain_bytes, record_bytes = [], [], 0, 0
            for block in fresh:
                self._sent[block.block_id] = None
                if len(self._sent) > SENT_REMEMBERED:
                    del self._sent[next(iter(self._sent))]
            group.append(row)
            blocks += fresh
            plain_bytes += more
            record_bytes += size
        if group:
            yield self._group(group, blocks)

    def _group(self, rows: list[Row], blocks: list[pb.Block]) -> _Group:
        return _Group(rows, asyncio.create_task(self._read(blocks)) if blocks else None)

    async def _locate(self, blocks: Sequence[int]) -> dict[int, pb.Block]:
        found: dict[int, pb.Block] = {}
        for at in range(0, len(blocks), MAX_LOCATE):
            asked = blocks[at : at + MAX_LOCATE]
            reply = await self._session.call(locate_blocks=pb.LocateBlocks(block_ids=asked))
            self._reader.learn(reply.blocks, reply.segments)
            found.update((block.block_id, block) for block in reply.blocks)
        for block in blocks:
            if block not in found:
                raise InternalError(f"block {block:#x} is named by a record and not stored: run `redfs check`")
        return found

    async def _read(self, blocks: Sequence[pb.Block]) -> list[SentBlock]:
        plain = await self._reader.read_many([block.block_id for block in blocks])
        compress = self._view.volume.compression != "none"

        def pack() -> list[SentBlock]:
            packed = []
            for block, data in zip(blocks, plain, strict=True):
                used, stored = codec.encode(data, compress)
                packed.append(SentBlock(block.block_id, len(data), used, block.fingerprint, stored))
            return packed

        return await asyncio.get_running_loop().run_in_executor(self._packing, pack)

    # ------------------------------------------------------------ records

    async def _scan(self, kind: int, start: bytes, end: bytes, limit: int) -> tuple[list[Row], bytes | None]:
        """A page of records, and where to go on (None: nowhere)."""
        reply = await self._session.call(
            scan_rows=pb.ScanRows(volume_id=self._view.volume.volume_id, kind=kind, start=start, end=end, limit=limit)
        )
        rows = [Row(row.kind, row.obj, row.value) for row in reply.rows]
        return rows, None if reply.complete or not rows else rows[-1].obj + b"\0"

    async def _everything(self) -> AsyncIterator[list[Row]]:
        """Pages of all records, some inodes after another."""
        start: bytes | None = b""
        while start is not None:
            rows, start = await self._scan(Kind.INODE, start, b"", INODES_PAGE)
            if not rows:
                return
            inodes = {object_ino(row.obj): decode_inode(row.value) for row in rows}
            alive = {ino: inode for ino, inode in inodes.items() if inode.nlink}
            low, high = rows[0].obj, inode_key(object_ino(rows[-1].obj) + 1).obj
            yield [row for row in rows if object_ino(row.obj) in alive]
            for kind in (Kind.DIRENT, Kind.XATTR, Kind.SLOT):
                at: bytes | None = low
                while at is not None:
                    found, at = await self._scan(kind, at, high, ROWS_PAGE)
                    yield [row for row in found if _is_wanted(row, alive.get(object_ino(row.obj)))]

    async def _changes(self) -> AsyncIterator[list[Row]]:
        """Pages of the records that differ, by inode."""
        assert self._since is not None
        volume_id = self._view.volume.volume_id
        cursor, complete = b"", False
        while not complete:
            reply = await self._session.call(
                scan_rows=pb.ScanRows(
                    volume_id=volume_id, since=self._since.volume.volume_id, start=cursor, limit=ROWS_PAGE
                )
            )
            cursor, complete = reply.next, reply.complete
            rows = [Row(row.kind, row.obj, row.value) for row in reply.rows]
            inodes = await self._inodes(dict.fromkeys(object_ino(row.obj) for row in rows))
            wanted = []
            for row in rows:
                inode = inodes[object_ino(row.obj)]
                if row.kind == Kind.INODE and inode is None:
                    wanted.append(row._replace(value=b""))
                elif row.kind == Kind.DIRENT or _is_wanted(row, inode):
                    wanted.append(row)
            yield wanted

    async def _inodes(self, inos: dict[int, None]) -> dict[int, Inode | None]:
        """The inodes as they are sent; None for those without a name."""
        keys = [inode_key(ino) for ino in inos]
        if not keys:
            return {}
        reply = await self._session.call(
            get_rows=pb.GetRows(
                volume_id=self._view.volume.volume_id, keys=[pb.Key(kind=key.kind, obj=key.obj) for key in keys]
            )
        )
        found: dict[int, Inode | None] = {}
        for ino, row in zip(inos, reply.rows, strict=True):
            inode = decode_inode(row.value) if row.value else None
            found[ino] = inode if inode is not None and inode.nlink else None
        return found


def _is_wanted(row: Row, inode: Inode | None) -> bool:
    """Whether a record belongs to what is sent: not to an inode without a name, nor to data that was cut off."""
    if inode is None:
        return False
    if row.kind != Kind.SLOT:
        return True
    _, generation, slot = split_slot_object(row.obj[: OBJECT_BYTES[Kind.SLOT]])
    return S_ISREG(inode.mode) and not slot_is_dead(inode, generation, slot)
