"""`redfs check` of a pool in which nothing is under way any more."""

from __future__ import annotations

import time

from redfs.client.api import Pool
from redfs.client.check import CheckReport, run_check

LOST_SPACE = "bytes are lost space"
POLL_S = 0.2


def settled_report(pool: Pool, *, verify_data: bool, timeout_s: float) -> CheckReport:
    """What it finds.

    A shard that reached a node after its segment was given up is found at the node's next inventory, and only takes
    room until then: that one is waited for, so the pool must make inventories more often than each hour.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        report = run_check(pool, verify_data=verify_data, progress=None)
        only_room = not report.unchecked and all(LOST_SPACE in problem for problem in report.problems)
        if report.clean or not only_room or time.monotonic() > deadline:
            return report
        time.sleep(POLL_S)
