"""What PUT, GET, DELETE, LIST and VERIFY do, on a disk that behaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from redfs.core.errors import AlreadyExists, Corrupt, InvalidArgument, NoSpace, NotFound, Unavailable, WrongFormat
from redfs.proto.data_plane import SHARD_KEY
from redfs.storage_node.backing_file import BackingFile, file_name
from redfs.storage_node.disk import PAGE_BYTES, DiskFailed, FolderDisk
from redfs.storage_node.index import LmdbIndex
from redfs.storage_node.record import RecordHeader
from redfs.storage_node.recovery import open_store
from redfs.storage_node.shard_store import ShardStore, StoreLimits
from tests.simulation.disk import PowerLost
from tests.storage_node.rig import DISK_UUID, SMALL_FILES, Rig, payload_of


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.start()
    return made


def test_what_was_put_is_read_listed_and_verified(rig: Rig) -> None:
    shards = {
        (segment, shard): payload_of(segment, 3000 * segment + shard + 1) for segment in (3, 1) for shard in (1, 0)
    }
    for (segment, shard), payload in shards.items():
        rig.put(segment, shard, payload)
    assert rig.held() == shards
    assert [info[:2] for info in rig.store.list_page(None, 10)] == sorted(shards)
    assert [info[:2] for info in rig.store.list_page((1, 0), 2)] == [(1, 1), (3, 0)]
    assert rig.store.list_page((3, 1), 10) == []
    assert rig.store.read(3, 1, 100, 50) == shards[3, 1][100:150]
    assert rig.store.read(3, 1, 100, 0) == b""
    assert rig.store.stat().shards == 4


def test_ranges_outside_a_shard_and_shards_not_held_are_refused(rig: Rig) -> None:
    rig.put(1, 0, b"x" * 10)
    for offset, length in ((0, 11), (11, 0), (5, 6), (-1, 1)):
        with pytest.raises(InvalidArgument):
            rig.store.read(1, 0, offset, length)
    for call in (rig.store.read, rig.store.verify):
        with pytest.raises(NotFound):
            call(1, 1)


def test_the_same_put_again_is_acknowledged_and_another_one_refused(rig: Rig) -> None:
    rig.put(1, 0, b"first")
    used = rig.store.stat().used_bytes
    rig.put(1, 0, b"first")
    assert rig.store.stat().used_bytes == used
    with pytest.raises(AlreadyExists):
        rig.put(1, 0, b"other")
    assert rig.held() == {(1, 0): b"first"}


def test_a_payload_that_arrived_damaged_or_has_no_legal_size_is_not_stored(rig: Rig) -> None:
    with pytest.raises(Corrupt):
        rig.store.put(1, 0, b"damaged", xxhash.xxh3_64_intdigest(b"intact"))
    with pytest.raises(InvalidArgument):
        rig.put(1, 0, b"")
    assert rig.held() == {}


def test_deleting_gives_the_space_back_and_forgets_the_shard(rig: Rig) -> None:
    rig.put(1, 0, payload_of(1, 20000))
    rig.put(1, 1, payload_of(2, 20000))
    used = rig.store.stat().used_bytes
    rig.store.delete([(1, 0), (9, 9), (1, 0)])
    assert rig.get(1, 0) is None
    assert rig.store.stat().used_bytes == used // 2
    file = rig.disk.open(file_name(1))
    file.truncate(file.size())  # without what is preallocated
    assert file.allocated_bytes() == used // 2
    rig.put(1, 0, b"other content, once it is gone")
    assert rig.get(1, 0) == b"other content, once it is gone"


def test_a_file_with_nothing_live_is_removed_also_the_active_one(rig: Rig) -> None:
    for shard in range(12):
        rig.put(1, shard, payload_of(shard, 12000))
    assert rig.store.stat().backing_files == 2
    rig.store.delete([(1, shard) for shard in range(12)])
    stat = rig.store.stat()
    assert (stat.used_bytes, stat.shards, stat.backing_files) == (0, 0, 0)
    assert [name for name in rig.disk.list() if name.endswith(".shards")] == []
    rig.put(2, 0, b"goes on")
    assert rig.held() == {(2, 0): b"goes on"}


def test_full_files_are_sealed_and_the_next_start_reads_their_footers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {(1, shard): payload_of(shard, 12000) for shard in range(14)}
    for (segment, shard), payload in shards.items():
        rig.put(segment, shard, payload)
    rig.store.delete([(1, 2)])
    del shards[1, 2]
    scanned: list[int] = []
    scan = BackingFile.scan

    def noting(file: BackingFile) -> Iterator[tuple[int, RecordHeader]]:
        scanned.append(file.number)
        return scan(file)

    monkeypatch.setattr(BackingFile, "scan", noting)
    used = rig.store.stat().used_bytes
    rig.power_cycle()
    assert scanned == [3]
    assert rig.held() == shards
    assert rig.store.stat().used_bytes == used
    assert [file.sealed for file in rig.store.files.values()] == [True, True, False]


def test_a_record_larger_than_a_file_gets_one_of_its_own(rig: Rig) -> None:
    big = payload_of(1, 2 * SMALL_FILES.file_bytes)
    rig.put(1, 0, big)
    rig.put(1, 1, big)
    assert rig.held() == {(1, 0): big, (1, 1): big}
    assert rig.store.stat().backing_files == 2


def test_a_clean_stop_needs_no_reading_at_the_next_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = {(1, shard): payload_of(shard, 12000) for shard in range(10)}
    for (segment, shard), payload in shards.items():
        rig.put(segment, shard, payload)
    before = rig.store.stat()
    rig.stop()
    monkeypatch.setattr("redfs.storage_node.recovery._rebuild", lambda store: pytest.fail("rebuilt"))
    rig.start()
    assert rig.held() == shards
    assert rig.store.stat() == before._replace(generation=before.generation + 1, free_bytes=rig.store.stat().free_bytes)
    rig.put(2, 0, b"appended")
    rig.store.delete([(1, 9)])
    monkeypatch.undo()
    rig.power_cycle()
    del shards[1, 9]
    assert rig.held() == {**shards, (2, 0): b"appended"}


def test_a_saved_index_of_other_files_is_not_believed(rig: Rig) -> None:
    rig.put(1, 0, b"x")
    rig.stop()
    file = rig.disk.open(file_name(1))
    file.truncate(file.size() + PAGE_BYTES)
    rig.start()
    assert rig.held() == {(1, 0): b"x"}
    rig.stop()
    rig.disk.unlink(file_name(1))
    rig.start()
    assert rig.held() == {}


# ------------------------------------------------------------------------------------------ full disks


def test_over_the_capacity_a_put_is_refused_and_deleting_makes_room() -> None:
    rig = Rig(limits=StoreLimits(capacity_bytes=20 * PAGE_BYTES, reserve_bytes=4 * PAGE_BYTES, file_bytes=1 << 20))
    rig.start()
    for shard in range(8):
        rig.put(1, shard, b"x")
    assert rig.store.stat().free_bytes == 0
    with pytest.raises(NoSpace):
        rig.put(1, 8, b"x")
    rig.store.delete([(1, 0)])
    rig.put(1, 8, b"x")
    assert sorted(rig.held()) == [(1, shard) for shard in range(1, 9)]


def fill(rig: Rig, segment: int) -> list[tuple[int, int]]:
    """Puts shards until there is no space; returns those acknowledged."""
    held: list[tuple[int, int]] = []
    for shard in range(100):
        try:
            rig.put(segment, shard, payload_of(shard, 10000))
        except NoSpace:
            return held
        held.append((segment, shard))
    pytest.fail("the disk is never full")


@pytest.mark.parametrize("preallocates", [True, False])
def test_on_a_full_disk_a_put_leaves_nothing_behind(preallocates: bool) -> None:
    rig = Rig(capacity_bytes=40 * PAGE_BYTES, limits=StoreLimits(reserve_bytes=8 * PAGE_BYTES, file_bytes=1 << 20))
    if not preallocates:
        rig.disk.full_without_warning = True
    rig.start()
    held = fill(rig, 1)
    if preallocates:
        assert len(held) >= 6
    else:
        assert rig.disk.open(file_name(1)).allocated_bytes() == rig.store.stat().used_bytes
    assert sorted(rig.held()) == held
    for key in held:
        rig.store.delete([key])
    assert rig.store.stat().used_bytes == 0
    rig.put(2, 0, payload_of(2, 10000))
    rig.power_cycle()
    assert (2, 0) in rig.held()


def test_a_disk_filled_by_others_refuses_puts_and_still_deletes() -> None:
    rig = Rig(capacity_bytes=64 * PAGE_BYTES, limits=StoreLimits(reserve_bytes=0, file_bytes=1 << 20))
    rig.start()
    rig.put(1, 0, payload_of(1, 10000))
    other = rig.disk.create("of-another-program")
    other.preallocate(0, rig.disk.free_bytes())
    fill(rig, 2)
    rig.store.delete([(1, 0)])
    assert rig.get(1, 0) is None


# ------------------------------------------------------------------------------------------ damage


def test_damage_is_found_by_verify_and_the_shard_may_be_stored_anew(rig: Rig) -> None:
    payload = payload_of(1, 10000)
    rig.put(1, 0, payload)
    rig.disk.flip_bit(file_name(1), PAGE_BYTES + 5000)
    rig.put(1, 0, payload)  # not known to be damaged yet: taken for held
    with pytest.raises(Corrupt):
        rig.store.verify(1, 0)
    with pytest.raises(AlreadyExists):
        rig.put(1, 0, payload_of(2, 10000))
    used = rig.store.stat().used_bytes
    rig.put(1, 0, payload)
    assert rig.held() == {(1, 0): payload}
    assert rig.store.stat().used_bytes == used
    rig.power_cycle()
    assert rig.held() == {(1, 0): payload}


def test_a_damaged_header_is_found_by_verify(rig: Rig) -> None:
    rig.put(1, 0, b"x")
    rig.disk.flip_bit(file_name(1), 60)
    with pytest.raises(Corrupt):
        rig.store.verify(1, 0)


def test_the_footer_vouches_for_a_record_whose_header_is_damaged(rig: Rig) -> None:
    shards = {(1, shard): payload_of(shard, 12000) for shard in range(7)}
    for (segment, shard), payload in shards.items():
        rig.put(segment, shard, payload)
    rig.disk.flip_bit(file_name(1), 60)
    rig.disk.flip_bit(file_name(1), 4 * PAGE_BYTES + 60)
    rig.disk.flip_bit(file_name(1), 5 * PAGE_BYTES + 60)
    rig.power_cycle()
    assert {info[:2] for info in rig.store.list_page(None, 10)} == set(shards)
    assert rig.get(1, 0) == shards[1, 0]
    rig.put(1, 1, shards[1, 1])  # known to be damaged: stored anew
    rig.store.verify(1, 1)


def test_a_damaged_footer_costs_only_a_scan(rig: Rig) -> None:
    shards = {(1, shard): payload_of(shard, 12000) for shard in range(7)}
    for (segment, shard), payload in shards.items():
        rig.put(segment, shard, payload)
    size = rig.disk.open(file_name(1)).size()
    rig.disk.flip_bit(file_name(1), size - 2 * PAGE_BYTES + 3)
    rig.power_cycle()
    assert rig.held() == shards
    assert rig.store.files[1].sealed


def test_bytes_of_a_payload_that_look_like_a_record_are_not_taken_for_one(rig: Rig) -> None:
    rig.put(1, 0, b"copied")
    buffer = memoryview(bytearray(2 * PAGE_BYTES))
    rig.disk.open(file_name(1)).pread_into(buffer, 0)
    rig.put(1, 1, bytes(buffer) * 3)
    rig.store.delete([(1, 0)])
    rig.disk.flip_bit(file_name(1), 2 * PAGE_BYTES + 9)  # the header before the copies is lost: they are looked at
    rig.power_cycle()
    assert rig.held() == {}


def test_files_of_another_disk_are_refused(rig: Rig) -> None:
    rig.put(1, 0, b"x")
    rig.disk.kill()
    with pytest.raises(WrongFormat, match="belongs to disk"):
        open_store(rig.disk, rig.index, bytes(16), 2, None, SMALL_FILES, rig.failures.append)


def test_after_a_failed_sync_nothing_is_written_any_more(rig: Rig) -> None:
    rig.put(1, 0, b"before")
    rig.disk.fail_next_sync = True
    with pytest.raises(Unavailable, match="disk failed"):
        rig.put(1, 1, b"in doubt")
    assert len(rig.failures) == 1
    with pytest.raises(Unavailable):
        rig.put(1, 1, b"in doubt")
    with pytest.raises(Unavailable):
        rig.store.delete([(1, 0)])
    assert rig.store.stat().failed
    assert rig.get(1, 0) == b"before"
    assert not rig.store.close()
    rig.restart_after_kill()
    assert rig.held() == {(1, 0): b"before"}  # the other one was in memory only, and is not believed


# ------------------------------------------------------------------------------------------ threads, on a real disk


def test_many_threads_share_files_syncs_and_shards(tmp_path: Path) -> None:
    disk = FolderDisk(tmp_path / "disk")
    failures: list[DiskFailed] = []
    limits = StoreLimits(file_bytes=256 * 1024, reserve_bytes=0)
    store = open_store(disk, LmdbIndex(tmp_path / "index"), DISK_UUID, 1, None, limits, failures.append)
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(25):
                payload = payload_of(worker * 100 + number, 1 + 700 * number)
                store.put(worker, number, payload, xxhash.xxh3_64_intdigest(payload))
                common = payload_of(number, 5000)
                store.put(99, number, common, xxhash.xxh3_64_intdigest(common))
                assert store.read(worker, number) == payload
                if number % 3 == 0:
                    store.delete([(worker, number)])
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    expected = {(w, n): payload_of(w * 100 + n, 1 + 700 * n) for w in range(6) for n in range(25) if n % 3}
    expected |= {(99, n): payload_of(n, 5000) for n in range(25)}
    stat = store.stat()
    assert store.close()

    index = LmdbIndex(tmp_path / "index")
    again = open_store(disk, index, DISK_UUID, 2, 1, limits, failures.append)
    assert {(i.segment, i.shard): again.read(i.segment, i.shard) for i in again.list_page(None, 1000)} == expected
    assert again.stat().used_bytes == stat.used_bytes
    index.clear()
    assert again.close()
    rebuilt = open_store(disk, LmdbIndex(tmp_path / "index"), DISK_UUID, 3, None, limits, failures.append)
    assert {(i.segment, i.shard): rebuilt.read(i.segment, i.shard) for i in rebuilt.list_page(None, 1000)} == expected
    rebuilt.delete(list(expected))
    assert rebuilt.stat().used_bytes == 0
    assert disk.list() == []
    assert rebuilt.close()
    assert failures == []


def test_a_delete_waits_for_readers_of_the_shard(tmp_path: Path) -> None:
    failures: list[DiskFailed] = []
    store = open_store(
        FolderDisk(tmp_path / "disk"), LmdbIndex(tmp_path / "index"), DISK_UUID, 1, None, SMALL_FILES, failures.append
    )
    store.put(1, 0, b"read me", xxhash.xxh3_64_intdigest(b"read me"))
    deleted = threading.Event()

    def delete() -> None:
        store.delete([(1, 0)])
        deleted.set()

    thread = threading.Thread(target=delete)
    with store.reading(1, 0) as found:
        thread.start()
        while store.list_page(None, 1):
            pass  # until the delete has begun
        assert not deleted.is_set()
        buffer = bytearray(7)
        found.file.pread_into(memoryview(buffer), found.offset)
        assert buffer == b"read me"
        with pytest.raises(NotFound):
            store.read(1, 0)
    thread.join()
    assert deleted.is_set()
    assert store.close()


# ---------------------------------------------------------------- set aside


def checksum_of(payload: bytes) -> int:
    digest: int = xxhash.xxh3_64_intdigest(payload)
    return digest


def test_a_shard_in_doubt_is_set_aside_until_the_new_one_is_durable(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = payload_of(1, 20_000), payload_of(2, 20_000)
    rig.put(1, 0, old)
    rig.put(2, 0, b"beside")
    used = rig.store.stat().used_bytes
    before = rig.store.index.get(SHARD_KEY.pack(1, 0))
    assert before is not None
    file = rig.store.files[before.file_number]
    seen: list[str] = []
    real = BackingFile.write

    def writing(self: BackingFile, offset: int, header: RecordHeader, payload: bytes) -> None:
        assert rig.get(1, 0) is None, "not served"
        assert [info[:2] for info in rig.store.list_page(None, 10)] == [(2, 0)]
        assert [info[:3] for info in rig.store.aside()] == [(1, 0, 20_000)], "counted"
        assert rig.store.stat().used_bytes >= used
        assert file.payload_is_good(before.offset, 20_000, before.checksum), "kept readable"
        seen.append("written")
        real(self, offset, header, payload)

    monkeypatch.setattr(BackingFile, "write", writing)
    rig.store.replace(1, 0, new, checksum_of(new))
    assert seen == ["written"]
    assert rig.held() == {(1, 0): new, (2, 0): b"beside"}
    assert rig.store.aside() == []
    assert rig.store.stat().used_bytes == used, "the old one's space is given back"


def test_replacing_what_is_right_already_or_not_there_stores_it_once(rig: Rig) -> None:
    payload = payload_of(1, 20_000)
    for _ in range(2):
        rig.store.replace(1, 0, payload, checksum_of(payload))
        entry = rig.store.index.get(SHARD_KEY.pack(1, 0))
        assert entry is not None
        assert entry.offset == 0
    rig.disk.flip_bit(file_name(1), PAGE_BYTES + 7)
    rig.store.replace(1, 0, payload, checksum_of(payload))
    assert rig.held() == {(1, 0): payload}


def test_a_replacement_that_finds_no_room_leaves_the_old_one(rig: Rig) -> None:
    old, new = payload_of(1, 20_000), payload_of(2, 20_000)
    rig.put(1, 0, old)
    rig.store._limits = StoreLimits(capacity_bytes=40_000, reserve_bytes=0)
    with pytest.raises(NoSpace):
        rig.store.replace(1, 0, new, checksum_of(new))
    assert rig.held() == {(1, 0): old}
    assert rig.store.aside() == []


def test_of_two_good_records_of_a_shard_the_newer_stays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = payload_of(1, 20_000), payload_of(2, 20_000)
    for beside in range(5):  # also where the old one's file was sealed meanwhile
        rig.put(1, beside, old)
        rig.put(2, beside, old)
    with monkeypatch.context() as cut_short:
        cut_short.setattr(ShardStore, "_remove", lambda store, records: None)
        for shard in range(5):
            rig.store.replace(1, shard, new, checksum_of(new))
    rig.power_cycle()
    assert rig.held() == {**{(1, shard): new for shard in range(5)}, **{(2, shard): old for shard in range(5)}}


def test_power_lost_at_any_point_of_a_replacement_leaves_the_old_or_the_new_one() -> None:
    old, new = payload_of(1, 20_000), payload_of(2, 20_000)
    outcomes = set()
    for operation in range(1, 40):
        for seed in range(3):
            rig = Rig(seed)
            rig.start()
            rig.put(1, 0, old)
            rig.put(2, 0, b"beside")
            rig.disk.lose_power_at = rig.disk.operations + operation
            finished = False
            try:
                rig.store.replace(1, 0, new, checksum_of(new))
                finished = True
            except (PowerLost, Unavailable):
                pass
            rig.power_cycle()
            found = rig.held()
            assert found[1, 0] in (old, new)
            assert not finished or found[1, 0] == new
            assert found[2, 0] == b"beside"
            outcomes.add(found[1, 0])
    assert outcomes == {old, new}
