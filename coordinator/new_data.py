"""New data as it arrives with a commit or a write: segments and blocks checked, stored blocks found, pieces checked.

Segments must be the session's own open ones, in the layout that was handed out or a narrower one; new blocks lie in
them. A block whose fingerprint is stored already in the same domain, on a fully redundant segment, is not stored again.
Everything goes through the command's overlay, so a command that is refused leaves the segments open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redfs.coordinator.segments import find_block, require_open
from redfs.coordinator.txn import Txn
from redfs.core.errors import CommitRefused, InvalidArgument
from redfs.core.ids import block_birth_segment
from redfs.core.policy import Layout
from redfs.core.records import SLOT_BYTES, Piece
from redfs.core.tables import (
    FINGERPRINT_BYTES,
    MAX_SEGMENT_PAYLOAD_BYTES,
    OPEN_SEGMENTS,
    BlockRow,
    SegmentRow,
    SegmentState,
    Substitutions,
    pair_key,
)

SHARD_ALIGN_BYTES = 64
MAX_CODEC = 1


class SegmentLayout(NamedTuple):
    """A segment as it was written in the end."""

    segment_id: int
    layout: Layout
    shard_bytes: int
    nodes: tuple[int, ...]


class NewData(NamedTuple):
    """Segments and blocks that were taken, to be settled when records name them."""

    segments: dict[int, SegmentRow]
    """Their committed rows, not stored yet."""
    blocks: dict[int, BlockRow]
    """Without those that are stored already."""
    substitutions: Substitutions


def take_data(
    txn: Txn,
    session_id: int,
    volume_id: int,
    segments: Sequence[SegmentLayout],
    blocks: Sequence[tuple[int, BlockRow]],
) -> NewData:
    """Takes what a session has stored for a volume. InvalidArgument, NotFound, LeaseLapsed."""
    taken = _take_segments(txn, session_id, volume_id, segments)
    new_blocks = _new_blocks(blocks, taken)
    substitutions = _dedupe(txn, new_blocks, taken)
    txn.fresh_blocks = new_blocks
    return NewData(taken, new_blocks, substitutions)


def settle_data(txn: Txn, data: NewData) -> None:
    """Stores what the records of the command name now, and dooms the rest."""
    txn.settle(data.blocks, data.segments)
    for row in data.segments.values():
        _count_written(txn, row)


def _count_written(txn: Txn, row: SegmentRow) -> None:
    txn.after_commit.append(lambda: txn.env.cluster.written(row.nodes, row.shard_bytes))


class PieceCheck:
    """Checks that pieces of slots lie in blocks that are new or stored; remembers the blocks of one command."""

    def __init__(self, txn: Txn, new_blocks: Mapping[int, BlockRow]) -> None:
        self._txn = txn
        self._known: dict[int, int] = {block_id: row.plain_bytes for block_id, row in new_blocks.items()}
        self.missing: list[int] = []
        """Blocks that are not stored."""

    def look(self, pieces: Sequence[Piece]) -> None:
        """Every piece must lie in its slot, after the one before, and inside of its block. InvalidArgument."""
        end = 0
        for piece in pieces:
            plain_bytes = self._known.get(piece.block)
            if plain_bytes is None:
                row = self._txn.block(piece.block)
                if row is None:
                    self.missing.append(piece.block)
                    continue
                plain_bytes = self._known[piece.block] = row.plain_bytes
            if piece.offset < end or piece.length < 1 or piece.offset + piece.length > SLOT_BYTES:
                raise InvalidArgument("the pieces of a slot overlap or leave it")
            if piece.block_offset + piece.length > plain_bytes:
                raise InvalidArgument(f"a piece leaves block {piece.block:#x}, which has {plain_bytes} bytes")
            end = piece.offset + piece.length

    def end(self) -> None:
        """Raises CommitRefused where blocks are missing."""
        if self.missing:
            raise CommitRefused(
                f"{len(self.missing)} blocks that the commit counts on are not stored any more: send their data again",
                dict.fromkeys(self.missing),
            )


def _take_segments(
    txn: Txn, session_id: int, volume_id: int, segments: Sequence[SegmentLayout]
) -> dict[int, SegmentRow]:
    """The segments' committed rows, not stored yet. Nodes that were replaced have their shards doomed."""
    taken: dict[int, SegmentRow] = {}
    given_up = txn.env.cluster.given_up() if segments else set()
    for sent in segments:
        if not given_up.isdisjoint(sent.nodes):
            # It was opened before, and written by who had not heard: the shards there are to be made anew as well.
            txn.after_commit.append(txn.env.redundancy.is_stale)
        row = require_open(txn, session_id, sent.segment_id)
        _check_layout(sent, row, volume_id)
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


def _new_blocks(blocks: Sequence[tuple[int, BlockRow]], segments: Mapping[int, SegmentRow]) -> dict[int, BlockRow]:
    new: dict[int, BlockRow] = {}
    for block_id, row in blocks:
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
