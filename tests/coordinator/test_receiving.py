"""What receiving a volume asks of the coordinator: its seed, inode numbers, origin, and the records that differ."""

from __future__ import annotations

from functools import partial

import pytest

from redfs.coordinator import reads, sessions, volumes
from redfs.core.errors import InvalidArgument
from redfs.core.records import ROOT_KEY, Kind, decode_root, inode_key
from redfs.core.tables import VolumeRow
from tests.coordinator.harness import Client, Pool

SEED = 0x0123456789ABCDEF


def test_a_volume_is_made_with_a_seed_that_was_brought() -> None:
    pool = Pool()
    made = pool.coordinator.execute(lambda txn: volumes.create_volume(txn, "v", hash_seed=SEED))
    other = pool.create("w")
    with pool.coordinator.read() as kv:
        roots = [decode_root(reads.reader_of(kv, row).get(*ROOT_KEY) or b"") for row in (made, other)]
    assert roots[0].hash_seed == SEED != roots[1].hash_seed


def test_numbers_are_granted_above_those_that_were_brought() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")

    def grant(count: int, above: int) -> tuple[int, int]:
        return pool.coordinator.execute(
            lambda txn: sessions.grant_inodes(txn, client.session_id, client.volume_id, count, above)
        )

    first = grant(5, 0)[0]
    assert grant(1, 1000) == (1001, 1)
    assert grant(3, 1000) == (1002, 3)
    assert grant(1, first) == (1005, 1), "never back"
    for above in (sessions.MAX_INO, sessions.MAX_INO - 1):
        with pytest.raises(InvalidArgument):
            grant(1, above)


def test_a_received_snapshot_keeps_its_origin() -> None:
    pool = Pool()
    pool.create("v")
    pool.coordinator.execute(lambda txn: volumes.create_snapshot(txn, "v@s", "pool:7:3"))
    pool.restart()
    assert pool.volume("v@s").origin == "pool:7:3"
    assert pool.volume("v").origin == ""
    assert pool.clone("v@s", "c").origin == ""
    for origin in ("x" * 200, "a\nb", "ü"):
        with pytest.raises(InvalidArgument):
            pool.coordinator.execute(partial(volumes.create_snapshot, name="v@t", origin=origin))


def changes(pool: Pool, since: VolumeRow, row: VolumeRow, limit: int) -> list[reads.Row]:
    found: list[reads.Row] = []
    cursor: bytes | None = b""
    pages = 0
    while cursor is not None:
        with pool.coordinator.read() as kv:
            sides = reads.reader_of(kv, since), reads.reader_of(kv, row)
            rows, cursor = reads.changed_rows(kv, *sides, cursor, limit)
        found += rows
        pages += 1
        assert pages < 500
    return found


def test_the_records_that_differ_come_by_inode_whatever_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    for number in range(6):
        client.create_file(f"f{number}", 10 + number, 8)
        client.write({(10 + number, slot): f"{number}-{slot}" for slot in range(8)})
    since = pool.snapshot("v@0")
    client.write({(12, slot): f"new-{slot}" for slot in range(5)})
    client.write({(12, 6): None, (14, 0): "x"})
    client.create_file("g", 20, 1)
    after = pool.snapshot("v@1")
    whole = changes(pool, since, after, 1000)
    keys = [(int.from_bytes(obj[:8]), kind) for kind, obj, _ in whole]
    assert keys == sorted(keys)
    assert {(ino, kind): keys.count((ino, kind)) for ino, kind in keys} == {
        (1, Kind.INODE): 1, (1, Kind.DIRENT): 1, (12, Kind.SLOT): 6, (14, Kind.SLOT): 1, (20, Kind.INODE): 1,
    }  # fmt: skip
    assert [value for kind, obj, value in whole if kind == Kind.SLOT and not value] == [b""], "the hole"
    monkeypatch.setattr(reads, "CHANGES_PAGE", 2)
    for limit in (1, 2, 3):
        assert changes(pool, since, after, limit) == whole
    assert changes(pool, since, since, 10) == []
    with pytest.raises(InvalidArgument, match="no ancestor"):
        changes(pool, after, since, 10)
    with pool.coordinator.read() as kv:
        sides = reads.reader_of(kv, since), reads.reader_of(kv, after)
        with pytest.raises(InvalidArgument, match="read on"):
            reads.changed_rows(kv, *sides, inode_key(1).obj[:3], 10)
