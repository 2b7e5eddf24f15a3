"""A mount that is held and rebased: nothing is lost before, nothing old is known afterwards, whatever order is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from errno import ENOENT, ESTALE

import pytest

from redfs.client.fs.config import FsConfig
from redfs.client.fs.engine import O_APPEND
from redfs.client.fs.following import SLACK_S, Following
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import FsError, NoSpace, RolledBack, Unavailable
from redfs.core.records import inode_key
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.fs.fakes import VOLUME_ID, FakeCoordinator, Mount, turns, until

HOLD_S = 15.0


class Kernel:
    """Notes what it is told."""

    timeout_s = 1.0

    def __init__(self, vfs: Vfs) -> None:
        self.vfs = vfs
        self.log: list[object] = []

    async def write_back(self) -> None:
        self.log.append(("write back", self.vfs.gate.is_open))

    def rolled_back(self) -> None:
        self.log.append(("rolled back", self.vfs.gate.is_open))

    async def forget(self, inodes: Sequence[int]) -> None:
        self.log.append(("forget", sorted(inodes), self.vfs.gate.lets_data_pass and not self.vfs.gate.is_open))

    def moved(self, ino: int, path: Callable[[int], Sequence[bytes] | None]) -> None:
        """Nobody renames across folders here."""

    async def forget_names(self, names: Sequence[tuple[int, bytes]]) -> None:
        self.log.append(("forget names", sorted(names), self.vfs.gate.is_open))


class Time:
    """Passes when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + seconds, waiter))
        await waiter

    async def passes(self, seconds: float) -> None:
        self.now_s += seconds
        for until_s, waiter in self._sleepers:
            if until_s <= self.now_s and not waiter.done():
                waiter.set_result(None)
        await turns()


class World:
    """A mount that follows a volume of a coordinator."""

    def __init__(self, *, read_only: bool = False, coordinator: FakeCoordinator | None = None) -> None:
        self.mount = Mount(coordinator, FsConfig(), read_only=read_only)
        self.coordinator, self.session, self.vfs = self.mount.coordinator, self.mount.session, self.mount.vfs
        self.kernel = Kernel(self.vfs)
        self.time = Time()
        self.following = Following(self.session, self.vfs, self.kernel, clock=self.time, sleep=self.time.sleep)
        self.vfs.on_rolled_back = self.following.refused

    async def names(self) -> set[str]:
        """What a program lists, through the gate."""
        async with self.vfs.gate.passed():
            handle = await self.vfs.opendir(1)
            listed = await self.vfs.readdir(handle, 0, 100)
            await self.vfs.releasedir(self.mount.ctx, handle)
        return {entry.name.decode() for entry, _ in listed} - {".", ".."}

    async def hold(self) -> None:
        await self.following.hold(VOLUME_ID, HOLD_S)

    async def rebase(self, order: pb.Rebase) -> None:
        """Carries out the order, with the time that the kernel needs."""
        done = asyncio.ensure_future(self.following.rebase(order))
        await turns()
        await self.time.passes(self.kernel.timeout_s + SLACK_S)
        await done


async def started(*, read_only: bool = False, coordinator: FakeCoordinator | None = None) -> World:
    world = World(read_only=read_only, coordinator=coordinator)
    await world.vfs.start()
    return world


async def test_what_was_written_before_the_hold_is_committed_and_nothing_begins_in_it() -> None:
    w = await started()
    await w.mount.write_file(b"old", b"old")
    await w.vfs.sync()
    snapshot = w.coordinator.keep()
    handle, entry = await w.vfs.create(w.mount.ctx, 1, b"new", 0o644)
    await w.vfs.write(handle, 0, b"told that it is written")

    slow = asyncio.Event()

    async def under_way() -> None:
        async with w.vfs.gate.passed():
            await slow.wait()
            await w.vfs.write(handle, 0, b"TOLD")

    writing = asyncio.ensure_future(under_way())
    await turns()
    holding = asyncio.ensure_future(w.hold())
    await turns()
    assert not holding.done(), "a request is under way"
    listing = asyncio.ensure_future(w.names())
    slow.set()
    await holding
    await writing
    assert w.coordinator.content(entry.ino) == b"TOLD that it is written"
    await turns()
    assert not listing.done()

    await w.rebase(w.coordinator.roll_back(snapshot))
    assert await listing == {"old"}, "what waited is answered from the new state"
    assert w.kernel.log == [
        ("write back", True), ("rolled back", False), ("forget", [], True),
    ], "pages are written before, kept from no open, and dropped while only data is answered"  # fmt: skip


async def test_nothing_old_is_known_and_open_files_go_on_where_they_are() -> None:
    w = await started()
    ctx = w.mount.ctx
    same = await w.mount.write_file(b"same", b"A" * 300_000)
    longer = await w.mount.write_file(b"longer", b"one")
    nameless, entry = await w.vfs.create(ctx, 1, b"nameless", 0o644)
    await w.vfs.write(nameless, 0, b"temporary")
    await w.vfs.unlink(ctx, 1, b"nameless")
    await w.vfs.sync()
    snapshot = w.coordinator.keep()

    same_handle = await w.vfs.open(ctx, same, 2)
    longer_handle = await w.vfs.open(ctx, longer, 1 | O_APPEND)
    await w.vfs.write(same_handle, 0, b"B" * 300_000)
    await w.vfs.write(longer_handle, 3, b"two")
    gone = await w.mount.write_file(b"gone", b"gone")
    gone_handle = await w.vfs.open(ctx, gone, 2)
    folder = await w.vfs.mkdir(ctx, 1, b"folder", 0o755)
    folder_handle = await w.vfs.opendir(folder.ino)
    assert bytes(await w.vfs.read(same_handle, 0, 3)) == b"BBB"
    await w.hold()
    await w.rebase(w.coordinator.roll_back(snapshot))

    assert w.kernel.log[-1] == ("forget", sorted([same, longer, entry.ino]), True)
    assert bytes(await w.vfs.read(same_handle, 0, 1 << 20)) == b"A" * 300_000
    for lost in (w.vfs.read(gone_handle, 0, 1), w.vfs.write(gone_handle, 0, b"x"), w.vfs.fsync(gone_handle),
                 w.vfs.getattr(gone), w.vfs.getattr(folder.ino), w.vfs.readdir(folder_handle, 0, 9)):  # fmt: skip
        with pytest.raises(FsError) as error:
            await lost
        assert error.value.errno == ESTALE
    w.vfs.flush(gone_handle)
    await w.vfs.release(ctx, gone_handle)
    await w.vfs.releasedir(ctx, folder_handle)
    with pytest.raises(FsError) as error:
        await w.vfs.getattr(gone)
    assert error.value.errno == ENOENT, "nobody has it open any more"

    # The kernel appends where it thinks that the end is.
    await w.vfs.write(longer_handle, 6, b"+three")
    await w.vfs.write(longer_handle, 12, b"+four")
    await w.vfs.fsync(longer_handle)
    assert w.coordinator.content(longer) == b"one+three+four"
    await w.vfs.write(longer_handle, 14, b"+five")
    await w.vfs.write(longer_handle, 0, b"ONE")
    await w.vfs.fsync(longer_handle)
    assert w.coordinator.content(longer) == b"ONE+three+four+five"

    assert bytes(await w.vfs.read(nameless, 0, 99)) == b"temporary"
    await w.vfs.release(ctx, nameless)
    await w.vfs.sync()
    assert inode_key(entry.ino) not in w.coordinator.view.records
    with pytest.raises(FsError):
        await w.vfs.getattr(entry.ino)
    w.coordinator.check()


async def test_the_kernel_forgets_where_folders_were_that_the_roll_back_moved() -> None:
    w = await started()
    ctx = w.mount.ctx
    above = await w.vfs.mkdir(ctx, 1, b"above", 0o755)
    for name in (b"stays", b"renamed", b"moved"):
        await w.vfs.mkdir(ctx, 1, name, 0o755)
    await w.mount.write_file(b"file", b"a file may have many names")
    await w.vfs.sync()
    snapshot = w.coordinator.keep()
    await w.vfs.rename(ctx, 1, b"renamed", 1, b"other", 0)
    await w.vfs.rename(ctx, 1, b"moved", above.ino, b"moved", 0)
    await w.vfs.rename(ctx, 1, b"file", above.ino, b"file", 0)
    await w.vfs.mkdir(ctx, 1, b"gone", 0o755)
    await w.hold()
    await w.rebase(w.coordinator.roll_back(snapshot))
    assert w.kernel.log[-1] == ("forget names", [(1, b"other"), (above.ino, b"moved")], True)
    await w.hold()
    await w.rebase(w.coordinator.roll_back(snapshot))
    assert w.kernel.log[-1] == ("forget", [], True), "nothing was moved"


async def test_appending_to_a_file_that_the_roll_back_made_longer() -> None:
    w = await started()
    ino = await w.mount.write_file(b"log", b"0123456789")
    await w.vfs.sync()
    snapshot = w.coordinator.keep()
    handle = await w.vfs.open(w.mount.ctx, ino, 1 | O_APPEND)
    other = await w.vfs.open(w.mount.ctx, ino, 1)
    await w.vfs.setattr(w.mount.ctx, ino, size=2)
    await w.hold()
    await w.rebase(w.coordinator.roll_back(snapshot))
    await w.vfs.write(handle, 2, b"abc")
    await w.vfs.write(other, 5, b"xy")  # where the other one means it, up to 7 as the kernel sees it
    await w.vfs.write(handle, 7, b"def")
    await w.vfs.fsync(handle)
    assert w.coordinator.content(ino) == b"01234xy789abcdef"


async def test_a_hold_that_nobody_ends_asks_before_anything_goes_on() -> None:
    w = await started()
    await w.hold()
    listing = asyncio.ensure_future(w.names())
    await w.time.passes(HOLD_S - 0.1)
    assert w.coordinator.calls["attach"] == 0
    w.session.errors["attach"] = [Unavailable("the coordinator is away")]
    await w.time.passes(0.2)
    assert w.coordinator.calls["attach"] == 1
    assert not listing.done(), "how the volume stands is not known"
    await w.time.passes(w.vfs.config.retry_max_s)
    assert await listing == set()


async def test_a_mount_whose_rebase_was_lost_finds_out_when_its_hold_is_over() -> None:
    w = await started()
    await w.mount.write_file(b"new", b"new")
    snapshot = w.coordinator.keep()
    await w.hold()
    w.coordinator.roll_back(snapshot)
    listing = asyncio.ensure_future(w.names())
    await w.time.passes(HOLD_S)
    assert await listing == set()
    await w.mount.write_file(b"later", b"later")
    await w.vfs.sync()
    assert set(w.coordinator.tree()) == {"/later"}


async def test_a_resumed_stream_shows_that_the_volume_was_rolled_back() -> None:
    w = await started()
    await w.mount.write_file(b"new", b"new")
    snapshot = w.coordinator.keep()
    await w.hold()
    await w.following.resumed()
    assert not w.vfs.gate.is_open, "a stream that is back does not end a hold"
    w.coordinator.roll_back(snapshot)
    resuming = asyncio.ensure_future(w.following.resumed())
    listing = asyncio.ensure_future(w.names())
    assert await listing == set()
    await w.time.passes(2)
    await resuming


async def test_a_roll_back_that_was_given_up_lets_the_mount_go_on() -> None:
    w = await started()
    await w.mount.write_file(b"a", b"a")
    await w.hold()
    await w.following.rebase(w.coordinator.let_go())
    assert await w.names() == {"a"}
    # Also one that has not come to its end yet.
    w.session.gate = asyncio.Event()
    await w.mount.write_file(b"b", b"b")
    holding = asyncio.ensure_future(w.hold())
    await turns()
    assert not w.vfs.gate.is_open
    await w.following.rebase(w.coordinator.let_go())
    with pytest.raises(Unavailable):
        await holding
    assert await w.names() == {"a", "b"}
    w.session.gate.set()
    # The end of the first hold does not end a later one.
    await w.time.passes(HOLD_S - 1)
    await w.hold()
    await w.time.passes(2)
    assert not w.vfs.gate.is_open


async def test_a_mount_that_cannot_write_refuses_to_be_held() -> None:
    w = await started()
    await w.mount.write_file(b"a", b"a")
    w.mount.store.errors = [NoSpace("full")]
    with pytest.raises(NoSpace):
        await w.hold()
    assert w.vfs.gate.is_open
    assert await w.names() == {"a"}


async def test_a_mount_that_is_held_stays_so_when_it_is_asked_again_and_cannot() -> None:
    w = await started()
    await w.hold()
    w.vfs.local.buffer.write(99, 0, b"as if", 0, 0.0)
    w.mount.store.errors = [NoSpace("full")]
    with pytest.raises(NoSpace):
        await w.hold()
    assert not w.vfs.gate.is_open, "the coordinator may have rolled back since the first answer"
    await w.time.passes(HOLD_S)
    assert w.vfs.gate.is_open


async def test_older_orders_change_nothing() -> None:
    w = await started()
    before = w.coordinator.let_go()
    snapshot = w.coordinator.keep()
    await w.mount.write_file(b"new", b"new")
    await w.hold()
    await w.rebase(w.coordinator.roll_back(snapshot))
    await w.following.rebase(before)
    assert w.vfs.lineage == w.coordinator.lineage
    assert await w.names() == set()


async def test_a_commit_for_the_old_lineage_is_refused_and_what_it_held_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    w = await started()
    await w.mount.write_file(b"old", b"old")
    await w.vfs.sync()
    snapshot = w.coordinator.keep()
    await w.mount.write_file(b"lost", b"lost")
    w.coordinator.roll_back(snapshot)  # under a mount that was not held
    handle = await w.vfs.open(w.mount.ctx, (await w.vfs.lookup(1, b"lost")).ino, 2)
    with caplog.at_level(logging.ERROR), pytest.raises(RolledBack):
        await w.vfs.fsync(handle)
    await until(lambda: w.vfs.gate.is_open)
    assert "not committed" in caplog.text
    caplog.clear()
    assert await w.names() == {"old"}
    await w.mount.write_file(b"next", b"next")
    await w.vfs.sync()
    assert set(w.coordinator.tree()) == {"/old", "/next"}
    w.coordinator.check()


async def test_a_commit_under_way_at_the_roll_back_counts_once() -> None:
    w = await started()
    snapshot = w.coordinator.keep()
    w.session.gate = asyncio.Event()
    await w.mount.write_file(b"first", b"first")
    syncing = asyncio.ensure_future(w.vfs.sync())
    await turns()
    w.coordinator.roll_back(snapshot)
    resuming = asyncio.ensure_future(w.following.resumed())
    await turns()
    assert not w.vfs.gate.is_open
    w.session.gate.set()
    with pytest.raises(RolledBack):
        await syncing
    await until(lambda: w.vfs.gate.is_open)
    await w.mount.write_file(b"next", b"next")
    await w.vfs.sync()
    assert set(w.coordinator.tree()) == {"/next"}
    await w.time.passes(2)
    await resuming


async def test_a_read_only_mount_follows_too() -> None:
    writer = await started()
    await writer.mount.write_file(b"old", b"old")
    await writer.vfs.sync()
    snapshot = writer.coordinator.keep()
    await writer.mount.write_file(b"new", b"new")
    await writer.vfs.sync()
    reader = await started(read_only=True, coordinator=writer.coordinator)
    assert await reader.names() == {"old", "new"}
    await reader.hold()
    assert reader.kernel.log == []
    await reader.rebase(writer.coordinator.roll_back(snapshot))
    assert await reader.names() == {"old"}
