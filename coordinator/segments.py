"""Commands on segments: allocation, another place for a shard, giving up; and finding stored blocks by fingerprint.

The row of an open segment is stored before its id is handed out, so every shard that a client may have written is
known: a segment ends committed, or its shards are doomed. Raises TooFewNodes, NoSpace, LeaseLapsed, NotFound.
"""

from __future__ import annotations

from collections.abc import Sequence

from redfs.coordinator.sessions import require_session, require_writer
from redfs.coordinator.txn import Txn, scan_pairs
from redfs.core.errors import InvalidArgument, LeaseLapsed, NoSpace, NotAllowed, NotFound
from redfs.core.ids import segment_id as make_segment_id
from redfs.core.kv import ReadKv
from redfs.core.placement import place, replacement
from redfs.core.policy import shrink, small_layout
from redfs.core.tables import (
    BLOCKS,
    DAMAGE,
    DEDUPE,
    INCARNATION_KEY,
    META,
    NEXT_SEGMENT_KEY,
    OPEN_SEGMENTS,
    SEGMENTS,
    Domain,
    SegmentRow,
    SegmentState,
    VolumeRow,
    decode_block,
    decode_segment,
    decode_u64,
    dedupe_key,
    encode_segment,
    pair_key,
    shard_key,
    u64_key,
)

MAX_SEGMENTS_PER_CALL = 64
"""Half a gibibyte of payload: more than any client has in flight."""
MAX_OPEN_PER_SESSION = 256
"""Open segments of one session: bounds what an abandoned one leaves to delete."""
MAX_REPLACEMENTS = 64
"""Shards replaced in one open segment before the client must give it up."""
MAX_FINGERPRINTS = 4096
"""In one dedupe question: 128 KiB of fingerprints for half a gibibyte of data."""


def domain_of(volume: VolumeRow) -> Domain:
    """The dedupe domain of what is written to the volume now."""
    return Domain(volume.policy.k, volume.policy.m)


def new_segment_ids(txn: Txn, count: int) -> list[int]:
    """Takes that many ids that were never used."""
    incarnation = txn.kv.get(META, INCARNATION_KEY)
    first = txn.next_number(NEXT_SEGMENT_KEY, count)
    pool = 0 if incarnation is None else decode_u64(incarnation)
    return [make_segment_id(pool, counter) for counter in range(first, first + count)]


def open_segments(txn: Txn, session_id: int, volume_id: int, count: int, small: bool) -> list[tuple[int, SegmentRow]]:
    """Allocates `count` segments with a place for every shard.

    Not idempotent: those of an answer that got lost are aborted when the session ends.
    """
    if not 1 <= count <= MAX_SEGMENTS_PER_CALL:
        raise InvalidArgument(f"segments are opened 1 to {MAX_SEGMENTS_PER_CALL} at a time")
    require_session(txn, session_id)
    volume = require_writer(txn, session_id, volume_id)
    if sum(1 for _ in scan_pairs(txn.kv, OPEN_SEGMENTS, session_id)) + count > MAX_OPEN_PER_SESSION:
        raise NotAllowed(f"a session has at most {MAX_OPEN_PER_SESSION} open segments: commit or abort some first")
    candidates = txn.env.cluster.candidates()
    choose = small_layout if small else shrink
    layout = choose(volume.policy, len(candidates), volume.minimum_nodes)
    # Full nodes count as if they were away: what is written is narrower, and as well protected.
    candidates = [c for c in candidates if c.free_bytes > 0]
    if len(candidates) < layout.m + 1:
        raise NoSpace("the storage nodes are full: add nodes or delete data")
    layout = choose(volume.policy, len(candidates), volume.minimum_nodes)
    opened: list[tuple[int, SegmentRow]] = []
    for segment_id in new_segment_ids(txn, count):
        row = SegmentRow(
            SegmentState.OPEN, layout, domain_of(volume), 0, 0, txn.now_ns, volume_id, session_id,
            tuple(place(segment_id, candidates, layout.width)),
        )  # fmt: skip
        txn.kv.put(SEGMENTS, u64_key(segment_id), encode_segment(row))
        txn.kv.put(OPEN_SEGMENTS, pair_key(session_id, segment_id), b"")
        opened.append((segment_id, row))
    return opened


def require_open(txn: Txn, session_id: int, segment_id: int) -> SegmentRow:
    """The row of the session's own open segment. NotFound, LeaseLapsed."""
    row = txn.segment(segment_id)
    if row is None or row.state != SegmentState.OPEN:
        raise NotFound(f"segment {segment_id:#x} is not open: open another one")
    if row.session_id != session_id:
        raise LeaseLapsed(f"segment {segment_id:#x} belongs to another session")
    return row


def replace_shard(txn: Txn, session_id: int, segment_id: int, shard: int, avoid: Sequence[int]) -> int:
    """Another node for one shard of an open segment; the failed one's is doomed when the segment's fate is known.

    `avoid` names the nodes that failed, the shard's own among them. Safe to repeat: where the shard has moved to one
    that it does not name, that one is the answer again. TooFewNodes where no other node can take it: abort the
    segment and open a narrower one.
    """
    require_session(txn, session_id)
    row = require_open(txn, session_id, segment_id)
    if not 0 <= shard < len(row.nodes):
        raise InvalidArgument(f"segment {segment_id:#x} has no shard {shard}")
    if len(row.dropped) >= MAX_REPLACEMENTS:
        raise NotAllowed(f"segment {segment_id:#x} has seen {MAX_REPLACEMENTS} failed shards: abort it")
    if avoid and row.nodes[shard] not in avoid:
        return row.nodes[shard]
    others = [node for at, node in enumerate(row.nodes) if at != shard]
    tried = {node for node, _ in row.dropped} | {row.nodes[shard]}
    candidates = txn.env.cluster.candidates(avoid=avoid)
    node = replacement(segment_id, candidates, {*others, *tried}, txn.env.cluster.domains(others))
    row = row._replace(
        nodes=(*row.nodes[:shard], node, *row.nodes[shard + 1 :]), dropped=(*row.dropped, (row.nodes[shard], shard))
    )
    txn.kv.put(SEGMENTS, u64_key(segment_id), encode_segment(row))
    return node


def abort_segments(txn: Txn, session_id: int, segment_ids: Sequence[int]) -> None:
    """Gives up the session's own open segments; their shards are deleted. Those that are gone are passed over."""
    require_session(txn, session_id)
    for segment_id in segment_ids:
        row = txn.segment(segment_id)
        if row is None:
            continue
        if row.state != SegmentState.OPEN or row.session_id != session_id:
            raise NotAllowed(f"segment {segment_id:#x} is not an open one of this session")
        txn.doom(segment_id, row)


def fully_redundant(kv: ReadKv, segment_id: int, row: SegmentRow, up: set[int]) -> bool:
    """Whether the segment can lose as many nodes as its domain promises, as far as is known."""
    return (
        row.state == SegmentState.COMMITTED
        and row.layout.m >= row.domain.m
        and up.issuperset(row.nodes)
        and kv.first(DAMAGE, shard_key(segment_id, 0), shard_key(segment_id + 1, 0)) is None
    )


def find_block(kv: ReadKv, domain: Domain, fingerprint: bytes, up: set[int]) -> int:
    """The block of the domain with that fingerprint on a fully redundant segment; 0: none."""
    raw = kv.get(DEDUPE, dedupe_key(domain, fingerprint))
    if raw is None:
        return 0
    block = kv.get(BLOCKS, raw)
    if block is None:
        return 0
    segment_id = decode_block(block).segment_id
    segment = kv.get(SEGMENTS, u64_key(segment_id))
    if segment is None or not fully_redundant(kv, segment_id, decode_segment(segment), up):
        return 0
    return decode_u64(raw)
