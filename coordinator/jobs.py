"""The rows of background jobs: one for each thing that is to be done, found again after any crash.

A job's key says what it works on, so asking twice for the same work makes one job. The steps are in `reclaim.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from redfs.coordinator.txn import Txn
from redfs.core.kv import ReadKv
from redfs.core.tables import JOBS, NEXT_JOB_KEY, JobKind, JobRow, decode_job, encode_job, job_key

MAX_SHOWN_JOBS = 256
"""Jobs that a status names; more are counted only by their number."""


def add_job(txn: Txn, kind: JobKind, first: int, second: int, volume_id: int, subject: str) -> None:
    """Enters a job, from its beginning also where it is there already: there may be new work behind its cursor."""
    key = job_key(kind, first, second)
    raw = txn.kv.get(JOBS, key)
    if raw is not None:
        txn.kv.put(JOBS, key, encode_job(decode_job(raw)._replace(cursor=b"")))
        return
    row = JobRow(txn.next_number(NEXT_JOB_KEY), volume_id, 0, b"", subject)
    txn.kv.put(JOBS, key, encode_job(row))


def all_jobs(kv: ReadKv) -> Iterator[tuple[bytes, JobRow]]:
    """(key, row) of every job."""
    for key, raw in kv.scan(JOBS, b"", b"\xff"):
        yield key, decode_job(raw)
