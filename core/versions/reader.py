"""Reading the version store: a lineage as of an epoch, through all its ancestors.

`VersionReader` needs no more than read access, so it also serves read transactions. It remembers lineage records: use
one reader per transaction or overlay, and make a new one after the tables changed behind its back. An `Ancestry` that
is handed to many readers saves each of them the walk through its lineages.

A look-up goes up from lineage to lineage until one of them has the object. Three things keep that short where there
are many: an inode number that is greater than all those inherited ends it at once; the holdings table says which
ancestors have anything of an inode, so that only these are asked (`_having`); and what is asked about once is all in
one inode, names in a folder as well as slots of a file.

Failures: `NotFound` for a lineage that does not exist. Reading an epoch that is neither pinned nor the head gives no
defined answer; the caller resolves names to (lineage, epoch) and holds the pin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from typing import Final

from redfs.core.errors import InvalidArgument, NotFound
from redfs.core.ids import Epoch, Ino, Lineage
from redfs.core.kv import ReadKv
from redfs.core.records import Kind
from redfs.core.versions.ancestry import Ancestor, Ancestry
from redfs.core.versions.layout import (
    AFTER_VERSIONS,
    BIRTHS,
    HOLDINGS,
    INO_BYTES,
    LINEAGES,
    MAX_U64,
    OBJECT_BYTES,
    PINS,
    VERSIONS,
    Holder,
    LineageRecord,
    birth_start,
    dropping_end,
    dropping_key,
    dropping_start,
    held_end,
    held_epoch,
    held_start,
    holding_key,
    holding_lineage,
    inverted,
    parse_birth,
    parse_held,
    u64,
    unpack_lineage,
)

SKIPPED_ROWS_MAX: Final = 8
"""Rows of one object that a scan steps over before it seeks past them: a step costs about a tenth of a seek."""

CACHED_LINES_MAX: Final = 4096
"""Lineage records that one reader remembers (some 500 bytes each): far more than one transaction meets."""

PATIENCE: Final = 8
"""Questions to the holdings table before a look-up wants to see that they pay: that they pass over more ancestors than
they are. A folder that every generation changed is found faster by asking each of them."""

_KINDS: Final = tuple([bytes((kind,)) for kind in range(len(OBJECT_BYTES) + 1)])
"""A kind as the byte in a key, and one for the end of the last."""
_AFTER_INODE: Final = b"\xff" * max(OBJECT_BYTES)
"""Appended to an inode's number: after all its objects."""


class Line:
    """A lineage's record and what is derived from it, ready for building keys."""

    __slots__ = (
        "_find_pin", "_newest_pin", "ancestor", "births_prefix", "ino_max", "inverted_head", "lineage", "prefixes",
        "record",
    )  # fmt: skip

    def __init__(self, lineage: int, record: LineageRecord, ancestor: Ancestor, find_pin: Callable[[int], int]) -> None:
        self.lineage = lineage
        self.ancestor = ancestor
        self._newest_pin: int | None = None
        self._find_pin = find_pin
        self.prefixes = tuple([ancestor.key + kind for kind in _KINDS])
        """The start of the version keys of each kind."""
        self.set_record(record)

    @property
    def newest_pin(self) -> int:
        """Newest pin with a holder; 0 = none. Reads do not need it: it is looked up when it is asked for."""
        if self._newest_pin is None:
            self._newest_pin = self._find_pin(self.lineage)
        return self._newest_pin

    @newest_pin.setter
    def newest_pin(self, epoch: int) -> None:
        self._newest_pin = epoch

    def set_record(self, record: LineageRecord) -> None:
        self.record = record
        self.ino_max = u64(record.ino_max)
        self.inverted_head = inverted(record.head_epoch)
        self.births_prefix = self.ancestor.key + u64(record.head_epoch)


class VersionReader:
    """Reads versions, pins and lineages over a `ReadKv`."""

    def __init__(self, kv: ReadKv, ancestry: Ancestry | None = None, *, committed: bool = True) -> None:
        """`ancestry` is shared with other readers; it learns from this one only if all that `kv` shows is committed."""
        self._read = kv
        self._ancestry = ancestry if ancestry is not None else Ancestry()
        self._committed = committed
        self._lines: dict[int, Line] = {}

    # -- lineages and pins

    def _line(self, lineage: int) -> Line:
        line = self._lines.get(lineage)
        if line is None:
            record = self._record(lineage)
            if len(self._lines) >= CACHED_LINES_MAX:
                self._lines.clear()
            line = self._lines[lineage] = Line(lineage, record, self._ancestor(lineage, record), self._newest_pin)
        return line

    def _record(self, lineage: int) -> LineageRecord:
        row = self._read.get(LINEAGES, u64(lineage))
        if row is None:
            raise NotFound(f"lineage {lineage} does not exist")
        return unpack_lineage(row)

    def _ancestor(self, lineage: int, record: LineageRecord) -> Ancestor:
        """The lineage as an ancestor, with all of its own: from memory as far as they are known."""
        found = self._ancestry.find(lineage)
        below: list[tuple[int, LineageRecord]] = []
        while found is None:
            below.append((lineage, record))
            lineage = record.parent
            if not lineage:
                break
            found = self._ancestry.find(lineage)
            if found is None:
                record = self._record(lineage)
        for number, own in reversed(below):
            found = Ancestor(number, own, found)
            if self._committed:
                self._ancestry.keep(found)
        assert found is not None
        return found

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
        depth = 1
        ancestor = self._line(lineage).ancestor
        while ancestor.above is not None:
            ancestor = ancestor.above
            depth += 1
        return depth

    def holders(self, lineage: int, epoch: int) -> list[Holder]:
        """The holders of a pin; none where it is not there or is being dropped."""
        rows = self._read.scan(PINS, held_start(lineage, epoch), held_start(lineage, epoch + 1))
        return [parse_held(key)[1] for key, _ in rows]

    def is_held_once(self, lineage: int, epoch: int) -> bool:
        """Whether a pin has exactly one holder. Two seeks, also where thousands of clones hold it."""
        start, end = held_start(lineage, epoch), held_start(lineage, epoch + 1)
        first = self._read.first(PINS, start, end)
        return first is not None and self._read.last(PINS, start, end) == first

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
        """The record of `obj` as of (lineage, epoch), or None. One seek, and two for each ancestor that has to be asked
        because it has something of the inode."""
        line = self._lines.get(lineage) or self._line(lineage)
        base = line.prefixes[kind] + obj
        row = self._read.first(VERSIONS, base + inverted(epoch), base + AFTER_VERSIONS)
        if row is not None:
            return row[1] or None
        return self._inherited(line, kind, obj)

    def _inherited(self, line: Line, kind: int, obj: bytes) -> bytes | None:
        """What the lineage's ancestors show of `obj`. Never changes while the lineage is there: the fork is pinned."""
        ino = obj[:INO_BYTES]
        if ino > line.ancestor.inherited_ino_max:
            return None
        first = self._read.first
        tail = _KINDS[kind] + obj
        for ancestor, seen in self._having(line.ancestor, ino):
            base = ancestor.key + tail
            row = first(VERSIONS, base + seen, base + AFTER_VERSIONS)
            if row is not None:
                return row[1] or None
        return None

    def _having(self, below: Ancestor, ino: bytes) -> Iterator[tuple[Ancestor, bytes]]:
        """Ancestors that may have something of an inode (8 bytes), nearest first, and the end of the newest keys seen.

        Where many of one family lie ahead, the holdings table is asked which is the next one to have something of the
        inode. It names lineages outside of this line too (another clone's): then the next one here that is older has
        its turn, whatever it has. Numbers fall from child to parent, so no step goes back.
        """
        asked = passed = 0
        while below.above is not None and ino <= below.inherited_ino_max:
            above = below.above
            if above.run > self._ancestry.direct_max and (asked < PATIENCE or passed > asked):
                first = holding_key(above.family, ino, 0)
                row = self._read.last(HOLDINGS, first, holding_key(above.family, ino, above.lineage + 1))
                asked += 1
                holder = 0 if row is None else holding_lineage(row[0])
                if holder < above.lineage:
                    run = above.run
                    below = below.last_younger(holder)
                    assert below.above is not None
                    above = below.above
                    passed += run - above.run
            yield above, below.seen
            below = above

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
        line = self._line(lineage)
        levels = [self._level(line.ancestor, 0, inverted(epoch), kind, start, end)]
        for ancestor, seen, upto in self._inherited_levels(line.ancestor, start, end):
            levels.append(self._level(ancestor, len(levels), seen, kind, start, upto))
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

    def _inherited_levels(
        self, below: Ancestor, start: bytes, end: bytes | None
    ) -> Iterator[tuple[Ancestor, bytes, bytes | None]]:
        """The ancestors that a scan of [start, end) has to look at, with the end of it there."""
        ino = start[:INO_BYTES]
        if end is not None and len(ino) == INO_BYTES and end <= u64(min(int.from_bytes(ino) + 1, MAX_U64)):
            for ancestor, seen in self._having(below, ino):
                yield ancestor, seen, end
            return
        while below.above is not None and ino <= below.inherited_ino_max:
            upto = below.inherited_ino_max + _AFTER_INODE
            yield below.above, below.seen, upto if end is None else min(end, upto)
            below = below.above

    def _level(
        self, ancestor: Ancestor, level: int, wanted: bytes, kind: int, start: bytes, end: bytes | None
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(object, level, value or tombstone) of one lineage up to the keys' end `wanted`: own versions only, one for
        each object."""
        prefix = ancestor.key + _KINDS[kind]
        low = _bound(prefix, start, kind)
        high = ancestor.key + _KINDS[kind + 1] if end is None else _bound(prefix, end, kind)
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
