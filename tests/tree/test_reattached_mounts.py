"""Mounts whose session the coordinator ended come back: alone or sharing, whatever became of the volume meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from errno import EIO, ESTALE
from typing import Any

import pytest

from redfs.client.fs.remote_engine import RemoteEngine
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import FsError, LeaseLapsed
from redfs.core.namespace import Context
from tests.tree.world import File, Mount, World

VOLUME = "v"
O_RDWR = 2


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.call("create_volume", VOLUME)
    yield world
    assert world.problems() == []
    world.close()


async def read(vfs: Vfs, handle: int) -> bytes:
    return bytes(await vfs.read(handle, 0, 1 << 20))


async def release(mount: Mount, *handles: int) -> None:
    for handle in handles:
        await mount.vfs.release(Context(0, 0, mount.vfs.now_ns()), handle)


async def opened(world: World, mount: Mount) -> tuple[int, int]:
    """Handles of a file with a name, and of one without; all of it committed."""
    await mount.write("file", b"data")
    await mount.write("nameless", b"temporary")
    handles = await mount.open("file", O_RDWR), await mount.open("nameless", O_RDWR)
    await mount.unlink("nameless")
    await mount.sync()
    return handles


@pytest.mark.parametrize("shared", [False, True])
def test_a_mount_alone_has_its_volume_again(world: World, shared: bool) -> None:
    async def run() -> None:
        mount = await world.mount(VOLUME, shared=shared)
        file, nameless = await opened(world, mount)
        await mount.write("unsaved", b"lost")
        unsaved = await mount.open("unsaved", O_RDWR)
        before = mount.session.session_id
        await world.end_session(mount)
        await world.back(mount)
        assert mount.session.session_id != before
        assert not mount.vfs.is_shared
        assert await read(mount.vfs, file) == b"data"
        with pytest.raises(FsError) as error:
            await mount.vfs.read(unsaved, 0, 4)
        assert error.value.errno in (EIO, ESTALE)
        await mount.vfs.write(file, 0, b"DATA")
        await mount.vfs.fsync(file)
        await release(mount, file, nameless, unsaved)
        assert await mount.content() == {"file": File("file", b"DATA")}
        await mount.close()
        await world.idle()

    world.run(run())


def test_a_mount_that_was_alone_comes_back_to_a_volume_that_another_one_shares(world: World) -> None:
    async def run() -> None:
        one = await world.mount(VOLUME, shared=True)
        file, nameless = await opened(world, one)
        one.vfs.gate.inside += 1  # keeps it from coming back before the other one is there
        await world.end_session(one)
        two = await world.mount(VOLUME, shared=True)
        one.vfs.gate.inside -= 1
        one.vfs.gate.left()
        await world.back(one)
        assert isinstance(one.vfs.engine, RemoteEngine)
        assert two.vfs.is_shared
        await two.write("file", b"newer")
        assert await read(one.vfs, file) == b"newer"
        await one.vfs.write(file, 0, b"N")
        assert (await two.content())["file"] == File("file", b"Newer")
        await two.unlink("file")
        assert await read(one.vfs, file) == b"Newer", "the coordinator knows again what is open here"
        await release(one, file, nameless)
        await two.close()
        await world.until(lambda: not one.vfs.is_shared and one.vfs.gate.is_open)
        assert await one.content() == {}
        await one.close()
        await world.idle()

    world.run(run())


def test_who_comes_back_while_the_last_other_one_leaves_is_alone(world: World) -> None:
    async def run() -> None:
        one = await world.mount(VOLUME, shared=True)
        file, nameless = await opened(world, one)
        one.vfs.gate.inside += 1
        await world.end_session(one)
        two = await world.mount(VOLUME, shared=True)
        call, alone = one.session.call, one.session.on_alone
        told: list[int] = []

        async def calls(**body: Any) -> Any:
            if "declare_open" in body:
                await two.close()
                await world.until(lambda: bool(told))
            return await call(**body)

        async def is_alone(volume_id: int) -> None:
            await alone(volume_id)
            told.append(volume_id)

        one.session.call = calls  # type: ignore[method-assign]
        one.session.on_alone = is_alone
        one.vfs.gate.inside -= 1
        one.vfs.gate.left()
        await world.back(one)
        await world.until(lambda: not one.vfs.is_shared and one.vfs.gate.is_open)
        assert len(told) == 1, "the order came before it could be carried out"
        await release(one, file, nameless)
        await one.close()
        await world.idle()

    world.run(run())


def test_one_of_two_that_share_comes_back(world: World) -> None:
    async def run() -> None:
        one, two = await world.mount(VOLUME, shared=True), await world.mount(VOLUME, shared=True)
        await two.write("file", b"data")
        file = await one.open("file", O_RDWR)
        await world.end_session(one)
        await two.unlink("file")
        await two.write("other", b"other data")
        await world.back(one)
        assert await one.content() == {"other": File("file", b"other data")}
        await one.write("third", b"3")
        await release(one, file)
        await one.close()
        await world.until(lambda: not two.vfs.is_shared and two.vfs.gate.is_open)
        assert (await two.content())["third"] == File("file", b"3")
        await two.close()
        await world.idle()

    world.run(run())


def test_another_mount_has_the_volume_for_a_while(world: World) -> None:
    async def run() -> None:
        one = await world.mount(VOLUME)
        file, nameless = await opened(world, one)
        one.vfs.gate.inside += 1  # keeps it from coming back before the other one is there
        await world.end_session(one)
        two = await world.mount(VOLUME)
        one.vfs.gate.inside -= 1
        one.vfs.gate.left()
        await two.write("file", b"newer")
        await two.sync()
        assert not one.vfs.gate.is_open
        await two.close()
        await world.back(one)
        assert await read(one.vfs, file) == b"newer"
        await release(one, file, nameless)
        await one.close()
        await world.idle()

    world.run(run())


def test_the_volume_was_renamed_meanwhile(world: World) -> None:
    async def run() -> None:
        mount = await world.mount(VOLUME)
        file, nameless = await opened(world, mount)
        await asyncio.to_thread(world.pool.rename_volume, VOLUME, "w")
        await asyncio.to_thread(world.pool.create_volume, VOLUME)
        await world.end_session(mount)
        await world.back(mount)
        assert await read(mount.vfs, file) == b"data", "not the one that has the name now"
        await release(mount, file, nameless)
        await mount.close()
        assert await world.look("w") == {"file": File("file", b"data")}
        assert await world.look(VOLUME) == {}

    world.run(run())


def test_the_volume_was_deleted_meanwhile(world: World) -> None:
    async def run() -> None:
        mount = await world.mount(VOLUME)
        await opened(world, mount)
        mount.vfs.gate.inside += 1  # keeps it from coming back before the volume is deleted
        await world.end_session(mount)
        await asyncio.to_thread(world.pool.delete_volume, VOLUME)
        await asyncio.to_thread(world.pool.create_volume, VOLUME)
        mount.vfs.gate.inside -= 1
        mount.vfs.gate.left()
        await world.back(mount)
        with pytest.raises(LeaseLapsed, match="was deleted"):
            await mount.content()
        with pytest.raises(LeaseLapsed, match="was deleted"):
            await mount.close()
        await mount.session.close()

    world.run(run())


def test_a_mount_of_a_snapshot_comes_back(world: World) -> None:
    async def run() -> None:
        mount = await world.mount(VOLUME)
        await mount.write("file", b"data")
        await mount.sync()
        await asyncio.to_thread(world.pool.create_snapshot, f"{VOLUME}@s")
        await mount.write("file", b"newer")
        await mount.close()
        snapshot = await world.mount(f"{VOLUME}@s")
        file = await snapshot.open("file", 0)
        await world.end_session(snapshot)
        await world.back(snapshot)
        assert await read(snapshot.vfs, file) == b"data"
        await release(snapshot, file)
        await snapshot.close()

    world.run(run())
