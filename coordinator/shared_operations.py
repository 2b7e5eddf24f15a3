"""Changes of names and attributes in shared mode: the namespace engine run by the coordinator, one command each.

Several sessions have the volume attached and nobody holds its delegation. A change reads the version store through a
`SharedView`, and its write-set, the answer for a repetition, and inode numbers that it took are one transaction. Times
are stamps that only grow. What sessions have open is told by "open", "create" and "release", in order with everything
else; the open book is changed at once, which is harmless where the command fails afterwards.

Takes the messages of cluster.proto as they are: they say nothing else than a plain copy would. Raises FsError, which
leaves nothing behind; LeaseLapsed, Busy, NotAllowed (see `sessions.require_shared`), RolledBack, NoSpace (quota),
Unavailable (the same, while deleted data is being freed), CommitRefused (blocks that are not stored), InvalidArgument.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from errno import EFBIG, ENOENT, ENOSPC
from functools import partial
from stat import S_ISDIR
from typing import Any, NamedTuple

from redfs.coordinator.jobs import add_job
from redfs.coordinator.new_data import PieceCheck
from redfs.coordinator.numbered import store_answer, stored_answer
from redfs.coordinator.sessions import quota_left, require_session, require_shared, take_inodes
from redfs.coordinator.shared_opens import EVERYTHING, enter, open_inodes, require_known, sharing_writers, undeclared
from redfs.coordinator.shared_view import SharedView, encode_writes
from redfs.coordinator.txn import Txn
from redfs.core import namespace as engine
from redfs.core.errors import FsError, InvalidArgument, NoSpace, RolledBack, Unavailable
from redfs.core.namespace import Context, Entry, Removed, WriteSet
from redfs.core.namespace.opening import O_TRUNC, create_or_open, open_inode
from redfs.core.records import (
    MAX_FILE_BYTES,
    MAX_PIECES,
    MAX_SYMLINK_BYTES,
    Inode,
    Kind,
    Slot,
    decode_inode,
    decode_slot,
    decode_xattrs,
    encode_inode,
    generation_of,
    inode_key,
    object_ino,
    slot_key,
    split_orphan_object,
    split_slot_object,
)
from redfs.core.slots import logical_bytes
from redfs.core.tables import JOBS, JobKind, OperationRow, VolumeRow, is_paused_job, job_key
from redfs.core.versions.reader import check_object
from redfs.proto.gen import cluster_pb2 as pb

MAX_COPIED_ROWS = 8192
"""Rows of a copied file in one change: a gibibyte of its slots, some 50 ms of the state thread."""


class Changed(NamedTuple):
    """What a change is answered with."""

    row: OperationRow
    forget: frozenset[int] = frozenset()
    """Sessions whose kernels may show wrong data of `row.ino` with times that look right: the client gets its answer
    when they have dropped it (order Forget), or their leases are over. Also told for a repetition."""
    moved: Sequence[pb.Moved] = ()
    """Folders that the change moved into other folders."""
    others: Sequence[int] = ()
    """Sessions that are told so: the other ones that may change the volume."""


class _Change:
    """One change under way."""

    def __init__(self, txn: Txn, session_id: int, volume: VolumeRow, request: pb.Change) -> None:
        self.txn = txn
        self.session_id = session_id
        self.volume = volume
        self.request = request
        self.guard = txn.env.holds.guard(volume.volume_id, session_id)
        self.view = SharedView(txn.versions, volume.lineage, self.guard)
        self.ctx = Context(request.uid, request.gid, txn.env.stamp_ns(), 0, frozenset(request.groups))
        self.writes: WriteSet = {}

    def new_ino(self) -> int:
        """A number for what is made; it is taken only where the operation succeeds."""
        first, count = take_inodes(self.txn, self.volume, 1)
        if not count:
            raise FsError(ENOSPC, "the volume's family has no inode numbers left")
        return first

    def open_inodes(self) -> Container[int]:
        """What must be taken as open. Where that is not known yet, the reaper looks at what is left."""
        found = open_inodes(self.txn, self.volume.volume_id)
        if found is EVERYTHING:
            add_job(self.txn, JobKind.REAP, self.volume.volume_id, 0, self.volume.volume_id, self.volume.name)
        return found

    def note(self, outcome: engine.Outcome[Any]) -> Any:
        """Takes what an operation writes; its value. Raises Held."""
        self.guard.check()
        self.writes = outcome.writes
        return outcome.value


def change(txn: Txn, session_id: int, request: pb.Change) -> Changed:
    """Runs one change; see the module."""
    require_session(txn, session_id)
    operation = _OPERATIONS.get(request.operation)
    if operation is None:
        raise InvalidArgument(f"there is no operation {request.operation!r}: is the client newer?")
    stored = stored_answer(txn, session_id, request.number, request.answered)
    if stored is not None:
        return _changed(txn, session_id, request, stored)
    only_reads = request.operation == "release" or (request.operation == "open" and not request.flags & O_TRUNC)
    volume = require_shared(txn.kv, session_id, request.volume_id, write=not only_reads)
    require_lineage(volume, request.lineage)
    require_known(txn.kv, txn.env, volume.volume_id)
    under_way = _Change(txn, session_id, volume, request)
    row = operation(under_way)
    under_way.guard.check()
    _end_holds(txn, session_id, request, row)
    if under_way.writes:
        apply_writes(txn, session_id, volume, under_way.writes, _dropped_by(request))
        store_answer(txn, session_id, request.number, row)
    return _changed(txn, session_id, request, row)


def _changed(txn: Txn, session_id: int, request: pb.Change, row: OperationRow) -> Changed:
    moved = _moved_folders(request, row)
    if not moved:
        return Changed(row, _must_forget(txn, session_id, request))
    others = [session for session in sharing_writers(txn.kv, request.volume_id) if session != session_id]
    return Changed(row, moved=moved, others=others)


def _end_holds(txn: Txn, session_id: int, request: pb.Change, row: OperationRow) -> None:
    """Of inodes that are gone, and of one that is let go with its last close."""
    gone = [row.replaced] if row.replaced and not row.replaced_inode else []
    if request.operation in ("unlink", "release") and (not row.inode or request.let_go):
        gone.append(row.ino)
    if gone:
        volume_id = request.volume_id
        txn.after_commit.append(lambda: txn.env.holds.let_go(volume_id, session_id, gone))


def require_lineage(volume: VolumeRow, lineage: int) -> None:
    """Raises RolledBack where the volume goes on as another lineage than the one that the client knows."""
    if lineage != volume.lineage:
        raise RolledBack(f"{volume.name!r} was rolled back: what was meant for its state before cannot be done")


def require_quota(txn: Txn, volume: VolumeRow, growth_bytes: int) -> None:
    """Raises NoSpace where the quota does not leave room for so many more logical bytes.

    Unavailable while data that was deleted in the volume is being freed: then there may be room in a moment.
    """
    if growth_bytes <= 0:
        return
    left = quota_left(txn.kv, volume)
    if left is not None and growth_bytes > left:
        freeing = txn.kv.get(JOBS, job_key(JobKind.REAP, volume.volume_id))
        if freeing is not None and not is_paused_job(freeing):
            raise Unavailable(f"the quota of {volume.name!r} is reached, and deleted data is being freed: try again")
        raise NoSpace(f"the quota of {volume.name!r} is reached: delete files in it, or raise the quota")


def apply_writes(txn: Txn, session_id: int, volume: VolumeRow, writes: WriteSet, dropped: Collection[int]) -> None:
    """Applies a write-set to the volume's head, and has the reaper look where a generation of data died.

    Raises Remembered where sessions remember what it changes; `dropped` are inodes that this session has dropped.
    """
    touched = {object_ino(obj) for kind, obj in writes if kind in (Kind.INODE, Kind.DIRENT, Kind.SLOT)}
    remembered = txn.env.remembered
    remembered.begin(volume.volume_id, session_id, touched, dropped)
    txn.at_end.append(partial(remembered.end, volume.volume_id, touched))
    lineage = volume.lineage
    for kind, obj, value in encode_writes(writes):
        if value:
            txn.put_record(lineage, kind, obj, value)
            if kind == Kind.ORPHAN and split_orphan_object(obj)[1]:
                add_job(txn, JobKind.REAP, volume.volume_id, 0, volume.volume_id, volume.name)
        else:
            txn.versions.delete(lineage, kind, obj)


def _dropped_by(request: pb.Change) -> set[int]:
    return {request.ino, request.new_parent, *request.forgot}


def _must_forget(txn: Txn, session_id: int, request: pb.Change) -> frozenset[int]:
    if request.operation != "setattr" or not request.attributes.HasField("mtime_ns"):
        return frozenset()
    volume_id = request.volume_id
    sessions = txn.env.open_book.sessions_with(volume_id, request.ino).union(undeclared(txn, volume_id))
    return sessions - {session_id}


def _moved_folders(request: pb.Change, row: OperationRow) -> Sequence[pb.Moved]:
    if request.operation != "rename" or request.ino == request.new_parent:
        return ()
    places = [(row.ino, row.inode, request.new_parent, request.new_name)]
    if request.flags & engine.RENAME_EXCHANGE:
        places.append((row.replaced, row.replaced_inode, request.ino, request.name))
    return [
        pb.Moved(volume_id=request.volume_id, ino=ino, parent=parent, name=name)
        for ino, inode, parent, name in places
        if S_ISDIR(decode_inode(inode).mode)
    ]


# ---------------------------------------------------------------- operations


def _entry(entry: Entry) -> OperationRow:
    return OperationRow(ino=entry.ino, inode=encode_inode(entry.inode))


def _removed(removed: Removed) -> OperationRow:
    return OperationRow(ino=removed.ino, inode=_record(removed.inode))


def _record(inode: Inode | None) -> bytes:
    return b"" if inode is None else encode_inode(inode)


def _create(c: _Change) -> OperationRow:
    r = c.request
    opened = c.note(create_or_open(c.view, c.ctx, r.ino, r.name, r.mode, r.flags, c.new_ino))
    enter(c.txn, c.session_id, r.volume_id, opened.entry.ino)
    if r.hold and not opened.existed and not c.volume.quota_bytes:
        # Under a quota each write must find at once whether it fits.
        c.txn.env.holds.grant(r.volume_id, c.session_id, opened.entry.ino)
    return _entry(opened.entry)._replace(existed=opened.existed)


def _mknod(c: _Change) -> OperationRow:
    r = c.request
    return _entry(c.note(engine.mknod(c.view, c.ctx, r.ino, r.name, r.mode, r.rdev, c.new_ino())))


def _mkdir(c: _Change) -> OperationRow:
    r = c.request
    return _entry(c.note(engine.mkdir(c.view, c.ctx, r.ino, r.name, r.mode, c.new_ino())))


def _symlink(c: _Change) -> OperationRow:
    r = c.request
    return _entry(c.note(engine.symlink(c.view, c.ctx, r.ino, r.name, r.value, c.new_ino())))


def _link(c: _Change) -> OperationRow:
    r = c.request
    return _entry(c.note(engine.link(c.view, c.ctx, r.ino, r.new_parent, r.new_name)))


def _unlink(c: _Change) -> OperationRow:
    return _removed(c.note(engine.unlink(c.view, c.ctx, c.request.ino, c.request.name, c.open_inodes())))


def _rmdir(c: _Change) -> OperationRow:
    return _removed(c.note(engine.rmdir(c.view, c.ctx, c.request.ino, c.request.name, c.open_inodes())))


def _rename(c: _Change) -> OperationRow:
    r = c.request
    moved = c.note(engine.rename(c.view, c.ctx, r.ino, r.name, r.new_parent, r.new_name, r.flags, c.open_inodes()))
    row = OperationRow(ino=moved.ino, inode=encode_inode(moved.inode))
    if moved.replaced is None:
        return row
    return row._replace(replaced=moved.replaced.ino, replaced_inode=_record(moved.replaced.inode))


def _setattr(c: _Change) -> OperationRow:
    given = {field.name: value for field, value in c.request.attributes.ListFields()}
    ino = c.request.ino
    return _entry(Entry(ino, c.note(engine.setattr(c.view, c.ctx, ino, **given))))


def _setxattr(c: _Change) -> OperationRow:
    r = c.request
    return _entry(Entry(r.ino, c.note(engine.setxattr(c.view, c.ctx, r.ino, r.name, r.value, r.flags))))


def _removexattr(c: _Change) -> OperationRow:
    r = c.request
    return _entry(Entry(r.ino, c.note(engine.removexattr(c.view, c.ctx, r.ino, r.name))))


def _open(c: _Change) -> OperationRow:
    r = c.request
    inode = c.note(open_inode(c.view, c.ctx, r.ino, r.flags))
    enter(c.txn, c.session_id, r.volume_id, r.ino)
    return _entry(Entry(r.ino, inode))


def _release(c: _Change) -> OperationRow:
    """The session's last close. An inode without links that nobody has open any more ends."""
    ino, volume_id = c.request.ino, c.request.volume_id
    c.txn.env.open_book.leave(volume_id, c.session_id, ino)
    gone = ino not in c.open_inodes() and c.note(engine.release(c.view, c.ctx, ino))
    return OperationRow(ino=ino, inode=b"" if gone else c.view.raw(inode_key(ino)) or b"")


def _make_copy(c: _Change) -> OperationRow:
    """Makes an inode that is like another one, with its attributes and its first slots."""
    r = c.request
    slots = _copied_slots(r.rows)
    xattrs = [attr for row in r.rows if row.kind == Kind.XATTR for attr in decode_xattrs(row.value)]
    _check_copied(c, slots, logical_bytes(slots))
    like = decode_inode(r.inode)
    if len(like.symlink) > MAX_SYMLINK_BYTES:
        raise InvalidArgument(f"a symbolic link has at most {MAX_SYMLINK_BYTES} bytes")
    entry = c.note(engine.make_copy(c.view, c.ctx, r.ino, r.name, like, xattrs, slots, r.size, c.new_ino()))
    return _entry(entry)


def _record_slots(c: _Change) -> OperationRow:
    """More slots of a copied file, complete ones. ENOENT where it was removed."""
    r = c.request
    slots = _copied_slots(r.rows)
    inode: Any = c.view.get(inode_key(r.ino))
    if inode is None:
        raise FsError(ENOENT, "a file was removed while it was copied")
    keys = [slot_key(r.ino, generation_of(inode.generations, number), number) for number in slots]
    before: list[Any] = c.view.get_many(keys)
    had = logical_bytes({number: slot or () for number, slot in enumerate(before)})
    _check_copied(c, slots, logical_bytes(slots) - had)
    return _entry(Entry(r.ino, c.note(engine.record_data(c.view, r.ino, slots, r.size, None, None))))


def _copied_slots(rows: Iterable[pb.Row]) -> dict[int, Slot]:
    slots: dict[int, Slot] = {}
    for row in rows:
        if row.kind == Kind.SLOT:
            check_object(row.kind, row.obj)
            slots[split_slot_object(row.obj)[2]] = decode_slot(row.value)
    return slots


def _check_copied(c: _Change, slots: Mapping[int, Slot], growth_bytes: int) -> None:
    """All blocks that the slots name must be stored, and the quota must leave room. CommitRefused, NoSpace."""
    if len(c.request.rows) > MAX_COPIED_ROWS:
        raise InvalidArgument(f"at most {MAX_COPIED_ROWS} rows of a file are copied at once")
    if c.request.size > MAX_FILE_BYTES:
        raise FsError(EFBIG)
    check = PieceCheck(c.txn, {})
    for pieces in slots.values():
        if len(pieces) > MAX_PIECES:
            raise InvalidArgument(f"a slot has at most {MAX_PIECES} pieces, not {len(pieces)}")
        check.look(pieces)
    check.end()
    require_quota(c.txn, c.volume, growth_bytes)


_OPERATIONS: dict[str, Callable[[_Change], OperationRow]] = {
    "create": _create,
    "mknod": _mknod,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "link": _link,
    "unlink": _unlink,
    "rmdir": _rmdir,
    "rename": _rename,
    "setattr": _setattr,
    "setxattr": _setxattr,
    "removexattr": _removexattr,
    "open": _open,
    "release": _release,
    "make_copy": _make_copy,
    "record_slots": _record_slots,
}
