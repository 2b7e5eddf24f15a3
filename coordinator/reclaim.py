"""Background jobs, one bounded step at a time between the commands: freeing versions, reaping orphans.

All state of a job is in its row and in the tables that it works on, so a step may be run again after any crash. A job
ends by deleting its row in the same transaction as its last work.
"""

from __future__ import annotations

from typing import NamedTuple

from redfs.coordinator.jobs import add_job, end_job
from redfs.coordinator.sessions import holder_of
from redfs.coordinator.shared_opens import open_inodes
from redfs.coordinator.txn import Txn
from redfs.core.errors import InternalError
from redfs.core.namespace import slot_is_dead
from redfs.core.records import (
    OBJECT_BYTES,
    Inode,
    Kind,
    decode_inode,
    inode_key,
    orphan_key,
    slot_key,
    split_orphan_object,
    split_slot_object,
)
from redfs.core.tables import JOBS, JobKind, JobRow, VolumeState, decode_job, encode_job, split_job_key
from redfs.core.versions.store import ReclaimStep

_ORPHAN_BYTES = OBJECT_BYTES[Kind.ORPHAN]
MAX_U64 = (1 << 64) - 1


def run_step(txn: Txn, key: bytes) -> bool:
    """One step of the job at `key`. True where the job is at its end, or was not there."""
    raw = txn.kv.get(JOBS, key)
    if raw is None:
        return True
    job = decode_job(raw)
    kind, first, second = split_job_key(key)
    budget = txn.env.config.reclaim_budget_rows
    if kind == JobKind.RECLAIM_PIN:
        return _reclaimed(txn, key, job, txn.versions.reclaim_pin_step(first, second, budget))
    if kind == JobKind.RECLAIM_HEAD:
        return _reclaimed(txn, key, job, txn.versions.reclaim_head_step(first, budget))
    if kind == JobKind.REAP:
        return _reap(txn, key, job, first, budget)
    raise InternalError(f"job {job.job_id} is of unknown kind {kind}: a newer RedFS made it")


def _reclaimed(txn: Txn, key: bytes, job: JobRow, step: ReclaimStep) -> bool:
    if step.dropped_pin is not None:
        pin = step.dropped_pin
        add_job(txn, JobKind.RECLAIM_PIN, pin.lineage, pin.epoch, 0, job.subject)
    if not step.done:
        _went_on(txn, key, job, step.rows)
        return False
    end_job(txn, key, job)
    if job.volume_id:
        txn.tree.freed(job.volume_id)
    return True


def _went_on(txn: Txn, key: bytes, job: JobRow, rows: int) -> None:
    """The job's row after a step, with what that freed."""
    freed_bytes = max(0, -txn.counted.logical_bytes)
    after = job._replace(done=job.done + rows, done_bytes=job.done_bytes + freed_bytes)
    txn.kv.put(JOBS, key, encode_job(after))
    txn.after_commit.append(lambda: txn.env.progress.stepped(job.job_id, job.done_bytes, after.done_bytes))


# ---------------------------------------------------------------- orphans


class _Place(NamedTuple):
    """Where a reaping goes on: at an orphan, after one of its slots. Packed as the cursor of the job."""

    orphan: bytes
    slot: bytes


def _reap(txn: Txn, key: bytes, job: JobRow, volume_id: int, budget: int) -> bool:
    """Frees what one orphan of a volume's head still has, or goes on to the next one."""
    volume = txn.tree.get(volume_id)
    if volume is None or volume.state != VolumeState.OK:
        end_job(txn, key, job)
        return True
    lineage = volume.lineage
    epoch = txn.versions.head_epoch(lineage)
    place = _Place(job.cursor[:_ORPHAN_BYTES], job.cursor[_ORPHAN_BYTES:])
    page, resume = txn.versions.scan_page(lineage, epoch, Kind.ORPHAN, place.orphan, None, 1, budget)
    if not page:
        if resume is None:
            end_job(txn, key, job)
            return True
        return _later(txn, key, job, _Place(resume, b""), budget)
    orphan = page[0][0]
    ino, generation = split_orphan_object(orphan)
    if generation == 0 and (holder_of(txn.kv, volume_id) is not None or ino in open_inodes(txn, volume_id)):
        # Open at the mount that holds the volume, which takes it away itself; or at one that shares it. If that dies,
        # or has closed it, this is started again.
        return _later(txn, key, job, _Place(orphan + b"\0", b""), 1)
    start = place.slot if place.slot and place.orphan == orphan else slot_key(ino, generation, 0).obj
    end = slot_key(ino, generation, MAX_U64).obj + b"\0" if generation else inode_key(ino + 1).obj
    inode = None
    if generation:
        # A cut in the middle of a file leaves the slots before it alive under the old generation.
        raw = txn.versions.get(lineage, epoch, *inode_key(ino))
        inode = None if raw is None else decode_inode(raw)
        start = _behind_living(inode, ino, generation, start)
    slots, more = txn.versions.scan_page(lineage, epoch, Kind.SLOT, start, end, budget, budget)
    for obj, _ in slots:
        if slot_is_dead(inode, generation, split_slot_object(obj)[2]):
            txn.versions.delete(lineage, Kind.SLOT, obj)
    if more is not None:
        return _later(txn, key, job, _Place(orphan, more), len(slots) or 1)
    if generation == 0:
        low, high = inode_key(ino).obj, inode_key(ino + 1).obj
        attributes = txn.versions.scan(lineage, epoch, Kind.XATTR, low, high, budget)
        for obj, _ in attributes:
            txn.versions.delete(lineage, Kind.XATTR, obj)
        if len(attributes) >= budget:
            return _later(txn, key, job, _Place(orphan, end), budget)
        txn.versions.delete(lineage, *inode_key(ino))
    txn.versions.delete(lineage, *orphan_key(ino, generation))
    return _later(txn, key, job, _Place(orphan + b"\0", b""), len(slots) + 1)


def _behind_living(inode: Inode | None, ino: int, generation: int, start: bytes) -> bytes:
    """Where to go on from `start`: behind the slots that are still read under the generation, if it lies in them."""
    ranges = () if inode is None else inode.generations
    slot = split_slot_object(start[: OBJECT_BYTES[Kind.SLOT]])[2]
    for index, (first, found) in enumerate(ranges):
        upto = ranges[index + 1].first_slot if index + 1 < len(ranges) else MAX_U64
        if found == generation and first <= slot < upto:
            return slot_key(ino, generation, upto).obj
    return start


def _later(txn: Txn, key: bytes, job: JobRow, place: _Place, rows: int) -> bool:
    # An orphan's cursor is padded to its object's size; one byte more means "after it".
    orphan = place.orphan
    if len(orphan) > _ORPHAN_BYTES:
        number = int.from_bytes(orphan[:_ORPHAN_BYTES], "big") + 1
        orphan = number.to_bytes(_ORPHAN_BYTES, "big")
    _went_on(txn, key, job._replace(cursor=orphan + place.slot), rows)
    return False
