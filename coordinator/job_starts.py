"""Jobs that people start (`StartJob`): one command for each kind. Who adds a kind enters it in STARTS."""

from __future__ import annotations

from collections.abc import Callable

from redfs.coordinator.jobs import ensure_job
from redfs.coordinator.scrub import start_scrub
from redfs.coordinator.txn import Txn
from redfs.core.errors import Busy, InvalidArgument
from redfs.core.tables import JobKind, JobRow

Start = Callable[[Txn], tuple[bytes, JobRow]]
"""Makes the job, or finds the one that is there; its key and row. Safe to repeat."""


def start_rebalance(txn: Txn) -> tuple[bytes, JobRow]:
    """Levels the nodes. Ends by itself, also at once where they are level."""
    key, row = ensure_job(txn, JobKind.REBALANCE, 0, "all nodes")
    if row.paused:
        raise Busy(f"a rebalance is there and paused: `redfs job resume {row.job_id}` lets it go on")
    return key, row


STARTS: dict[str, Start] = {"rebalance": start_rebalance, "scrub": start_scrub}


def start_job(txn: Txn, kind: str) -> tuple[bytes, JobRow]:
    """Starts everything that there is to do of a kind. InvalidArgument, and what the kind itself raises."""
    start = STARTS.get(kind)
    if start is None:
        raise InvalidArgument(f"{kind!r} is no job that can be started: use {', '.join(sorted(STARTS))}")
    return start(txn)
