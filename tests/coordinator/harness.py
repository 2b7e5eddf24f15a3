"""A coordinator over a store in memory, with a clock that tests move; and a client's side of commits."""

from __future__ import annotations

import hashlib
import random
import stat
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from redfs.coordinator import check, commits, nodes, segments, sessions, volumes
from redfs.coordinator.cluster import Report
from redfs.coordinator.commits import CommitRequest, Record
from redfs.coordinator.coordinator import Coordinator
from redfs.coordinator.environment import CoordinatorConfig, Hooks
from redfs.coordinator.new_data import SegmentLayout
from redfs.coordinator.reads import locate, reader_of
from redfs.coordinator.status import read_totals
from redfs.coordinator.store import KvStore, MemoryStore
from redfs.core.ids import block_id
from redfs.core.records import (
    SLOT_BYTES,
    DirEntry,
    Inode,
    Kind,
    Piece,
    decode_inode,
    decode_root,
    decode_slot,
    dirent_key,
    encode_bucket,
    encode_inode,
    encode_slot,
    inode_key,
    name_hash,
    slot_key,
)
from redfs.core.tables import SEGMENTS, BlockRow, SegmentRow, StatsRow, VolumeRow, decode_segment, u64_key
from redfs.core.volume_tree import ReadTree

GIB = 1 << 30
SHARD_BYTES = 64 * 1024


class Clock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return 1_700_000_000_000_000_000 + int(self.now_s * 1e9)


class SeededRandomness:
    """Repeatable tokens."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


class NewBlock(NamedTuple):
    """A block to be written: its content is a word, its fingerprint the hash of it."""

    word: str
    plain_bytes: int = SLOT_BYTES


def fingerprint(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


class Pool:
    """A coordinator with nodes that report."""

    def __init__(self, node_count: int = 6, store: KvStore | None = None, **settings: object) -> None:
        self.clock = Clock()
        self.config = CoordinatorConfig.from_mapping(dict(settings))
        self.store = store if store is not None else MemoryStore()
        self.ended: list[int] = []
        self.coordinator = self._make()
        self.streams: dict[int, int] = {}
        for number in range(node_count):
            self.add_node(number)

    def _make(self) -> Coordinator:
        hooks = Hooks(session_ended=self.ended.append)
        return Coordinator(self.store, self.config, self.clock, SeededRandomness(), hooks)

    def restart(self) -> None:
        """The process died: everything in memory is gone; nodes attach again."""
        self.coordinator = self._make()
        with self.coordinator.read() as kv:
            known = nodes.stored_nodes(kv)
        for node_id, row in known:
            self.streams[node_id] = self.coordinator.cluster.attached(node_id, row)
            self.report(node_id)

    def add_node(self, number: int, free_bytes: int = 100 * GIB, domain: str = "") -> int:
        hello = nodes.Hello("", 0, f"disk-{number}", f"host:{number}", 1, domain, f"/disk/{number}")
        node_id, row = self.coordinator.execute(lambda txn: nodes.register(txn, hello))
        self.streams[node_id] = self.coordinator.cluster.attached(node_id, row)
        self.report(node_id, free_bytes)
        self.coordinator.cluster.compared(node_id, self.streams[node_id])
        return node_id

    def report(self, node_id: int, free_bytes: int = 100 * GIB, capacity_bytes: int = 100 * GIB) -> None:
        report = Report(capacity_bytes, capacity_bytes - free_bytes, free_bytes)
        self.coordinator.cluster.reported(node_id, self.streams[node_id], report)

    def report_again(self, node_id: int) -> None:
        """The node opens a new stream."""
        with self.coordinator.read() as kv:
            row = dict(nodes.stored_nodes(kv))[node_id]
        self.streams[node_id] = self.coordinator.cluster.attached(node_id, row)
        self.report(node_id)
        self.coordinator.cluster.compared(node_id, self.streams[node_id])

    def shard_on(self, node_id: int, segment_id: int) -> int:
        """The number of the segment's shard on that node."""
        with self.coordinator.read() as kv:
            return decode_segment(kv.get(SEGMENTS, u64_key(segment_id)) or b"").nodes.index(node_id)

    def lose(self, *node_ids: int) -> None:
        for node_id in node_ids:
            self.coordinator.cluster.detached(node_id, self.streams[node_id])

    def pass_time(self, seconds: float) -> None:
        """Time goes by; nodes keep reporting, sessions do not renew."""
        self.clock.now_s += seconds
        for node_id in self.streams:
            self.report(node_id)

    def run_jobs(self, limit: int = 10_000) -> int:
        steps = 0
        while self.coordinator.background_step():
            steps += 1
            assert steps < limit, "a job never ends"
        return steps

    def problems(self) -> list[str]:
        with self.coordinator.read() as kv:
            return [item for item in check.check(kv) if isinstance(item, str)]

    def totals(self) -> StatsRow:
        with self.coordinator.read() as kv:
            return read_totals(kv)

    def volume(self, name: str) -> VolumeRow:
        with self.coordinator.read() as kv:
            return ReadTree(kv).named(name)

    def create(self, name: str, protection: str = "", minimum_nodes: int = 0) -> VolumeRow:
        return self.coordinator.execute(
            lambda txn: volumes.create_volume(txn, name, protection, minimum_nodes=minimum_nodes)
        )

    def snapshot(self, name: str) -> VolumeRow:
        return self.coordinator.execute(lambda txn: volumes.create_snapshot(txn, name))

    def clone(self, source: str, name: str) -> VolumeRow:
        return self.coordinator.execute(lambda txn: volumes.clone_volume(txn, source, name))

    def clone_backed(self, source: str, name: str, snapshot: str = "") -> VolumeRow:
        return self.coordinator.execute(lambda txn: volumes.clone_backed(txn, source, name, snapshot))

    def roll_back(
        self, name: str, keep: str = "", discard: bool = False, held: volumes.Held | None = None
    ) -> volumes.RolledBack:
        return self.coordinator.execute(lambda txn: volumes.roll_back(txn, name, keep, discard, held))

    def held(self, *clients: Client, seconds: float = 10.0) -> volumes.Held:
        """The clients say that they begin nothing until they are told."""
        sessions_there = frozenset(client.session_id for client in clients)
        return volumes.Held(clients[0].volume_id, sessions_there, self.clock.now_s + seconds)

    def delete(self, name: str, force: bool = False) -> VolumeRow:
        return self.coordinator.execute(lambda txn: volumes.delete_volume(txn, name, force))

    def read_slot(self, row: VolumeRow, ino: int, slot: int, generation: int = 1) -> list[str] | None:
        """The fingerprints (hex) of the slot's pieces, through the block table."""
        with self.coordinator.read() as kv:
            volume = reader_of(kv, row)
            value = volume.get(*slot_key(ino, generation, slot))
            if value is None:
                return None
            blocks = dict(locate(kv, [p.block for p in decode_slot(value)]).blocks)
            return [blocks[p.block].fingerprint.hex() for p in decode_slot(value)]


class Client:
    """A session with one volume."""

    def __init__(self, pool: Pool, volume: str, name: str = "test") -> None:
        self.pool = pool
        opened = pool.coordinator.execute(lambda txn: sessions.open_session(txn, name))
        self.session_id, self.token = opened.session_id, opened.token
        self.number = 0
        self.last_request: CommitRequest | None = None
        row, _, root = pool.coordinator.execute(lambda txn: sessions.attach(txn, self.session_id, volume, False))
        self.volume_id = row.volume_id
        self.lineage = row.lineage
        self.seed = decode_root(root).hash_seed

    def open_segments(self, count: int = 1, small: bool = False) -> list[tuple[int, SegmentRow]]:
        return self.pool.coordinator.execute(
            lambda txn: segments.open_segments(txn, self.session_id, self.volume_id, count, small)
        )

    def request(
        self,
        blocks: Iterable[NewBlock] = (),
        records: Iterable[Record] = (),
        segment: tuple[int, SegmentRow] | None = None,
    ) -> tuple[CommitRequest, list[int]]:
        """The next commit: its new blocks in one new segment, and their ids."""
        new: list[tuple[int, BlockRow]] = []
        layouts: list[SegmentLayout] = []
        blocks = list(blocks)
        if blocks:
            segment_id, row = segment or self.open_segments()[0]
            layouts.append(SegmentLayout(segment_id, row.layout, SHARD_BYTES, row.nodes))
            for at, block in enumerate(blocks):
                stored = 100 + at
                row_of = BlockRow(segment_id, 1000 * at, stored, block.plain_bytes, 0, 1, fingerprint(block.word), 0)
                new.append((block_id(segment_id, at), row_of))
        request = CommitRequest(self.volume_id, self.number + 1, layouts, new, list(records), self.lineage)
        return request, [number for number, _ in new]

    def send(self, request: CommitRequest) -> tuple[tuple[int, int], ...]:
        answer = self.pool.coordinator.execute(lambda txn: commits.commit(txn, self.session_id, request))
        self.number = request.number
        self.last_request = request
        return answer

    def write(
        self, slots: Mapping[tuple[int, int], str | None], generations: Mapping[int, int] | None = None
    ) -> tuple[tuple[int, int], ...]:
        """One commit of a block for each (inode, slot); None punches a hole. Generations are 1 where not given."""
        words = [word for word in slots.values() if word is not None]
        request, ids = self.request([NewBlock(word) for word in words])
        left = iter(ids)
        records = []
        for (ino, slot), word in slots.items():
            value = b"" if word is None else encode_slot((Piece(0, SLOT_BYTES, next(left), 0),))
            records.append(Record(*slot_key(ino, (generations or {}).get(ino, 1), slot), value))
        return self.send(request._replace(records=records))

    def create_file(self, name: str, ino: int, slot_count: int = 0) -> None:
        """A file of that many full slots (to be written beside) in the root folder."""
        with self.pool.coordinator.read() as kv:
            volume = reader_of(kv, ReadTree(kv).require(self.volume_id))
            root = decode_inode(volume.get(*inode_key(1)) or b"")
        hashed = name_hash(self.seed, name.encode())
        inode = Inode(stat.S_IFREG | 0o644, 0, 0, 1, slot_count * SLOT_BYTES, 0, 0, 0, 0, parent=1, name_hash=hashed)
        request, _ = self.request(
            records=[
                Record(*dirent_key(1, hashed), encode_bucket((DirEntry(name.encode(), ino, 8, 0),))),
                Record(*inode_key(ino), encode_inode(inode)),
                Record(*inode_key(1), encode_inode(root._replace(size=root.size + 1))),
            ]
        )
        self.send(request)

    def renew(self) -> bool:
        return self.pool.coordinator.leases.renew(self.session_id)

    def close(self) -> None:
        self.pool.coordinator.execute(lambda txn: sessions.end_session(txn, self.session_id))


def slot_record(ino: int, slot: int, pieces: tuple[Piece, ...], generation: int = 1) -> Record:
    return Record(Kind.SLOT, slot_key(ino, generation, slot).obj, encode_slot(pieces))
