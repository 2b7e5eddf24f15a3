"""The row of the job that cleans: one in the pool, begun by itself or by somebody, ended when a look finds no more.

Its cursor says whether somebody asked: then all that pays is done now, else what is young or would not fill a segment
waits. What it does is in `cleaner.py`.
"""

from __future__ import annotations

from redfs.coordinator.jobs import CLEAN_KEY, end_job, ensure_job
from redfs.coordinator.txn import Txn
from redfs.core.errors import Busy
from redfs.core.kv import ReadKv
from redfs.core.tables import JOBS, JobKind, JobRow, decode_job, encode_job

ASKED_FOR = b"all"
"""Cursor of a job that somebody asked for. One that began by itself has none."""
SUBJECT = "segments"


def clean_job(kv: ReadKv) -> JobRow | None:
    """The job's row, where there is one."""
    raw = kv.get(JOBS, CLEAN_KEY)
    return None if raw is None else decode_job(raw)


def start_cleaning(txn: Txn) -> tuple[bytes, JobRow]:
    """Somebody asks for all that there is to do, now. Busy where the job is paused. Safe to repeat."""
    key, row = ensure_job(txn, JobKind.CLEAN, 0, SUBJECT)
    if row.paused:
        raise Busy(f"cleaning is under way and paused: `redfs job resume {row.job_id}` lets it go on")
    row = row._replace(cursor=ASKED_FOR)
    txn.kv.put(JOBS, key, encode_job(row))
    return key, row


def begin_by_itself(txn: Txn, total_bytes: int) -> JobRow:
    """A look found that it pays; one that is there stays as it is."""
    return ensure_job(txn, JobKind.CLEAN, 0, SUBJECT, total_bytes)[1]


def expect(txn: Txn, job_id: int, more_bytes: int) -> None:
    """Says how much will be freed, as far as plans tell."""
    row = clean_job(txn.kv)
    if row is not None and row.job_id == job_id:
        txn.kv.put(JOBS, CLEAN_KEY, encode_job(row._replace(total_bytes=row.done_bytes + more_bytes)))


def finish(txn: Txn, looked: JobRow) -> None:
    """Ends the job, unless it was paused, or more was asked for, since that row was read."""
    row = clean_job(txn.kv)
    if row is not None and not row.paused and (row.job_id, row.cursor) == (looked.job_id, looked.cursor):
        end_job(txn, CLEAN_KEY, row)
