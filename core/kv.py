"""The ordered key-value map under all coordinator metadata: interface, overlay and in-memory form.

A state change is one numbered list of `Change`s made by one function. It is computed over an `Overlay`, which reads
through to the store and keeps its own writes apart, and applied afterwards; a refused command drops its overlay and
leaves nothing behind. `MemoryKv` is the plain implementation for tests and simulations; the coordinator's LMDB store
implements the same two interfaces.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, KeysView
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
        self._own: dict[str, tuple[dict[bytes, bytes | None], list[bytes]]] = {}
        """table -> (value or None for deleted, by key; the keys in order). Plain lists beat trees at the size of a
        command, and there is a new overlay for each command."""

    def get(self, table: str, key: bytes) -> bytes | None:
        own = self._own.get(table)
        if own is not None and key in own[0]:
            return own[0][key]
        return self._base.get(table, key)

    def first(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        below = self._base.first(table, start, end)
        own = self._own.get(table)
        if own is None:
            return below
        values, keys = own
        for at in range(bisect_left(keys, start), bisect_left(keys, end)):
            key = keys[at]
            if below is not None and below[0] <= key:
                if below[0] < key:
                    return below
                below = self._base.first(table, key + b"\0", end)
            value = values[key]
            if value is not None:
                return key, value
        return below

    def last(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        below = self._base.last(table, start, end)
        own = self._own.get(table)
        if own is None:
            return below
        values, keys = own
        for at in range(bisect_left(keys, end) - 1, bisect_left(keys, start) - 1, -1):
            key = keys[at]
            if below is not None and below[0] >= key:
                if below[0] > key:
                    return below
                below = self._base.last(table, start, key)
            value = values[key]
            if value is not None:
                return key, value
        return below

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        own = self._own.get(table)
        base = self._base.scan(table, start, end)
        if own is None:
            yield from base
            return
        values, keys = own
        below = next(base, None)
        for key in keys[bisect_left(keys, start) : bisect_left(keys, end)]:
            while below is not None and below[0] < key:
                yield below
                below = next(base, None)
            if below is not None and below[0] == key:
                below = next(base, None)
            value = values[key]
            if value is not None:
                yield key, value
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
            self._own[table] = ({key: value}, [key])
            return
        values, keys = own
        if key not in values:
            insort(keys, key)
        values[key] = value

    def changed_tables(self) -> KeysView[str]:
        """The tables that were written to."""
        return self._own.keys()

    def changes(self) -> list[Change]:
        """The net changes, each key once, tables in the order they were first written."""
        return [(table, key, values[key]) for table, (values, keys) in self._own.items() for key in keys]
