"""What cleaning does next: which segments' live blocks go together into one new segment. A pure plan.

Data is never changed in place, so what is deleted or overwritten leaves holes in segments, small flushes are stored as
whole copies, and while nodes were few segments were written narrower than their policy. The live blocks of such
segments are packed into full ones; a segment with nothing live any more is deleted.

Which ones is decided as in log-structured file systems (Rosenblum and Ousterhout, "The design and implementation of a
log-structured file system", 1992): by what is freed for each byte that is moved, older ones first, because young
segments still lose blocks by themselves.

A pool that nobody writes to comes to rest: each plan leaves fewer segments that lack redundant shards, or as many and
less on the disks.

Nothing here can fail. What is planned may be out of date when it is carried out; who does that looks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redfs.core.errors import TooFewNodes
from redfs.core.policy import Layout, Policy, shrink
from redfs.core.segments import MAX_PAYLOAD_BYTES, plan_layout
from redfs.core.tables import Domain, SegmentRow, SegmentState

PAGE_BYTES = 4096
"""A shard on disk takes whole pages, and one for its header."""
LEAST_RATIO = 0.4
"""Bytes freed for each byte read or written, below which moving does not pay: a segment of which half is live frees
0.6, as does one of three copies that becomes 4+2."""
FULL_BYTES = MAX_PAYLOAD_BYTES * 3 // 4
"""A new segment at least this full is made at once; one that is less so waits for more to come."""
MAX_SOURCES = 1024
"""Segments that one plan empties: their rows and shards are settled in one command."""
MAX_OPEN_BINS = 8
"""Targets filled side by side: sources of many sizes fit somewhere, and what was written together stays together."""
MAX_CANDIDATES = 16_384
"""Held while a plan is made: some megabytes. The rest of a larger pool comes next."""


class Source(NamedTuple):
    """A committed segment, as the plan sees it."""

    segment_id: int
    layout: Layout
    domain: Domain
    shard_bytes: int
    live_bytes: int
    age_s: float
    """Since it was committed."""

    @property
    def disk_bytes(self) -> int:
        return disk_bytes(self.layout, self.shard_bytes)


class Plan(NamedTuple):
    """One new segment."""

    domain: Domain
    layout: Layout
    """Of the new segment."""
    sources: tuple[Source, ...]
    """By id."""
    live_bytes: int
    freed_bytes: int
    """On disks, once the sources are gone and the target is there; negative where redundancy costs more."""
    strengthens: bool
    """Sources lack redundant shards that the policy promises."""
    score: float
    """Plans with the highest first."""


class Thresholds(NamedTuple):
    """How eager to be."""

    settle_s: float
    """Younger segments stay as they are."""
    fill_s: float
    """A target that would not be full is made where something that goes into it is this old."""


EAGER = Thresholds(0.0, 0.0)
"""All there is to do, now: somebody asked for it."""


def disk_bytes(layout: Layout, shard_bytes: int) -> int:
    """What a segment's shards take on the disks."""
    return layout.width * (PAGE_BYTES + -(-shard_bytes // PAGE_BYTES) * PAGE_BYTES)


def full_layout(domain: Domain, nodes: int, usable: int) -> Layout | None:
    """The widest layout that the policy has on the pool's `nodes`; None where fewer can be written to (`usable`).

    Whoever is away only now comes back or is given up: until then nothing is packed, rather than packed twice.
    """
    try:
        layout = shrink(Policy(domain.k, domain.m), nodes)
    except TooFewNodes:
        return None
    return layout if usable >= layout.width else None


def target_layout(full: Layout, payload_bytes: int) -> Layout:
    """The layout for a payload: the full one, or copies where the payload is so small that they take less room."""
    copies = Layout(1, full.m)

    def cost(layout: Layout) -> int:
        return disk_bytes(layout, plan_layout(payload_bytes, layout.k, layout.m).shard_bytes)

    return min((full, copies), key=cost)


def source_of(segment_id: int, row: SegmentRow, now_ns: int) -> Source | None:
    """A segment's row as a source; None for one that is not committed."""
    if row.state != SegmentState.COMMITTED:
        return None
    age_s = max(0.0, (now_ns - row.since_ns) / 1e9)
    return Source(segment_id, row.layout, row.domain, row.shard_bytes, row.live_bytes, age_s)


def is_candidate(source: Source, full: Layout, thresholds: Thresholds) -> bool:
    """Whether the segment is worth moving, if it finds company."""
    if source.layout.m < full.m:
        return True
    if source.age_s < thresholds.settle_s:
        return False
    written = source.live_bytes * full.width // full.k
    freed = source.disk_bytes - written
    if freed <= 0:
        return False
    return source.layout.k < full.k or freed >= LEAST_RATIO * (source.live_bytes + written)


class _Bin:
    """Sources that go into one target."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.live_bytes = 0

    def fits(self, source: Source) -> bool:
        return self.live_bytes + source.live_bytes <= MAX_PAYLOAD_BYTES and len(self.sources) < MAX_SOURCES

    def add(self, source: Source) -> None:
        self.sources.append(source)
        self.live_bytes += source.live_bytes


def plans(sources: Iterable[Source], full: Layout, thresholds: Thresholds) -> list[Plan]:
    """The plans for candidates of one domain, best first. Each source is in one of them at most."""
    closed: list[_Bin] = []
    bins: list[_Bin] = []
    for source in sorted(sources):
        fitting = next((found for found in bins if found.fits(source)), None)
        if fitting is None:
            if len(bins) >= MAX_OPEN_BINS:
                fullest = max(bins, key=lambda found: found.live_bytes)
                bins.remove(fullest)
                closed.append(fullest)
            fitting = _Bin()
            bins.append(fitting)
        fitting.add(source)
    made = (_plan(found.sources, full, thresholds) for found in (*closed, *bins))
    return sorted((plan for plan in made if plan is not None), key=lambda plan: -plan.score)


def _plan(sources: Sequence[Source], full: Layout, thresholds: Thresholds) -> Plan | None:
    """The plan for these sources, if it pays."""
    live_bytes = sum(source.live_bytes for source in sources)
    layout = target_layout(full, live_bytes)
    written = disk_bytes(layout, plan_layout(live_bytes, layout.k, layout.m).shard_bytes)
    freed = sum(source.disk_bytes for source in sources) - written
    ratio = freed / (live_bytes + written)
    strengthens = any(source.layout.m < full.m for source in sources)
    oldest_s = max(source.age_s for source in sources)
    if not strengthens:
        widens = layout == full and any(source.layout.k < full.k for source in sources)
        if freed <= 0 or not (widens or ratio >= LEAST_RATIO):
            return None
        is_full = live_bytes >= FULL_BYTES or len(sources) >= MAX_SOURCES
        if not is_full and oldest_s < thresholds.fill_s:
            return None
    score = (float("inf") if strengthens else ratio) * (1 + oldest_s)
    return Plan(sources[0].domain, layout, tuple(sources), live_bytes, freed, strengthens, score)
