"""The coordinator's tables beside the version store: their names, keys and rows.

Integers are big-endian, so that keys sort as numbers. Every row starts with a version byte; a row of another version
raises `WrongFormat`. The byte tables are in docs/formats/coordinator.md, the golden files in tests/core/golden.

Rows are immutable tuples. This module knows bytes only: what may change when is the coordinator's business.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, Self

from redfs.core.errors import WrongFormat
from redfs.core.policy import Layout, Policy

ROW_VERSION = 1

META = "meta"
"""Counters and single rows, by name (see the constants named *_KEY)."""
VOLUMES = "volumes"
"""volume id -> VolumeRow."""
NAMES = "names"
"""full name (a snapshot's is VOLUME@NAME) -> volume id."""
CHILDREN = "children"
"""parent volume id, volume id -> nothing."""
SNAPSHOT_COUNTS = "snapshot_counts"
"""volume id -> how many snapshots it has that are not deleted. None: no row."""
BLOCKS = "blocks"
"""block id -> BlockRow. A block without references has no row."""
SEGMENTS = "segments"
"""segment id -> SegmentRow. An aborted or dead segment has no row, its shards are in DOOMED."""
OPEN_SEGMENTS = "open_segments"
"""session id, segment id -> nothing."""
DEDUPE = "dedupe"
"""domain, fingerprint -> block id. Rebuildable from BLOCKS."""
SESSIONS = "sessions"
"""session id -> SessionRow."""
REPLIES = "replies"
"""session id, commit number -> substitutions that the commit was answered with; none: no row."""
OPERATIONS = "operations"
"""session id, number of an operation in shared mode -> OperationRow, until the client has its answer."""
ATTACHMENTS = "attachments"
"""session id, volume id -> Access; session id, view's number -> Access.VIEW and the VolumeRow that it shows."""
MOUNTS = "mounts"
"""volume id, session id -> Access: ATTACHMENTS the other way round."""
DELEGATIONS = "delegations"
"""volume id -> session id that holds the exclusive delegation."""
RESERVATIONS = "reservations"
"""session id, volume id -> plain bytes promised."""
FAMILIES = "families"
"""family -> next inode number."""
NODES = "nodes"
"""node id -> NodeRow."""
DOOMED = "doomed"
"""node id, segment id, shard -> time of its doom: shards that the node must delete."""
DAMAGE = "damage"
"""segment id, shard -> DamageRow: shards reported as damaged or missing."""
JOBS = "jobs"
"""job kind, two numbers that name its object -> JobRow."""
SCHEDULES = "schedules"
"""volume id, label -> ScheduleRow."""
SCRUBS = "scrubs"
"""node id -> ScrubRow: how far the scrub that goes on is there."""

TABLES = (
    META, VOLUMES, NAMES, CHILDREN, SNAPSHOT_COUNTS, BLOCKS, SEGMENTS, OPEN_SEGMENTS, DEDUPE, SESSIONS, REPLIES,
    OPERATIONS, ATTACHMENTS, MOUNTS, DELEGATIONS, RESERVATIONS, FAMILIES, NODES, DOOMED, DAMAGE, JOBS, SCHEDULES,
    SCRUBS,
)  # fmt: skip

FORMAT_KEY = b"format"
POOL_ID_KEY = b"pool_id"
INCARNATION_KEY = b"incarnation"
POSITION_KEY = b"position"
"""Number of the last change list that was applied."""
STATS_KEY = b"stats"
NEXT_SEGMENT_KEY = b"next_segment"
"""Next segment counter of this incarnation."""
NEXT_VOLUME_KEY = b"next_volume"
VOLUME_COUNT_KEY = b"volume_count"
"""Nodes of the tree, deleted ones too."""
NEXT_SESSION_KEY = b"next_session"
NEXT_NODE_KEY = b"next_node"
NEXT_JOB_KEY = b"next_job"
NEXT_SCHEDULE_KEY = b"next_schedule"
LAST_SCRUB_KEY = b"last_scrub"
"""LastScrubRow; none: no scrub has come to its end yet."""
SCRUB_DUE_KEY = b"scrub_due"
"""When the next scrub begins by itself, i64 ns since 1970."""

MAX_SEGMENT_PAYLOAD_BYTES = 8 << 20
FINGERPRINT_BYTES = 32
TOKEN_BYTES = 16

_U64 = struct.Struct(">Q")
_U64_PAIR = struct.Struct(">QQ")
_I64 = struct.Struct(">q")
_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")

ALL_U64 = b"\xff" * 9
"""Greater than every key that starts with a u64: the end of a scan over a whole table."""


def u64_key(number: int) -> bytes:
    """The key of tables by one number."""
    return _U64.pack(number)


def pair_key(first: int, second: int) -> bytes:
    """The key of tables by two numbers."""
    return _U64_PAIR.pack(first, second)


def split_pair(key: bytes) -> tuple[int, int]:
    """The two numbers of a `pair_key`."""
    first, second = _U64_PAIR.unpack(key)
    return first, second


def pair_range(first: int) -> tuple[bytes, bytes]:
    """Start and end of the pairs with that first number."""
    return _U64.pack(first), _U64.pack(first + 1)


def encode_u64(number: int) -> bytes:
    return _U64.pack(number)


def decode_u64(data: bytes) -> int:
    number: int = _U64.unpack(data)[0]
    return number


def encode_i64(number: int) -> bytes:
    return _I64.pack(number)


def decode_i64(data: bytes) -> int:
    number: int = _I64.unpack(data)[0]
    return number


def _check_version(what: str, data: bytes) -> None:
    if not data or data[0] != ROW_VERSION:
        found = data[0] if data else "none"
        raise WrongFormat(f"{what} row of version {found}: this RedFS knows version {ROW_VERSION}, upgrade it")


def _text(text: str) -> bytes:
    raw = text.encode()
    return _U16.pack(len(raw)) + raw


def _take_text(data: bytes, at: int) -> tuple[str, int]:
    (count,) = _U16.unpack_from(data, at)
    end = at + 2 + count
    return data[at + 2 : end].decode(), end


# ---------------------------------------------------------------- volumes


class VolumeKind(IntEnum):
    ZERO = 1
    LIVE = 2
    SNAPSHOT = 3


class VolumeState(IntEnum):
    OK = 1
    DELETING = 2
    """Deleted; its space is being freed."""
    DELETED = 3
    """Deleted; shown while something descends from it."""


class Compression(IntEnum):
    NONE = 0
    ZSTD = 1


class VolumeRow(NamedTuple):
    """A node of the volume tree."""

    volume_id: int
    kind: int
    state: int
    parent_id: int
    """0 for the zero volume."""
    lineage: int
    epoch: int
    """Snapshots (and the zero volume): the frozen epoch. Live: 0, the lineage's head."""
    created_ns: int
    policy: Policy
    compression: int
    minimum_nodes: int
    """0: the policy's own."""
    name: str
    """Full name."""
    description: str
    color: str
    quota_bytes: int = 0
    """Logical bytes that it may hold; 0: no limit."""
    schedule_id: int = 0
    """Snapshots: the schedule that made it; 0: a person did."""
    origin: str = ""
    """Received snapshots: the stream id of the one that was sent."""
    shared: bool = False
    """Several may mount it and write, without asking for that at each mount."""


_VOLUME = struct.Struct(">BQBBQQQqBBBBQQB")


def encode_volume(row: VolumeRow) -> bytes:
    head = _VOLUME.pack(
        ROW_VERSION, row.volume_id, row.kind, row.state, row.parent_id, row.lineage, row.epoch, row.created_ns,
        row.policy.k, row.policy.m, row.compression, row.minimum_nodes, row.quota_bytes, row.schedule_id,
        row.shared,
    )  # fmt: skip
    return head + _text(row.name) + _text(row.description) + _text(row.color) + _text(row.origin)


def decode_volume(data: bytes) -> VolumeRow:
    _check_version("volume", data)
    (
        _,
        volume_id,
        kind,
        state,
        parent,
        lineage,
        epoch,
        created,
        k,
        m,
        compression,
        minimum,
        quota,
        schedule,
        shared,
    ) = _VOLUME.unpack_from(data)
    name, at = _take_text(data, _VOLUME.size)
    description, at = _take_text(data, at)
    color, at = _take_text(data, at)
    origin, _ = _take_text(data, at)
    return VolumeRow(
        volume_id, kind, state, parent, lineage, epoch, created, Policy(k, m), compression, minimum,
        name, description, color, quota, schedule, origin, bool(shared),
    )  # fmt: skip


# ---------------------------------------------------------------- blocks and segments


class Domain(NamedTuple):
    """Dedupe domain: blocks are shared only inside one."""

    k: int
    m: int
    key_id: int = 0
    """0: not encrypted."""


_DOMAIN = struct.Struct(">BBI")


def dedupe_key(domain: Domain, fingerprint: bytes) -> bytes:
    return _DOMAIN.pack(*domain) + fingerprint


def split_dedupe_key(key: bytes) -> tuple[Domain, bytes]:
    return Domain._make(_DOMAIN.unpack_from(key)), key[_DOMAIN.size :]


class BlockRow(NamedTuple):
    """Where a block lies and how it is stored."""

    segment_id: int
    offset: int
    """In the segment's payload."""
    stored_bytes: int
    plain_bytes: int
    codec: int
    """0 raw, 1 zstd."""
    checksum: int
    """xxh3_64 of the stored bytes."""
    fingerprint: bytes
    """BLAKE3-256 of the plain bytes."""
    refs: int
    """Block-map pieces, over all versions, that name it; at least 1."""


_BLOCK = struct.Struct(f">BQIIIBQ{FINGERPRINT_BYTES}sQ")


def encode_block(row: BlockRow) -> bytes:
    return _BLOCK.pack(ROW_VERSION, *row)


def decode_block(data: bytes) -> BlockRow:
    _check_version("block", data)
    return BlockRow._make(_BLOCK.unpack(data)[1:])


class SegmentState(IntEnum):
    OPEN = 1
    COMMITTED = 2


class SegmentRow(NamedTuple):
    """A segment that is being written or was committed."""

    state: int
    layout: Layout
    domain: Domain
    shard_bytes: int
    """0 while open."""
    live_bytes: int
    """Stored bytes of its referenced blocks; 0 while open, at least 1 when committed."""
    since_ns: int
    """When it was opened, then when it was committed."""
    volume_id: int
    """That it was opened for."""
    session_id: int
    """That opened it."""
    nodes: tuple[int, ...]
    """By shard."""
    dropped: tuple[tuple[int, int], ...] = ()
    """While open: (node, shard) that failed and were replaced; doomed when the segment's fate is known."""


_SEGMENT = struct.Struct(">BBBBBBIIIqQQBB")
_DROPPED = struct.Struct(">IB")
MAX_DROPPED = 255
"""Replacements in one open segment: far more than any write should try before it gives the segment up."""


def encode_segment(row: SegmentRow) -> bytes:
    head = _SEGMENT.pack(
        ROW_VERSION, row.state, row.layout.k, row.layout.m, row.domain.k, row.domain.m, row.domain.key_id,
        row.shard_bytes, row.live_bytes, row.since_ns, row.volume_id, row.session_id, len(row.nodes), len(row.dropped),
    )  # fmt: skip
    return (
        head
        + struct.pack(f">{len(row.nodes)}I", *row.nodes)
        + b"".join([_DROPPED.pack(node, shard) for node, shard in row.dropped])
    )


def decode_segment(data: bytes) -> SegmentRow:
    _check_version("segment", data)
    (_, state, k, m, dk, dm, key_id, shard_bytes, live, since, volume, session, nodes, dropped) = _SEGMENT.unpack_from(
        data
    )
    at = _SEGMENT.size
    node_ids = struct.unpack_from(f">{nodes}I", data, at)
    at += 4 * nodes
    return SegmentRow(
        state, Layout(k, m), Domain(dk, dm, key_id), shard_bytes, live, since, volume, session, node_ids,
        tuple([_DROPPED.unpack_from(data, at + _DROPPED.size * n) for n in range(dropped)]),
    )  # fmt: skip


# ---------------------------------------------------------------- sessions


class Access(IntEnum):
    READ_ONLY = 1
    READ_WRITE = 2
    VIEW = 3
    """A frozen point held for one session; no mount."""
    SHARED = 4
    """Reads and writes, and lets others do so: alone it holds the delegation, with others the coordinator runs all."""
    SHARED_READ_ONLY = 5
    """Reads, and sees every change as it happens, like SHARED."""


SHARING = frozenset((Access.SHARED, Access.SHARED_READ_ONLY))
READING_ONLY = frozenset((Access.READ_ONLY, Access.SHARED_READ_ONLY))


class SessionRow(NamedTuple):
    """A client's session: what a retry or a reconnect needs."""

    token: bytes
    created_ns: int
    last_commit: int
    client_name: str
    """For people."""


_SESSION = struct.Struct(f">B{TOKEN_BYTES}sqQ")


def encode_session(row: SessionRow) -> bytes:
    return _SESSION.pack(ROW_VERSION, row.token, row.created_ns, row.last_commit) + _text(row.client_name)


def decode_session(data: bytes) -> SessionRow:
    _check_version("session", data)
    _, token, created, last = _SESSION.unpack_from(data)
    return SessionRow(token, created, last, _take_text(data, _SESSION.size)[0])


Substitutions = tuple[tuple[int, int], ...]
"""(block that a commit sent, stored block that stands for it)."""


def encode_reply(reply: Substitutions) -> bytes:
    return bytes((ROW_VERSION,)) + b"".join([_U64_PAIR.pack(*pair) for pair in reply])


def decode_reply(data: bytes) -> Substitutions:
    _check_version("reply", data)
    return tuple(_U64_PAIR.iter_unpack(data[1:]))


class OperationRow(NamedTuple):
    """What an operation in shared mode was answered with."""

    ino: int = 0
    replaced: int = 0
    """A rename's: the inode that lost its name; 0: none."""
    offset: int = 0
    """A write's: where its bytes lie."""
    existed: bool = False
    inode: bytes = b""
    """Its record; empty: it is gone."""
    replaced_inode: bytes = b""


_OPERATION = struct.Struct(">BQQQBHH")


def encode_operation(row: OperationRow) -> bytes:
    head = _OPERATION.pack(
        ROW_VERSION, row.ino, row.replaced, row.offset, row.existed, len(row.inode), len(row.replaced_inode)
    )
    return head + row.inode + row.replaced_inode


def decode_operation(data: bytes) -> OperationRow:
    _check_version("operation", data)
    _, ino, replaced, offset, existed, inode_bytes, _other_bytes = _OPERATION.unpack_from(data)
    end = _OPERATION.size + inode_bytes
    return OperationRow(ino, replaced, offset, bool(existed), data[_OPERATION.size : end], data[end:])


# ---------------------------------------------------------------- nodes and shards


class NodeState(IntEnum):
    """What people, or the time that a node was away, have made of it. Whether it is up is not in the tables."""

    IN = 0
    DRAINING = 1
    """What it holds moves to other nodes; nothing new is written to it."""
    OUT = 2
    """By somebody's word: what it held is made anew elsewhere."""
    LOST = 3
    """Away for so long that the same is done. If it comes back it is in."""


class NodeRow(NamedTuple):
    """A storage node that joined the pool."""

    disk_uuid: str
    address: str
    """Data plane, HOST:PORT."""
    domain: str
    data_folder: str
    generation: int
    """Raised at each start of the node."""
    joined_ns: int
    failed: bool
    """Its disk failed: nothing is written to it any more."""
    state: int = NodeState.IN


_NODE = struct.Struct(">BQqB")


def encode_node(row: NodeRow) -> bytes:
    head = _NODE.pack(ROW_VERSION, row.generation, row.joined_ns, row.failed)
    state = bytes((row.state,)) if row.state != NodeState.IN else b""
    return head + _text(row.disk_uuid) + _text(row.address) + _text(row.domain) + _text(row.data_folder) + state


def decode_node(data: bytes) -> NodeRow:
    _check_version("node", data)
    _, generation, joined, failed = _NODE.unpack_from(data)
    disk_uuid, at = _take_text(data, _NODE.size)
    address, at = _take_text(data, at)
    domain, at = _take_text(data, at)
    data_folder, at = _take_text(data, at)
    state = NodeState(data[at]) if at < len(data) else NodeState.IN
    return NodeRow(disk_uuid, address, domain, data_folder, generation, joined, bool(failed), state)


_DOOMED = struct.Struct(">IQH")
DOOMED_SHARD_BYTES = 10
"""segment u64, shard u16: the form in DeleteShards and ShardsDeleted messages, and the key's tail."""
_SHARD = struct.Struct(">QH")
_HELD_SHARD = struct.Struct(">QHI")
HELD_SHARD_BYTES = _HELD_SHARD.size
"""segment u64, shard u16, bytes u32: the form in inventories and in what `check` expects."""


def doomed_key(node: int, segment: int, shard: int) -> bytes:
    return _DOOMED.pack(node, segment, shard)


def split_doomed_key(key: bytes) -> tuple[int, int, int]:
    """(node, segment, shard)."""
    node, segment, shard = _DOOMED.unpack(key)
    return node, segment, shard


def doomed_range(node: int) -> tuple[bytes, bytes]:
    """Start and end of a node's doomed shards."""
    return _U32.pack(node), _U32.pack(node) + b"\xff" * 11


def pack_shards(shards: list[tuple[int, int]]) -> bytes:
    """(segment, shard) pairs for DeleteShards and ShardsDeleted."""
    return b"".join([_SHARD.pack(*pair) for pair in shards])


def unpack_shards(packed: bytes) -> list[tuple[int, int]]:
    """Raises WrongFormat where the length does not fit."""
    if len(packed) % DOOMED_SHARD_BYTES:
        raise WrongFormat(f"a list of shards has {len(packed)} bytes, not a multiple of {DOOMED_SHARD_BYTES}")
    return list(_SHARD.iter_unpack(packed))


def pack_held_shards(shards: list[tuple[int, int, int]]) -> bytes:
    """(segment, shard, bytes) for inventories."""
    return b"".join([_HELD_SHARD.pack(*held) for held in shards])


def unpack_held_shards(packed: bytes) -> list[tuple[int, int, int]]:
    """Raises WrongFormat where the length does not fit."""
    if len(packed) % HELD_SHARD_BYTES:
        raise WrongFormat(f"an inventory has {len(packed)} bytes, not a multiple of {HELD_SHARD_BYTES}")
    return list(_HELD_SHARD.iter_unpack(packed))


def shard_key(segment: int, shard: int) -> bytes:
    """Key of DAMAGE."""
    return _SHARD.pack(segment, shard)


def split_shard_key(key: bytes) -> tuple[int, int]:
    segment, shard = _SHARD.unpack(key)
    return segment, shard


class DamageRow(NamedTuple):
    """A shard that did not verify or was not there."""

    node_id: int
    since_ns: int
    missing: bool
    """Not in the node's inventory: cleared by an inventory that lists it."""
    reason: str


_DAMAGE = struct.Struct(">BIqB")


def encode_damage(row: DamageRow) -> bytes:
    return _DAMAGE.pack(ROW_VERSION, row.node_id, row.since_ns, row.missing) + _text(row.reason)


def decode_damage(data: bytes) -> DamageRow:
    _check_version("damage", data)
    _, node, since, missing = _DAMAGE.unpack_from(data)
    return DamageRow(node, since, bool(missing), _take_text(data, _DAMAGE.size)[0])


# ---------------------------------------------------------------- jobs, schedules and totals


class JobKind(IntEnum):
    RECLAIM_PIN = 1
    """Versions that only a dropped pin saw: lineage, epoch."""
    RECLAIM_HEAD = 2
    """Versions that only a dropped head saw: lineage, 0."""
    REAP = 3
    """Orphans of a live volume: volume id, 0."""
    REBUILD = 4
    """Shards of nodes that were given up, made anew elsewhere: 0, 0. This kind and later ones work on shards."""
    REPAIR = 5
    """Damaged and missing shards: 0, 0."""
    DRAIN = 6
    """A node's shards, moved to others: node id, 0."""
    REBALANCE = 7
    """Shards moved until nodes are equally full: 0, 0."""
    SCRUB = 8
    """Every shard on every node read and checked: 0, 0. The steps are the nodes' (`scrub.py`)."""


class JobRow(NamedTuple):
    """A background job: its key says what it works on, the row how far it is."""

    job_id: int
    volume_id: int
    """That it works for."""
    done: int
    """Rows worked on, or shards made."""
    cursor: bytes
    """Where the next step goes on; meaning is the job's own."""
    subject: str
    """For people."""
    started_ns: int = 0
    """When it was made."""
    paused: bool = False
    done_bytes: int = 0
    """Logical bytes freed so far; of those that work on shards, bytes of shards."""
    total_bytes: int = 0
    """The same in all, as far as was known; 0: not known."""


_JOB_KEY = struct.Struct(">BQQ")
_JOB = struct.Struct(">BBQQQqQQH")


def job_key(kind: int, first: int, second: int = 0) -> bytes:
    return _JOB_KEY.pack(kind, first, second)


def split_job_key(key: bytes) -> tuple[int, int, int]:
    """(kind, first number, second number)."""
    kind, first, second = _JOB_KEY.unpack(key)
    return kind, first, second


def encode_job(row: JobRow) -> bytes:
    head = _JOB.pack(
        ROW_VERSION, row.paused, row.job_id, row.volume_id, row.done, row.started_ns, row.done_bytes, row.total_bytes,
        len(row.cursor),
    )  # fmt: skip
    return head + row.cursor + _text(row.subject)


def decode_job(data: bytes) -> JobRow:
    _check_version("job", data)
    _, paused, job_id, volume_id, done, started, done_bytes, total_bytes, cursor_bytes = _JOB.unpack_from(data)
    at = _JOB.size + cursor_bytes
    return JobRow(
        job_id, volume_id, done, data[_JOB.size : at], _take_text(data, at)[0], started, bool(paused), done_bytes,
        total_bytes,
    )  # fmt: skip


def is_paused_job(data: bytes) -> bool:
    """Whether a JobRow's job is paused, without decoding the rest."""
    _check_version("job", data)
    return data[1] != 0


class ScheduleRow(NamedTuple):
    """Snapshots of a volume that are made and deleted by time."""

    schedule_id: int
    """The snapshots that it makes carry it; never used again."""
    every_s: int
    keep: int
    """As many of its snapshots stay, the newest."""
    next_ns: int
    """When the next one is due."""
    last_error: str
    """Why the last one was not made; empty: it was."""


_SCHEDULE = struct.Struct(">BQQIq")


def schedule_key(volume_id: int, label: str) -> bytes:
    return _U64.pack(volume_id) + label.encode()


def split_schedule_key(key: bytes) -> tuple[int, str]:
    """(volume id, label)."""
    return decode_u64(key[:8]), key[8:].decode()


def schedule_range(volume_id: int) -> tuple[bytes, bytes]:
    """Start and end of a volume's schedules."""
    return _U64.pack(volume_id), _U64.pack(volume_id + 1)


def encode_schedule(row: ScheduleRow) -> bytes:
    head = _SCHEDULE.pack(ROW_VERSION, row.schedule_id, row.every_s, row.keep, row.next_ns)
    return head + _text(row.last_error)


def decode_schedule(data: bytes) -> ScheduleRow:
    _check_version("schedule", data)
    _, schedule_id, every_s, keep, next_ns = _SCHEDULE.unpack_from(data)
    return ScheduleRow(schedule_id, every_s, keep, next_ns, _take_text(data, _SCHEDULE.size)[0])


class StatsRow(NamedTuple):
    """Totals of the pool, kept with every change."""

    logical_bytes: int = 0
    """What all block maps, over all versions, refer to, plain."""
    unique_bytes: int = 0
    """Plain bytes of distinct blocks."""
    stored_bytes: int = 0
    """Stored bytes of distinct blocks."""
    segment_bytes: int = 0
    """Bytes of all shards of committed segments."""
    blocks: int = 0
    segments: int = 0
    """Committed ones."""
    charged_bytes: int = 0
    """What all block maps, over all versions, refer to, stored: as if no block were shared."""

    def plus(self, other: Self) -> Self:
        return type(self)(*[a + b for a, b in zip(self, other, strict=True)])


_STATS = struct.Struct(">BQQQQQQQ")


def encode_stats(row: StatsRow) -> bytes:
    return _STATS.pack(ROW_VERSION, *row)


def decode_stats(data: bytes) -> StatsRow:
    _check_version("stats", data)
    return StatsRow._make(_STATS.unpack(data)[1:])


# ---------------------------------------------------------------- scrubs


class ScrubRow(NamedTuple):
    """How far a scrub is on one node."""

    job_id: int
    """The scrub's; a row of another one counts nothing."""
    upto_segment: int = 0
    """All shards of segments up to this one were checked."""
    shards: int = 0
    bytes: int = 0
    bad: int = 0
    done: bool = False


_SCRUB = struct.Struct(">BQQQQQB")


def encode_scrub(row: ScrubRow) -> bytes:
    return _SCRUB.pack(ROW_VERSION, *row)


def decode_scrub(data: bytes) -> ScrubRow:
    _check_version("scrub", data)
    _, job_id, upto, shards, size, bad, done = _SCRUB.unpack(data)
    return ScrubRow(job_id, upto, shards, size, bad, bool(done))


class LastScrubRow(NamedTuple):
    """What the last whole scrub found."""

    ended_ns: int = 0
    shards: int = 0
    bytes: int = 0
    bad: int = 0
    """Damaged and missing ones."""


_LAST_SCRUB = struct.Struct(">BqQQQ")


def encode_last_scrub(row: LastScrubRow) -> bytes:
    return _LAST_SCRUB.pack(ROW_VERSION, *row)


def decode_last_scrub(data: bytes) -> LastScrubRow:
    _check_version("last scrub", data)
    return LastScrubRow(*_LAST_SCRUB.unpack(data)[1:])
