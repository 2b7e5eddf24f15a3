"""Views of snapshots inside of a mount: made at first use, bounded, given back when idle and never too early."""

from __future__ import annotations

import asyncio
from collections import Counter
from errno import ENFILE, ENOENT, ESTALE
from typing import Any

import pytest

from redfs.client.fs import snapshot_views
from redfs.client.fs.config import FsConfig
from redfs.client.fs.snapshot_views import (
    FIRST_NUMBER,
    IDLE_S,
    KEPT_VIEWS,
    LIST_AGE_S,
    MAX_VIEWS,
    Place,
    SnapshotViews,
    ViewSession,
)
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import FsError, LeaseLapsed, NotFound, Unavailable
from redfs.core.namespace import Context, MemoryView
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.fs.fakes import VOLUME_ID, FakeCoordinator, FakeReader, FakeSession, FakeStore, turns


class Session(FakeSession):
    """Knows the snapshots of a volume, and is as strict as the real one about views that were given back."""

    def __init__(self) -> None:
        super().__init__(FakeCoordinator())
        self.snapshots: dict[str, tuple[int, int]] = {}
        """Name -> (id, when it was made)."""
        self.views: set[int] = set()
        self.next_number = 1000
        self.reading: asyncio.Event | None = None
        """While set to an event that is not set, reads wait before they arrive."""

    def make(self, *names: str) -> None:
        for name in names:
            self.next_number += 1
            self.snapshots[name] = (self.next_number, self.next_number)

    async def call(self, **body: Any) -> Any:
        if "get_rows" in body:
            if self.reading is not None:
                await self.reading.wait()
            if body["get_rows"].volume_id not in self.views:
                raise LeaseLapsed("this ends the mount")
        return await super().call(**body)

    def _list_snapshots(self, request: pb.ListSnapshots) -> pb.ListSnapshotsReply:
        assert request.volume_id == VOLUME_ID
        return pb.ListSnapshotsReply(
            snapshots=[
                pb.Volume(volume_id=number, name=f"v@{name}", created_ns=made)
                for name, (number, made) in self.snapshots.items()
            ]
        )

    def _attach(self, request: pb.Attach) -> pb.AttachReply:
        assert request.view
        if request.name.partition("@")[2] not in self.snapshots:
            raise NotFound("it was deleted")
        _, made = self.snapshots[request.name.partition("@")[2]]
        self.next_number += 1
        self.views.add(self.next_number)
        reply = self.coordinator.attached(snapshot=True)
        reply.volume.volume_id, reply.volume.created_ns = self.next_number, made
        return reply

    def _view(self, volume_id: int) -> MemoryView:
        return self.coordinator.view

    def _detach(self, request: pb.Detach) -> pb.DetachReply:
        self.views.remove(request.volume_id)
        return pb.DetachReply()


class World:
    def __init__(self) -> None:
        self.session = Session()
        self.now_s = 0.0
        self.made: Counter[int] = Counter()
        self.views: SnapshotViews[int] = SnapshotViews(
            self.session, VOLUME_ID, FakeStore(self.session), FakeReader(self.session), FsConfig(), self._handler,
            clock=lambda: self.now_s,
        )  # fmt: skip

    def _handler(self, vfs: Vfs, place: Place) -> int:
        assert vfs.read_only
        assert vfs.is_snapshot
        self.made[place.at] += 1
        return place.at

    async def at(self, name: str) -> int:
        return self.views.place(await self.views.find(name.encode())).at

    async def look(self, name: str) -> None:
        """Uses the snapshot's view for a moment."""
        async with self.views.using(await self.at(name)) as view:
            await view.vfs.getattr(1)

    async def open_in(self, name: str) -> tuple[Vfs, int]:
        """Opens its top folder."""
        async with self.views.using(await self.at(name)) as view:
            return view.vfs, await view.vfs.opendir(1)


async def test_a_snapshot_is_found_as_soon_as_it_is_made_and_not_once_it_is_deleted() -> None:
    w = World()
    with pytest.raises(FsError) as error:
        await w.views.find(b"one")
    assert error.value.errno == ENOENT
    w.session.make("one")
    assert (await w.views.find(b"one")).full_name == "v@one"
    asked = w.session.coordinator.calls["list_snapshots"]
    await w.views.find(b"one")
    assert w.session.coordinator.calls["list_snapshots"] == asked, "a name that was told is believed for a moment"
    del w.session.snapshots["one"]
    w.now_s += LIST_AGE_S
    with pytest.raises(FsError):
        await w.views.find(b"one")


async def test_a_view_is_made_once_and_again_when_it_was_given_back() -> None:
    w = World()
    w.session.make("one")
    await asyncio.gather(*[w.look("one") for _ in range(5)])
    assert w.session.coordinator.calls["attach"] == 1
    at = await w.at("one")
    w.now_s += IDLE_S - 1
    w.views.tick()
    assert w.views.views == 1
    w.now_s += 1
    w.views.tick()
    await turns()
    assert w.session.views == set()
    await w.look("one")
    assert w.made == {at: 2}
    assert await w.at("one") == at


async def test_only_so_many_views_are_kept_and_those_in_use_stay() -> None:
    w = World()
    names = [f"s{number}" for number in range(MAX_VIEWS + 1)]
    w.session.make(*names)
    held = await w.open_in(names[0])
    for name in names:
        await w.look(name)
    await turns()
    assert len(w.session.views) == w.views.views == KEPT_VIEWS
    assert w.made[await w.at(names[0])] == 1, "somebody has it open"
    oldest, next_one = names[-KEPT_VIEWS + 1], names[-KEPT_VIEWS + 2]
    for name in (oldest, names[1], oldest, next_one):
        await w.look(name)
    made = [w.made[await w.at(name)] for name in (oldest, names[1], next_one)]
    assert made == [1, 2, 2], "the one used longest ago goes"

    handles = [held, *[await w.open_in(name) for name in names[1:MAX_VIEWS]]]
    with pytest.raises(FsError) as error:
        await w.look(names[MAX_VIEWS])
    assert error.value.errno == ENFILE
    await handles[5][0].releasedir(Context(0, 0, 0), handles[5][1])
    await w.look(names[MAX_VIEWS])


async def test_a_deleted_snapshot_is_given_back_when_nobody_has_it_open() -> None:
    w = World()
    w.session.make("one", "two")
    vfs, handle = await w.open_in("one")
    await w.look("two")
    at = await w.at("one")
    w.session.snapshots.clear()
    await w.views.listed(fresh=True)
    await turns()
    assert w.views.views == 1
    async with w.views.using(at) as view:
        await view.vfs.getattr(1)
    await vfs.releasedir(Context(0, 0, 0), handle)
    await w.views.listed(fresh=True)
    await turns()
    assert w.session.views == set()
    with pytest.raises(FsError) as error:
        async with w.views.using(at):
            pass
    assert error.value.errno == ESTALE


async def test_another_snapshot_of_the_same_name_has_other_numbers() -> None:
    w = World()
    w.session.make("one")
    await w.look("one")
    before = await w.at("one")
    old = await w.views.find(b"one")
    w.session.make("one")
    w.now_s += LIST_AGE_S
    assert await w.at("one") != before
    # It was replaced between the list and the attachment.
    w.session.snapshots["two"] = (old.volume_id + 50, 1)
    w.now_s += LIST_AGE_S
    at = await w.at("two")
    w.session.snapshots["two"] = (old.volume_id + 51, 2)
    with pytest.raises(FsError) as error:
        async with w.views.using(at):
            pass
    assert error.value.errno == ESTALE
    await turns()
    assert len(w.session.views) <= 1


async def test_a_view_is_given_back_after_the_last_answer_that_it_waits_for() -> None:
    w = World()
    w.session.make("one")
    await w.look("one")
    async with w.views.using(await w.at("one")) as view:
        vfs = view.vfs
    vfs.local.metadata.forget_clean()
    w.session.reading = asyncio.Event()
    ahead = asyncio.ensure_future(vfs.getattr(1))  # of a request that nobody waits for any more
    await turns()
    w.now_s += IDLE_S
    w.views.tick()
    await turns()
    assert len(w.session.views) == 1
    w.session.reading.set()
    await ahead
    await turns()
    assert w.session.views == set()
    vfs.local.metadata.forget_clean()
    with pytest.raises(Unavailable):
        await vfs.getattr(1)


async def test_a_view_session_that_is_idle_closes_at_once() -> None:
    session = ViewSession(FakeSession(FakeCoordinator()))
    assert session.is_serving
    await session.serving()
    await session.close()
    with pytest.raises(Unavailable):
        await session.call(stat_volume=pb.StatVolume())


async def test_indexes_of_deleted_snapshots_are_used_again_as_another_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_views, "LAST_INDEX", 4)
    w = World()
    w.session.make("a", "b", "c")
    places = [w.views.place(await w.views.find(name)) for name in (b"a", b"b", b"c")]
    assert [place.at for place in places] == [2, 3, 4]
    assert all(place.base >= FIRST_NUMBER for place in places)
    w.session.make("d")
    with pytest.raises(FsError):
        w.views.place(await w.views.find(b"d"))
    _, _ = await w.open_in("a")
    del w.session.snapshots["a"], w.session.snapshots["b"]
    w.now_s += LIST_AGE_S
    assert w.views.place(await w.views.find(b"d")) == Place(3, 1), "of the first one something is open"
    await w.look("d")


async def test_under_another_session_views_with_something_open_are_made_again() -> None:
    w = World()
    w.session.make("one", "two", "three")
    vfs, handle = await w.open_in("one")
    gone, lost = await w.open_in("three")
    await w.look("two")
    index = await w.at("one")
    w.session.lapsed = True
    await w.views.suspend()
    assert w.views.views == 2, "nobody has anything of the other one open"
    assert vfs.gate.is_shut
    for doing in (w.views.listed(fresh=True), w.look("two"), vfs.session.call(get_rows=pb.GetRows())):
        with pytest.raises(Unavailable, match="cut off"):
            await doing
    w.now_s += 2 * IDLE_S
    w.views.tick()

    w.session.lapsed = False
    w.session.views.clear()
    del w.session.snapshots["three"]
    old, calls = vfs.volume_id, w.session.coordinator.calls["detach"]
    await w.views.resume()
    assert vfs.gate.is_open
    assert vfs.volume_id != old
    assert w.session.views == {vfs.volume_id}
    assert [e.name for e, _ in await vfs.readdir(handle, 0, 10)] == [b".", b".."]
    async with w.views.using(index) as view:
        assert view.vfs is vfs
    assert gone.gate.is_open
    assert w.views.views == 1, "of a snapshot that is deleted nothing is left"
    with pytest.raises(Unavailable):
        await gone.readdir(lost, 0, 10)
    await w.look("two")
    assert w.session.coordinator.calls["detach"] == calls, "views of the old session went with it"


async def test_a_session_that_ends_while_views_are_made_again_does_not_cost_them() -> None:
    w = World()
    w.session.make("one", "two")
    vfs, handle = await w.open_in("one")
    await w.open_in("two")
    for ended in (True, False):
        await w.views.suspend()
        w.session.views.clear()
        w.session.errors["attach"] = [LeaseLapsed("ended again")] if ended else []
        await w.views.resume()
        assert vfs.gate.is_open is not ended
    assert w.views.views == 2
    assert [e.name for e, _ in await vfs.readdir(handle, 0, 10)] == [b".", b".."]
