"""Views: frozen points that a session holds, whatever becomes of the node that they show."""

from __future__ import annotations

import pytest

from redfs.coordinator import reads, sessions, volumes
from redfs.core.errors import LeaseLapsed, NotAllowed
from redfs.core.tables import StatsRow, VolumeRow
from redfs.core.versions.layout import PINS, Holder, HolderType, held_key
from redfs.core.volume_tree import ReadTree
from tests.coordinator.harness import Client, Pool, fingerprint


def open_session(pool: Pool) -> int:
    return pool.coordinator.execute(lambda txn: sessions.open_session(txn, "reader")).session_id


def view(pool: Pool, session_id: int, name: str) -> VolumeRow:
    return pool.coordinator.execute(lambda txn: sessions.attach_view(txn, session_id, name))[0]


def read_view(pool: Pool, session_id: int, volume_id: int, ino: int, slot: int) -> list[str] | None:
    with pool.coordinator.read() as kv:
        row = reads.volume_reader(kv, session_id, volume_id).row
    return pool.read_slot(row, ino, slot)


def test_a_view_shows_what_was_committed_when_it_was_made() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    session = open_session(pool)
    shown = view(pool, session, "v")
    client.write({(10, 0): "b"})
    assert read_view(pool, session, shown.volume_id, 10, 0) == [fingerprint("a").hex()]
    assert pool.problems() == []


def test_a_view_outlives_its_node_and_its_data_goes_with_it() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    pool.snapshot("v@s")
    client.close()
    session = open_session(pool)
    shown = view(pool, session, "v@s")
    pool.delete("v@s")
    pool.delete("v")
    pool.run_jobs()
    assert read_view(pool, session, shown.volume_id, 10, 0) == [fingerprint("a").hex()]
    assert pool.problems() == []
    pool.coordinator.execute(lambda txn: sessions.detach(txn, session, shown.volume_id))
    pool.run_jobs()
    assert pool.totals() == StatsRow()
    with pytest.raises(LeaseLapsed):
        read_view(pool, session, shown.volume_id, 10, 0)


def test_a_view_is_no_mount_and_ends_with_its_session() -> None:
    pool = Pool()
    pool.create("v")
    session = open_session(pool)
    shown = view(pool, session, "v")
    with pool.coordinator.read() as kv:
        assert volumes.mounts_of(kv, pool.volume("v").volume_id) == []
        assert volumes.mounts_of(kv, shown.volume_id) == []
    pool.delete("v")
    pool.coordinator.execute(lambda txn: sessions.end_session(txn, session))
    pool.run_jobs()
    assert pool.problems() == []
    with pool.coordinator.read() as kv:
        assert [row.name for row in ReadTree(kv).all()] == ["zero"]


def test_a_session_has_a_bounded_number_of_views() -> None:
    pool = Pool()
    pool.create("v")
    session = open_session(pool)
    for _ in range(sessions.MAX_ATTACHMENTS):
        view(pool, session, "v")
    with pytest.raises(NotAllowed, match="at most"):
        view(pool, session, "v")


def test_check_finds_a_pin_that_nobody_holds_and_a_snapshot_without_its_pin() -> None:
    pool = Pool()
    pool.create("v")
    row = pool.snapshot("v@s")
    key = held_key(row.lineage, row.epoch, Holder(HolderType.SNAPSHOT, row.volume_id))
    stray = held_key(row.lineage, row.epoch, Holder(HolderType.VIEW, 99))
    pool.store.write(lambda kv: kv.apply([(PINS, key, None), (PINS, stray, b"\x01")]))
    found = "\n".join(pool.problems())
    assert "view 99, which is gone" in found
    assert f"snapshot {row.volume_id} does not hold its pin" in found
