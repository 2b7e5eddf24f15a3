"""Where the shards of a segment go, and how much the pool can still hold: pure functions over what is known of nodes.

Placement is weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005): each
node draws a score from the hash of (segment, node) and its free bytes, and the best scores win. So fuller nodes get
less, no state is kept, and the same segment id always finds the same nodes. Failure domains come first: no domain gets
a second shard while another has none.

Raises `TooFewNodes` where there are not enough nodes to choose from.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import xxhash

from redfs.core.errors import TooFewNodes
from redfs.core.policy import Layout, Policy

_SEED = struct.Struct(">QI")
_HASH_RANGE = 1 << 64
MIN_WEIGHT_BYTES = 1
"""A full node keeps a place at the end of the line instead of a division by zero."""


class Candidate(NamedTuple):
    """A node that can be written to."""

    node_id: int
    free_bytes: int
    """Room for new shards, what is held back taken off."""
    domain: str = ""
    """Failure domain; "" is a domain of its own."""


def _score(segment: int, node: Candidate) -> float:
    """Exponential draw with rate 1/weight: the smallest of several wins in proportion to its weight."""
    draw = (xxhash.xxh3_64_intdigest(_SEED.pack(segment, node.node_id)) + 1) / (_HASH_RANGE + 1)
    return -math.log(draw) / max(node.free_bytes, MIN_WEIGHT_BYTES)


def place(segment: int, candidates: Sequence[Candidate], width: int, taken_domains: Iterable[str] = ()) -> list[int]:
    """`width` distinct node ids for the shards of `segment`, in shard order.

    Nodes without room are used only when the others do not suffice. `taken_domains` are those of shards placed
    already. Raises TooFewNodes.
    """
    if len({c.node_id for c in candidates}) < width:
        raise TooFewNodes(
            f"a segment needs {width} storage nodes and {len(candidates)} can take a shard: "
            "bring nodes back or add some"
        )
    shards_in: dict[str, int] = {}
    for domain in taken_domains:
        shards_in[domain] = shards_in.get(domain, 0) + 1
    line = sorted((c.free_bytes <= 0, _score(segment, c), c.node_id, c.domain) for c in candidates)
    chosen: list[int] = []
    while len(chosen) < width:
        best = min(line, key=lambda c: (c[0], shards_in.get(c[3], 0) if c[3] else 0, c[1]))
        line.remove(best)
        chosen.append(best[2])
        if best[3]:
            shards_in[best[3]] = shards_in.get(best[3], 0) + 1
    return chosen


def replacement(segment: int, candidates: Sequence[Candidate], holding: Collection[int], domains: Iterable[str]) -> int:
    """A node for one shard of a segment whose other shards lie on `holding`, in `domains`. Raises TooFewNodes."""
    free = [c for c in candidates if c.node_id not in holding]
    if not free:
        raise TooFewNodes("no other storage node can take this shard: write the data to a new segment")
    return place(segment, free, 1, domains)[0]


def usable_plain_bytes(free_bytes: Iterable[int], layout: Layout | Policy) -> int:
    """Plain bytes that fit on nodes with that much room when each stripe takes k + m distinct nodes.

    With x bytes a shard, each node gives at most min(free, x) and all together must give (k + m) * x; the greatest
    such x is where a node larger than the rest stops helping (the argument of RAID capacity on unequal disks).
    """
    rooms = sorted((max(0, f) for f in free_bytes), reverse=True)
    width = layout.k + layout.m
    if len(rooms) < width:
        return 0
    rest = sum(rooms)
    for large in range(width):
        # The `large` biggest nodes are full only at x; the others are used up: x * (width - large) = sum of the rest.
        x = rest // (width - large)
        if large == width - 1 or rooms[large] <= x:
            return x * layout.k
        rest -= rooms[large]
    return 0
