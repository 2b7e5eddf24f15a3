"""The rows of background jobs: one for each thing that is to be done, found again after any crash.

A job's key says what it works on, so asking twice for the same work makes one job. Those that work on the tables have
their steps in `reclaim.py` and take turns; those that work on shards (from JobKind.REBUILD on) are looked after by who
gives nodes their tasks, and never run here. A paused one stays where it is, also over restarts, until it is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from redfs.coordinator import nodes
from redfs.coordinator.progress import JobProgress
from redfs.coordinator.txn import Txn
from redfs.core.errors import InvalidArgument, NotAllowed, NotFound
from redfs.core.kv import ReadKv
from redfs.core.tables import (
    JOBS,
    NEXT_JOB_KEY,
    JobKind,
    JobRow,
    NodeState,
    decode_job,
    encode_job,
    is_paused_job,
    job_key,
    split_job_key,
)
from redfs.core.versions.weights import ALIVE, weight_of

MAX_SHOWN_JOBS = 256
"""Jobs that a status names: first those that work on shards, which are few, then the others, by their keys."""

JOB_NAMES = {
    JobKind.RECLAIM_PIN: "reclaim",
    JobKind.RECLAIM_HEAD: "reclaim",
    JobKind.REAP: "reap",
    JobKind.REBUILD: "rebuild",
    JobKind.REPAIR: "repair",
    JobKind.DRAIN: "drain",
    JobKind.REBALANCE: "rebalance",
    JobKind.SCRUB: "scrub",
}
CANCELLABLE = frozenset((JobKind.DRAIN, JobKind.REBALANCE, JobKind.SCRUB))
"""Kinds that may end before they are done. What others free belongs to nobody any more: only they find it again. And
without a rebuild or a repair the data would stay without its protection."""
_FIRST_ON_SHARDS = bytes([JobKind.REBUILD])
"""Keys from here on are of jobs that work on shards."""
PAUSE, RESUME, CANCEL = "pause", "resume", "cancel"


def add_job(
    txn: Txn, kind: JobKind, first: int, second: int, volume_id: int, subject: str, total_bytes: int = 0
) -> None:
    """Enters a job, from its beginning also where it is there already: there may be new work behind its cursor.

    `total_bytes`: the logical bytes that it will free, as far as anybody knows; 0: not known.
    """
    key = job_key(kind, first, second)
    raw = txn.kv.get(JOBS, key)
    if raw is not None:
        txn.kv.put(JOBS, key, encode_job(decode_job(raw)._replace(cursor=b"")))
        return
    number = txn.next_number(NEXT_JOB_KEY)
    row = JobRow(number, volume_id, 0, b"", subject, started_ns=txn.now_ns, total_bytes=total_bytes)
    txn.kv.put(JOBS, key, encode_job(row))


def bytes_of_head(txn: Txn, lineage: int) -> int:
    """What reclaiming a head that is about to be dropped will free."""
    return weight_of(txn.kv, lineage, txn.versions.newest_pin(lineage), ALIVE).logical_bytes


def bytes_of_pin(txn: Txn, lineage: int, epoch: int) -> int:
    """What reclaiming a pin whose last holder is about to let it go will free."""
    before, after = txn.versions.neighbours(lineage, epoch)
    weight = weight_of(txn.kv, lineage, before, epoch)
    if not after and not txn.versions.lineage(lineage).has_head:
        weight = weight.plus(weight_of(txn.kv, lineage, before, ALIVE))
    return weight.logical_bytes


def ensure_job(txn: Txn, kind: JobKind, first: int, subject: str, total_bytes: int = 0) -> tuple[bytes, JobRow]:
    """A job that works on shards: the one that is there, or a new one. Its key and row."""
    key = job_key(kind, first)
    raw = txn.kv.get(JOBS, key)
    if raw is not None:
        return key, decode_job(raw)
    row = JobRow(txn.next_number(NEXT_JOB_KEY), 0, 0, b"", subject, started_ns=txn.now_ns, total_bytes=total_bytes)
    txn.kv.put(JOBS, key, encode_job(row))
    txn.after_commit.append(txn.env.redundancy.is_stale)
    return key, row


def end_job(txn: Txn, key: bytes, row: JobRow) -> None:
    """Takes a job away: done, or without an object."""
    txn.kv.delete(JOBS, key)
    txn.after_commit.append(lambda: txn.env.progress.forget(row.job_id))


def drop_job(txn: Txn, kind: JobKind, first: int, second: int = 0) -> None:
    """Takes a job away whose object is gone, if it is there: a paused one would never find that out."""
    raw = txn.kv.get(JOBS, job_key(kind, first, second))
    if raw is not None:
        end_job(txn, job_key(kind, first, second), decode_job(raw))


def all_jobs(kv: ReadKv) -> Iterator[tuple[bytes, JobRow]]:
    """(key, row) of every job."""
    for key, raw in kv.scan(JOBS, b"", b"\xff"):
        yield key, decode_job(raw)


def next_job(kv: ReadKv, after: bytes) -> bytes | None:
    """The key of the next job on the tables that is not paused, around the end back to the first."""
    for start, end in ((after, _FIRST_ON_SHARDS), (b"", after)):
        for key, raw in kv.scan(JOBS, start, end):
            if not is_paused_job(raw):
                return key
    return None


def control_job(txn: Txn, job_id: int, action: str) -> tuple[bytes, JobRow]:
    """Pauses, resumes or cancels a job: its key, and its row as it is then, or was. Safe to repeat but for `cancel`.

    NotFound, InvalidArgument for another action, NotAllowed for a job that must be done in the end.
    """
    key, row = _find(txn, job_id)
    if action not in (PAUSE, RESUME, CANCEL):
        raise InvalidArgument(f"{action!r} is nothing that a job can do: use pause, resume or cancel")
    if action == CANCEL:
        _cancel(txn, key, row)
        return key, row
    row = row._replace(paused=action == PAUSE)
    txn.kv.put(JOBS, key, encode_job(row))
    txn.after_commit.append(txn.env.redundancy.is_stale)
    if row.paused:
        txn.after_commit.append(lambda: txn.env.progress.forget(job_id))
    return key, row


def _cancel(txn: Txn, key: bytes, row: JobRow) -> None:
    kind, first, _ = split_job_key(key)
    if kind not in CANCELLABLE:
        why = "frees what belongs to nobody any more" if kind < JobKind.REBUILD else "brings back lost protection"
        raise NotAllowed(f"job {row.job_id} {why}, so it has to be done in the end: pause it instead")
    if kind == JobKind.DRAIN and nodes.find_node(txn.kv, first) is not None:
        # What has moved stays where it is; the node is used again.
        nodes.set_state(txn, first, NodeState.IN)
    end_job(txn, key, row)
    txn.after_commit.append(txn.env.redundancy.is_stale)


def _find(txn: Txn, job_id: int) -> tuple[bytes, JobRow]:
    # No index: people do this, now and then, with some jobs.
    for key, row in all_jobs(txn.kv):
        if row.job_id == job_id:
            return key, row
    raise NotFound(f"there is no job {job_id}, or it is done: `redfs jobs` lists those that there are")


# ---------------------------------------------------------------- for people


class ShownJob(NamedTuple):
    """A job as people see it. The names are those of the Job message."""

    job_id: int
    kind: str
    state: str
    subject: str
    done: int
    done_bytes: int
    total_bytes: int
    rate: float
    left_s: float
    started_ns: int
    volume_id: int
    allowed: tuple[str, ...]


def show_job(key: bytes, row: JobRow, progress: JobProgress) -> ShownJob:
    kind = split_job_key(key)[0]
    # The total was known when the job was made. What shared its data then may be gone since, and more is freed.
    total = max(row.total_bytes, row.done_bytes) if row.total_bytes else 0
    rate = progress.rate(row.job_id)
    left_s = (total - row.done_bytes) / rate if total and rate > 0 else -1.0
    running = "running" if progress.is_running(row.job_id) else "waiting"
    allowed = (RESUME if row.paused else PAUSE, *((CANCEL,) if kind in CANCELLABLE else ()))
    return ShownJob(
        row.job_id, JOB_NAMES[JobKind(kind)], "paused" if row.paused else running, row.subject, row.done,
        row.done_bytes, total, rate, left_s, row.started_ns, row.volume_id, allowed,
    )  # fmt: skip


def shown_jobs(kv: ReadKv, progress: JobProgress) -> list[ShownJob]:
    """The first jobs, for a status."""
    rows = chain(kv.scan(JOBS, _FIRST_ON_SHARDS, b"\xff"), kv.scan(JOBS, b"", _FIRST_ON_SHARDS))
    return [show_job(key, decode_job(raw), progress) for key, raw in islice(rows, MAX_SHOWN_JOBS)]
