"""What is to be done about the shards of a segment: which to make, on which node, how urgent; pure functions.

There is one primitive: *make shard s of segment g on node n*. A rebuild makes a shard that is lost (its node is out,
lost, removed, or its disk failed), a repair one that is damaged or missing on a node that is there, a drain one that is
to leave its node, a rebalance one that would lie better elsewhere. What is known of nodes comes in as `NodeFacts`, a
segment as `Shards`; `assess` says what is wrong and what is to be made, `plan` chooses the place and the sources.

The rules of placement hold for every shard that is made (`core/placement.py`): no two shards of a segment on one node,
as few as possible in one failure domain, nodes drawn by free bytes. A node gets a shard only where it is in, was up
for long enough, was compared with the rows since it attached, and has room. A segment of which fewer than k shards can
be read is *unreadable*: nothing is made of it, nothing is thrown away, and it is planned again when nodes are back.

`Balance` knows how full nodes are by the rows. Each of its moves makes either the spread over domains better, or leaves
that as it is and makes the spread of bytes better, so that moves come to an end whatever their order.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import NamedTuple

from redfs.core.placement import Candidate, place
from redfs.core.tables import NodeState

FILL_TOLERANCE = 0.03
"""Nodes are level when each holds its share up to this part of it."""
SLACK_SHARDS = 2
"""Differences of so few shards are none: a pool that is nearly empty need not be level to the byte."""


class Work(IntEnum):
    """Why a shard is made, the most urgent first."""

    REBUILD = 1
    REPAIR = 2
    DRAIN = 3
    REBALANCE = 4


class NodeFacts(NamedTuple):
    """One node."""

    node_id: int
    state: int
    """NodeState."""
    attached: bool
    """It reports."""
    failed: bool
    """Its disk failed: what lies there counts as lost, but may be readable."""
    steady: bool
    """It has been up for long enough to be given work."""
    compared: bool
    """What it holds was compared with the rows since it attached."""
    domain: str
    capacity_bytes: int
    room_bytes: int
    """That writes, drains and rebalances may fill."""
    spare_bytes: int
    """That rebuilds and repairs may fill: some of what is held back too."""
    away_s: float = 0.0

    @property
    def up(self) -> bool:
        return self.attached and not self.failed

    @property
    def given_up(self) -> bool:
        """What lies there is to be made anew elsewhere."""
        return self.failed or self.state in (NodeState.OUT, NodeState.LOST)

    @property
    def takes(self) -> bool:
        """It may be given shards, its room apart."""
        return self.state == NodeState.IN and self.up and self.steady and self.compared


Facts = Mapping[int, NodeFacts]


class Shards(NamedTuple):
    """A committed segment."""

    segment_id: int
    k: int
    shard_bytes: int
    nodes: tuple[int, ...]
    """By shard."""
    damaged: frozenset[int] = frozenset()
    """Shards that are damaged or missing on the node that should have them."""


class Fate(Enum):
    """How a shard stands."""

    GOOD = "good"
    LEAVING = "leaving"
    """Good, on a node that is drained."""
    AWAY = "away"
    """Its node is down and may come back: nothing is done."""
    DAMAGED = "damaged"
    """Its node is up and has it damaged or not at all."""
    LOST = "lost"


class Need(NamedTuple):
    """A shard that should be made."""

    work: Work
    shard: int


class Assessment(NamedTuple):
    """How a segment stands."""

    bad: int
    """Shards that are lost, damaged or away."""
    readable: int
    """Shards that can be read now."""
    spare: int
    """Losses that it bears, nodes that were given up not counted on; negative: only they hold it together."""
    needs: tuple[Need, ...]

    def is_readable(self, k: int) -> bool:
        return self.readable >= k


def fate_of(shards: Shards, shard: int, facts: Facts) -> Fate:
    """How one shard stands."""
    node = facts.get(shards.nodes[shard])
    if node is None or node.given_up:
        return Fate.LOST
    if not node.up:
        return Fate.AWAY
    if shard in shards.damaged:
        return Fate.DAMAGED
    return Fate.LEAVING if node.state == NodeState.DRAINING else Fate.GOOD


def _readable(shards: Shards, facts: Facts, *, failed: bool) -> list[int]:
    """Shards that can be read; with `failed` also those on disks that failed and still answer."""
    found = []
    for shard, node_id in enumerate(shards.nodes):
        node = facts.get(node_id)
        if node is not None and node.attached and (failed or not node.failed) and shard not in shards.damaged:
            found.append(shard)
    return found


def assess(shards: Shards, facts: Facts, draining: Collection[int] = ()) -> Assessment:
    """What is wrong with a segment. `draining`: the nodes whose shards may be moved away now."""
    fates = [fate_of(shards, shard, facts) for shard in range(len(shards.nodes))]
    safe = sum(fate in (Fate.GOOD, Fate.LEAVING) for fate in fates)
    needs = [Need(Work.REBUILD, shard) for shard, fate in enumerate(fates) if fate is Fate.LOST]
    needs += [Need(Work.REPAIR, shard) for shard, fate in enumerate(fates) if fate is Fate.DAMAGED]
    needs += [
        Need(Work.DRAIN, shard)
        for shard, fate in enumerate(fates)
        if fate is Fate.LEAVING and shards.nodes[shard] in draining
    ]
    readable = len(_readable(shards, facts, failed=True))
    return Assessment(len(fates) - safe, readable, safe - shards.k, tuple(needs))


# ---------------------------------------------------------------- one shard


class Step(NamedTuple):
    """Make a shard."""

    work: Work
    segment_id: int
    shard: int
    source: int
    """Where it lies by the row."""
    target: int
    """Where it is made; the same for a repair in place, whose bad copy is set aside."""
    unusable: tuple[int, ...]
    """Shards that must not be read."""
    reads_from: tuple[int, ...]
    """Nodes that it may be made from."""
    shard_bytes: int


class Blocked(Enum):
    """Why a shard cannot be made now."""

    BUSY = "the nodes that it takes are busy"
    NO_PLACE = "no node can take it"
    UNREADABLE = "too few of the other shards can be read"


def plan(
    shards: Shards,
    need: Need,
    facts: Facts,
    *,
    avoid: Sequence[int] = (),
    busy: Collection[int] = (),
    busy_sources: Collection[int] = (),
) -> Step | Blocked:
    """How to make one shard. `avoid`: nodes that failed to make it, the last one at the end; where there are no others,
    the one that failed longest ago has its turn again. `busy`: those that make enough shards already; `busy_sources`:
    those that are read enough."""
    target = _target(shards, need, facts, avoid, busy)
    return target if isinstance(target, Blocked) else step_to(shards, need, target, facts, busy_sources)


def step_to(
    shards: Shards, need: Need, target: int, facts: Facts, busy_sources: Collection[int] = ()
) -> Step | Blocked:
    """How to make one shard on a node that was chosen already."""
    sources, unusable = _sources(shards, need.shard, facts)
    if not sources:
        return Blocked.UNREADABLE
    needed = 1 if need.shard in sources else shards.k
    reads_from = tuple(shards.nodes[shard] for shard in sources)
    if sum(node not in busy_sources for node in reads_from) < needed:
        return Blocked.BUSY
    return Step(
        need.work, shards.segment_id, need.shard, shards.nodes[need.shard], target, unusable, reads_from,
        shards.shard_bytes,
    )  # fmt: skip


def _sources(shards: Shards, shard: int, facts: Facts) -> tuple[list[int], tuple[int, ...]]:
    """Shards to make it from, and those that must not be read. Disks that failed are asked where it takes them."""
    for failed in (False, True):
        usable = _readable(shards, facts, failed=failed)
        if shard in usable or len(usable) >= shards.k:
            unusable = tuple(other for other in range(len(shards.nodes)) if other not in usable)
            # Where it can be read as it is, nothing needs to be decoded: the others stand by.
            return ([shard] if shard in usable else usable), unusable
    return [], ()


def _target(shards: Shards, need: Need, facts: Facts, avoid: Sequence[int], busy: Collection[int]) -> int | Blocked:
    home = _home(shards, need, facts)
    if home is not None and home.node_id not in avoid:
        return home.node_id if home.takes and home.node_id not in busy else Blocked.BUSY
    spare = need.work in (Work.REBUILD, Work.REPAIR)
    fit = [
        node
        for node in facts.values()
        if node.takes
        and node.node_id not in shards.nodes
        and (node.spare_bytes if spare else node.room_bytes) >= shards.shard_bytes
    ]
    untried = [node for node in fit if node.node_id not in avoid]
    levels = _domain_levels(shards, need.shard, facts)
    least = min((levels[node.domain] for node in untried or fit), default=0)
    best = [node for node in untried or fit if levels[node.domain] == least]
    if not untried:
        tried = best if home is None else [*best, home]
        if not tried:
            return Blocked.NO_PLACE
        again = min(tried, key=lambda node: avoid.index(node.node_id))
        return again.node_id if again.takes and again.node_id not in busy else Blocked.BUSY
    free = [Candidate(node.node_id, node.room_bytes, node.domain) for node in best if node.node_id not in busy]
    if not free:
        return Blocked.BUSY
    return place(shards.segment_id, free, 1)[0]


def _home(shards: Shards, need: Need, facts: Facts) -> NodeFacts | None:
    """The node that a bad shard lies on, where it can be made anew there."""
    home = facts.get(shards.nodes[need.shard])
    fits = (
        need.work == Work.REPAIR
        and home is not None
        and home.state == NodeState.IN
        and home.up
        and home.spare_bytes >= shards.shard_bytes
    )
    return home if fits else None


def _domain_levels(shards: Shards, without: int, facts: Facts) -> Counter[str]:
    """Shards that stay in each failure domain. The unnamed domain is one of each node's own."""
    return Counter(
        facts[node].domain
        for shard, node in enumerate(shards.nodes)
        if shard != without and node in facts and facts[node].domain and not facts[node].given_up
    )


# ---------------------------------------------------------------- order


class MostUrgent:
    """The most endangered of any number of segments; of equals, those with the smaller ids."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, int, int, int]] = []
        self.complete = True
        """Nothing was left out."""

    def add(self, segment_id: int, found: Assessment, work: Work) -> None:
        entry = (-(found.bad == 0), -found.spare, -work, -segment_id)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)
            self.complete = False

    def segments(self) -> list[int]:
        """Most urgent first."""
        return [-entry[3] for entry in sorted(self._heap, reverse=True)]


# ---------------------------------------------------------------- balance


class Balance:
    """How full the nodes are that take shards, and which moves would level them."""

    def __init__(self, facts: Facts, bytes_on: Mapping[int, int]) -> None:
        self._facts = {n: node for n, node in facts.items() if node.takes and node.capacity_bytes > 0}
        self._all = facts
        self._bytes = {n: bytes_on.get(n, 0) for n in self._facts}
        self._room = {n: node.room_bytes for n, node in self._facts.items()}
        capacity = sum(node.capacity_bytes for node in self._facts.values())
        self._mean = sum(self._bytes.values()) / capacity if capacity else 0.0
        self._has_domains = any(node.domain for node in facts.values())

    def over_bytes(self, node: int) -> float:
        """What the node holds beyond its share; negative: less."""
        return self._bytes[node] - self._mean * self._facts[node].capacity_bytes

    def move(self, shards: Shards, busy: Collection[int] = ()) -> tuple[int, int] | None:
        """(shard, node) of a move that makes things better; None: there is none. For segments whose shards are good."""
        return self._spread_domains(shards, busy) or self._level(shards, busy)

    def moved(self, source: int, target: int, count: int) -> None:
        """So many bytes went, or are going, from one to the other."""
        for node, change in ((source, -count), (target, count)):
            if node in self._bytes:
                self._bytes[node] += change
                self._room[node] -= max(0, change)

    def _fit(self, shards: Shards, busy: Collection[int]) -> Iterable[int]:
        for node in self._facts:
            if node not in shards.nodes and node not in busy and self._room[node] >= shards.shard_bytes:
                yield node

    def _fill(self, node: int) -> float:
        return self._bytes[node] / self._facts[node].capacity_bytes

    def _spread_domains(self, shards: Shards, busy: Collection[int]) -> tuple[int, int] | None:
        """From a domain with several shards to one with fewer, by two at least: else nothing is won."""
        all_levels = _domain_levels(shards, -1, self._all) if self._has_domains else Counter()
        if not all_levels or max(all_levels.values()) < 2:
            return None
        fullest = max(all_levels.values())
        found = [
            (all_levels[self._facts[node].domain] if self._facts[node].domain else 0, self._fill(node), node)
            for node in self._fit(shards, busy)
        ]
        if not found or min(found)[0] > fullest - 2:
            return None
        from_domain = min(domain for domain, level in all_levels.items() if level == fullest)
        movable = [
            shard
            for shard, node in enumerate(shards.nodes)
            if node in self._all and self._all[node].domain == from_domain
        ]
        shard = max(movable, key=lambda s: (self._bytes.get(shards.nodes[s], 0), -s))
        return shard, min(found)[2]

    def _level(self, shards: Shards, busy: Collection[int]) -> tuple[int, int] | None:
        """From the fullest node of the segment to the emptiest that is none of its own."""
        size = shards.shard_bytes
        homes = [(self._fill(node), shard) for shard, node in enumerate(shards.nodes) if node in self._facts]
        for _, shard in sorted(homes, reverse=True):
            source = shards.nodes[shard]
            if self.over_bytes(source) <= 0:
                return None
            levels = _domain_levels(shards, shard, self._all) if self._has_domains else Counter()
            bound = levels[self._facts[source].domain]
            fit = [node for node in self._fit(shards, busy) if levels[self._facts[node].domain] <= bound]
            if not fit:
                continue
            target = min(fit, key=lambda node: (self._fill(node), node))
            if self._is_worth(source, target, size):
                return shard, target
        return None

    def _is_worth(self, source: int, target: int, size: int) -> bool:
        """One of both is off by more than the slack, and the move brings the fills nearer to one another."""
        far = self.over_bytes(source) > self._slack(source, size) or self.over_bytes(target) < -self._slack(
            target, size
        )
        ours, theirs = self._facts[source].capacity_bytes, self._facts[target].capacity_bytes
        nearer = (self.over_bytes(source) - size / 2) / ours > (self.over_bytes(target) + size / 2) / theirs
        return far and self.over_bytes(target) < 0 and nearer

    def _slack(self, node: int, size: int) -> float:
        return max(FILL_TOLERANCE * self._mean * self._facts[node].capacity_bytes, SLACK_SHARDS * size)
