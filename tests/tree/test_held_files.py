"""What a mount holds of new files in shared mode: written in batches, before others look, and never lost quietly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from redfs.client.fs.engine import O_APPEND
from redfs.client.fs.remote_engine import RemoteEngine
from redfs.core.errors import NoSpace
from tests.tree.world import Mount, World

O_RDWR = 2


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    try:
        yield world
    finally:
        world.close()


def two_mounts(world: World) -> tuple[Mount, Mount]:
    world.call("create_volume", "v")
    return world.run(world.mount("v", shared=True)), world.run(world.mount("v", shared=True))


def engine_of(mount: Mount) -> RemoteEngine:
    assert isinstance(mount.vfs.engine, RemoteEngine)
    return mount.vfs.engine


def close(world: World, *mounts: Mount) -> None:
    for mount in mounts:
        world.run(mount.close())
    world.run(world.idle())
    assert world.problems() == []


def test_many_new_files_travel_together(world: World) -> None:
    one, other = two_mounts(world)
    stored: list[int] = []
    store = world.blocks.store

    async def counting(session: Any, volume_id: int, plain: Any, dedupe: bool) -> Any:
        stored.append(len(plain))
        return await store(session, volume_id, plain, dedupe)

    world.blocks.store = counting  # type: ignore[method-assign]
    for number in range(100):
        world.run(one.write(f"{number}", b"%d" % number * 500))
    world.run(one.write("empty", b""))
    assert stored == []
    assert len(engine_of(one).unsure()[0]) == 100
    assert not one.vfs.is_clean
    world.run(one.sync())
    assert stored == [100]
    assert one.vfs.is_clean
    found = world.run(other.content())
    assert all(found[f"{number}"].content == b"%d" % number * 500 for number in range(100))
    assert stored == [100]
    close(world, one, other)


def test_a_name_is_replaced_by_a_file_whose_data_is_stored(world: World) -> None:
    one, other = two_mounts(world)
    world.run(one.write("old", b"old"))
    world.run(one.write("new", b"new"))
    world.run(one.rename("new", "elsewhere"))
    assert len(engine_of(one).unsure()[0]) == 2, "no name was replaced"
    ino = world.run(one.vfs.lookup(1, b"elsewhere")).ino
    world.run(one.rename("elsewhere", "old"))
    assert ino not in engine_of(one).held.files
    assert engine_of(one).unsure()[0] == set(), "what was replaced is not needed"
    assert world.run(other.read("old")) == b"new"
    close(world, one, other)


def test_what_cannot_be_stored_is_told_and_kept(world: World) -> None:
    one, other = two_mounts(world)
    handle = world.run(one.create("f", O_RDWR))
    world.run(one.vfs.write(handle, 0, b"kept"))
    store = world.blocks.store

    async def full(*_: Any) -> Any:
        raise NoSpace("the storage nodes are full")

    world.blocks.store = full  # type: ignore[method-assign, assignment]
    with pytest.raises(NoSpace):
        world.run(one.vfs.fsync(handle))
    with pytest.raises(NoSpace):
        one.vfs.flush(handle)
    assert not one.vfs.is_clean
    assert bytes(world.run(one.vfs.read(handle, 0, 10))) == b"kept"
    world.blocks.store = store  # type: ignore[method-assign]
    assert world.run(other.read("f")) == b"kept"
    one.vfs.flush(handle)
    world.run(one.release(handle))
    close(world, one, other)


def test_a_file_that_grows_is_let_go_and_goes_on(world: World) -> None:
    one, other = two_mounts(world)
    handle = world.run(one.create("f", O_RDWR | O_APPEND))
    part = bytes(range(256)) * 1024
    for _ in range(6):
        world.run(one.vfs.write(handle, 0, part))
    assert not engine_of(one).held.files
    assert world.run(other.read("f")) == part * 6
    world.run(one.release(handle))
    close(world, one, other)


def test_without_reserved_space_nothing_is_kept_back(world: World) -> None:
    one, other = two_mounts(world)
    engine_of(one).held.space.granted_bytes = 0
    world.run(one.write("f", b"written through"))
    assert one.vfs.is_clean
    assert world.run(other.read("f")) == b"written through"
    close(world, one, other)


def test_writes_reads_and_looks_at_once(world: World) -> None:
    one, other = two_mounts(world)

    async def work(mount: Mount, number: int) -> None:
        await mount.write(f"{number}", b"%d" % number * 1000)

    async def looks(mount: Mount) -> None:
        for _ in range(5):
            for path, file in (await mount.content()).items():
                assert file.content in (b"", path.encode() * 1000)

    async def all_at_once() -> None:
        writes = [work((one, other)[number % 2], number) for number in range(60)]
        await asyncio.gather(looks(one), looks(other), *writes)

    world.run(all_at_once())
    assert len(world.run(one.content())) == 60
    close(world, one, other)
