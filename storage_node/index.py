"""Which shard lies where on this disk: an ordered map from shard to its place.

The index is derived from the backing files and never synced while the node runs. A clean stop saves it under the
node's generation together with what else would need reading the files (`FileRow`); after anything else it is thrown
away and rebuilt. So it can be wrong only by a bug, and a damaged one costs time, not data.

`LmdbIndex` is the real one: memory does not grow with the number of shards. `MemoryIndex` serves tests and
simulations. Not safe for writing from several threads at once; the store's lock sees to that. Reading is.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import lmdb
from sortedcontainers import SortedDict

from redfs.core.errors import NoSpace
from redfs.storage_node.disk import DiskFailed

MAP_BYTES: Final = 64 << 30
"""Address space only: the file grows with its content. Enough for 500 million shards, 700 TB of the usual ones."""
MAX_READERS: Final = 512
"""Threads that read at once: the server's connections (128) and a few of the node's own."""

_ENTRY: Final = struct.Struct(">IQIQB")
_FILE_ROW: Final = struct.Struct(">QQQQQB")
_SAVED_KEY: Final = b"saved"
_SAVED: Final = struct.Struct(">8sHQ")
_MAGIC: Final = b"RedFSidx"
_VERSION: Final = 1


class Entry(NamedTuple):
    """Where a shard lies."""

    file_number: int
    offset: int
    payload_bytes: int
    checksum: int
    damaged: bool = False
    """Reading it found other bytes than were written."""


class FileRow(NamedTuple):
    """What the store knows of a backing file beside the shards in it."""

    size_bytes: int
    end_bytes: int
    live_records: int
    live_bytes: int
    dead_bytes: int
    sealed: bool
    entries: bytes
    """Packed footer entries of a file that has no footer yet."""


class Index(Protocol):
    """Ordered by key; a key is ten bytes that sort as (segment, shard)."""

    def get(self, key: bytes) -> Entry | None: ...

    def put(self, key: bytes, entry: Entry) -> None:
        """Raises NoSpace where the index is full, DiskFailed."""
        ...

    def delete(self, keys: Iterable[bytes]) -> None:
        """Nothing happens for keys that are not there. Raises DiskFailed."""
        ...

    def page(self, after: bytes, limit: int) -> list[tuple[bytes, Entry]]:
        """At most `limit` entries with keys greater than `after` (b"": from the first), in order."""
        ...

    def count(self) -> int: ...

    def clear(self) -> None:
        """Forgets everything."""
        ...

    def save(self, generation: int, files: dict[int, FileRow]) -> None:
        """Keeps everything durably, for `load` with the same generation."""
        ...

    def load(self, generation: int) -> dict[int, FileRow] | None:
        """The files as saved under this generation, or None where the index must be rebuilt. The save is void then."""
        ...

    def close(self) -> None: ...


class MemoryIndex:
    """An `Index` in memory."""

    def __init__(self) -> None:
        self._entries: SortedDict = SortedDict()
        self._saved: tuple[int, dict[int, FileRow]] | None = None

    def get(self, key: bytes) -> Entry | None:
        found: Entry | None = self._entries.get(key)
        return found

    def put(self, key: bytes, entry: Entry) -> None:
        self._entries[key] = entry

    def delete(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._entries.pop(key, None)

    def page(self, after: bytes, limit: int) -> list[tuple[bytes, Entry]]:
        found: list[tuple[bytes, Entry]] = []
        for key in self._entries.irange(after, None, inclusive=(False, False)):
            if len(found) == limit:
                break
            found.append((key, self._entries[key]))
        return found

    def count(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        self._entries.clear()
        self._saved = None

    def save(self, generation: int, files: dict[int, FileRow]) -> None:
        self._saved = (generation, dict(files))

    def load(self, generation: int) -> dict[int, FileRow] | None:
        saved, self._saved = self._saved, None
        return saved[1] if saved is not None and saved[0] == generation else None

    def close(self) -> None:
        """Nothing to do: what is saved stays for the next `load`."""


class LmdbIndex:
    """An `Index` in an LMDB folder, not synced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open()

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._env = lmdb.open(
            str(self._folder), map_size=MAP_BYTES, max_dbs=2, sync=False, metasync=False, max_readers=MAX_READERS
        )
        self._shards = self._env.open_db(b"shards")
        self._files = self._env.open_db(b"files")

    @classmethod
    def discard(cls, folder: Path) -> None:
        """Removes the index of a node that did not stop cleanly, without reading it: it may be torn."""
        shutil.rmtree(folder, ignore_errors=True)

    def get(self, key: bytes) -> Entry | None:
        with self._env.begin(db=self._shards) as txn:
            packed = txn.get(key)
        return None if packed is None else _unpack_entry(packed)

    def put(self, key: bytes, entry: Entry) -> None:
        try:
            with self._env.begin(db=self._shards, write=True) as txn:
                txn.put(key, _ENTRY.pack(*entry))
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            raise NoSpace(f"the node's shard index cannot grow: {error}") from error
        except lmdb.Error as error:
            raise DiskFailed(f"the node's shard index failed: {error}") from error

    def delete(self, keys: Iterable[bytes]) -> None:
        try:
            with self._env.begin(db=self._shards, write=True) as txn:
                for key in keys:
                    txn.delete(key)
        except lmdb.Error as error:
            raise DiskFailed(f"the node's shard index failed: {error}") from error

    def page(self, after: bytes, limit: int) -> list[tuple[bytes, Entry]]:
        found: list[tuple[bytes, Entry]] = []
        with self._env.begin(db=self._shards) as txn:
            cursor = txn.cursor()
            there = cursor.set_range(after) if after else cursor.first()
            if there and after and cursor.key() == after:
                there = cursor.next()
            while there and len(found) < limit:
                found.append((bytes(cursor.key()), _unpack_entry(cursor.value())))
                there = cursor.next()
        return found

    def count(self) -> int:
        with self._env.begin() as txn:
            entries: int = txn.stat(self._shards)["entries"]
        return entries

    def clear(self) -> None:
        with self._env.begin(write=True) as txn:
            txn.drop(self._shards, delete=False)
            txn.drop(self._files, delete=False)

    def save(self, generation: int, files: dict[int, FileRow]) -> None:
        with self._env.begin(db=self._files, write=True) as txn:
            for number, row in files.items():
                txn.put(struct.pack(">I", number), _FILE_ROW.pack(*row[:6]) + row.entries)
            txn.put(_SAVED_KEY, _SAVED.pack(_MAGIC, _VERSION, generation))
        self._env.sync(True)

    def load(self, generation: int) -> dict[int, FileRow] | None:
        with self._env.begin(db=self._files, write=True) as txn:
            if txn.get(_SAVED_KEY) != _SAVED.pack(_MAGIC, _VERSION, generation):
                return None
            files = {}
            for key, packed in txn.cursor():
                if key != _SAVED_KEY:
                    size, end, records, live, dead, sealed = _FILE_ROW.unpack_from(packed)
                    entries = bytes(packed[_FILE_ROW.size :])
                    files[struct.unpack(">I", key)[0]] = FileRow(size, end, records, live, dead, bool(sealed), entries)
            txn.drop(self._files, delete=False)
        return files

    def close(self) -> None:
        self._env.close()


def _unpack_entry(packed: bytes) -> Entry:
    number, offset, payload_bytes, checksum, damaged = _ENTRY.unpack(packed)
    return Entry(number, offset, payload_bytes, checksum, bool(damaged))
