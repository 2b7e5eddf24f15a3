"""The version store by example: bytes of the rows, refusals, the cost of steps and reads, what `verify` notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from redfs.core.errors import AlreadyExists, InvalidArgument, NotAllowed, NotFound, RedfsError, WrongFormat
from redfs.core.ids import Epoch, Lineage
from redfs.core.kv import MemoryKv, Overlay
from redfs.core.records import Kind
from redfs.core.versions import (
    TABLES,
    Ancestry,
    Holder,
    HolderType,
    LineageStats,
    Pin,
    VersionReader,
    VersionStore,
    lineage_stats,
    verify,
)
from redfs.core.versions import ancestry as ancestry_module
from redfs.core.versions.ancestry import Ancestor
from redfs.core.versions.layout import LineageRecord, pack_lineage, unpack_lineage
from redfs.core.versions.reader import PATIENCE
from redfs.core.versions.weights import HEAD, Weight, freed_by_head, freed_by_pin, shown_by

END = b"\xff" * 64
INO = (5).to_bytes(8)


def snapshot(number: int) -> Holder:
    return Holder(HolderType.SNAPSHOT, number)


def ino(number: int) -> bytes:
    return number.to_bytes(8)


def rows_of(kv: MemoryKv) -> list[tuple[str, bytes, bytes]]:
    return [(table, key, value) for table in TABLES for key, value in kv.scan(table, b"", END)]


def open_store(kv: MemoryKv) -> tuple[VersionStore, list[bytes]]:
    freed: list[bytes] = []
    return VersionStore(kv, lambda _kind, _obj, value: freed.append(value)), freed


class CountingKv(MemoryKv):
    """Counts the rows that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        self.reads += 1
        return super().get(table, key)

    def first(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        self.reads += 1
        return super().first(table, start, end)

    def last(self, table: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        self.reads += 1
        return super().last(table, start, end)

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for row in super().scan(table, start, end):
            self.reads += 1
            yield row


def reads(kv: CountingKv, action: Callable[[], object]) -> int:
    before = kv.reads
    action()
    return kv.reads - before


# -- the format


def test_the_bytes_of_every_row() -> None:
    kv = MemoryKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=7)
    store.put(1, Kind.INODE, INO, b"old")
    store.pin_head(1, snapshot(4))
    store.put(1, Kind.INODE, INO, b"new")
    store.put(1, Kind.XATTR, INO + ino(9), b"x")
    store.fork(1, 1, 2, family=7)
    store.delete(2, Kind.INODE, INO)
    store.pin_head(2, snapshot(5))
    store.drop_head(2)
    store.release(2, 1, snapshot(5))
    u1, u2, u5 = "0000000000000001", "0000000000000002", "0000000000000005"
    assert [(table, key.hex(), value.hex()) for table, key, value in rows_of(kv)] == [
        ("versions", f"{u1}02{u5}fffffffffffffffd", b"new".hex()),
        ("versions", f"{u1}02{u5}fffffffffffffffe", b"old".hex()),
        ("versions", f"{u1}05{u5}0000000000000009fffffffffffffffd", b"x".hex()),
        ("versions", f"{u2}02{u5}fffffffffffffffe", ""),
        ("deadlist", f"{u1}{u2}{u1}02{u5}", "01"),
        ("births", f"{u1}{u1}{u5}", u1),
        ("births", f"{u1}{u2}{u5}", u2),
        ("births", f"{u2}{u1}{u5}", u1),
        ("lineages", u1, "0101" + "0" * 32 + u2 + "0000000000000007" + u5 + "0" * 16),
        ("lineages", u2, "0106" + u1 + u1 + u2 + "0000000000000007" + u5 + u5),
        ("pins", f"{u1}01{u1}010000000000000004", "01"),
        ("pins", f"{u1}01{u1}02{u2}", "01"),
        ("pins", f"{u2}02{u1}", u2),
        ("holdings", f"0000000000000007{u5}{u2}", u1),
    ]
    assert verify(kv) == []


@pytest.mark.parametrize("row", [b"\x02" + bytes(49), b"\x01\x08" + bytes(48), b"\x01\x01"])
def test_an_unknown_lineage_record_is_refused(row: bytes) -> None:
    with pytest.raises(WrongFormat):
        unpack_lineage(row)


# -- what callers see


def test_freed_reports_every_record_once() -> None:
    kv = MemoryKv()
    store, freed = open_store(kv)
    store.create_lineage(1, family=1)
    store.put(1, Kind.INODE, INO, b"a")
    store.put(1, Kind.INODE, INO, b"b")
    assert freed == [b"a"]
    pin = store.pin_head(1, snapshot(1))
    store.put(1, Kind.INODE, INO, b"c")
    store.delete(1, Kind.INODE, INO)
    store.delete(1, Kind.INODE, INO)
    assert freed == [b"a", b"c"]
    assert store.get(1, store.head_epoch(1), Kind.INODE, INO) is None
    assert store.get(1, pin, Kind.INODE, INO) == b"b"
    assert store.release(1, pin, snapshot(1))
    assert store.is_dropping(1, pin)
    assert store.reclaim_pin_step(1, pin, 10).done
    assert freed == [b"a", b"c", b"b"]
    assert lineage_stats(kv, 1) == LineageStats(0, 0, 0, 0, 0, 0)


def test_the_last_reclaim_of_a_clone_lets_go_of_its_parents_pin() -> None:
    kv = MemoryKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    store.fork(1, store.pin_head(1, Holder(HolderType.FORK, 2)), 2, family=1)
    store.put(2, Kind.INODE, INO, b"a")
    store.drop_head(2)
    assert store.lineage(2).tail_pending
    step = store.reclaim_head_step(2, 1)
    assert (step.done, step.dropped_pin) == (False, None)
    step = store.reclaim_head_step(2, 9)
    assert (step.done, step.dropped_pin) == (True, Pin(1, 1))  # type: ignore[arg-type]
    assert not store.exists(2)
    assert store.dropping_pins(1) == [1]
    assert store.reclaim_head_step(2, 9).done, "a step of what is gone is done"
    assert store.reclaim_pin_step(2, 1, 9).done
    assert store.reclaim_pin_step(1, 1, 9).done
    assert verify(kv) == []


def test_a_reclaimed_head_leaves_the_pins_and_no_pending_work() -> None:
    kv = MemoryKv()
    store, freed = open_store(kv)
    store.create_lineage(1, family=1)
    store.put(1, Kind.INODE, INO, b"a")
    store.pin_head(1, snapshot(1))
    store.put(1, Kind.INODE, INO, b"b")
    store.drop_head(1)
    while not store.reclaim_head_step(1, 1).done:
        pass
    assert not store.lineage(1).tail_pending
    assert freed == [b"b"]
    assert store.get(1, 1, Kind.INODE, INO) == b"a"
    assert lineage_stats(kv, 1) == LineageStats(1, 0, 0, 1, 1, 0)


def test_refusals_write_nothing() -> None:
    kv = MemoryKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    store.put(1, Kind.INODE, INO, b"a")
    pin = store.pin_head(1, snapshot(1))
    store.fork(1, pin, 2, family=1)
    store.drop_head(2)
    before = rows_of(kv)
    refused: list[tuple[type[RedfsError], Callable[[], object]]] = [
        (AlreadyExists, lambda: store.create_lineage(1, 1)),
        (AlreadyExists, lambda: store.fork(1, pin, 2, 1)),
        (InvalidArgument, lambda: store.create_lineage(0, 1)),
        (NotFound, lambda: store.fork(1, pin + 1, 3, 1)),
        (InvalidArgument, lambda: store.fork(1, pin, 1, 1)),
        (NotFound, lambda: store.add_holder(1, pin + 1, snapshot(1))),
        (NotFound, lambda: store.release(1, pin, snapshot(2))),
        (NotFound, lambda: store.put(9, Kind.INODE, INO, b"x")),
        (NotFound, lambda: store.get(9, 1, Kind.INODE, INO)),
        (NotFound, lambda: store.drop_head(9)),
        (NotAllowed, lambda: store.put(2, Kind.INODE, INO, b"x")),
        (NotAllowed, lambda: store.delete(2, Kind.INODE, INO)),
        (NotAllowed, lambda: store.pin_head(2, snapshot(1))),
        (NotAllowed, lambda: store.drop_head(2)),
        (NotAllowed, lambda: store.reclaim_head_step(1, 1)),
        (NotAllowed, lambda: store.reclaim_pin_step(1, pin, 1)),
        (InvalidArgument, lambda: store.reclaim_pin_step(1, pin, 0)),
        (InvalidArgument, lambda: store.put(1, Kind.INODE, INO, b"")),
        (InvalidArgument, lambda: store.put(1, Kind.DIRENT, INO, b"x")),
        (InvalidArgument, lambda: store.put(1, 7, INO, b"x")),
        (InvalidArgument, lambda: store.scan(1, 1, Kind.INODE, b"", None, 0)),
    ]
    for error, action in refused:
        with pytest.raises(error):
            action()
        assert rows_of(kv) == before


def test_a_dropping_pin_takes_no_holders() -> None:
    store, _freed = open_store(MemoryKv())
    store.create_lineage(1, family=1)
    pin = store.pin_head(1, snapshot(1))
    store.release(1, pin, snapshot(1))
    with pytest.raises(NotFound):
        store.add_holder(1, pin, snapshot(2))
    with pytest.raises(NotFound):
        store.fork(1, pin, 2, family=1)


# -- cost


def test_snapshots_and_clones_cost_the_same_whatever_there_is() -> None:
    kv = CountingKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    for number in range(500):
        store.put(1, Kind.INODE, ino(number), b"v")
    before = len(rows_of(kv))
    assert reads(kv, lambda: store.fork(1, store.pin_head(1, snapshot(1)), 2, 1)) < 10
    assert len(rows_of(kv)) == before + 3


def test_a_reclaim_steps_over_what_is_still_seen() -> None:
    """5,000 deaths that an older pin still sees cost one seek for each death epoch, not one for each row."""
    kv = CountingKv()
    store, freed = open_store(kv)
    store.create_lineage(1, family=1)
    for number in range(1000):
        store.put(1, Kind.INODE, ino(number), b"kept")
    store.pin_head(1, snapshot(1))
    store.put(1, Kind.INODE, ino(2000), b"only here")
    pin = store.pin_head(1, snapshot(2))
    for number in range(1000):
        store.put(1, Kind.INODE, ino(number), b"new")
    store.put(1, Kind.INODE, ino(2000), b"new")
    store.release(1, pin, snapshot(2))
    fresh, freed = open_store(kv)
    assert reads(kv, lambda: fresh.reclaim_pin_step(1, pin, 100)) < 20
    assert freed == [b"only here"]
    assert fresh.dropping_pins(1) == []


def test_a_scan_seeks_past_long_histories() -> None:
    kv = CountingKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    for turn in range(200):
        for number in range(3):
            store.put(1, Kind.INODE, ino(number), b"%d" % turn)
        store.pin_head(1, snapshot(turn))
    for epoch in (1, 100, 200):
        before = kv.reads
        found = store.scan(1, epoch, Kind.INODE, b"", None, 9)
        assert found == [(ino(number), b"%d" % (epoch - 1)) for number in range(3)]
        assert kv.reads - before < 80


def test_a_page_ends_at_its_bound_among_deleted_objects() -> None:
    store, _freed = open_store(MemoryKv())
    store.create_lineage(1, family=1)
    for number in range(10):
        store.put(1, Kind.INODE, ino(number), b"v")
    store.pin_head(1, snapshot(1))
    for number in range(9):
        store.delete(1, Kind.INODE, ino(number))
    rows, resume = store.scan_page(1, 2, Kind.INODE, b"", None, 5, 4)
    assert (rows, resume) == ([], ino(3) + b"\0")
    assert resume is not None
    rows, resume = store.scan_page(1, 2, Kind.INODE, resume, None, 5, 40)
    assert (rows, resume) == ([(ino(9), b"v")], None)
    assert store.scan(1, 1, Kind.INODE, ino(2), ino(4), 9) == [(ino(2), b"v"), (ino(3), b"v")]


def test_generations_are_read_through() -> None:
    store, _freed = open_store(MemoryKv())
    store.create_lineage(1, family=1)
    for lineage in range(1, 30):
        store.put(lineage, Kind.INODE, ino(lineage), b"%d" % lineage)
        store.fork(lineage, store.pin_head(lineage, snapshot(lineage)), lineage + 1, family=1)
    assert store.depth(30) == 30
    assert store.get(30, 1, Kind.INODE, ino(1)) == b"1"
    assert store.scan(30, 1, Kind.INODE, b"", None, 99) == [(ino(n), b"%d" % n) for n in range(1, 30)]


def generations(kv: MemoryKv, count: int, hot: bool = False) -> int:
    """Lineages 1 to `count`, each a clone of the one before. The first one has inodes 1 to 50, the others have changed
    one of them each, and all (`hot`) a name of their own in folder 60. Returns the last one's epoch."""
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    for number in range(1, 51):
        store.put(1, Kind.INODE, ino(number), b"first")
    for lineage in range(1, count):
        if hot:
            store.put(lineage, Kind.DIRENT, ino(60) + ino(lineage), b"name")
        store.fork(lineage, store.pin_head(lineage, Holder(HolderType.FORK, lineage + 1)), lineage + 1, family=1)
        store.put(lineage + 1, Kind.INODE, ino(lineage % 50 + 1), b"%d" % (lineage + 1))
    return store.head_epoch(count)


def test_a_look_up_through_a_hundred_generations_asks_few_of_them() -> None:
    kv = CountingKv()
    epoch = generations(kv, 100)
    ancestry = Ancestry()
    VersionReader(kv, ancestry).get(100, epoch, Kind.INODE, ino(1))
    newest = {lineage % 50 + 1: b"%d" % (lineage + 1) for lineage in range(1, 100)}
    for number in range(1, 51):
        reader = VersionReader(kv, ancestry)
        assert reads(kv, partial(reader.get, 100, epoch, Kind.INODE, ino(number))) <= 4
        assert reader.get(100, epoch, Kind.INODE, ino(number)) == newest[number]
    reader = VersionReader(kv, ancestry)
    assert reads(kv, lambda: reader.get(100, epoch, Kind.XATTR, ino(7) + ino(1))) <= 9, "what is not there"
    reader = VersionReader(kv, ancestry)
    assert reads(kv, lambda: reader.get(100, epoch, Kind.INODE, ino(51))) <= 2, "no such inode was ever inherited"
    reader = VersionReader(kv, ancestry)
    assert reads(kv, lambda: reader.scan(100, epoch, Kind.INODE, ino(7), ino(8), 9)) <= 9


def test_the_first_reader_walks_through_the_generations_and_the_next_do_not() -> None:
    kv = CountingKv()
    generations(kv, 100)
    ancestry = Ancestry()
    assert reads(kv, lambda: VersionReader(kv, ancestry).head_epoch(100)) == 100
    assert reads(kv, lambda: VersionReader(kv, ancestry).head_epoch(100)) == 1
    assert reads(kv, lambda: VersionReader(kv, ancestry).head_epoch(60)) == 1


def test_a_folder_that_every_generation_changed_costs_about_one_seek_for_each() -> None:
    kv = CountingKv()
    epoch = generations(kv, 100, hot=True)
    reader = VersionReader(kv)
    assert reader.get(100, epoch, Kind.DIRENT, ino(60) + ino(1)) == b"name"
    assert reads(kv, lambda: reader.get(100, epoch, Kind.DIRENT, ino(60) + ino(1))) < 100 + 2 * PATIENCE
    found = reader.scan(100, epoch, Kind.DIRENT, ino(60), ino(61), 999)
    assert found == [(ino(60) + ino(lineage), b"name") for lineage in range(1, 100)]


def test_other_clones_of_a_family_do_not_slow_a_look_up() -> None:
    """A thousand clones of the first generation have a record of the inode that is looked up through a deep line."""
    kv = CountingKv()
    store, _freed = open_store(kv)
    generations(kv, 20)
    pin = store.pin_head(1, snapshot(1))
    for lineage in range(100, 1100):
        store.fork(1, pin, lineage, family=1)
        store.put(lineage, Kind.INODE, ino(50), b"elsewhere")
    store.fork(20, store.pin_head(20, Holder(HolderType.FORK, 1100)), 1100, family=1)
    reader = VersionReader(kv)
    assert reader.get(1100, 1, Kind.INODE, ino(50)) == b"first"
    assert reads(kv, lambda: reader.get(1100, 1, Kind.INODE, ino(50))) <= 6


def test_new_inodes_of_a_clone_need_no_look_at_its_ancestors() -> None:
    kv = CountingKv()
    generations(kv, 100)
    store = VersionStore(kv, lambda *_: None, ancestry=Ancestry(direct_max=2**64))
    store.put(100, Kind.INODE, ino(1), b"warm")
    assert reads(kv, lambda: store.delete(100, Kind.INODE, ino(51))) == 1
    assert reads(kv, lambda: store.delete(100, Kind.INODE, ino(50))) > 50, "an old one may lie in any of them"


def test_a_volume_without_clones_has_no_holdings() -> None:
    kv = MemoryKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    store.fork(1, store.pin_head(1, snapshot(1)), 2, family=2)
    store.put(2, Kind.INODE, INO, b"a")
    store.fork(2, store.pin_head(2, snapshot(2)), 3, family=2)
    assert list(kv.scan("holdings", b"", END)) == []
    store.put(3, Kind.INODE, INO, b"b")
    assert len(list(kv.scan("holdings", b"", END))) == 1
    assert verify(kv) == []


def test_a_change_that_was_given_up_leaves_nothing_in_the_shared_ancestry() -> None:
    kv = MemoryKv()
    store, _freed = open_store(kv)
    for lineage in (1, 2):
        store.create_lineage(lineage, family=1)
        store.put(lineage, Kind.INODE, INO, b"of %d" % lineage)
        store.pin_head(lineage, snapshot(1))
    ancestry = Ancestry()
    given_up = VersionStore(Overlay(kv), lambda *_: None, ancestry=ancestry)
    given_up.fork(1, 1, 3, family=1)
    assert given_up.get(3, 1, Kind.INODE, INO) == b"of 1"
    store.fork(2, 1, 3, family=1)
    assert VersionReader(kv, ancestry).get(3, 1, Kind.INODE, INO) == b"of 2"


def test_any_ancestor_of_a_long_line_is_a_few_steps_away() -> None:
    line = [Ancestor(1, LineageRecord(Lineage(0), Epoch(0), Epoch(1), True, False, 1, False, 0, 0), None)]
    for number in range(2, 1025):
        record = LineageRecord(Lineage(number - 1), Epoch(1), Epoch(1), True, False, 1, True, 0, 0)
        line.append(Ancestor(2 * number, record, line[-1]))
    for than in range(0, 2050, 7):
        wanted = next((a for a in line[1:] if a.lineage > than), line[-1])
        assert line[-1].last_younger(than) is wanted
        at, steps = line[-1], 0
        while at is not wanted:
            assert at.above is not None
            at = at.jump if at.jump.lineage > than and at.jump is not at else at.above
            steps += 1
        assert steps <= 20


def test_ancestors_are_forgotten_at_the_bound_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestry_module, "KNOWN_MAX", 7)
    kv = MemoryKv()
    epoch = generations(kv, 30)
    ancestry = Ancestry()
    for lineage in (30, 12, 30, 29):
        reader = VersionReader(kv, ancestry)
        assert reader.depth(lineage) == lineage
        assert reader.get(lineage, epoch, Kind.INODE, ino(50)) == b"first"
        assert len(ancestry._known) <= 7


# -- verify


def test_verify_notices_wrong_holdings_and_inode_numbers() -> None:
    kv = MemoryKv()
    generations(kv, 5)
    assert verify(kv) == []
    rows = list(kv.scan("holdings", b"", END))
    assert len(rows) == 4
    for key, value in rows:
        for wrong in (ino(int.from_bytes(value) + 1), ino(0), b""):
            damaged = Overlay(kv)
            damaged.put("holdings", key, wrong)
            assert any("its holding says otherwise" in finding for finding in verify(damaged))
        damaged = Overlay(kv)
        damaged.put("holdings", ino(1) + ino(77) + key[16:], value)
        assert any("table holdings" in finding for finding in verify(damaged))
    for lineage, record in VersionReader(kv).lineages():
        for wrong_record in (
            record._replace(ino_max=record.ino_max - 1),
            record._replace(inherited_ino_max=record.inherited_ino_max + 1),
            record._replace(inherited_ino_max=record.inherited_ino_max - 1 if record.parent else 1),
            record._replace(indexed=not record.indexed),
            record._replace(family=2),
        ):
            damaged = Overlay(kv)
            damaged.put("lineages", ino(lineage), pack_lineage(wrong_record))
            assert verify(damaged), (lineage, wrong_record)


def eventful() -> MemoryKv:
    """Every kind of row: clones, living and dead tombstones, and reclaims halfway through."""
    kv = MemoryKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    for number in (1, 2, 3, 4):
        store.put(1, Kind.INODE, ino(number), b"first")
    store.pin_head(1, snapshot(1))
    store.delete(1, Kind.INODE, ino(1))
    store.put(1, Kind.INODE, ino(2), b"second")
    store.pin_head(1, snapshot(2))
    store.put(1, Kind.INODE, ino(1), b"third")
    store.put(1, Kind.INODE, ino(2), b"third")
    store.put(1, Kind.INODE, ino(3), b"third")
    store.fork(1, 2, 2, family=1)
    store.delete(2, Kind.INODE, ino(3))
    store.put(2, Kind.INODE, ino(4), b"fork")
    store.pin_head(2, snapshot(3))
    store.put(2, Kind.INODE, ino(4), b"fork again")
    store.put(2, Kind.INODE, ino(5), b"fork again")
    store.drop_head(2)
    assert not store.reclaim_head_step(2, 1).done
    store.fork(1, 1, 3, family=1)
    store.put(3, Kind.INODE, ino(1), b"doomed")
    third = store.pin_head(3, snapshot(4))
    store.put(3, Kind.INODE, ino(1), b"doomed too")
    store.release(3, third, snapshot(4))
    assert verify(kv) == []
    return kv


def test_verify_notices_every_missing_row() -> None:
    kv = eventful()
    rows = rows_of(kv)
    assert len(rows) > 30
    for table, key, _value in rows:
        if table == "pins" and key[8] == 1 and key[17] == HolderType.SNAPSHOT:
            continue  # only the volume tree knows which snapshots there are
        damaged = Overlay(kv)
        damaged.delete(table, key)
        assert verify(damaged), f"{table} {key.hex()} may go unnoticed"


def test_verify_notices_rows_that_do_not_belong() -> None:
    kv = eventful()
    strays: list[tuple[str, bytes, bytes]] = []
    for table, key, value in rows_of(kv):
        if table != "lineages":
            strays.append((table, ino(9) + key[8:], value))  # of a lineage that is not there
        if table == "versions":
            strays.append((table, key[:-8] + ino(0), value))  # born after the head
            strays.append((table, key + b"\0", value))  # of a wrong length
        if table == "deadlist":
            strays.append((table, key[:8] + ino(1) + key[16:], value))  # dead before it was born, or twice
        if table == "births":
            strays.append((table, key, ino(77)))
            strays.append((table, key[:8] + ino(99) + key[16:], value))
    strays.append(("versions", ino(1) + b"\x09" + INO + ino(2**64 - 2), b"x"))  # of no known kind
    strays.append(("versions", ino(1) + b"\x02" + INO + ino(2**64 - 2), b""))  # hides nothing
    strays.append(("pins", ino(1) + b"\x01" + ino(1) + b"\x02" + ino(9), b"\x01"))  # held by no lineage
    strays.append(("pins", ino(1) + b"\x02" + ino(1), ino(2)))  # held and dropping
    for table, key, value in strays:
        damaged = Overlay(kv)
        damaged.put(table, key, value)
        assert verify(damaged), f"{table} {key.hex()} may go unnoticed"


def test_verify_notices_a_cursor_that_went_too_far() -> None:
    kv = MemoryKv()
    store, _freed = open_store(kv)
    store.create_lineage(1, family=1)
    store.put(1, Kind.INODE, INO, b"a")
    pin = store.pin_head(1, snapshot(1))
    store.put(1, Kind.INODE, INO, b"b")
    store.release(1, pin, snapshot(1))
    assert verify(kv) == []
    ((key, cursor),) = kv.scan("pins", b"", END)
    kv.put("pins", key, ino(int.from_bytes(cursor) + 1))
    assert any("no reclaim will find it" in finding for finding in verify(kv))


# ---------------------------------------------------------------- weights


SLOTS = [INO + bytes([0, 0, 0, 1]) + ino(number) for number in range(3)]


def test_a_clone_is_charged_for_what_only_it_keeps_of_a_deleted_ancestor() -> None:
    kv = MemoryKv()
    store = VersionStore(kv, lambda *_: None, lambda value: Weight(len(value), 2 * len(value)))
    store.create_lineage(1, family=9)
    store.put(1, Kind.SLOT, SLOTS[0], b"1234")
    store.put(1, Kind.SLOT, SLOTS[1], b"12")
    epoch = store.pin_head(1, snapshot(7))
    store.fork(1, epoch, 2, family=9)
    store.put(2, Kind.SLOT, SLOTS[2], b"1")
    store.flush()
    assert shown_by(kv, 2, HEAD) == Weight(7, 14)
    assert freed_by_head(kv, store, 2) == Weight(1, 2)
    assert freed_by_pin(kv, store, 1, epoch) == Weight()  # the clone holds it too
    store.drop_head(1)
    store.reclaim_head_step(1, 100)
    store.release(1, epoch, snapshot(7))
    store.flush()
    assert freed_by_head(kv, store, 2) == Weight(7, 14)
    store.put(2, Kind.SLOT, SLOTS[1], b"123456")
    store.flush()
    assert shown_by(kv, 2, HEAD) == Weight(11, 22)
    assert freed_by_head(kv, store, 2) == Weight(13, 26)  # what it hides of its ancestor goes with it
