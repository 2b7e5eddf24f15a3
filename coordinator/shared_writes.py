"""File data in shared mode: written through. The bytes are on the storage nodes, one command makes them the file's.

The write's parts are laid over the slots as they are now, at a place or at the end of the file as it is now, with size,
times, references and the answer for a repetition in one transaction. So appends of several hosts never overwrite one
another, and each write is seen whole or not at all.

A slot that would list too many pieces is not written: the answer names it with its present row (`full`), and nothing
was done. The client reads it, lays its bytes over, stores the merged bytes, and sends again with the rows that it read
as `expected`; those slots are replaced as a whole, and only if they still are as expected. Where an append meets a full
slot, the client first writes that slot's own bytes merged (with `expected`, not as an append), then appends again: only
the coordinator knows where the end is.

Segments that come with a write that is answered `full`, or that is refused, stay open: the client sends them again or
aborts them. Nothing else of such a write is left.
"""

from __future__ import annotations

from errno import EFBIG, EINVAL
from stat import S_ISREG
from typing import NamedTuple

from redfs.coordinator import convert
from redfs.coordinator.new_data import PieceCheck, settle_data, take_data
from redfs.coordinator.numbered import store_answer, stored_answer
from redfs.coordinator.sessions import require_session, require_shared
from redfs.coordinator.shared_opens import require_known
from redfs.coordinator.shared_operations import apply_writes, require_lineage, require_quota
from redfs.coordinator.shared_view import SharedView
from redfs.coordinator.txn import Txn
from redfs.core.errors import FsError, InvalidArgument
from redfs.core.namespace.data import record_data
from redfs.core.namespace.inodes import need_inode
from redfs.core.namespace.written import Part, lay_parts, with_blocks
from redfs.core.records import (
    MAX_FILE_BYTES,
    SLOT_BYTES,
    Inode,
    Kind,
    encode_inode,
    generation_of,
    slot_key,
    split_slot_object,
)
from redfs.core.tables import OperationRow
from redfs.core.versions.reader import check_object
from redfs.proto.gen import cluster_pb2 as pb

MAX_WRITE_BYTES = 64 << 20
"""Bytes of one write: as many as are read at once."""
MAX_WRITE_PARTS = 4096
"""Parts of one write, so that many small ones do not keep the state thread for more than some 50 ms."""
MAX_WRITE_SEGMENTS = 64

FullSlot = tuple[bytes, bytes]
"""(object, value) of a slot's row as it is now; an empty value: there is none."""


class Written(NamedTuple):
    """What a write is answered with."""

    row: OperationRow
    full: tuple[FullSlot, ...] = ()
    """Not empty: nothing was done."""


def write_through(txn: Txn, session_id: int, request: pb.WriteThrough) -> Written:
    """Makes stored bytes a file's; see the module. EFBIG, EINVAL, ENOENT, NoSpace, CommitRefused, RolledBack."""
    require_session(txn, session_id)
    stored = stored_answer(txn, session_id, request.number, request.answered)
    if stored is not None:
        return Written(stored)
    volume = require_shared(txn.kv, session_id, request.volume_id, write=True)
    require_lineage(volume, request.lineage)
    require_known(txn.kv, txn.env, volume.volume_id)
    parts, length = _parts_of(request)
    guard = txn.env.holds.guard(volume.volume_id, session_id)
    view = SharedView(txn.versions, volume.lineage, guard)
    ino = request.ino
    inode = need_inode(view, ino)
    guard.check()
    if not S_ISREG(inode.mode):
        raise FsError(EINVAL)
    offset = inode.size if request.append else request.offset
    if offset + length > MAX_FILE_BYTES:
        raise FsError(EFBIG)
    expected = _expected_of(request)
    changed = [slot for slot, row in expected.items() if row != _slot_now(view, ino, inode, slot)]
    full = changed or lay_parts(view, ino, inode, offset, parts, expected).full
    if full:
        rows = tuple([_slot_now(view, ino, inode, slot) for slot in full])
        return Written(OperationRow(ino=ino, offset=offset, inode=encode_inode(inode)), rows)
    data = take_data(
        txn, session_id, volume.volume_id, convert.from_segments(request.segments), convert.from_blocks(request.blocks)
    )
    laid = lay_parts(view, ino, inode, offset, with_blocks(parts, dict(data.substitutions)), expected)
    check = PieceCheck(txn, data.blocks)
    for slot in laid.after.values():
        check.look(slot)
    check.end()
    require_quota(txn, volume, laid.growth_bytes)
    now_ns = txn.env.stamp_ns()
    outcome = record_data(view, ino, laid.after, offset + length, now_ns, now_ns)
    apply_writes(txn, session_id, volume, outcome.writes, [ino])
    settle_data(txn, data)
    assert outcome.value is not None
    row = OperationRow(ino=ino, offset=offset, inode=encode_inode(outcome.value))
    store_answer(txn, session_id, request.number, row)
    return Written(row)


def _parts_of(request: pb.WriteThrough) -> tuple[list[Part], int]:
    """The parts, and how many bytes they are."""
    parts = [Part(part.block_id, part.bytes, part.block_offset) for part in request.parts]
    if not 1 <= len(parts) <= MAX_WRITE_PARTS or len(request.segments) > MAX_WRITE_SEGMENTS:
        raise InvalidArgument(f"a write has 1 to {MAX_WRITE_PARTS} parts and at most {MAX_WRITE_SEGMENTS} segments")
    if any(not 1 <= length <= SLOT_BYTES - start or not block for block, length, start in parts):
        raise InvalidArgument("a part of a write leaves its block")
    length = sum([part.length for part in parts])
    if length > MAX_WRITE_BYTES or len(request.blocks) > MAX_WRITE_PARTS:
        raise InvalidArgument(f"a write has at most {MAX_WRITE_BYTES} bytes and {MAX_WRITE_PARTS} blocks")
    return parts, length


def _expected_of(request: pb.WriteThrough) -> dict[int, FullSlot]:
    """The rows of slots that the client has merged, by slot number."""
    if request.append and request.expected:
        raise InvalidArgument("an append has no expected slots: write the full slot merged first, then append")
    expected: dict[int, FullSlot] = {}
    for row in request.expected:
        if row.kind != Kind.SLOT:
            raise InvalidArgument("only slots are expected in a write")
        check_object(row.kind, row.obj)
        expected[split_slot_object(row.obj)[2]] = (row.obj, row.value)
    return expected


def _slot_now(view: SharedView, ino: int, inode: Inode, slot: int) -> FullSlot:
    key = slot_key(ino, generation_of(inode.generations, slot), slot)
    return key.obj, view.raw(key) or b""
