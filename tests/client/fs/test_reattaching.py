"""A mount that outlives its session: what is lost is told where it is lost, and all else goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from errno import EIO, ENOENT, ESTALE
from functools import partial
from typing import Any

import pytest

from redfs.client.fs.following import Following
from redfs.client.fs.reattaching import Reattaching
from redfs.client.fs.sharing import Sharing
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import Busy, FsError, LeaseLapsed, NotFound, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.fs.fakes import VOLUME_ID, VOLUME_NAME, FakeCoordinator, FakeSession, Mount, turns, until

WAYS_TO_END_AGAIN = ("begin", "attach", "get_rows", "reserve", "forget", "resume")


class Session(FakeSession):
    """One that can end, and be begun anew; then it has no blocks that were not committed, and counts from one."""

    def __init__(self, coordinator: FakeCoordinator, yields: int, *, snapshot: bool) -> None:
        super().__init__(coordinator, yields)
        self.snapshot = snapshot
        self.on_lapsed: Callable[[], None] = lambda: None
        self.follows = False
        """Another one is announced."""
        self.begun = 1
        self.end_at: list[str] = []
        """Requests at which it ends, in turn."""
        self.attached: list[pb.Attach] = []
        self.held_by = ""

    def end(self) -> None:
        self.lapsed = True
        self.on_lapsed()

    def goes_on_anew(self) -> None:
        self.follows = True

    def ends_for_good(self) -> None:
        self.follows = False

    async def begin_anew(self) -> None:
        assert self.follows
        await self._pause()
        if self.errors.get("begin"):
            raise self.errors["begin"].pop(0)
        if self.lapsed:
            self.lapsed, self.last_commit, self.begun = False, 0, self.begun + 1
            self.plain.clear()
        self.reaches("begin")

    def reaches(self, step: str) -> None:
        """Ends, if it is to end here."""
        if self.end_at[:1] == [step]:
            self.end_at.pop(0)
            self.end()

    async def call(self, **body: Any) -> Any:
        self.reaches(next(iter(body)))
        return await super().call(**body)

    def _attach(self, request: pb.Attach) -> pb.AttachReply:
        if self.held_by:
            raise Busy(f"held by {self.held_by}")
        self.attached.append(request)
        return self.coordinator.attached(read_only=request.read_only, snapshot=self.snapshot)


class Kernel:
    """Notes how the gate stands when it drops pages."""

    timeout_s = 1.0

    def __init__(self, session: Session, vfs: Vfs) -> None:
        self._session, self._vfs = session, vfs
        self.log: list[tuple[str, bool, bool]] = []

    async def write_back(self) -> None: ...

    def rolled_back(self) -> None:
        self.log.append(("keeps no pages", self._vfs.gate.is_open, self._vfs.gate.lets_data_pass))

    async def forget(self, inodes: Sequence[int]) -> None:
        self._session.reaches("forget")
        self.log.append((f"drops pages of {len(inodes)}", self._vfs.gate.is_open, self._vfs.gate.lets_data_pass))

    def moved(self, ino: int, path: Callable[[int], Sequence[bytes] | None]) -> None:
        """Nobody renames across folders here."""

    async def forget_names(self, names: Sequence[tuple[int, bytes]]) -> None: ...


class World:
    def __init__(
        self, *, read_only: bool = False, snapshot: bool = False, from_: FakeCoordinator | None = None
    ) -> None:
        self.mount = Mount(
            from_, read_only=read_only, snapshot=snapshot, make_session=partial(Session, snapshot=snapshot)
        )
        self.coordinator, self.vfs = self.mount.coordinator, self.mount.vfs
        assert isinstance(self.mount.session, Session)
        self.session = self.mount.session
        self.kernel = Kernel(self.session, self.vfs)
        self.pauses: list[float] = []
        following = Following(self.session, self.vfs, self.kernel, sleep=self._pause)
        sharing = Sharing(self.session, self.vfs, self.kernel, following, sleep=self._pause)
        wanted = pb.Attach(name=VOLUME_NAME, read_only=read_only or snapshot)
        self.reattaching = Reattaching(
            self.session, self.vfs, self.kernel, following, sharing, wanted, sleep=self._pause
        )
        self.forsaken = 0
        self.reattaching.forsake.append(self._forsake)
        self.reattaching.resume.append(self._resume)
        self.session.on_lapsed = self.reattaching.lapsed

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def _forsake(self) -> None:
        assert not self.vfs.gate.inside
        self.forsaken += 1

    async def _resume(self) -> None:
        assert self.vfs.gate.is_shut
        self.session.reaches("resume")

    async def back(self) -> None:
        await until(lambda: self.vfs.gate.is_open)
        await turns()

    async def look(self) -> set[str]:
        """What a program lists, through the gate."""
        async with self.vfs.gate.passed():
            handle = await self.vfs.opendir(1)
            listed = await self.vfs.readdir(handle, 0, 100)
            await self.vfs.releasedir(self.mount.ctx, handle)
        return {entry.name.decode() for entry, _ in listed} - {".", ".."}


async def started(*, read_only: bool = False, snapshot: bool = False, from_: FakeCoordinator | None = None) -> World:
    w = World(read_only=read_only, snapshot=snapshot, from_=from_)
    await w.vfs.start()
    return w


async def fails(doing: Any, errno: int) -> None:
    with pytest.raises(FsError) as error:
        await doing
    assert error.value.errno == errno


async def test_what_is_lost_is_named_and_given_to_those_who_have_it_open(caplog: pytest.LogCaptureFixture) -> None:
    w = await started()
    ctx = w.mount.ctx
    folder = (await w.vfs.mkdir(ctx, 1, b"docs", 0o755)).ino
    letter = await w.mount.write_file(b"letter", b"dear all", folder)
    other = await w.mount.write_file(b"other", b"as it was")
    await w.vfs.sync()
    writing = await w.vfs.open(ctx, letter, 2)
    reading = await w.vfs.open(ctx, letter, 0)
    good = await w.vfs.open(ctx, other, 2)
    listing = await w.vfs.opendir(folder)
    await w.vfs.write(writing, 0, b"DEAR")
    new, entry = await w.vfs.create(ctx, folder, b"new", 0o644)

    with caplog.at_level(logging.WARNING):
        w.session.end()
        await w.back()
    assert "unsaved changes are lost: /docs/letter" in caplog.text
    assert "/other" not in caplog.text
    assert w.session.begun == 2
    assert w.forsaken == 1

    for handle in (writing, reading):
        await fails(w.vfs.read(handle, 0, 10), EIO)
        await fails(w.vfs.write(handle, 0, b"x"), EIO)
        await fails(w.vfs.fsync(handle), EIO)
        with pytest.raises(FsError):
            w.vfs.flush(handle)
        await w.vfs.release(ctx, handle)
    await fails(w.vfs.read(new, 0, 10), ESTALE)
    await fails(w.vfs.getattr(entry.ino), ESTALE)
    await fails(w.vfs.fsyncdir(listing), EIO)
    assert {e.name for e, _ in await w.vfs.readdir(listing, 0, 10)} == {b".", b"..", b"letter"}
    await w.vfs.release(ctx, new)
    await fails(w.vfs.getattr(entry.ino), ENOENT)

    assert await w.mount.read_file(letter) == b"dear all", "whoever opens it again has it as it is stored"
    await w.vfs.write(good, 0, b"AS")
    await w.vfs.fsync(good)
    assert w.coordinator.content(other) == b"AS it was", "committed as the first of the new session"
    assert w.session.last_commit == 1


async def test_who_waits_for_an_fsync_is_told_that_it_came_to_nothing() -> None:
    w = await started()
    handle, entry = await w.vfs.create(w.mount.ctx, 1, b"file", 0o644)
    await w.vfs.fsync(handle)
    await w.vfs.write(handle, 0, b"data")
    w.session.gate = asyncio.Event()
    waiting = asyncio.ensure_future(w.vfs.fsync(handle))
    await turns()
    w.session.end()
    w.session.gate.set()
    with pytest.raises(LeaseLapsed):
        await waiting
    await w.back()
    await fails(w.vfs.fsync(handle), EIO)
    await w.vfs.release(w.mount.ctx, handle)
    assert await w.mount.read_file(entry.ino) == b""


async def test_a_mount_without_unsaved_changes_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    w = await started()
    handle, entry = await w.vfs.create(w.mount.ctx, 1, b"file", 0o644)
    await w.vfs.write(handle, 0, b"data")
    nameless, _ = await w.vfs.create(w.mount.ctx, 1, b"nameless", 0o644)
    await w.vfs.unlink(w.mount.ctx, 1, b"nameless")
    await w.vfs.sync()
    with caplog.at_level(logging.WARNING):
        w.session.end()
        looking = asyncio.ensure_future(w.look())
        await turns(1)
        assert not looking.done()
        await w.back()
    assert await looking == {"file"}, "what came meanwhile waited"
    assert "lost" not in caplog.text
    await w.vfs.fsync(handle)
    assert bytes(await w.vfs.read(handle, 0, 10)) == b"data"
    await w.vfs.write(nameless, 0, b"still here")
    await w.vfs.fsync(nameless)
    await w.vfs.release(w.mount.ctx, nameless)
    await w.vfs.sync()
    assert w.coordinator.tree() == {"/file": entry.ino}
    assert list(w.coordinator.blocks.values()) == [b"data"], "and is freed by its last close"
    assert w.session.attached[0].volume_id == VOLUME_ID, "by its number: it may have another name"


async def test_the_kernel_drops_pages_before_it_is_told_attributes() -> None:
    w = await started()
    await w.vfs.create(w.mount.ctx, 1, b"file", 0o644)
    await w.vfs.sync()
    w.session.end()
    await w.back()
    assert w.kernel.log == [("keeps no pages", False, False), ("drops pages of 1", False, True)]
    assert not w.vfs.gate.lets_data_pass


@pytest.mark.parametrize("step", WAYS_TO_END_AGAIN)
async def test_it_ends_again_while_it_comes_back(step: str) -> None:
    w = await started()
    handle, entry = await w.vfs.create(w.mount.ctx, 1, b"file", 0o644)
    await w.vfs.write(handle, 0, b"data")
    await w.vfs.sync()
    lost, _ = await w.vfs.create(w.mount.ctx, 1, b"lost", 0o644)
    w.session.end_at = [step, step]
    w.session.end()
    await w.back()
    assert not w.session.end_at
    assert w.session.begun == 4
    assert w.forsaken == 3
    assert await w.look() == {"file"}
    await fails(w.vfs.read(lost, 0, 1), ESTALE)
    await w.vfs.write(handle, 0, b"DATA")
    await w.vfs.fsync(handle)
    assert w.coordinator.content(entry.ino) == b"DATA"


async def test_it_ends_again_while_what_was_is_put_away() -> None:
    w = await started()
    engine = w.vfs.engine
    stop, stopped = engine.stop, 0

    async def stops() -> None:
        nonlocal stopped
        stopped += 1
        await stop()
        if stopped == 2:
            w.session.end()

    engine.stop = stops  # type: ignore[method-assign]
    w.session.end()
    await w.back()
    assert stopped == 2
    assert w.session.begun == 3
    assert await w.look() == set()


async def test_it_ends_again_in_the_moment_when_it_is_back() -> None:
    w = await started()
    w.session.end()
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "reattach"]
    while not tasks[0].done():
        await asyncio.sleep(0)
    w.session.end()
    assert w.vfs.is_cut_off
    await w.back()
    assert w.session.begun == 3


async def test_the_volume_was_deleted_meanwhile() -> None:
    w = await started()
    handle, _ = await w.vfs.create(w.mount.ctx, 1, b"file", 0o644)
    await w.vfs.sync()
    w.session.errors["attach"] = [NotFound("it was deleted")]
    w.session.end()
    looking = asyncio.ensure_future(w.look())
    await w.back()
    with pytest.raises(LeaseLapsed, match="was deleted"):
        await looking
    with pytest.raises(LeaseLapsed, match="was deleted"):
        await w.vfs.write(handle, 0, b"x")
    assert not w.session.follows, "who waits for it is let go"
    assert not w.vfs.is_cut_off


async def test_another_mount_has_it_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    w = await started()
    handle, _ = await w.vfs.create(w.mount.ctx, 1, b"mine", 0o644)
    await w.vfs.sync()
    w.session.errors["begin"] = [Unavailable("nobody answers")]
    w.session.held_by = "host b"
    with caplog.at_level(logging.WARNING):
        w.session.end()
        # What the other one does is there when this one has it again.
        other = Mount(w.coordinator)
        await (await other.start()).unlink(other.ctx, 1, b"mine")
        await other.write_file(b"theirs", b"other data")
        await other.vfs.sync()
        await until(lambda: w.coordinator.calls["attach"] > 3)
        assert not w.vfs.gate.is_open
        w.session.held_by = ""
        await w.back()
    assert caplog.text.count("held by host b") == 1
    assert await w.look() == {"theirs"}
    await fails(w.vfs.write(handle, 0, b"x"), ESTALE)
    await w.vfs.release(w.mount.ctx, handle)
    assert not w.vfs.has_open


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_mount_that_reads_only_goes_on(snapshot: bool, caplog: pytest.LogCaptureFixture) -> None:
    first = Mount()
    await first.start()
    ino = await first.write_file(b"file", b"data")
    await first.vfs.sync()
    w = await started(read_only=not snapshot, snapshot=snapshot, from_=first.coordinator)
    handle = await w.vfs.open(w.mount.ctx, ino, 0)
    with caplog.at_level(logging.WARNING):
        w.session.end()
        await w.back()
    assert "lost" not in caplog.text
    assert w.session.attached[0].read_only
    assert bytes(await w.vfs.read(handle, 0, 10)) == b"data"
    w.vfs.flush(handle)
    await w.vfs.close()


@pytest.mark.parametrize("dirty", [True, False])
async def test_unmounting_while_cut_off_waits_for_nothing(dirty: bool, caplog: pytest.LogCaptureFixture) -> None:
    w = await started()
    handle, _ = await w.vfs.create(w.mount.ctx, 1, b"file", 0o644)
    await w.vfs.sync()
    if dirty:
        await w.vfs.write(handle, 0, b"data")
    w.session.held_by = "host b"
    with caplog.at_level(logging.WARNING):
        w.session.end()
        await until(lambda: w.coordinator.calls["attach"] > 3)
        await w.reattaching.stop()
    asked = w.coordinator.calls["attach"]
    if dirty:
        assert "unsaved changes are lost: /file" in caplog.text
        with pytest.raises(RedfsError):
            await w.vfs.close()
    else:
        assert "lost" not in caplog.text
        await w.vfs.close()
    await turns()
    assert w.coordinator.calls["attach"] == asked
    assert not w.session.follows


async def test_an_end_to_trying_that_nobody_foresaw_is_told() -> None:
    w = await started()

    async def breaks() -> None:
        raise ZeroDivisionError

    w.reattaching.resume.insert(0, breaks)
    w.session.end()
    await w.back()
    assert not w.session.follows
    assert w.vfs.failure is not None
    assert "cannot be attached again" in str(w.vfs.failure)
