"""Who is charged for what: the weight of each lineage's versions, by which of its pins and head see them.

A version weighs what the caller says: for a slot the plain bytes that it refers to, and what they take when stored; all
other kinds weigh nothing. Weights are kept with every write, so that reading them costs a few look-ups.

The held pins of a lineage cut its epochs into intervals; each is named by the pin that it begins after, 0 where there
is none. A version that was born in interval i and died in interval j is seen by the pins in (i, j]; one that is alive
by all pins after i, and by the head. So one row for each pair of intervals says everything:

- what only pin p sees, with q the held pin before it: row (q, p);
- what only the head sees: row (newest held pin, ALIVE);
- what nobody sees and a reclaim will free: row (i, i).

A new pin begins an interval in which nothing was born or died yet: no row changes. A pin that is released joins its
interval to the one before it: rows (p, x) are added to (q, x), rows (x, p) to (x, q). That is one look-up for each pin
of the lineage, and all rows are right at once, while the reclaim of what they weigh goes on.

Beside them, `SHOWN` says what a head or a held pin shows in all, inherited versions too; a pin and a fork begin with
what is shown where they are made.

`verify` of the tables that this is computed from is `versions/verify.py`'s; `coordinator/check_usage.py` counts the
weights from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from redfs.core.errors import InternalError
from redfs.core.kv import Kv, ReadKv
from redfs.core.versions.layout import MAX_U64, SHOWN, WEIGHTS, u64
from redfs.core.versions.reader import VersionReader

ALIVE: Final = MAX_U64
"""In the place of the interval of death: not dead."""
HEAD: Final = MAX_U64
"""In the place of a pin's epoch: the head."""

_KEY: Final = Struct(">QQQ")
_SHOWN_KEY: Final = Struct(">QQ")
_WEIGHT: Final = Struct(">QQ")


class Weight(NamedTuple):
    """Of one or many versions; differences may be negative."""

    logical_bytes: int = 0
    """Plain bytes that slots refer to; holes weigh nothing."""
    stored_bytes: int = 0
    """What those bytes take when stored, before protection, as if nothing else shared their blocks."""

    def plus(self, other: Weight, sign: int = 1) -> Weight:
        return Weight(self.logical_bytes + sign * other.logical_bytes, self.stored_bytes + sign * other.stored_bytes)


NOTHING: Final = Weight()

Weigh = Callable[[bytes], Weight]
"""The weight of a slot's record. Must give the same for the same record from its put until it is freed."""


def no_weight(_: bytes) -> Weight:
    """For stores that keep no account."""
    return NOTHING


def weight_key(lineage: int, born: int, died: int) -> bytes:
    """The row of versions born and died in these intervals; the column of one death lies together."""
    return _KEY.pack(lineage, died, born)


def shown_key(lineage: int, epoch: int) -> bytes:
    """The row of what a head (`HEAD`) or a held pin shows."""
    return _SHOWN_KEY.pack(lineage, epoch)


def weights_of(kv: ReadKv, lineage: int) -> Iterator[tuple[int, int, Weight]]:
    """(interval of birth, of death, weight) of every row of a lineage."""
    for key, row in kv.scan(WEIGHTS, u64(lineage), u64(lineage + 1)):
        _lineage, died, born = _KEY.unpack(key)
        yield born, died, Weight._make(_WEIGHT.unpack(row))


def weight_of(kv: ReadKv, lineage: int, born: int, died: int) -> Weight:
    row = kv.get(WEIGHTS, weight_key(lineage, born, died))
    return NOTHING if row is None else Weight._make(_WEIGHT.unpack(row))


def shown_by(kv: ReadKv, lineage: int, epoch: int) -> Weight:
    """What a head (`HEAD`) or a held pin shows in all."""
    row = kv.get(SHOWN, shown_key(lineage, epoch))
    return NOTHING if row is None else Weight._make(_WEIGHT.unpack(row))


def freed_by_head(kv: ReadKv, versions: VersionReader, lineage: int) -> Weight:
    """What goes when the head of a lineage is dropped and nothing else. One look-up; more where lineages end by it."""
    weight = weight_of(kv, lineage, versions.newest_pin(lineage), ALIVE)
    return weight if versions.newest_pin(lineage) else weight.plus(_freed_by_end(kv, versions, lineage))


def freed_by_pin(kv: ReadKv, versions: VersionReader, lineage: int, epoch: int) -> Weight:
    """What goes when the one holder of a held pin lets it go; nothing where it has several."""
    weight = NOTHING
    while versions.is_held_once(lineage, epoch):
        before, after = versions.neighbours(lineage, epoch)
        weight = weight.plus(weight_of(kv, lineage, before, epoch))
        record = versions.lineage(lineage)
        if after or record.has_head:
            return weight
        weight = weight.plus(weight_of(kv, lineage, before, ALIVE))
        if before or not record.parent:
            return weight
        lineage, epoch = record.parent, record.fork_epoch
    return weight


def _freed_by_end(kv: ReadKv, versions: VersionReader, lineage: int) -> Weight:
    record = versions.lineage(lineage)
    return freed_by_pin(kv, versions, record.parent, record.fork_epoch) if record.parent else NOTHING


class Ledger:
    """The rows of one overlay: changes gather here and are written by `flush`, before rows are read or joined."""

    def __init__(self, kv: Kv, weigh: Weigh) -> None:
        self._kv = kv
        self._weigh = weigh
        self._changes: dict[tuple[str, bytes], Weight] = {}

    def weigh(self, value: bytes) -> Weight:
        """What a version weighs; a tombstone nothing."""
        return self._weigh(value) if value else NOTHING

    def add(self, lineage: int, born: int, died: int, weight: Weight, sign: int = 1) -> None:
        """Versions of that weight came (or went) in these intervals."""
        self._add(WEIGHTS, weight_key(lineage, born, died), weight, sign)

    def show(self, lineage: int, weight: Weight, sign: int = 1) -> None:
        """The head of a lineage shows more (or less)."""
        self._add(SHOWN, shown_key(lineage, HEAD), weight, sign)

    def _add(self, table: str, key: bytes, weight: Weight, sign: int) -> None:
        if weight != NOTHING:
            at = table, key
            self._changes[at] = self._changes.get(at, NOTHING).plus(weight, sign)

    def flush(self) -> None:
        """Writes what has gathered. Raises InternalError where a weight would become negative."""
        changes, self._changes = self._changes, {}
        for (table, key), change in changes.items():
            row = self._kv.get(table, key)
            self._put(table, key, change if row is None else Weight._make(_WEIGHT.unpack(row)).plus(change))

    def _put(self, table: str, key: bytes, weight: Weight) -> None:
        if min(weight) < 0:
            raise InternalError("a volume would be charged less than nothing: run `redfs check`")
        if weight == NOTHING:
            self._kv.delete(table, key)
        else:
            self._kv.put(table, key, _WEIGHT.pack(*weight))

    # -- pins and lineages

    def pinned(self, lineage: int, epoch: int) -> None:
        """The head was pinned: the pin shows what it shows."""
        self._copy_shown(lineage, HEAD, lineage, epoch)

    def forked(self, parent: int, epoch: int, child: int) -> None:
        """A lineage was forked from a held pin: its head shows what the pin does."""
        self._copy_shown(parent, epoch, child, HEAD)

    def _copy_shown(self, lineage: int, epoch: int, to_lineage: int, to_epoch: int) -> None:
        self.flush()
        self._put(SHOWN, shown_key(to_lineage, to_epoch), shown_by(self._kv, lineage, epoch))

    def head_dropped(self, lineage: int) -> None:
        self.flush()
        self._kv.delete(SHOWN, shown_key(lineage, HEAD))

    def released(self, lineage: int, epoch: int, before: int, after: Iterable[int]) -> None:
        """A pin has no holder any more: its interval joins the one before. `after` are the held pins behind it."""
        self.flush()
        self._kv.delete(SHOWN, shown_key(lineage, epoch))
        start = _SHOWN_KEY.pack(lineage, epoch)
        column = [(key, row) for key, row in self._kv.scan(WEIGHTS, start, _SHOWN_KEY.pack(lineage, epoch + 1))]
        for key, row in column:
            born = _KEY.unpack(key)[2]
            self._kv.delete(WEIGHTS, key)
            self.add(lineage, before if born == epoch else born, before, Weight._make(_WEIGHT.unpack(row)))
        for died in (*after, ALIVE):
            weight = weight_of(self._kv, lineage, epoch, died)
            if weight != NOTHING:
                self._kv.delete(WEIGHTS, weight_key(lineage, epoch, died))
                self.add(lineage, before, died, weight)
        self.flush()

    def ended(self, lineage: int) -> None:
        """A lineage is gone. Raises InternalError where something of it is still charged."""
        self.flush()
        for table in (WEIGHTS, SHOWN):
            if self._kv.first(table, u64(lineage), u64(lineage + 1)) is not None:
                raise InternalError(f"lineage {lineage} is gone and still charged for data: run `redfs check`")
