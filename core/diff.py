"""What changed between two points of one volume family: created, deleted, modified and renamed paths.

Works through the candidates of `core/versions/changes.py` in the order of their inode numbers and compares the records
of each as of both points. An inode's record leads to its name and its folder's record to that one's, so a path costs a
few look-ups and folders without changes are never listed. Names belong to an inode: a name that leads to another inode
than before was deleted and created; an inode that lost names and gained some was renamed, pair by pair in the order of
the paths, and what is left over was deleted or created. A renamed folder is one entry; what lies below it keeps its
names and is none. A path is that of the later point, of deleted names and of what a renamed one was, the earlier one's.

- *content*: other bytes, size or link target. Blocks are compared by fingerprint, so equal data written again is none,
  while data that was cut into blocks in another way is, and so is a hole that was filled with zeros.
- *attributes*: mode, owner, extended attributes, and of all but folders the time of modification. A folder's time says
  only that names in it changed, which are entries of their own.

Files with several names, or whose record leads nowhere, are put aside and looked for in the changed entries of all
changed folders, and only where that names none of a file that changed, in all entries. Each name that came or went is
an entry; what else changed is told at the renamed names and at those that the records lead to, not at each name.

Reads in steps that the caller may make in different states of the tables, as long as pins hold both points. Memory has
bounds whatever the size of the change. Raises `InvalidArgument` for points without a common ancestor, `Corrupt` where
records contradict each other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple

from redfs.core.errors import Corrupt
from redfs.core.ids import ROOT_INO
from redfs.core.kv import ReadKv
from redfs.core.namespace.rename import MAX_FOLDER_DEPTH
from redfs.core.records import (
    INODE_HAS_XATTRS,
    SLOT_BYTES,
    DirBucket,
    Inode,
    Kind,
    decode_bucket,
    decode_inode,
    decode_slot,
    dirent_key,
    generation_of,
    inode_key,
    object_ino,
    slot_key,
    split_slot_object,
)
from redfs.core.slots import resolve, slot_count
from redfs.core.tables import BLOCKS, decode_block, u64_key
from redfs.core.versions.ancestry import Ancestry
from redfs.core.versions.changes import Candidate, ChangedObjects, Window, candidates, windows_between
from redfs.core.versions.layout import Pin
from redfs.core.versions.reader import VersionReader

STEP_ROWS = 20_000
"""Rows read in one step, about: a tenth of a second of a read transaction."""
STEP_ENTRIES = 1000
"""Entries of one step: a message of some hundred KiB."""
CANDIDATES = 4096
"""Candidates looked up together: some hundred bytes each."""
PAGE = 256
"""Objects of one candidate looked up together."""
CACHED_FOLDERS = 4096
"""Folders of each point whose paths are remembered."""
MAX_ASIDE = 16_384
"""Files with several names that are looked for together; more take another pass over the changed folders."""
MAX_NAMES_HELD = 200_000
"""Names that came or went of those files, held to be paired; what is beyond is told as created and deleted."""


class Entry(NamedTuple):
    """One changed path; the fields are those of DiffEntry in cluster.proto."""

    change: str
    """created, deleted, modified or renamed."""
    path: bytes
    new_path: bytes
    kind: str
    """file, folder, symlink or special."""
    content: bool
    attributes: bool
    before_bytes: int
    after_bytes: int


Name = tuple[bytes, bytes]
"""(DIRENT object that holds the entry, name)."""
Steps = Iterator[Entry | None]
"""Entries as they are found, and None where nothing was found but the caller may end a step."""


class _Aside(NamedTuple):
    """A file whose names are looked for."""

    candidate: Candidate
    before: Inode | None
    after: Inode | None
    lost: list[Name]
    gained: list[Name]


class _Point:
    """One side: where it is in the version store, and the paths of folders that were met."""

    def __init__(self, pin: Pin) -> None:
        self.pin = pin
        self.folders: OrderedDict[int, bytes] = OrderedDict()


class Diff:
    """The comparison of two points. `step` until it returns None."""

    def __init__(self, before: Pin, after: Pin, ancestry: Ancestry | None = None) -> None:
        self._ancestry = ancestry
        self._before = _Point(before)
        self._after = _Point(after)
        self._kv: _Counted
        self._reader: VersionReader
        self._aside: dict[int, _Aside] = {}
        self._names_held = 0
        self._work: Iterator[Entry | None] = self._all()
        self.rows = 0
        """Rows read so far."""

    def step(self, kv: ReadKv) -> list[Entry] | None:
        """More entries, perhaps none of them, from this state of the tables; None after the last."""
        self._kv = _Counted(kv)
        self._reader = VersionReader(self._kv, self._ancestry)
        found: list[Entry] = []
        try:
            while self._kv.rows < STEP_ROWS and len(found) < STEP_ENTRIES:
                entry = next(self._work)
                if entry is not None:
                    found.append(entry)
        except StopIteration:
            return found or None
        finally:
            self.rows += self._kv.rows
        return found

    # ------------------------------------------------------------ candidate by candidate

    def _all(self) -> Steps:
        windows = windows_between(self._reader, self._before.pin, self._after.pin)
        for candidate in self._candidates(windows):
            if candidate is not None:
                yield from self._compare(candidate)
            yield None
            if len(self._aside) >= MAX_ASIDE:
                yield from self._find_aside(windows)
        yield from self._find_aside(windows)

    def _candidates(self, windows: list[Window]) -> Iterator[Candidate | None]:
        """All of them, and None between the pages."""
        after, complete = 0, False
        while not complete:
            page, complete = candidates(self._kv, windows, after, CANDIDATES)
            yield from page
            after = page[-1].ino if page else after
            yield None

    def _compare(self, candidate: Candidate) -> Steps:
        ino = candidate.ino
        before, after = self._inode(self._before, ino), self._inode(self._after, ino)
        old, new = self._only_name(self._before, ino, before), self._only_name(self._after, ino, after)
        if (before is not None and old is None) or (after is not None and new is None):
            self._aside[ino] = _Aside(candidate, before, after, [], [])
            return
        if before is None or after is None:
            if new is not None:
                yield self._created(new, after)
            elif old is not None:
                yield self._deleted(old, before)
            return
        assert old is not None
        assert new is not None
        content, attributes = yield from self._differences(candidate, before, after)
        if old != new:
            yield self._renamed(old, new, before, after, content, attributes)
        elif content or attributes:
            yield self._modified(new, before, after, content, attributes)

    def _inode(self, point: _Point, ino: int) -> Inode | None:
        """The inode as of the point; None where it has no name there."""
        raw = self._get(point, Kind.INODE, inode_key(ino).obj)
        inode = None if raw is None else decode_inode(raw)
        return inode if inode is not None and inode.nlink else None

    def _only_name(self, point: _Point, ino: int, inode: Inode | None) -> Name | None:
        """The one name that an inode has; None where there are several or its record does not lead to it."""
        if inode is None or (inode.nlink > 1 and not S_ISDIR(inode.mode)):
            return None
        return self._known_name(point, ino, inode)

    def _known_name(self, point: _Point, ino: int, inode: Inode) -> Name | None:
        """The name that the record leads to."""
        obj = dirent_key(inode.parent, inode.name_hash).obj
        if ino == ROOT_INO:
            return obj, b""
        for entry in self._bucket(point, obj):
            if entry.ino == ino:
                return obj, entry.name
        return None

    # ------------------------------------------------------------ files with several names

    def _find_aside(self, windows: list[Window]) -> Steps:
        """Tells what became of the files that were put aside."""
        if not self._aside:
            return
        for candidate in self._candidates(windows):
            if candidate is not None:
                yield from self._changed_names(candidate)
            yield None
        nameless: dict[int, tuple[_Aside, bool, bool]] = {}
        for ino, aside in self._aside.items():
            yield from self._tell(ino, aside, nameless)
            yield None
        self._aside = {}
        self._names_held = 0
        yield from self._find_nameless(nameless)

    def _changed_names(self, candidate: Candidate) -> Steps:
        """Notes the names of files put aside that came or went in one folder."""
        walk = ChangedObjects(candidate)
        start: bytes | None = b""
        # So that the walk can end early: the inode's own record was born too.
        walk.page(self._kv, Kind.INODE, 1)
        while start is not None:
            objects, start = walk.page(self._kv, Kind.DIRENT, PAGE, start)
            for obj in objects:
                yield from self._changed_bucket(obj)
            yield None

    def _changed_bucket(self, obj: bytes) -> Steps:
        was = {(e.name, e.ino) for e in self._bucket(self._before, obj)}
        now = {(e.name, e.ino) for e in self._bucket(self._after, obj)}
        for names, gained in ((was - now, False), (now - was, True)):
            for name, ino in sorted(names):
                aside = self._aside.get(ino)
                if aside is None:
                    continue
                if self._names_held < MAX_NAMES_HELD:
                    self._names_held += 1
                    (aside.gained if gained else aside.lost).append((obj, name))
                elif gained:
                    yield self._created((obj, name), aside.after)
                else:
                    yield self._deleted((obj, name), aside.before)

    def _tell(self, ino: int, aside: _Aside, nameless: dict[int, tuple[_Aside, bool, bool]]) -> Steps:
        candidate, before, after, lost, gained = aside
        content = attributes = False
        if before is not None and after is not None:
            content, attributes = yield from self._differences(candidate, before, after)
        lost.sort(key=lambda name: self._path(self._before, name))
        gained.sort(key=lambda name: self._path(self._after, name))
        pairs = min(len(lost), len(gained))
        if before is not None and after is not None:
            for old, new in zip(lost, gained, strict=False):
                yield self._renamed(old, new, before, after, content, attributes)
        for name in lost[pairs:]:
            yield self._deleted(name, before)
        for name in gained[pairs:]:
            yield self._created(name, after)
        if before is None or after is None or not (content or attributes):
            return
        kept = {
            name
            for name in (self._known_name(self._before, ino, before), self._known_name(self._after, ino, after))
            if name is not None and name not in lost and name not in gained and self._is_kept(ino, name)
        }
        for name in sorted(kept, key=lambda name: self._path(self._after, name)):
            yield self._modified(name, before, after, content, attributes)
        if not kept and not pairs and before.nlink > len(lost):
            nameless[ino] = (aside, content, attributes)

    def _is_kept(self, ino: int, name: Name) -> bool:
        """Whether the name leads to the inode at both points."""
        obj, word = name
        return all(
            any(entry.ino == ino and entry.name == word for entry in self._bucket(point, obj))
            for point in (self._before, self._after)
        )

    def _find_nameless(self, nameless: dict[int, tuple[_Aside, bool, bool]]) -> Steps:
        """Looks through all entries for one name of each file that changed and whose names are not known."""
        start: bytes | None = b""
        while nameless and start is not None:
            lineage, epoch = self._after.pin
            buckets, start = self._reader.scan_page(lineage, epoch, Kind.DIRENT, start, None, PAGE, PAGE)
            for obj, raw in buckets:
                for entry in decode_bucket(raw):
                    if entry.ino not in nameless:
                        continue
                    if any(e.ino == entry.ino and e.name == entry.name for e in self._bucket(self._before, obj)):
                        aside, content, attributes = nameless.pop(entry.ino)
                        assert aside.before is not None
                        assert aside.after is not None
                        yield self._modified((obj, entry.name), aside.before, aside.after, content, attributes)
            yield None

    # ------------------------------------------------------------ what differs in one inode

    def _differences(
        self, candidate: Candidate, before: Inode, after: Inode
    ) -> Generator[Entry | None, None, tuple[bool, bool]]:
        """(content, attributes)."""
        walk = ChangedObjects(candidate)
        walk.page(self._kv, Kind.INODE, 1)
        content = yield from self._content_differs(walk, candidate.ino, before, after)
        attributes = (before.mode, before.uid, before.gid) != (after.mode, after.uid, after.gid)
        if not S_ISDIR(after.mode):
            attributes = attributes or before.mtime_ns != after.mtime_ns
        if not attributes and (before.flags | after.flags) & INODE_HAS_XATTRS:
            attributes = yield from self._any_differs(walk, Kind.XATTR)
        return content, attributes

    def _any_differs(self, walk: ChangedObjects, kind: int) -> Generator[Entry | None, None, bool]:
        start: bytes | None = b""
        while start is not None:
            objects, start = walk.page(self._kv, kind, PAGE, start)
            for obj in objects:
                if self._get(self._before, kind, obj) != self._get(self._after, kind, obj):
                    return True
            yield None
        return False

    def _content_differs(
        self, walk: ChangedObjects, ino: int, before: Inode, after: Inode
    ) -> Generator[Entry | None, None, bool]:
        if S_ISLNK(after.mode):
            return before.symlink != after.symlink
        if not S_ISREG(after.mode):
            return before.rdev != after.rdev
        if before.size != after.size:
            return True
        if not after.size:
            return False
        if before.generations == after.generations:
            return (yield from self._slots_differ(walk, after))
        firsts = {first for inode in (before, after) for first, _ in inode.generations}
        bounds = sorted(first for first in firsts if first < slot_count(after.size))
        for first, end in zip(bounds, [*bounds[1:], slot_count(after.size)], strict=True):
            old, new = generation_of(before.generations, first), generation_of(after.generations, first)
            if (yield from self._ranges_differ(ino, old, new, first, end)):
                return True
        return False

    def _slots_differ(self, walk: ChangedObjects, inode: Inode) -> Generator[Entry | None, None, bool]:
        """Whether any slot that was written between the points differs; both keep them under the same generations."""
        start: bytes | None = b""
        while start is not None:
            objects, start = walk.page(self._kv, Kind.SLOT, PAGE, start)
            for obj in objects:
                _, generation, slot = split_slot_object(obj)
                if generation_of(inode.generations, slot) != generation or slot >= slot_count(inode.size):
                    continue
                old, new = (self._get(point, Kind.SLOT, obj) for point in (self._before, self._after))
                if not self._is_same_slot(old, new):
                    return True
            yield None
        return False

    def _ranges_differ(self, ino: int, old: int, new: int, first: int, end: int) -> Generator[Entry | None, None, bool]:
        """Whether the slots [first, end), kept under one generation each, differ."""
        while first < end:
            was, was_upto = self._slots(self._before, ino, old, first, end)
            now, now_upto = self._slots(self._after, ino, new, first, end)
            upto = min(was_upto, now_upto)
            for slot in sorted(was.keys() | now.keys()):
                if slot < upto and not self._is_same_slot(was.get(slot), now.get(slot)):
                    return True
            first = upto
            yield None
        return False

    def _slots(self, point: _Point, ino: int, generation: int, first: int, end: int) -> tuple[dict[int, bytes], int]:
        """(records by slot, slot up to which those are all)."""
        low, high = slot_key(ino, generation, first).obj, slot_key(ino, generation, end).obj
        found, more = self._reader.scan_page(*point.pin, Kind.SLOT, low, high, PAGE, PAGE)
        upto = end if more is None else split_slot_object(more[:20])[2] + 1
        return {split_slot_object(obj)[2]: raw for obj, raw in found}, upto

    def _is_same_slot(self, old: bytes | None, new: bytes | None) -> bool:
        if old == new:
            return True
        if old is None or new is None:
            return False
        was, now = resolve(decode_slot(old), 0, SLOT_BYTES), resolve(decode_slot(new), 0, SLOT_BYTES)
        i = j = at = 0
        while at < SLOT_BYTES:
            a, b = was[i], now[j]
            if bool(a.block) != bool(b.block):
                return False
            if a.block:
                if a.block_offset + at - a.offset != b.block_offset + at - b.offset:
                    return False
                if a.block != b.block and self._fingerprint(a.block) != self._fingerprint(b.block):
                    return False
            at = min(a.offset + a.length, b.offset + b.length)
            i += a.offset + a.length == at
            j += b.offset + b.length == at
        return True

    def _fingerprint(self, block: int) -> bytes:
        raw = self._kv.get(BLOCKS, u64_key(block))
        if raw is None:
            raise Corrupt(f"block {block:#x} is named by a slot and has no row: run `redfs check`")
        return decode_block(raw).fingerprint

    # ------------------------------------------------------------ records and paths

    def _get(self, point: _Point, kind: int, obj: bytes) -> bytes | None:
        lineage, epoch = point.pin
        return self._reader.get(lineage, epoch, kind, obj)

    def _bucket(self, point: _Point, obj: bytes) -> DirBucket:
        raw = self._get(point, Kind.DIRENT, obj)
        return () if raw is None else decode_bucket(raw)

    def _path(self, point: _Point, name: Name) -> bytes:
        """From the top, without a leading slash; the top folder's is empty."""
        folder, word = object_ino(name[0]), name[1]
        above: list[tuple[int, bytes]] = []
        path = b""
        while folder != ROOT_INO:
            known = point.folders.get(folder)
            if known is not None:
                point.folders.move_to_end(folder)
                path = known
                break
            inode = self._inode(point, folder)
            place = None if inode is None else self._known_name(point, folder, inode)
            if place is None or len(above) >= MAX_FOLDER_DEPTH:
                raise Corrupt(f"folder {folder} has no path: the metadata is damaged, run `redfs check`")
            above.append((folder, place[1]))
            folder = object_ino(place[0])
        for ino, part in reversed(above):
            path = path + b"/" + part if path else part
            point.folders[ino] = path
            if len(point.folders) > CACHED_FOLDERS:
                point.folders.popitem(last=False)
        return path + b"/" + word if path else word

    def _created(self, name: Name, inode: Inode | None) -> Entry:
        path = self._path(self._after, name)
        return Entry("created", path, b"", _kind(inode), False, False, 0, _bytes(inode))

    def _deleted(self, name: Name, inode: Inode | None) -> Entry:
        path = self._path(self._before, name)
        return Entry("deleted", path, b"", _kind(inode), False, False, _bytes(inode), 0)

    def _modified(self, name: Name, before: Inode, after: Inode, content: bool, attributes: bool) -> Entry:
        path = self._path(self._after, name)
        return Entry("modified", path, b"", _kind(after), content, attributes, _bytes(before), _bytes(after))

    def _renamed(self, old: Name, new: Name, before: Inode, after: Inode, content: bool, attributes: bool) -> Entry:
        paths = self._path(self._before, old), self._path(self._after, new)
        return Entry("renamed", *paths, _kind(after), content, attributes, _bytes(before), _bytes(after))


def _kind(inode: Inode | None) -> str:
    if inode is None or S_ISREG(inode.mode):
        return "file"
    return "folder" if S_ISDIR(inode.mode) else "symlink" if S_ISLNK(inode.mode) else "special"


def _bytes(inode: Inode | None) -> int:
    return 0 if inode is None or S_ISDIR(inode.mode) else inode.size


class _Counted:
    """A `ReadKv` that counts the rows it hands out."""

    def __init__(self, kv: ReadKv) -> None:
        self._below = kv
        self.rows = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        self.rows += 1
        return self._below.get(table, key)

    def first(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        self.rows += 1
        return self._below.first(table, start, end)

    def last(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        self.rows += 1
        return self._below.last(table, start, end)

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for row in self._below.scan(table, start, end):
            self.rows += 1
            yield row
