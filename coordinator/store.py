"""The coordinator's durable store: named ordered tables in LMDB, and the same in memory for tests and simulations.

A write transaction is all or nothing and durable when `write` returns. The map is large and sparse and grows by itself
where it is full; the transaction is then computed again, so its body must have no effect outside of it. A full disk
raises `NoSpace` and leaves the last committed state. Any other failure of LMDB is passed on as it is: the process must
stop, and the next one finds the last committed state.

Reads see a committed state and never wait for writers. They should be short: pages freed since an open read
transaction began are not used again.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import lmdb

from redfs.core.errors import Busy, NoSpace, WrongFormat
from redfs.core.kv import Change, Kv, MemoryKv, Overlay, ReadKv

T = TypeVar("T")

MAX_TABLES = 64
"""Named tables in one store: there are under thirty, and LMDB wants the number beforehand."""
MAX_READERS = 64
"""Read transactions at one time: one for each reader thread and one for the event loop, with room to spare."""
MAX_MAP_BYTES = 1 << 46
"""Half of what a process can map: growing ends there."""
STORE_FILE = "metadata.lmdb"
PROBE_FILE = "room"
PROBE_BYTES = 1 << 20
"""A disk with less room than this counts as full: a transaction of many commits writes as much."""


class Writable(Kv, Protocol):
    """A store inside of a write transaction."""

    def apply(self, changes: Iterable[Change]) -> None:
        """Applies changes in order."""
        ...


class Reading(Protocol):
    """A read transaction, as a context manager."""

    def __enter__(self) -> ReadKv: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class KvStore(Protocol):
    """Transactions over named tables."""

    def write(self, body: Callable[[Writable], T]) -> T:
        """Runs `body` over a write transaction and commits it durably; an exception of `body` leaves nothing behind.

        `body` may be run more than once. One writer at a time. Raises NoSpace.
        """
        ...

    def read(self) -> Reading:
        """A read transaction on the committed state."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """A store in memory that keeps what was committed: a "crash" is forgetting everybody but it.

    `before_commit` and `after_commit` are called around each commit with its number and may raise, for tests that let
    the process die at every commit point.
    """

    def __init__(self) -> None:
        self.committed = MemoryKv()
        self.transactions = 0
        self.before_commit: Callable[[int], None] = lambda number: None
        self.after_commit: Callable[[int], None] = lambda number: None

    def write(self, body: Callable[[Writable], T]) -> T:
        txn = _MemoryTxn(self.committed)
        result = body(txn)
        self.before_commit(self.transactions)
        self.committed.apply(txn.changes())
        self.transactions += 1
        self.after_commit(self.transactions)
        return result

    def read(self) -> Reading:
        return _MemoryReading(self.committed)

    def close(self) -> None:
        return None


class _MemoryTxn(Overlay):
    def apply(self, changes: Iterable[Change]) -> None:
        for table, key, value in changes:
            self._set(table, key, value)


class _MemoryReading:
    def __init__(self, kv: MemoryKv) -> None:
        self._kv = kv

    def __enter__(self) -> ReadKv:
        return self._kv

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _LmdbKv:
    """One LMDB transaction as a `Kv`. Keys are never empty."""

    __slots__ = ("_cursors", "_dbs", "_scans", "_txn")

    def __init__(self, txn: Any, dbs: dict[str, Any]) -> None:
        self._txn = txn
        self._dbs = dbs
        self._cursors: dict[str, Any] = {}
        self._scans: set[Any] = set()

    def _cursor(self, table: str) -> Any:
        cursor = self._cursors.get(table)
        if cursor is None:
            cursor = self._cursors[table] = self._txn.cursor(self._dbs[table])
        return cursor

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._dbs[table])
        return value

    def first(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        cursor = self._cursor(table)
        if not cursor.set_range(start):
            return None
        found: tuple[bytes, bytes] = cursor.item()
        return found if found[0] < end else None

    def last(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        cursor = self._cursor(table)
        there = cursor.prev() if cursor.set_range(end) else cursor.last()
        if not there:
            return None
        found: tuple[bytes, bytes] = cursor.item()
        return found if start <= found[0] < end else None

    def let_go(self) -> None:
        """Forgets the transaction. LMDB keeps a reader's place while anything refers to its transaction, and whoever
        read through this object may live on until the garbage collector comes."""
        for cursor in (*self._cursors.values(), *self._scans):
            cursor.close()
        self._cursors.clear()
        self._scans.clear()
        self._txn = None

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor(self._dbs[table])
        self._scans.add(cursor)
        try:
            if cursor.set_range(start):
                for item in cursor.iternext():
                    if item[0] >= end:
                        return
                    yield item
        finally:
            self._scans.discard(cursor)
            cursor.close()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._dbs[table])

    def delete(self, table: str, key: bytes) -> None:
        self._txn.delete(key, db=self._dbs[table])

    def apply(self, changes: Iterable[Change]) -> None:
        txn, dbs = self._txn, self._dbs
        for table, key, value in changes:
            if value is None:
                txn.delete(key, db=dbs[table])
            else:
                txn.put(key, value, db=dbs[table])


class LmdbStore:
    """Tables in one LMDB file in `folder`.

    Raises Busy where another process has it locked, WrongFormat where it is no such file, NoSpace.
    """

    def __init__(self, folder: Path, tables: Iterable[str], map_bytes: int) -> None:
        self._path = folder / STORE_FILE
        self._gate = threading.Condition()
        self._readers = 0
        self._growing = False
        try:
            self._env = lmdb.open(
                str(self._path),
                map_size=max(map_bytes, self._path.stat().st_size if self._path.exists() else 0),
                subdir=False,
                max_dbs=MAX_TABLES,
                max_readers=MAX_READERS,
                meminit=False,
            )
            self._dbs: dict[str, Any] = {name: self._env.open_db(name.encode()) for name in tables}
        except lmdb.DiskError as error:
            raise self._full() from error
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
            raise WrongFormat(f"{self._path} is no metadata store of this RedFS: {error}") from error
        except lmdb.LockError as error:
            raise Busy(f"{self._path} is in use by another process: stop that one first") from error

    def _full(self) -> NoSpace:
        return NoSpace(f"the coordinator's disk is full ({self._path.parent}): free some space there")

    def write(self, body: Callable[[Writable], T]) -> T:
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    result = body(_LmdbKv(txn, self._dbs))
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                # LMDB reports a write cut short by a full disk as an I/O error; the transaction is undone either way.
                if isinstance(error, lmdb.DiskError) or self._disk_is_full():
                    raise self._full() from error
                raise
            else:
                return result

    def _disk_is_full(self) -> bool:
        """Whether the disk, or the quota on it, has no room for a small file."""
        probe = self._path.with_name(PROBE_FILE)
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno in (errno.ENOSPC, errno.EDQUOT)
        finally:
            probe.unlink(missing_ok=True)
        return False

    def _grow(self) -> None:
        """Doubles the map. LMDB allows that only while no transaction is open, so new readers wait for it."""
        size = 2 * int(self._env.info()["map_size"])
        if size > MAX_MAP_BYTES:
            raise NoSpace(f"the metadata in {self._path} has outgrown what one process can map")
        with self._gate:
            self._growing = True
            try:
                self._gate.wait_for(lambda: self._readers == 0)
                self._env.set_mapsize(size)
            finally:
                self._growing = False
                self._gate.notify_all()

    @property
    def wants_to_grow(self) -> bool:
        """Whether the writer waits for readers to end: a long read should give up and start again."""
        return self._growing

    def read(self) -> Reading:
        return _LmdbReading(self)

    def begin_read(self) -> tuple[Any, _LmdbKv]:
        """For `_LmdbReading`: enters the gate and opens a transaction."""
        with self._gate:
            while self._growing:
                self._gate.wait()
            self._readers += 1
        try:
            txn = self._env.begin()
        except lmdb.Error:
            self.end_read(None)
            raise
        return txn, _LmdbKv(txn, self._dbs)

    def end_read(self, txn: Any) -> None:
        """For `_LmdbReading`: ends the transaction and leaves the gate."""
        if txn is not None:
            txn.abort()
        with self._gate:
            self._readers -= 1
            if self._growing:
                self._gate.notify_all()

    def close(self) -> None:
        self._env.close()


class _LmdbReading:
    __slots__ = ("_kv", "_store", "_txn")

    def __init__(self, store: LmdbStore) -> None:
        self._store = store
        self._txn: Any = None
        self._kv: _LmdbKv | None = None

    def __enter__(self) -> ReadKv:
        self._txn, self._kv = self._store.begin_read()
        return self._kv

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kv is not None:
            self._kv.let_go()
        self._store.end_read(self._txn)
        self._txn = None
