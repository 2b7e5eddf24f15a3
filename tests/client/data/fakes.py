"""A coordinator session and storage nodes in memory, as the data path sees them, with failures on demand.

The coordinator keeps the rules that matter here: a commit names its own open segments with the nodes that they were
given (or fewer, for a smaller k), replaced shards lie on distinct nodes, blocks belong to committed segments.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from redfs.client.data.store import StoredBatch
from redfs.core.errors import NotFound, RedfsError, TooFewNodes, Unavailable
from redfs.core.ids import segment_id
from redfs.core.policy import Policy, parse_policy, shrink, small_layout
from redfs.proto.gen import cluster_pb2 as pb

Buffer = bytes | bytearray | memoryview


class FakeSession:
    """The coordinator, answering at once."""

    def __init__(self, policy: str = "ec:4+2", nodes: int = 6) -> None:
        self.policy: Policy = parse_policy(policy)
        self.up = list(range(1, nodes + 1))
        self.open: dict[int, pb.Segment] = {}
        self.aborted: list[int] = []
        self.segments: dict[int, pb.Segment] = {}
        self.blocks: dict[int, pb.Block] = {}
        self.index: dict[bytes, int] = {}
        self.damage: list[tuple[int, int]] = []
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.errors: dict[str, RedfsError] = {}
        self.next_segment = 1

    async def call(self, **body: Any) -> Any:
        ((name, request),) = body.items()
        self.calls[name] += 1
        await asyncio.sleep(0)
        if name in self.errors:
            raise self.errors[name]
        return getattr(self, "_" + name)(request)

    def _open_segments(self, request: pb.OpenSegments) -> pb.OpenSegmentsReply:
        layout = (small_layout if request.small else shrink)(self.policy, len(self.up))
        reply = pb.OpenSegmentsReply()
        for _ in range(request.count):
            ident = segment_id(0, self.next_segment)
            turn = self.next_segment % len(self.up)
            self.next_segment += 1
            nodes = [*self.up[turn:], *self.up[:turn]][: layout.k + layout.m]
            segment = pb.Segment(segment_id=ident, k=layout.k, m=layout.m, nodes=nodes)
            self.open[ident] = segment
            reply.segments.append(segment)
        return reply

    def _replace_shard(self, request: pb.ReplaceShard) -> pb.ReplaceShardReply:
        segment = self.open[request.segment_id]
        if request.avoid and segment.nodes[request.shard] not in request.avoid:
            return pb.ReplaceShardReply(node=segment.nodes[request.shard])  # moved before: the answer was lost
        for node in self.up:
            if node not in request.avoid and node not in segment.nodes:
                segment.nodes[request.shard] = node
                return pb.ReplaceShardReply(node=node)
        raise TooFewNodes("no other node")

    def _abort_segments(self, request: pb.AbortSegments) -> pb.AbortSegmentsReply:
        for ident in request.segment_ids:
            del self.open[ident]
            self.aborted.append(ident)
        return pb.AbortSegmentsReply()

    def _find_blocks(self, request: pb.FindBlocks) -> pb.FindBlocksReply:
        return pb.FindBlocksReply(block_ids=[self.index.get(mark, 0) for mark in request.fingerprints])

    def _locate_blocks(self, request: pb.LocateBlocks) -> pb.LocateBlocksReply:
        blocks = [self.blocks[b] for b in request.block_ids if b in self.blocks]
        return pb.LocateBlocksReply(
            blocks=blocks, segments=[self.segments[s] for s in dict.fromkeys(b.segment_id for b in blocks)]
        )

    def _segment_blocks(self, request: pb.SegmentBlocks) -> pb.SegmentBlocksReply:
        return pb.SegmentBlocksReply(blocks=[b for b in self.blocks.values() if b.segment_id == request.segment_id])

    def _report_damage(self, request: pb.ReportDamage) -> pb.ReportDamageReply:
        self.damage.append((request.segment_id, request.shard))
        return pb.ReportDamageReply()

    def commit(self, batch: StoredBatch) -> None:
        for segment in batch.segments:
            opened = self.open.pop(segment.segment_id)
            assert segment.m == opened.m
            assert 1 <= segment.k <= opened.k
            assert len(segment.nodes) == len(set(segment.nodes)) == segment.k + segment.m
            assert set(segment.nodes) <= set(opened.nodes)
            assert segment.shard_bytes % 64 == 0
            self.segments[segment.segment_id] = segment
        for block in batch.blocks:
            assert block.segment_id in self.segments
            assert block.block_id not in self.blocks
            self.blocks[block.block_id] = block
            self.index[bytes(block.fingerprint)] = block.block_id
        for block_ident, length in batch.refs:
            assert self.blocks[block_ident].plain_bytes == length


class FakeNodes:
    """The storage nodes behind a NodePool's interface."""

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self.shards: dict[tuple[int, int, int], bytearray] = {}
        """(node, segment, shard) -> payload."""
        self.put_errors: dict[int, Callable[[], RedfsError | None]] = {}
        self.get_errors: dict[int, RedfsError] = {}
        self.puts: list[tuple[int, int, int]] = []
        self.gets: list[tuple[int, int, int, int, int]] = []
        self.suspected: set[int] = set()
        self.gate: asyncio.Event | None = None
        """While it is there and not set, nobody answers."""
        self.busiest = 0
        self._under_way = 0

    def start_put(self, node: int, segment: int, shard: int, parts: Sequence[Buffer]) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._put(node, segment, shard, parts))

    async def _put(self, node: int, segment: int, shard: int, parts: Sequence[Buffer]) -> None:
        self.puts.append((node, segment, shard))
        self._under_way += 1
        self.busiest = max(self.busiest, self._under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
            failing = self.put_errors.get(node)
            error = failing() if failing is not None else None
            if error is not None:
                self.suspected.add(node)
                raise error
            self.shards[node, segment, shard] = bytearray(b"".join(parts))
        finally:
            self._under_way -= 1

    async def get(self, node: int, segment: int, shard: int, offset: int, length: int, timeout_s: float) -> bytearray:
        self.gets.append((node, segment, shard, offset, length))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if node in self.get_errors:
            if isinstance(self.get_errors[node], Unavailable):
                self.suspected.add(node)
            raise self.get_errors[node]
        payload = self.shards.get((node, segment, shard))
        if payload is None:
            raise NotFound("no such shard")
        assert offset + length <= len(payload)
        return payload[offset : offset + length]

    async def get_into(
        self, node: int, segment: int, shard: int, offset: int, views: list[memoryview], timeout_s: float
    ) -> None:
        data = await self.get(node, segment, shard, offset, sum(map(len, views)), timeout_s)
        for view in views:
            assert len(view)
            view[:] = data[: len(view)]
            del data[: len(view)]

    def unwritable(self) -> set[int]:
        return set(self.suspected)

    def suspects(self) -> set[int]:
        return set(self.suspected)

    def forgive(self) -> None:
        self.suspected.clear()

    def lose(self, node: int) -> None:
        """The node is gone: reads and writes of it fail."""
        self.get_errors[node] = Unavailable(f"node {node} is gone")
        self.put_errors[node] = lambda: Unavailable(f"node {node} is gone")

    def place(self, segment: pb.Segment, shard: int) -> bytearray:
        """The stored payload of a shard, to damage it."""
        return self.shards[segment.nodes[shard], segment.segment_id, shard]
