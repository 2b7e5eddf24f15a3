"""The log of writes that the coordinator has not acknowledged, in order, gathered into pending commits.

Every namespace operation and every flush of data appends its write-set. Appending coalesces at once: a pending commit
keeps the last value of each key, which is all that a commit, applied as a whole, can show. A flush's stored blocks
ride in the commit that holds the rows which name them; its plain bytes stay with it until it is acknowledged, because
the coordinator may refuse a commit that counted on a block which is gone meanwhile.

Plain state: nothing here waits or fails. Sending is left to `committer`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from redfs.client.fs.config import Buffer, FsConfig, Stored
from redfs.client.fs.metadata import Metadata, with_blocks
from redfs.core.errors import RedfsError
from redfs.core.namespace import WriteSet
from redfs.core.records import Key, Kind, Record, encode
from redfs.proto.gen import cluster_pb2 as pb

_SLOT = int(Kind.SLOT)


class DataBatch:
    """Blocks stored by one flush, with the plain bytes that they hold."""

    __slots__ = ("plain", "released", "stored")

    def __init__(self, stored: Stored, plain: Sequence[Buffer], released: Callable[[], None]) -> None:
        self.stored = stored
        self.plain = plain
        self.released = released
        """Called once the commit is acknowledged: the plain bytes are not needed any more."""


class PendingCommit:
    """A run of the log, to be applied as a whole."""

    __slots__ = ("batches", "born_s", "copied_bytes", "data_bytes", "done", "number", "previous", "rows", "waiters")

    def __init__(self, born_s: float) -> None:
        self.rows: dict[Key, Record | None] = {}
        self.batches: list[DataBatch] = []
        self.data_bytes = 0
        self.copied_bytes = 0
        """Logical bytes in slots taken over from elsewhere."""
        self.born_s = born_s
        self.number = 0
        """Given when it is sent first."""
        self.previous: PendingCommit | None = None
        """The one in flight before this one, while it is."""
        self.done = asyncio.Event()
        """Set when it was acknowledged."""
        self.waiters: list[asyncio.Future[None]] = []
        """Barriers: they get the acknowledgement, or the error of a failed attempt."""

    def answer(self, error: RedfsError | None) -> None:
        """Wakes the barriers."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def message(self, volume_id: int, lineage: int) -> pb.Commit:
        """The commit as it goes over the wire."""
        commit = pb.Commit(volume_id=volume_id, number=self.number, lineage=lineage)
        for batch in self.batches:
            commit.segments.extend(batch.stored.segments)
            commit.blocks.extend(batch.stored.blocks)
        row = pb.Row
        commit.rows.extend(
            [
                row(kind=key[0], obj=key[1], value=b"" if record is None else encode(key[0], record))
                for key, record in self.rows.items()
            ]
        )
        return commit

    def replace_blocks(self, stored: Mapping[int, int]) -> Iterator[Key]:
        """Puts other block ids into its slot rows; yields the keys of those that changed."""
        for key, record in self.rows.items():
            if key[0] == _SLOT and record:
                changed: Any = with_blocks(record, stored)
                if changed is not record:
                    self.rows[key] = changed
                    yield key


class WriteLog:
    """The pending commits, oldest first, and what is in flight of them."""

    def __init__(self, metadata: Metadata, config: FsConfig, clock: Callable[[], float]) -> None:
        self.queue: deque[PendingCommit] = deque()
        """Not sent yet. The last one takes what is appended."""
        self.in_flight: deque[PendingCommit] = deque()
        self.pending_rows = 0
        self.pending_bytes = 0
        """Plain bytes of the flushes that are not acknowledged."""
        self.copied_bytes = 0
        """Logical bytes in slots taken over from elsewhere, from before they are appended until acknowledged."""
        self._metadata = metadata
        self._config = config
        self._clock = clock

    def append(self, writes: WriteSet, batch: DataBatch | None = None) -> None:
        """Makes a write-set visible here and puts it at the end of the log."""
        self._metadata.apply(writes)
        commit = self._open()
        if batch is not None:
            commit.batches.append(batch)
            data_bytes = sum([len(data) for data in batch.plain])
            commit.data_bytes += data_bytes
            self.pending_bytes += data_bytes
        rows, dirty = commit.rows, self._metadata.dirty
        before = len(rows)
        rows.update(writes)
        self.pending_rows += len(rows) - before
        for key in writes:
            dirty[key] = commit

    def _open(self) -> PendingCommit:
        if self.queue and not self.is_full(self.queue[-1]):
            return self.queue[-1]
        commit = PendingCommit(self._clock())
        self.queue.append(commit)
        return commit

    def is_full(self, commit: PendingCommit) -> bool:
        """Whether no more should be gathered into it."""
        config = self._config
        return (
            len(commit.rows) >= config.commit_rows
            or commit.data_bytes >= config.commit_bytes
            or len(commit.batches) >= config.commit_batches
        )

    def newest(self) -> PendingCommit | None:
        """The commit whose acknowledgement means that everything written so far is durable."""
        if self.queue:
            return self.queue[-1]
        return self.in_flight[-1] if self.in_flight else None

    def copied(self, size: int) -> None:
        """Of `copied_bytes`, so many are in what was appended last; nothing else was appended since."""
        commit = self.newest()
        assert commit is not None, "something was appended"
        commit.copied_bytes += size

    def acknowledged(self, commit: PendingCommit) -> None:
        """Takes the oldest commit in flight out of the log; its records are clean now."""
        assert self.in_flight[0] is commit, "commits are acknowledged in order"
        self.in_flight.popleft()
        self.pending_rows -= len(commit.rows)
        self.pending_bytes -= commit.data_bytes
        self.copied_bytes -= commit.copied_bytes
        dirty = self._metadata.dirty
        for key in commit.rows:
            if dirty.get(key) is commit:
                del dirty[key]
        for batch in commit.batches:
            batch.released()
        commit.done.set()
        commit.answer(None)

    def replace_blocks(self, commit: PendingCommit, stored: Mapping[int, int]) -> None:
        """Wherever a block was written from `commit` on, another one of the same bytes stands now."""
        self._metadata.replace_blocks([key for key in commit.rows if key[0] == _SLOT], stored)
        for pending in (*self.in_flight, *self.queue):
            self._metadata.replace_blocks(list(pending.replace_blocks(stored)), stored)
