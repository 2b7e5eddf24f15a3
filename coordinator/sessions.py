"""Commands of sessions: open, resume, attach, detach, end; inode ranges; reservations of space.

A session is a row with a secret token and the number and answer of its last commit, so that a retry is answered and a
client that comes back goes on where it was. The exclusive delegation of a live volume is a row: whoever is not in it
commits nothing. A session whose lease lapsed keeps its place until somebody else asks for its volume, or for
`session_keep_s`; then it is ended here, in the same order as commits, so nothing of it can become visible afterwards.

A volume is in **exclusive mode** while a session holds its delegation, and in **shared mode** while sharing attachments
(`tables.SHARING`) are there and none of them holds it. Only commands here change the mode: `attach` (the first one gets
the delegation), `give_back`, `become_exclusive`, and whatever takes the holder's volume away.

Raises LeaseLapsed where the session has ended, Busy where another one stands in the way.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from errno import EROFS
from functools import partial
from typing import NamedTuple

from redfs.coordinator.jobs import add_job
from redfs.coordinator.leases import Leases
from redfs.coordinator.open_book import MAX_OPEN_INODES
from redfs.coordinator.txn import Txn, scan_pairs
from redfs.core.errors import Busy, FsError, InvalidArgument, LeaseLapsed, NotAllowed, NotFound
from redfs.core.kv import ReadKv
from redfs.core.placement import usable_plain_bytes
from redfs.core.policy import Layout, Policy, overhead_bytes, shrink
from redfs.core.records import ROOT_KEY
from redfs.core.tables import (
    ALL_U64,
    ATTACHMENTS,
    DELEGATIONS,
    FAMILIES,
    JOBS,
    MOUNTS,
    NEXT_SESSION_KEY,
    NEXT_VOLUME_KEY,
    OPEN_SEGMENTS,
    OPERATIONS,
    REPLIES,
    RESERVATIONS,
    SESSIONS,
    SHARING,
    TOKEN_BYTES,
    Access,
    JobKind,
    SessionRow,
    VolumeKind,
    VolumeRow,
    VolumeState,
    decode_session,
    decode_u64,
    decode_volume,
    encode_session,
    encode_u64,
    encode_volume,
    job_key,
    pair_key,
    split_pair,
    u64_key,
)
from redfs.core.versions.layout import Holder, HolderType
from redfs.core.versions.weights import HEAD, shown_by
from redfs.core.volume_tree import ReadTree, require_changeable

MAX_SESSIONS = 4096
"""Mounts at one time: each has a stream with buffers."""
MAX_ATTACHMENTS = 64
"""Volumes that one session may have: a mount has one, tools a few."""
MAX_CLIENT_NAME_CHARS = 255
MAX_INODES_PER_GRANT = 1 << 20
"""A client asks for thousands; what it does not use is lost for good, so no one gets billions."""
MAX_INO = (1 << 48) - 1
"""Mounts use the bits above for the snapshots that they show inside (`client/fs/snapshot_views.py`). A family that
makes a million files each second comes here after nine years."""


class Opened(NamedTuple):
    session_id: int
    token: bytes
    last_commit: int
    resumed: bool


def open_session(txn: Txn, client_name: str, session_id: int = 0, token: bytes = b"") -> Opened:
    """A new session, or with id and token the one that was. LeaseLapsed where that has ended or is not the caller's."""
    if session_id:
        row = require_session(txn, session_id)
        if not hmac.compare_digest(row.token, token):
            raise LeaseLapsed("the session belongs to another client: mount again")
        txn.after_commit.append(lambda: _begin(txn, session_id))
        return Opened(session_id, row.token, row.last_commit, True)
    if txn.env.leases.count() >= MAX_SESSIONS:
        raise Busy(f"the pool has {MAX_SESSIONS} sessions already: unmount some first")
    opened = Opened(txn.next_number(NEXT_SESSION_KEY), txn.env.randomness.token_bytes(TOKEN_BYTES), 0, False)
    name = client_name[:MAX_CLIENT_NAME_CHARS] or "unnamed client"
    row = SessionRow(opened.token, txn.now_ns, 0, name)
    txn.kv.put(SESSIONS, u64_key(opened.session_id), encode_session(row))
    txn.after_commit.append(lambda: _begin(txn, opened.session_id))
    return opened


def _begin(txn: Txn, session_id: int) -> None:
    txn.env.leases.start(session_id)
    txn.env.figures.start(session_id)


def require_session(txn: Txn, session_id: int) -> SessionRow:
    """The session's row. LeaseLapsed where it has ended."""
    raw = txn.kv.get(SESSIONS, u64_key(session_id))
    if raw is None:
        raise LeaseLapsed("the session has ended, its lease lapsed: mount again")
    return decode_session(raw)


def require_delegation(txn: Txn, session_id: int, volume_id: int) -> VolumeRow:
    """The row of a volume whose exclusive delegation the session holds. LeaseLapsed."""
    if txn.kv.get(DELEGATIONS, u64_key(volume_id)) != encode_u64(session_id):
        raise LeaseLapsed(f"volume {volume_id} does not belong to this mount any more: mount it again")
    return txn.tree.require(volume_id)


def require_writer(txn: Txn, session_id: int, volume_id: int) -> VolumeRow:
    """The row of a volume that the session may write data for: it holds the delegation, or shares it. LeaseLapsed."""
    if holder_of(txn.kv, volume_id) is None and access_of(txn.kv, session_id, volume_id) == Access.SHARED:
        return txn.tree.require(volume_id)
    return require_delegation(txn, session_id, volume_id)


def require_shared(kv: ReadKv, session_id: int, volume_id: int, write: bool) -> VolumeRow:
    """The row of a volume in shared mode that the session has a part in.

    LeaseLapsed where it was taken away. NotAllowed where the session does not share it, Busy where one mount has it for
    itself now: the session asks how the volume stands. EROFS for a write of one that only reads.
    """
    access = access_of(kv, session_id, volume_id)
    row = None if access is None else ReadTree(kv).get(volume_id)
    if access is None or row is None:
        raise LeaseLapsed(f"volume {volume_id} does not belong to this mount any more: mount it again")
    if access not in SHARING:
        raise NotAllowed(f"this mount does not share {row.name!r}: mount it with --shared")
    if holder_of(kv, volume_id) is not None:
        raise Busy(f"one mount has {row.name!r} for itself just now: ask how the volume stands, and try again")
    if write and access != Access.SHARED:
        raise FsError(EROFS)
    return row


class RecallNeeded(Busy):
    """Whoever has the volume shares it, and must give it back first: `sharing.py` sees to that and attaches again.

    Never told to a client.
    """

    def __init__(self, volume_id: int, message: str) -> None:
        super().__init__(message)
        self.volume_id = volume_id


def attach(
    txn: Txn, session_id: int, name: str, read_only: bool, *, shared: bool = False, alone: bool = False
) -> tuple[VolumeRow, bool, bytes]:
    """Gives a session a volume: (row, exclusive, root record). Safe to repeat.

    Read-write takes the exclusive delegation of a live volume: Busy while another session's lease on it is valid; one
    that lapsed is ended. Snapshots can only be read, the zero volume holds nothing to mount.

    With `shared`, or where the volume is one to be shared, the attachment is a sharing one (`alone`: never). The only
    one of a volume takes the delegation, also one that reads only; it joins others in shared mode. Where another holds
    the delegation: RecallNeeded if that one shares too, else Busy.
    """
    row = txn.tree.named(name)
    require_changeable(row, "mounted")
    _require_room(txn, session_id, row.volume_id)
    if row.kind != VolumeKind.LIVE and not read_only:
        raise NotAllowed(f"{name!r} never changes: mount it read-only, or clone it and mount the clone")
    access = _wanted_access(row, read_only, shared and not alone, alone)
    before = access_of(txn.kv, session_id, row.volume_id)
    if before is not None and before != access and (before in SHARING or access in SHARING):
        take_away(txn, session_id, row.volume_id)
        before = None
    exclusive = False
    if access in SHARING:
        exclusive = _join(txn, session_id, row, again=before is not None)
    elif access == Access.READ_WRITE:
        _require_alone(txn, session_id, row)
        exclusive = True
    if exclusive:
        txn.kv.put(DELEGATIONS, u64_key(row.volume_id), encode_u64(session_id))
    txn.kv.put(ATTACHMENTS, pair_key(session_id, row.volume_id), bytes([access]))
    txn.kv.put(MOUNTS, pair_key(row.volume_id, session_id), bytes([access]))
    return row, exclusive, root_record(txn, row)


def _wanted_access(row: VolumeRow, read_only: bool, shared: bool, alone: bool) -> Access:
    if row.kind == VolumeKind.LIVE and (shared or (row.shared and not alone)):
        return Access.SHARED_READ_ONLY if read_only else Access.SHARED
    return Access.READ_ONLY if read_only else Access.READ_WRITE


def _require_alone(txn: Txn, session_id: int, row: VolumeRow) -> None:
    """Ends the lapsed sessions that stand in a writer's way. Raises Busy where one is valid."""
    for other in _writing_or_sharing(txn, session_id, row.volume_id):
        if txn.env.leases.valid(other):
            raise _busy(txn, other, row.name)
        end_session(txn, other)


def _writing_or_sharing(txn: Txn, session_id: int, volume_id: int) -> list[int]:
    """The other sessions that hold the volume's delegation or share it."""
    holder = holder_of(txn.kv, volume_id)
    found = dict.fromkeys(sharing_sessions(txn.kv, volume_id))
    if holder is not None:
        found[holder] = None
    return [other for other in found if other != session_id]


def _busy(txn: Txn, other: int, name: str) -> Busy:
    who = require_session(txn, other).client_name
    return Busy(f"{name!r} is mounted by {who}: unmount it there first, or mount both with --shared")


def _join(txn: Txn, session_id: int, row: VolumeRow, *, again: bool) -> bool:
    """Whether a sharing attachment gets the delegation, or has it. Ends lapsed sessions. RecallNeeded, Busy.

    `again`: the session has the volume already, and is told how it stands.
    """
    volume_id = row.volume_id
    book = txn.env.open_book
    holder = holder_of(txn.kv, volume_id)
    if holder == session_id:
        return True
    for other in _writing_or_sharing(txn, session_id, volume_id):
        if not txn.env.leases.valid(other):
            end_session(txn, other)
        elif other == holder and access_of(txn.kv, other, volume_id) not in SHARING:
            raise _busy(txn, other, row.name)
        elif not again and (other == holder or txn.env.recalled.get(volume_id) == other):
            raise RecallNeeded(volume_id, f"{row.name!r} is just becoming shared: try again")

    def declare() -> None:
        if not book.has_declared(volume_id, session_id):
            book.declare(volume_id, session_id)

    # After what ends here, which empties its part of the book then.
    txn.after_commit.append(declare)
    return not again and not _writing_or_sharing(txn, session_id, volume_id)


def access_of(kv: ReadKv, session_id: int, volume_id: int) -> Access | None:
    """How a session has a volume or view; None where it has it not."""
    raw = kv.get(ATTACHMENTS, pair_key(session_id, volume_id))
    return None if raw is None else Access(raw[0])


def holder_of(kv: ReadKv, volume_id: int) -> int | None:
    """The session that holds the volume's exclusive delegation."""
    raw = kv.get(DELEGATIONS, u64_key(volume_id))
    return None if raw is None else decode_u64(raw)


def sharing_sessions(kv: ReadKv, volume_id: int) -> list[int]:
    """The sessions that share the volume, in either mode, by their numbers."""
    return [session for session, raw in scan_pairs(kv, MOUNTS, volume_id) if raw[0] in SHARING]


def writers_of(kv: ReadKv, volume_id: int) -> list[int]:
    """Who can change the volume now: the holder of its delegation, or all that write in shared mode; by number."""
    holder = holder_of(kv, volume_id)
    if holder is not None:
        return [] if access_of(kv, holder, volume_id) == Access.SHARED_READ_ONLY else [holder]
    return [session for session, raw in scan_pairs(kv, MOUNTS, volume_id) if raw[0] == Access.SHARED]


def in_shared_mode(kv: ReadKv, volume_id: int) -> bool:
    """Whether the coordinator runs the volume's operations."""
    return holder_of(kv, volume_id) is None and bool(sharing_sessions(kv, volume_id))


def alone_in_shared_mode(kv: ReadKv) -> dict[int, int]:
    """Volume -> its only sharing session, where nobody holds the delegation.

    Such a session may have given it back a moment ago: others join only behind one that showed nothing old any more.
    """
    sharing: dict[int, list[int]] = {}
    for key, raw in kv.scan(MOUNTS, b"", ALL_U64 * 2):
        if raw[0] in SHARING:
            volume_id, session = split_pair(key)
            sharing.setdefault(volume_id, []).append(session)
    return {volume: found[0] for volume, found in sharing.items() if len(found) == 1 and holder_of(kv, volume) is None}


def attached(txn: Txn, session_id: int, volume_id: int) -> tuple[VolumeRow, bool, bytes]:
    """How a volume that the session has stands now, as `attach` tells it. LeaseLapsed where it was taken away."""
    require_session(txn, session_id)
    access = access_of(txn.kv, session_id, volume_id)
    row = None if access is None or access == Access.VIEW else txn.tree.get(volume_id)
    if row is None:
        raise LeaseLapsed(f"volume {volume_id} does not belong to this mount any more: mount it again")
    exclusive = access == Access.READ_WRITE or (access in SHARING and holder_of(txn.kv, volume_id) == session_id)
    return row, exclusive, root_record(txn, row)


def name_now(txn: Txn, volume_id: int, name: str) -> str:
    """The name of a node of the tree, for who knew it as `name` before. NotFound where it was deleted."""
    row = txn.tree.get(volume_id)
    if row is None or row.state != VolumeState.OK:
        raise NotFound(f"{name!r} was deleted")
    return row.name


def _require_sharing(txn: Txn, session_id: int, volume_id: int) -> None:
    require_session(txn, session_id)
    access = access_of(txn.kv, session_id, volume_id)
    if access is None or access == Access.VIEW:
        raise LeaseLapsed(f"volume {volume_id} does not belong to this mount any more: mount it again")
    if access not in SHARING:
        raise NotAllowed(f"this mount of volume {volume_id} does not share it: mount it with --shared")


def give_back(txn: Txn, session_id: int, volume_id: int, open_inodes: Collection[int]) -> tuple[VolumeRow, bool, bytes]:
    """The holder has committed everything and gives the delegation back: shared mode. As `attached` tells it.

    Its open inodes enter the open book. Others join only when it has said that its kernel shows nothing old any more
    (`Environment.recalled`). Safe to repeat: one that gave it back before is told how things stand.
    """
    _require_sharing(txn, session_id, volume_id)
    if len(open_inodes) > MAX_OPEN_INODES:
        raise InvalidArgument(f"a mount has at most {MAX_OPEN_INODES} inodes of a volume open")
    if holder_of(txn.kv, volume_id) == session_id:
        txn.kv.delete(DELEGATIONS, u64_key(volume_id))
        txn.kv.delete(RESERVATIONS, pair_key(session_id, volume_id))
        row = txn.tree.require(volume_id)
        # What it left without a name and has not open either was for it to free.
        add_job(txn, JobKind.REAP, volume_id, 0, volume_id, row.name)
        _look_later(txn, volume_id)
    # At once, for commands of the same batch; in vain, where this one does not become durable, they do no harm.
    txn.env.recalled[volume_id] = session_id
    txn.env.open_book.declare(volume_id, session_id, open_inodes)
    return attached(txn, session_id, volume_id)


def become_exclusive(txn: Txn, session_id: int, volume_id: int) -> tuple[VolumeRow, bool, bytes]:
    """Gives the delegation to the only one that shares a volume in shared mode; as `attached` tells it. Safe to repeat.

    Lapsed sessions that share it are ended. Where others are there nothing changes.
    """
    _require_sharing(txn, session_id, volume_id)
    for other in _writing_or_sharing(txn, session_id, volume_id):
        if not txn.env.leases.valid(other):
            end_session(txn, other)
    if not _writing_or_sharing(txn, session_id, volume_id):
        txn.kv.put(DELEGATIONS, u64_key(volume_id), encode_u64(session_id))
        txn.after_commit.append(lambda: _left_shared_mode(txn, session_id, volume_id))
    return attached(txn, session_id, volume_id)


def _left_shared_mode(txn: Txn, session_id: int, volume_id: int) -> None:
    """After a commit: a session knows by itself what it has open, or has nothing of the volume any more."""
    txn.env.open_book.end(volume_id, session_id)
    txn.env.holds.end(volume_id, session_id)
    txn.env.remembered.forget(volume_id, session_id)
    if txn.env.recalled.get(volume_id) == session_id:
        txn.env.recalled.pop(volume_id, None)


def _look_later(txn: Txn, volume_id: int) -> None:
    txn.after_commit.append(partial(txn.env.hooks.sharing_changed, volume_id))


def attach_view(txn: Txn, session_id: int, name: str) -> tuple[VolumeRow, bool, bytes]:
    """Freezes a node of the tree for a session: (row, False, root record). The row has the view's number as its id.

    The view shows what is committed now until it is detached or the session ends, whatever becomes of the node. It is
    no mount. O(1). A repetition makes another view, which goes with the session.
    """
    row = txn.tree.named(name)
    _require_room(txn, session_id, 0)
    number = txn.next_number(NEXT_VOLUME_KEY)
    holder = Holder(HolderType.VIEW, number)
    epoch: int = row.epoch
    if row.kind == VolumeKind.LIVE:
        epoch = txn.versions.pin_head(row.lineage, holder)
    else:
        txn.versions.add_holder(row.lineage, epoch, holder)
    shown = row._replace(volume_id=number, epoch=epoch)
    txn.kv.put(ATTACHMENTS, pair_key(session_id, number), bytes([Access.VIEW]) + encode_volume(shown))
    return shown, False, root_record(txn, shown)


def view_of(attachment: bytes) -> VolumeRow | None:
    """What a view shows; None where a row of ATTACHMENTS is no view's."""
    return decode_volume(attachment[1:]) if attachment[0] == Access.VIEW else None


def _require_room(txn: Txn, session_id: int, volume_id: int) -> None:
    """Raises LeaseLapsed where the session has ended, NotAllowed where it has too many volumes already."""
    require_session(txn, session_id)
    there = sum(1 for _ in scan_pairs(txn.kv, ATTACHMENTS, session_id))
    if there >= MAX_ATTACHMENTS and txn.kv.get(ATTACHMENTS, pair_key(session_id, volume_id)) is None:
        raise NotAllowed(f"one session has at most {MAX_ATTACHMENTS} volumes and views")


def root_record(txn: Txn, row: VolumeRow) -> bytes:
    """The VolumeRoot record of a node of the tree, as stored."""
    epoch = row.epoch or txn.versions.head_epoch(row.lineage)
    root = txn.versions.get(row.lineage, epoch, *ROOT_KEY)
    if root is None:
        raise NotFound(f"{row.name!r} has no root record: run `redfs check`")
    return root


def detach(txn: Txn, session_id: int, volume_id: int) -> None:
    """Gives a volume or a view back. Safe to repeat."""
    require_session(txn, session_id)
    take_away(txn, session_id, volume_id)


def take_away(txn: Txn, session_id: int, volume_id: int) -> None:
    """Ends what a session has of a volume or view: delegation, reservation, open segments, the pin."""
    attachment = txn.kv.get(ATTACHMENTS, pair_key(session_id, volume_id))
    view = None if attachment is None else view_of(attachment)
    if view is not None:
        txn.kv.delete(ATTACHMENTS, pair_key(session_id, volume_id))
        if txn.versions.release(view.lineage, view.epoch, Holder(HolderType.VIEW, volume_id)):
            add_job(txn, JobKind.RECLAIM_PIN, view.lineage, view.epoch, 0, f"a view of {view.name}")
        return
    for segment_id, _ in list(scan_pairs(txn.kv, OPEN_SEGMENTS, session_id)):
        row = txn.segment(segment_id)
        if row is not None and row.volume_id == volume_id:
            txn.doom(segment_id, row)
    held = holder_of(txn.kv, volume_id) == session_id
    shares = attachment is not None and attachment[0] in SHARING
    if held:
        txn.kv.delete(DELEGATIONS, u64_key(volume_id))
    if shares:
        txn.after_commit.append(lambda: _left_shared_mode(txn, session_id, volume_id))
        _look_later(txn, volume_id)
    if held or shares:
        volume = txn.tree.get(volume_id)
        if volume is not None and volume.state == VolumeState.OK:
            # Files that were open and unlinked at a client that died are orphans now.
            add_job(txn, JobKind.REAP, volume_id, 0, volume_id, volume.name)
    txn.kv.delete(RESERVATIONS, pair_key(session_id, volume_id))
    txn.kv.delete(ATTACHMENTS, pair_key(session_id, volume_id))
    txn.kv.delete(MOUNTS, pair_key(volume_id, session_id))


def end_session(txn: Txn, session_id: int) -> None:
    """Ends a session: open segments aborted, volumes given back, row gone. Safe to repeat."""
    if txn.kv.get(SESSIONS, u64_key(session_id)) is None:
        return
    for volume_id, _ in list(scan_pairs(txn.kv, ATTACHMENTS, session_id)):
        take_away(txn, session_id, volume_id)
    for segment_id, _ in list(scan_pairs(txn.kv, OPEN_SEGMENTS, session_id)):
        row = txn.segment(segment_id)
        if row is not None:
            txn.doom(segment_id, row)
    for number, _ in list(scan_pairs(txn.kv, REPLIES, session_id)):
        txn.kv.delete(REPLIES, pair_key(session_id, number))
    for number, _ in list(scan_pairs(txn.kv, OPERATIONS, session_id)):
        txn.kv.delete(OPERATIONS, pair_key(session_id, number))
    txn.kv.delete(SESSIONS, u64_key(session_id))
    txn.after_commit.append(lambda: txn.env.forget_operations(session_id))
    txn.after_commit.append(lambda: txn.env.leases.end(session_id))
    txn.after_commit.append(lambda: txn.env.figures.end(session_id))
    txn.after_commit.append(lambda: txn.env.hooks.session_ended(session_id))


def to_be_ended(kv: ReadKv, leases: Leases, keep_s: float) -> list[int]:
    """Sessions whose lease lapsed longer than `keep_s` ago, or at all where a valid one shares a volume with them."""
    found = dict.fromkeys(leases.lapsed_longer_than(keep_s))
    for session_id in leases.lapsed_longer_than(0):
        if session_id not in found and _in_the_way(kv, leases, session_id):
            found[session_id] = None
    return list(found)


def _in_the_way(kv: ReadKv, leases: Leases, session_id: int) -> bool:
    return any(
        leases.valid(other)
        for volume_id, raw in scan_pairs(kv, ATTACHMENTS, session_id)
        if raw[0] in SHARING
        for other in sharing_sessions(kv, volume_id)
    )


def end_forgotten(txn: Txn) -> int:
    """Ends the sessions `to_be_ended`; how many."""
    forgotten = to_be_ended(txn.kv, txn.env.leases, txn.env.config.session_keep_s)
    for session_id in forgotten:
        end_session(txn, session_id)
    return len(forgotten)


def end_lapsed(txn: Txn, session_ids: Collection[int]) -> None:
    """Ends those of the sessions whose lease is over: others wait for what they may have."""
    for session_id in session_ids:
        if not txn.env.leases.valid(session_id):
            end_session(txn, session_id)


def grant_inodes(txn: Txn, session_id: int, volume_id: int, count: int, above: int = 0) -> tuple[int, int]:
    """(first, count) of inode numbers that nobody in the volume's family ever had, all greater than `above`."""
    if not 1 <= count <= MAX_INODES_PER_GRANT:
        raise InvalidArgument(f"inode numbers are granted 1 to {MAX_INODES_PER_GRANT} at a time")
    return take_inodes(txn, require_delegation(txn, session_id, volume_id), count, above)


def take_inodes(txn: Txn, volume: VolumeRow, count: int, above: int = 0) -> tuple[int, int]:
    """(first, count) of numbers of the volume's family, taken for good."""
    key = u64_key(txn.versions.lineage(volume.lineage).family)
    raw = txn.kv.get(FAMILIES, key)
    if raw is None:
        raise NotFound(f"the family of volume {volume.volume_id} has no inode counter: run `redfs check`")
    if above >= MAX_INO - MAX_INODES_PER_GRANT:
        raise InvalidArgument(f"inode numbers above {above} do not leave room for new ones")
    first = max(decode_u64(raw), above + 1)
    count = min(count, MAX_INO - first)
    txn.kv.put(FAMILIES, key, encode_u64(first + count))
    return first, count


class Granted(NamedTuple):
    """Space for dirty data."""

    bytes: int
    quota_left_bytes: int | None
    """What is committed may grow by so many logical bytes; None: no quota."""
    freeing: bool
    """Data that was deleted in the volume is still being freed."""


def quota_left(kv: ReadKv, volume: VolumeRow) -> int | None:
    """Logical bytes that a live volume's quota leaves; None without one."""
    if not volume.quota_bytes or volume.epoch:
        return None
    return max(0, volume.quota_bytes - shown_by(kv, volume.lineage, HEAD).logical_bytes)


def reserve(txn: Txn, session_id: int, volume_id: int, wanted_bytes: int) -> Granted:
    """Promises plain bytes for dirty data; the grant replaces the one before. Fewer than wanted when nearly full."""
    volume = require_writer(txn, session_id, volume_id)
    key = pair_key(session_id, volume_id)
    granted = min(wanted_bytes, writable_bytes(txn, volume, except_for=key)) if wanted_bytes else 0
    if granted:
        txn.kv.put(RESERVATIONS, key, encode_u64(granted))
    else:
        txn.kv.delete(RESERVATIONS, key)
    freeing = txn.kv.get(JOBS, job_key(JobKind.REAP, volume_id)) is not None
    return Granted(granted, quota_left(txn.kv, volume), freeing)


def writable_bytes(txn: Txn, volume: VolumeRow, except_for: bytes = b"") -> int:
    """Plain bytes that can still be promised to the volume: what fits, less what is promised to others."""
    rooms = [candidate.free_bytes for candidate in txn.env.cluster.candidates()]
    layouts = _layouts(volume.policy, rooms)
    if not layouts:
        return 0
    fitting, layout = max((usable_plain_bytes(rooms, layout), layout) for layout in layouts)
    raw = 0
    for key, value in txn.kv.scan(RESERVATIONS, b"", ALL_U64 * 2):
        if key == except_for:
            continue
        other = txn.tree.get(split_pair(key)[1])
        raw += overhead_bytes(layout if other is None else other.policy, decode_u64(value))
    return max(0, fitting - raw * layout.k // layout.width)


def _layouts(policy: Policy, rooms: Sequence[int]) -> list[Layout]:
    """Those that new data may be written with, also when the smaller of the nodes with room are full."""
    fewest = max(1, min(len(rooms), policy.least_nodes))
    roomy = sum(room > 0 for room in rooms)
    return [shrink(policy, nodes, 1) for nodes in range(fewest, roomy + 1)]
