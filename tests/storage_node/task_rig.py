"""A few storage nodes that serve the data plane, segments on them, and one that does tasks."""

from __future__ import annotations

import os
import queue
import random
from collections.abc import Sequence
from pathlib import Path

import xxhash

from redfs.core import erasure
from redfs.core.segments import Layout, plan_layout
from redfs.proto import frames
from redfs.proto.data_plane import SHARD_KEY
from redfs.proto.frames import Hello
from redfs.proto.gen import cluster_pb2 as pb
from redfs.storage_node.backing_file import file_name
from redfs.storage_node.budget import Budget
from redfs.storage_node.cancel import Cancel
from redfs.storage_node.disk import PAGE_BYTES, DiskFailed, FolderDisk
from redfs.storage_node.gathering import Findings
from redfs.storage_node.index import MemoryIndex
from redfs.storage_node.pacing import Courtesy
from redfs.storage_node.packing import pack_blocks
from redfs.storage_node.peers import Peers
from redfs.storage_node.rebuilding import rebuild_shard
from redfs.storage_node.recovery import open_store
from redfs.storage_node.server import DataServer
from redfs.storage_node.shard_store import ShardStore, StoreLimits
from redfs.storage_node.tasks import Tasks

POOL = "pool-1"
SEGMENT = (1 << 36) + 7
WAIT_S = 60
"""For what must happen; only a failing test waits for it."""


def payload_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


class Node:
    """One storage node's store and server."""

    def __init__(self, folder: Path, node_id: int, limits: StoreLimits | None = None) -> None:
        self.node_id = node_id
        self.failures: list[DiskFailed] = []
        self.folder = folder
        limits = limits or StoreLimits(capacity_bytes=64 << 20, reserve_bytes=0, file_bytes=24 << 20)
        uuid = node_id.to_bytes(16, "big")
        self.store: ShardStore = open_store(
            FolderDisk(folder), MemoryIndex(), uuid, 1, None, limits, self.failures.append
        )
        self.courtesy = Courtesy()
        hello = Hello(POOL, node_id, 1)
        self.server = DataServer(frames.listen("127.0.0.1:0"), self.store, lambda: hello, self.courtesy)
        self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"
        self.is_up = True

    def stop_serving(self) -> None:
        if self.is_up:
            self.server.stop()
            self.is_up = False

    def put(self, segment: int, shard: int, payload: bytes | memoryview) -> None:
        self.store.put(segment, shard, payload, xxhash.xxh3_64_intdigest(payload))

    def read(self, segment: int, shard: int) -> bytes:
        return self.store.read(segment, shard)

    def held(self) -> list[tuple[int, int]]:
        return [(info.segment, info.shard) for info in self.store.list_page(None, 1000)]

    def place(self, segment: int, shard: int) -> tuple[Path, int]:
        """(backing file, offset of the payload)."""
        entry = self.store.index.get(SHARD_KEY.pack(segment, shard))
        assert entry is not None
        return self.folder / file_name(entry.file_number), entry.offset + PAGE_BYTES

    def damage(self, segment: int, shard: int, at: int = 0) -> None:
        """Flips bits of a byte of a shard's payload behind the node's back."""
        path, offset = self.place(segment, shard)
        with path.open("r+b") as file:
            file.seek(offset + at)
            before = file.read(1)
            file.seek(offset + at)
            file.write(bytes([before[0] ^ 0xFF]))
            file.flush()
            os.fsync(file.fileno())


class Pool:
    """Nodes 1 to `count`; tasks are done by node `own`, which serves as well."""

    def __init__(self, folder: Path, count: int, own: int, own_limits: StoreLimits | None = None) -> None:
        self.nodes = {
            node_id: Node(folder / str(node_id), node_id, own_limits if node_id == own else None)
            for node_id in range(1, count + 1)
        }
        self.own = self.nodes[own]
        self.peers = Peers(lambda: POOL)
        self.tasks = Tasks(lambda: own, self.own.store, self.peers, self.own.courtesy)
        self.reports: queue.Queue[pb.NodeReport] = queue.Queue()
        self.findings = Findings()
        self.memory = Budget(96 << 20)

    def stop(self) -> None:
        self.tasks.stop()
        for node in self.nodes.values():
            node.stop_serving()
            assert node.store.close() or node.failures

    # -------------------------------------------------------------------- segments

    def put_segment(self, segment_id: int, k: int, m: int, payload: bytes, nodes: Sequence[int]) -> pb.Segment:
        """Stores a segment's shards on these nodes, by shard."""
        layout = plan_layout(len(payload), k, m)
        for node_id, shard in zip(nodes, enumerate(cut(layout, payload)), strict=True):
            self.nodes[node_id].put(segment_id, *shard)
        return segment_of(segment_id, layout, nodes)

    def addresses(self) -> list[pb.NodeAddress]:
        return [pb.NodeAddress(node_id=n.node_id, address=n.address) for n in self.nodes.values()]

    # -------------------------------------------------------------------- tasks

    def rebuild(
        self, segment: pb.Segment, shard: int, *, unusable: Sequence[int] = (), set_aside: bool = False
    ) -> None:
        task = pb.RebuildShard(
            segment=segment, shard=shard, unusable=unusable, addresses=self.addresses(), set_aside=set_aside
        )
        self.findings = Findings()
        rebuild_shard(
            task, self.own.node_id, self.own.store, self.peers, self.memory, self.own.courtesy, self.findings, Cancel()
        )

    def pack(
        self,
        target: pb.Segment,
        blocks: Sequence[pb.PackedBlock],
        sources: Sequence[pb.Segment],
        unusable: Sequence[pb.BadShard] = (),
    ) -> None:
        self.findings = Findings()
        task = pb.PackBlocks(
            target=target, blocks=blocks, sources=sources, addresses=self.addresses(), unusable=unusable
        )
        pack_blocks(
            task, self.own.node_id, self.own.store, self.peers, self.memory, self.own.courtesy, self.findings, Cancel()
        )

    def bad(self) -> list[tuple[int, int, bool]]:
        """(segment, shard, missing) as the task has found them."""
        return sorted((b.segment_id, b.shard, b.missing) for b in self.findings.bad())


def cut(layout: Layout, payload: bytes) -> list[bytes]:
    """A payload's shards."""
    padded = payload + bytes(layout.capacity_bytes - len(payload))
    if layout.k == 1:
        return [padded] * layout.shards
    size = layout.shard_bytes
    parity = bytearray(layout.m * size)
    erasure.code(layout.k, layout.m).encode(padded, parity, size)
    whole = padded + bytes(parity)
    return [whole[i * size : (i + 1) * size] for i in range(layout.shards)]


def segment_of(segment_id: int, layout: Layout, nodes: Sequence[int]) -> pb.Segment:
    return pb.Segment(segment_id=segment_id, k=layout.k, m=layout.m, shard_bytes=layout.shard_bytes, nodes=nodes)


def block_of(segment_id: int, payload: bytes, offset: int, length: int) -> pb.PackedBlock:
    """A block that lies in a payload."""
    stored = payload[offset : offset + length]
    return pb.PackedBlock(
        segment_id=segment_id, offset=offset, stored_bytes=length, checksum=xxhash.xxh3_64_intdigest(stored)
    )
