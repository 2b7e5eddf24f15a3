"""The algebra of slots: what overwriting, cutting and reading do to a slot's list of pieces.

A slot is 128 KiB of a file; its pieces say which bytes of which blocks make it up, and what no piece covers reads as
zeros. All functions are pure, keep the pieces ascending, apart and inside the slot, and raise ValueError where an
argument does not fit in a slot, which is always the caller's mistake. A slot that passed `MAX_PIECES` may exist
between an `overlay` and its merge, but is never stored: asking `needs_merge` and carrying out the plan is left to
the flush.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from redfs.core.records import MAX_PIECES, SLOT_BYTES, Piece, Slot


class Extent(NamedTuple):
    """`length` bytes from `offset` of the slot on: those of `block` from `block_offset` on, or zeros (block 0)."""

    offset: int
    length: int
    block: int
    block_offset: int


class MergePlan(NamedTuple):
    """How to rewrite a slot as one block: `extents` laid end to end are its `length` bytes.

    Store them as a new block and the slot as `(Piece(offset, length, new_block, 0),)`.
    """

    offset: int
    length: int
    extents: list[Extent]


class SlotRange(NamedTuple):
    """The part of a file's byte range that falls into one slot."""

    slot: int
    start: int
    """Bytes from the start of the slot."""
    length: int
    file_offset: int


def slot_range(offset: int, length: int) -> Iterator[SlotRange]:
    """Splits the byte range of a file into its slots, in order."""
    if offset < 0 or length < 0:
        raise ValueError(f"no byte range {offset}+{length}")
    end = offset + length
    while offset < end:
        slot, start = divmod(offset, SLOT_BYTES)
        part = min(SLOT_BYTES - start, end - offset)
        yield SlotRange(slot, start, part, offset)
        offset += part


def slot_count(size: int) -> int:
    """Slots that `size` bytes of a file reach into."""
    return -(-size // SLOT_BYTES)


def logical_bytes(slots: Mapping[int, Slot]) -> int:
    """Bytes of a file that its slots refer to blocks for; holes count nothing."""
    return sum([piece.length for slot in slots.values() for piece in slot])


def overlay(slot: Slot, piece: Piece) -> Slot:
    """The slot after `piece` was written over it: it wins, older pieces are cut.

    Where a neighbour continues the piece in the same block, the two are joined.
    """
    _check(piece.offset, piece.length)
    if not piece.length:
        return slot
    if not slot:
        return (piece,)
    before, after = [], []
    start, end = piece.offset, piece.offset + piece.length
    for old in slot:
        offset, length, block, block_offset = old
        old_end = offset + length
        if old_end <= start:
            before.append(old)
        elif offset >= end:
            after.append(old)
        else:
            if offset < start:
                before.append(Piece(offset, start - offset, block, block_offset))
            if old_end > end:
                after.append(Piece(end, old_end - end, block, block_offset + end - offset))
    if before and _continues(before[-1], piece):
        left = before.pop()
        piece = Piece(left.offset, left.length + piece.length, left.block, left.block_offset)
    if after and _continues(piece, after[0]):
        right = after.pop(0)
        piece = Piece(piece.offset, piece.length + right.length, piece.block, piece.block_offset)
    return (*before, piece, *after)


def punch(slot: Slot, start: int, length: int) -> Slot:
    """The slot with zeros from `start` on."""
    _check(start, length)
    if not length:
        return slot
    end = start + length
    out = []
    for old in slot:
        offset, old_length, block, block_offset = old
        old_end = offset + old_length
        if old_end <= start or offset >= end:
            out.append(old)
            continue
        if offset < start:
            out.append(Piece(offset, start - offset, block, block_offset))
        if old_end > end:
            out.append(Piece(end, old_end - end, block, block_offset + end - offset))
    return tuple(out)


def cut(slot: Slot, length: int) -> Slot:
    """The first `length` bytes of the slot; zeros follow them."""
    _check(0, length)
    if not slot or slot[-1].offset + slot[-1].length <= length:
        return slot
    out = []
    for piece in slot:
        if piece.offset >= length:
            break
        kept = min(piece.length, length - piece.offset)
        out.append(piece if kept == piece.length else piece._replace(length=kept))
    return tuple(out)


def resolve(slot: Slot, start: int, length: int) -> list[Extent]:
    """Where the slot's bytes from `start` on lie: extents end to end over the whole range, holes with block 0."""
    _check(start, length)
    if not length:
        return []
    out = []
    at, end = start, start + length
    for offset, piece_length, block, block_offset in slot:
        piece_end = offset + piece_length
        if piece_end <= at:
            continue
        if offset >= end or at == end:
            break
        if offset > at:
            out.append(Extent(at, offset - at, 0, 0))
            at = offset
        upto = min(piece_end, end)
        out.append(Extent(at, upto - at, block, block_offset + at - offset))
        at = upto
    if at < end:
        out.append(Extent(at, end - at, 0, 0))
    return out


def needs_merge(slot: Slot) -> bool:
    """Whether the slot lists more pieces than may be stored."""
    return len(slot) > MAX_PIECES


def merge_plan(slot: Slot) -> MergePlan:
    """How to rewrite the slot as one block, from its first byte that is written to its last, holes as zeros."""
    if not slot:
        return MergePlan(0, 0, [])
    start = slot[0].offset
    length = slot[-1].offset + slot[-1].length - start
    return MergePlan(start, length, resolve(slot, start, length))


def check_slot(slot: Slot) -> None:
    """Raises ValueError where a slot may not be stored: too many pieces, out of order, overlapping or too long."""
    if len(slot) > MAX_PIECES:
        raise ValueError(f"{len(slot)} pieces in a slot, at most {MAX_PIECES} may be stored: merge them first")
    at = 0
    for offset, length, block, block_offset in slot:
        if offset < at or length <= 0 or block <= 0 or not 0 <= block_offset <= SLOT_BYTES - length:
            raise ValueError(f"piece {offset}+{length} of block {block} does not fit in its slot")
        at = offset + length
    if at > SLOT_BYTES:
        raise ValueError(f"slot of {at} bytes, at most {SLOT_BYTES}")


def _continues(left: Piece, right: Piece) -> bool:
    return (
        left.block == right.block
        and left.offset + left.length == right.offset
        and left.block_offset + left.length == right.block_offset
    )


def _check(start: int, length: int) -> None:
    if start < 0 or length < 0 or start + length > SLOT_BYTES:
        raise ValueError(f"{start}+{length} bytes do not fit in a slot of {SLOT_BYTES}")
