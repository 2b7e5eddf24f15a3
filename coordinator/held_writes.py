"""What a session wrote to files that it holds: many files' data in one command, which ends the holds.

The files were empty when they were made and nobody else has looked at them, so their data is laid out from the
beginning, whole. A time that comes with it is what the holder has shown to its own programs; it becomes the file's, and
later stamps are later than it. Blocks of all files come in the same segments.

A file that is gone is left out: the holder removed it. Data of a file that the session does not hold is never taken,
and nothing of such a request: others have seen the file without it. Raises NotAllowed then, else what `shared_writes`
raises.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from redfs.coordinator import convert
from redfs.coordinator.new_data import PieceCheck, settle_data, take_data
from redfs.coordinator.numbered import store_answer, stored_answer
from redfs.coordinator.sessions import require_session, require_shared
from redfs.coordinator.shared_opens import require_known
from redfs.coordinator.shared_operations import apply_writes, require_lineage, require_quota
from redfs.coordinator.shared_view import SharedView
from redfs.coordinator.shared_writes import MAX_WRITE_BYTES, MAX_WRITE_PARTS, MAX_WRITE_SEGMENTS
from redfs.coordinator.txn import Txn
from redfs.core.errors import InvalidArgument, NotAllowed
from redfs.core.namespace import WriteSet
from redfs.core.namespace.data import record_data
from redfs.core.namespace.written import Part, lay_parts, with_blocks
from redfs.core.records import MAX_FILE_BYTES, SLOT_BYTES, inode_key
from redfs.core.tables import OperationRow
from redfs.proto.gen import cluster_pb2 as pb

MAX_HELD_FILES = 1024
"""Files of one request: some 100 ms of the state thread."""
MAX_AHEAD_NS = 1_000_000_000
"""By which a holder's clock may be ahead. Later times become the present."""


class _File(NamedTuple):
    ino: int
    size: int
    mtime_ns: int | None
    parts: list[Part]


def write_held(txn: Txn, session_id: int, request: pb.WriteHeld) -> None:
    """Records what the session kept of files that it holds, and ends the holds; see the module. Safe to repeat."""
    require_session(txn, session_id)
    if stored_answer(txn, session_id, request.number, request.answered) is not None:
        return
    volume = require_shared(txn.kv, session_id, request.volume_id, write=True)
    require_lineage(volume, request.lineage)
    require_known(txn.kv, txn.env, volume.volume_id)
    files = _files_of(request)
    holds = txn.env.holds
    for file in files:
        changes = file.size or file.mtime_ns is not None
        if changes and holds.holder(volume.volume_id, file.ino) != session_id:
            raise NotAllowed(f"this mount does not hold inode {file.ino} any more: what it kept of it is lost")
    data = take_data(
        txn, session_id, volume.volume_id, convert.from_segments(request.segments), convert.from_blocks(request.blocks)
    )
    substitutions = dict(data.substitutions)
    check = PieceCheck(txn, data.blocks)
    view = SharedView(txn.versions, volume.lineage)
    writes: WriteSet = {}
    growth_bytes = 0
    for file in files:
        inode: Any = view.get(inode_key(file.ino))
        if inode is None or not (file.size or file.mtime_ns is not None):
            continue
        laid = lay_parts(view, file.ino, inode, 0, with_blocks(file.parts, substitutions))
        growth_bytes += laid.growth_bytes
        for slot in laid.after.values():
            check.look(slot)
        mtime_ns = None if file.mtime_ns is None else _stamp(txn, file.mtime_ns)
        ctime_ns = None if mtime_ns is None else max(mtime_ns, inode.ctime_ns)
        writes.update(record_data(view, file.ino, laid.after, file.size, mtime_ns, ctime_ns).writes)
    check.end()
    require_quota(txn, volume, growth_bytes)
    apply_writes(txn, session_id, volume, writes, [file.ino for file in files])
    settle_data(txn, data)
    store_answer(txn, session_id, request.number, OperationRow())
    inodes = [file.ino for file in files]
    txn.after_commit.append(partial(holds.let_go, volume.volume_id, session_id, inodes))


def _stamp(txn: Txn, mtime_ns: int) -> int:
    """The time of a holder's last write, as it is recorded: later changes are later."""
    now_ns = txn.env.stamp_ns()
    if mtime_ns > now_ns + MAX_AHEAD_NS:
        return now_ns
    txn.env.last_stamp_ns = max(txn.env.last_stamp_ns, mtime_ns)
    return mtime_ns


def _files_of(request: pb.WriteHeld) -> list[_File]:
    files = [
        _File(
            file.ino,
            file.size,
            file.mtime_ns if file.HasField("mtime_ns") else None,
            [Part(part.block_id, part.bytes, part.block_offset) for part in file.parts],
        )
        for file in request.files
    ]
    if not 1 <= len(files) <= MAX_HELD_FILES or len({file.ino for file in files}) != len(files):
        raise InvalidArgument(f"1 to {MAX_HELD_FILES} held files are written at once, each once")
    parts = [part for file in files for part in file.parts]
    if any(not 1 <= length <= SLOT_BYTES - start or not block for block, length, start in parts):
        raise InvalidArgument("a part of a write leaves its block")
    if any(not sum([part.length for part in file.parts]) <= file.size <= MAX_FILE_BYTES for file in files):
        raise InvalidArgument("a held file is not as long as its parts")
    if (
        len(parts) > MAX_WRITE_PARTS
        or len(request.segments) > MAX_WRITE_SEGMENTS
        or len(request.blocks) > MAX_WRITE_PARTS
        or sum([part.length for part in parts]) > MAX_WRITE_BYTES
    ):
        raise InvalidArgument(f"held files are written with at most {MAX_WRITE_PARTS} parts, {MAX_WRITE_BYTES} bytes")
    return files
