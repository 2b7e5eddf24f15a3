"""One contract for every `Disk`, and what the simulated one adds: what survives a loss of power."""

from __future__ import annotations

from pathlib import Path

import pytest

from redfs.storage_node.disk import PAGE_BYTES, Disk, DiskFile, FolderDisk
from tests.simulation.disk import PowerLost, SimulatedDisk


@pytest.fixture(params=["folder", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return FolderDisk(tmp_path / "disk") if request.param == "folder" else SimulatedDisk(seed=1)


def content(file: DiskFile) -> bytes:
    buffer = bytearray(file.size())
    assert file.pread_into(memoryview(buffer), 0) == len(buffer)
    return bytes(buffer)


def test_files_are_made_found_and_removed(disk: Disk) -> None:
    assert disk.list() == []
    disk.create("b").close()
    disk.create("a").close()
    assert disk.list() == ["a", "b"]
    with pytest.raises(FileExistsError):
        disk.create("a")
    disk.unlink("a")
    with pytest.raises(FileNotFoundError):
        disk.open("a")
    with pytest.raises(FileNotFoundError):
        disk.unlink("a")
    assert disk.list() == ["b"]


def test_an_unlinked_file_stays_readable_through_its_handle(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"still here"], 0)
    disk.unlink("a")
    assert content(file) == b"still here"
    file.close()


def test_buffers_are_written_one_after_another_and_read_back(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"one", bytearray(b"two"), memoryview(b"three")], 5000)
    file.fdatasync()
    assert content(file) == bytes(5000) + b"onetwothree"
    view = memoryview(bytearray(100))
    assert file.pread_into(view, 5003) == 8
    assert bytes(view[:8]) == b"twothree"
    assert file.pread_into(view, 9000) == 0
    file.close()


def test_preallocating_takes_space_and_keeps_the_size(disk: Disk) -> None:
    file = disk.create("a")
    if not file.preallocate(0, 16 * PAGE_BYTES):
        pytest.skip("this file system cannot")
    assert file.size() == 0
    assert file.allocated_bytes() >= 16 * PAGE_BYTES
    file.pwritev([bytes(PAGE_BYTES)], 0)
    file.truncate(PAGE_BYTES)
    assert (file.size(), file.allocated_bytes()) == (PAGE_BYTES, PAGE_BYTES)
    file.close()


def test_a_punched_range_reads_as_zeros_and_is_given_back(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"x" * (4 * PAGE_BYTES)], 0)
    file.fdatasync()
    before = file.allocated_bytes()
    if not file.punch_hole(PAGE_BYTES, 2 * PAGE_BYTES):
        pytest.skip("this file system cannot")
    assert content(file) == b"x" * PAGE_BYTES + bytes(2 * PAGE_BYTES) + b"x" * PAGE_BYTES
    assert file.allocated_bytes() == before - 2 * PAGE_BYTES
    assert file.seek_data(0) == 0
    assert file.seek_data(PAGE_BYTES) == 3 * PAGE_BYTES
    assert file.seek_data(4 * PAGE_BYTES) is None
    file.close()


def test_truncating_grows_and_cuts(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"abcdef"], 0)
    file.truncate(3)
    assert content(file) == b"abc"
    file.truncate(5)
    assert content(file) == b"abc\0\0"
    file.close()


def test_what_is_synced_is_there_after_memory_is_forgotten(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"abcdef"], 0)
    file.fdatasync()
    file.forget_cache()
    assert content(file) == b"abcdef"
    file.close()


def test_small_files_are_replaced_as_a_whole(disk: Disk) -> None:
    assert disk.read("state") is None
    disk.publish("state", b"first and longer")
    disk.publish("state", b"second")
    assert disk.read("state") == b"second"
    assert disk.list() == ["state"]
    assert 0 < disk.free_bytes() <= disk.total_bytes()


# ------------------------------------------------------------------------------------------ the simulated disk alone


def test_unsynced_pages_survive_in_any_combination_and_synced_ones_always() -> None:
    seen = set()
    for seed in range(60):
        disk = SimulatedDisk(seed)
        file = disk.create("a")
        file.pwritev([b"s" * PAGE_BYTES], 0)
        file.fdatasync()
        file.pwritev([b"u" * PAGE_BYTES, b"v" * PAGE_BYTES], PAGE_BYTES)
        disk.restart()
        found = content(disk.open("a"))
        assert found[:PAGE_BYTES] == b"s" * PAGE_BYTES
        seen.add((found[PAGE_BYTES : PAGE_BYTES + 1], found[2 * PAGE_BYTES : 2 * PAGE_BYTES + 1]))
    assert {(b"u", b"v"), (b"\0", b"v"), (b"u", b"\0"), (b"", b"")} <= seen


def test_published_files_are_the_old_or_the_new_one_wherever_power_is_lost() -> None:
    seen = set()
    for seed in range(20):
        for at in range(1, 7):
            disk = SimulatedDisk(seed)
            disk.publish("state", b"old")
            disk.lose_power_at = disk.operations + at
            try:
                disk.publish("state", b"new")
                published = True
            except PowerLost:
                published = False
            disk.restart()
            found = disk.read("state")
            seen.add((published, found))
            assert found == b"new" or (not published and found == b"old")
    assert seen == {(True, b"new"), (False, b"old"), (False, b"new")}


def test_a_failed_sync_leaves_pages_that_only_seem_written() -> None:
    disk = SimulatedDisk(0)
    file = disk.create("a")
    file.pwritev([b"lost"], 0)
    disk.fail_next_sync = True
    with pytest.raises(OSError, match="fdatasync failed"):
        file.fdatasync()
    file.fdatasync()  # reports success
    assert content(file) == b"lost"
    file.forget_cache()
    assert content(file) == b"\0\0\0\0"


def test_a_killed_process_loses_nothing_but_its_handles() -> None:
    disk = SimulatedDisk(0)
    file = disk.create("a")
    file.pwritev([b"kept"], 0)
    disk.kill()
    with pytest.raises(PowerLost):
        file.size()
    assert content(disk.open("a")) == b"kept"


def test_a_full_disk_says_so_and_may_have_written_a_part() -> None:
    disk = SimulatedDisk(0, capacity_bytes=2 * PAGE_BYTES)
    file = disk.create("a")
    with pytest.raises(OSError, match="no space"):
        file.pwritev([b"x" * (3 * PAGE_BYTES)], 0)
    with pytest.raises(OSError, match="no space"):
        file.preallocate(2 * PAGE_BYTES, PAGE_BYTES)
    assert file.punch_hole(0, 2 * PAGE_BYTES)
    assert disk.free_bytes() == 2 * PAGE_BYTES
