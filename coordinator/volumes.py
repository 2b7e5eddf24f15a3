"""Commands on the volume tree: create, clone, snapshot, rename, settings, delete. All O(1) in the volume's size.

A lineage has the number of the volume that it was made for, or after a roll-back one of its own. A snapshot holds a pin
of its volume's lineage; a clone is a new lineage forked from a pin. What a deletion frees is freed by reclaim jobs
(`reclaim.py`).

Nothing is safe to retry blindly but by its own errors: a second create finds the name taken. Waiting for the mounts'
flush before a snapshot is the caller's (`service.py`), as is holding the mounts of a volume that is rolled back
(`rolling_back.py`).
"""

from __future__ import annotations

import itertools
import stat
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, TypedDict, Unpack

from redfs.coordinator import sessions
from redfs.coordinator.jobs import add_job, bytes_of_head, bytes_of_pin, drop_job
from redfs.coordinator.txn import Txn, scan_pairs
from redfs.core.errors import Busy, InvalidArgument, NotAllowed, Unavailable
from redfs.core.ids import ROOT_INO, ZERO_LINEAGE, ZERO_VOLUME
from redfs.core.kv import ReadKv
from redfs.core.policy import Policy, best_fit, parse_policy, require_fit
from redfs.core.records import (
    ROOT_KEY,
    Inode,
    VolumeRoot,
    encode_inode,
    encode_root,
    inode_key,
)
from redfs.core.tables import (
    ALL_U64,
    FAMILIES,
    FORMAT_KEY,
    INCARNATION_KEY,
    META,
    MOUNTS,
    NEXT_VOLUME_KEY,
    POOL_ID_KEY,
    ROW_VERSION,
    SCHEDULES,
    SESSIONS,
    SHARING,
    Compression,
    JobKind,
    VolumeKind,
    VolumeRow,
    VolumeState,
    decode_session,
    decode_u64,
    encode_u64,
    pair_range,
    schedule_range,
    split_pair,
    u64_key,
)
from redfs.core.versions.layout import Holder, HolderType
from redfs.core.volume_tree import (
    MAX_SNAPSHOTS_PER_VOLUME,
    MAX_VOLUMES,
    ZERO_NAME,
    check_texts,
    check_volume_name,
    require_changeable,
    split_snapshot_name,
)

FIRST_FREE_INO = ROOT_INO + 1
COMPRESSIONS = {"none": Compression.NONE, "zstd": Compression.ZSTD}
COMPRESSION_NAMES = {int(value): name for name, value in COMPRESSIONS.items()}
MAX_MINIMUM_NODES = 24
"""The widest policy's shards: a higher minimum could never be reached."""
MAX_ORIGIN_CHARS = 120
"""A pool's id and two numbers, with room to spare."""
MAX_QUOTA_BYTES = 1 << 62
"""More than any pool holds."""


def bootstrap(txn: Txn, pool_id: str) -> None:
    """Makes a new pool: its identity and the zero volume. Does nothing where the pool is there already."""
    if txn.kv.get(META, FORMAT_KEY) is not None:
        return
    txn.kv.put(META, FORMAT_KEY, encode_u64(ROW_VERSION))
    txn.kv.put(META, POOL_ID_KEY, pool_id.encode())
    txn.kv.put(META, INCARNATION_KEY, encode_u64(0))
    txn.kv.put(META, NEXT_VOLUME_KEY, encode_u64(ZERO_VOLUME + 1))
    txn.versions.create_lineage(ZERO_LINEAGE, ZERO_LINEAGE)
    _put_root(txn, ZERO_LINEAGE)
    epoch = txn.versions.pin_head(ZERO_LINEAGE, Holder(HolderType.SNAPSHOT, ZERO_VOLUME))
    policy = parse_policy(txn.env.config.default_policy)
    zero = VolumeRow(
        ZERO_VOLUME, VolumeKind.ZERO, VolumeState.OK, 0, ZERO_LINEAGE, epoch, txn.now_ns, policy, Compression.ZSTD, 0,
        ZERO_NAME, "the empty volume that all others descend from", "",
    )  # fmt: skip
    txn.tree.add(zero)


def _put_root(txn: Txn, lineage: int, hash_seed: int = 0) -> None:
    """The root record and the root folder of an empty volume whose family is its own lineage."""
    seed = hash_seed or int.from_bytes(txn.env.randomness.token_bytes(8), "big")
    txn.put_record(lineage, *ROOT_KEY, encode_root(VolumeRoot(seed, lineage)))
    now = txn.now_ns
    root = Inode(stat.S_IFDIR | 0o755, 0, 0, 2, 0, now, now, now, now, parent=ROOT_INO)
    txn.put_record(lineage, *inode_key(ROOT_INO), encode_inode(root))
    txn.kv.put(FAMILIES, u64_key(lineage), encode_u64(FIRST_FREE_INO))


def create_volume(
    txn: Txn,
    name: str,
    protection: str = "",
    description: str = "",
    color: str = "",
    compression: str = "",
    minimum_nodes: int = 0,
    quota_bytes: int = 0,
    hash_seed: int = 0,
    shared: bool = False,
) -> VolumeRow:
    """A new empty volume: a clone of the zero volume. Raises TooFewNodes, AlreadyExists, InvalidArgument.

    `hash_seed` is that of a volume whose records it is to receive; 0: a new one.
    """
    check_volume_name(name)
    check_texts(description, color)
    policy = choose_policy(txn, protection)
    zero = txn.tree.require(ZERO_VOLUME)
    row = _fork(txn, zero, zero.epoch, name)
    _put_root(txn, row.lineage, hash_seed)
    row = row._replace(
        policy=policy,
        description=description,
        color=color,
        compression=_compression(compression or "zstd"),
        minimum_nodes=_minimum_nodes(policy, minimum_nodes),
        quota_bytes=_quota(quota_bytes),
        shared=shared,
    )
    txn.tree.add(row)
    return row


def choose_policy(txn: Txn, protection: str) -> Policy:
    """The policy that is asked for, or the pool's default as far as nodes allow. Raises TooFewNodes."""
    known = txn.env.cluster.known()
    if protection:
        policy = parse_policy(protection)
    else:
        policy = parse_policy(txn.env.config.default_policy)
        if known:
            policy = best_fit(policy, known)
    require_fit(policy, known)
    return policy


def _compression(word: str) -> int:
    if word not in COMPRESSIONS:
        raise InvalidArgument(f"unknown compression {word!r}: use zstd or none")
    return COMPRESSIONS[word]


def _minimum_nodes(policy: Policy, nodes: int) -> int:
    if nodes > MAX_MINIMUM_NODES:
        raise InvalidArgument(f"a volume's least number of nodes is at most {MAX_MINIMUM_NODES}")
    return 0 if nodes >= policy.least_nodes else nodes


def _quota(quota_bytes: int) -> int:
    if quota_bytes > MAX_QUOTA_BYTES:
        raise InvalidArgument(f"a quota is at most {MAX_QUOTA_BYTES} bytes; 0 means none")
    return quota_bytes


def clone_volume(txn: Txn, source_name: str, name: str, **changes: Unpack[Settings]) -> VolumeRow:
    """A writable child of any node of the tree; the node is not touched. A live one is pinned and forked.

    It has the node's settings but for the `changes`. Raises NotFound, AlreadyExists and what `set_volume` does.
    """
    check_volume_name(name)
    source = txn.tree.named(source_name)
    if source.kind == VolumeKind.ZERO:
        create_volume(txn, name)
        return set_volume(txn, name, **changes)
    epoch = source.epoch
    if source.kind == VolumeKind.LIVE:
        child = _peek_volume_id(txn)
        epoch = txn.versions.pin_head(source.lineage, Holder(HolderType.FORK, child))
    row = _changed(txn, _fork(txn, source, epoch, name), changes)
    txn.tree.add(row)
    # What the source had unlinked but not freed yet is garbage in the clone too.
    add_job(txn, JobKind.REAP, row.volume_id, 0, row.volume_id, name)
    return row


def clone_backed(txn: Txn, source_name: str, name: str, snapshot: str = "", **changes: Unpack[Settings]) -> VolumeRow:
    """Freezes a live volume as the snapshot SOURCE@`snapshot` (as the clone is named where empty) and clones that.

    Branch and continuation then share a point that has a name. Both are made or none. Raises NotAllowed for a source
    that never changes, else what `create_snapshot` and `clone_volume` do.
    """
    check_volume_name(name)
    source = txn.tree.named(source_name)
    if source.kind != VolumeKind.LIVE:
        raise NotAllowed(f"{source_name!r} never changes and needs no snapshot behind its clone: clone it plainly")
    backing = create_snapshot(txn, f"{source_name}@{snapshot or name}")
    return clone_volume(txn, backing.name, name, **changes)


def _peek_volume_id(txn: Txn) -> int:
    raw = txn.kv.get(META, NEXT_VOLUME_KEY)
    return ZERO_VOLUME + 1 if raw is None else decode_u64(raw)


def _next_volume_id(txn: Txn) -> int:
    volume_id = txn.next_number(NEXT_VOLUME_KEY)
    if txn.tree.count() >= MAX_VOLUMES:
        raise NotAllowed(f"the pool has {MAX_VOLUMES} volumes and snapshots already: delete some first")
    return volume_id


def _fork(txn: Txn, source: VolumeRow, epoch: int, name: str) -> VolumeRow:
    """A new lineage at a pin and the live volume's row on it, not entered in the tree yet."""
    txn.tree.require_free(name)
    volume_id = _next_volume_id(txn)
    family = volume_id if source.kind == VolumeKind.ZERO else txn.versions.lineage(source.lineage).family
    txn.versions.fork(source.lineage, epoch, volume_id, family)
    return source._replace(
        volume_id=volume_id,
        kind=VolumeKind.LIVE,
        state=VolumeState.OK,
        parent_id=source.volume_id,
        lineage=volume_id,
        epoch=0,
        created_ns=txn.now_ns,
        name=name,
        schedule_id=0,
        origin="",
    )


def create_snapshot(txn: Txn, name: str, origin: str = "") -> VolumeRow:
    """Freezes a live volume as it is committed now. `origin`: the stream id of what it was received from."""
    if len(origin) > MAX_ORIGIN_CHARS or not origin.isascii() or (origin and not origin.isprintable()):
        raise InvalidArgument(f"a snapshot's origin has at most {MAX_ORIGIN_CHARS} printable characters")
    volume_name, _ = split_snapshot_name(name)
    volume = txn.tree.named(volume_name)
    require_changeable(volume, "snapshotted")
    txn.tree.require_free(name)
    return _freeze(txn, volume, name, origin)


def _freeze(txn: Txn, volume: VolumeRow, name: str, origin: str = "") -> VolumeRow:
    """Pins the volume's head under a name that is free."""
    snapshots = txn.tree.count_snapshots(volume.volume_id)
    if snapshots >= MAX_SNAPSHOTS_PER_VOLUME:
        raise NotAllowed(f"{volume.name!r} has {snapshots} snapshots already: delete some first")
    volume_id = _next_volume_id(txn)
    epoch = txn.versions.pin_head(volume.lineage, Holder(HolderType.SNAPSHOT, volume_id))
    row = volume._replace(
        volume_id=volume_id,
        kind=VolumeKind.SNAPSHOT,
        parent_id=volume.volume_id,
        epoch=epoch,
        created_ns=txn.now_ns,
        name=name,
        origin=origin,
    )
    txn.tree.add(row)
    return row


class Held(NamedTuple):
    """The mounts of a volume that have written everything and begin nothing until they are told how it goes on."""

    volume_id: int
    sessions: frozenset[int]
    until_s: float
    """On the coordinator's monotonic clock: from then on they may ask by themselves and go on as they were."""


class RolledBack(NamedTuple):
    volume: VolumeRow
    kept: VolumeRow | None
    """The snapshot that keeps what the volume held before."""
    root: bytes
    """The volume's VolumeRoot record, as its mounts must know it now."""
    mounts: frozenset[int]
    """The sessions that still have it mounted, and must be told."""


def roll_back(
    txn: Txn, snapshot_name: str, keep: str = "", discard: bool = False, held: Held | None = None
) -> RolledBack:
    """Makes a live volume what one of its snapshots is. The volume keeps its name, settings, snapshots and clones.

    The head goes on as a new lineage forked from the snapshot's pin, so it costs the same for any size. What the volume
    held is kept as the snapshot VOLUME@`keep` (named by the time where that is empty) unless `discard`. Not idempotent:
    a repeated call keeps another snapshot.

    Mounts that are `held` keep the volume and their open segments; whoever calls tells them (`rolling_back.py`). One
    that has lapsed and is not held loses the volume. NotFound, AlreadyExists, InvalidArgument; Busy where another
    mount, also a read-only one, is alive: it knows files that would not be there any more; Unavailable where the hold
    is over.
    """
    volume_name, _ = split_snapshot_name(snapshot_name)
    if keep and discard:
        raise InvalidArgument("what the volume holds now is either kept under a name or discarded: choose one")
    volume = txn.tree.named(volume_name)
    require_changeable(volume, "rolled back")
    snapshot = txn.tree.named(snapshot_name)
    mounts = _require_held(txn, volume, held)
    kept = None
    if not discard:
        kept_name = f"{volume_name}@{keep}" if keep else _name_by_time(txn, volume_name)
        split_snapshot_name(kept_name)
        txn.tree.require_free(kept_name)
        kept = _freeze(txn, volume, kept_name)
    lineage = _next_volume_id(txn)
    txn.versions.fork(snapshot.lineage, snapshot.epoch, lineage, txn.versions.lineage(volume.lineage).family)
    total = bytes_of_head(txn, volume.lineage)
    txn.versions.drop_head(volume.lineage)
    add_job(txn, JobKind.RECLAIM_HEAD, volume.lineage, 0, 0, f"{volume_name}, before it was rolled back", total)
    volume = volume._replace(lineage=lineage)
    txn.tree.update(volume)
    # What the snapshot had unlinked but not freed yet is garbage in the volume again.
    add_job(txn, JobKind.REAP, volume.volume_id, 0, volume.volume_id, volume_name)
    return RolledBack(volume, kept, sessions.root_record(txn, volume), mounts)


def _require_held(txn: Txn, volume: VolumeRow, held: Held | None) -> frozenset[int]:
    """The held sessions that have the volume; the lapsed ones lose it. Raises Busy where another is alive."""
    there = frozenset(_sessions_of(txn, volume))
    known = held.sessions if held is not None and held.volume_id == volume.volume_id else frozenset()
    others = there - known
    alive = [session for session in sorted(others) if txn.env.leases.valid(session)]
    if alive:
        who = ", ".join(sessions.require_session(txn, session).client_name for session in alive[:3])
        raise Busy(f"{volume.name!r} is mounted by {who}: unmount it first")
    if held is not None and there & known and txn.env.clock.monotonic() > held.until_s:
        raise Unavailable(
            f"{volume.name!r} was not rolled back: its mounts could not be kept waiting for longer. Retry"
        )
    for session in others:
        sessions.take_away(txn, session, volume.volume_id)
    return there & known


def _name_by_time(txn: Txn, volume_name: str) -> str:
    now = datetime.fromtimestamp(txn.now_ns // 10**9, UTC)
    name = f"{volume_name}@before-rollback-{now:%Y%m%d-%H%M%S}"
    names = itertools.chain((name,), (f"{name}-{number}" for number in itertools.count(2)))
    return next(free for free in names if txn.tree.find(free) is None)


def rename_volume(txn: Txn, name: str, new_name: str) -> VolumeRow:
    return txn.tree.rename(txn.tree.named(name), new_name)


class Settings(TypedDict, total=False):
    """Settings of a volume that are to change."""

    protection: str
    description: str
    color: str
    compression: str
    minimum_nodes: int
    quota_bytes: int
    shared: bool


def set_volume(txn: Txn, name: str, **changes: Unpack[Settings]) -> VolumeRow:
    """Changes what is given. Protection and compression hold for what is written from now on.

    `shared` counts for mounts to come. Safe to retry.

    Raises NotFound, InvalidArgument, TooFewNodes; NotAllowed for a snapshot's protection and the like.
    """
    row = txn.tree.named(name)
    require_changeable(row, "changed")
    if row.kind == VolumeKind.SNAPSHOT and changes.keys() - {"description", "color"}:
        raise NotAllowed(f"{name!r} is a snapshot: only its description and color can change")
    row = _changed(txn, row, changes)
    txn.tree.update(row)
    return row


def _changed(txn: Txn, row: VolumeRow, changes: Settings) -> VolumeRow:
    check_texts(changes.get("description"), changes.get("color"))
    if "protection" in changes:
        row = row._replace(policy=choose_policy(txn, changes["protection"]))
    if "minimum_nodes" in changes or "protection" in changes:
        row = row._replace(minimum_nodes=_minimum_nodes(row.policy, changes.get("minimum_nodes", row.minimum_nodes)))
    if "compression" in changes:
        row = row._replace(compression=_compression(changes["compression"]))
    if "quota_bytes" in changes:
        row = row._replace(quota_bytes=_quota(changes["quota_bytes"]))
    row = row._replace(shared=changes.get("shared", row.shared))
    return row._replace(description=changes.get("description", row.description), color=changes.get("color", row.color))


def delete_volume(txn: Txn, name: str, force: bool = False) -> VolumeRow:
    """Deletes a live volume or a snapshot; its space is freed in the background.

    One that is mounted: Busy, unless `force`; then those sessions lose it and are told, and their later commits get
    LeaseLapsed.
    """
    row = txn.tree.named(name)
    require_changeable(row, "deleted")
    for session in _sessions_of(txn, row) if force else _require_unused(txn, row):
        sessions.take_away(txn, session, row.volume_id)
        txn.after_commit.append(partial(txn.env.hooks.volume_gone, session, row.volume_id))
    row = txn.tree.mark_deleted(row)
    if row.kind == VolumeKind.LIVE:
        total = bytes_of_head(txn, row.lineage)
        txn.versions.drop_head(row.lineage)
        drop_job(txn, JobKind.REAP, row.volume_id)
        for key, _ in list(txn.kv.scan(SCHEDULES, *schedule_range(row.volume_id))):
            txn.kv.delete(SCHEDULES, key)
        add_job(txn, JobKind.RECLAIM_HEAD, row.lineage, 0, row.volume_id, name, total)
    else:
        total = bytes_of_pin(txn, row.lineage, row.epoch)
        if txn.versions.release(row.lineage, row.epoch, Holder(HolderType.SNAPSHOT, row.volume_id)):
            add_job(txn, JobKind.RECLAIM_PIN, row.lineage, row.epoch, row.volume_id, name, total)
        else:
            txn.tree.freed(row.volume_id)
    return txn.tree.get(row.volume_id) or row._replace(state=VolumeState.DELETED)


def _sessions_of(txn: Txn, row: VolumeRow) -> list[int]:
    return [session for session, _ in scan_pairs(txn.kv, MOUNTS, row.volume_id)]


def _require_unused(txn: Txn, row: VolumeRow) -> list[int]:
    """The lapsed sessions that still have the volume. Raises Busy where one is alive."""
    sessions_there = _sessions_of(txn, row)
    if any(txn.env.leases.valid(session) for session in sessions_there):
        who = ", ".join(mounts_of(txn.kv, row.volume_id)[:3])
        raise Busy(f"{row.name!r} is mounted by {who}: unmount it first")
    return sessions_there


def mounts_of(kv: ReadKv, volume_id: int) -> list[str]:
    """Who has the volume mounted, for people."""
    found = []
    for key, _ in kv.scan(MOUNTS, *pair_range(volume_id)):
        raw = kv.get(SESSIONS, key[8:])
        if raw is not None:
            found.append(decode_session(raw).client_name)
    return found


def all_in_shared_mode(kv: ReadKv) -> set[int]:
    """The volumes whose operations the coordinator runs."""
    sharing = {split_pair(key)[0] for key, raw in kv.scan(MOUNTS, b"", ALL_U64 * 2) if raw[0] in SHARING}
    return {volume_id for volume_id in sharing if sessions.holder_of(kv, volume_id) is None}


def all_mounts(kv: ReadKv) -> dict[int, list[str]]:
    """Volume -> who has it mounted, for people: of all volumes at once."""
    names = {decode_u64(key): decode_session(raw).client_name for key, raw in kv.scan(SESSIONS, b"", ALL_U64)}
    found: dict[int, list[str]] = {}
    for key, _ in kv.scan(MOUNTS, b"", ALL_U64 * 2):
        volume_id, session = split_pair(key)
        if session in names:
            found.setdefault(volume_id, []).append(names[session])
    return found
