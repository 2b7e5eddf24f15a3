"""The ordered key-value map under all coordinator metadata: interface, overlay and in-memory form.

A state change is one numbered list of `Change`s made by one function. It is computed over an `Overlay`, which reads
through to the store and keeps its own writes apart, and applied afterwards; a refused command drops its overlay and
leaves nothing behind. `MemoryKv` is the plain implementation for tests and simulations; the coordinator's LMDB store
implements the same two interfaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from sortedcontainers import SortedDict

Change = tuple[str, bytes, bytes | None]
"""(table, key, value or None to delete)."""


class ReadKv(Protocol):
    """Read access to named tables, each an ordered map of bytes to bytes."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value at `key`, or None."""
        ...

    def first(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The first (key, value) with start <= key < end, or None. One seek."""
        ...

    def last(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The last (key, value) with start <= key < end, or None. One seek."""
        ...

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) with start <= key < end in key order. The map must not change while iterating."""
        ...


class Kv(ReadKv, Protocol):
    """A `ReadKv` that can also be written."""

    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    def delete(self, table: str, key: bytes) -> None:
        """Removes `key`; nothing happens where it is not there."""
        ...


class MemoryKv:
    """A `Kv` in memory: the model that the real stores are tested against."""

    def __init__(self) -> None:
        self._tables: dict[str, SortedDict] = {}

    def _table(self, table: str) -> SortedDict:
        found = self._tables.get(table)
        if found is None:
            found = self._tables[table] = SortedDict()
        return found

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._table(table).get(key)
        return value

    def first(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        rows = self._table(table)
        for key in rows.irange(start, end, inclusive=(True, False)):
            return key, rows[key]
        return None

    def last(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        rows = self._table(table)
        for key in rows.irange(start, end, inclusive=(True, False), reverse=True):
            return key, rows[key]
        return None

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self._table(table)
        for key in rows.irange(start, end, inclusive=(True, False)):
            yield key, rows[key]

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._table(table)[key] = value

    def delete(self, table: str, key: bytes) -> None:
        self._table(table).pop(key, None)

    def apply(self, changes: Iterable[Change]) -> None:
        """Applies a list of changes in order."""
        for table, key, value in changes:
            if value is None:
                self.delete(table, key)
            else:
                self.put(table, key, value)


class Overlay:
    """A `Kv` that reads through to a base and keeps its writes until `changes()` is applied elsewhere.

    Overlays stack: the base may itself be an Overlay.
    """

    def __init__(self, base: ReadKv) -> None:
        self._base = base
        self._own: dict[str, SortedDict] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        own = self._own.get(table)
        if own is not None and key in own:
            value: bytes | None = own[key]
            return value
        return self._base.get(table, key)

    def first(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        own = self._own.get(table)
        below = self._base.first(table, start, end)
        if not own:
            return below
        for key in own.irange(start, end, inclusive=(True, False)):
            if below is not None:
                if below[0] < key:
                    break
                if below[0] == key:
                    below = None if own[key] is not None else self._base.first(table, key + b"\0", end)
            if own[key] is not None:
                return key, own[key]
        return below

    def last(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        own = self._own.get(table)
        below = self._base.last(table, start, end)
        if not own:
            return below
        for key in own.irange(start, end, inclusive=(True, False), reverse=True):
            while below is not None and below[0] > key:
                if below[0] not in own:
                    return below
                below = self._base.last(table, start, below[0])
            if own[key] is not None:
                return key, own[key]
        while below is not None and below[0] in own:
            below = self._base.last(table, start, below[0])
        return below

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        own = self._own.get(table)
        base = self._base.scan(table, start, end)
        if not own:
            yield from base
            return
        below = next(base, None)
        for key in own.irange(start, end, inclusive=(True, False)):
            while below is not None and below[0] < key:
                yield below
                below = next(base, None)
            if below is not None and below[0] == key:
                below = next(base, None)
            if own[key] is not None:
                yield key, own[key]
        while below is not None:
            yield below
            below = next(base, None)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._set(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        self._set(table, key, None)

    def _set(self, table: str, key: bytes, value: bytes | None) -> None:
        own = self._own.get(table)
        if own is None:
            own = self._own[table] = SortedDict()
        own[key] = value

    def changes(self) -> list[Change]:
        """The net changes, each key once, tables in the order they were first written."""
        return [(table, key, value) for table, own in self._own.items() for key, value in own.items()]
