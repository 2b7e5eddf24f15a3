"""The volume's records as this client sees them: the namespace engine's view in exclusive mode.

All records come through here: fetched ones, and on top of them those written here and not acknowledged yet. Since the
mount holds the volume's exclusive delegation, whatever is known stays true, also that something does not exist. So a
fetched record never replaces one that is known: what is known is at least as new.

Folders (and the attributes of an inode) are known in part: single names that were asked for, and one range of hashes
that was listed. In that range a name that is not there is known not to exist; a folder that was listed to its end
answers every lookup.

Memory is bounded: records live in two generations, and when the young one is full the old one is dropped but for what
was used since. Records of unacknowledged writes (`dirty`) are never dropped.

Fails as the session's calls do (LeaseLapsed, Unavailable). Ordering and sending writes is left to `write_log` and
`committer`, file data to `write_buffer`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from sortedcontainers import SortedList

from redfs.client.fs.config import FsConfig, Session
from redfs.core.errors import InternalError
from redfs.core.namespace import FolderPage, Miss, Outcome
from redfs.core.records import (
    MAX_NAME_HASH,
    ROOT_KEY,
    DirBucket,
    Key,
    Kind,
    Record,
    Slot,
    VolumeRoot,
    XattrBucket,
    decode,
    decode_slot,
    inode_key,
    object_ino,
    slot_key,
    split_dirent_object,
    split_slot_object,
)
from redfs.proto.gen import cluster_pb2 as pb

T = TypeVar("T")
P = ParamSpec("P")

MAX_ROUNDS = 64
"""Fetches before one operation is given up: each brings at least one record, and none needs more than a few."""
ROWS_PER_CALL = 1000
"""Keys of one GetRows: a reply of some 200 KiB."""
PAGES_PER_MISS = 4
"""Pages fetched for one name that is not known, before it is asked for by itself."""

_INO_HASH = struct.Struct(">QQ")
_split = _INO_HASH.unpack
_DIRENT: Final = int(Kind.DIRENT)
_XATTR: Final = int(Kind.XATTR)
_GROUPED: Final = (_DIRENT, _XATTR)
_ROOT: Final = int(Kind.ROOT)
_SLOT: Final = int(Kind.SLOT)


class _Unknown:
    """Marks what the cache does not hold, as None means that a record does not exist."""


_UNKNOWN: Final = _Unknown()


class Group:
    """What is known of one folder's entries, or of one inode's attributes."""

    __slots__ = ("buckets", "high", "low", "order", "pins", "used")

    def __init__(self) -> None:
        self.buckets: dict[int, Any] = {}
        self.low = -1
        self.high = -1
        """Every bucket with low < hash <= high is in `buckets`, or does not exist."""
        self.order: SortedList | None = None
        """The hashes in `buckets`, made at the first listing."""
        self.pins = 0
        """Fetches in flight: the group must stay, as it holds what is newer than their answers."""
        self.used = 0

    @property
    def complete(self) -> bool:
        return self.low < 0 and self.high >= MAX_NAME_HASH

    def put(self, bucket_hash: int, bucket: Any) -> None:
        if bucket_hash not in self.buckets and self.order is not None:
            self.order.add(bucket_hash)
        self.buckets[bucket_hash] = bucket

    def sorted(self) -> SortedList:
        if self.order is None:
            self.order = SortedList(self.buckets)
        return self.order


class Metadata:
    """See the module. Belongs to one event loop; the view's methods never wait."""

    def __init__(self, session: Session, volume_id: int, root: VolumeRoot, config: FsConfig) -> None:
        self.volume_id = volume_id
        self.dirty: dict[Key, object] = {}
        """Key -> the pending commit that holds its newest value. Written by the write log."""
        self._session = session
        self._root = root
        self._config = config
        self._young: dict[Key, Record | None] = {}
        self._old: dict[Key, Record | None] = {}
        self._folders: dict[int, Group] = {}
        self._xattrs: dict[int, Group] = {}
        self._inserted = 0
        self._rotations = 0
        self._flights: dict[tuple[object, ...], asyncio.Task[None]] = {}

    # ------------------------------------------------------------ the view

    def get(self, key: Key) -> Record | None:
        found = self._find(key)
        if found is _UNKNOWN:
            raise Miss(keys=(key,))
        return cast("Record | None", found)

    def get_many(self, keys: Sequence[Key]) -> list[Record | None]:
        find = self._find
        found = [find(key) for key in keys]
        if _UNKNOWN in found:
            raise Miss(keys=[key for key, record in zip(keys, found, strict=True) if record is _UNKNOWN])
        return found

    def peek(self, key: Key) -> Record | None:
        found = self._find(key)
        return None if found is _UNKNOWN else cast("Record | None", found)

    def knows(self, key: Key) -> bool:
        return self._find(key) is not _UNKNOWN

    def folder(self, ino: int, after_hash: int | None, limit: int) -> list[tuple[int, DirBucket]]:
        group = self._folders.get(ino)
        after = -1 if after_hash is None else after_hash
        if group is None or not group.low <= after <= group.high:
            raise Miss(folders=(FolderPage(ino, after_hash, limit),))
        group.used = self._rotations
        out: list[tuple[int, DirBucket]] = []
        for bucket_hash in group.sorted().irange(after + 1, group.high):
            bucket = group.buckets[bucket_hash]
            if bucket:
                out.append((bucket_hash, bucket))
                if len(out) >= limit:
                    return out
        if group.high < MAX_NAME_HASH:
            raise Miss(folders=(FolderPage(ino, after_hash, limit),))
        return out

    def xattrs(self, ino: int) -> list[tuple[int, XattrBucket]]:
        group = self._xattrs.get(ino)
        if group is None or not group.complete:
            raise Miss(xattrs_of=(ino,))
        group.used = self._rotations
        return [(h, group.buckets[h]) for h in group.sorted() if group.buckets[h]]

    def children(self, ino: int) -> list[tuple[int, int]]:
        """(name hash, inode) of the entries of a folder that happen to be known, in no order."""
        group = self._folders.get(ino)
        if group is None:
            return []
        return [(h, entry.ino) for h, bucket in group.buckets.items() if bucket for entry in bucket]

    def _find(self, key: Key) -> Any:
        kind = key[0]
        if kind in _GROUPED:
            ino, bucket_hash = _split(key[1])
            group = (self._folders if kind == _DIRENT else self._xattrs).get(ino)
            if group is None:
                return _UNKNOWN
            group.used = self._rotations
            bucket = group.buckets.get(bucket_hash, _UNKNOWN)
            if bucket is _UNKNOWN and group.low < bucket_hash <= group.high:
                return None
            return bucket
        if kind == _ROOT:
            return self._root if key == ROOT_KEY else None
        record = self._young.get(key, _UNKNOWN)
        if record is _UNKNOWN:
            record = self._old.pop(key, _UNKNOWN)
            if record is not _UNKNOWN:
                self._young[key] = cast("Record | None", record)
        return record

    # ------------------------------------------------------------ writing

    def apply(self, writes: Mapping[Key, Record | None]) -> None:
        """Makes a write-set visible here. Keeping it in order and sending it is the write log's."""
        young = self._young
        for key, record in writes.items():
            kind = key[0]
            if kind in _GROUPED:
                ino, bucket_hash = _split(key[1])
                self._group(kind, ino).put(bucket_hash, record)
            else:
                young[key] = record
        self._grown(len(writes))

    def folder_is_new(self, ino: int) -> None:
        """The folder was made here just now: all that it will hold is known."""
        group = self._group(_DIRENT, ino)
        group.low, group.high = -1, MAX_NAME_HASH

    def inode_is_new(self, ino: int) -> None:
        """The inode was made here just now: it has no attributes yet."""
        group = self._group(_XATTR, ino)
        group.low, group.high = -1, MAX_NAME_HASH

    def replace_blocks(self, keys: Iterable[Key], stored: Mapping[int, int]) -> None:
        """Puts other block ids into the slots at `keys`, where they name a block of `stored`."""
        for key in keys:
            slot: Any = self.peek(key)
            if slot:
                changed = with_blocks(slot, stored)
                if changed is not slot:
                    self._young[key] = changed

    def _group(self, kind: int, ino: int) -> Group:
        groups = self._folders if kind == _DIRENT else self._xattrs
        group = groups.get(ino)
        if group is None:
            group = groups[ino] = Group()
            group.used = self._rotations
        return group

    def _grown(self, records: int) -> None:
        self._inserted += records
        if self._inserted > self._config.cached_records // 2:
            self._rotate()

    def _rotate(self) -> None:
        """Drops what was not used since the last rotation, unless it is dirty."""
        self._inserted = 0
        self._rotations += 1
        dropped, self._old, self._young = self._old, self._young, {}
        dirty_groups: set[tuple[int, int]] = set()
        for key in self.dirty:
            kind = key[0]
            if kind in _GROUPED:
                dirty_groups.add((kind, object_ino(key[1])))
            elif key in dropped and key not in self._old:
                self._young[key] = dropped[key]
        for kind, groups in ((_DIRENT, self._folders), (_XATTR, self._xattrs)):
            stale = [
                ino
                for ino, group in groups.items()
                if group.used < self._rotations - 1 and not group.pins and (kind, ino) not in dirty_groups
            ]
            for ino in stale:
                del groups[ino]

    def forget(self, key: Key) -> None:
        """Drops one record, unless it is dirty."""
        if key not in self.dirty:
            self._young.pop(key, None)
            self._old.pop(key, None)

    def forget_clean(self) -> None:
        """Drops everything that is not dirty: for memory, and where somebody else changes the volume."""
        self._rotate()
        self._rotate()
        self._rotate()

    @property
    def cached_records(self) -> int:
        """Records held now."""
        groups = (*self._folders.values(), *self._xattrs.values())
        return len(self._young) + len(self._old) + sum(len(group.buckets) for group in groups)

    # ------------------------------------------------------------ fetching

    async def run(
        self, operation: Callable[Concatenate[Any, P], Outcome[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Outcome[T]:
        """Runs an operation of the engine on this view, fetching what it lacks. Its write-set is not applied yet.

        Nothing else runs between the operation's reads and the return, so apply the write-set before the next await.
        """
        for _ in range(MAX_ROUNDS):
            try:
                return operation(self, *args, **kwargs)
            except Miss as miss:
                await self.fetch(miss)
        raise InternalError(f"an operation still lacks records after {MAX_ROUNDS} fetches")

    async def fetch(self, miss: Miss) -> None:
        """Fetches all that a Miss names. Safe to repeat."""
        jobs: list[Awaitable[None]] = []
        keys: list[Key] = []
        paged: set[int] = set()
        for page in miss.folders:
            paged.add(page.ino)
            after = -1 if page.after_hash is None else page.after_hash
            jobs.append(self._single(("folder", page.ino), self._fetch_page, page.ino, after))
        for ino in miss.xattrs_of:
            jobs.append(self._single(("xattrs", ino), self._fetch_xattrs, ino))
        for key in miss.keys:
            if key[0] != _DIRENT:
                keys.append(key)
                continue
            ino, bucket_hash = split_dirent_object(key[1])
            if ino in paged:
                continue
            if self._worth_listing(ino):
                paged.add(ino)
                jobs.append(self._single(("folder", ino), self._fetch_whole, ino, bucket_hash))
            else:
                keys.append(key)
        for start in range(0, len(keys), ROWS_PER_CALL):
            jobs.append(self._fetch_rows(keys[start : start + ROWS_PER_CALL]))
        if len(jobs) == 1:
            await jobs[0]
        else:
            await asyncio.gather(*jobs)

    async def fetch_slots(self, ino: int, generation: int, first: int, count: int) -> pb.ReadSlotsReply:
        """Fetches the slots [first, first + count) of a generation; returns the reply, for the blocks' places."""
        rotations = self._rotations
        reply: pb.ReadSlotsReply = await self._session.call(
            read_slots=pb.ReadSlots(volume_id=self.volume_id, ino=ino, generation=generation, first=first, count=count)
        )
        if self._rotations - rotations < 2:
            found = {Key(_SLOT, row.obj): row.value for row in reply.rows}
            for slot in range(first, first + count):
                key = slot_key(ino, generation, slot)
                self._learn(key, found.get(key, b""))
        return reply

    async def scan_slots(
        self, ino: int, generation: int, first: int, end: int, limit: int
    ) -> tuple[list[tuple[int, Slot]], bool]:
        """The slots in [first, end) of one generation that are no holes, up to `limit` (at most 4096), in order; and
        whether those were all. Of what the coordinator has: nothing written here is looked at, and nothing is kept."""
        reply: pb.ScanRowsReply = await self._session.call(
            scan_rows=pb.ScanRows(
                volume_id=self.volume_id,
                kind=_SLOT,
                start=slot_key(ino, generation, first).obj,
                end=slot_key(ino, generation, end).obj,
                limit=limit,
            )
        )
        return [(split_slot_object(row.obj)[2], decode_slot(row.value)) for row in reply.rows], reply.complete

    def _worth_listing(self, ino: int) -> bool:
        group = self._folders.get(ino)
        if group is not None and group.low >= 0:
            return False
        inode: Any = self.peek(inode_key(ino))
        if inode is None:
            return group is None or group.high < 0
        return bool(inode.size <= self._config.whole_folder_entries)

    async def _single(self, name: tuple[object, ...], fetch: Callable[..., Awaitable[None]], *args: object) -> None:
        """Runs a fetch, or waits for the one of that name that is under way: then the caller looks again."""
        flight = self._flights.get(name)
        if flight is None:

            async def go() -> None:
                await fetch(*args)

            flight = self._flights[name] = asyncio.ensure_future(go())
            flight.add_done_callback(lambda _: self._flights.pop(name, None))
        await asyncio.shield(flight)

    async def _fetch_rows(self, keys: Sequence[Key]) -> None:
        while True:
            rotations = self._rotations
            wanted = [pb.Key(kind=key.kind, obj=key.obj) for key in keys]
            groups = [self._group(k.kind, object_ino(k.obj)) for k in keys if k.kind in _GROUPED]
            for group in groups:
                group.pins += 1
            try:
                reply = await self._session.call(get_rows=pb.GetRows(volume_id=self.volume_id, keys=wanted))
            finally:
                for group in groups:
                    group.pins -= 1
            if self._rotations - rotations < 2:
                for row in reply.rows:
                    self._learn(Key(row.kind, row.obj), row.value)
                return

    async def _fetch_whole(self, ino: int, wanted_hash: int) -> None:
        """Lists a folder from its start until `wanted_hash` is known or PAGES_PER_MISS pages are read."""
        for _ in range(PAGES_PER_MISS):
            group = self._folders.get(ino)
            if group is not None and group.high >= wanted_hash:
                return
            await self._fetch_page(ino, -1 if group is None else group.high)

    async def _fetch_page(self, ino: int, after: int) -> None:
        """Fetches the page of a folder behind the hash `after`, with the inodes that it names."""
        group = self._group(_DIRENT, ino)
        if not group.low <= after <= group.high:
            group.low = group.high = after
        start = b"" if group.high < 0 else _INO_HASH.pack(ino, group.high)
        rotations = self._rotations
        group.pins += 1
        try:
            reply = await self._session.call(
                read_folder=pb.ReadFolder(
                    volume_id=self.volume_id, ino=ino, after=start, limit=self._config.folder_page_buckets
                )
            )
        finally:
            group.pins -= 1
        keep_inodes = self._rotations - rotations < 2
        for row in reply.rows:
            if row.kind == _DIRENT:
                bucket_hash = _split(row.obj)[1]
                if bucket_hash not in group.buckets:
                    group.put(bucket_hash, decode(_DIRENT, row.value))
                    self._inserted += 1
            elif keep_inodes:
                self._learn(Key(row.kind, row.obj), row.value)
        if reply.complete:
            group.high = MAX_NAME_HASH
        elif reply.last:
            group.high = max(group.high, _split(reply.last)[1])
        else:
            raise InternalError("a page of a folder brought nothing and is not its end")
        self._trim(ino, group)

    async def _fetch_xattrs(self, ino: int) -> None:
        group = self._group(_XATTR, ino)
        start, end = _INO_HASH.pack(ino, 0), _INO_HASH.pack(ino + 1, 0)
        group.pins += 1
        try:
            while True:
                reply = await self._session.call(
                    scan_rows=pb.ScanRows(
                        volume_id=self.volume_id, kind=_XATTR, start=start, end=end, limit=ROWS_PER_CALL
                    )
                )
                for row in reply.rows:
                    bucket_hash = _split(row.obj)[1]
                    if bucket_hash not in group.buckets:
                        group.put(bucket_hash, decode(_XATTR, row.value))
                if reply.complete or not reply.rows:
                    break
                start = reply.rows[-1].obj + b"\0"
        finally:
            group.pins -= 1
        group.low, group.high = -1, MAX_NAME_HASH

    def _trim(self, ino: int, group: Group) -> None:
        """Of a long folder keeps the window that was listed last."""
        most = self._config.folder_cached_buckets
        if len(group.buckets) <= most:
            return
        order = group.sorted()
        surplus = list(order[: len(order) - most // 2])
        for bucket_hash in surplus:
            if Key(_DIRENT, _INO_HASH.pack(ino, bucket_hash)) not in self.dirty:
                del group.buckets[bucket_hash]
        group.order = None
        group.low = max(group.low, min(surplus[-1], group.high))

    def _learn(self, key: Key, value: bytes) -> None:
        """Takes over a fetched record, unless one is known, which is newer."""
        if self._find(key) is not _UNKNOWN:
            return
        record = decode(key.kind, value) if value else None
        if key.kind in _GROUPED:
            ino, bucket_hash = _split(key.obj)
            self._group(key.kind, ino).put(bucket_hash, record)
        else:
            self._young[key] = record
        self._grown(1)


def with_blocks(slot: Any, stored: Mapping[int, int]) -> Any:
    """The slot with block ids replaced; the very same object where none is named."""
    if not any(piece.block in stored for piece in slot):
        return slot
    return tuple([piece._replace(block=stored.get(piece.block, piece.block)) for piece in slot])
