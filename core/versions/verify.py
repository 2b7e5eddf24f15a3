"""Proves the version store's tables from scratch, with nothing taken on trust but the rows themselves.

Each physical version must be seen by a head or a held pin, or be what a reclaim that is under way still has ahead; the
deadlist, the birth rows, the holdings and the fork holders must be exactly what the versions and lineages say; what is
read through ancestors here asks each of them, not the holdings. Memory does not grow
with the number of versions: rows stream by, inode after inode, and the other tables are asked by key.

Reads only. Findings are lines of text, at most `FINDINGS_MAX`. A row that cannot be unpacked raises what the layout
raises (`WrongFormat`, ValueError, struct.error).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from redfs.core.kv import ReadKv
from redfs.core.records import Kind
from redfs.core.versions.ancestry import Ancestry
from redfs.core.versions.layout import (
    BIRTHS,
    DEADLIST,
    HOLDINGS,
    INO_BYTES,
    LINEAGES,
    MAX_U64,
    OBJECT_BYTES,
    PINS,
    VERSIONS,
    Holder,
    HolderType,
    LineageRecord,
    birth_key,
    birth_of,
    dead_key,
    dead_start,
    dropping_end,
    dropping_start,
    held_end,
    held_key,
    held_start,
    holding_key,
    is_held,
    parse_dead,
    parse_held,
    u64,
    unpack_birth,
    version_prefix,
)
from redfs.core.versions.reader import VersionReader

FINDINGS_MAX: Final = 1000
"""A report that a person reads; what is broken more often than this is broken everywhere."""

_EVERYTHING: Final = b"\xff" * 64
"""After every key of these tables (the longest has 45 bytes and starts with a lineage's number)."""


class LineageStats(NamedTuple):
    """Rows of one lineage."""

    versions: int
    tombstones: int
    """Those of `versions` that say: not there."""
    dead: int
    births: int
    pins: int
    dropping_pins: int


def lineage_stats(kv: ReadKv, lineage: int) -> LineageStats:
    """Counts a lineage's rows by reading them all."""
    low, high = u64(lineage), u64(lineage + 1)
    versions = tombstones = 0
    for _key, value in kv.scan(VERSIONS, low, high):
        versions += 1
        tombstones += not value
    reader = VersionReader(kv)
    return LineageStats(
        versions,
        tombstones,
        sum(1 for _ in kv.scan(DEADLIST, low, high)),
        sum(1 for _ in kv.scan(BIRTHS, low, high)),
        len(reader.pins(lineage)),
        len(reader.dropping_pins(lineage)),
    )


def verify(kv: ReadKv) -> list[str]:
    """Everything that is wrong with the tables; empty when they are sound, also with reclaims under way."""
    findings: list[str] = []
    reader = VersionReader(kv, Ancestry(direct_max=MAX_U64))
    seen: Counter[str] = Counter()
    for lineage, record in reader.lineages():
        for finding in _Check(kv, reader, lineage, record, seen).run():
            findings.append(f"lineage {lineage}: {finding}")
            if len(findings) >= FINDINGS_MAX:
                return [*findings, f"stopped after {FINDINGS_MAX} findings"]
    for table in (VERSIONS, DEADLIST, BIRTHS, PINS, HOLDINGS):
        rows = sum(1 for _ in kv.scan(table, b"", _EVERYTHING))
        if rows != seen[table]:
            findings.append(f"table {table}: {rows} rows, {seen[table]} belong to something that exists")
    return findings


class _Check:
    """One lineage's check. `seen` counts the rows of each table that are accounted for."""

    def __init__(
        self, kv: ReadKv, reader: VersionReader, lineage: int, record: LineageRecord, seen: Counter[str]
    ) -> None:
        self._kv = kv
        self._reader = reader
        self._lineage = lineage
        self._record = record
        self._seen = seen
        self._held: list[int] = list(reader.pins(lineage))
        self._dropping: dict[int, int] = {
            int.from_bytes(key[9:17]): int.from_bytes(value)
            for key, value in kv.scan(PINS, dropping_start(lineage), dropping_end(lineage))
        }
        self._newest = self._held[-1] if self._held else 0
        self._forks: list[tuple[int, int]] = []
        """(epoch, the least `inherited_ino_max` of the forks from there on), by epoch."""
        self._deaths = self._death_epochs()
        # What only the head or the pins above the newest held one saw is still being looked for.
        self._tail_pending = not record.has_head and (
            record.tail_pending or any(epoch > self._newest for epoch in self._dropping)
        )

    def _death_epochs(self) -> list[int]:
        """All epochs with deadlist rows, in order: one seek each."""
        found: list[int] = []
        death = 0
        while row := self._kv.first(DEADLIST, dead_start(self._lineage, death), u64(self._lineage + 1)):
            death = parse_dead(row[0])[1]
            found.append(death)
            death += 1
        return found

    def run(self) -> Iterator[str]:
        yield from self._descent()
        yield from self._pins()
        for kind in Kind:
            # A key of a wrong length would hide between the objects of its kind.
            size = len(version_prefix(0, kind)) + OBJECT_BYTES[kind] + 8
            for key, _ in self._rows(kind):
                if len(key) != size:
                    yield f"a version key of kind {kind} has {len(key)} bytes"
        rows = merge(*(self._tagged(kind) for kind in Kind), key=itemgetter(0))
        for ino, inode_rows in groupby(rows, key=itemgetter(0)):
            yield from self._inode(ino, inode_rows)

    def _rows(self, kind: int) -> Iterator[tuple[bytes, bytes]]:
        return self._kv.scan(VERSIONS, version_prefix(self._lineage, kind), version_prefix(self._lineage, kind + 1))

    def _tagged(self, kind: int) -> Iterator[tuple[bytes, int, bytes, bytes]]:
        for key, value in self._rows(kind):
            yield key[9 : 9 + INO_BYTES], kind, key, value

    def _descent(self) -> Iterator[str]:
        """What the record says about parent, index and inode numbers."""
        record = self._record
        above = self._reader.lineage(record.parent) if self._reader.exists(record.parent) else None
        if record.parent >= self._lineage:
            yield f"it comes of lineage {record.parent}, which has no smaller number"
        if record.indexed != (above is not None and above.family == record.family):
            yield "it is indexed and was not forked inside of its family, or the other way round"
        if above is None and record.inherited_ino_max:
            yield "it inherits inodes and has no parent"
        if above is not None and not above.inherited_ino_max <= record.inherited_ino_max <= above.ino_max:
            yield f"it inherits inodes up to {record.inherited_ino_max}, its parent has them up to {above.ino_max}"
        if record.ino_max < record.inherited_ino_max:
            yield f"it has inodes up to {record.ino_max} and inherits them up to {record.inherited_ino_max}"

    def _inode_number(self, ino: int, oldest: int) -> Iterator[str]:
        """An inode with versions since the epoch `oldest` must be known to this lineage and to all forks since then."""
        at = bisect_left(self._forks, (oldest, 0))
        if ino > min([self._record.ino_max, *(least for _, least in self._forks[at : at + 1])]):
            yield f"inode {ino} is greater than this lineage, or one forked from it, knows of"

    def _pins(self) -> Iterator[str]:
        record, head = self._record, self._record.head_epoch
        if not record.has_head and not self._held and not self._dropping and not record.tail_pending:
            yield "it has neither a head nor pins nor a reclaim under way"
        for epoch, cursor in self._dropping.items():
            self._seen[PINS] += 1
            if epoch in self._held:
                yield f"pin {epoch} is held and dropping"
            if not 0 < epoch < head or cursor <= epoch:
                yield f"dropping pin {epoch} at death {cursor}, head {head}"
        for key, _ in self._kv.scan(PINS, held_start(self._lineage), held_end(self._lineage)):
            self._seen[PINS] += is_held(key)
            pin, holder = parse_held(key)
            if not 0 < pin.epoch < head:
                yield f"pin {pin.epoch} is not before the head {head}"
            if holder.type is HolderType.FORK:
                # The child of a pinned head is made in the same change, so it is always there.
                child = self._reader.lineage(holder.id) if self._reader.exists(holder.id) else None
                if child is None or (child.parent, child.fork_epoch) != pin:
                    yield f"pin {pin.epoch} is held by lineage {holder.id}, which is no fork of it"
                else:
                    self._forks.append((pin.epoch, child.inherited_ino_max))
        least = MAX_U64
        for at in reversed(range(len(self._forks))):
            epoch, inherited = self._forks[at]
            least = min(least, inherited)
            self._forks[at] = epoch, least
        if record.parent:
            fork = held_key(record.parent, record.fork_epoch, Holder(HolderType.FORK, self._lineage))
            if self._kv.get(PINS, fork) is None or self._kv.get(LINEAGES, u64(record.parent)) is None:
                yield f"it does not hold its fork point {record.parent}/{record.fork_epoch}"

    def _inode(self, ino: bytes, rows: Iterator[tuple[bytes, int, bytes, bytes]]) -> Iterator[str]:
        births: Counter[int] = Counter()
        resumes: dict[int, bytes] = {}
        newer: tuple[bytes, int, bool] | None = None  # the row before: object's key prefix, birth, has no deadlist row
        living_tombstone: bytes | None = None
        for _ino, kind, key, value in rows:
            base, birth = key[:-8], birth_of(key)
            self._seen[VERSIONS] += 1
            if living_tombstone is not None and living_tombstone != base:
                yield from self._bare_tombstone(living_tombstone)
            living_tombstone = None
            next_birth = newer[1] if newer is not None and newer[0] == base else None
            if birth not in births:
                row = self._kv.get(BIRTHS, birth_key(self._lineage, birth, ino))
                resumes[birth] = unpack_birth(row)[1] if row is not None else b""
            births[birth] += 1
            name = f"version of kind {kind}, object {base[9:].hex()}, born {birth}"
            death = self._death(kind, base[9:], birth, next_birth)
            if death is not None:
                self._seen[DEADLIST] += 1
            yield from (
                f"{name}: {finding}" for finding in self._version(birth, death, next_birth, key[8:] < resumes[birth])
            )
            if not value and death is None and next_birth is None:
                living_tombstone = base
            newer = base, birth, death is None
        if living_tombstone is not None:
            yield from self._bare_tombstone(living_tombstone)
        yield from self._inode_number(int.from_bytes(ino), min(births))
        if self._record.indexed:
            holding = self._kv.get(HOLDINGS, holding_key(self._record.family, ino, self._lineage))
            self._seen[HOLDINGS] += holding is not None
            if holding != u64(len(births)):
                yield f"inode {int.from_bytes(ino)} has versions of {len(births)} epochs; its holding says otherwise"
        for birth, count in births.items():
            row = self._kv.get(BIRTHS, birth_key(self._lineage, birth, ino))
            self._seen[BIRTHS] += row is not None
            if row is None or unpack_birth(row)[0] != count:
                yield f"inode {int.from_bytes(ino)} has {count} versions born {birth}; its birth row says otherwise"

    def _death(self, kind: int, obj: bytes, birth: int, next_birth: int | None) -> int | None:
        """The death epoch of a version's deadlist row; None where it has none. A second one shows in the row counts."""
        if next_birth is not None and self._has_death(kind, obj, birth, next_birth):
            return next_birth
        if next_birth is None and not self._tail_pending:
            return None  # it must be alive; a row that says otherwise shows in the row counts
        for death in self._deaths[bisect_left(self._deaths, birth) :]:
            if self._has_death(kind, obj, birth, death):
                return death
        return None

    def _has_death(self, kind: int, obj: bytes, birth: int, death: int) -> bool:
        return self._kv.get(DEADLIST, dead_key(self._lineage, death, birth, kind, obj)) is not None

    def _is_held_within(self, start: int, end: int) -> bool:
        """Whether a held pin is in [start, end)."""
        at = bisect_left(self._held, start)
        return at < len(self._held) and self._held[at] < end

    def _version(self, birth: int, death: int | None, next_birth: int | None, passed: bool) -> Iterator[str]:
        if not 0 < birth <= self._record.head_epoch:
            yield f"not within the lineage's epochs, head {self._record.head_epoch}"
        if death is not None and (death <= birth or (next_birth is not None and death > next_birth)):
            yield f"died {death}, next version born {next_birth}"
        if not self._record.has_head and (birth > self._newest or (death or 0) > self._newest):
            # After the end of a lineage without a head: to be freed, or the death to be undone.
            if not self._tail_pending:
                yield f"death {death}, after the last pin {self._newest}, and no reclaim is under way"
            elif birth > self._newest and passed:
                yield "behind the point at which the search for it goes on"
            return
        if death is None:
            superseded = next_birth is not None and (self._record.has_head or next_birth <= self._newest)
            if superseded:
                yield f"superseded at {next_birth}, but not on the deadlist"
            return
        if next_birth is not None and self._is_held_within(death, next_birth):
            yield f"died {death}, but a pin before {next_birth} still sees it"
        if next_birth is None:
            yield f"died {death}, but nothing newer is there"
        reachable = any(epoch in range(birth, death) and at <= death for epoch, at in self._dropping.items())
        if not self._is_held_within(birth, death) and not reachable:
            yield f"died {death}, no pin sees it and no reclaim will find it"

    def _bare_tombstone(self, base: bytes) -> Iterator[str]:
        """A living tombstone that is the only version of its object must hide a record of an ancestor."""
        record = self._record
        kind, obj = base[8], base[9:]
        if record.has_head or not self._tail_pending:
            above = self._reader.get(record.parent, record.fork_epoch, kind, obj) if record.parent else None
            if above is None:
                yield f"the tombstone of kind {kind}, object {obj.hex()} hides nothing"
