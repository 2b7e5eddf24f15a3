"""Equal blocks are stored once, compressible ones small, and what is deleted comes back."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from redfs.proto.gen import cluster_pb2 as pb
from tests.integration.pools import RunningPool, wait_for

pytestmark = pytest.mark.mount

MIB = 1 << 20


def status(pool: RunningPool) -> pb.PoolStatus:
    with pool.api() as api:
        return api.status()


def used_bytes(pool: RunningPool) -> int:
    with pool.api() as api:
        return sum(node.used_bytes for node in api.nodes())


def synced(path: Path, content: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())


def test_a_second_copy_costs_next_to_nothing(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "twice", "--protect", "ec:4+2")
    place = pool.mount("twice")
    content = random.Random(1).randbytes(8 * MIB)
    synced(place / "one", content)
    before = status(pool)
    shutil.copyfile(place / "one", place / "two")
    pool.umount(place)
    after = status(pool)
    assert after.logical_bytes - before.logical_bytes == len(content)
    assert after.stored_bytes - before.stored_bytes < len(content) // 20
    place = pool.mount("twice")
    assert (place / "two").read_bytes() == content
    # The first copy goes: what both shared must stay.
    (place / "one").unlink()
    pool.umount(place)
    pool.wait_for_idle()
    place = pool.mount("twice")
    assert (place / "two").read_bytes() == content
    pool.umount(place)
    pool.assert_clean()


def test_text_is_compressed_and_noise_is_not_made_larger(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "text", "--protect", "ec:4+2")
    place = pool.mount("text")
    before = status(pool)
    text = b"".join(b"line %d of a long and rather regular text\n" % number for number in range(100_000))
    synced(place / "text", text)
    middle = status(pool)
    synced(place / "noise", random.Random(2).randbytes(2 * MIB))
    after = status(pool)
    assert middle.stored_bytes - before.stored_bytes < len(text) // 3
    assert 2 * MIB <= after.stored_bytes - middle.stored_bytes < 2 * MIB + 4096
    pool.umount(place)
    place = pool.mount("text")
    assert (place / "text").read_bytes() == text
    pool.umount(place)


def test_a_volume_without_compression_stores_what_it_is_given(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "plain", "--protect", "ec:4+2", "--compression", "none")
    place = pool.mount("plain")
    before = status(pool)
    content = b"".join(number.to_bytes(8, "big") * 16 for number in range(16_384))
    synced(place / "file", content)
    assert status(pool).stored_bytes - before.stored_bytes >= len(content)
    pool.umount(place)


def test_deleted_files_give_their_space_back(pool: RunningPool) -> None:
    pool.wait_for_idle()
    pool.redfs("volume", "create", "short", "--protect", "mirror:2")
    before = status(pool)
    used_before = used_bytes(pool)
    place = pool.mount("short")
    for number in range(4):
        synced(place / f"file-{number}", random.Random(100 + number).randbytes(4 * MIB))
    full = status(pool)
    assert full.stored_bytes - before.stored_bytes >= 16 * MIB
    wait_for(lambda: used_bytes(pool) - used_before >= 32 * MIB, "the nodes' own accounts")
    disk_full = pool.disk_bytes()
    for number in range(4):
        (place / f"file-{number}").unlink()
    pool.umount(place)
    pool.wait_for_idle()
    after = status(pool)
    assert after.stored_bytes == before.stored_bytes
    assert after.segment_bytes <= before.segment_bytes
    wait_for(lambda: used_bytes(pool) - used_before < MIB, "the nodes' own accounts")
    # Nodes keep some space allocated ahead, which is neither here nor there: the holes are what counts.
    wait_for(lambda: disk_full - pool.disk_bytes() > 28 * MIB, "the disk space back")
    pool.assert_clean()


def test_a_quota_stops_writes_when_it_is_reached_and_deleting_goes_on(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "narrow", "--protect", "ec:4+2", "--quota", "6M")
    place = pool.mount("narrow")
    space = os.statvfs(place)
    assert space.f_blocks * space.f_frsize == 6 * MIB
    synced(place / "fits", bytes(5 * MIB))
    with pytest.raises(OSError, match="No space left"):
        (place / "too much").write_bytes(random.Random(1).randbytes(2 * MIB))
    wait_for(lambda: os.statvfs(place).f_bavail * space.f_frsize <= MIB, "the space that is left shown")
    usage = pool.data("volume", "info", "narrow")["usage"]
    assert 5 * MIB <= usage["logical_bytes"] <= 6 * MIB
    (place / "too much").unlink()
    (place / "fits").unlink()
    synced(place / "marker", b"x")
    pool.wait_for_idle()
    synced(place / "again", bytes(5 * MIB))
    pool.redfs("volume", "set", "narrow", "--quota", "20M")
    synced(place / "more", bytes(8 * MIB))
    pool.umount(place)
    pool.assert_clean()


def test_what_was_counted_as_freed_comes_back(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "going", "--protect", "ec:4+2")
    place = pool.mount("going")
    synced(place / "old", random.Random(2).randbytes(8 * MIB))
    pool.redfs("snapshot", "create", "going@s")
    (place / "old").unlink()
    synced(place / "new", random.Random(3).randbytes(4 * MIB))
    pool.umount(place)
    pool.wait_for_idle()
    before = status(pool)
    counted = pool.data("volume", "freed", "going@s")
    assert counted["logical_bytes"] == 8 * MIB
    assert pool.data("volume", "info", "going@s")["usage"]["logical_alone_bytes"] == 8 * MIB
    pool.redfs("snapshot", "rm", "going@s", "--yes")
    pool.wait_for_idle()
    after = status(pool)
    for name in ("logical_bytes", "unique_bytes", "stored_bytes", "segment_bytes"):
        assert getattr(before, name) - getattr(after, name) == counted[name], name
    pool.assert_clean()
