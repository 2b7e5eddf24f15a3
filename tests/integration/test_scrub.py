"""A scrub of a real pool finds what a disk has silently lost, and the pool repairs it from the siblings."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from redfs.storage_node.disk import PAGE_BYTES
from redfs.storage_node.record import RECORD_MAGIC
from tests.integration.pools import RunningPool, wait_for

pytestmark = pytest.mark.mount

MIB = 1 << 20
NOISE = random.Random(5).randbytes(4 * MIB)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[RunningPool]:
    running = RunningPool(tmp_path, nodes=4, settings="scrub_bytes_per_s = 0\n")
    try:
        running.up()
        yield running
    finally:
        running.destroy()


def records_of(folder: Path) -> list[tuple[Path, int]]:
    """(backing file, offset) of what looks like a record on a node's disk."""
    found = []
    for path in sorted(folder.glob("*.shards")):
        content = path.read_bytes()
        pages = range(0, len(content), PAGE_BYTES)
        found += [(path, at) for at in pages if content[at : at + 8] == RECORD_MAGIC]
    return found


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        before = file.read(1)
        file.seek(at)
        file.write(bytes([before[0] ^ 1]))
        os.fsync(file.fileno())


def test_silent_damage_is_found_and_repaired(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "data", "--protect", "ec:2+1")
    place = pool.mount("data")
    with (place / "file").open("wb", buffering=0) as file:
        file.write(NOISE)
        os.fsync(file.fileno())
    pool.umount(place)
    assert pool.data("scrub", "--wait")["bad"] == 0
    before = pool.data("status")["scrub"]
    assert before["shards"] > 0
    path, at = records_of(pool.local.folder / "node-1")[0]
    flip(path, at + PAGE_BYTES + 17)
    result = pool.data("scrub", "--wait")
    assert (result["bad"], result["shards"]) == (1, before["shards"])
    assert "1 bad one found" in pool.redfs("status")

    def is_repaired() -> bool:
        return not any(node["damaged_shards"] for node in pool.data("node", "ls"))

    wait_for(is_repaired, "the damaged shard made anew")
    assert pool.data("scrub", "--wait")["bad"] == 0
    assert "clean: " in pool.redfs("check", "--data")
    place = pool.mount("data")
    assert (place / "file").read_bytes() == NOISE
    pool.umount(place)
