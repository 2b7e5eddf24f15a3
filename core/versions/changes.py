"""What may differ between two points of the version store, found by what was born between them.

Two points have a *common lineage*: the first one that both see. What one of them shows and the other does not was born
in a lineage below it on either side, or in the common one between the two epochs; a deletion leaves a tombstone, which
is born too. These ranges are the *windows*. The birth index says which inodes were born in them, so finding the
candidates costs what changed and not what is there. A candidate need not differ: what was changed back is one too.

Both points must be held by pins for as long as their windows are used. Everything here reads over one state of the
tables and keeps no place in them: to go on in another one, pass what the last call returned. Raises `InvalidArgument`
for points without a common lineage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from typing import NamedTuple

from redfs.core.errors import InvalidArgument
from redfs.core.ids import Ino
from redfs.core.kv import ReadKv
from redfs.core.versions.layout import (
    AFTER_VERSIONS,
    BIRTHS,
    OBJECT_BYTES,
    VERSIONS,
    Pin,
    birth_key,
    birth_of,
    birth_start,
    inverted,
    parse_birth,
    u64,
    unpack_birth,
    version_prefix,
)
from redfs.core.versions.reader import SKIPPED_ROWS_MAX, VersionReader

EXAMINED_MAX = 2048
"""Rows of one lineage that a page of changed objects steps over before it gives the caller its turn."""


class Window(NamedTuple):
    """Versions of one lineage that were born after one epoch and up to another."""

    lineage: int
    after: int
    upto: int


class Candidate(NamedTuple):
    """An inode of which something was born between the points."""

    ino: Ino
    windows: tuple[Window, ...]
    """Those that it was born in."""
    births: int
    """Versions of it that were born there, of all kinds together."""


def windows_between(reader: VersionReader, before: Pin, after: Pin) -> list[Window]:
    """Where what differs between the two points was born. InvalidArgument where they have no common ancestor.

    The zero volume is every family's ancestor and holds nothing, so it counts for none.
    """
    if reader.lineage(before.lineage).family != reader.lineage(after.lineage).family:
        raise InvalidArgument("the two have no common ancestor but the zero volume, which holds nothing")
    above = dict(_ancestors(reader, before))
    found: list[Window] = []
    for lineage, epoch in _ancestors(reader, after):
        if lineage in above:
            common = above[lineage]
            below = []
            for other, upto in above.items():
                if other == lineage:
                    break
                below.append(Window(other, 0, upto))
            found += below
            if common != epoch:
                found.append(Window(lineage, min(common, epoch), max(common, epoch)))
            return found
        found.append(Window(lineage, 0, epoch))
    raise InvalidArgument("the two have no common ancestor: nothing leads from one to the other")


def sees(reader: VersionReader, point: Pin, ancestor: Pin) -> bool:
    """Whether one point goes on from another."""
    return any(lineage == ancestor.lineage and epoch >= ancestor.epoch for lineage, epoch in _ancestors(reader, point))


def _ancestors(reader: VersionReader, point: Pin) -> Iterator[tuple[int, int]]:
    """(lineage, epoch) of the point and of all that it sees below, nearest first."""
    lineage, epoch = int(point.lineage), int(point.epoch)
    while lineage:
        yield lineage, epoch
        record = reader.lineage(lineage)
        lineage, epoch = record.parent, record.fork_epoch


class _Born:
    """What is known of one inode while the windows are gone through."""

    __slots__ = ("births", "windows")

    def __init__(self) -> None:
        self.births = 0
        self.windows: list[int] = []


def candidates(kv: ReadKv, windows: Sequence[Window], after: int, limit: int) -> tuple[list[Candidate], bool]:
    """Up to `limit` candidates with inode numbers above `after`, in their order, and whether those were all.

    Needs room for twice as many, however many epochs the windows span; takes a seek or two for each epoch in them.
    """
    found: dict[int, _Born] = {}
    highest: int | None = None
    first = u64(after + 1)
    for index, (lineage, epoch, upto) in enumerate(windows):
        end = birth_start(lineage, upto + 1)
        epoch += 1
        while epoch <= upto:
            row = kv.first(BIRTHS, birth_key(lineage, epoch, first), end)
            if row is None:
                break
            at = parse_birth(row[0])[1]
            if at != epoch:
                epoch = at
                continue
            for key, value in kv.scan(BIRTHS, row[0], birth_start(lineage, epoch + 1)):
                ino = parse_birth(key)[2]
                if highest is not None and ino > highest:
                    break
                born = found.get(ino)
                if born is None:
                    born = found[ino] = _Born()
                born.births += unpack_birth(value)[0]
                if not born.windows or born.windows[-1] != index:
                    born.windows.append(index)
                if len(found) > 2 * limit:
                    highest = sorted(found)[limit - 1]
                    found = {number: known for number, known in found.items() if number <= highest}
                    if ino >= highest:
                        break
            epoch += 1
    inos = sorted(found)
    complete = highest is None and len(inos) <= limit
    page = [
        Candidate(Ino(ino), tuple([windows[index] for index in found[ino].windows]), found[ino].births)
        for ino in inos[:limit]
    ]
    return page, complete


class ChangedObjects:
    """Walks the objects of one candidate that were born in its windows, kind by kind, page by page.

    Ends early once it has met as many versions as the birth index counts: a file of which only the inode record changed
    is not searched for slots.
    """

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self._left = candidate.births

    def page(
        self, kv: ReadKv, kind: int, limit: int, start: bytes = b"", end: bytes | None = None
    ) -> tuple[list[bytes], bytes | None]:
        """Up to `limit` objects of the kind with start <= object < end, in order, and where to go on (None: nowhere).

        No object is to be asked for twice. A page may be empty and not the last.
        """
        if self._left <= 0:
            return [], None
        ino = self._candidate.ino
        start = start or u64(ino)
        end = u64(ino + 1) if end is None else end
        levels = [self._born_in(kv, window, kind, start, end) for window in self._candidate.windows]
        found: list[bytes] = []
        last: bytes | None = None
        for obj, born in levels[0] if len(levels) == 1 else merge(*levels):
            if obj == last:
                continue
            if not born or len(found) >= limit:
                return found, obj
            found.append(obj)
            last = obj
            # What a level has taken up and not handed over, this object among it, is not counted yet.
            if self._left <= 1:
                self._left = 0
                break
        return found, None

    def _born_in(self, kv: ReadKv, window: Window, kind: int, start: bytes, end: bytes) -> Iterator[tuple[bytes, bool]]:
        """(object, True) for each with a version in the window; (object, False), the last one, after too many rows."""
        lineage, after, upto = window
        prefix = version_prefix(lineage, kind)
        low, high = prefix + start[: OBJECT_BYTES[kind]], prefix + end
        newest = inverted(upto)
        examined = 0
        current = b""
        decided = False
        while True:
            skipped = 0
            for key, _ in kv.scan(VERSIONS, low, high):
                obj = key[len(prefix) : -8]
                examined += 1
                if obj != current:
                    if current and examined > EXAMINED_MAX:
                        yield obj, False
                        return
                    current, decided, skipped = obj, False, 0
                if decided:
                    # An older version.
                    self._left -= birth_of(key) > after
                    low = prefix + obj + AFTER_VERSIONS
                elif key[-8:] < newest:
                    low = prefix + obj + newest
                else:
                    decided = True
                    if birth_of(key) > after:
                        yield obj, True
                        self._left -= 1
                    continue
                skipped += 1
                if skipped > SKIPPED_ROWS_MAX:
                    break
            else:
                return
