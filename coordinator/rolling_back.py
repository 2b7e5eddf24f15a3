"""Rolling a volume back while it is mounted: the conversation with its mounts around the one command that does it.

1. **Hold**: every live mount of the volume, also a read-only one, lets no operation begin, ends those under way,
   commits everything, and says so. What a program was told is written, is in the kept snapshot.
2. **Swap**: one command (`volumes.roll_back`). It is refused where a mount came that is not held, or where the hold is
   over, by the time of the *sending* of the order: a mount counts from when it got it, so it is held for longer.
3. **Rebase**: every mount goes on as the new lineage, and answers when the kernel shows nothing old any more. Then the
   caller gets the answer.

Three rules keep the two states apart: a commit names the lineage that it was made for and is refused in another one; a
mount that was held goes on only after a Rebase, or after it asked for the lineage (Attach by id) when its hold was
over; a swap happens only while all mounts are held. What a failure leaves:

| at | it leaves |
|---|---|
| a mount does not answer the hold | nothing changed; the others are let go; `Unavailable` names the mount |
| the mount's session lapses | it loses the volume, as by any other command that takes it; the swap goes on |
| the mount dies after it was held | everything is committed; its session lapses; the swap goes on |
| the caller goes away | the conversation goes on to its end without it |
| the coordinator dies before the swap is durable | nothing changed; mounts ask when their hold is over and go on |
| the coordinator dies, or a stream breaks, after it | the mount asks for the lineage when it is back, and rebases |
| a Rebase is not confirmed in time | the swap stands, the caller is answered; the mount waits until it has rebased |
| a mount is just being asked to share the volume | the roll-back waits its turn (`turns.py`); Busy after too long |
| a session that knows no holds (a tool) commits to the old lineage | that commit is refused for good, `RolledBack` |
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NamedTuple

from redfs.coordinator import sessions, volumes
from redfs.coordinator.shell import Shell
from redfs.coordinator.txn import Txn, scan_pairs
from redfs.core.errors import Busy, InvalidArgument, Unavailable
from redfs.core.tables import MOUNTS, SESSIONS, VolumeState, decode_session, u64_key
from redfs.core.volume_tree import ReadTree, split_snapshot_name
from redfs.proto.gen import cluster_pb2 as pb

SWAP_S = 5.0
"""Mounts stay held for this long after the deadline to answer: for the swap and the Rebase, which take milliseconds."""
MARGIN_S = 1.0
"""The swap counts the hold as over so much earlier than the mounts do: clocks of two machines differ by far less."""
REBASE_DEADLINE_S = 15.0
"""A mount confirms after a second, when the kernel's memory of names is over; a busy one later."""
HOLD_ROUNDS = 3
"""Mounts that come between hold and swap are held as well; who is still not alone then is told Busy."""

log = logging.getLogger(__name__)


class Done(NamedTuple):
    """What a roll-back did."""

    result: volumes.RolledBack
    state_thread_ms: float


class RollingBack:
    """Roll-backs of one coordinator's volumes, one at a time for each volume. Belongs to the shell's event loop."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._coordinator = shell.coordinator
        self._under_way: set[int] = set()
        self._tasks: set[asyncio.Task[Done]] = set()

    async def run(self, snapshot: str, keep: str, discard: bool) -> Done:
        """Rolls back and returns when no mount shows the old state. See `volumes.roll_back`; Unavailable, Busy."""
        if keep and discard:
            raise InvalidArgument("what the volume holds now is either kept under a name or discarded: choose one")
        with self._coordinator.read() as kv:
            volume = ReadTree(kv).named(split_snapshot_name(snapshot)[0])
            ReadTree(kv).named(snapshot)
        if volume.volume_id in self._under_way:
            raise Busy(f"{volume.name!r} is being rolled back already: wait for the end of that")
        self._under_way.add(volume.volume_id)
        work = asyncio.create_task(self._run(volume.volume_id, snapshot, keep, discard), name="roll-back")
        self._tasks.add(work)
        work.add_done_callback(self._ended)
        # Whoever called may go away; the mounts must be told all the same.
        return await asyncio.shield(work)

    def _ended(self, work: asyncio.Task[Done]) -> None:
        self._tasks.discard(work)
        if not work.cancelled():
            work.exception()

    async def _run(self, volume_id: int, snapshot: str, keep: str, discard: bool) -> Done:
        try:
            async with self._shell.turns.turn(volume_id, self._coordinator.config.flush_deadline_s):
                done = await self._hold_and_swap(volume_id, snapshot, keep, discard)
                await self._tell(done.result)
                return done
        finally:
            self._under_way.discard(volume_id)

    async def _hold_and_swap(self, volume_id: int, snapshot: str, keep: str, discard: bool) -> Done:
        ordered: set[int] = set()
        try:
            for _ in range(HOLD_ROUNDS):
                held = await self._hold(volume_id, snapshot, ordered)
                try:
                    return await self._swap(snapshot, keep, discard, held)
                except Busy:
                    if self._alive(volume_id) <= held.sessions:
                        raise
            raise Busy(f"{snapshot.partition('@')[0]!r} is mounted again and again just now: try again")
        except BaseException:
            self._let_go(volume_id, ordered)
            raise

    def _alive(self, volume_id: int) -> frozenset[int]:
        """The sessions that have the volume mounted and may be serving it."""
        with self._coordinator.read() as kv:
            there = [session for session, _ in scan_pairs(kv, MOUNTS, volume_id)]
        return frozenset(session for session in there if self._coordinator.leases.valid(session))

    async def _hold(self, volume_id: int, snapshot: str, ordered: set[int]) -> volumes.Held:
        """Holds every live mount; enters them in `ordered`. Unavailable where one does not say that it is held."""
        deadline_s = self._coordinator.config.flush_deadline_s
        hold_s = deadline_s + SWAP_S
        until_s = self._coordinator.env.clock.monotonic() + hold_s - MARGIN_S
        mounts = sorted(self._alive(volume_id))
        ordered.update(mounts)
        answers = await asyncio.gather(
            *[self._shell.flush(session, volume_id, deadline_s, hold_s) for session in mounts]
        )
        silent = {session for session, answered in zip(mounts, answers, strict=True) if not answered}
        still = silent & self._alive(volume_id)
        if still:
            raise Unavailable(
                f"{snapshot.partition('@')[0]!r} was not rolled back, nothing changed: {self._names(still)} did not "
                "write what it holds in time. Its log says why; unmount it, or try again"
            )
        return volumes.Held(volume_id, frozenset(mounts) - silent, until_s)

    def _names(self, mounts: set[int]) -> str:
        with self._coordinator.read() as kv:
            rows = [kv.get(SESSIONS, u64_key(session)) for session in sorted(mounts)]
        return "the mount " + ", ".join([decode_session(row).client_name for row in rows if row is not None][:3])

    async def _swap(self, snapshot: str, keep: str, discard: bool, held: volumes.Held) -> Done:
        took_ms = 0.0

        def command(txn: Txn) -> volumes.RolledBack:
            nonlocal took_ms
            started_s = time.perf_counter()
            done = volumes.roll_back(txn, snapshot, keep, discard, held)
            took_ms = (time.perf_counter() - started_s) * 1000
            return done

        return Done(await self._shell.run(command), took_ms)

    async def _tell(self, done: volumes.RolledBack) -> None:
        rebase = pb.Rebase(volume_id=done.volume.volume_id, lineage=done.volume.lineage, root=done.root)
        mounts = sorted(done.mounts)
        told = await asyncio.gather(*[self._shell.rebase(session, rebase, REBASE_DEADLINE_S) for session in mounts])
        for session, confirmed in zip(mounts, told, strict=True):
            if not confirmed:
                log.warning("session %d has not confirmed that %s was rolled back", session, done.volume.name)

    def _let_go(self, volume_id: int, mounts: set[int]) -> None:
        """Lets mounts go on as the lineage that is the volume's now. One that misses it asks when its hold is over."""
        with self._coordinator.read() as kv:
            row = ReadTree(kv).get(volume_id)
            if row is None or row.state != VolumeState.OK:
                return  # deleted meanwhile: its mounts were told
            root = sessions.root_record(Txn(kv, self._coordinator.env), row)
        for session in sorted(mounts):
            rebase = pb.Rebase(rebase_id=self._shell.next_order(), volume_id=volume_id, lineage=row.lineage, root=root)
            self._shell.tell(session, pb.SessionReply(rebase=rebase))
