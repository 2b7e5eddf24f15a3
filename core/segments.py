"""Where the bytes of a segment's payload lie: its cut into shards, the shard ranges of a block, degraded-read plans.

A payload of at most 8 MiB is cut into k contiguous runs of `shard_bytes` (the tail padded with zeros); shard i < k is
run i, the other m are parity. With k = 1 every shard is a copy of the payload. Contiguous runs, not interleaved ones,
so that a healthy read of a block is one ranged request to one node.

Pure arithmetic: nothing here can fail but by wrong arguments (ValueError). Fetching, decoding and verifying are done
by the callers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import combinations, islice
from typing import NamedTuple

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
"""Stored bytes of one segment: large enough to stripe well, small enough that one fits in memory many times."""
SHARD_ALIGN_BYTES = 64
"""Shards are multiples of it: a cache line, and the widest vector that the code works on."""
SMALL_FLUSH_BYTES = 64 * 1024
"""Below this a flush is written as copies: fewer nodes to wait for, and shards would be tiny."""
MAX_COMBINATIONS = 256
"""Sets of k shards tried on a damaged block: all C(9, 4) = 126 of ec:4+5, and a bound for the widest codes."""


class Layout(NamedTuple):
    """How a segment is cut. `shard_bytes` is a multiple of 64."""

    k: int
    m: int
    shard_bytes: int

    @property
    def shards(self) -> int:
        """Data and parity shards together."""
        return self.k + self.m

    @property
    def capacity_bytes(self) -> int:
        """Payload bytes that fit, padding included."""
        return self.k * self.shard_bytes


class Extent(NamedTuple):
    """`length` bytes at `offset` of shard `shard` are the wanted bytes from `position` on."""

    shard: int
    offset: int
    length: int
    position: int


def plan_layout(payload_bytes: int, k: int, m: int) -> Layout:
    """The layout of a payload in a k+m code. ValueError where it is empty or larger than MAX_PAYLOAD_BYTES."""
    if not 0 < payload_bytes <= MAX_PAYLOAD_BYTES:
        raise ValueError(f"no segment of {payload_bytes} bytes")
    if k < 1 or m < 0:
        raise ValueError(f"no code {k}+{m}")
    run = -(-payload_bytes // k)
    return Layout(k, m, -(-run // SHARD_ALIGN_BYTES) * SHARD_ALIGN_BYTES)


def extents(layout: Layout, offset: int, length: int, copy: int = 0) -> tuple[Extent, ...]:
    """The shard ranges that hold payload bytes [offset, offset + length), in payload order.

    With k = 1 they are taken from the copy numbered `copy`. ValueError where the range leaves the payload.
    """
    if offset < 0 or length < 0 or offset + length > layout.capacity_bytes:
        raise ValueError(f"bytes {offset}+{length} lie outside of a payload of {layout.capacity_bytes}")
    if layout.k == 1:
        return (Extent(copy, offset, length, 0),) if length else ()
    shard, at = divmod(offset, layout.shard_bytes)
    if 0 < length <= layout.shard_bytes - at:
        return (Extent(shard, at, length, 0),)
    found = []
    position = 0
    while position < length:
        take = min(layout.shard_bytes - at, length - position)
        found.append(Extent(shard, at, take, position))
        position += take
        shard, at = shard + 1, 0
    return tuple(found)


def merge_ranges(ranges: Iterable[tuple[int, int]], gap_bytes: int = 0) -> list[tuple[int, int]]:
    """(offset, length) ranges joined where they touch, overlap or lie at most `gap_bytes` apart; ascending."""
    merged: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if merged:
            start, before = merged[-1]
            if offset <= start + before + gap_bytes:
                merged[-1] = (start, max(before, offset + length - start))
                continue
        merged.append((offset, length))
    return merged


def sources(layout: Layout, missing: Collection[int], prefer: Collection[int] = ()) -> tuple[int, ...] | None:
    """k shards, none of them in `missing`, that make up for the missing ones: those in `prefer` first (they are at
    hand already), then data, then parity. None where fewer than k are left."""
    left = [i for i in range(layout.shards) if i not in missing]
    if len(left) < layout.k:
        return None
    left.sort(key=lambda i: (i not in prefer, i))
    return tuple(sorted(left[: layout.k]))


def source_combinations(layout: Layout, at_hand: Collection[int]) -> Iterator[tuple[int, ...]]:
    """Sets of k shards to try when it is not known which of those at hand are damaged; at most MAX_COMBINATIONS."""
    return islice(combinations(sorted(at_hand), layout.k), MAX_COMBINATIONS)


def narrowed(k: int, m: int, nodes: int) -> tuple[int, int] | None:
    """The code for a segment when only `nodes` of its k + m nodes are left: k shrinks, m stays. None below m + 1."""
    return (min(k, nodes - m), m) if nodes >= m + 1 else None
