"""Views of a real coordinator's nodes: how long they are used, how many there are, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redfs.client.config import PoolPlace
from redfs.client.console import browse, views
from redfs.client.console.coordinator import Coordinator
from redfs.client.console.views import FRESH_S, IDLE_S, SESSION_IDLE_S, View, Views
from redfs.client.data.cache import BlockCache
from redfs.client.data.reader import BlockReader
from redfs.client.fs.vfs import Vfs
from redfs.client.node_pool import NodePool
from redfs.client.session import CoordinatorSession
from redfs.core.errors import NotFound, Unavailable
from redfs.core.namespace import Context
from redfs.core.tables import ATTACHMENTS
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.console.rig import until
from tests.client.fs.fakes import Clock
from tests.coordinator.test_service import World, world

CTX = Context(0, 0, 1)


class Held:
    """Views of a coordinator in this process."""

    def __init__(self, made: World, address: str, clock: Clock) -> None:
        self.world = made
        self.address = address
        self.clock = clock
        self.coordinator = Coordinator(PoolPlace(address, None))
        self.views = Views(self.coordinator, clock=clock)

    def attached(self) -> int:
        """Views and mounts that the coordinator knows of."""
        with self.world.coordinator.read() as kv:
            return sum(1 for _ in kv.scan(ATTACHMENTS, b"", b"\xff" * 17))

    async def names(self, name: str) -> list[str]:
        """What the top of a node holds."""
        async with self.views.of(name) as view:
            page = await browse.page(view, b"/", "", 100)
        return sorted(entry["name"] for entry in page["entries"])


@asynccontextmanager
async def held(folder: Path) -> AsyncIterator[Held]:
    async with world(folder, nodes=1) as made:
        address = made.address
        found = Held(made, address, Clock())
        await made.stub.CreateVolume(pb.VolumeCreate(name="photos", protection="single"))
        try:
            yield found
        finally:
            await found.views.close()
            await found.coordinator.close()


@asynccontextmanager
async def writing(address: str, volume: str) -> AsyncIterator[Vfs]:
    """A mount without FUSE, for names only."""
    session = await CoordinatorSession.open(address, "test:1:/mnt")
    nodes = NodePool(session)
    reader = BlockReader(session, nodes, BlockCache(0))
    vfs = Vfs(session, await session.call(attach=pb.Attach(name=volume)), views._ReadOnlyStore(), reader)
    try:
        await vfs.start()
        yield vfs
        await vfs.close()
    finally:
        await reader.close()
        await nodes.close()
        await session.close()


async def make(address: str, volume: str, *names: bytes) -> None:
    async with writing(address, volume) as vfs:
        for name in names:
            await vfs.mkdir(CTX, 1, name, 0o755)


async def test_a_live_volume_is_shown_at_most_a_second_old(tmp_path: Path) -> None:
    async with held(tmp_path) as h:
        await make(h.address, "photos", b"one")
        assert await h.names("photos") == ["one"]
        async with h.views.of("photos") as first:
            await make(h.address, "photos", b"two")
            assert await h.names("photos") == ["one"], "the same view, it is fresh enough"
            h.clock.now_s += FRESH_S + 0.1
            assert await h.names("photos") == ["one", "two"]
            page = await browse.page(first, b"/", "", 10)
            assert len(page["entries"]) == 1, "who has the older view keeps it"
            assert h.views.count == 2
        await until(lambda: h.attached() == 1)
        assert h.views.count == 1


async def test_a_snapshot_is_shown_from_one_view_while_it_is_asked_for(tmp_path: Path) -> None:
    async with held(tmp_path) as h:
        await make(h.address, "photos", b"one")
        await h.world.stub.CreateSnapshot(pb.SnapshotCreate(name="photos@mon"))
        await make(h.address, "photos", b"two")
        found: list[View] = []
        for _ in range(3):
            async with h.views.of("photos@mon") as view:
                found.append(view)
            h.clock.now_s += IDLE_S - 1
            h.views.tick()
        assert len(set(found)) == 1
        assert await h.names("photos@mon") == ["one"]
        h.clock.now_s += IDLE_S + 1
        h.views.tick()
        await until(lambda: h.attached() == 0)
        assert h.views.has_session
        h.clock.now_s += SESSION_IDLE_S + 1
        h.views.tick()
        assert not h.views.has_session
        assert await h.names("photos@mon") == ["one"], "another session is opened when it is needed"


async def test_views_keep_nobody_from_anything(tmp_path: Path) -> None:
    async with held(tmp_path) as h:
        await make(h.address, "photos", b"one")
        async with h.views.of("photos") as view:
            assert list((await h.coordinator.volume("photos")).mounts) == []
            await h.world.stub.DeleteVolume(pb.VolumeDelete(name="photos"))
            assert (await browse.page(view, b"/", "", 10))["entries"][0]["name"] == "one"
        with pytest.raises(NotFound):
            await h.names("photos")


async def test_a_name_that_means_another_node_now_shows_that_one(tmp_path: Path) -> None:
    async with held(tmp_path) as h:
        await make(h.address, "photos", b"old")
        await h.world.stub.CreateSnapshot(pb.SnapshotCreate(name="photos@mon"))
        assert await h.names("photos@mon") == ["old"]
        await h.world.stub.DeleteVolume(pb.VolumeDelete(name="photos@mon"))
        await make(h.address, "photos", b"new")
        await h.world.stub.CreateSnapshot(pb.SnapshotCreate(name="photos@mon"))
        assert await h.names("photos@mon") == ["new", "old"]


async def test_a_name_that_moves_while_it_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(tmp_path) as h:
        await make(h.address, "photos", b"old")
        await h.world.stub.CreateVolume(pb.VolumeCreate(name="next", protection="single"))
        await make(h.address, "next", b"new")
        honest = h.coordinator.volume

        async def volume(name: str) -> pb.Volume:
            found = await honest(name)
            if name == "photos" and (await honest("next")).volume_id:
                monkeypatch.undo()
                await h.world.stub.RenameVolume(pb.VolumeRename(name="photos", new_name="gone"))
                await h.world.stub.RenameVolume(pb.VolumeRename(name="next", new_name="photos"))
            return found

        monkeypatch.setattr(h.coordinator, "volume", volume)
        assert await h.names("photos") == ["new"]
        assert await h.names("gone") == ["old"], "no view is kept under a node that it does not show"


async def test_requests_at_the_same_time_share_a_view(tmp_path: Path) -> None:
    async with held(tmp_path) as h:
        await make(h.address, "photos", b"one")
        results = await asyncio.gather(*(h.names("photos") for _ in range(20)))
        assert all(names == ["one"] for names in results)
        assert h.attached() == 1


async def test_the_number_of_views_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_VIEWS", 3)
    async with held(tmp_path) as h:
        for number in range(5):
            await h.world.stub.CreateSnapshot(pb.SnapshotCreate(name=f"photos@s{number}"))
        for number in range(5):
            assert await h.names(f"photos@s{number}") == []
            assert h.views.count <= 3
        await until(lambda: h.attached() == 3)
        async with AsyncExitStack() as stack:
            for number in range(3):
                await stack.enter_async_context(h.views.of(f"photos@s{number}"))
            with pytest.raises(Unavailable, match="at once"):
                await h.names("photos@s4")
        assert await h.names("photos@s4") == []


async def test_a_session_that_ended_is_replaced(tmp_path: Path) -> None:
    async with held(tmp_path) as h:
        await make(h.address, "photos", b"one")
        assert await h.names("photos") == ["one"]
        async with h.views.of("photos") as view:
            session: Any = view.backend.session
            await session.call(close=pb.Close())  # the coordinator ends it; the next request is refused
        view.vfs.local.metadata.forget_clean()
        with pytest.raises(Unavailable, match="try again"):
            await h.names("photos")
        assert await h.names("photos") == ["one"]


async def test_where_no_coordinator_is_the_error_comes_soon(tmp_path: Path) -> None:
    coordinator = Coordinator(PoolPlace("127.0.0.1:9", None))
    found = Views(coordinator)
    try:
        with pytest.raises(Unavailable, match="redfs up"):
            async with found.of("photos"):
                pass
        assert found.count == 0
    finally:
        await found.close()
        await coordinator.close()
