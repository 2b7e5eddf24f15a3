"""Trees that are deep and trees that are wide: every generation shows its own content, and no command looks at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from redfs.coordinator import volumes
from redfs.coordinator.reads import reader_of
from redfs.coordinator.store import MemoryStore
from redfs.core.errors import NotAllowed
from redfs.core.kv import MemoryKv
from redfs.core.records import Kind, inode_key, slot_key
from redfs.core.tables import META, VOLUME_COUNT_KEY, encode_u64
from redfs.core.versions.layout import HOLDINGS
from redfs.core.volume_tree import ReadTree, VolumeTree
from tests.coordinator.harness import Client, Pool, fingerprint

GENERATIONS = 100
SHARED_INO, SHARED_SLOTS = 10, 8
OWN_INO = 1000

Content = dict[tuple[int, int], str]
"""(inode, slot) -> word of what is written there."""


def check_content(pool: Pool, name: str, content: Content) -> None:
    """All slots of a node: each by itself, by file, and as one listing; with and without the shared ancestry."""
    row = pool.volume(name)
    for (ino, slot), word in content.items():
        assert pool.read_slot(row, ino, slot) == [fingerprint(word).hex()], (name, ino, slot)
    with pool.coordinator.read() as kv:
        for ancestry in (pool.coordinator.env.ancestry, None):
            volume = reader_of(kv, row, ancestry)
            found = volume.versions.scan(row.lineage, volume.epoch, Kind.SLOT, b"", None, 9999)
            assert [obj for obj, _ in found] == [slot_key(ino, 1, slot).obj for ino, slot in sorted(content)], name
            low, high = inode_key(SHARED_INO).obj, inode_key(SHARED_INO + 1).obj
            assert volume.scan(Kind.SLOT, low, high, 99) == [row for row in found if low <= row[0] < high]


def make_generations(pool: Pool) -> dict[str, Content]:
    """g1 to g100, each a clone of the one before that rewrote a slot of a file they share, made a file of its own and
    removed that of the generation ten before."""
    pool.create("g1")
    content: Content = {}
    kept: dict[str, Content] = {}
    for number in range(1, GENERATIONS + 1):
        if number > 1:
            pool.clone(f"g{number - 1}", f"g{number}")
        client = Client(pool, f"g{number}")
        if number == 1:
            client.create_file("shared", SHARED_INO, SHARED_SLOTS)
            changes: dict[tuple[int, int], str | None] = {(SHARED_INO, s): f"first {s}" for s in range(SHARED_SLOTS)}
        else:
            changes = {(SHARED_INO, number % (SHARED_SLOTS - 2)): f"{number} in shared"}
        client.create_file(f"own-{number}", OWN_INO + number, 1)
        changes[OWN_INO + number, 0] = f"{number}'s own"
        if number > 10:
            changes[OWN_INO + number - 10, 0] = None
        client.write(changes)
        client.close()
        for place, word in changes.items():
            if word is None:
                del content[place]
            else:
                content[place] = word
        kept[f"g{number}"] = dict(content)
    return kept


def test_every_one_of_a_hundred_generations_shows_its_own_content() -> None:
    pool = Pool()
    kept = make_generations(pool)
    with pool.coordinator.read() as kv:
        assert next(kv.scan(HOLDINGS, b"", b"\xff"), None) is not None
    for name, content in kept.items():
        check_content(pool, name, content)
    for number in range(3, GENERATIONS, 3):
        pool.delete(f"g{number}")
        del kept[f"g{number}"]
    pool.run_jobs()
    pool.snapshot("g98@s")
    kept["g98@s"] = kept["g98"]
    client = Client(pool, "g98")
    client.write({(SHARED_INO, 0): "later", (OWN_INO + 95, 0): None})
    client.close()
    pool.clone("g98", "late")
    kept["late"] = {place: word for place, word in kept["g98"].items() if place != (OWN_INO + 95, 0)}
    kept["late"][SHARED_INO, 0] = "later"
    pool.roll_back("g98@s", discard=True)
    pool.run_jobs()
    pool.restart()
    for name, content in kept.items():
        check_content(pool, name, content)
    assert pool.problems() == []
    for name in list(kept):
        if name != "g100":
            pool.delete(name)
    pool.run_jobs()
    check_content(pool, "g100", kept["g100"])
    pool.delete("g100")
    pool.run_jobs()
    assert pool.problems() == []
    with pool.coordinator.read() as kv:
        assert list(kv.scan(HOLDINGS, b"", b"\xff")) == []
        assert ReadTree(kv).count() == 1


def test_a_wrong_row_of_the_holdings_is_found_by_check() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.create_file("f", 10, 1)
    pool.clone("v", "c")
    clone = Client(pool, "c")
    clone.write({(10, 0): "changed"})
    assert pool.problems() == []
    assert isinstance(pool.store, MemoryStore)
    ((key, value),) = pool.store.committed.scan(HOLDINGS, b"", b"\xff")
    for wrong in (None, encode_u64(2)):
        pool.store.committed.apply([(HOLDINGS, key, wrong)])
        assert any("holding" in problem for problem in pool.problems())
    pool.store.committed.apply([(HOLDINGS, key, value)])
    assert pool.problems() == []


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


def test_commands_read_the_same_number_of_rows_in_a_tree_of_a_thousand_nodes() -> None:
    store = MemoryStore()
    kv = store.committed = CountingKv()
    pool = Pool(store=store)

    def reads(action: Callable[[], object]) -> int:
        before = kv.reads
        action()
        return kv.reads - before

    def costs(turn: str) -> dict[str, int]:
        return {
            "snapshot": reads(lambda: pool.snapshot(f"v@{turn}")),
            "clone": reads(lambda: pool.clone("v", f"c{turn}")),
            "clone of a snapshot": reads(lambda: pool.clone(f"v@{turn}", f"d{turn}")),
            "rename": reads(
                lambda: pool.coordinator.execute(lambda txn: volumes.rename_volume(txn, f"c{turn}", f"e{turn}"))
            ),
            "roll back": reads(lambda: pool.roll_back(f"v@{turn}", f"kept{turn}")),
            "delete": reads(lambda: pool.delete(f"e{turn}")),
            "delete a snapshot": reads(lambda: pool.delete(f"v@kept{turn}")),
        }

    pool.create("v")
    pool.snapshot("v@first")
    pool.run_jobs()
    few = costs("few")
    for number in range(500):
        pool.clone("v", f"more{number}")
        pool.snapshot(f"v@more{number}")
    pool.run_jobs()
    many = costs("many")
    assert {name: cost for name, cost in many.items() if cost > few[name] + 5} == {}


def test_the_limits_of_the_tree_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "MAX_SNAPSHOTS_PER_VOLUME", 3)
    pool = Pool()
    pool.create("v")
    for number in range(3):
        pool.clone("v", f"c{number}")
        pool.snapshot(f"v@s{number}")
    with pytest.raises(NotAllowed, match="has 3 snapshots already"):
        pool.snapshot("v@s3")
    pool.clone("v@s1", "below")
    pool.delete("v@s1")
    pool.snapshot("v@s3")
    with pytest.raises(NotAllowed):
        pool.snapshot("v@s4")
    pool.run_jobs()
    with pool.coordinator.read() as kv:
        nodes = len(list(ReadTree(kv).all()))
        assert ReadTree(kv).count() == nodes
    monkeypatch.setattr(volumes, "MAX_VOLUMES", nodes + 1)
    pool.create("last")
    with pytest.raises(NotAllowed, match="volumes and snapshots already"):
        pool.create("one-too-many")
    pool.delete("last")
    pool.run_jobs()
    pool.create("last")
    assert pool.problems() == []


def test_wrong_counts_are_found_by_check() -> None:
    pool = Pool()
    pool.create("v")
    pool.snapshot("v@s")
    assert isinstance(pool.store, MemoryStore)
    committed = pool.store.committed
    committed.put(META, VOLUME_COUNT_KEY, encode_u64(7))
    assert any("the tree has 3 nodes and says 7" in problem for problem in pool.problems())
    committed.put(META, VOLUME_COUNT_KEY, encode_u64(3))
    row = pool.volume("v@s")
    VolumeTree(committed)._count_snapshots(row.parent_id, 1)
    assert any("has 1 snapshots and says 2" in problem for problem in pool.problems())


def test_all_mounts_are_those_of_each_volume() -> None:
    pool = Pool()
    for name in ("a", "b", "c"):
        pool.create(name)
    clients = [Client(pool, "a", "first"), Client(pool, "b", "second")]
    with pool.coordinator.read() as kv:
        found = volumes.all_mounts(kv)
        ids = [pool.volume(name).volume_id for name in ("a", "b", "c")]
        assert {volume: volumes.mounts_of(kv, volume) for volume in ids} == {v: found.get(v, []) for v in ids}
        assert found == {clients[0].volume_id: ["first"], clients[1].volume_id: ["second"]}
