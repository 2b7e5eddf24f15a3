"""Cleaning with real processes: what is overwritten and small takes no more room than what is there."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from redfs.proto.gen import cluster_pb2 as pb
from tests.integration.pools import RunningPool

pytestmark = pytest.mark.mount

MIB = 1 << 20
KIB = 1 << 10
WHEN_ASKED = "clean_interval_s = 0\n"
GROWTH = 1.67
"""Times what the content takes at first: cleaning leaves segments alone of which more than 60 % are live."""
MakePool = Callable[..., RunningPool]


def status(pool: RunningPool) -> pb.PoolStatus:
    with pool.api() as api:
        return api.status()


def synced(path: Path, content: bytes | bytearray, offset: int = 0) -> None:
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.seek(offset)
        file.write(content)
        os.fsync(file.fileno())


def really_used_bytes(pool: RunningPool) -> int:
    """What the shards take on the disks. Only a pool that is down has nothing allocated ahead."""
    pool.wait_for_idle()
    pool.redfs("down")
    used = sum(path.stat().st_blocks * 512 for path in pool.local.folder.glob("node-*/*.shards"))
    assert used
    pool.up()
    pool.wait_for_nodes(pool.nodes)
    return used


def clean(pool: RunningPool) -> None:
    pool.redfs("clean", "--wait")


def test_a_pool_that_overwrites_its_content_ten_times_does_not_grow(fresh_pool: MakePool) -> None:
    pool = fresh_pool(6, WHEN_ASKED)
    pool.redfs("volume", "create", "v", "--protect", "ec:4+2")
    where = pool.mount("v")
    source = random.Random(1)
    content = bytearray(source.randbytes(4 * MIB))
    synced(where / "file", content)
    pool.umount(where)
    after_first = really_used_bytes(pool)
    where = pool.mount("v")
    for _ in range(10):
        # As much as everything, in pieces that leave something of each segment: one that dies whole needs no cleaning.
        starts = [source.randrange(4 * MIB // (64 * KIB)) * 64 * KIB for _ in range(4 * MIB // (64 * KIB))]
        with (where / "file").open("r+b", buffering=0) as file:
            for count, start in enumerate(starts):
                piece = source.randbytes(64 * KIB)
                content[start : start + len(piece)] = piece
                file.seek(start)
                file.write(piece)
                if count % 8 == 7:
                    os.fsync(file.fileno())
    pool.wait_for_idle()
    before = status(pool).segment_bytes
    clean(pool)
    assert (where / "file").read_bytes() == content
    pool.umount(where)
    clean(pool)
    now = really_used_bytes(pool)
    print("figures", after_first, before, now)
    assert before > GROWTH * after_first, "nothing to clean: this proves nothing"
    assert now < GROWTH * after_first
    where = pool.mount("v")
    assert (where / "file").read_bytes() == content
    pool.umount(where)
    pool.assert_clean()


def test_random_small_overwrites_do_not_make_it_grow(fresh_pool: MakePool) -> None:
    pool = fresh_pool(6, WHEN_ASKED)
    pool.redfs("volume", "create", "v", "--protect", "ec:4+2")
    where = pool.mount("v")
    source = random.Random(2)
    content = bytearray(source.randbytes(2 * MIB))
    synced(where / "file", content)
    pool.umount(where)
    after_first = really_used_bytes(pool)
    where = pool.mount("v")
    for _ in range(10):
        with (where / "file").open("r+b", buffering=0) as file:
            for count in range(2 * MIB // (4 * KIB)):
                start = source.randrange(2 * MIB // (4 * KIB)) * 4 * KIB
                piece = source.randbytes(4 * KIB)
                content[start : start + len(piece)] = piece
                file.seek(start)
                file.write(piece)
                if count % 64 == 63:
                    os.fsync(file.fileno())
    pool.umount(where)
    pool.wait_for_idle()
    before = status(pool).segment_bytes
    clean(pool)
    now = really_used_bytes(pool)
    print("figures", after_first, before, now)
    assert before > GROWTH * after_first, "nothing to clean: this proves nothing"
    assert now < GROWTH * after_first
    where = pool.mount("v")
    assert (where / "file").read_bytes() == content
    pool.umount(where)
    pool.assert_clean()


def test_small_files_take_half_the_room_once_they_are_packed(fresh_pool: MakePool) -> None:
    pool = fresh_pool(6, WHEN_ASKED)
    pool.redfs("volume", "create", "v", "--protect", "ec:4+2")
    where = pool.mount("v")
    source = random.Random(3)
    files = {f"file-{n}": source.randbytes(16 * KIB) for n in range(40)}
    for name, content in files.items():
        synced(where / name, content)
    found = status(pool)
    assert found.segment_bytes > 2.9 * found.stored_bytes
    # One that reads beside it, and knows where everything lay.
    beside = pool.mount("v", "--read-only")
    clean(pool)
    pool.wait_for_idle()
    found = status(pool)
    assert found.segment_bytes < 1.6 * found.stored_bytes
    for place in (where, beside):
        assert {name: (place / name).read_bytes() for name in files} == files
        pool.umount(place)
    pool.assert_clean()


def test_segments_written_while_nodes_were_few_are_widened(fresh_pool: MakePool) -> None:
    pool = fresh_pool(4, WHEN_ASKED)
    pool.redfs("volume", "create", "v", "--protect", "ec:2+2")
    where = pool.mount("v")
    content = random.Random(4).randbytes(2 * MIB)
    pool.kill("node-3")
    pool.wait_for_nodes(3)
    synced(where / "file", content)
    found = status(pool)
    assert found.segment_bytes > 2.9 * found.stored_bytes
    clean(pool)
    assert status(pool).segment_bytes == found.segment_bytes, "a node that is away for a moment is waited for"
    pool.up()
    pool.wait_for_nodes(4)
    clean(pool)
    pool.wait_for_idle()
    found = status(pool)
    assert found.segment_bytes < 2.1 * found.stored_bytes
    assert (where / "file").read_bytes() == content
    pool.umount(where)
    pool.assert_clean()
