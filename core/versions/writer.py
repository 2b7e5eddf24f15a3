"""Writing the version store: records at a head, lineages, pins.

Words: a pin is *held* while it has holders and *dropping* from then until its reclaim is done. A version is born at the
epoch of its write and dies at the epoch of the write that supersedes it. Every visibility is decided by held pins and
heads alone.

Invariants, proved from scratch by `verify`:
- While a lineage has its head, the newest version of an object is alive, and every older one is on the deadlist once,
  at a death after its birth and not after the next version's birth, with no held pin from that death on to that birth.
- A version on the deadlist is seen by a held pin in [birth, death), or a dropping pin's reclaim has it still ahead.
- A birth row counts the versions of one inode born at one epoch; none counts zero.
- A living tombstone hides something: an older version of its own lineage or a record of an ancestor.
- A holdings row counts the birth rows of one inode in one lineage that was forked inside of its family; none counts
  zero. No inode in a lineage is greater than the lineage's `ino_max`.

Failures: `NotFound` (lineage, pin or holder), `AlreadyExists`, `NotAllowed` (a head that was dropped) and
`InvalidArgument`, all before anything is written; `InternalError` where the tables contradict themselves: drop the
overlay then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from redfs.core.errors import AlreadyExists, InternalError, InvalidArgument, NotAllowed, NotFound
from redfs.core.ids import FIRST_EPOCH, Epoch, Lineage
from redfs.core.kv import Kv
from redfs.core.records import Kind
from redfs.core.versions.ancestry import Ancestry
from redfs.core.versions.layout import (
    AFTER_VERSIONS,
    BIRTHS,
    DEADLIST,
    HOLDINGS,
    INO_BYTES,
    LINEAGES,
    PINS,
    PRESENT,
    TOMBSTONE,
    VERSIONS,
    Holder,
    HolderType,
    LineageRecord,
    birth_key,
    birth_of,
    dead_key,
    dropping_key,
    held_key,
    held_start,
    holding_key,
    pack_birth,
    pack_lineage,
    u64,
    unpack_birth,
)
from redfs.core.versions.reader import Line, VersionReader, check_object
from redfs.core.versions.weights import ALIVE, Ledger, Weigh, no_weight

OnFreed = Callable[[int, bytes, bytes], None]
"""Called with (kind, object, record) for every record that leaves the tables, exactly once. Must not touch them."""

_SLOT: Final = int(Kind.SLOT)
"""The only kind that weighs something (see `weights`)."""
_ONE_BIRTH = pack_birth(1)


class VersionWriter(VersionReader):
    """A reader that also writes. The only writer of the version store's tables while it is used."""

    def __init__(self, kv: Kv, on_freed: OnFreed, weigh: Weigh = no_weight, ancestry: Ancestry | None = None) -> None:
        super().__init__(kv, ancestry, committed=False)
        self._kv = kv
        self._on_freed = on_freed
        self._ledger = Ledger(kv, weigh)

    def flush(self) -> None:
        """Writes the weights that changed. To be called before the overlay is applied, and before they are read."""
        self._ledger.flush()

    # -- lineages

    def create_lineage(self, lineage: int, family: int) -> None:
        """Makes an empty lineage without a parent. AlreadyExists."""
        self._create(lineage, LineageRecord(Lineage(0), Epoch(0), FIRST_EPOCH, True, False, family, False, 0, 0))

    def fork(self, parent: int, parent_epoch: int, child: int, family: int) -> None:
        """Makes `child` see the held pin (parent, parent_epoch) and go on from there; the pin gets a FORK holder.

        To fork a head, pin it first: `pin_head(parent, Holder(FORK, child))`. A child has a greater number than its
        parent: look-ups rely on it. O(1). NotFound, AlreadyExists, InvalidArgument.
        """
        self._require_held(parent, parent_epoch)
        if child <= parent:
            raise InvalidArgument(f"lineage {child} cannot come of {parent}: numbers grow from parent to child")
        above = self._line(parent).record
        indexed = above.family == family
        inos = above.ino_max
        record = LineageRecord(
            Lineage(parent), Epoch(parent_epoch), FIRST_EPOCH, True, False, family, indexed, inos, inos
        )
        self._create(child, record)
        self._ledger.forked(parent, parent_epoch, child)
        self._kv.put(PINS, held_key(parent, parent_epoch, Holder(HolderType.FORK, child)), PRESENT)

    def _create(self, lineage: int, record: LineageRecord) -> None:
        if lineage < 1:
            raise InvalidArgument(f"{lineage} is no number for a lineage")
        if self.exists(lineage):
            raise AlreadyExists(f"lineage {lineage} exists already")
        self._kv.put(LINEAGES, u64(lineage), pack_lineage(record))

    def _set_record(self, line: Line, record: LineageRecord) -> None:
        line.set_record(record)
        self._kv.put(LINEAGES, u64(line.lineage), pack_lineage(record))

    def drop_head(self, lineage: int) -> None:
        """Ends the head: it is never read or written again, and `reclaim_head_step` frees what only it saw. O(1)."""
        line = self._writable(lineage)
        self._set_record(line, line.record._replace(has_head=False, tail_pending=True))
        self._ledger.head_dropped(lineage)

    # -- pins

    def pin_head(self, lineage: int, holder: Holder) -> Epoch:
        """Freezes the head as it is for `holder` and moves it on by an epoch; returns the frozen one. O(1)."""
        line = self._writable(lineage)
        epoch = line.record.head_epoch
        self._kv.put(PINS, held_key(lineage, epoch, holder), PRESENT)
        line.newest_pin = epoch
        self._ledger.pinned(lineage, epoch)
        self._set_record(line, line.record._replace(head_epoch=Epoch(epoch + 1)))
        return epoch

    def add_holder(self, lineage: int, epoch: int, holder: Holder) -> None:
        """Adds a holder to a held pin; one that is there already stays. NotFound where the pin is dropping or gone."""
        self._require_held(lineage, epoch)
        self._kv.put(PINS, held_key(lineage, epoch, holder), PRESENT)

    def release(self, lineage: int, epoch: int, holder: Holder) -> bool:
        """Takes a holder away. True where it was the last: nobody sees the pin any more, `reclaim_pin_step` drops it.

        One look-up for each held pin behind it. NotFound where the pin has no such holder.
        """
        key = held_key(lineage, epoch, holder)
        if self._kv.get(PINS, key) is None:
            raise NotFound(f"pin {lineage}/{epoch} is not held by {holder.type.name.lower()} {holder.id}")
        self._kv.delete(PINS, key)
        if self._is_held(lineage, epoch):
            return False
        self._kv.put(PINS, dropping_key(lineage, epoch), u64(epoch + 1))
        line = self._line(lineage)
        if line.newest_pin == epoch:
            line.newest_pin = self._newest_pin(lineage)
        before, after = self.neighbours(lineage, epoch)
        self._ledger.released(lineage, epoch, before, self._held_from(lineage, after))
        return True

    def _held_from(self, lineage: int, epoch: int) -> Iterator[int]:
        """The held pins from `epoch`, which is one or 0, on."""
        while epoch:
            yield epoch
            epoch = self._held_after(lineage, epoch)

    def _is_held(self, lineage: int, epoch: int) -> bool:
        return self._kv.first(PINS, held_start(lineage, epoch), held_start(lineage, epoch + 1)) is not None

    def _require_held(self, lineage: int, epoch: int) -> None:
        if not self._is_held(lineage, epoch):
            raise NotFound(f"pin {lineage}/{epoch} does not exist or is being dropped")

    # -- records

    def _writable(self, lineage: int) -> Line:
        line = self._lines.get(lineage) or self._line(lineage)
        if not line.record.has_head:
            raise NotAllowed(f"lineage {lineage} has no head any more")
        return line

    def put(self, lineage: int, kind: int, obj: bytes, value: bytes) -> None:
        """Sets the record of `obj` at the head. One seek and two or three writes; for a slot in a clone a look-up
        of what it inherits."""
        if not value:
            raise InvalidArgument("a record is never empty")
        check_object(kind, obj)
        line = self._writable(lineage)
        kv = self._kv
        base = line.prefixes[kind] + obj
        key = base + line.inverted_head
        row = kv.first(VERSIONS, base, base + AFTER_VERSIONS)
        if row is not None:
            old_key, old = row
            if old_key == key:
                # Born at this epoch, so no pin sees it; the one before it died when it was written.
                kv.put(VERSIONS, key, value)
                if kind == _SLOT:
                    self._weigh_born(line, value, old)
                    self._ledger.add(lineage, line.newest_pin, ALIVE, self._ledger.weigh(old), -1)
                if old:
                    self._on_freed(kind, obj, old)
                return
            self._supersede(line, kind, obj, old_key, old)
        if kind == _SLOT:
            self._weigh_born(line, value, self._inherited(line, kind, obj) if row is None else row[1])
        kv.put(VERSIONS, key, value)
        self._count_birth(line, obj)
        if obj[:INO_BYTES] > line.ino_max:
            self._set_record(line, line.record._replace(ino_max=int.from_bytes(obj[:INO_BYTES])))

    def _weigh_born(self, line: Line, value: bytes, hidden: bytes | None) -> None:
        """The head shows `value` from now on, in the place of `hidden`."""
        ledger = self._ledger
        weight = ledger.weigh(value)
        ledger.add(line.lineage, line.newest_pin, ALIVE, weight)
        ledger.show(line.lineage, weight if not hidden else weight.plus(ledger.weigh(hidden), -1))

    def delete(self, lineage: int, kind: int, obj: bytes) -> None:
        """Removes `obj` at the head; leaves a tombstone where an older version or an ancestor would show through."""
        check_object(kind, obj)
        line = self._writable(lineage)
        kv = self._kv
        base = line.prefixes[kind] + obj
        key = base + line.inverted_head
        row = kv.first(VERSIONS, base, base + AFTER_VERSIONS)
        older = None
        shown: bytes | None = None
        if row is not None:
            old_key, old = row
            if not old:
                return
            shown = old
            if old_key == key or not self._seen_by_pin(line, old_key):
                older = kv.first(VERSIONS, old_key + b"\0", base + AFTER_VERSIONS)
                self._remove(line, kind, obj, old_key, old)
            else:
                older = row
                self._supersede(line, kind, obj, old_key, old)
        inherited = self._inherited(line, kind, obj) if older is None else None
        if kind == _SLOT:
            hidden = shown or inherited
            if hidden:
                self._ledger.show(lineage, self._ledger.weigh(hidden), -1)
        if older is not None or inherited is not None:
            kv.put(VERSIONS, key, TOMBSTONE)
            self._count_birth(line, obj)

    @staticmethod
    def _seen_by_pin(line: Line, version_key: bytes) -> bool:
        # All pins are older than the head, so one at or after the birth is there exactly if the newest is.
        return line.newest_pin >= birth_of(version_key)

    def _supersede(self, line: Line, kind: int, obj: bytes, old_key: bytes, old: bytes) -> None:
        """The version at `old_key`, alive until now and born before the head's epoch, dies at it."""
        if self._seen_by_pin(line, old_key):
            birth = birth_of(old_key)
            self._kv.put(DEADLIST, dead_key(line.lineage, line.record.head_epoch, birth, kind, obj), PRESENT)
            if kind == _SLOT:
                self._weigh_moved(line, birth, old, ALIVE, line.newest_pin)
        else:
            self._remove(line, kind, obj, old_key, old)

    def _weigh_moved(self, line: Line, birth: int, value: bytes, died_before: int, died: int) -> None:
        """A version's death came into another interval."""
        ledger = self._ledger
        weight = ledger.weigh(value)
        born = self._interval(line, birth)
        ledger.add(line.lineage, born, died_before, weight, -1)
        ledger.add(line.lineage, born, died, weight)

    def _interval(self, line: Line, epoch: int) -> int:
        """The interval that an epoch lies in: the newest held pin before it."""
        return line.newest_pin if epoch > line.newest_pin else self._held_before(line.lineage, epoch)

    def _remove(self, line: Line, kind: int, obj: bytes, key: bytes, value: bytes, *, dead: bool = False) -> None:
        """Takes a version out of the tables (its deadlist row, if any, is the caller's) and reports it.

        `dead`: it has one, and nobody sees it: it was born and died in one interval.
        """
        lineage, birth = line.lineage, birth_of(key)
        if kind == _SLOT:
            born = self._interval(line, birth)
            self._ledger.add(lineage, born, born if dead else ALIVE, self._ledger.weigh(value), -1)
        self._kv.delete(VERSIONS, key)
        births = birth_key(lineage, birth, obj[:INO_BYTES])
        row = self._kv.get(BIRTHS, births)
        if row is None:
            raise InternalError(f"a version of lineage {lineage} at epoch {birth} has no birth row")
        count, resume = unpack_birth(row)
        if count > 1:
            self._kv.put(BIRTHS, births, pack_birth(count - 1, resume))
        else:
            self._kv.delete(BIRTHS, births)
            self._count_holding(line, obj[:INO_BYTES], -1)
        if value:
            self._on_freed(kind, obj, value)

    def _count_birth(self, line: Line, obj: bytes) -> None:
        ino = obj[:INO_BYTES]
        key = line.births_prefix + ino
        row = self._kv.get(BIRTHS, key)
        self._kv.put(BIRTHS, key, _ONE_BIRTH if row is None else pack_birth(unpack_birth(row)[0] + 1))
        if row is None:
            self._count_holding(line, ino, 1)

    def _count_holding(self, line: Line, ino: bytes, change: int) -> None:
        """A birth row of the inode came or went."""
        if not line.record.indexed:
            return
        key = holding_key(line.record.family, ino, line.lineage)
        row = self._kv.get(HOLDINGS, key)
        count = (0 if row is None else int.from_bytes(row)) + change
        if count < 0:
            raise InternalError(f"lineage {line.lineage} has a birth row that its holdings do not count")
        if count:
            self._kv.put(HOLDINGS, key, u64(count))
        else:
            self._kv.delete(HOLDINGS, key)
