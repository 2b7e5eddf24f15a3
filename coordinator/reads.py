"""What sessions read: records of a volume, where blocks lie, which fingerprints are stored. Over read access alone.

Every function looks at one committed state. A session sees the volumes that it attached and no others; LeaseLapsed
where one was taken away. Every answer has a bound on its records, so that it fits in a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple

from redfs.coordinator.segments import MAX_FINGERPRINTS, domain_of, find_block
from redfs.coordinator.sessions import view_of
from redfs.core.errors import InvalidArgument, LeaseLapsed
from redfs.core.ids import MAX_BLOCKS_PER_SEGMENT, Epoch, Lineage, block_id
from redfs.core.kv import ReadKv
from redfs.core.records import (
    OBJECT_BYTES,
    Kind,
    decode_bucket,
    decode_slot,
    inode_key,
    slot_key,
)
from redfs.core.tables import (
    ATTACHMENTS,
    BLOCKS,
    MOVED,
    SEGMENTS,
    BlockRow,
    SegmentRow,
    VolumeRow,
    decode_block,
    decode_segment,
    decode_u64,
    pair_key,
    pair_range,
    split_pair,
    u64_key,
)
from redfs.core.versions import Pin
from redfs.core.versions.ancestry import Ancestry
from redfs.core.versions.changes import ChangedObjects, candidates, sees, windows_between
from redfs.core.versions.reader import VersionReader, check_object
from redfs.core.volume_tree import ReadTree

MAX_KEYS = 16_384
"""Records asked for at once."""
MAX_SCAN = 4096
"""Records in one page of a scan."""
MAX_BUCKETS = 2048
"""Directory buckets in one page: with their inodes about half a mebibyte."""
MAX_SLOTS = 4096
"""Slots in one answer, with up to 16 blocks each: half a gibibyte of file."""
MAX_BLOCKS = 65_536
"""Blocks located at once."""
MAX_ANSWER_BYTES = 8 << 20
"""Records in one page end at this size: a quarter of a message, extended attributes are large."""

CHANGES_PAGE = 256
"""Records compared before the bounds of a page are looked at."""
CHANGES_LOOKED_AT = 16_384
"""Records compared for one page of changes, whether they differ or not: about a quarter of a second."""
CHANGED_KINDS = (Kind.INODE, Kind.DIRENT, Kind.SLOT, Kind.XATTR)

Row = tuple[int, bytes, bytes]
"""(kind, object, value)."""


class VolumeReader(NamedTuple):
    """One volume at one committed state."""

    row: VolumeRow
    epoch: int
    versions: VersionReader

    def get(self, kind: int, obj: bytes) -> bytes | None:
        return self.versions.get(self.row.lineage, self.epoch, kind, obj)

    def scan(self, kind: int, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return self.versions.scan(self.row.lineage, self.epoch, kind, start, end, limit)


class Located(NamedTuple):
    """Blocks and the segments that they lie in."""

    blocks: list[tuple[int, BlockRow]]
    segments: list[tuple[int, SegmentRow]]


def reader_of(kv: ReadKv, row: VolumeRow, ancestry: Ancestry | None = None) -> VolumeReader:
    """The node of the tree as of its epoch, a live one as of its head.

    `ancestry` (the environment's) spares the walk through the generations; `kv` must be of a committed state then.
    """
    versions = VersionReader(kv, ancestry)
    return VolumeReader(row, row.epoch or versions.head_epoch(row.lineage), versions)


def volume_reader(kv: ReadKv, session_id: int, volume_id: int, ancestry: Ancestry | None = None) -> VolumeReader:
    """A volume or view that the session attached. LeaseLapsed where it has it no more."""
    attachment = kv.get(ATTACHMENTS, pair_key(session_id, volume_id))
    row = None if attachment is None else view_of(attachment) or ReadTree(kv).get(volume_id)
    if row is None:
        raise LeaseLapsed(f"volume {volume_id} is not attached to this session any more: mount it again")
    return reader_of(kv, row, ancestry)


def get_rows(volume: VolumeReader, keys: Sequence[tuple[int, bytes]]) -> list[Row]:
    """The records at these keys, in order; an empty value where there is none."""
    if len(keys) > MAX_KEYS:
        raise InvalidArgument(f"at most {MAX_KEYS} records are read at once")
    for kind, obj in keys:
        check_object(kind, obj)
    return [(kind, obj, volume.get(kind, obj) or b"") for kind, obj in keys]


def read_folder(volume: VolumeReader, ino: int, after: bytes, limit: int) -> tuple[list[Row], bytes, bool]:
    """A page of a folder: (bucket and inode rows, last bucket's object, whether that was all)."""
    start = after + b"\0" if after else inode_key(ino).obj
    if after and len(after) != OBJECT_BYTES[Kind.DIRENT]:
        raise InvalidArgument("a folder is read on from the last directory entry's object")
    limit = max(1, min(limit or MAX_BUCKETS, MAX_BUCKETS))
    buckets = volume.scan(Kind.DIRENT, start, inode_key(ino + 1).obj, limit)
    rows: list[Row] = [(Kind.DIRENT, obj, value) for obj, value in buckets]
    named: dict[int, None] = {}
    for _, value in buckets:
        for entry in decode_bucket(value):
            named[entry.ino] = None
    for child in named:
        key = inode_key(child)
        rows.append((key.kind, key.obj, volume.get(*key) or b""))
    return rows, buckets[-1][0] if buckets else after, len(buckets) < limit


def scan_rows(volume: VolumeReader, kind: int, start: bytes, end: bytes, limit: int) -> tuple[list[Row], bool]:
    """Records of one kind in [start, end): (rows, whether those were all)."""
    if kind not in OBJECT_BYTES or len(start) > OBJECT_BYTES[Kind(kind)] + 1:
        raise InvalidArgument(f"there are no records of kind {kind}, or none like the first one wanted")
    limit = max(1, min(limit or MAX_SCAN, MAX_SCAN))
    found = volume.versions.scan(volume.row.lineage, volume.epoch, kind, start, end or None, limit)
    rows: list[Row] = []
    size = 0
    for obj, value in found:
        size += len(obj) + len(value)
        if rows and size > MAX_ANSWER_BYTES:
            return rows, False
        rows.append((kind, obj, value))
    return rows, len(found) < limit


def changed_rows(
    kv: ReadKv, since: VolumeReader, volume: VolumeReader, cursor: bytes, limit: int
) -> tuple[list[Row], bytes | None]:
    """Records that differ from `since`, of all kinds but orphans, and where to go on (None: nowhere).

    By inode, then by kind; a record that is gone has an empty value. A page may be empty and not the last. `since` must
    be an ancestor: what it shows and `volume` does not was deleted. Raises InvalidArgument.
    """
    points = [Pin(Lineage(side.row.lineage), Epoch(side.epoch)) for side in (since, volume)]
    windows = windows_between(volume.versions, *points)
    if not sees(volume.versions, points[1], points[0]):
        raise InvalidArgument(f"{since.row.name!r} is no ancestor of {volume.row.name!r}: send all of it")
    limit = max(1, min(limit or MAX_SCAN, MAX_SCAN))
    at, kind_at, start = _split_cursor(cursor)
    page, complete = candidates(kv, windows, at - 1, limit)
    rows: list[Row] = []
    size = looked_at = 0
    for candidate in page:
        walk = ChangedObjects(candidate)
        for kind in CHANGED_KINDS:
            if candidate.ino == at and kind < kind_at:
                # Its early end counts what was met, so those before are walked past again: at most a page each time.
                walk = ChangedObjects(candidate._replace(births=1 << 62))
                continue
            following: bytes | None = start if candidate.ino == at and kind == kind_at else b""
            while following is not None:
                if len(rows) >= limit or size > MAX_ANSWER_BYTES or looked_at > CHANGES_LOOKED_AT:
                    return rows, inode_key(candidate.ino).obj + bytes([kind]) + following
                objects, following = walk.page(kv, kind, CHANGES_PAGE, following)
                looked_at += 1 + len(objects)
                for obj in objects:
                    old, new = since.get(kind, obj), volume.get(kind, obj)
                    if old != new:
                        rows.append((kind, obj, new or b""))
                        size += len(obj) + len(new or b"")
    return rows, None if complete else inode_key(page[-1].ino + 1).obj


def _split_cursor(cursor: bytes) -> tuple[int, int, bytes]:
    """(inode, kind, object) to go on at."""
    if len(cursor) not in (0, 8) and len(cursor) < 9:
        raise InvalidArgument("changes are read on from where the page before ended")
    return int.from_bytes(cursor[:8]), cursor[8] if len(cursor) > 8 else 0, cursor[9:]


def read_slots(
    kv: ReadKv, volume: VolumeReader, ino: int, generation: int, first: int, count: int
) -> tuple[list[Row], Located]:
    """The slots [first, first + count) of one generation that are not holes, and where their blocks lie."""
    if not 1 <= count <= MAX_SLOTS:
        raise InvalidArgument(f"slots are read 1 to {MAX_SLOTS} at a time")
    start, end = slot_key(ino, generation, first).obj, slot_key(ino, generation, first + count).obj
    if count == 1:
        value = volume.get(Kind.SLOT, start)
        slots = [] if value is None else [(start, value)]
    else:
        slots = volume.scan(Kind.SLOT, start, end, count)
    blocks = dict.fromkeys(piece.block for _, value in slots for piece in decode_slot(value))
    return [(Kind.SLOT, obj, value) for obj, value in slots], locate(kv, blocks)


def locate(kv: ReadKv, block_ids: Iterable[int]) -> Located:
    """Where blocks lie; those that are gone are left out."""
    blocks: list[tuple[int, BlockRow]] = []
    segments: dict[int, SegmentRow] = {}
    for number in block_ids:
        raw = kv.get(BLOCKS, u64_key(number))
        if raw is None:
            continue
        row = decode_block(raw)
        blocks.append((number, row))
        if row.segment_id not in segments:
            segment = kv.get(SEGMENTS, u64_key(row.segment_id))
            if segment is not None:
                segments[row.segment_id] = decode_segment(segment)
    return Located(blocks, list(segments.items()))


def segment_blocks(kv: ReadKv, segment_id: int) -> list[tuple[int, BlockRow]]:
    """All referenced blocks that lie in a segment, by id; none where it is gone."""
    first, last = block_id(segment_id, 0), block_id(segment_id, MAX_BLOCKS_PER_SEGMENT - 1)
    found = [
        (decode_u64(key), row)
        for key, raw in kv.scan(BLOCKS, u64_key(first), u64_key(last + 1))
        if (row := decode_block(raw)).segment_id == segment_id
    ]
    for key, _ in kv.scan(MOVED, *pair_range(segment_id)):
        raw_row = kv.get(BLOCKS, key[8:])
        if raw_row is not None:
            found.append((split_pair(key)[1], decode_block(raw_row)))
    # Its own blocks left when it was packed, or it was made by packing: hardly ever is there anything to sort.
    found.sort(key=itemgetter(0))
    return found


def find_blocks(kv: ReadKv, volume: VolumeReader, fingerprints: Sequence[bytes], up: set[int]) -> list[int]:
    """For each fingerprint the stored block of the volume's dedupe domain, or 0."""
    if len(fingerprints) > MAX_FINGERPRINTS:
        raise InvalidArgument(f"at most {MAX_FINGERPRINTS} fingerprints are looked up at once")
    domain = domain_of(volume.row)
    return [find_block(kv, domain, fingerprint, up) for fingerprint in fingerprints]
