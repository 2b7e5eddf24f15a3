"""The version store: what `VersionWriter` does, and reclaim in bounded, resumable steps.

What a step has to find is decided by held pins alone, looked up anew in every step, so steps of several pins, new pins,
writes, releases and crashes may come in any order:

- A dropping pin p between its held neighbours q < p < n (no n: the head): a version that died in (p, n] and was born
  after q is seen by nobody. When the last holder of p goes, all that p alone kept is in that range. Later, q can only
  move down and n only up by other releases, whose own reclaims find what those free, and n down only from the head to
  a new pin, whose epoch is after every death so far. So a cursor over death epochs, kept in the pin's row, never has
  to turn back. Within a death epoch births are in order: one seek steps over all that is still seen.
- Without a head and without n, the lineage ends at q, its newest held pin: deaths after q are undone (the version
  lives on for q, or goes if it was born after q), then what was born after q goes, found by the birth rows. Every row
  that this looks at it also takes away, so it needs no cursor but one inside an inode, kept in the birth row: such an
  inode can have many versions that stay.

A lineage without head and pins is removed by the step that ends its last reclaim, and that step releases the fork at
the parent. Steps of what is gone already are done at once, so a job may run its last step again.

Failures: `NotAllowed` for a pin that is held or a head that lives; `InternalError` where the tables contradict
themselves.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from redfs.core.errors import InternalError, InvalidArgument, NotAllowed
from redfs.core.ids import Epoch, Lineage
from redfs.core.records import Kind
from redfs.core.versions.layout import (
    AFTER_VERSIONS,
    BIRTHS,
    DEADLIST,
    LINEAGES,
    MAX_U64,
    PINS,
    VERSIONS,
    Holder,
    HolderType,
    Pin,
    birth_of,
    birth_start,
    dead_start,
    dropping_end,
    dropping_key,
    dropping_start,
    inverted,
    pack_birth,
    parse_birth,
    parse_dead,
    u64,
    unpack_birth,
)
from redfs.core.versions.reader import Line
from redfs.core.versions.weights import ALIVE
from redfs.core.versions.writer import VersionWriter


class ReclaimStep(NamedTuple):
    """What one step did. `rows` of the deadlist, births and versions were looked at."""

    done: bool
    """Nothing is left to do for this pin or head."""
    rows: int
    dropped_pin: Pin | None
    """The lineage is gone and was the last holder of this pin of its parent: reclaim that next."""


class VersionStore(VersionWriter):
    """Versioned records of all lineages: read, write, pin, fork, reclaim. One instance per overlay."""

    def reclaim_pin_step(self, lineage: int, epoch: int, budget: int) -> ReclaimStep:
        """Looks at up to `budget` rows (>= 1) for the dropping pin (lineage, epoch) and frees what nobody sees."""
        _check_budget(budget)
        if not self.exists(lineage):
            return ReclaimStep(True, 0, None)
        marker = dropping_key(lineage, epoch)
        cursor = self._kv.get(PINS, marker)
        if cursor is None:
            if self._is_held(lineage, epoch):
                raise NotAllowed(f"pin {lineage}/{epoch} is held: release it first")
            return ReclaimStep(True, 0, None)
        line = self._line(lineage)
        before = self._held_before(lineage, epoch)
        after = self._held_after(lineage, epoch)
        if after or line.record.has_head:
            done, rows, death = self._free_deaths(line, int.from_bytes(cursor), before, after or MAX_U64, budget)
            if not done:
                self._kv.put(PINS, marker, u64(death))
        else:
            done, rows = self._free_tail(line, budget)
        if not done:
            return ReclaimStep(False, rows, None)
        self._kv.delete(PINS, marker)
        return ReclaimStep(True, rows, self._remove_if_ended(line))

    def reclaim_head_step(self, lineage: int, budget: int) -> ReclaimStep:
        """Looks at up to `budget` rows (at least 1) after `drop_head` and frees what only the head saw."""
        _check_budget(budget)
        if not self.exists(lineage):
            return ReclaimStep(True, 0, None)
        line = self._line(lineage)
        if line.record.has_head:
            raise NotAllowed(f"lineage {lineage} has its head: drop it first")
        done, rows = self._free_tail(line, budget)
        return ReclaimStep(done, rows, self._remove_if_ended(line) if done else None)

    def _free_deaths(self, line: Line, death: int, before: int, upto: int, budget: int) -> tuple[bool, int, int]:
        """Frees versions with deaths in [death, upto] and births after `before`: (done, rows, death to go on at)."""
        end = dead_start(line.lineage, upto + 1)
        rows = 0
        while rows < budget:
            freed: list[bytes] = []
            stepped_on = False
            for key, _ in islice(
                self._kv.scan(DEADLIST, dead_start(line.lineage, death, before + 1), end), budget - rows
            ):
                rows += 1
                _lineage, death, birth, _kind, _obj = parse_dead(key)
                if birth <= before:
                    stepped_on = True
                    break
                freed.append(key)
            for key in freed:
                self._free_dead(line, key)
            if not stepped_on and rows < budget:
                return True, rows, death
        return False, rows, death

    def _free_dead(self, line: Line, key: bytes) -> None:
        """Frees the version that a deadlist row names, and the row."""
        lineage, _death, birth, kind, obj = parse_dead(key)
        version = line.prefixes[kind] + obj + inverted(birth)
        value = self._kv.get(VERSIONS, version)
        if value is None:
            raise InternalError(f"the deadlist of lineage {lineage} names a version that is not there")
        self._kv.delete(DEADLIST, key)
        self._remove(line, kind, obj, version, value, dead=True)
        self._drop_bare_tombstone(line, kind, obj)

    def _free_tail(self, line: Line, budget: int) -> tuple[bool, int]:
        """Ends a lineage without a head at its newest held pin: (done, rows)."""
        last = line.newest_pin
        rows = 0
        dead = list(islice(self._kv.scan(DEADLIST, dead_start(line.lineage, last + 1), u64(line.lineage + 1)), budget))
        for key, _ in dead:
            rows += 1
            _lineage, _death, birth, kind, obj = parse_dead(key)
            if birth > last:
                self._free_dead(line, key)
            else:
                self._kv.delete(DEADLIST, key)
                if kind == Kind.SLOT:
                    value = self._kv.get(VERSIONS, line.prefixes[kind] + obj + inverted(birth)) or b""
                    self._weigh_moved(line, birth, value, last, ALIVE)
        while rows < budget:
            row = self._kv.first(BIRTHS, birth_start(line.lineage, last + 1), u64(line.lineage + 1))
            if row is None:
                if line.record.tail_pending:
                    self._set_record(line, line.record._replace(tail_pending=False))
                return True, rows
            rows += self._free_births(line, row[0], row[1], last, budget - rows)
        return False, rows

    def _free_births(self, line: Line, births: bytes, row: bytes, last: int, budget: int) -> int:
        """Frees versions born after `last` of the inode that a birth row names: rows looked at, at least 1."""
        _lineage, _epoch, ino = parse_birth(births)
        resume = unpack_birth(row)[1] or bytes([Kind.ROOT]) + u64(ino)
        lineage = u64(line.lineage)
        rows = 0
        for kind in Kind:
            if kind < resume[0]:
                continue
            start = lineage + max(resume, bytes([kind]) + u64(ino))
            found = list(islice(self._kv.scan(VERSIONS, start, line.prefixes[kind] + u64(ino + 1)), budget - rows))
            for key, value in found:
                rows += 1
                if birth_of(key) > last:
                    self._remove(line, kind, key[9:-8], key, value)
                    self._drop_bare_tombstone(line, kind, key[9:-8])
            left = self._kv.get(BIRTHS, births)
            if left is None:
                return max(rows, 1)
            if rows >= budget:
                self._kv.put(BIRTHS, births, pack_birth(unpack_birth(left)[0], found[-1][0][8:] + b"\0"))
                return rows
        raise InternalError(f"inode {ino} of lineage {line.lineage} lacks versions that its birth row counts")

    def _drop_bare_tombstone(self, line: Line, kind: int, obj: bytes) -> None:
        """Called when a version of `obj` went: drops the newest if that is a tombstone with nothing left to hide.

        The newest is alive, so it has no deadlist row. A dead tombstone stays until its pins go, which is soon enough:
        it takes a deletion, a pin and a new record of the same name to make one. What is born after the end of a
        lineage without a head is left to the birth rows.
        """
        base = line.prefixes[kind] + obj
        newest = self._kv.first(VERSIONS, base, base + AFTER_VERSIONS)
        if newest is None or newest[1]:
            return
        if not line.record.has_head and birth_of(newest[0]) > line.newest_pin:
            return
        if self._kv.first(VERSIONS, newest[0] + b"\0", base + AFTER_VERSIONS) is not None:
            return
        if self._inherited(line, kind, obj) is None:
            self._remove(line, kind, obj, newest[0], newest[1])

    def _remove_if_ended(self, line: Line) -> Pin | None:
        """Removes a lineage without head and pins; returns the parent's pin if that has no holder any more."""
        lineage, record = line.lineage, line.record
        if record.has_head or line.newest_pin:
            return None
        if self._kv.first(PINS, dropping_start(lineage), dropping_end(lineage)) is not None:
            return None
        if self._kv.first(VERSIONS, u64(lineage), u64(lineage + 1)) is not None:
            raise InternalError(f"lineage {lineage} has versions left that no reclaim found")
        self._ledger.ended(lineage)
        self._kv.delete(LINEAGES, u64(lineage))
        self._lines.pop(lineage, None)
        if record.parent and self.release(record.parent, record.fork_epoch, Holder(HolderType.FORK, lineage)):
            return Pin(Lineage(record.parent), Epoch(record.fork_epoch))
        return None


def _check_budget(budget: int) -> None:
    if budget < 1:
        raise InvalidArgument("a reclaim step needs a budget of at least one row")
