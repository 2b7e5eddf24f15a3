"""Identifiers: their types, sizes and how they are put together.

Ids are plain integers at run time (`NewType`), because millions of them pass through. An id is never used again:
segment ids carry the pool's incarnation, which a restore of older metadata raises, and block ids are made from the
segment in which the block was born.
"""

from __future__ import annotations

from typing import NewType

Ino = NewType("Ino", int)
"""Inode number, < 2**63."""
Lineage = NewType("Lineage", int)
Epoch = NewType("Epoch", int)
SegmentId = NewType("SegmentId", int)
"""incarnation (12 bits) << 36 | counter (36 bits)."""
BlockId = NewType("BlockId", int)
"""segment id of birth << 16 | index of the block in that segment."""
NodeId = NewType("NodeId", int)
"""Storage node, 1 to 2**32-1."""
SessionId = NewType("SessionId", int)
VolumeId = NewType("VolumeId", int)
"""A node of the volume tree: zero volume, live volume or snapshot."""

ROOT_INO = Ino(1)
ZERO_VOLUME = VolumeId(1)
ZERO_LINEAGE = Lineage(1)
FIRST_EPOCH = Epoch(1)

SEGMENT_COUNTER_BITS = 36
INCARNATION_BITS = 12
BLOCK_INDEX_BITS = 16
MAX_BLOCKS_PER_SEGMENT = 1 << BLOCK_INDEX_BITS


def segment_id(incarnation: int, counter: int) -> SegmentId:
    """The id of the `counter`-th segment of an incarnation. ValueError where a part does not fit."""
    if not 0 <= incarnation < 1 << INCARNATION_BITS or not 0 < counter < 1 << SEGMENT_COUNTER_BITS:
        raise ValueError(f"no segment id for incarnation {incarnation}, counter {counter}")
    return SegmentId(incarnation << SEGMENT_COUNTER_BITS | counter)


def segment_incarnation(segment: int) -> int:
    """The pool incarnation in which the segment was allocated."""
    return segment >> SEGMENT_COUNTER_BITS


def block_id(segment: int, index: int) -> BlockId:
    """The id of block number `index` of the segment that it is born in."""
    if not 0 <= index < MAX_BLOCKS_PER_SEGMENT:
        raise ValueError(f"block index {index} does not fit")
    return BlockId(segment << BLOCK_INDEX_BITS | index)


def block_birth_segment(block: int) -> SegmentId:
    """The segment that the block was born in (it may lie in another one now)."""
    return SegmentId(block >> BLOCK_INDEX_BITS)
