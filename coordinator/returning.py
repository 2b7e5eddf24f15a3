"""Waiting until sessions have let go what they hold, so that others may read it, or dropped what they remember.

An operation that finds what another session holds (`hold_book.Held`) waits here and is run again. The holder writes the
data, which ends the hold, and confirms (order ReturnHeld). A change of what sessions remember (`remembered.Remembered`)
waits until they have dropped it (order DropRemembered); meanwhile nobody may begin to remember it. One order of a kind
at a time goes to a session; what others ask for meanwhile goes into the next one. What a failure leaves:

| at | it leaves |
|---|---|
| the holder's lease lapses | its session is ended: what it had not written is lost, as after any crash without fsync |
| its stream breaks | the order is sent again on the next one, or its lease lapses |
| it answers and still holds (it could not store the data) | it is asked again, a few times; then Unavailable |
| it does not answer | Unavailable after RETURN_DEADLINE_S; the client asks again |
| the lease lapses of one that remembers | it shows nothing any more, and has forgotten before it does again |
| whoever waits goes away | the order goes on without it |
| the coordinator dies | holds are declared anew; until then operations wait (`NotDeclared`), for a lease at most |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from redfs.coordinator import sessions
from redfs.coordinator.hold_book import Held, WaitNeeded
from redfs.coordinator.remembered import Remembered
from redfs.coordinator.shared_opens import require_known, undeclared_writers
from redfs.coordinator.shell import Shell
from redfs.core.errors import Unavailable
from redfs.proto.gen import cluster_pb2 as pb

T = TypeVar("T")

RETURN_ROUNDS = 8
"""Times that one operation waits: each one more means that it found something else held, or again."""
RETURN_DEADLINE_S = 60.0
"""For a holder that is alive and cannot store what it holds."""
DECLARE_LOOK_S = 0.02
"""How often those who wait for declarations look; that is only after the coordinator began."""


class _Order:
    """What one session is asked for next."""

    def __init__(self) -> None:
        self.inodes: set[int] = set()
        self.work: asyncio.Task[None] | None = None


class _Addressee(NamedTuple):
    session_id: int
    volume_id: int
    drops: bool
    """What it remembers; else it returns what it holds."""


class Returning:
    """See the module. Belongs to the shell's event loop."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._coordinator = shell.coordinator
        self._next: dict[_Addressee, _Order] = {}
        """The order that waits for the one before."""
        self._last: dict[_Addressee, asyncio.Task[None]] = {}

    async def run_again(self, error: WaitNeeded, operation: Callable[[], Awaitable[T]]) -> T:
        """Runs an operation that failed with `error` until it does not any more. Raises what it raises, Unavailable."""
        remembered = self._coordinator.env.remembered
        blocked: list[Remembered] = []
        try:
            for _ in range(RETURN_ROUNDS):
                if isinstance(error, Remembered):
                    remembered.block(error.volume_id, error.inodes)
                    blocked.append(error)
                await self._wait(error)
                try:
                    return await operation()
                except WaitNeeded as again:
                    error = again
            raise error
        finally:
            for ended in blocked:
                remembered.end(ended.volume_id, ended.inodes)

    async def _wait(self, error: WaitNeeded) -> None:
        wanted: dict[int, set[int]] = {}
        if isinstance(error, Remembered):
            wanted.update(error.sessions)
        elif isinstance(error, Held):
            for ino, session in error.holders.items():
                wanted.setdefault(session, set()).add(ino)
        else:
            await self._declared(error)
            return
        drops = isinstance(error, Remembered)
        await asyncio.gather(
            *[self._obeyed(_Addressee(session, error.volume_id, drops), inodes) for session, inodes in wanted.items()]
        )

    # -- orders

    async def _obeyed(self, key: _Addressee, inodes: set[int]) -> None:
        order = self._next.get(key)
        if order is None:
            order = self._next[key] = _Order()
        order.inodes |= inodes
        if order.work is None:
            order.work = asyncio.create_task(self._order(key, order, self._last.get(key)), name="return")
            order.work.add_done_callback(_look_at)
            self._last[key] = order.work
        await asyncio.shield(order.work)

    async def _order(self, key: _Addressee, order: _Order, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._next.pop(key, None)
        try:
            await (self._dropped(key, order.inodes) if key.drops else self._returned(key, order.inodes))
        finally:
            if self._last.get(key) is asyncio.current_task():
                del self._last[key]

    async def _returned(self, key: _Addressee, inodes: set[int]) -> None:
        shell, session_id = self._shell, key.session_id
        number = shell.next_order()
        message = pb.ReturnHeld(return_id=number, volume_id=key.volume_id, inodes=sorted(inodes))
        order = pb.SessionReply(return_held=message)
        answered = await shell.until_answered(session_id, number, order, RETURN_DEADLINE_S)
        if not answered and self._coordinator.leases.valid(session_id):
            raise Unavailable("another mount does not write what it holds of new files: its log says why")
        if not answered:
            await shell.run(lambda txn: sessions.end_lapsed(txn, [session_id]))

    async def _dropped(self, key: _Addressee, inodes: set[int]) -> None:
        shell, remembered = self._shell, self._coordinator.env.remembered
        number = shell.next_order()
        message = pb.DropRemembered(drop_id=number, volume_id=key.volume_id, inodes=sorted(inodes))
        order = pb.SessionReply(drop_remembered=message)
        if await shell.until_answered(key.session_id, number, order, RETURN_DEADLINE_S):
            remembered.dropped(key.volume_id, key.session_id, inodes)
        elif self._coordinator.leases.valid(key.session_id):
            raise Unavailable("another mount does not drop what it remembers of a file: its log says why")
        else:
            remembered.forget(key.volume_id, key.session_id)

    # -- after the coordinator's start

    async def _declared(self, error: WaitNeeded) -> None:
        """Returns when all sessions that may hold something have said what, or have ended."""
        coordinator = self._coordinator
        until_s = self._shell.loop.time() + 2 * coordinator.config.lease_s
        while True:
            with coordinator.read() as kv:
                waiting = undeclared_writers(kv, coordinator.env, error.volume_id)
                if not waiting:
                    require_known(kv, coordinator.env, error.volume_id)
                    return
            lapsed = [session for session in waiting if not coordinator.leases.valid(session)]
            if lapsed:
                await self._shell.run(lambda txn: sessions.end_lapsed(txn, lapsed))  # noqa: B023 - runs at once
            elif self._shell.loop.time() >= until_s:
                raise error
            else:
                await asyncio.sleep(DECLARE_LOOK_S)


def _look_at(work: asyncio.Task[None]) -> None:
    """Whoever waited has the error."""
    if not work.cancelled():
        work.exception()
