"""Reading the version store: a lineage as of an epoch, through all its ancestors.

`VersionReader` needs no more than read access, so it also serves read transactions. It remembers lineage records: use
one reader per transaction or overlay, and make a new one after the tables changed behind its back.

Failures: `NotFound` for a lineage that does not exist. Reading an epoch that is neither pinned nor the head gives no
defined answer; the caller resolves names to (lineage, epoch) and holds the pin.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Final

from redfs.core.errors import InvalidArgument, NotFound
from redfs.core.ids import Epoch, Ino, Lineage
from redfs.core.kv import ReadKv
from redfs.core.records import Kind
from redfs.core.versions.layout import (
    AFTER_VERSIONS,
    BIRTHS,
    LINEAGES,
    OBJECT_BYTES,
    PINS,
    VERSIONS,
    Holder,
    LineageRecord,
    birth_key,
    birth_start,
    dropping_end,
    dropping_key,
    dropping_start,
    held_end,
    held_epoch,
    held_start,
    inverted,
    parse_birth,
    parse_held,
    u64,
    unpack_lineage,
    version_prefix,
)

SKIPPED_ROWS_MAX: Final = 8
"""Rows of one object that a scan steps over before it seeks past them: a step costs about a tenth of a seek."""

CACHED_LINES_MAX: Final = 4096
"""Lineage records that one reader remembers (some 500 bytes each): far more than one transaction meets."""


class Line:
    """A lineage's record and what is derived from it, ready for building keys."""

    __slots__ = ("births_prefix", "inverted_head", "lineage", "newest_pin", "prefixes", "record")

    def __init__(self, lineage: int, record: LineageRecord, newest_pin: int) -> None:
        self.lineage = lineage
        self.newest_pin = newest_pin
        """Newest pin with a holder; 0 = none."""
        self.prefixes = tuple(version_prefix(lineage, kind) for kind in range(len(OBJECT_BYTES)))
        self.set_record(record)

    def set_record(self, record: LineageRecord) -> None:
        self.record = record
        self.inverted_head = inverted(record.head_epoch)
        self.births_prefix = birth_key(self.lineage, record.head_epoch, b"")


class VersionReader:
    """Reads versions, pins and lineages over a `ReadKv`."""

    def __init__(self, kv: ReadKv) -> None:
        self._read = kv
        self._lines: dict[int, Line] = {}

    # -- lineages and pins

    def _line(self, lineage: int) -> Line:
        line = self._lines.get(lineage)
        if line is None:
            row = self._read.get(LINEAGES, u64(lineage))
            if row is None:
                raise NotFound(f"lineage {lineage} does not exist")
            if len(self._lines) >= CACHED_LINES_MAX:
                self._lines.clear()
            line = self._lines[lineage] = Line(lineage, unpack_lineage(row), self._newest_pin(lineage))
        return line

    def _newest_pin(self, lineage: int) -> int:
        return self._held_before(lineage, None)

    def _held_before(self, lineage: int, epoch: int | None) -> int:
        """The newest held pin before `epoch` (None: of all); 0 = none."""
        end = held_end(lineage) if epoch is None else held_start(lineage, epoch)
        row = self._read.last(PINS, held_start(lineage), end)
        return 0 if row is None else held_epoch(row[0])

    def _held_after(self, lineage: int, epoch: int) -> int:
        """The oldest held pin after `epoch`; 0 = none."""
        row = self._read.first(PINS, held_start(lineage, epoch + 1), held_end(lineage))
        return 0 if row is None else held_epoch(row[0])

    def exists(self, lineage: int) -> bool:
        """Whether the lineage is there; one without head and pins goes away when its last reclaim step is done."""
        return lineage in self._lines or self._read.get(LINEAGES, u64(lineage)) is not None

    def lineage(self, lineage: int) -> LineageRecord:
        """The lineage's record. NotFound."""
        return self._line(lineage).record

    def lineages(self) -> Iterator[tuple[Lineage, LineageRecord]]:
        """All lineages in the order of their numbers."""
        for key, row in self._read.scan(LINEAGES, b"", AFTER_VERSIONS):
            yield Lineage(int.from_bytes(key)), unpack_lineage(row)

    def head_epoch(self, lineage: int) -> Epoch:
        """The epoch at which the lineage's head reads and writes. NotFound."""
        return self._line(lineage).record.head_epoch

    def newest_pin(self, lineage: int) -> int:
        """The newest held pin; 0 = none. NotFound."""
        return self._line(lineage).newest_pin

    def neighbours(self, lineage: int, epoch: int) -> tuple[int, int]:
        """The held pins next before and after an epoch; 0 = none."""
        return self._held_before(lineage, epoch), self._held_after(lineage, epoch)

    def depth(self, lineage: int) -> int:
        """How many lineages a read of this one may have to look at: 1 without a parent. NotFound."""
        depth = 0
        while lineage:
            lineage = self._line(lineage).record.parent
            depth += 1
        return depth

    def holders(self, lineage: int, epoch: int) -> list[Holder]:
        """The holders of a pin; none where it is not there or is being dropped."""
        rows = self._read.scan(PINS, held_start(lineage, epoch), held_start(lineage, epoch + 1))
        return [parse_held(key)[1] for key, _ in rows]

    def pins(self, lineage: int) -> list[Epoch]:
        """The pins with holders, oldest first."""
        found: list[Epoch] = []
        after = 0
        while after := self._held_after(lineage, after):
            found.append(Epoch(after))
        return found

    def dropping_pins(self, lineage: int) -> list[Epoch]:
        """The pins without holders, oldest first: each waits for `reclaim_pin_step`."""
        rows = self._read.scan(PINS, dropping_start(lineage), dropping_end(lineage))
        return [Epoch(int.from_bytes(key[9:17])) for key, _ in rows]

    def is_dropping(self, lineage: int, epoch: int) -> bool:
        """Whether the pin has lost its last holder and is not reclaimed yet."""
        return self._read.get(PINS, dropping_key(lineage, epoch)) is not None

    # -- records

    def get(self, lineage: int, epoch: int, kind: int, obj: bytes) -> bytes | None:
        """The record of `obj` as of (lineage, epoch), or None. One seek for each generation until it is found."""
        first = self._read.first
        lines = self._lines
        while True:
            line = lines.get(lineage) or self._line(lineage)
            base = line.prefixes[kind] + obj
            row = first(VERSIONS, base + inverted(epoch), base + AFTER_VERSIONS)
            if row is not None:
                return row[1] or None
            record = line.record
            if not record.parent:
                return None
            lineage, epoch = record.parent, record.fork_epoch

    def _inherited(self, line: Line, kind: int, obj: bytes) -> bytes | None:
        """What the lineage's ancestors show of `obj`. Never changes while the lineage is there: the fork is pinned."""
        record = line.record
        return self.get(record.parent, record.fork_epoch, kind, obj) if record.parent else None

    def scan(
        self, lineage: int, epoch: int, kind: int, start: bytes, end: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` (object, record) with start <= object < end as of (lineage, epoch), in object order.

        `end` None means to the end of the kind. To go on, pass the last object + b"\\0" as the next start. A long run
        of deleted objects is stepped over without a bound: `scan_page` bounds that too.
        """
        return self.scan_page(lineage, epoch, kind, start, end, limit, None)[0]

    def scan_page(
        self,
        lineage: int,
        epoch: int,
        kind: int,
        start: bytes,
        end: bytes | None,
        limit: int,
        examined_max: int | None,
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Like `scan`, and looks at no more than `examined_max` objects, deleted ones included.

        Returns the records and where to go on: None once the range is at its end.
        """
        if limit < 1 or (examined_max is not None and examined_max < 1):
            raise InvalidArgument("a scan needs room for at least one object")
        levels: list[Iterator[tuple[bytes, int, bytes]]] = []
        while lineage:
            line = self._line(lineage)
            levels.append(self._level(line, len(levels), epoch, kind, start, end))
            lineage, epoch = line.record.parent, line.record.fork_epoch
        # The nearest generation comes first among equal objects; (object, level) is unique, values are not compared.
        rows = levels[0] if len(levels) == 1 else merge(*levels)
        found: list[tuple[bytes, bytes]] = []
        examined = 0
        last: bytes | None = None
        for obj, _level, value in rows:
            if obj == last:
                continue
            last = obj
            examined += 1
            if value:
                found.append((obj, value))
                if len(found) >= limit:
                    return found, obj + b"\0"
            if examined == examined_max:
                return found, obj + b"\0"
        return found, None

    def _level(
        self, line: Line, level: int, epoch: int, kind: int, start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(object, level, value or tombstone) of one lineage as of `epoch`: own versions only, one for each object."""
        prefix = line.prefixes[kind]
        low = _bound(prefix, start, kind)
        high = version_prefix(line.lineage, kind + 1) if end is None else _bound(prefix, end, kind)
        wanted = inverted(epoch)
        object_at = len(prefix)
        last: bytes | None = None
        while True:
            skipped = 0
            for key, value in self._read.scan(VERSIONS, low, high):
                obj = key[object_at:-8]
                if obj == last:
                    low = prefix + obj + AFTER_VERSIONS
                elif key[-8:] < wanted:
                    low = prefix + obj + wanted
                else:
                    last = obj
                    skipped = 0
                    yield obj, level, value
                    continue
                skipped += 1
                if skipped > SKIPPED_ROWS_MAX:
                    break
            else:
                return

    # -- differences

    def born_between(self, lineage: int, after: int, upto: int) -> Iterator[tuple[Epoch, Ino]]:
        """(epoch, inode) of all inodes with own versions born in (after, upto], in that order.

        Between two pins of one lineage these are all inodes that can differ: a deletion is a version too. The tables
        must not change while iterating.
        """
        for key, _ in self._read.scan(BIRTHS, birth_start(lineage, after + 1), birth_start(lineage, upto + 1)):
            _lineage, epoch, ino = parse_birth(key)
            yield Epoch(epoch), Ino(ino)


def check_object(kind: int, obj: bytes) -> None:
    """InvalidArgument where `obj` is not an object of `kind`: it would be taken for another one's key."""
    if not Kind.ROOT <= kind <= Kind.ORPHAN or len(obj) != OBJECT_BYTES[kind]:
        raise InvalidArgument(f"{len(obj)} bytes are no object of kind {kind}")


def _bound(prefix: bytes, obj: bytes, kind: int) -> bytes:
    """Where the versions of objects >= `obj` begin; `obj` may be shorter (a prefix) or longer (a successor)."""
    size = OBJECT_BYTES[kind]
    return prefix + obj if len(obj) <= size else prefix + obj[:size] + AFTER_VERSIONS
