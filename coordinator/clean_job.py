"""The row of the job that cleans: one in the pool, begun by itself or by somebody, ended when a look finds no more.

Its cursor says whether somebody asked: then all that pays is done now, else what is young or would not fill a segment
waits. What it does is in `cleaner.py`.
"""

from __future__ import annotations

from redfs.coordinator.jobs import CLEAN_KEY, end_job, next_job_row
from redfs.coordinator.txn import Txn
from redfs.core.errors import Busy
from redfs.core.kv import ReadKv
from redfs.core.tables import JOBS, JobRow, decode_job, encode_job

ASKED_FOR = b"all"
"""Cursor of a job that somebody asked for. One that began by itself has none."""
SUBJECT = "segments"


def clean_job(kv: ReadKv) -> JobRow | None:
    """The job's row, where there is one."""
    raw = kv.get(JOBS, CLEAN_KEY)
    return None if raw is None else decode_job(raw)


def start_cleaning(txn: Txn) -> tuple[bytes, JobRow]:
    """Somebody asks for all that there is to do, now. Busy where the job is paused. Safe to repeat."""
    row = clean_job(txn.kv)
    if row is not None and row.paused:
        raise Busy(f"cleaning is under way and paused: `redfs job resume {row.job_id}` lets it go on")
    row = (row or next_job_row(txn, SUBJECT, 0))._replace(cursor=ASKED_FOR)
    txn.kv.put(JOBS, CLEAN_KEY, encode_job(row))
    return CLEAN_KEY, row


def begin_by_itself(txn: Txn, total_bytes: int) -> JobRow:
    """A look found that it pays; one that is there stays as it is."""
    row = clean_job(txn.kv)
    if row is None:
        row = next_job_row(txn, SUBJECT, total_bytes)
        txn.kv.put(JOBS, CLEAN_KEY, encode_job(row))
    return row


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
