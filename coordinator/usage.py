"""What nodes of the tree hold, and what deleting some of them would free.

`usage_of` reads what is kept with every write (`core/versions/weights.py`): a few look-ups, charged before dedupe.
`freed_by` is exact, dedupe and sharing counted, and looks at all slots of the lineages concerned; memory does not grow
with their number. Reads only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from redfs.core.errors import NotAllowed
from redfs.core.kv import ReadKv
from redfs.core.records import Kind, Slot, decode_slot
from redfs.core.tables import (
    BLOCKS,
    SEGMENTS,
    VolumeKind,
    VolumeRow,
    VolumeState,
    decode_block,
    decode_segment,
    u64_key,
)
from redfs.core.versions.layout import VERSIONS, Holder, HolderType, birth_of, version_prefix
from redfs.core.versions.reader import VersionReader
from redfs.core.versions.weights import HEAD, NOTHING, Weight, freed_by_head, freed_by_pin, shown_by
from redfs.core.volume_tree import ReadTree, require_changeable

MAX_NAMES = 4096
"""Nodes of one question: as many as a volume has snapshots."""
MAX_COUNTED_BLOCKS = 1_000_000
"""Blocks whose references are counted in one pass: some 100 MB. More take more passes."""
PAGE = 4096
"""Versions looked at between two pauses."""


class Usage(NamedTuple):
    """Of one node of the tree."""

    shown: Weight
    """What its files refer to."""
    alone: Weight
    """What deleting it and nothing else frees, before dedupe."""


def usage_of(kv: ReadKv, versions: VersionReader, row: VolumeRow) -> Usage:
    """Nothing for the zero volume and for deleted nodes, which hold nothing of their own."""
    if row.kind == VolumeKind.ZERO or row.state != VolumeState.OK:
        return Usage(NOTHING, NOTHING)
    if row.epoch:
        return Usage(shown_by(kv, row.lineage, row.epoch), freed_by_pin(kv, versions, row.lineage, row.epoch))
    return Usage(shown_by(kv, row.lineage, HEAD), freed_by_head(kv, versions, row.lineage))


class Freed(NamedTuple):
    """What goes with a set of nodes, once the background has done its work."""

    logical_bytes: int
    """That files of these nodes alone refer to."""
    unique_bytes: int
    """Plain bytes of blocks that nothing refers to then."""
    stored_bytes: int
    """Stored bytes of these blocks."""
    segment_bytes: int
    """Bytes of all shards of segments in which nothing is alive then: what disks get back at once."""


class _Change(NamedTuple):
    """Who sees a lineage, before and after."""

    pins_before: list[int]
    pins_after: list[int]
    head_before: bool
    head_after: bool


def freed_by(kv: ReadKv, names: Iterable[str], pause: Callable[[], None] = lambda: None) -> Freed:
    """What deleting exactly these nodes frees. Raises NotFound, NotAllowed; and what `pause` does."""
    versions = VersionReader(kv)
    rows = {row.volume_id: row for row in map(ReadTree(kv).named, dict.fromkeys(names))}
    if len(rows) > MAX_NAMES:
        raise NotAllowed(f"at most {MAX_NAMES} volumes and snapshots are looked at together")
    for node in rows.values():
        require_changeable(node, "deleted")
    changes = _changes(kv, versions, rows.values())
    logical = unique = stored = segment_bytes = 0
    in_segments: dict[int, list[int]] = {}
    """Stored bytes of blocks that go anyway, and of those that go with the nodes, by segment."""
    low, high = 0, None
    while True:
        going: dict[int, int] = {}
        garbage: dict[int, int] = {}
        for was_seen, pieces in _unseen(kv, changes, pause):
            counts = going if was_seen else garbage
            for piece in pieces:
                if was_seen and low == 0:
                    logical += piece.length
                if piece.block >= low and (high is None or piece.block < high):
                    counts[piece.block] = counts.get(piece.block, 0) + 1
            if len(going) + len(garbage) > MAX_COUNTED_BLOCKS:
                blocks = sorted({*going, *garbage})
                high = blocks[len(blocks) // 2]
                going = {block: refs for block, refs in going.items() if block < high}
                garbage = {block: refs for block, refs in garbage.items() if block < high}
        for block in going.keys() | garbage.keys():
            raw = kv.get(BLOCKS, u64_key(block))
            if raw is None or (row := decode_block(raw)).refs != going.get(block, 0) + garbage.get(block, 0):
                continue
            segment = in_segments.setdefault(row.segment_id, [0, 0])
            segment[block in going] += row.stored_bytes
            if block in going:
                unique += row.plain_bytes
                stored += row.stored_bytes
        if high is None:
            break
        low, high = high, None
    for segment_id, (cleaned, freed) in in_segments.items():
        raw = kv.get(SEGMENTS, u64_key(segment_id))
        if freed and raw is not None and (found := decode_segment(raw)).live_bytes == cleaned + freed:
            segment_bytes += found.shard_bytes * found.layout.width
    return Freed(logical, unique, stored, segment_bytes)


def _changes(kv: ReadKv, versions: VersionReader, rows: Iterable[VolumeRow]) -> dict[int, _Change]:
    """What becomes of the pins and heads: a pin goes with its last holder, a lineage with its last pin and head."""
    heads: set[int] = set()
    pins: dict[int, set[int]] = {}
    holders: dict[tuple[int, int], set[Holder]] = {}
    waiting: list[tuple[int, int, Holder]] = []
    ended: list[int] = []
    for row in rows:
        if row.epoch:
            waiting.append((row.lineage, row.epoch, Holder(HolderType.SNAPSHOT, row.volume_id)))
        else:
            heads.add(row.lineage)
            ended.append(row.lineage)
    while waiting or ended:
        if waiting:
            lineage, epoch, holder = waiting.pop()
            left = holders.setdefault((lineage, epoch), set(versions.holders(lineage, epoch)))
            left.discard(holder)
            if left:
                continue
            pins.setdefault(lineage, set()).add(epoch)
        else:
            lineage = ended.pop()
        record = versions.lineage(lineage)
        has_head = record.has_head and lineage not in heads
        if not has_head and record.parent and set(versions.pins(lineage)) == pins.get(lineage, set()):
            waiting.append((record.parent, record.fork_epoch, Holder(HolderType.FORK, lineage)))
    changes: dict[int, _Change] = {}
    for lineage, record in versions.lineages():
        before = [int(epoch) for epoch in versions.pins(lineage)]
        unfinished = record.tail_pending or versions.dropping_pins(lineage)
        if lineage in heads or lineage in pins or unfinished:
            after = [epoch for epoch in before if epoch not in pins.get(lineage, ())]
            changes[lineage] = _Change(before, after, record.has_head, record.has_head and lineage not in heads)
    return changes


def _unseen(kv: ReadKv, changes: dict[int, _Change], pause: Callable[[], None]) -> Iterator[tuple[bool, Slot]]:
    """(whether somebody sees it now, its pieces) of every slot version that nobody will see."""
    for lineage, change in changes.items():
        newer: tuple[bytes, int | None] = (b"", None)
        low, high = version_prefix(lineage, Kind.SLOT), version_prefix(lineage, Kind.SLOT + 1)
        for at, (key, value) in enumerate(kv.scan(VERSIONS, low, high)):
            if at % PAGE == 0:
                pause()
            base, birth = key[:-8], birth_of(key)
            death = newer[1] if newer[0] == base else None
            newer = base, birth
            if value and not _is_seen(change.pins_after, change.head_after, birth, death):
                yield _is_seen(change.pins_before, change.head_before, birth, death), decode_slot(value)


def _is_seen(pins: list[int], has_head: bool, birth: int, death: int | None) -> bool:
    at = bisect_left(pins, birth)
    return (has_head and death is None) or (at < len(pins) and (death is None or pins[at] < death))
