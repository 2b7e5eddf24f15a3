"""The commit: segments, blocks and record changes of one session become visible together, or not at all.

In one command: the session must hold the volume's delegation and send commits in order; segments must be its own open
ones; every block that a slot names must be new here or stored. A block whose fingerprint is stored already in the same
domain, on a fully redundant segment, is not stored again: the slots get the stored one. Then the records go to the
volume's head and references are settled: a block that nothing names gets no row, a segment without live blocks is
doomed.

A commit sent again is answered as it was the first time and changes nothing. Raises LeaseLapsed, CommitRefused (with
the blocks that are gone; nothing was applied, send the data again under the same number), InvalidArgument. RolledBack
where the volume goes on as another lineage than the one that the commit was made for: it would mix the two, and is
refused for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redfs.coordinator.jobs import add_job
from redfs.coordinator.new_data import PieceCheck, SegmentLayout, settle_data, take_data
from redfs.coordinator.sessions import require_delegation, require_session
from redfs.coordinator.txn import Txn
from redfs.core.errors import CommitRefused, InvalidArgument, RolledBack
from redfs.core.records import MAX_PIECES, Kind, decode_slot, encode_slot, split_orphan_object
from redfs.core.tables import (
    REPLIES,
    SESSIONS,
    BlockRow,
    JobKind,
    Substitutions,
    decode_reply,
    encode_reply,
    encode_session,
    pair_key,
    u64_key,
)

MAX_ROWS = 65_536
"""Records in one commit: about a second of the state thread."""
MAX_BLOCKS = 65_536
"""New blocks in one commit: half a mebibyte of substitutions at most in its stored answer."""
MAX_COMMIT_SEGMENTS = 256
"""As many as a session may have open."""
KEPT_REPLIES = 256
"""Answers kept for commits that are sent again after a lost stream: as many requests as a client has under way."""
RECORD_KINDS = frozenset({Kind.INODE, Kind.DIRENT, Kind.SLOT, Kind.XATTR, Kind.ORPHAN})
"""What clients write; a volume's root record is the coordinator's."""


class Record(NamedTuple):
    """A record change; an empty value deletes."""

    kind: int
    obj: bytes
    value: bytes


class CommitRequest(NamedTuple):
    """What a client sends."""

    volume_id: int
    number: int
    segments: Sequence[SegmentLayout]
    blocks: Sequence[tuple[int, BlockRow]]
    """(block id, row with refs 0)."""
    records: Sequence[Record]
    lineage: int
    """Of the volume, as the client knows it."""


def commit(txn: Txn, session_id: int, request: CommitRequest) -> Substitutions:
    """Applies one commit; see the module."""
    session = require_session(txn, session_id)
    if session.last_commit - KEPT_REPLIES < request.number <= session.last_commit and request.number:
        stored = txn.kv.get(REPLIES, pair_key(session_id, request.number))
        return () if stored is None else decode_reply(stored)
    volume = require_delegation(txn, session_id, request.volume_id)
    if request.lineage != volume.lineage:
        raise RolledBack(f"{volume.name!r} was rolled back: what was written for its state before cannot be committed")
    if request.number <= session.last_commit:
        raise InvalidArgument(f"commit {request.number} was answered long ago, the last one is {session.last_commit}")
    if request.number > session.last_commit + 1:
        raise CommitRefused(
            f"commit {request.number} came before commit {session.last_commit + 1}: send that one first, in order"
        )
    if max(len(request.records), len(request.blocks)) > MAX_ROWS or len(request.segments) > MAX_COMMIT_SEGMENTS:
        raise InvalidArgument(
            f"a commit has at most {MAX_ROWS} records, {MAX_BLOCKS} blocks and {MAX_COMMIT_SEGMENTS} segments"
        )
    data = take_data(txn, session_id, request.volume_id, request.segments, request.blocks)
    substitutions = data.substitutions
    _write_records(txn, volume.lineage, request.records, data.blocks, dict(substitutions))
    if any(r.kind == Kind.ORPHAN and r.value and split_orphan_object(r.obj)[1] for r in request.records):
        add_job(txn, JobKind.REAP, volume.volume_id, 0, volume.volume_id, volume.name)
    settle_data(txn, data)
    txn.kv.put(SESSIONS, u64_key(session_id), encode_session(session._replace(last_commit=request.number)))
    if request.number > KEPT_REPLIES:
        txn.kv.delete(REPLIES, pair_key(session_id, request.number - KEPT_REPLIES))
    if substitutions:
        txn.kv.put(REPLIES, pair_key(session_id, request.number), encode_reply(substitutions))
    return substitutions


def _write_records(
    txn: Txn, lineage: int, records: Sequence[Record], new_blocks: dict[int, BlockRow], substitutes: dict[int, int]
) -> None:
    check = PieceCheck(txn, new_blocks)
    for kind, obj, value in records:
        if kind not in RECORD_KINDS:
            raise InvalidArgument(f"a commit cannot write records of kind {kind}")
        if not value:
            txn.versions.delete(lineage, kind, obj)
            continue
        if kind == Kind.SLOT:
            pieces = decode_slot(value)
            if not 1 <= len(pieces) <= MAX_PIECES:
                raise InvalidArgument(f"a slot has 1 to {MAX_PIECES} pieces, not {len(pieces)}")
            if substitutes and any(piece.block in substitutes for piece in pieces):
                pieces = tuple([p._replace(block=substitutes.get(p.block, p.block)) for p in pieces])
                value = encode_slot(pieces)
            check.look(pieces)
            if check.missing:
                continue
        txn.put_record(lineage, kind, obj, value)
    check.end()
