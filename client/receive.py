"""`redfs receive`: makes a volume, or its next snapshot, of a stream that `redfs send` wrote.

A whole stream becomes a new volume. Until its end it is called NAME.receiving; then the snapshot is made, which carries
the stream's id as its origin, and both get their names. An incremental stream goes on from the snapshot of NAME whose
origin is the stream's base: the volume must be what that snapshot is, and is rolled back to it where the stream turns
out to be cut or damaged, so nothing of it stays. The volume is held like by a mount meanwhile.

Data is stored as new data is: deduplicated, compressed and protected as the receiving volume says. Groups of the stream
are stored a few at a time and committed in order; memory has a bound.

Raises WrongFormat and Corrupt (core/send_stream.py), AlreadyExists, NotFound, NotAllowed, Busy, and what storing
raises. What a receiver that was killed leaves: NAME.receiving, which the next one removes; or a volume that differs
from the base, which `force` rolls back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

from redfs.client.api import Pool
from redfs.client.background_loop import run
from redfs.client.data import codec
from redfs.client.data.cache import BlockCache
from redfs.client.data.config import DataConfig
from redfs.client.data.store import BlockStore, StoredBatch
from redfs.client.node_pool import NodePool
from redfs.client.session import CoordinatorSession
from redfs.core.errors import (
    AlreadyExists,
    Busy,
    CommitRefused,
    Corrupt,
    InvalidArgument,
    NotAllowed,
    NotFound,
    RedfsError,
    TooFewNodes,
    Unavailable,
    WrongFormat,
)
from redfs.core.namespace import slot_is_dead
from redfs.core.records import (
    Inode,
    Kind,
    decode,
    decode_inode,
    decode_slot,
    encode_slot,
    inode_key,
    object_ino,
    split_slot_object,
)
from redfs.core.send_stream import (
    BLOCK_WINDOW,
    MAX_GROUP_PLAIN_BYTES,
    Header,
    Row,
    SentBlock,
    StreamReader,
    Totals,
)
from redfs.core.volume_tree import MAX_NAME_CHARS, check_volume_name, split_snapshot_name
from redfs.proto.gen import cluster_pb2 as pb

GROUPS_AHEAD = 4
"""Groups of up to 8 MiB that are stored while one is committed."""
ROWS_PAGE = 4096
STORE_ATTEMPTS = 3
"""Times that the data of one commit is stored: what it counts on is gone only where somebody deletes it just now."""
SUFFIX = ".receiving"
MARK = "incomplete: a stream is being received into it"

Progress = Callable[[int], None]
"""Called with the plain bytes of file data that went by so far."""
Buffer = bytes | memoryview


class Received(NamedTuple):
    """What became of a stream."""

    header: Header
    totals: Totals
    snapshot: str
    """Full name of the snapshot that was made."""


def receive(
    pool: str, name: str, file: BinaryIO, *, force: bool = False, progress: Progress = lambda _: None
) -> Received:
    """Reads a stream from `file` into the pool as the volume `name`, or as its next snapshot. Blocks.

    `force`: an incremental stream is received also where the volume was changed since the base; those changes are lost.
    """
    stream = StreamReader(_reading(file))
    split_snapshot_name(f"{name}@{stream.header.snapshot}")
    with Pool.connect(pool) as api:
        if stream.header.base_id:
            return _receive_changes(api, pool, name, stream, force, progress)
        return _receive_whole(api, pool, name, stream, progress)


def _reading(file: BinaryIO) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        """Exactly so many bytes, fewer at the end of the file."""
        parts = []
        while count:
            try:
                part = file.read(count)
            except OSError as error:
                raise Unavailable(f"the stream cannot be read: {error.strerror}") from error
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return read


def _receive_whole(api: Pool, pool: str, name: str, stream: StreamReader, progress: Progress) -> Received:
    header = stream.header
    check_volume_name(name)
    if len(name) + len(SUFFIX) > MAX_NAME_CHARS or name.endswith(SUFFIX):
        raise InvalidArgument(
            f"the name of a received volume has at most {MAX_NAME_CHARS - len(SUFFIX)} characters and does not end in "
            f"{SUFFIX}"
        )
    if _find(api, name) is not None:
        raise AlreadyExists(f"{name!r} exists already: receive into another name, or delete it first")
    making = name + SUFFIX
    _remove_left_over(api, making, header)
    _create(api, making, header)
    try:
        totals = run(_receive(pool, making, stream, False, progress))
        api.create_snapshot(f"{making}@{header.snapshot}", origin=header.stream_id)
        for made in (f"{making}@{header.snapshot}", making):
            api.set_volume(made, description=header.description)
        api.rename_volume(making, name)
    except BaseException:
        with contextlib.suppress(RedfsError):
            _delete_with_snapshots(api, making, force=True)
        raise
    return Received(header, totals, f"{name}@{header.snapshot}")


def _find(api: Pool, name: str) -> pb.Volume | None:
    try:
        return api.volume(name)
    except NotFound:
        return None


def _create(api: Pool, name: str, header: Header) -> None:
    """With the protection that it had, or where the pool has too few nodes for that, the pool's own."""
    for protection in (header.protection, ""):
        try:
            api.create_volume(
                name, protection, description=MARK, compression=header.compression, hash_seed=header.hash_seed
            )
        except TooFewNodes:
            if not protection:
                raise
        else:
            return


def _remove_left_over(api: Pool, making: str, header: Header) -> None:
    """What a receiver that was killed has left. Busy where one is at work."""
    left = _find(api, making)
    if left is None:
        return
    whole = any(v.origin == header.stream_id for v in api.volumes() if v.parent_id == left.volume_id)
    if left.description != MARK and not whole:
        raise AlreadyExists(f"{making!r} exists and was not left by a receive: rename or delete it first")
    try:
        _delete_with_snapshots(api, making, force=False)
    except Busy as error:
        raise Busy(f"{making!r} is being received just now: wait for its end ({error})") from None


def _delete_with_snapshots(api: Pool, name: str, *, force: bool) -> None:
    """`force`: also where a session that is alive has it."""
    volume = api.volume(name)
    for child in [v for v in api.volumes() if v.parent_id == volume.volume_id and v.kind == "snapshot"]:
        if child.state == "ok":
            api.delete_volume(child.name, force=force)
    api.delete_volume(name, force=force)


def _receive_changes(
    api: Pool, pool: str, name: str, stream: StreamReader, force: bool, progress: Progress
) -> Received:
    header = stream.header
    volume = api.volume(name)
    if volume.kind != "live":
        raise InvalidArgument(f"{name!r} is no volume that could go on: name the volume, not a snapshot")
    snapshots = [
        v for v in api.volumes() if v.kind == "snapshot" and v.state == "ok" and v.parent_id == volume.volume_id
    ]
    base = next((v for v in snapshots if v.origin == header.base_id), None)
    if any(v.origin == header.stream_id for v in snapshots):
        raise AlreadyExists(f"{name!r} has received {header.node} already")
    if base is None:
        raise NotFound(
            f"{name!r} has no snapshot that was received from what this stream goes on from: send that one first, or "
            "all of it"
        )
    made = f"{name}@{header.snapshot}"
    if any(v.name == made for v in snapshots):
        raise AlreadyExists(f"{made!r} exists already: rename or delete it first")
    if volume.mounts:
        raise Busy(f"{name!r} is mounted by {volume.mounts[0]}: unmount it first")
    if run(_differs(pool, name, base.name)):
        if not force:
            raise NotAllowed(
                f"{name!r} was changed since {base.name}: roll it back, or let --force do so and lose the changes"
            )
        api.roll_back(base.name, discard=True)
    try:
        totals = run(_receive(pool, name, stream, True, progress))
        api.create_snapshot(made, origin=header.stream_id)
    except BaseException:
        with contextlib.suppress(RedfsError):
            api.roll_back(base.name, discard=True)
        raise
    return Received(header, totals, made)


async def _open(pool: str, purpose: str) -> CoordinatorSession:
    return await CoordinatorSession.open(pool, f"{socket.gethostname()}:{os.getpid()}:{purpose}")


async def _differs(pool: str, name: str, base: str) -> bool:
    """Whether any record of the volume is another one than in its snapshot."""
    session = await _open(pool, f"receive {name}")
    try:
        head = await session.call(attach=pb.Attach(name=name, view=True))
        since = await session.call(attach=pb.Attach(name=base, view=True))
        cursor, complete = b"", False
        while not complete:
            scan = pb.ScanRows(
                volume_id=head.volume.volume_id, since=since.volume.volume_id, start=cursor, limit=ROWS_PAGE
            )
            try:
                reply = await session.call(scan_rows=scan)
            except InvalidArgument:
                return True  # rolled back to an older snapshot: it does not go on from the base at all
            if reply.rows:
                return True
            cursor, complete = reply.next, reply.complete
        return False
    finally:
        await session.close()


async def _receive(pool: str, name: str, stream: StreamReader, has_records: bool, progress: Progress) -> Totals:
    session = await _open(pool, f"receive {name}")
    nodes = NodePool(session, DataConfig())
    try:
        attached = await session.call(attach=pb.Attach(name=name, alone=True))
        store = BlockStore(session, attached.volume, nodes, BlockCache(0))
        receiver = _Receiver(session, attached, store, stream, has_records, progress)
        try:
            return await receiver.run()
        finally:
            await receiver.close()
            await store.close()
    finally:
        await nodes.close()
        await session.close()


class _Group(NamedTuple):
    """Blocks that are being stored, and the records that go into the commit with them."""

    rows: list[Row]
    sent: list[int]
    """The sender's block ids."""
    plain: list[Buffer]
    stored: asyncio.Task[StoredBatch] | None


class _Receiver:
    """One stream into one volume."""

    def __init__(
        self,
        session: CoordinatorSession,
        attached: pb.AttachReply,
        store: BlockStore,
        stream: StreamReader,
        has_records: bool,
        progress: Progress,
    ) -> None:
        self._session = session
        self._attached = attached
        self._volume_id = attached.volume.volume_id
        self._store = store
        self._stream = stream
        self._has_records = has_records
        self._progress = progress
        self._number = session.last_commit
        self._blocks: dict[int, int] = {}
        """Sender's block -> own block, the latest BLOCK_WINDOW of them, oldest first."""
        self._groups: deque[_Group] = deque()
        self._highest_ino = 0
        self._done_bytes = 0
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="redfs-receive")
        self._checking = ThreadPoolExecutor(DataConfig().workers, thread_name_prefix="redfs-unpack")

    async def run(self) -> Totals:
        sent: list[int] = []
        plain: list[Buffer] = []
        plain_bytes = 0
        while True:
            frame = await self._in_thread(self._reading, self._stream.next)
            if isinstance(frame, Totals):
                if sent:
                    raise Corrupt("the stream has blocks that no record follows: send it again")
                while self._groups:
                    await self._commit_group()
                return frame
            if frame and isinstance(frame[0], SentBlock):
                sent += [block.block for block in frame]
                plain_bytes += sum(block.plain_bytes for block in frame)
                if plain_bytes > MAX_GROUP_PLAIN_BYTES:
                    raise Corrupt("the stream has more data in a group than it may: send it again")
                plain += await self._in_thread(self._checking, _unpack, frame)
            elif frame:
                for row in frame:
                    _check(row)
                task = asyncio.create_task(self._store.store(plain)) if plain else None
                self._groups.append(_Group(frame, sent, plain, task))
                sent, plain, plain_bytes = [], [], 0
                while len(self._groups) > GROUPS_AHEAD:
                    await self._commit_group()

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = [group.stored for group in self._groups if group.stored is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        for threads in (self._reading, self._checking):
            threads.shutdown(wait=True)

    @staticmethod
    async def _in_thread(threads: ThreadPoolExecutor, job: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, job, *args)

    # ------------------------------------------------------------ commits

    async def _commit_group(self) -> None:
        group = self._groups[0]
        batch = await group.stored if group.stored is not None else StoredBatch([])
        self._groups.popleft()
        await self._raise_inodes(group.rows)
        if self._has_records:
            await self._drop_dead(group.rows)
        batches = [batch]
        self._remember(group.sent, batch)
        for attempt in range(STORE_ATTEMPTS):
            try:
                reply = await self._commit(self._rows(group.rows), batches)
                break
            except CommitRefused as error:
                missing = set(error.missing_blocks)
                lost = [at for at, block in enumerate(group.sent) if self._blocks.get(block) in missing]
                if not lost or attempt + 1 == STORE_ATTEMPTS:
                    raise
                # The pool had these blocks, and they were deleted before this commit named them.
                again = await self._store.store([group.plain[at] for at in lost], dedupe=False)
                self._remember([group.sent[at] for at in lost], again)
                batches.append(again)
        substituted = {s.block: s.stored for s in reply.substitutions}
        if substituted:
            for block in group.sent:
                own = self._blocks.get(block)
                if own in substituted:
                    self._blocks[block] = substituted[own]
        self._done_bytes += sum(map(len, group.plain))
        self._progress(self._done_bytes)

    def _remember(self, sent: Sequence[int], batch: StoredBatch) -> None:
        for block, (own, _) in zip(sent, batch.refs, strict=True):
            self._blocks.pop(block, None)
            self._blocks[block] = own
        while len(self._blocks) > BLOCK_WINDOW:
            del self._blocks[next(iter(self._blocks))]

    def _rows(self, rows: Sequence[Row]) -> Iterator[pb.Row]:
        for kind, obj, value in rows:
            if kind == Kind.SLOT and value:
                try:
                    pieces = tuple([p._replace(block=self._blocks[p.block]) for p in decode_slot(value)])
                except KeyError:
                    raise Corrupt("the stream names a block that it does not hold: send it again") from None
                value = encode_slot(pieces)
            yield pb.Row(kind=kind, obj=obj, value=value)

    async def _commit(self, rows: Iterator[pb.Row], batches: Sequence[StoredBatch]) -> Any:
        commit = pb.Commit(
            volume_id=self._volume_id,
            number=self._number + 1,
            segments=[segment for batch in batches for segment in batch.segments],
            blocks=[block for batch in batches for block in batch.blocks],
            rows=rows,
            lineage=self._attached.lineage,
        )
        reply = await self._session.call(commit=commit)
        self._number += 1
        return reply

    async def _raise_inodes(self, rows: Sequence[Row]) -> None:
        """The volume's own new files must not get numbers that the stream brings."""
        highest = max((object_ino(row.obj) for row in rows if row.kind == Kind.INODE), default=0)
        if highest > self._highest_ino:
            grant = pb.GrantInodes(volume_id=self._volume_id, count=1, above=highest)
            await self._session.call(grant_inodes=grant)
            self._highest_ino = highest

    # ------------------------------------------------------------ what changed inodes leave behind

    async def _drop_dead(self, rows: Sequence[Row]) -> None:
        """Deletes the data and attributes of inodes that go, and data that was cut off, before the commit says so."""
        changed = [row for row in rows if row.kind == Kind.INODE]
        if not changed:
            return
        keys = [pb.Key(kind=row.kind, obj=row.obj) for row in changed]
        reply = await self._session.call(get_rows=pb.GetRows(volume_id=self._volume_id, keys=keys))
        for row, had in zip(changed, reply.rows, strict=True):
            if not had.value:
                continue
            old = decode_inode(had.value)
            new = decode_inode(row.value) if row.value else None
            if new is None:
                await self._delete_all(Kind.XATTR, object_ino(row.obj), None)
            if new is None or new.generations != old.generations:
                await self._delete_all(Kind.SLOT, object_ino(row.obj), new)

    async def _delete_all(self, kind: int, ino: int, inode: Inode | None) -> None:
        """All attributes of an inode, or its slots that nothing leads to any more; `inode` as it will be."""
        start, end = inode_key(ino).obj, inode_key(ino + 1).obj
        complete = False
        while not complete:
            scan = pb.ScanRows(volume_id=self._volume_id, kind=kind, start=start, end=end, limit=ROWS_PAGE)
            reply = await self._session.call(scan_rows=scan)
            complete = reply.complete
            dead = [row.obj for row in reply.rows if kind != Kind.SLOT or _is_dead(inode, row.obj)]
            if dead:
                await self._commit(iter([pb.Row(kind=kind, obj=obj) for obj in dead]), [])
            if reply.rows:
                start = reply.rows[-1].obj + b"\0"


def _is_dead(inode: Inode | None, obj: bytes) -> bool:
    _, generation, slot = split_slot_object(obj)
    return slot_is_dead(inode, generation, slot)


def _unpack(blocks: Sequence[SentBlock]) -> list[Buffer]:
    """The plain bytes, proved by their fingerprints."""
    plain = []
    for block in blocks:
        data = codec.unpack(block.stored, block.codec, block.plain_bytes, codec.checksum(block.stored))
        if codec.fingerprint(data) != block.fingerprint:
            raise Corrupt("a block of the stream is not what its fingerprint says: send it again")
        plain.append(data)
    return plain


def _check(row: Row) -> None:
    """A record must be one that this RedFS can read."""
    if row.value:
        try:
            decode(row.kind, row.value)
        except WrongFormat as error:
            raise WrongFormat(f"the stream holds a record that this RedFS does not know ({error})") from error
