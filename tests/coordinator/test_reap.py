"""Reaping frees what a cut left behind, and nothing that can still be read."""

from __future__ import annotations

from redfs.coordinator.commits import Record
from redfs.coordinator.reads import reader_of
from redfs.core.records import (
    GenerationRange,
    Orphan,
    decode_inode,
    encode_inode,
    encode_orphan,
    inode_key,
    orphan_key,
)
from tests.coordinator.harness import Client, Pool, fingerprint

INO = 10
SLOTS = 100
KEPT = 3


def cut_file() -> tuple[Pool, Client]:
    """A file of 100 slots, cut to 3 as a client does it: a new generation from slot 3 on, the old one an orphan."""
    pool = Pool(reclaim_budget_rows=8)
    pool.create("v")
    client = Client(pool, "v")
    client.create_file("f", INO, SLOTS)
    client.write({(INO, slot): f"word {slot}" for slot in range(SLOTS)})
    with pool.coordinator.read() as kv:
        inode = decode_inode(reader_of(kv, pool.volume("v")).get(*inode_key(INO)) or b"")
    generations = (GenerationRange(0, 1), GenerationRange(KEPT, 2))
    short = inode._replace(size=KEPT * 131072, generations=generations, next_generation=3)
    request, _ = client.request(
        records=[
            Record(*inode_key(INO), encode_inode(short)),
            Record(*orphan_key(INO, 1), encode_orphan(Orphan(1))),
        ]
    )
    client.send(request)
    return pool, client


def test_a_cut_in_the_middle_keeps_the_slots_before_it() -> None:
    pool, _ = cut_file()
    pool.run_jobs()
    row = pool.volume("v")
    for slot in range(SLOTS):
        expected = [fingerprint(f"word {slot}").hex()] if slot < KEPT else None
        assert pool.read_slot(row, INO, slot) == expected, slot
    assert pool.totals().blocks == KEPT
    assert pool.problems() == []


def test_a_snapshot_taken_before_the_reaping_keeps_all_slots() -> None:
    pool, _ = cut_file()
    pool.snapshot("v@kept")
    pool.run_jobs()
    row = pool.volume("v@kept")
    assert pool.totals().blocks == SLOTS
    assert pool.read_slot(row, INO, SLOTS - 1) == [fingerprint(f"word {SLOTS - 1}").hex()]
    assert pool.problems() == []
