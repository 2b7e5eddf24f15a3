"""The commit: segments, blocks and record changes of one session become visible together, or not at all.

In one command: the session must hold the volume's delegation and send commits in order; segments must be its own open
ones; every block that a slot names must be new here or stored. A block whose fingerprint is stored already in the same
domain, on a fully redundant segment, is not stored again: the slots get the stored one. Then the records go to the
volume's head and references are settled: a block that nothing names gets no row, a segment without live blocks is
doomed.

A commit sent again is answered as it was the first time and changes nothing. Raises LeaseLapsed, CommitRefused (with
the blocks that are gone; nothing was applied, send the data again under the same number), InvalidArgument. RolledBack
where the volume goes on as another lineage than the one that the commit was made for: it would mix the two, and is
refused for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redfs.coordinator.jobs import add_job
from redfs.coordinator.segments import find_block, require_open
from redfs.coordinator.sessions import require_delegation, require_session
from redfs.coordinator.txn import Txn
from redfs.core.errors import CommitRefused, InvalidArgument, RolledBack
from redfs.core.ids import block_birth_segment
from redfs.core.policy import Layout
from redfs.core.records import MAX_PIECES, SLOT_BYTES, Kind, Piece, decode_slot, encode_slot, split_orphan_object
from redfs.core.tables import (
    FINGERPRINT_BYTES,
    MAX_SEGMENT_PAYLOAD_BYTES,
    OPEN_SEGMENTS,
    REPLIES,
    SESSIONS,
    BlockRow,
    JobKind,
    SegmentRow,
    SegmentState,
    Substitutions,
    decode_reply,
    encode_reply,
    encode_session,
    pair_key,
    u64_key,
)

MAX_ROWS = 65_536
"""Records in one commit: about a second of the state thread."""
MAX_BLOCKS = 65_536
"""New blocks in one commit: half a mebibyte of substitutions at most in its stored answer."""
MAX_COMMIT_SEGMENTS = 256
"""As many as a session may have open."""
SHARD_ALIGN_BYTES = 64
KEPT_REPLIES = 256
"""Answers kept for commits that are sent again after a lost stream: as many requests as a client has under way."""
MAX_CODEC = 1
RECORD_KINDS = frozenset({Kind.INODE, Kind.DIRENT, Kind.SLOT, Kind.XATTR, Kind.ORPHAN})
"""What clients write; a volume's root record is the coordinator's."""


class SegmentLayout(NamedTuple):
    """A segment as it was written in the end."""

    segment_id: int
    layout: Layout
    shard_bytes: int
    nodes: tuple[int, ...]


class Record(NamedTuple):
    """A record change; an empty value deletes."""

    kind: int
    obj: bytes
    value: bytes


class CommitRequest(NamedTuple):
    """What a client sends."""

    volume_id: int
    number: int
    segments: Sequence[SegmentLayout]
    blocks: Sequence[tuple[int, BlockRow]]
    """(block id, row with refs 0)."""
    records: Sequence[Record]
    lineage: int
    """Of the volume, as the client knows it."""


def commit(txn: Txn, session_id: int, request: CommitRequest) -> Substitutions:
    """Applies one commit; see the module."""
    session = require_session(txn, session_id)
    if session.last_commit - KEPT_REPLIES < request.number <= session.last_commit and request.number:
        stored = txn.kv.get(REPLIES, pair_key(session_id, request.number))
        return () if stored is None else decode_reply(stored)
    volume = require_delegation(txn, session_id, request.volume_id)
    if request.lineage != volume.lineage:
        raise RolledBack(f"{volume.name!r} was rolled back: what was written for its state before cannot be committed")
    if request.number <= session.last_commit:
        raise InvalidArgument(f"commit {request.number} was answered long ago, the last one is {session.last_commit}")
    if request.number > session.last_commit + 1:
        raise CommitRefused(
            f"commit {request.number} came before commit {session.last_commit + 1}: send that one first, in order"
        )
    if max(len(request.records), len(request.blocks)) > MAX_ROWS or len(request.segments) > MAX_COMMIT_SEGMENTS:
        raise InvalidArgument(
            f"a commit has at most {MAX_ROWS} records, {MAX_BLOCKS} blocks and {MAX_COMMIT_SEGMENTS} segments"
        )
    segments = _take_segments(txn, session_id, request)
    new_blocks = _new_blocks(request, segments)
    substitutions = _dedupe(txn, new_blocks, segments)
    txn.fresh_blocks = new_blocks
    _write_records(txn, volume.lineage, request.records, new_blocks, dict(substitutions))
    if any(r.kind == Kind.ORPHAN and r.value and split_orphan_object(r.obj)[1] for r in request.records):
        add_job(txn, JobKind.REAP, volume.volume_id, 0, volume.volume_id, volume.name)
    txn.settle(new_blocks, segments)
    for segment in request.segments:
        _count_written(txn, segment)
    txn.kv.put(SESSIONS, u64_key(session_id), encode_session(session._replace(last_commit=request.number)))
    if request.number > KEPT_REPLIES:
        txn.kv.delete(REPLIES, pair_key(session_id, request.number - KEPT_REPLIES))
    if substitutions:
        txn.kv.put(REPLIES, pair_key(session_id, request.number), encode_reply(substitutions))
    return substitutions


def _count_written(txn: Txn, segment: SegmentLayout) -> None:
    txn.after_commit.append(lambda: txn.env.cluster.written(segment.nodes, segment.shard_bytes))


def _take_segments(txn: Txn, session_id: int, request: CommitRequest) -> dict[int, SegmentRow]:
    """The segments' committed rows, not stored yet. Nodes that were replaced have their shards doomed."""
    taken: dict[int, SegmentRow] = {}
    for sent in request.segments:
        row = require_open(txn, session_id, sent.segment_id)
        _check_layout(sent, row, request.volume_id)
        kept = {(node, shard) for shard, node in enumerate(sent.nodes)}
        for node, shard in {(node, shard) for shard, node in enumerate(row.nodes)} | set(row.dropped):
            if (node, shard) not in kept:
                txn.doom_shard(node, sent.segment_id, shard)
        txn.kv.delete(OPEN_SEGMENTS, pair_key(session_id, sent.segment_id))
        taken[sent.segment_id] = row._replace(
            state=SegmentState.COMMITTED,
            layout=sent.layout,
            shard_bytes=sent.shard_bytes,
            since_ns=txn.now_ns,
            nodes=sent.nodes,
            dropped=(),
        )
    return taken


def _check_layout(sent: SegmentLayout, row: SegmentRow, volume_id: int) -> None:
    """The layout must be the one that was handed out, or one with fewer data shards on some of its nodes."""
    k, m = sent.layout
    name = f"segment {sent.segment_id:#x}"
    if row.volume_id != volume_id:
        raise InvalidArgument(f"{name} was opened for another volume")
    if k < 1 or m != row.layout.m or k > row.layout.k or len(sent.nodes) != k + m:
        raise InvalidArgument(f"{name} was opened as {row.layout.k}+{row.layout.m} and comes as {k}+{m}")
    if len(set(sent.nodes)) != len(sent.nodes) or not set(row.nodes).issuperset(sent.nodes):
        raise InvalidArgument(f"{name} names nodes {sent.nodes} and was given {row.nodes}")
    if sent.shard_bytes % SHARD_ALIGN_BYTES or not 0 < sent.shard_bytes * k <= MAX_SEGMENT_PAYLOAD_BYTES + k * 64:
        raise InvalidArgument(f"{name} has shards of {sent.shard_bytes} bytes, which is no size for them")


def _new_blocks(request: CommitRequest, segments: dict[int, SegmentRow]) -> dict[int, BlockRow]:
    new: dict[int, BlockRow] = {}
    for block_id, row in request.blocks:
        segment = segments.get(row.segment_id)
        if segment is None or block_birth_segment(block_id) != row.segment_id or block_id in new:
            raise InvalidArgument(f"block {block_id:#x} does not belong to a segment of this commit")
        end = row.offset + row.stored_bytes
        if not row.stored_bytes > 0 or end > segment.layout.k * segment.shard_bytes:
            raise InvalidArgument(f"block {block_id:#x} does not lie inside of its segment")
        if not 0 < row.plain_bytes <= SLOT_BYTES or row.codec > MAX_CODEC or len(row.fingerprint) != FINGERPRINT_BYTES:
            raise InvalidArgument(f"block {block_id:#x} has a size, codec or fingerprint that cannot be")
        new[block_id] = row
    return new


def _dedupe(txn: Txn, new_blocks: dict[int, BlockRow], segments: dict[int, SegmentRow]) -> Substitutions:
    """Finds the new blocks that are stored already, or twice in this commit, and takes them out of `new_blocks`."""
    if not new_blocks:
        return ()
    up = txn.env.cluster.up()
    seen: dict[tuple[object, bytes], int] = {}
    found: list[tuple[int, int]] = []
    for block_id, row in new_blocks.items():
        domain = segments[row.segment_id].domain
        stored = seen.get((domain, row.fingerprint)) or find_block(txn.kv, domain, row.fingerprint, up)
        if stored:
            found.append((block_id, stored))
        else:
            seen[domain, row.fingerprint] = block_id
    for block_id, _ in found:
        del new_blocks[block_id]
    return tuple(found)


def _write_records(
    txn: Txn, lineage: int, records: Sequence[Record], new_blocks: dict[int, BlockRow], substitutes: dict[int, int]
) -> None:
    missing: list[int] = []
    known: dict[int, int] = {block_id: row.plain_bytes for block_id, row in new_blocks.items()}
    for kind, obj, value in records:
        if kind not in RECORD_KINDS:
            raise InvalidArgument(f"a commit cannot write records of kind {kind}")
        if not value:
            txn.versions.delete(lineage, kind, obj)
            continue
        if kind == Kind.SLOT:
            pieces = decode_slot(value)
            if not 1 <= len(pieces) <= MAX_PIECES:
                raise InvalidArgument(f"a slot has 1 to {MAX_PIECES} pieces, not {len(pieces)}")
            if substitutes and any(piece.block in substitutes for piece in pieces):
                pieces = tuple([p._replace(block=substitutes.get(p.block, p.block)) for p in pieces])
                value = encode_slot(pieces)
            _check_pieces(txn, pieces, known, missing)
            if missing:
                continue
        txn.put_record(lineage, kind, obj, value)
    if missing:
        raise CommitRefused(
            f"{len(missing)} blocks that the commit counts on are not stored any more: send their data again",
            dict.fromkeys(missing),
        )


def _check_pieces(txn: Txn, pieces: Sequence[Piece], known: dict[int, int], missing: list[int]) -> None:
    """Every piece must lie in its slot, after the one before, and inside of a block that is new or stored."""
    end = 0
    for piece in pieces:
        plain_bytes = known.get(piece.block)
        if plain_bytes is None:
            row = txn.block(piece.block)
            if row is None:
                missing.append(piece.block)
                continue
            plain_bytes = known[piece.block] = row.plain_bytes
        if piece.offset < end or piece.length < 1 or piece.offset + piece.length > SLOT_BYTES:
            raise InvalidArgument("the pieces of a slot overlap or leave it")
        if piece.block_offset + piece.length > plain_bytes:
            raise InvalidArgument(f"a piece leaves block {piece.block:#x}, which has {plain_bytes} bytes")
        end = piece.offset + piece.length
