"""What nodes of the tree are charged, quotas, and what deleting some of them would free."""

from __future__ import annotations

import random

import pytest

from redfs.coordinator import sessions, usage, volumes
from redfs.coordinator.requests import show_volume
from redfs.coordinator.store import MemoryStore
from redfs.core.errors import InvalidArgument, NotAllowed, NotFound
from redfs.core.records import SLOT_BYTES
from redfs.core.tables import StatsRow
from redfs.core.volume_tree import ReadTree
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Client, Pool


def shown(pool: Pool, name: str) -> pb.Volume:
    with pool.coordinator.read() as kv:
        return show_volume(kv, ReadTree(kv).named(name))


def freed(pool: Pool, *names: str) -> usage.Freed:
    with pool.coordinator.read() as kv:
        return usage.freed_by(kv, names)


def test_a_node_is_charged_for_what_it_shows_and_for_what_only_it_keeps() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "a", (10, 1): "b"})
    pool.snapshot("v@s")
    client.write({(10, 1): "c", (10, 2): "d"})
    volume, snapshot = shown(pool, "v").usage, shown(pool, "v@s").usage
    assert (volume.logical_bytes, volume.logical_alone_bytes) == (3 * SLOT_BYTES, 2 * SLOT_BYTES)
    assert (snapshot.logical_bytes, snapshot.logical_alone_bytes) == (2 * SLOT_BYTES, SLOT_BYTES)
    # The test's blocks are stored as 100 bytes and one more for each block before in its commit.
    assert (volume.stored_bytes, volume.stored_alone_bytes) == (100 + 100 + 101, 100 + 101)
    assert (snapshot.stored_bytes, snapshot.stored_alone_bytes) == (100 + 101, 101)
    pool.clone("v@s", "c")
    assert shown(pool, "c").usage == pb.Usage(logical_bytes=2 * SLOT_BYTES, stored_bytes=201)
    assert shown(pool, "v@s").usage.logical_alone_bytes == 0, "the clone holds it too"


def test_what_may_be_asked_for_on_each_node() -> None:
    pool = Pool()
    pool.create("v")
    assert shown(pool, "zero").allowed == ["clone"]
    assert "rollback" not in shown(pool, "v").allowed
    pool.snapshot("v@s")
    assert list(shown(pool, "v").allowed) == [
        "snapshot", "clone", "clone_backed", "mount", "set", "rename", "rollback", "delete",
    ]  # fmt: skip
    assert list(shown(pool, "v@s").allowed) == ["mount", "clone", "restore", "set", "rename", "delete"]
    pool.clone("v", "c")
    pool.delete("v", force=True)
    pool.run_jobs()
    with pool.coordinator.read() as kv:
        gone = next(row for row in ReadTree(kv).all() if row.name == "v")
        assert show_volume(kv, gone).allowed == []


def test_a_quota_is_what_the_volume_may_still_grow_by() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")

    def left() -> int | None:
        return pool.coordinator.execute(
            lambda txn: sessions.reserve(txn, client.session_id, client.volume_id, 1)
        ).quota_left_bytes

    def set_quota(slots: int) -> None:
        pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v", quota_bytes=slots * SLOT_BYTES))

    assert left() is None
    set_quota(3)
    assert left() == 3 * SLOT_BYTES
    client.write({(10, 0): "a", (10, 1): "a"})
    assert left() == SLOT_BYTES, "equal data counts each time"
    pool.snapshot("v@s")
    client.write({(10, 1): None})
    assert left() == 2 * SLOT_BYTES, "what only snapshots hold does not count"
    set_quota(1)
    client.write({(10, 1): "b"})
    assert left() == 0
    assert pool.clone("v", "c").quota_bytes == SLOT_BYTES, "inherited"
    set_quota(0)
    assert left() is None
    with pytest.raises(InvalidArgument, match="quota"):
        set_quota(1 << 60)


def test_counting_what_goes_refuses_what_is_not_there_or_never_goes() -> None:
    pool = Pool()
    pool.create("v")
    with pytest.raises(NotFound):
        freed(pool, "v", "w")
    with pytest.raises(NotAllowed):
        freed(pool, "zero")
    assert freed(pool, "v", "v") == usage.Freed(0, 0, 0, 0)


def test_shared_and_deduplicated_data_goes_with_the_last_that_has_it() -> None:
    pool = Pool()
    pool.create("v", "ec:4+2")
    pool.create("w", "ec:4+2")
    Client(pool, "v").write({(10, 0): "a"})
    Client(pool, "w").write({(10, 0): "a"})
    pool.snapshot("v@s")
    alone = usage.Freed(0, 0, 0, 0)
    assert freed(pool, "v") == freed(pool, "v@s") == alone
    assert freed(pool, "v", "v@s") == alone._replace(logical_bytes=SLOT_BYTES)
    assert freed(pool, "v", "v@s", "w") == usage.Freed(2 * SLOT_BYTES, SLOT_BYTES, 100, 6 * 64 * 1024)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("window", [usage.MAX_COUNTED_BLOCKS, 3])
def test_the_count_is_what_deleting_frees(seed: int, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random histories; a random set of nodes is deleted in a copy of the pool, and its totals compared."""
    monkeypatch.setattr(usage, "MAX_COUNTED_BLOCKS", window)
    dice = random.Random(seed)
    pool = Pool(6, reclaim_budget_rows=3)
    nodes: list[str] = []
    for turn in range(dice.randint(10, 40)):
        live = [name for name in nodes if "@" not in name]
        act = dice.choice(["create", "write", "write", "write", "snapshot", "clone", "delete", "roll back", "step"])
        if act == "create" or not live:
            nodes.append(pool.create(f"v{turn}", "ec:2+1").name)
        elif act == "write":
            client = Client(pool, dice.choice(live))
            slots = {(dice.randint(10, 12), dice.randint(0, 2)): dice.choice("abcdef") for _ in range(3)}
            client.write({at: word if word != "f" else None for at, word in slots.items()})
            client.close()
        elif act == "snapshot":
            nodes.append(pool.snapshot(f"{dice.choice(live)}@s{turn}").name)
        elif act == "clone":
            nodes.append(pool.clone(dice.choice(nodes), f"c{turn}").name)
        elif act == "delete":
            nodes.remove(gone := dice.choice(nodes))
            pool.delete(gone, force=True)
        elif act == "roll back":
            snapshots = [name for name in nodes if name.partition("@")[0] in live and "@" in name]
            if snapshots and (kept := pool.roll_back(dice.choice(snapshots), discard=dice.random() < 0.5).kept):
                nodes.append(kept.name)
        else:
            pool.coordinator.background_step()
    chosen = [name for name in nodes if dice.random() < 0.5]
    counted = freed(pool, *chosen)
    for name in chosen:
        alone = shown(pool, name).usage.logical_alone_bytes
        assert freed(pool, name).logical_bytes == alone, name
    without, with_them = totals_after(pool, []), totals_after(pool, chosen)
    assert counted == usage.Freed(
        without.logical_bytes - with_them.logical_bytes,
        without.unique_bytes - with_them.unique_bytes,
        without.stored_bytes - with_them.stored_bytes,
        without.segment_bytes - with_them.segment_bytes,
    )


def totals_after(pool: Pool, names: list[str]) -> StatsRow:
    """The pool's totals when these nodes are deleted and all is cleaned up, in a copy of it."""
    store = MemoryStore()
    assert isinstance(pool.store, MemoryStore)
    for table, rows in pool.store.committed._tables.items():
        for key, value in rows.items():
            store.committed.put(table, key, value)
    copy = Pool(0, store)
    for name in names:
        copy.delete(name, force=True)
    copy.run_jobs()
    assert copy.problems() == []
    return copy.totals()
