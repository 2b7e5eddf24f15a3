"""One look at all committed segments: what is wrong with which, how much there is to do, and the most endangered ones.

A look goes through SEGMENTS in pieces, each in a read transaction of its own, so it sees no single point in time; what
it finds is a hint, and whoever acts on it reads the row again. What nodes are like is as it was at the beginning.
Memory: the bounded list of the most endangered, damaged shards (bounded where they are reported), sums by node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from redfs.coordinator.redundancy import Redundancy
from redfs.core.healing import Assessment, Balance, Facts, MostUrgent, NodeFacts, Shards, Work, assess
from redfs.core.kv import ReadKv
from redfs.core.tables import (
    ALL_U64,
    DAMAGE,
    SEGMENTS,
    NodeState,
    SegmentRow,
    SegmentState,
    decode_damage,
    decode_segment,
    decode_u64,
    split_shard_key,
    u64_key,
)

SURVEY_ROWS = 2000
"""Segments in one read transaction: some ten milliseconds."""
MAX_URGENT = 4096
"""Segments that one look keeps for the work until the next: seconds of it, and less than a megabyte."""
MAX_NAMED_NODES = 8
"""That are told as the ones whose return makes data readable again."""

JobOf = tuple[Work, int]
"""(work, node that is drained or 0): what a job is about."""


class Wanted(NamedTuple):
    """What may be worked on now: what people have not paused, and what they have asked for."""

    rebuild: bool = True
    repair: bool = True
    draining: frozenset[int] = frozenset()
    """Nodes that are emptied."""
    rebalance: bool = False


class Found(NamedTuple):
    """The end of a look."""

    redundancy: Redundancy
    urgent: list[int]
    """Segments with something to do, the most endangered first."""
    complete: bool
    """`urgent` names all of them."""
    left: dict[JobOf, tuple[int, int]]
    """What there is to do: shards and their bytes. Also of jobs that are paused."""
    bytes_on: dict[int, int]
    """node -> bytes of shards that the rows place there."""
    draining: frozenset[int]
    """Nodes that were to be emptied when the look began."""
    balanced: bool
    """It has looked for moves that level the nodes."""
    awaited: bool
    """Open segments name nodes that were given up: they may yet be committed there."""


def shards_of(segment_id: int, row: SegmentRow, damaged: Collection[int] = ()) -> Shards:
    """A segment's row as plans know it."""
    return Shards(segment_id, row.layout.k, row.shard_bytes, row.nodes, frozenset(damaged))


def damaged_shards(kv: ReadKv, segment_id: int, row: SegmentRow) -> list[int]:
    """Shards of the segment that are known to be bad where they lie now."""
    found = []
    for key, raw in kv.scan(DAMAGE, u64_key(segment_id), u64_key(segment_id + 1)):
        shard = split_shard_key(key)[1]
        if shard < len(row.nodes) and decode_damage(raw).node_id == row.nodes[shard]:
            found.append(shard)
    return found


class Survey:
    """See the module. `step` until it says that it is done."""

    def __init__(
        self, facts: Facts, wanted: Wanted, balance: Balance | None = None, held: Collection[int] = ()
    ) -> None:
        """`balance`: where nodes are to be levelled. `held`: segments that wait after a failure: not listed."""
        self._facts = facts
        self._wanted = wanted
        self._balance = balance
        self._held = held
        self._draining = frozenset(n for n, node in facts.items() if node.state == NodeState.DRAINING)
        self._good = frozenset(n for n, node in facts.items() if node.up and node.state == NodeState.IN)
        self._takers = [node for node in facts.values() if node.takes]
        self._urgent = MostUrgent(MAX_URGENT)
        self._damaged: dict[int, list[tuple[int, int]]] | None = None
        self._given_up = frozenset(n for n, node in facts.items() if node.given_up)
        self._awaited = False
        self._next = b""
        self._bytes_on: Counter[int] = Counter()
        self._segments_on: Counter[int] = Counter()
        self._losses: Counter[tuple[int, int]] = Counter()
        self._endangered = self._critical = self._lost = self._homeless = self._widest = 0
        self._lost_with: Counter[int] = Counter()
        self._left: dict[JobOf, tuple[int, int]] = {}

    def step(self, kv: ReadKv) -> bool:
        """Looks at the next piece. True at the end."""
        if self._damaged is None:
            self._damaged = {}
            for key, raw in kv.scan(DAMAGE, b"", ALL_U64 * 2):
                segment_id, shard = split_shard_key(key)
                self._damaged.setdefault(segment_id, []).append((shard, decode_damage(raw).node_id))
        for looked, (key, raw) in enumerate(kv.scan(SEGMENTS, self._next, ALL_U64)):
            if looked >= SURVEY_ROWS:
                self._next = key
                return False
            self._look(decode_u64(key), decode_segment(raw))
        return True

    def _look(self, segment_id: int, row: SegmentRow) -> None:
        for node in row.nodes:
            self._segments_on[node] += 1
        if row.state != SegmentState.COMMITTED:
            for node in self._draining.intersection(row.nodes):
                self._count(Work.DRAIN, node, 0)
            self._awaited = self._awaited or not self._given_up.isdisjoint(row.nodes)
            return
        for node in row.nodes:
            self._bytes_on[node] += row.shard_bytes
        damaged = self._damaged.get(segment_id, ()) if self._damaged else ()
        if not damaged and self._good.issuperset(row.nodes):
            if self._balance is not None:
                self._level(shards_of(segment_id, row))
            return
        bad = [shard for shard, node in damaged if shard < len(row.nodes) and row.nodes[shard] == node]
        shards = shards_of(segment_id, row, bad)
        self._weigh(shards, assess(shards, self._facts, self._draining))

    def _level(self, shards: Shards) -> None:
        if self._balance is None:
            return
        move = self._balance.move(shards)
        if move is not None:
            shard, target = move
            self._balance.moved(shards.nodes[shard], target, shards.shard_bytes)
            self._count(Work.REBALANCE, 0, shards.shard_bytes)
            if self._wanted.rebalance and shards.segment_id not in self._held:
                self._urgent.add(shards.segment_id, assess(shards, self._facts), Work.REBALANCE)

    def _weigh(self, shards: Shards, found: Assessment) -> None:
        if found.bad:
            self._endangered += 1
            self._critical += found.readable == shards.k
        if not found.is_readable(shards.k):
            self._lost += 1
            for node_id in shards.nodes:
                node = self._facts.get(node_id)
                if node is None or not node.attached:
                    self._lost_with[node_id] += 1
            return
        if found.bad:
            self._losses[found.bad, len(shards.nodes)] += 1
        doable: list[Work] = []
        for need in found.needs:
            drained = shards.nodes[need.shard] if need.work == Work.DRAIN else 0
            self._count(need.work, drained, shards.shard_bytes)
            if not self._has_place(shards, need.work, shards.nodes[need.shard]):
                self._homeless += 1
                self._widest = max(self._widest, len(shards.nodes))
            elif self._is_wanted(need.work, drained):
                doable.append(need.work)
        if doable and shards.segment_id not in self._held:
            self._urgent.add(shards.segment_id, found, min(doable))

    def _is_wanted(self, work: Work, node: int) -> bool:
        wanted = self._wanted
        if work == Work.DRAIN:
            return node in wanted.draining
        return wanted.rebuild if work == Work.REBUILD else wanted.repair

    def _has_place(self, shards: Shards, work: Work, home: int) -> bool:
        """Whether there is a node for it at all: those that there are none for must not fill the list."""
        if work == Work.REPAIR and (node := self._facts.get(home)) is not None and self._fits(node, shards, work):
            return True
        return any(node.node_id not in shards.nodes and self._fits(node, shards, work) for node in self._takers)

    @staticmethod
    def _fits(node: NodeFacts, shards: Shards, work: Work) -> bool:
        room_bytes = node.room_bytes if work == Work.DRAIN else node.spare_bytes
        return node.state == NodeState.IN and room_bytes >= shards.shard_bytes

    def _count(self, work: Work, node: int, shard_bytes: int) -> None:
        shards, count = self._left.get((work, node), (0, 0))
        self._left[work, node] = shards + 1, count + shard_bytes

    def found(self) -> Found:
        """What it has found, at the end."""
        losses = tuple((bad, width, count) for (bad, width), count in sorted(self._losses.items(), reverse=True))
        redundancy = Redundancy(
            endangered=self._endangered,
            critical=self._critical,
            lost=self._lost,
            losses=losses,
            lost_with=tuple(sorted(node for node, _ in self._lost_with.most_common(MAX_NAMED_NODES))),
            homeless=self._homeless,
            widest=self._widest,
            segments_on=dict(self._segments_on),
        )
        return Found(
            redundancy, self._urgent.segments(), self._urgent.complete, self._left, dict(self._bytes_on),
            self._draining, self._balance is not None, self._awaited,
        )  # fmt: skip
