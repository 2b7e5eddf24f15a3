"""The namespace engine's view over the version store: of a read transaction for looks, of a command for changes.

It knows everything, so it never raises Miss. Decoded records are remembered for the one operation that it is made for:
nothing is written between an operation's reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from redfs.coordinator.hold_book import Guard
from redfs.core.namespace import WriteSet
from redfs.core.records import (
    DirBucket,
    Key,
    Kind,
    Record,
    XattrBucket,
    decode,
    dirent_key,
    encode,
    inode_key,
    object_ino,
    split_dirent_object,
    xattr_key,
)
from redfs.core.versions.reader import VersionReader

_UNKNOWN: Any = object()


class SharedView:
    """See the module."""

    def __init__(self, versions: VersionReader, lineage: int, guard: Guard | None = None) -> None:
        """`guard` is told of every inode that is read."""
        self._guard = guard
        self._versions = versions
        self._lineage = lineage
        self._epoch = versions.head_epoch(lineage)
        self._raw: dict[Key, bytes | None] = {}
        self._decoded: dict[Key, Record | None] = {}

    def raw(self, key: Key) -> bytes | None:
        """The record's bytes."""
        found = self._raw.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            if self._guard is not None and key[0] == Kind.INODE:
                self._guard.reads(object_ino(key[1]))
            found = self._raw[key] = self._versions.get(self._lineage, self._epoch, key[0], key[1])
        return cast("bytes | None", found)

    def get(self, key: Key) -> Record | None:
        found = self._decoded.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            raw = self.raw(key)
            found = self._decoded[key] = None if raw is None else decode(key[0], raw)
        return cast("Record | None", found)

    def get_many(self, keys: Sequence[Key]) -> list[Record | None]:
        return [self.get(key) for key in keys]

    def peek(self, key: Key) -> Record | None:
        return self.get(key)

    def folder(self, ino: int, after_hash: int | None, limit: int) -> list[tuple[int, DirBucket]]:
        start = dirent_key(ino, 0 if after_hash is None else after_hash + 1).obj
        return [(at, cast(DirBucket, bucket)) for at, bucket in self._scan(Kind.DIRENT, ino, start, limit)]

    def xattrs(self, ino: int) -> list[tuple[int, XattrBucket]]:
        # All attributes of an inode have a bound of their own, see core/namespace/xattrs.py.
        start = xattr_key(ino, 0).obj
        return [(at, cast(XattrBucket, bucket)) for at, bucket in self._scan(Kind.XATTR, ino, start, 1 << 30)]

    def slots(self, start: Key, end: Key, limit: int) -> list[tuple[bytes, bytes]]:
        """(object, value) of the SLOT rows in [start, end)."""
        return self._versions.scan(self._lineage, self._epoch, Kind.SLOT, start.obj, end.obj, limit)

    def _scan(self, kind: int, ino: int, start: bytes, limit: int) -> list[tuple[int, Record]]:
        rows = self._versions.scan(self._lineage, self._epoch, kind, start, inode_key(ino + 1).obj, limit)
        return [(split_dirent_object(obj)[1], decode(kind, value)) for obj, value in rows]


def encode_writes(writes: WriteSet) -> list[tuple[int, bytes, bytes]]:
    """(kind, object, value) of a write-set; an empty value deletes."""
    return [(kind, obj, b"" if record is None else encode(kind, record)) for (kind, obj), record in writes.items()]
