"""The vfs over fakes: what programs see, what becomes durable and when, and every way it can go wrong."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from redfs.client.fs.config import FsConfig
from redfs.core.errors import CommitRefused, FsError, LeaseLapsed, NoSpace, TooFewNodes, Unavailable
from redfs.core.namespace import RENAME_EXCHANGE
from redfs.core.records import MAX_PIECES, SLOT_BYTES, Inode, inode_key, slot_key

from .fakes import FakeCoordinator, Mount, turns, until


async def test_a_small_file_is_seen_at_once_and_durable_after_fsync() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"hello")
    assert (await vfs.getattr(entry.ino)).size == 5
    assert bytes(await vfs.read(handle, 0, 100)) == b"hello"
    assert mount.coordinator.tree() == {}
    await vfs.fsync(handle)
    assert mount.coordinator.tree() == {"/a": entry.ino}
    assert mount.coordinator.content(entry.ino) == b"hello"
    assert mount.coordinator.calls["commit"] == 1


async def test_namespace_operations_need_no_round_trip() -> None:
    mount = Mount()
    vfs = await mount.start()
    await vfs.lookup(1, b"..")
    with pytest.raises(FsError):
        await vfs.lookup(1, b"first")
    mount.coordinator.calls.clear()
    folder = (await vfs.mkdir(mount.ctx, 1, b"d", 0o755)).ino
    for index in range(100):
        name = b"f%d" % index
        with pytest.raises(FsError):
            await vfs.lookup(folder, name)
        await mount.write_file(name, b"x" * 100, folder)
    assert not mount.coordinator.calls


async def test_a_cold_folder_costs_one_round_trip() -> None:
    mount = Mount()
    await mount.start()
    folder = (await mount.vfs.mkdir(mount.ctx, 1, b"d", 0o755)).ino
    for index in range(300):
        await mount.write_file(b"f%d" % index, b"", folder)
    await mount.vfs.close()
    cold = Mount(mount.coordinator)
    vfs = await cold.start()
    cold.coordinator.calls.clear()
    entry = await vfs.lookup(1, b"d")
    for index in range(300):
        await vfs.lookup(entry.ino, b"f%d" % index)
    with pytest.raises(FsError):
        await vfs.lookup(entry.ino, b"none")
    assert sum(cold.coordinator.calls.values()) <= 4, cold.coordinator.calls


async def test_names_in_a_large_folder_are_asked_for_one_by_one() -> None:
    mount = Mount()
    config = FsConfig(whole_folder_entries=50, folder_page_buckets=20, folder_cached_buckets=40)
    await mount.start()
    for index in range(200):
        await mount.write_file(b"f%d" % index, b"")
    await mount.vfs.close()
    cold = Mount(mount.coordinator, config)
    vfs = await cold.start()
    await vfs.getattr(1)
    cold.coordinator.calls.clear()
    for index in (3, 77, 150):
        await vfs.lookup(1, b"f%d" % index)
    assert cold.coordinator.calls["read_folder"] == 0
    handle = await vfs.opendir(1)
    names, after = [], 0
    while page := await vfs.readdir(handle, after, 16):
        names += [listed.name for listed, _ in page]
        after = page[-1][0].cookie
        assert vfs.local.metadata.cached_records < 400
    assert sorted(names) == sorted([b".", b"..", *[b"f%d" % i for i in range(200)]])


async def test_a_listing_shows_each_lasting_entry_once_while_others_come_and_go() -> None:
    mount = Mount()
    vfs = await mount.start()
    for index in range(60):
        await mount.write_file(b"f%d" % index, b"")
    handle = await vfs.opendir(1)
    seen: list[bytes] = []
    after, step = 0, 0
    while page := await vfs.readdir(handle, after, 7):
        seen += [listed.name for listed, _ in page]
        after = page[-1][0].cookie
        await vfs.unlink(mount.ctx, 1, b"f%d" % step)
        await mount.write_file(b"new%d" % step, b"")
        step += 1
    lasting = {b"f%d" % i for i in range(step, 60)}
    assert [name for name in seen if name in lasting and seen.count(name) != 1] == []
    assert lasting <= set(seen)


async def test_clean_records_are_evicted_and_dirty_ones_kept() -> None:
    mount = Mount(config=FsConfig(cached_records=1200, commit_rows=1 << 20, pending_rows=1 << 20))
    vfs = await mount.start()
    inos = [await mount.write_file(b"f%d" % i, b"") for i in range(300)]
    assert vfs.local.metadata.cached_records >= 600
    await vfs.sync()
    for index in range(300):
        await vfs.lookup(1, b"f%d" % index)
        await vfs.getattr(inos[index])
    vfs.local.metadata.forget_clean()
    assert vfs.local.metadata.cached_records < 64
    assert (await vfs.lookup(1, b"f7")).ino == inos[7]


async def test_fsync_of_one_file_leaves_the_data_of_others() -> None:
    mount = Mount()
    vfs = await mount.start()
    one, _ = await vfs.create(mount.ctx, 1, b"one", 0o644)
    two, entry = await vfs.create(mount.ctx, 1, b"two", 0o644)
    await vfs.write(one, 0, b"1")
    await vfs.write(two, 0, b"2")
    await vfs.fsync(one)
    assert mount.coordinator.tree().keys() == {"/one", "/two"}
    assert mount.coordinator.content(entry.ino) == b""


async def test_many_small_files_travel_together() -> None:
    mount = Mount()
    vfs = await mount.start()
    for index in range(1000):
        await mount.write_file(b"f%d" % index, b"%d" % index * 500)
    await vfs.sync()
    assert len(mount.store.stored) <= 3
    assert mount.coordinator.calls["commit"] <= 4
    assert mount.coordinator.content(mount.coordinator.tree()["/f77"]) == b"77" * 500


async def test_a_stream_is_stored_in_whole_slots_and_recorded_in_order() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"big", 0o644)
    chunk = bytes(range(1, 256)) * 4112
    size = 0
    for _ in range(20):
        await vfs.write(handle, size, chunk)
        size += len(chunk)
        await turns(3)
        recorded = vfs.local.metadata.peek(inode_key(entry.ino))
        assert isinstance(recorded, Inode)
        for number in range(recorded.size // SLOT_BYTES):
            assert vfs.local.metadata.peek(slot_key(entry.ino, 1, number)), "the size covers only what is recorded"
    await vfs.fsync(handle)
    assert mount.coordinator.content(entry.ino) == chunk * 20
    full = [lengths for lengths in mount.store.stored if len(lengths) == 64]
    assert len(full) == 2
    assert all(length == SLOT_BYTES for lengths in full for length in lengths)


async def test_batches_that_end_out_of_order_are_recorded_in_order() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"big", 0o644)
    first = mount.store.gate = asyncio.Event()
    await vfs.write(handle, 0, b"a" * (8 << 20))
    await turns()
    mount.store.gate = None
    await vfs.write(handle, 8 << 20, b"b" * (8 << 20))
    await turns()
    assert len(mount.store.stored) == 1
    recorded = vfs.local.metadata.peek(inode_key(entry.ino))
    assert isinstance(recorded, Inode)
    assert recorded.size == 0
    first.set()
    await vfs.fsync(handle)
    assert mount.coordinator.content(entry.ino) == b"a" * (8 << 20) + b"b" * (8 << 20)


async def test_writing_into_a_slot_that_is_being_stored() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"old" * 1000)
    gate = mount.store.gate = asyncio.Event()
    syncing = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    await vfs.write(handle, 3, b"NEW")
    await vfs.write(handle, 3000, b"tail")
    assert bytes(await vfs.read(handle, 0, 9)) == b"oldNEWold"
    gate.set()
    await syncing
    assert mount.coordinator.content(entry.ino) == b"old" * 1000
    assert bytes(await vfs.read(handle, 0, 9)) == b"oldNEWold"
    await vfs.fsync(handle)
    assert mount.coordinator.content(entry.ino) == b"oldNEW" + b"old" * 998 + b"tail"


async def test_small_overwrites_add_pieces_and_are_merged_beyond_sixteen() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    expected = bytearray(b"." * SLOT_BYTES)
    await vfs.write(handle, 0, bytes(expected))
    await vfs.fsync(handle)
    most = 0
    for index in range(40):
        at = (index * 7919) % (SLOT_BYTES - 10)
        expected[at : at + 3] = b"%03d" % index
        await vfs.write(handle, at, b"%03d" % index)
        await vfs.fsync(handle)
        slot = mount.coordinator.view.records[slot_key(entry.ino, 1, 0)]
        most = max(most, len(slot))
        assert mount.coordinator.content(entry.ino) == bytes(expected)
    assert 8 < most <= MAX_PIECES
    assert bytes(await vfs.read(handle, 0, SLOT_BYTES)) == bytes(expected)


async def test_truncation_is_in_order_with_dirty_data() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    ino = entry.ino
    await vfs.write(handle, 0, b"x" * 300_000)
    await vfs.setattr(mount.ctx, ino, size=100)
    assert (await vfs.getattr(ino)).size == 100
    recorded = vfs.local.metadata.peek(inode_key(ino))
    assert isinstance(recorded, Inode)
    assert vfs.local.metadata.peek(slot_key(ino, 1, 0)), "the size must not cover what is not recorded"
    await vfs.setattr(mount.ctx, ino, size=200_000)
    await vfs.write(handle, 150_000, b"y")
    await vfs.fsync(handle)
    expected = b"x" * 100 + bytes(149_900) + b"y" + bytes(49_999)
    assert mount.coordinator.content(ino) == expected
    assert bytes(await vfs.read(handle, 0, 1 << 20)) == expected


async def test_truncation_waits_for_a_flush_under_way() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"x" * 1000)
    gate = mount.store.gate = asyncio.Event()
    syncing = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    cutting = asyncio.ensure_future(vfs.setattr(mount.ctx, entry.ino, size=10))
    await turns()
    assert not cutting.done()
    gate.set()
    await asyncio.gather(syncing, cutting)
    assert bytes(await vfs.read(handle, 0, 100)) == b"x" * 10
    await vfs.sync()
    assert mount.coordinator.content(entry.ino) == b"x" * 10


async def test_open_with_truncate_and_time_setting() -> None:
    mount = Mount()
    vfs = await mount.start()
    ino = await mount.write_file(b"a", b"long content")
    handle = await vfs.open(mount.ctx, ino, 0o1001)
    await vfs.write(handle, 0, b"new")
    await vfs.setattr(mount.ctx, ino, mtime_ns=5, atime_ns=6)
    assert (await vfs.getattr(ino)).mtime_ns == 5
    await vfs.fsync(handle)
    assert (await vfs.getattr(ino)).mtime_ns == 5
    assert mount.coordinator.content(ino) == b"new"


async def test_an_unlinked_open_file_lives_until_it_is_closed() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"kept")
    await vfs.unlink(mount.ctx, 1, b"a")
    assert bytes(await vfs.read(handle, 0, 10)) == b"kept"
    await vfs.fsync(handle)
    assert bytes(await vfs.read(handle, 0, 10)) == b"kept"
    assert (await vfs.getattr(entry.ino)).nlink == 0
    await vfs.release(mount.ctx, handle)
    with pytest.raises(FsError):
        await vfs.getattr(entry.ino)
    await vfs.sync()
    assert inode_key(entry.ino) not in mount.coordinator.view.records
    assert mount.coordinator.blocks == {}


async def test_data_of_a_file_removed_before_its_flush_is_never_stored() -> None:
    mount = Mount()
    vfs = await mount.start()
    await mount.write_file(b"a", b"x" * 1000)
    await vfs.unlink(mount.ctx, 1, b"a")
    await vfs.sync()
    assert mount.store.stored == []
    assert vfs.local.buffer.charged_bytes == 0


async def test_a_file_removed_while_it_is_being_stored() -> None:
    mount = Mount()
    vfs = await mount.start()
    await mount.write_file(b"a", b"x" * 1000)
    keep = await mount.write_file(b"b", b"y" * 1000)
    gate = mount.store.gate = asyncio.Event()
    syncing = asyncio.ensure_future(vfs.sync())
    await turns()
    await vfs.unlink(mount.ctx, 1, b"a")
    gate.set()
    await syncing
    await vfs.sync()
    assert mount.coordinator.tree() == {"/b": keep}
    assert list(mount.coordinator.blocks.values()) == [b"y" * 1000]
    assert vfs.local.buffer.charged_bytes == 0


async def test_rename_onto_a_name_records_the_data_first() -> None:
    mount = Mount()
    vfs = await mount.start()
    await mount.write_file(b"target", b"old")
    await vfs.sync()
    source = await mount.write_file(b"source", b"new")
    await vfs.rename(mount.ctx, 1, b"source", 1, b"target")
    mount.clock.now_s += 1
    vfs.tick()
    await until(lambda: mount.coordinator.calls["commit"] == 2)
    await turns()
    assert mount.coordinator.tree() == {"/target": source}
    assert mount.coordinator.content(source) == b"new"


async def test_both_inodes_of_an_exchange_are_remembered_where_they_are() -> None:
    mount = Mount()
    vfs = await mount.start()
    one = (await vfs.mkdir(mount.ctx, 1, b"one", 0o755)).ino
    two = (await vfs.mkdir(mount.ctx, 1, b"two", 0o755)).ino
    inner = (await vfs.mkdir(mount.ctx, one, b"inner", 0o755)).ino
    await vfs.rename(mount.ctx, one, b"inner", 1, b"two", RENAME_EXCHANGE)
    assert vfs.names.names_to(inner) == [b"two"]
    assert vfs.names.names_to(two) == [b"one", b"inner"]


async def test_commits_and_data_go_out_by_time() -> None:
    mount = Mount()
    vfs = await mount.start()
    ino = await mount.write_file(b"a", b"data")
    vfs.tick()
    await turns()
    assert mount.coordinator.calls["commit"] == 0
    mount.clock.now_s += 1.1
    vfs.tick()
    await until(lambda: "/a" in mount.coordinator.tree())
    assert mount.coordinator.content(ino) == b""
    mount.clock.now_s += 5
    vfs.tick()
    await until(lambda: len(mount.store.stored) == 1)
    await turns()
    mount.clock.now_s += 1.1
    vfs.tick()
    await until(lambda: mount.coordinator.content(ino) == b"data")


async def test_commits_are_in_flight_together_and_in_order() -> None:
    mount = Mount()
    vfs = await mount.start()
    gate = mount.session.gate = asyncio.Event()
    barriers = []
    for index in range(5):
        await mount.write_file(b"f%d" % index, b"")
        barriers.append(asyncio.ensure_future(vfs.local.committer.barrier()))
        await turns()
    assert len(vfs.local.write_log.in_flight) == 2
    assert len(vfs.local.write_log.queue) == 1
    gate.set()
    await asyncio.gather(*barriers)
    assert mount.coordinator.calls["commit"] == 3
    assert not vfs.local.metadata.dirty


async def test_a_refused_commit_sends_the_data_again_and_holds_back_its_successors() -> None:
    mount = Mount()
    mount.store.dedupe = True
    vfs = await mount.start()
    first = await mount.write_file(b"first", b"same bytes")
    await vfs.sync()
    gate = mount.session.gate = asyncio.Event()
    handle, second = await vfs.create(mount.ctx, 1, b"second", 0o644)
    await vfs.unlink(mount.ctx, 1, b"first")
    unlinking = asyncio.ensure_future(vfs.local.committer.barrier())
    await turns()
    await vfs.write(handle, 0, b"same bytes")
    syncing = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    assert len(vfs.local.write_log.in_flight) == 2
    gate.set()
    await asyncio.gather(unlinking, syncing)
    assert mount.coordinator.content(second.ino) == b"same bytes"
    assert inode_key(first) not in mount.coordinator.view.records
    assert bytes(await vfs.read(handle, 0, 100)) == b"same bytes"
    mount.coordinator.check()


async def test_substituted_blocks_are_followed_in_the_cache_and_in_later_commits() -> None:
    mount = Mount()
    mount.coordinator.dedupe_at_commit = True
    mount.reader.keeps = False
    vfs = await mount.start()
    await mount.write_file(b"first", b"same bytes")
    await vfs.sync()
    gate = mount.session.gate = asyncio.Event()
    handle, second = await vfs.create(mount.ctx, 1, b"second", 0o644)
    await vfs.write(handle, 0, b"same bytes")
    one = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    await vfs.write(handle, 100, b"more")
    two = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    assert len(vfs.local.write_log.in_flight) == 2
    await vfs.write(handle, 50, b"and more")
    three = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    gate.set()
    await asyncio.gather(one, two, three)
    expected = b"same bytes" + bytes(40) + b"and more" + bytes(42) + b"more"
    assert mount.coordinator.content(second.ino) == expected
    mount.session.plain.clear()
    assert bytes(await vfs.read(handle, 0, 200)) == expected
    assert len(mount.coordinator.blocks) == 3


async def test_a_refusal_that_nothing_can_repair_ends_the_mount(caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount()
    vfs = await mount.start()
    await mount.write_file(b"a", b"")
    mount.session.errors["commit"] = [CommitRefused("no")]
    with pytest.raises(CommitRefused):
        await vfs.sync()
    with pytest.raises(CommitRefused):
        await vfs.lookup(1, b"a")
    assert "failed for good" in caplog.text


async def test_a_failed_flush_keeps_the_data_and_tells_fsync_and_close() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"precious")
    mount.store.errors = [TooFewNodes("two nodes are down"), NoSpace("full")]
    with pytest.raises(TooFewNodes):
        await vfs.fsync(handle)
    with pytest.raises(TooFewNodes):
        vfs.flush(handle)
    with pytest.raises(NoSpace):
        await vfs.fsync(handle)
    assert bytes(await vfs.read(handle, 0, 100)) == b"precious"
    mount.clock.now_s += 60
    vfs.tick()
    await until(lambda: not vfs.local.buffer.files)
    vfs.flush(handle)
    await vfs.fsync(handle)
    assert mount.coordinator.content(entry.ino) == b"precious"


async def test_writes_during_a_flush_that_fails_lie_over_its_data() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"oldoldold")
    gate = mount.store.gate = asyncio.Event()
    mount.store.errors = [TooFewNodes("down")]
    syncing = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    await vfs.write(handle, 3, b"NEW")
    gate.set()
    with pytest.raises(TooFewNodes):
        await syncing
    assert bytes(await vfs.read(handle, 0, 100)) == b"oldNEWold"
    await vfs.fsync(handle)
    assert mount.coordinator.content(entry.ino) == b"oldNEWold"


async def test_a_batch_behind_a_failed_one_of_the_same_file_is_given_back_too() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    gate = mount.store.gate = asyncio.Event()
    mount.store.errors = [Unavailable("a node went away")]
    await vfs.write(handle, 0, b"a" * (8 << 20))
    await turns()
    await vfs.write(handle, 8 << 20, b"b" * (8 << 20))
    await turns()
    gate.set()
    await turns()
    recorded = vfs.local.metadata.peek(inode_key(entry.ino))
    assert isinstance(recorded, Inode)
    assert recorded.size == 0
    assert mount.store.abandoned == 1
    await vfs.fsync(handle)
    assert mount.coordinator.content(entry.ino) == b"a" * (8 << 20) + b"b" * (8 << 20)


async def test_an_absent_coordinator_fails_fsync_and_the_commit_is_tried_again() -> None:
    mount = Mount()
    vfs = await mount.start()
    ino = await mount.write_file(b"a", b"x")
    mount.session.errors["commit"] = [Unavailable("away")]
    with pytest.raises(Unavailable):
        await vfs.sync()
    await vfs.sync()
    assert mount.coordinator.content(ino) == b"x"


async def test_writers_wait_while_too_much_is_dirty() -> None:
    mount = Mount(config=FsConfig(dirty_bytes=1 << 20, batch_bytes=1 << 18, commit_bytes=1 << 18))
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    gate = mount.store.gate = asyncio.Event()

    async def write_all() -> None:
        for index in range(40):
            await vfs.write(handle, index * 100_000, b"%d" % (index % 10) * 100_000)

    writing = asyncio.ensure_future(write_all())
    await turns(200)
    assert not writing.done()
    assert vfs.local.buffer.charged_bytes <= 1 << 20
    gate.set()
    await writing
    await vfs.fsync(handle)
    assert mount.coordinator.content(entry.ino) == b"".join(b"%d" % (i % 10) * 100_000 for i in range(40))
    assert vfs.local.buffer.charged_bytes == 0


async def test_namespace_operations_wait_while_the_log_is_long() -> None:
    mount = Mount(config=FsConfig(commit_rows=8, pending_rows=32))
    vfs = await mount.start()
    gate = mount.session.gate = asyncio.Event()

    async def make_all() -> None:
        for index in range(100):
            await mount.write_file(b"f%d" % index, b"")

    making = asyncio.ensure_future(make_all())
    await turns(300)
    assert not making.done()
    assert vfs.local.write_log.pending_rows <= 40
    gate.set()
    await making
    await vfs.sync()
    assert len(mount.coordinator.tree()) == 100


async def test_a_full_pool_is_told_at_write_time() -> None:
    mount = Mount()
    mount.coordinator.space_bytes = 10_000
    vfs = await mount.start()
    handle, _ = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"x" * 5000)
    mount.coordinator.space_bytes = 1000
    with pytest.raises(NoSpace):
        await vfs.write(handle, 5000, b"x" * 8000)
    assert (await vfs.getattr(2)).size == 5000


async def test_a_lapsed_session_fails_everything_and_names_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount()
    vfs = await mount.start()
    folder = (await vfs.mkdir(mount.ctx, 1, b"docs", 0o755)).ino
    handle, _ = await vfs.create(mount.ctx, folder, b"letter", 0o644)
    await vfs.write(handle, 0, b"dear")
    gate = mount.session.gate = asyncio.Event()
    waiting = asyncio.ensure_future(vfs.fsync(handle))
    await turns()
    await vfs.write(handle, 4, b" all")
    with caplog.at_level(logging.ERROR):
        mount.session.lapsed = True
        vfs.on_lapsed()
    assert "/docs/letter" in caplog.text
    with pytest.raises(LeaseLapsed):
        await waiting
    with pytest.raises(LeaseLapsed):
        await vfs.lookup(1, b"docs")
    with pytest.raises(LeaseLapsed):
        await vfs.write(handle, 0, b"x")
    with pytest.raises(LeaseLapsed):
        vfs.flush(handle)
    gate.set()
    with pytest.raises(LeaseLapsed):
        await vfs.close()
    assert mount.coordinator.tree() == {}


async def test_a_deleted_volume_gives_errors_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, _ = await vfs.create(mount.ctx, 1, b"letter", 0o644)
    await vfs.write(handle, 0, b"dear")
    vfs.on_gone(vfs.volume_id + 1)
    await vfs.lookup(1, b"letter")
    with caplog.at_level(logging.ERROR):
        vfs.on_gone(vfs.volume_id)
    assert "was deleted" in caplog.text
    assert "/letter" in caplog.text
    for doing in (vfs.lookup(1, b"letter"), vfs.fsync(handle), vfs.close()):
        with pytest.raises(LeaseLapsed, match="was deleted"):
            await doing


async def test_a_flush_order_makes_everything_durable() -> None:
    mount = Mount()
    vfs = await mount.start()
    handle, entry = await vfs.create(mount.ctx, 1, b"a", 0o644)
    await vfs.write(handle, 0, b"x" * 200_000)
    await vfs.on_flush(vfs.volume_id + 1)
    assert mount.coordinator.tree() == {}
    await vfs.on_flush(vfs.volume_id)
    assert mount.coordinator.content(entry.ino) == b"x" * 200_000


async def test_closing_tries_until_everything_is_safe() -> None:
    mount = Mount()
    vfs = await mount.start()
    ino = await mount.write_file(b"a", b"data")
    mount.store.errors = [TooFewNodes("down")] * 3
    await vfs.close()
    assert mount.coordinator.content(ino) == b"data"


async def test_closing_gives_up_in_the_end_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount(config=FsConfig(give_up_s=20))
    vfs = await mount.start()
    await mount.write_file(b"a", b"data")
    mount.store.errors = [TooFewNodes("down")] * 100
    with pytest.raises(TooFewNodes):
        await vfs.close()
    assert "unsaved changes are lost: /a" in caplog.text


async def test_a_snapshot_is_read_only_and_cached_for_ever() -> None:
    mount = Mount()
    await mount.start()
    ino = await mount.write_file(b"a", b"data")
    await mount.vfs.close()
    frozen = Mount(mount.coordinator, snapshot=True)
    vfs = await frozen.start()
    assert await frozen.read_file(ino) == b"data"
    handle = await vfs.open(frozen.ctx, ino, 0)
    for attempt in (
        vfs.create(frozen.ctx, 1, b"b", 0o644),
        vfs.unlink(frozen.ctx, 1, b"a"),
        vfs.rename(frozen.ctx, 1, b"a", 1, b"b"),
        vfs.write(handle, 0, b"x"),
        vfs.setattr(frozen.ctx, ino, size=0),
        vfs.open(frozen.ctx, ino, 1),
    ):
        with pytest.raises(FsError) as caught:
            await attempt
        assert caught.value.errno == errno.EROFS
    await vfs.sync()
    await vfs.fsync(handle)
    vfs.flush(handle)
    await vfs.release(frozen.ctx, handle)
    await vfs.close()
    assert frozen.coordinator.calls["commit"] == mount.session.last_commit


async def test_a_read_only_mount_of_a_live_volume_sees_changes_after_a_while() -> None:
    coordinator = FakeCoordinator()
    writer, watcher = Mount(coordinator), Mount(coordinator, read_only=True)
    await writer.start()
    await watcher.start()
    with pytest.raises(FsError):
        await watcher.vfs.lookup(1, b"a")
    ino = await writer.write_file(b"a", b"one")
    await writer.vfs.sync()
    watcher.clock.now_s += 2
    watcher.vfs.tick()
    assert (await watcher.vfs.lookup(1, b"a")).ino == ino
    assert await watcher.read_file(ino) == b"one"


async def test_attributes_and_links() -> None:
    mount = Mount()
    vfs = await mount.start()
    ino = await mount.write_file(b"a", b"1")
    acl, capability = b"system.posix_acl_access", b"security.capability"
    assert vfs.lacks_attribute(ino, capability)
    assert vfs.lacks_attribute(ino, acl)
    await vfs.setxattr(mount.ctx, ino, b"user.color", b"red")
    assert vfs.lacks_attribute(ino, capability), "it has a flag of its own"
    assert not vfs.lacks_attribute(ino, acl), "of all others it is known only whether there are any"
    assert await vfs.listxattr(ino) == [b"user.color"]
    await vfs.link(mount.ctx, ino, 1, b"b")
    await vfs.symlink(mount.ctx, 1, b"s", b"a")
    await vfs.close()
    cold = Mount(mount.coordinator)
    vfs = await cold.start()
    assert (await vfs.lookup(1, b"b")).inode.nlink == 2
    assert await vfs.getxattr(ino, b"user.color") == b"red"
    assert await vfs.readlink((await vfs.lookup(1, b"s")).ino) == b"a"
    assert not vfs.lacks_attribute(ino, acl)
    await vfs.removexattr(cold.ctx, ino, b"user.color")
    assert vfs.lacks_attribute(ino, acl)
    with pytest.raises(FsError):
        await vfs.getxattr(ino, b"user.color")
    assert (await vfs.statfs()).total_bytes == 1 << 40
    await vfs.statfs()
    assert cold.coordinator.calls["stat_volume"] == 1


async def test_a_sequential_reader_has_its_blocks_fetched_ahead() -> None:
    mount = Mount()
    await mount.start()
    ino = await mount.write_file(b"big", b"z" * (64 * SLOT_BYTES))
    await mount.vfs.close()
    cold = Mount(mount.coordinator)
    vfs = await cold.start()
    handle = await vfs.open(cold.ctx, ino, 0)
    for number in range(8):
        await vfs.read(handle, number * SLOT_BYTES, SLOT_BYTES)
        await turns()
    assert len(set(cold.reader.prefetched)) >= 16
    assert cold.coordinator.calls["read_slots"] <= 2


async def test_readers_of_small_files_bring_the_neighbours() -> None:
    mount = Mount()
    await mount.start()
    inos = [await mount.write_file(b"f%d" % i, b"%d" % i * 100) for i in range(100)]
    await mount.vfs.close()
    cold = Mount(mount.coordinator)
    vfs = await cold.start()
    cold.coordinator.calls.clear()
    for index, ino in enumerate(inos):
        assert (await vfs.lookup(1, b"f%d" % index)).ino == ino
        assert await cold.read_file(ino) == b"%d" % index * 100
    assert sum(cold.coordinator.calls.values()) <= 6, cold.coordinator.calls
    assert cold.reader.prefetched
