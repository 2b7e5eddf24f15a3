"""`redfs diff`: the paths that differ between two nodes of the tree, page by page as they are found.

Both nodes are frozen by views of a session of its own, so that the comparison (core/diff.py) sees two points that stay
as they are, also while the nodes are written to, rolled back or deleted. After a crash the session ends by itself, as
nobody renews it. Each page is made in a reader thread over a short read transaction of its own.

Raises NotFound, InvalidArgument for nodes without a common ancestor, Busy where too many are compared already,
Unavailable where nobody takes the pages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from redfs.coordinator import sessions
from redfs.coordinator.shell import Shell
from redfs.coordinator.txn import Txn
from redfs.core.diff import Diff, Entry
from redfs.core.errors import Busy, LeaseLapsed
from redfs.core.ids import Epoch, Lineage
from redfs.core.versions import Pin

MAX_COMPARISONS = 8
"""At one time: they share two reader threads with everybody else."""


class Differences:
    """The comparisons of one coordinator."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._running = 0

    async def pages(self, before: str, after: str) -> AsyncGenerator[list[Entry], None]:
        """Pages of entries, from `before` to `after`. Mounts must have been asked to flush."""
        if self._running >= MAX_COMPARISONS:
            raise Busy(f"{MAX_COMPARISONS} comparisons are under way already: try again when one has ended")
        self._running += 1
        try:
            session_id, points = await self._shell.run(lambda txn: _freeze(txn, before, after))
            try:
                async with contextlib.aclosing(self._read(session_id, *points)) as found:
                    async for page in found:
                        yield page
            finally:
                ending = self._shell.run(lambda txn: sessions.end_session(txn, session_id))
                await asyncio.shield(asyncio.ensure_future(ending))
        finally:
            self._running -= 1

    async def _read(self, session_id: int, before: Pin, after: Pin) -> AsyncGenerator[list[Entry], None]:
        coordinator = self._shell.coordinator
        work = Diff(before, after, coordinator.env.ancestry)

        def step() -> list[Entry] | None:
            with coordinator.read() as kv:
                return work.step(kv)

        while (page := await self._shell.read(step)) is not None:
            if not coordinator.leases.renew(session_id):
                raise LeaseLapsed("the comparison was held up for too long: start it again")
            if page:
                yield page


def _freeze(txn: Txn, before: str, after: str) -> tuple[int, tuple[Pin, Pin]]:
    opened = sessions.open_session(txn, f"diff of {before} and {after}")
    rows = [sessions.attach_view(txn, opened.session_id, name)[0] for name in (before, after)]
    first, second = (Pin(Lineage(row.lineage), Epoch(row.epoch)) for row in rows)
    return opened.session_id, (first, second)
