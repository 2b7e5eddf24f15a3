"""Sends the write log to the coordinator: numbered commits, strictly in order, a bounded number in flight.

A commit goes out when it is full, when its oldest write has waited `commit_delay_s`, or when a barrier (fsync, sync,
unmount, a snapshot's flush) asks; what is written while others are in flight gathers in the next one, so many barriers
share one commit.

Failure: a refused commit holds back its successors. Blocks that are gone at the coordinator are stored again from the
plain bytes kept with the batch, and the commit is sent once more under its number. A coordinator that is away or a full
pool: barriers get the error, the commit stays and is tried again. A refusal that cannot be repaired, and the end of the
session, end the mount: `failed` is set, every barrier and every later call raises it. Where the volume was rolled back
meanwhile, only this committer ends: its mount goes on with another one (`on_rolled_back`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from redfs.client.fs.config import Buffer, FsConfig, Session, Stored
from redfs.client.fs.write_log import DataBatch, PendingCommit, WriteLog
from redfs.core.errors import (
    CommitRefused,
    InternalError,
    LeaseLapsed,
    NoSpace,
    RedfsError,
    RolledBack,
    TooFewNodes,
    Unavailable,
)

log = logging.getLogger("redfs.fs")

TRANSIENT = (Unavailable, NoSpace, TooFewNodes)
"""Errors after which the same commit may succeed."""
REMEMBERED_SUBSTITUTIONS = 64 * 1024
"""Replaced block ids kept for commits that were in flight when the replacement was told: more than two name."""


class Committer:
    """See the module."""

    def __init__(
        self,
        session: Session,
        volume_id: int,
        lineage: int,
        write_log: WriteLog,
        config: FsConfig,
        *,
        after: int,
        clock: Callable[[], float],
        store_again: Callable[[Sequence[Buffer]], Awaitable[Stored]],
        on_failed: Callable[[RedfsError], None],
        on_rolled_back: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.failed: RedfsError | None = None
        self.acknowledged = after
        """Number of the last commit that the coordinator has applied."""
        self._session = session
        self._volume_id = volume_id
        self._lineage = lineage
        self._log = write_log
        self._config = config
        self._clock = clock
        self._store_again = store_again
        self._on_failed = on_failed
        self._on_rolled_back = on_rolled_back
        self._sleep = sleep
        self._next_number = after + 1
        self._wanted = False
        self._senders: set[asyncio.Task[None]] = set()
        self._room: list[asyncio.Future[None]] = []
        self._substituted: dict[int, int] = {}

    # ------------------------------------------------------------ what the file system calls

    def appended(self) -> None:
        """After every append: sends what is due."""
        if len(self._log.queue) > 1 or self._log.is_full(self._log.queue[-1]):
            self._pump()

    def tick(self) -> None:
        """From time to time: sends what has waited long enough."""
        queue = self._log.queue
        if queue and self._clock() - queue[0].born_s >= self._config.commit_delay_s:
            self.push()

    def push(self) -> None:
        """Sends what there is without waiting for more."""
        if self._log.queue:
            self._wanted = True
            self._pump()

    async def barrier(self) -> None:
        """Returns when everything appended so far is durable. Raises why a commit failed; it is tried again anyway."""
        if self.failed is not None:
            raise self.failed
        newest = self._log.newest()
        if newest is None:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        newest.waiters.append(waiter)
        self.push()
        await waiter

    @property
    def has_room(self) -> bool:
        """Whether another operation may append without waiting."""
        log, config = self._log, self._config
        return log.pending_rows < config.pending_rows and log.pending_bytes < config.pending_bytes

    async def room(self) -> None:
        """Waits until the log is short enough to append to."""
        while not self.has_room:
            if self.failed is not None:
                raise self.failed
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            self._pump()
            await waiter

    def fail(self, error: RedfsError) -> None:
        """Nothing can be committed any more: everybody gets the error."""
        if self.abandon(error):
            self._on_failed(error)

    def abandon(self, error: RedfsError) -> bool:
        """Sends nothing more, without ending the mount. False where it had come to its end already."""
        if self.failed is not None:
            return False
        self.failed = error
        for commit in (*self._log.in_flight, *self._log.queue):
            commit.answer(error)
        self._wake_room()
        return True

    async def ended(self) -> None:
        """After `abandon`: returns when what was in flight is answered, so that `acknowledged` is final."""
        await asyncio.gather(*self._senders, return_exceptions=True)

    async def stop(self) -> None:
        """Ends the sending tasks, whatever is left."""
        for task in list(self._senders):
            task.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    # ------------------------------------------------------------ sending

    def _pump(self) -> None:
        queue, in_flight = self._log.queue, self._log.in_flight
        while queue and len(in_flight) < self._config.commits_in_flight and self.failed is None:
            commit = queue[0]
            if len(queue) == 1:
                if not (self._wanted or self._log.is_full(commit)):
                    return
                self._wanted = False
            queue.popleft()
            commit.number = self._next_number
            self._next_number += 1
            commit.previous = in_flight[-1] if in_flight else None
            in_flight.append(commit)
            sender = asyncio.create_task(self._send(commit))
            self._senders.add(sender)
            sender.add_done_callback(self._ended)

    def _ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        if not sender.cancelled() and (error := sender.exception()) is not None:
            log.error("sending a commit broke off", exc_info=error)
            self.fail(InternalError(f"sending a commit broke off: {error!r}"))

    async def _send(self, commit: PendingCommit) -> None:
        try:
            reply = await self._until_applied(commit)
        except RolledBack as error:
            if self.abandon(error):
                log.warning("commit %d was refused: %s", commit.number, error)
                self._on_rolled_back()
            reply = None
        except RedfsError as error:
            log.error("commit %d failed for good: %s", commit.number, error)
            self.fail(error)
            reply = None
        if reply is None:
            commit.done.set()  # its successors end as well
            return
        if commit.previous is not None:
            await commit.previous.done.wait()
            commit.previous = None
        self.acknowledged = commit.number
        self._log.acknowledged(commit)
        if reply:
            self._substitute(commit, reply)
        self._wake_room()
        self._pump()

    async def _until_applied(self, commit: PendingCommit) -> dict[int, int] | None:
        """Sends until the coordinator has applied it: the substitutions. None where the mount failed meanwhile."""
        attempts = 0
        pause_s = self._config.retry_first_s
        while self.failed is None:
            try:
                reply = await self._session.call(commit=commit.message(self._volume_id, self._lineage))
            except (LeaseLapsed, RolledBack):
                raise
            except TRANSIENT as error:
                commit.answer(error)
                log.warning("commit %d waits: %s", commit.number, error)
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, self._config.retry_max_s)
            except RedfsError as error:
                if commit.previous is not None and not commit.previous.done.is_set():
                    # It came before its predecessor was applied, whatever the refusal says: that one goes first.
                    await commit.previous.done.wait()
                    continue
                attempts += 1
                missing = error.missing_blocks if isinstance(error, CommitRefused) else ()
                if not missing or attempts > self._config.commit_attempts:
                    raise
                await self._repair(commit, missing)
            else:
                return {s.block: s.stored for s in reply.substitutions}
        return None

    async def _repair(self, commit: PendingCommit, missing: Sequence[int]) -> None:
        """Puts blocks that exist in the place of those that are gone."""
        stored = {block: self._substituted[block] for block in missing if block in self._substituted}
        gone = {block for block in missing if block not in stored}
        for batch in commit.batches:
            blocks: list[int] = []
            plain: list[Buffer] = []
            for (block, _), data in zip(batch.stored.refs, batch.plain, strict=True):
                if block in gone:
                    gone.discard(block)
                    blocks.append(block)
                    plain.append(data)
            if not blocks:
                continue
            log.info(
                "%d blocks that commit %d counted on are gone: storing their data again", len(blocks), commit.number
            )
            again = await self._store_repeatedly(plain)
            stored.update({old: new for old, (new, _) in zip(blocks, again.refs, strict=True)})
            commit.batches.append(DataBatch(again, plain, _nothing))
            break  # `batches` changed; a refusal after this one names the rest
        if not stored:
            raise InternalError(f"commit {commit.number} names blocks that nobody has: {sorted(gone)[:4]}")
        self._log.replace_blocks(commit, stored)

    async def _store_repeatedly(self, plain: Sequence[Buffer]) -> Stored:
        while True:
            try:
                return await self._store_again(plain)
            except TRANSIENT as error:
                log.warning("data that is to be stored again waits: %s", error)
                await self._sleep(self._config.retry_max_s)

    def _substitute(self, commit: PendingCommit, stored: dict[int, int]) -> None:
        self._log.replace_blocks(commit, stored)
        if self._log.in_flight:
            self._substituted.update(stored)
            while len(self._substituted) > REMEMBERED_SUBSTITUTIONS:
                del self._substituted[next(iter(self._substituted))]
        else:
            self._substituted.clear()

    def _wake_room(self) -> None:
        waiters, self._room = self._room, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _nothing() -> None:
    """A batch stored again has no memory of its own to release."""
