"""Packing: the live blocks of some segments become one new segment. What is read before, and the two commands.

`prepare` looks up which blocks there are to move. `open_target` stores the new segment's row, open and of no session,
before any node hears of it. A storage node copies the bytes, every shard durable. `commit_pack` then moves, in one
command, those blocks that still lie where they lay; ids, references and the dedupe index stay as they are, so clients
that name blocks notice nothing. Clients that remember the old place find no shard there and ask again.

| what happens between | what the commit does |
|---|---|
| a block loses its last reference | it has no row any more: its bytes in the new segment are a hole |
| a block was moved by another packing | it lies elsewhere: likewise |
| a source dies | all its blocks are gone: likewise |
| all blocks are gone | the new segment is doomed |
| a block gains references | its row is read again and keeps them |
| a shard of a source moves, or is repaired | nothing: the source is doomed where its shards lie now |
| a node of the new segment goes away or fails | nothing moves: `abort_packs` dooms the new segment |
| the coordinator dies | its next start dooms every open segment of no session (`abort_left`) |
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from redfs.coordinator.cluster import Cluster
from redfs.coordinator.jobs import CLEAN_KEY, worked
from redfs.coordinator.reads import segment_blocks
from redfs.coordinator.segments import new_segment_ids
from redfs.coordinator.txn import Txn, scan_pairs
from redfs.core.cleaning import Plan, Source, disk_bytes
from redfs.core.errors import NoSpace, NotFound, TooFewNodes, Unavailable
from redfs.core.kv import ReadKv
from redfs.core.placement import Candidate, place
from redfs.core.policy import Layout
from redfs.core.segments import MAX_PAYLOAD_BYTES, plan_layout
from redfs.core.tables import (
    DAMAGE,
    OPEN_SEGMENTS,
    SEGMENTS,
    BlockRow,
    Domain,
    NodeState,
    SegmentRow,
    SegmentState,
    decode_damage,
    decode_segment,
    encode_segment,
    pair_key,
    shard_key,
    split_shard_key,
    u64_key,
)

NO_SESSION = 0
"""Whose the open segments of the coordinator's own work are."""
MAX_BLOCKS = 4096
"""Moved by one command: some tens of milliseconds of the state thread."""
SPARE_SHARDS = 4
"""A node gets a shard where so many more of its size would fit: others write at the same time."""


class Move(NamedTuple):
    """A block on its way."""

    block_id: int
    segment_id: int
    """Where it lies."""
    offset: int
    stored_bytes: int
    checksum: int
    new_offset: int
    """In the new segment."""


class BadSource(NamedTuple):
    """A shard that is not to be read."""

    segment_id: int
    shard: int
    reason: str
    missing: bool


class Prepared(NamedTuple):
    """What a plan comes to, by the rows as they are."""

    domain: Domain
    layout: Layout
    shard_bytes: int
    moves: tuple[Move, ...]
    """In the order of the new payload, without gaps."""
    sources: tuple[tuple[int, SegmentRow], ...]
    unusable: tuple[BadSource, ...]


class Pack(NamedTuple):
    """A packing that is under way."""

    target: int
    nodes: tuple[int, ...]
    prepared: Prepared


class Packed(NamedTuple):
    """What a packing came to."""

    blocks: int
    """Moved."""
    moved_bytes: int
    segments: int
    """Sources that are gone."""
    freed_bytes: int
    """On disks, the new segment taken off."""


# ---------------------------------------------------------------- before


def prepare(kv: ReadKv, plan: Plan, up: Collection[int]) -> tuple[Prepared | None, list[int]]:
    """The blocks to move, and sources that are of no use now: they cannot be read, or do not pay after all.

    A source is taken whole or not at all, but for one with more blocks than a command moves: that loses some each time.
    None where nothing is left to move.
    """
    moves: list[Move] = []
    sources: list[tuple[int, SegmentRow]] = []
    unusable: list[BadSource] = []
    useless: list[int] = []
    payload_bytes = freed_bytes = 0
    pays = False
    for source in plan.sources:
        row = _still_there(kv, source, plan.domain)
        if row is None:
            continue
        bad = _bad_shards(kv, source.segment_id, row, up)
        if row.layout.width - len(bad) < row.layout.k:
            useless.append(source.segment_id)
            continue
        blocks = segment_blocks(kv, source.segment_id)
        is_whole = len(blocks) <= MAX_BLOCKS or bool(moves)
        if not is_whole:
            blocks = blocks[:MAX_BLOCKS]
        stored_bytes = sum(block.stored_bytes for _, block in blocks)
        if len(moves) + len(blocks) > MAX_BLOCKS or payload_bytes + stored_bytes > MAX_PAYLOAD_BYTES:
            continue
        for block_id, block in blocks:
            moves.append(
                Move(block_id, block.segment_id, block.offset, block.stored_bytes, block.checksum, payload_bytes)
            )
            payload_bytes += block.stored_bytes
        sources.append((source.segment_id, row))
        unusable += bad
        freed_bytes += disk_bytes(row.layout, row.shard_bytes) if is_whole else 0
        pays = pays or not is_whole or row.layout.m < plan.layout.m
    if not moves:
        return None, useless
    shard_bytes = plan_layout(payload_bytes, *plan.layout).shard_bytes
    if not pays and freed_bytes <= disk_bytes(plan.layout, shard_bytes):
        # What was left out, because it is too much for one command or cannot be read, was what made it pay.
        return None, [source.segment_id for source in plan.sources]
    prepared = Prepared(plan.domain, plan.layout, shard_bytes, tuple(moves), tuple(sources), tuple(unusable))
    return prepared, useless


def _still_there(kv: ReadKv, source: Source, domain: Domain) -> SegmentRow | None:
    raw = kv.get(SEGMENTS, u64_key(source.segment_id))
    row = None if raw is None else decode_segment(raw)
    return row if row is not None and row.state == SegmentState.COMMITTED and row.domain == domain else None


def _bad_shards(kv: ReadKv, segment_id: int, row: SegmentRow, up: Collection[int]) -> list[BadSource]:
    found = {
        shard: BadSource(segment_id, shard, "its node is away", False)
        for shard, node in enumerate(row.nodes)
        if node not in up
    }
    for key, raw in kv.scan(DAMAGE, shard_key(segment_id, 0), shard_key(segment_id + 1, 0)):
        damage, shard = decode_damage(raw), split_shard_key(key)[1]
        if shard < len(row.nodes):
            found[shard] = BadSource(segment_id, shard, damage.reason, damage.missing)
    return list(found.values())


def writable(cluster: Cluster, avoid: Collection[int] = ()) -> list[Candidate]:
    """Nodes that can take shards of packed segments: also into the room that is held back from other writes."""
    return [
        Candidate(node.node_id, node.report.free_bytes, node.row.domain)
        for node in cluster.view()
        if node.up and node.row.state == NodeState.IN and node.node_id not in avoid
    ]


# ---------------------------------------------------------------- commands


def open_target(txn: Txn, prepared: Prepared, avoid: Collection[int] = ()) -> Pack:
    """Allocates the new segment. TooFewNodes, NoSpace: nothing was done."""
    width = prepared.layout.width
    candidates = writable(txn.env.cluster, avoid)
    needed_bytes = disk_bytes(Layout(1, 0), prepared.shard_bytes) * (1 + SPARE_SHARDS)
    roomy = [candidate for candidate in candidates if candidate.free_bytes >= needed_bytes]
    if len(candidates) < width:
        raise TooFewNodes(f"packing needs {width} storage nodes and {len(candidates)} can be written to")
    if len(roomy) < width:
        raise NoSpace(f"packing needs room on {width} storage nodes and {len(roomy)} have some: add nodes")
    (segment_id,) = new_segment_ids(txn, 1)
    nodes = tuple(place(segment_id, roomy, width))
    row = SegmentRow(
        SegmentState.OPEN, prepared.layout, prepared.domain, 0, 0, txn.now_ns, 0, NO_SESSION, nodes
    )  # fmt: skip
    txn.kv.put(SEGMENTS, u64_key(segment_id), encode_segment(row))
    txn.kv.put(OPEN_SEGMENTS, pair_key(NO_SESSION, segment_id), b"")
    return Pack(segment_id, nodes, prepared)


def commit_pack(txn: Txn, pack: Pack) -> Packed:
    """Every shard of the new segment is durable: the blocks lie there from now on.

    NotFound where it was aborted. Unavailable where one of its nodes is not in use any more: abort it, for the blocks
    would lie less safely than they do now.
    """
    row = txn.segment(pack.target)
    if row is None or row.state != SegmentState.OPEN or row.session_id != NO_SESSION:
        raise NotFound(f"segment {pack.target:#x} is not open for packing any more")
    gone_nodes = set(row.nodes) - {candidate.node_id for candidate in writable(txn.env.cluster)}
    if gone_nodes:
        raise Unavailable(f"node {min(gone_nodes)} went away while blocks were packed: they stay where they are")
    moves: list[tuple[int, BlockRow, int]] = []
    for move in pack.prepared.moves:
        block = txn.block(move.block_id)
        if block is not None and (block.segment_id, block.offset) == (move.segment_id, move.offset):
            moves.append((move.block_id, block, move.new_offset))
    if not moves:
        txn.doom(pack.target, row)
        return Packed(0, 0, 0, 0)
    sources = {segment_id: txn.segment(segment_id) for segment_id in {block.segment_id for _, block, _ in moves}}
    txn.kv.delete(OPEN_SEGMENTS, pair_key(NO_SESSION, pack.target))
    shard_bytes = pack.prepared.shard_bytes
    committed = row._replace(state=SegmentState.COMMITTED, shard_bytes=shard_bytes, since_ns=txn.now_ns)
    txn.move_blocks(pack.target, committed, moves)
    gone = [source for segment_id, source in sources.items() if source and txn.segment(segment_id) is None]
    freed_bytes = sum(disk_bytes(source.layout, source.shard_bytes) for source in gone)
    packed = Packed(
        len(moves),
        sum(block.stored_bytes for _, block, _ in moves),
        len(gone),
        freed_bytes - disk_bytes(row.layout, shard_bytes),
    )
    worked(txn, CLEAN_KEY, packed.segments, max(0, packed.freed_bytes))
    txn.after_commit.append(lambda: txn.env.cluster.written(pack.nodes, shard_bytes))
    return packed


def abort_packs(txn: Txn, targets: Sequence[int]) -> None:
    """Gives up new segments that were not committed; what nodes wrote of them is deleted. Safe to repeat."""
    for target in targets:
        row = txn.segment(target)
        if row is not None and row.state == SegmentState.OPEN and row.session_id == NO_SESSION:
            txn.doom(target, row)


def abort_left(txn: Txn) -> None:
    """At the coordinator's start: no packing is under way, so what an earlier one left open is given up."""
    abort_packs(txn, [segment_id for segment_id, _ in scan_pairs(txn.kv, OPEN_SEGMENTS, NO_SESSION)])
