"""What the namespace engine reads from and hands back: views, misses, outcomes, and two views in memory.

An operation reads records through a `View` and returns an `Outcome`: its result and the records to write. It never
waits. A view that does not hold a record raises `Miss`, which names everything that the operation is known to lack;
the caller fetches that and runs the operation again from the start. An operation has no effect before its write-set
is applied, so running it again is always safe.

Applying a write-set (all of it or nothing) and keeping two operations from running between each other's reads and
writes is left to the caller.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

from redfs.core.records import (
    DirBucket,
    Key,
    Kind,
    Record,
    XattrBucket,
    dirent_key,
    split_dirent_object,
    xattr_key,
)

T = TypeVar("T")

WriteSet = dict[Key, Record | None]
"""Record by key; None deletes, and deleting what does not exist is fine. Applied as a whole."""


class FolderPage(NamedTuple):
    """A page of a folder's buckets: the first `limit` whose hash is above `after_hash` (None: from the start)."""

    ino: int
    after_hash: int | None
    limit: int


class Miss(Exception):
    """The view lacks records. Fetch all that is named here, then run the operation again."""

    def __init__(
        self,
        keys: Iterable[Key] = (),
        folders: Iterable[FolderPage] = (),
        xattrs_of: Iterable[int] = (),
    ) -> None:
        super().__init__()
        self.keys: tuple[Key, ...] = tuple(dict.fromkeys(keys))
        self.folders: tuple[FolderPage, ...] = tuple(folders)
        self.xattrs_of: tuple[int, ...] = tuple(xattrs_of)

    def __str__(self) -> str:
        return f"lacks keys {self.keys}, folders {self.folders}, attributes of {self.xattrs_of}"


class View(Protocol):
    """Read access to one volume's records as they are now, all own earlier writes included."""

    def get(self, key: Key) -> Record | None:
        """The record; None where it is known not to exist. Raises Miss where the view does not know."""
        ...

    def get_many(self, keys: Sequence[Key]) -> list[Record | None]:
        """Like `get` for each key in order, with one Miss that names all the unknown ones."""
        ...

    def peek(self, key: Key) -> Record | None:
        """The record if the view holds it; None where it does not exist or is not known. Never raises Miss."""
        ...

    def folder(self, ino: int, after_hash: int | None, limit: int) -> list[tuple[int, DirBucket]]:
        """(hash, bucket) of the folder in hash order, above `after_hash`; fewer than `limit` only at the end."""
        ...

    def xattrs(self, ino: int) -> list[tuple[int, XattrBucket]]:
        """(hash, bucket) of all extended attributes of the inode in hash order."""
        ...


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What an operation found or made, and the records to write for it (none after a plain read)."""

    value: T
    writes: WriteSet


class Context(NamedTuple):
    """Who asks, and when. Permission checks are the kernel's; the ids own what is made."""

    uid: int
    gid: int
    now_ns: int
    umask: int = 0
    groups: frozenset[int] = frozenset()
    """The caller's groups besides `gid`, where they are known. They matter to who makes a set-group-id program."""


class MemoryView:
    """A view that holds all records of one volume: for tests, tools and simulations. It never misses."""

    def __init__(self, records: Mapping[Key, Record | None] | None = None) -> None:
        self.records: dict[Key, Record] = {}
        self._hashes: dict[tuple[int, int], list[int]] = {}
        if records:
            self.apply(records)

    def apply(self, writes: Mapping[Key, Record | None]) -> None:
        """Applies a write-set."""
        for key, record in writes.items():
            if key.kind in (Kind.DIRENT, Kind.XATTR):
                self._index(key, record is not None)
            if record is None:
                self.records.pop(key, None)
            else:
                self.records[key] = record

    def _index(self, key: Key, present: bool) -> None:
        ino, name_hash = split_dirent_object(key.obj)
        if present == (key in self.records):
            return
        hashes = self._hashes.setdefault((key.kind, ino), [])
        if present:
            insort(hashes, name_hash)
        else:
            del hashes[bisect_left(hashes, name_hash)]

    def get(self, key: Key) -> Record | None:
        return self.records.get(key)

    def get_many(self, keys: Sequence[Key]) -> list[Record | None]:
        get = self.records.get
        return [get(key) for key in keys]

    def peek(self, key: Key) -> Record | None:
        return self.records.get(key)

    def folder(self, ino: int, after_hash: int | None, limit: int) -> list[tuple[int, DirBucket]]:
        hashes = self._hashes.get((Kind.DIRENT, ino), [])
        start = 0 if after_hash is None else bisect_left(hashes, after_hash + 1)
        return [(h, cast(DirBucket, self.records[dirent_key(ino, h)])) for h in hashes[start : start + limit]]

    def xattrs(self, ino: int) -> list[tuple[int, XattrBucket]]:
        hashes = self._hashes.get((Kind.XATTR, ino), [])
        return [(h, cast(XattrBucket, self.records[xattr_key(ino, h)])) for h in hashes]


class PartialView:
    """A view that knows of another one only what was fetched, as a client's cache does: it tests `Miss`."""

    def __init__(self, whole: MemoryView) -> None:
        self._whole = whole
        self._keys: set[Key] = set()
        self._folders: set[FolderPage] = set()
        self._xattrs: set[int] = set()

    def forget(self) -> None:
        """Drops all that was fetched."""
        self._keys.clear()
        self._folders.clear()
        self._xattrs.clear()

    def fetch(self, miss: Miss) -> None:
        """Makes exactly what the Miss names known."""
        self._keys.update(miss.keys)
        self._folders.update(miss.folders)
        self._xattrs.update(miss.xattrs_of)

    def get(self, key: Key) -> Record | None:
        if key not in self._keys:
            raise Miss(keys=(key,))
        return self._whole.get(key)

    def get_many(self, keys: Sequence[Key]) -> list[Record | None]:
        missing = [key for key in keys if key not in self._keys]
        if missing:
            raise Miss(keys=missing)
        return self._whole.get_many(keys)

    def peek(self, key: Key) -> Record | None:
        return self._whole.get(key) if key in self._keys else None

    def folder(self, ino: int, after_hash: int | None, limit: int) -> list[tuple[int, DirBucket]]:
        page = FolderPage(ino, after_hash, limit)
        if page not in self._folders:
            raise Miss(folders=(page,))
        return self._whole.folder(ino, after_hash, limit)

    def xattrs(self, ino: int) -> list[tuple[int, XattrBucket]]:
        if ino not in self._xattrs:
            raise Miss(xattrs_of=(ino,))
        return self._whole.xattrs(ino)
