"""Proves from scratch, over one read transaction, that the metadata is sound; and lists the shards that must exist.

Invariant 4 (exact references), 7 (placement) and 8 (no leak, no loss) are proved here, with the version store's own
`verify`, the tree, the dedupe index, the totals, and the names and link counts of volumes of moderate size. Memory does
not grow with the data: references are counted for a window of blocks at a time.

Finds, changes nothing. A read transaction that must end because the store wants to grow raises `Unavailable`.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import NamedTuple

from redfs.coordinator.jobs import all_jobs
from redfs.coordinator.reads import VolumeReader, reader_of
from redfs.coordinator.schedules import verify_schedules
from redfs.coordinator.sessions import view_of
from redfs.coordinator.status import read_totals
from redfs.coordinator.txn import weigh_pieces
from redfs.core.ids import ROOT_INO, Epoch, Lineage, block_birth_segment
from redfs.core.kv import ReadKv
from redfs.core.records import (
    SLOT_BYTES,
    Inode,
    Kind,
    decode_bucket,
    decode_inode,
    decode_slot,
    generation_of,
    object_ino,
    orphan_key,
    split_dirent_object,
    split_slot_object,
)
from redfs.core.tables import (
    ALL_U64,
    ATTACHMENTS,
    BLOCKS,
    DEDUPE,
    DOOMED,
    MOVED,
    OPEN_SEGMENTS,
    OPERATIONS,
    SEGMENTS,
    SESSIONS,
    BlockRow,
    Domain,
    JobKind,
    SegmentRow,
    SegmentState,
    StatsRow,
    VolumeState,
    decode_block,
    decode_segment,
    decode_u64,
    pack_held_shards,
    pair_key,
    split_dedupe_key,
    split_doomed_key,
    split_job_key,
    split_pair,
    u64_key,
)
from redfs.core.versions import Ancestry, audit_weights, verify
from redfs.core.versions.layout import PINS, VERSIONS, Holder, HolderType, Pin, is_held, parse_held
from redfs.core.volume_tree import ReadTree, verify_tree

WINDOW_BLOCKS = 500_000
"""Blocks whose references are counted in one pass: some 100 MB. A pool of more takes more passes."""
MAX_CHECKED_INODES = 200_000
"""Volumes with more inodes have their names and links passed over: these are held in memory."""
PAGE = 4096
"""Records read at once, and shards in one expected-shards item."""
MAX_PROBLEMS = 1000
"""A report that a person reads."""

Pause = Callable[[], None]
"""Called now and then; may raise to end the check."""


class Expected(NamedTuple):
    """Shards on one node, packed as in inventories."""

    node_id: int
    packed: bytes
    committed: bool


class Summary(NamedTuple):
    volumes: int
    records: int
    blocks: int
    segments: int


Item = str | Expected | Summary
"""A problem, expected shards, or the end."""


def check(kv: ReadKv, pause: Pause = lambda: None) -> Generator[Item, None, None]:
    """Problems first, then the expected shards, then the summary."""
    problems = 0
    records = 0
    for problem in _problems(kv, pause):
        if isinstance(problem, int):
            records = problem
            continue
        problems += 1
        if problems > MAX_PROBLEMS:
            yield f"stopped after {MAX_PROBLEMS} problems"
            break
        yield problem
    segments = 0
    for item in _expected(kv, pause):
        segments += isinstance(item, int)
        if not isinstance(item, int):
            yield item
    volumes = sum(1 for row in ReadTree(kv).all() if row.state == VolumeState.OK)
    blocks = sum(1 for _ in kv.scan(BLOCKS, b"", ALL_U64))
    yield Summary(volumes, records, blocks, segments)


def _problems(kv: ReadKv, pause: Pause) -> Iterator[str | int]:
    """Problems, and once the number of versions as an int."""
    yield from verify(kv)
    pause()
    yield from verify_tree(kv)
    yield from verify_schedules(kv)
    yield from _check_holders(kv)
    totals = Counter[str]()
    live: Counter[int] = Counter()
    yield from _check_blocks(kv, pause, totals, live)
    yield totals["records"]
    yield from _check_segments(kv, pause, totals, live)
    yield from _check_weights(kv, pause)
    yield from _check_dedupe(kv, pause)
    kept = read_totals(kv)
    counted = StatsRow(*(totals[name] for name in StatsRow._fields))
    for name, have, found in zip(StatsRow._fields, kept, counted, strict=True):
        if have != found:
            yield f"the pool's total {name} is {have} and counted from scratch {found}"
    tree = ReadTree(kv)
    ancestry = Ancestry()
    freeing = {job.volume_id for key, job in all_jobs(kv) if split_job_key(key)[0] != JobKind.REAP}
    for row in tree.all():
        if row.state == VolumeState.OK:
            yield from check_volume(kv, reader_of(kv, row, ancestry), pause)
        elif row.state == VolumeState.DELETING and row.volume_id not in freeing:
            yield f"volume {row.volume_id} ({row.name}) is being deleted and no job does it"


def _check_holders(kv: ReadKv) -> Iterator[str]:
    """Every snapshot and view holds its pin, and every pin that one is said to hold is held by one that is there."""
    held: set[tuple[Pin, Holder]] = set()
    for row in ReadTree(kv).all():
        if row.epoch and row.state == VolumeState.OK:
            held.add((Pin(Lineage(row.lineage), Epoch(row.epoch)), Holder(HolderType.SNAPSHOT, row.volume_id)))
    for key, raw in kv.scan(ATTACHMENTS, b"", ALL_U64 * 2):
        view = view_of(raw)
        if view is not None:
            held.add((Pin(Lineage(view.lineage), Epoch(view.epoch)), Holder(HolderType.VIEW, view.volume_id)))
            if kv.get(SESSIONS, key[:8]) is None:
                yield f"view {view.volume_id} of {view.name} belongs to session {split_pair(key)[0]}, which has ended"
    for key, _ in kv.scan(PINS, b"", b"\xff" * 64):
        if is_held(key):
            pin, holder = parse_held(key)
            if holder.type != HolderType.FORK and (pin, holder) not in held:
                yield f"pin {pin.lineage}/{pin.epoch} is held by {holder.type.name.lower()} {holder.id}, which is gone"
            held.discard((pin, holder))
    for pin, holder in sorted(held):
        yield f"{holder.type.name.lower()} {holder.id} does not hold its pin {pin.lineage}/{pin.epoch}"


# ---------------------------------------------------------------- blocks, segments, dedupe index


def _check_blocks(kv: ReadKv, pause: Pause, totals: Counter[str], live: Counter[int]) -> Iterator[str]:
    """References of every block, a window at a time; counts totals and live bytes on the way."""
    low = b""
    first = True
    while first or low:
        expected: dict[int, int] = {}
        high = b""
        for key, raw in kv.scan(BLOCKS, low, ALL_U64):
            if len(expected) >= WINDOW_BLOCKS:
                high = key
                break
            row = decode_block(raw)
            expected[decode_u64(key)] = row.refs
            live[row.segment_id] += row.stored_bytes
            totals["unique_bytes"] += row.plain_bytes
            totals["stored_bytes"] += row.stored_bytes
            totals["blocks"] += 1
            if row.refs == 0:
                yield f"block {decode_u64(key):#x} has a row and no reference"
            if block_birth_segment(decode_u64(key)) != row.segment_id and (
                kv.get(MOVED, u64_key(row.segment_id) + key) is None
            ):
                yield f"block {decode_u64(key):#x} has moved to segment {row.segment_id:#x} and is not listed there"
        low_number = decode_u64(low) if low else 0
        high_number = decode_u64(high) if high else 1 << 64
        counted: Counter[int] = Counter()
        block_of = partial(_block_of, kv)
        for at, (key, value) in enumerate(kv.scan(VERSIONS, b"", b"\xff" * 40)):
            if at % PAGE == 0:
                pause()
            if first:
                totals["records"] += 1
            if key[8] != Kind.SLOT or not value:
                continue
            pieces = decode_slot(value)
            if first:
                weight = weigh_pieces(pieces, block_of)
                totals["logical_bytes"] += weight.logical_bytes
                totals["charged_bytes"] += weight.stored_bytes
            for piece in pieces:
                if low_number <= piece.block < high_number:
                    counted[piece.block] += 1
        for block, refs in expected.items():
            found = counted.pop(block, 0)
            if found != refs:
                yield f"block {block:#x} says {refs} references and slots name it {found} times"
        for block, refs in counted.items():
            yield f"block {block:#x} is named by {refs} pieces and has no row: its data is lost"
        low = high
        first = False


def _check_segments(kv: ReadKv, pause: Pause, totals: Counter[str], live: Counter[int]) -> Iterator[str]:
    for at, (key, raw) in enumerate(kv.scan(SEGMENTS, b"", ALL_U64)):
        if at % PAGE == 0:
            pause()
        segment = decode_u64(key)
        row = decode_segment(raw)
        if len(set(row.nodes)) != len(row.nodes):
            yield f"segment {segment:#x} has two shards on one node: {row.nodes}"
        if len(row.nodes) != row.layout.width:
            yield f"segment {segment:#x} has {len(row.nodes)} shards instead of {row.layout.width}"
        found = live.pop(segment, 0)
        if row.state == SegmentState.OPEN:
            yield from _check_open(kv, segment, row, found)
            continue
        totals["segments"] += 1
        totals["segment_bytes"] += row.layout.width * row.shard_bytes
        if found != row.live_bytes or not found:
            yield f"segment {segment:#x} says {row.live_bytes} live bytes and has {found}"
        if found > row.layout.k * row.shard_bytes:
            yield f"segment {segment:#x} has more live bytes than room"
        for shard, node in enumerate(row.nodes):
            if kv.get(DOOMED, node.to_bytes(4, "big") + key + shard.to_bytes(2, "big")) is not None:
                yield f"shard {shard} of segment {segment:#x} is in use and to be deleted on node {node}"
    for segment in live:
        yield f"segment {segment:#x} has referenced blocks and no row"
    for key, _ in kv.scan(OPEN_SEGMENTS, b"", ALL_U64 * 2):
        session, segment = split_pair(key)
        raw_row = kv.get(SEGMENTS, u64_key(segment))
        if raw_row is None or decode_segment(raw_row).state != SegmentState.OPEN:
            yield f"segment {segment:#x} is listed as open for session {session} and is not"
    for key, _ in kv.scan(MOVED, b"", ALL_U64 * 2):
        segment, block = split_pair(key)
        raw_block = kv.get(BLOCKS, u64_key(block))
        if raw_block is None or decode_block(raw_block).segment_id != segment or block_birth_segment(block) == segment:
            yield f"block {block:#x} is listed as moved to segment {segment:#x} and is not there"
    for key, _ in kv.scan(OPERATIONS, b"", ALL_U64 * 2):
        session, number = split_pair(key)
        if kv.get(SESSIONS, u64_key(session)) is None:
            yield f"the answer of operation {number} is kept for session {session}, which has ended"


def _check_open(kv: ReadKv, segment: int, row: SegmentRow, live_bytes: int) -> Iterator[str]:
    if live_bytes:
        yield f"segment {segment:#x} is open and has referenced blocks"
    if row.session_id and kv.get(SESSIONS, u64_key(row.session_id)) is None:
        yield f"segment {segment:#x} is open for session {row.session_id}, which has ended"
    if kv.get(OPEN_SEGMENTS, pair_key(row.session_id, segment)) is None:
        yield f"segment {segment:#x} is open and not listed for session {row.session_id}"


def _check_dedupe(kv: ReadKv, pause: Pause) -> Iterator[str]:
    for at, (key, raw) in enumerate(kv.scan(DEDUPE, b"", b"\xff" * 64)):
        if at % PAGE == 0:
            pause()
        domain, fingerprint = split_dedupe_key(key)
        block_raw = kv.get(BLOCKS, raw)
        name = f"the dedupe index leads to block {decode_u64(raw):#x}"
        if block_raw is None:
            yield f"{name}, which has no row"
            continue
        block = decode_block(block_raw)
        if block.fingerprint != fingerprint:
            yield f"{name}, which has another fingerprint"
        segment_raw = kv.get(SEGMENTS, u64_key(block.segment_id))
        if segment_raw is not None and Domain(*decode_segment(segment_raw).domain) != domain:
            yield f"{name}, which lies in another domain"


_NO_BLOCK = BlockRow(0, 0, 0, 1, 0, 0, b"", 0)
"""In the place of a block that has no row, which is told where references are counted."""


def _block_of(kv: ReadKv, block_id: int) -> BlockRow:
    raw = kv.get(BLOCKS, u64_key(block_id))
    return _NO_BLOCK if raw is None else decode_block(raw)


def _check_weights(kv: ReadKv, pause: Pause) -> Iterator[str]:
    """What every node of the tree is charged."""
    block_of = partial(_block_of, kv)
    return audit_weights(kv, lambda slot: weigh_pieces(decode_slot(slot), block_of), pause)


# ---------------------------------------------------------------- names and links


def check_volume(kv: ReadKv, volume: VolumeReader, pause: Pause) -> Iterator[str]:
    """Names and links of one node of the tree, where it has at most MAX_CHECKED_INODES inodes."""
    name = volume.row.name
    inodes: dict[int, Inode] = {}
    for obj, value in _records(volume, Kind.INODE, pause):
        if len(inodes) >= MAX_CHECKED_INODES:
            return
        inodes[object_ino(obj)] = decode_inode(value)
    root = inodes.get(ROOT_INO)
    if root is None or not stat.S_ISDIR(root.mode):
        yield f"{name}: the root folder is not there"
        return
    links: Counter[int] = Counter()
    folders: Counter[int] = Counter()
    entries: Counter[int] = Counter()
    parents: dict[int, int] = {}
    led_to: set[int] = set()
    for obj, value in _records(volume, Kind.DIRENT, pause):
        parent = object_ino(obj)
        for entry in decode_bucket(value):
            entries[parent] += 1
            links[entry.ino] += 1
            child = inodes.get(entry.ino)
            if child is None:
                yield f"{name}: {entry.name!r} in folder {parent} names inode {entry.ino}, which has no record"
                continue
            if (child.parent, child.name_hash) == split_dirent_object(obj):
                led_to.add(entry.ino)
            if stat.S_ISDIR(child.mode):
                folders[parent] += 1
                parents[entry.ino] = parent
    for ino, inode in inodes.items():
        if stat.S_ISDIR(inode.mode):
            yield from _check_folder(name, ino, inode, entries, folders, parents, links)
        elif inode.nlink != links[ino]:
            yield f"{name}: inode {ino} has {inode.nlink} links and {links[ino]} names"
        # A file of several names may have lost the one that its record led to: then it leads nowhere.
        if links[ino] and ino not in led_to and (inode.parent or stat.S_ISDIR(inode.mode)):
            yield f"{name}: the record of inode {ino} does not lead to its name"
        if inode.nlink == 0 and volume.get(*orphan_key(ino, 0)) is None:
            yield f"{name}: inode {ino} has no name and is not marked for removal"
    for parent in entries.keys() - inodes.keys():
        yield f"{name}: folder {parent} has {entries[parent]} entries and no record"
    yield from _check_slots(volume, inodes, pause)


def _check_folder(
    name: str,
    ino: int,
    inode: Inode,
    entries: Counter[int],
    folders: Counter[int],
    parents: dict[int, int],
    links: Counter[int],
) -> Iterator[str]:
    if ino == ROOT_INO:
        parents = {ROOT_INO: ROOT_INO}
    elif inode.nlink == 0:
        if links[ino] or entries[ino]:
            yield f"{name}: removed folder {ino} still has a name or entries"
        return
    elif links[ino] != 1:
        yield f"{name}: folder {ino} has {links[ino]} names instead of one"
    if inode.nlink != 2 + folders[ino]:
        yield f"{name}: folder {ino} has {inode.nlink} links and {folders[ino]} folders in it"
    if inode.size != entries[ino]:
        yield f"{name}: folder {ino} says {inode.size} entries and has {entries[ino]}"
    if ino in parents and inode.parent != parents[ino]:
        yield f"{name}: folder {ino} lies in {parents[ino]} and says {inode.parent}"


def _check_slots(volume: VolumeReader, inodes: dict[int, Inode], pause: Pause) -> Iterator[str]:
    """Every visible slot lies before its file's end. Those of dead generations wait for their removal, or were given
    up where a clone inherits them: nothing looks them up."""
    for obj, value in _records(volume, Kind.SLOT, pause):
        ino, generation, slot = split_slot_object(obj)
        inode = inodes.get(ino)
        if inode is None or generation_of(inode.generations, slot) != generation:
            continue
        last = decode_slot(value)[-1]
        if slot * SLOT_BYTES + last.offset + last.length > inode.size:
            yield f"{volume.row.name}: slot {slot} of inode {ino} reaches past the file's {inode.size} bytes"


def _records(volume: VolumeReader, kind: int, pause: Pause) -> Iterator[tuple[bytes, bytes]]:
    """All records of one kind, page by page."""
    start = b""
    while True:
        pause()
        page = volume.versions.scan(volume.row.lineage, volume.epoch, kind, start, None, PAGE)
        yield from page
        if len(page) < PAGE:
            return
        start = page[-1][0] + b"\0"


# ---------------------------------------------------------------- expected shards


def _expected(kv: ReadKv, pause: Pause) -> Iterator[Expected | int]:
    """Expected shards by node, and an int for each committed segment."""
    for committed in (True, False):
        pages: dict[int, list[tuple[int, int, int]]] = {}
        for at, (key, raw) in enumerate(kv.scan(SEGMENTS, b"", ALL_U64)):
            if at % PAGE == 0:
                pause()
            row = decode_segment(raw)
            if (row.state == SegmentState.COMMITTED) != committed:
                continue
            if committed:
                yield 1
            shards = [(node, shard) for shard, node in enumerate(row.nodes)]
            yield from _add(pages, decode_u64(key), [*shards, *row.dropped], row.shard_bytes, committed)
        if not committed:
            for key, _ in kv.scan(DOOMED, b"", b"\xff" * 15):
                node, segment, shard = split_doomed_key(key)
                yield from _add(pages, segment, [(node, shard)], 0, committed)
        for node, page in pages.items():
            yield Expected(node, pack_held_shards(page), committed)


def _add(
    pages: dict[int, list[tuple[int, int, int]]],
    segment: int,
    shards: list[tuple[int, int]],
    size: int,
    committed: bool,
) -> Iterator[Expected]:
    for node, shard in shards:
        page = pages.setdefault(node, [])
        page.append((segment, shard, size))
        if len(page) >= PAGE:
            yield Expected(node, pack_held_shards(page), committed)
            page.clear()
