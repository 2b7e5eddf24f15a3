"""What a mount does, counted: bytes, requests and their times. Told to the coordinator once a second while it changes.

Counting must cost next to nothing: two looks at the clock for each request. Reports are for people who watch the pool:
one that fails is not repeated, the next one says the same and more, because counters are from the mount's beginning,
or from the last report before the session that is used now (`begin_anew`): a new session counts from 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from redfs.client.fs.config import Session
from redfs.core.errors import RedfsError
from redfs.proto.gen import cluster_pb2 as pb

REPORT_S = 1.0
"""Between two reports."""
LAST_REPORT_S = 2.0
"""What the end of a mount waits for its last report; unmounting is not held up for figures."""

log = logging.getLogger("redfs.fs")


@dataclass(slots=True)
class MountFigures:
    """Counters of one mount, from its beginning on."""

    read_bytes: int = 0
    written_bytes: int = 0
    operations: int = 0
    """FUSE requests answered, also with an error."""
    busy_ns: int = 0
    """The sum of their times."""

    def message(self) -> pb.Figures:
        return pb.Figures(
            read_bytes=self.read_bytes,
            written_bytes=self.written_bytes,
            operations=self.operations,
            busy_us=self.busy_ns // 1000,
        )


class FiguresReporter:
    """Sends the figures of one mount. Belongs to one event loop."""

    def __init__(self, session: Session, figures: MountFigures, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._figures = figures
        self._clock = clock
        self._reported_at = 0
        """Operations at the last report: every request is one, so nothing changes without them."""
        self._reported_s = float("-inf")
        self._reporting: asyncio.Task[None] | None = None
        self._told = pb.Figures()
        """The counters as of the last report, from the mount's beginning on."""
        self._told_before = pb.Figures()
        """What was told in sessions that have ended."""

    def tick(self) -> None:
        """To be called twice a second or so: begins a report if one is due and none is under way."""
        if self._reporting is not None and not self._reporting.done():
            return
        if self._figures.operations != self._reported_at and self._clock() - self._reported_s >= REPORT_S:
            self._reported_s = self._clock()
            self._reporting = asyncio.create_task(self._report(), name="report figures")

    async def _report(self) -> None:
        operations, now, before = self._figures.operations, self._figures.message(), self._told_before
        figures = pb.Figures(
            read_bytes=now.read_bytes - before.read_bytes,
            written_bytes=now.written_bytes - before.written_bytes,
            operations=now.operations - before.operations,
            busy_us=now.busy_us - before.busy_us,
        )
        try:
            await self._session.call(report_figures=pb.ReportFigures(figures=figures))
        except RedfsError as error:
            log.debug("figures were not reported: %s", error)
        else:
            self._reported_at, self._told = operations, now

    async def begin_anew(self) -> None:
        """Reports go to another session from now on."""
        if self._reporting is not None:
            await asyncio.gather(self._reporting, return_exceptions=True)
        self._told_before = self._told

    async def finish(self) -> None:
        """The last report, where something changed since the one before. Never raises."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        if self._figures.operations != self._reported_at:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_REPORT_S):
                    await self._report()
