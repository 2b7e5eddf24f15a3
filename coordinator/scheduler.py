"""Runs schedules when they are due: the mount is asked to flush, then the state thread makes the snapshot.

Looks twice a second, by the injected clock, and keeps no time of its own, so an outage, a restart or a clock that jumps
is nothing special. Where not even a failure can be written (the coordinator's disk is full) it is remembered here, told
in the status, and written as soon as that works; the run itself is not tried again before its next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redfs.coordinator import schedules
from redfs.coordinator.coordinator import Command, Coordinator
from redfs.coordinator.schedules import Run, Schedule
from redfs.coordinator.shell import Shell
from redfs.core.errors import RedfsError, Unavailable
from redfs.core.schedules import is_too_far

LOOK_S = 0.5
"""Between two looks: how late a snapshot may be."""
MAX_AT_ONCE = 8
"""Schedules run at one time: each may wait for a mount to flush."""

RunCommand = Callable[[Command[Any]], Awaitable[Any]]
Flush = Callable[[int], Awaitable[bool]]
"""Asks who can change a volume to flush it, with a deadline. Whether everything is committed then."""

log = logging.getLogger(__name__)


def scheduler_of(shell: Shell) -> Scheduler:
    """The scheduler of a process."""

    async def flush(volume_id: int) -> bool:
        return await shell.flush_writers(volume_id, shell.coordinator.config.flush_deadline_s)

    return Scheduler(shell.coordinator, shell.run, flush)


class Scheduler:
    """See the module. Belongs to one event loop."""

    def __init__(self, coordinator: Coordinator, run: RunCommand, flush: Flush) -> None:
        self._coordinator = coordinator
        self._run = run
        self._flush = flush
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._unwritten = coordinator.env.unwritten_schedule_errors

    async def run_for_ever(self) -> None:
        """Looks again and again, once the nodes had time to come back after a start."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._coordinator.cluster.is_settled():
                continue
            try:
                await self.look()
            except Exception:
                # A bug must not end all schedules; the next look may do better.
                log.exception("schedules could not be looked after")

    async def look(self) -> None:
        """Does everything that is due now."""
        now_ns = self._coordinator.env.clock.time_ns()
        with self._coordinator.read() as kv:
            found = schedules.due(kv, now_ns)
        numbers = {schedule.row.schedule_id for schedule in found}
        for number in self._unwritten.keys() - numbers:
            del self._unwritten[number]
        await asyncio.gather(*[self._take(schedule, now_ns) for schedule in found])

    async def _take(self, schedule: Schedule, now_ns: int) -> None:
        async with self._places:
            try:
                if is_too_far(schedule.row.next_ns, schedule.row.every_s, now_ns):
                    await self._run(lambda txn: schedules.realign(txn, schedule))
                else:
                    await self._make(schedule)
            except RedfsError as error:
                log.warning("schedule %s of %s waits: %s", schedule.label, schedule.volume, error)

    async def _make(self, schedule: Schedule) -> None:
        number = schedule.row.schedule_id
        error = self._unwritten.get(number)
        if error is None:
            if not await self._flush(schedule.volume_id):
                log.warning("a mount of %s did not flush in time: the snapshot has what was committed", schedule.volume)
            try:
                done: Run = await self._run(lambda txn: schedules.run(txn, schedule))
            except Unavailable:
                raise
            except RedfsError as failure:
                error = str(failure)
                log.warning("no snapshot of %s for %s: %s", schedule.volume, schedule.label, error)
                self._unwritten[number] = error
        if error is not None:
            reason = error
            try:
                done = await self._run(lambda txn: schedules.failed(txn, schedule, reason))
            except RedfsError as failure:
                log.debug("the failure of schedule %d cannot be written yet: %s", number, failure)
                return
            self._unwritten.pop(number, None)
        while done.more:
            done = await self._run(lambda txn: schedules.prune(txn, schedule))
