"""A coordinator, a block store and a reader in plain memory, as strict about the rules as the real ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from redfs.client.fs.config import Buffer, FsConfig
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import CommitRefused, InvalidArgument, LeaseLapsed, NotFound, RedfsError, RolledBack
from redfs.core.ids import block_id
from redfs.core.namespace import Context, MemoryView, make_root
from redfs.core.records import (
    SLOT_BYTES,
    Inode,
    Key,
    Kind,
    Slot,
    decode,
    dirent_key,
    encode,
    encode_root,
    generation_of,
    inode_key,
    slot_key,
    split_dirent_object,
)
from redfs.core.slots import check_slot, resolve, slot_range
from redfs.proto.gen import cluster_pb2 as pb

VOLUME_ID = 7
VOLUME_NAME = "photos"
SEED = 42


class FakeCoordinator:
    """The committed state of one volume: records, and the plain bytes of referenced blocks."""

    def __init__(self, *, hash_seed: int = SEED, first_segment: int = 1) -> None:
        self.view = MemoryView(make_root(1, hash_seed=hash_seed, family=1))
        self.blocks: dict[int, bytes] = {}
        self.nodes: dict[str, MemoryView] = {}
        """Other nodes of the tree, by name: they never change."""
        self.views: dict[int, MemoryView] = {}
        """What sessions hold frozen, by the views' numbers."""
        self.next_segment = first_segment
        self.next_inode = 2
        self.space_bytes = 1 << 40
        self.quota_bytes = 0
        self.dedupe_at_commit = False
        self.calls: Counter[str] = Counter()
        self.lineage = 1

    def attached(self, *, read_only: bool = False, snapshot: bool = False) -> pb.AttachReply:
        root: Any = self.view.records[Key(Kind.ROOT, bytes(8))]
        return pb.AttachReply(
            volume=pb.Volume(volume_id=VOLUME_ID, name=VOLUME_NAME, protection="single"),
            epoch=5 if snapshot else 0,
            lineage=self.lineage,
            root=encode_root(root),
            exclusive=not (read_only or snapshot),
        )

    def keep(self) -> MemoryView:
        """A snapshot of the volume as it is committed now, which keeps its blocks."""
        frozen = self.nodes[f"{VOLUME_NAME}@s{len(self.nodes)}"] = self.freeze()
        return frozen

    def roll_back(self, snapshot: MemoryView) -> pb.Rebase:
        """The volume is what the snapshot is; the order that tells its mounts."""
        self.lineage += 1
        self.view = MemoryView(snapshot.records)
        return self.let_go()

    def let_go(self) -> pb.Rebase:
        """The order that tells mounts how the volume stands."""
        root: Any = self.view.records[Key(Kind.ROOT, bytes(8))]
        return pb.Rebase(rebase_id=1, volume_id=VOLUME_ID, lineage=self.lineage, root=encode_root(root))

    def freeze(self) -> MemoryView:
        """The volume as it is committed now."""
        return MemoryView(dict(self.view.records))

    def add_node(self, name: str, other: FakeCoordinator) -> None:
        """What another coordinator's volume holds becomes a node of this one's tree; block ids must not meet."""
        self.nodes[name] = other.freeze()
        self.blocks.update(other.blocks)

    def logical_bytes(self) -> int:
        """What the volume's slots refer to."""
        slots = [cast(Slot, record) for key, record in self.view.records.items() if key.kind == Kind.SLOT]
        return sum(piece.length for slot in slots for piece in slot)

    def content(self, ino: int) -> bytes:
        """A file's committed bytes."""
        inode = cast(Inode, self.view.records[inode_key(ino)])
        out = bytearray()
        for number, start, length, _ in slot_range(0, inode.size):
            key = slot_key(ino, generation_of(inode.generations, number), number)
            for extent in resolve(cast(Slot, self.view.records.get(key, ())), start, length):
                if extent.block:
                    out += self.blocks[extent.block][extent.block_offset : extent.block_offset + extent.length]
                else:
                    out += bytes(extent.length)
        return bytes(out)

    def tree(self, ino: int = 1, path: str = "") -> dict[str, int]:
        """Path -> inode of everything committed."""
        out: dict[str, int] = {}
        for _, bucket in self.view.folder(ino, None, 1 << 30):
            for entry in bucket:
                name = f"{path}/{entry.name.decode()}"
                out[name] = entry.ino
                if entry.file_type == 4:
                    out.update(self.tree(entry.ino, name))
        return out

    def apply(self, commit: pb.Commit, plain: dict[int, bytes]) -> list[tuple[int, int]]:
        """Validates and applies a commit; returns its substitutions."""
        new = {b.block_id for b in commit.blocks}
        written: dict[Key, Any] = {}
        missing: set[int] = set()
        for row in commit.rows:
            key = Key(row.kind, row.obj)
            assert key not in written, "rows are net changes"
            record = decode(row.kind, row.value) if row.value else None
            written[key] = record
            if row.kind == Kind.SLOT and record:
                check_slot(cast(Slot, record))
                missing |= {p.block for p in cast(Slot, record) if p.block not in new and p.block not in self.blocks}
        if missing:
            raise CommitRefused("blocks are gone", sorted(missing))
        stored: dict[int, int] = {}
        if self.dedupe_at_commit:
            known = {data: block for block, data in self.blocks.items()}
            stored = {block: known[plain[block]] for block in new if plain[block] in known}
        for key, record in written.items():
            if key.kind == Kind.SLOT and record:
                written[key] = tuple([p._replace(block=stored.get(p.block, p.block)) for p in record])
        for block in new - stored.keys():
            self.blocks[block] = plain[block]
        self.view.apply(written)
        self.collect()
        return list(stored.items())

    def collect(self) -> None:
        """Drops blocks that nothing refers to."""
        live = {
            piece.block
            for view in (self.view, *self.nodes.values(), *self.views.values())
            for key, record in view.records.items()
            if key.kind == Kind.SLOT
            for piece in cast(Slot, record)
        }
        self.blocks = {block: data for block, data in self.blocks.items() if block in live}

    def check(self) -> None:
        """What must hold of committed state at any time."""
        for key, record in self.view.records.items():
            if key.kind == Kind.SLOT:
                for piece in cast(Slot, record):
                    assert piece.block in self.blocks
                    assert piece.block_offset + piece.length <= len(self.blocks[piece.block])


@dataclass
class FakeSession:
    """A session with the fake coordinator: ordered, with faults on demand."""

    coordinator: FakeCoordinator
    yields: int = 2
    """Turns of the loop that each call takes, there and back."""
    last_commit: int = 0
    plain: dict[int, bytes] = field(default_factory=dict)
    """Bytes of blocks stored by this session's store."""
    errors: dict[str, list[RedfsError]] = field(default_factory=dict)
    """Request -> errors raised by its next calls, before they are carried out."""
    gate: asyncio.Event | None = None
    """While set to an event that is not set, commits wait before they arrive."""
    dead: bool = False
    lapsed: bool = False
    serving_now: bool = True
    log: list[str] = field(default_factory=list)

    @property
    def lease_s(self) -> float:
        return 15.0

    @property
    def is_serving(self) -> bool:
        return self.serving_now and not self.lapsed

    async def serving(self) -> None:
        if self.lapsed:
            raise LeaseLapsed("the session has ended")

    async def call(self, **body: Any) -> Any:
        ((name, request),) = body.items()
        await self._pause()
        if name == "commit" and self.gate is not None:
            await self.gate.wait()
        if self.lapsed:
            raise LeaseLapsed("the session has ended")
        self.coordinator.calls[name] += 1
        self.log.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        reply = getattr(self, f"_{name}")(request)
        await self._pause()
        return reply

    async def _pause(self) -> None:
        for _ in range(self.yields):
            await asyncio.sleep(0)
        while self.dead:
            await asyncio.get_running_loop().create_future()

    def _get_rows(self, request: pb.GetRows) -> pb.GetRowsReply:
        view = self._view(request.volume_id)
        return pb.GetRowsReply(rows=[self._row(view, Key(k.kind, k.obj)) for k in request.keys])

    def _attach(self, request: pb.Attach) -> pb.AttachReply:
        coordinator = self.coordinator
        if request.volume_id:
            assert request.volume_id == VOLUME_ID
            return coordinator.attached(read_only=request.read_only)
        assert request.view, "the volume itself was attached before"
        if request.name != VOLUME_NAME and request.name not in coordinator.nodes:
            raise NotFound(f"no volume is named '{request.name}'")
        frozen = coordinator.freeze() if request.name == VOLUME_NAME else coordinator.nodes[request.name]
        number = 100 + coordinator.calls["attach"]
        coordinator.views[number] = frozen
        root: Any = frozen.records[Key(Kind.ROOT, bytes(8))]
        return pb.AttachReply(volume=pb.Volume(volume_id=number), epoch=1, root=encode_root(root))

    def _detach(self, request: pb.Detach) -> pb.DetachReply:
        del self.coordinator.views[request.volume_id]
        self.coordinator.collect()
        return pb.DetachReply()

    def _view(self, volume_id: int) -> MemoryView:
        return self.coordinator.view if volume_id == VOLUME_ID else self.coordinator.views[volume_id]

    def _row(self, view: MemoryView, key: Key) -> pb.Row:
        record = view.records.get(key)
        return pb.Row(kind=key.kind, obj=key.obj, value=b"" if record is None else encode(key.kind, record))

    def _read_folder(self, request: pb.ReadFolder) -> pb.ReadFolderReply:
        after = split_dirent_object(request.after)[1] if request.after else None
        view = self._view(request.volume_id)
        buckets = view.folder(request.ino, after, request.limit)
        reply = pb.ReadFolderReply(complete=len(buckets) < request.limit)
        for bucket_hash, bucket in buckets:
            reply.rows.append(self._row(view, dirent_key(request.ino, bucket_hash)))
            reply.rows.extend([self._row(view, inode_key(entry.ino)) for entry in bucket])
            reply.last = dirent_key(request.ino, bucket_hash).obj
        return reply

    def _scan_rows(self, request: pb.ScanRows) -> pb.ScanRowsReply:
        view = self._view(request.volume_id)
        keys = sorted(
            key for key in view.records if key.kind == request.kind and request.start <= key.obj < request.end
        )
        rows = [self._row(view, key) for key in keys[: request.limit]]
        return pb.ScanRowsReply(rows=rows, complete=len(keys) <= request.limit)

    def _read_slots(self, request: pb.ReadSlots) -> pb.ReadSlotsReply:
        keys = [
            slot_key(request.ino, request.generation, n) for n in range(request.first, request.first + request.count)
        ]
        view = self._view(request.volume_id)
        return pb.ReadSlotsReply(rows=[self._row(view, key) for key in keys if key in view.records])

    def _reserve(self, request: pb.Reserve) -> pb.ReserveReply:
        coordinator = self.coordinator
        reply = pb.ReserveReply(granted_bytes=min(request.wanted_bytes, coordinator.space_bytes))
        if coordinator.quota_bytes:
            reply.has_quota = True
            reply.quota_left_bytes = max(0, coordinator.quota_bytes - coordinator.logical_bytes())
        return reply

    def _grant_inodes(self, request: pb.GrantInodes) -> pb.GrantInodesReply:
        first = self.coordinator.next_inode
        self.coordinator.next_inode += request.count
        return pb.GrantInodesReply(first=first, count=request.count)

    def _stat_volume(self, request: pb.StatVolume) -> pb.StatVolumeReply:
        return pb.StatVolumeReply(total_bytes=1 << 40, free_bytes=1 << 39)

    def _commit(self, request: pb.Commit) -> pb.CommitReply:
        if request.lineage != self.coordinator.lineage:
            raise RolledBack("the volume was rolled back")
        if request.number > self.last_commit + 1:
            raise CommitRefused("send the one before first")
        if request.number <= self.last_commit:
            raise InvalidArgument("answered long ago")
        pairs = self.coordinator.apply(request, self.plain)
        self.last_commit = request.number
        return pb.CommitReply(
            number=request.number, substitutions=[pb.Substitution(block=old, stored=new) for old, new in pairs]
        )


@dataclass
class FakeBatch:
    """What a store hands back."""

    refs: list[tuple[int, int]]
    segments: list[Any]
    blocks: list[Any]


class FakeStore:
    """Stores blocks in the session's memory; finds equal ones that are committed, if told to."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.dedupe = False
        self.errors: list[RedfsError] = []
        self.stored: list[list[int]] = []
        """Lengths of the blocks of each call."""
        self.abandoned = 0
        self.gate: asyncio.Event | None = None

    async def store(self, plain: Sequence[Buffer], *, dedupe: bool = True) -> FakeBatch:
        assert plain
        assert all(0 < len(data) <= SLOT_BYTES for data in plain)
        assert sum(len(data) for data in plain) <= 8 << 20
        copies = [bytes(data) for data in plain]
        for _ in range(self.session.yields):
            await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        assert copies == [bytes(data) for data in plain], "a buffer changed while it was stored"
        self.stored.append([len(data) for data in plain])
        coordinator = self.session.coordinator
        segment = coordinator.next_segment
        coordinator.next_segment += 1
        known = {data: block for block, data in coordinator.blocks.items()} if self.dedupe and dedupe else {}
        refs: list[tuple[int, int]] = []
        blocks: list[Any] = []
        for index, data in enumerate(copies):
            found = known.get(data)
            if found is None:
                found = block_id(segment, index)
                self.session.plain[found] = data
                blocks.append(pb.Block(block_id=found, segment_id=segment, plain_bytes=len(data)))
            refs.append((found, len(data)))
        return FakeBatch(refs, [pb.Segment(segment_id=segment, k=1, m=0)] if blocks else [], blocks)

    async def abandon(self, batch: FakeBatch) -> None:
        self.abandoned += 1


class FakeReader:
    """Reads committed blocks, and those that the session's own store holds."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.cache: dict[int, bytes] = {}
        self.keeps = True
        self.reads = 0
        self.prefetched: list[int] = []

    def learn(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None: ...

    def learn_stored(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None: ...

    def cached(self, block: int) -> bytes | None:
        return self.cache.get(block)

    async def read_many(self, blocks: Sequence[int]) -> list[bytes]:
        out = []
        for _ in range(self.session.yields):
            await asyncio.sleep(0)
        for block in blocks:
            self.reads += 1
            data = self.session.coordinator.blocks.get(block)
            if data is None:
                data = self.session.plain.get(block)
            if data is None:
                raise NotFound(f"block {block} is gone")
            if self.keeps:
                self.cache[block] = data
            out.append(data)
        return out

    def prefetch(self, blocks: Sequence[int], *, whole_segments: bool) -> None:
        self.prefetched.extend(blocks)


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class Mount:
    """A vfs over fakes."""

    def __init__(
        self,
        coordinator: FakeCoordinator | None = None,
        config: FsConfig | None = None,
        *,
        yields: int = 2,
        read_only: bool = False,
        snapshot: bool = False,
        make_session: Callable[[FakeCoordinator, int], FakeSession] = FakeSession,
    ) -> None:
        self.coordinator = coordinator or FakeCoordinator()
        self.session = make_session(self.coordinator, yields)
        self.store = FakeStore(self.session)
        self.reader = FakeReader(self.session)
        self.clock = Clock()
        self.vfs = Vfs(
            self.session,
            self.coordinator.attached(read_only=read_only, snapshot=snapshot),
            self.store,
            self.reader,
            config or FsConfig(),
            clock=self.clock,
            now_ns=self.clock.now_ns,
            sleep=self.clock.sleep,
        )

    @property
    def ctx(self) -> Context:
        return Context(0, 0, self.clock.now_ns())

    async def start(self) -> Vfs:
        await self.vfs.start()
        return self.vfs

    async def write_file(self, name: bytes, data: bytes, parent: int = 1) -> int:
        """Creates, writes, closes. The inode."""
        handle, entry = await self.vfs.create(self.ctx, parent, name, 0o644)
        if data:
            await self.vfs.write(handle, 0, data)
        await self.vfs.release(self.ctx, handle)
        return entry.ino

    async def read_file(self, ino: int, size: int = 1 << 24) -> bytes:
        handle = await self.vfs.open(self.ctx, ino, 0)
        try:
            return bytes(await self.vfs.read(handle, 0, size))
        finally:
            await self.vfs.release(self.ctx, handle)


async def until(condition: Callable[[], bool], turns: int = 10_000) -> None:
    """Turns the loop until something holds."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("what was waited for never happened")


async def turns(number: int = 50) -> None:
    """Lets everything that can run do so."""
    for _ in range(number):
        await asyncio.sleep(0)
