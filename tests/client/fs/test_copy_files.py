"""Copying between nodes of the tree over fakes: what is copied, where to, and what stays when it goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import stat
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from redfs.client.fs import copier as copier_module
from redfs.client.fs import copy_files as module
from redfs.client.fs.config import FsConfig
from redfs.client.fs.copier import Copier
from redfs.client.fs.copy_files import SLOTS_AT_ONCE, temporary_name
from redfs.client.fs.gate import Gate
from redfs.core.errors import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    LeaseLapsed,
    NoSpace,
    NotFound,
    RedfsError,
    Unavailable,
)
from redfs.core.namespace import MemoryView
from redfs.core.records import (
    SLOT_BYTES,
    Inode,
    Key,
    Kind,
    Slot,
    XattrBucket,
    generation_of,
    inode_key,
    slot_key,
)
from redfs.core.slots import resolve, slot_range
from redfs.proto.gen import cluster_pb2 as pb

from .fakes import VOLUME_ID, VOLUME_NAME, FakeCoordinator, Mount, turns, until

SOURCE = "other@s"
Described = dict[str, dict[str, Any]]


def content(view: MemoryView, blocks: dict[int, bytes], ino: int) -> bytes:
    """A file's bytes in a view."""
    inode = cast(Inode, view.records[inode_key(ino)])
    out = bytearray()
    for number, start, length, _ in slot_range(0, inode.size):
        key = slot_key(ino, generation_of(inode.generations, number), number)
        for extent in resolve(cast(Slot, view.records.get(key, ())), start, length):
            part = blocks[extent.block][extent.block_offset :] if extent.block else bytes(extent.length)
            out += part[: extent.length]
    return bytes(out)


def described(view: MemoryView, blocks: dict[int, bytes], ino: int = 1, path: str = "") -> Described:
    """Path -> everything that a copy keeps, the top itself included."""
    names: dict[int, list[str]] = {}
    out: Described = {}

    def walk(ino: int, path: str) -> None:
        inode = cast(Inode, view.records[inode_key(ino)])
        names.setdefault(ino, []).append(path)
        xattrs = {
            attr.name: attr.value
            for key, bucket in view.records.items()
            if key.kind == Kind.XATTR and int.from_bytes(key.obj[:8], "big") == ino
            for attr in cast(XattrBucket, bucket)
        }
        out[path] = {
            "mode": oct(inode.mode),
            "owner": (inode.uid, inode.gid),
            "times": (inode.atime_ns, inode.mtime_ns),
            "nlink": inode.nlink,
            "size": inode.size,
            "rdev": inode.rdev,
            "flags": inode.flags,
            "target": inode.symlink,
            "xattrs": xattrs,
            "names": names[ino],
            "content": content(view, blocks, ino) if stat.S_ISREG(inode.mode) else b"",
        }
        if stat.S_ISDIR(inode.mode):
            for _, bucket in view.folder(ino, None, 1 << 30):
                for entry in bucket:
                    walk(entry.ino, f"{path}/{entry.name.decode()}")

    walk(ino, path)
    for entry in out.values():
        entry["names"] = sorted(entry["names"])
    return out


def below(described_tree: Described, path: str) -> Described:
    """The part of a tree at `path`, as if that were the top."""
    out: Described = {}
    for name, entry in described_tree.items():
        if name == path or name.startswith(f"{path}/"):
            names = [n[len(path) :] for n in entry["names"] if n == path or n.startswith(f"{path}/")]
            out[name[len(path) :]] = entry | {"names": names}
    return out


class World:
    """A volume mounted, and another node of the tree to copy from."""

    def __init__(self, source: FakeCoordinator, config: FsConfig | None = None) -> None:
        coordinator = FakeCoordinator()
        coordinator.add_node(SOURCE, source)
        self.mount = Mount(coordinator, config)
        self.coordinator = coordinator
        self.shown: list[tuple[int, bytes]] = []
        self.copier = Copier(self.mount.session, self.mount.vfs, show=self._show, sleep=self.mount.clock.sleep)

    async def _show(self, parent: int, name: bytes) -> None:
        self.shown.append((parent, name))

    async def copy(self, source_path: str, target_path: str, *, source: str = SOURCE, replace: bool = False) -> Any:
        return await self.copier.copy(asked(source_path, target_path, source=source, replace=replace))

    @property
    def source_tree(self) -> Described:
        return described(self.coordinator.nodes[SOURCE], self.coordinator.blocks)

    @property
    def tree(self) -> Described:
        """What is committed."""
        return described(self.coordinator.view, self.coordinator.blocks)


def asked(source_path: str, target_path: str, *, source: str = SOURCE, replace: bool = False) -> pb.CopyFiles:
    return pb.CopyFiles(
        source=source,
        source_path=os.fsencode(source_path),
        target=VOLUME_NAME,
        target_path=os.fsencode(target_path),
        replace=replace,
    )


async def some_source(build: Callable[[Mount], Any]) -> FakeCoordinator:
    """A volume of another family, with what `build` makes in it."""
    coordinator = FakeCoordinator(hash_seed=77, first_segment=1 << 20)
    coordinator.next_inode = 1000
    mount = Mount(coordinator)
    await mount.start()
    await build(mount)
    await mount.vfs.close()
    return coordinator


async def small(mount: Mount) -> None:
    vfs = mount.vfs
    folder = (await vfs.mkdir(mount.ctx, 1, b"d", 0o750)).ino
    await mount.write_file(b"a", b"a" * 1000)
    await mount.write_file(b"b", b"b" * 300_000, folder)
    await vfs.symlink(mount.ctx, folder, b"link", b"../a")
    await vfs.mkdir(mount.ctx, folder, b"empty", 0o700)


async def random_tree(mount: Mount, source: random.Random) -> None:
    vfs = mount.vfs
    folders, files = [1], list[int]()
    for number in range(source.randrange(5, 40)):
        parent = source.choice(folders)
        name = b"n%d" % number
        mount.clock.now_s += source.random()
        kind = source.random()
        if kind < 0.2:
            folders.append((await vfs.mkdir(mount.ctx, parent, name, 0o700 | source.randrange(64))).ino)
            made = folders[-1]
        elif kind < 0.3:
            made = (await vfs.symlink(mount.ctx, parent, name, b"x" * source.randrange(1, 300))).ino
        elif kind < 0.4:
            mode = source.choice((stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK))
            made = (await vfs.mknod(mount.ctx, parent, name, mode | 0o640, source.randrange(1 << 16))).ino
        elif kind < 0.5 and files:
            await vfs.link(mount.ctx, source.choice(files), parent, name)
            continue
        else:
            handle, entry = await vfs.create(mount.ctx, parent, name, 0o600)
            made = entry.ino
            files.append(made)
            for _ in range(source.randrange(4)):
                at = source.choice((0, 77, SLOT_BYTES - 9, 5 * SLOT_BYTES + 1, 90 * SLOT_BYTES, 200 * SLOT_BYTES))
                await vfs.write(handle, at, source.randbytes(source.choice((1, 5000, 3 * SLOT_BYTES))))
                if source.random() < 0.4:
                    await vfs.fsync(handle)
                    await vfs.setattr(mount.ctx, made, size=source.randrange(100 * SLOT_BYTES))
            await vfs.release(mount.ctx, handle)
        if source.random() < 0.3:
            await vfs.setxattr(mount.ctx, made, b"user.%d" % number, source.randbytes(source.randrange(300)))
        if source.random() < 0.1:
            await vfs.setxattr(mount.ctx, made, b"security.capability", b"cap")
        await vfs.setattr(
            mount.ctx, made, uid=source.randrange(9), gid=source.randrange(9),
            atime_ns=source.randrange(1 << 60), mtime_ns=-source.randrange(1 << 40),
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(25))
async def test_random_trees_are_copied_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    if seed % 2:
        monkeypatch.setattr(module, "SLOTS_AT_ONCE", 3)
        monkeypatch.setattr(module, "PAGE_ENTRIES", 4)
    source = await some_source(lambda mount: random_tree(mount, chance))
    world = World(source, FsConfig(commit_rows=16, pending_rows=64, cached_records=512) if seed % 3 else None)
    before = world.source_tree
    reply = await world.copy("/", "/copy")
    assert reply.path == b"/copy"
    assert reply.files == len(before)
    assert below(world.tree, "/copy") == before
    assert world.source_tree == before
    assert not world.mount.store.stored, "no data was stored"
    assert world.mount.reader.reads == 0, "nor read"
    assert not world.coordinator.views, "the view was given back"
    world.coordinator.check()
    assert sorted(below(world.tree, "/copy")) == sorted(before)


async def test_slots_of_long_sparse_files_are_asked_for_by_what_is_there() -> None:
    far = 1 << 50

    async def build(mount: Mount) -> None:
        handle, _ = await mount.vfs.create(mount.ctx, 1, b"f", 0o600)
        for index in range(SLOTS_AT_ONCE + 3):
            await mount.vfs.write(handle, index * SLOT_BYTES, b"%d" % index)
        await mount.vfs.write(handle, far, b"end")
        await mount.vfs.release(mount.ctx, handle)

    world = World(await some_source(build))
    reply = await world.copy("/f", "/")
    assert reply.bytes == sum(len(b"%d" % index) for index in range(SLOTS_AT_ONCE + 3)) + 3
    assert world.coordinator.calls["scan_rows"] <= 4
    ino = world.coordinator.tree()["/f"]
    assert cast(Inode, world.coordinator.view.records[inode_key(ino)]).size == far + 3
    mount = world.mount
    handle = await mount.vfs.open(mount.ctx, ino, 0)
    assert bytes(await mount.vfs.read(handle, far - 2, 9)) == b"\0\0end"
    assert bytes(await mount.vfs.read(handle, 300 * SLOT_BYTES, 5)) == b"300\0\0"


async def test_a_size_never_covers_slots_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS_AT_ONCE", 4)
    data = random.Random(1).randbytes(60 * SLOT_BYTES + 5)
    source = await some_source(lambda mount: mount.write_file(b"f", data))
    world = World(source, FsConfig(commit_rows=6, commits_in_flight=1))
    sizes = []
    apply = world.coordinator.apply

    def applied(commit: pb.Commit, plain: dict[int, bytes]) -> Any:
        result = apply(commit, plain)
        for path, entry in world.tree.items():
            if path:
                assert entry["content"] == data[: entry["size"]], path
                sizes.append(entry["size"])
        return result

    monkeypatch.setattr(world.coordinator, "apply", applied)
    await world.copy("/f", "/f")
    assert len(sizes) > 5
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(data)


PLACES: list[tuple[str, str, bool, str | type[RedfsError]]] = [
    ("/a", "/new", False, "/new"),
    ("a", "new", False, "/new"),
    ("//a", "./new", False, "/new"),
    ("/a", "/", False, "/a"),
    ("/a", "/folder", False, "/folder/a"),
    ("/a", "/folder/", False, "/folder/a"),
    ("/a", "/folder/new", False, "/folder/new"),
    ("/a", "/folder/.", False, "/folder/a"),
    ("/d", "/new", False, "/new"),
    ("/d", "/new/", False, "/new"),
    ("/d/", "/folder", False, "/folder/d"),
    ("/d/b", "/b", False, "/b"),
    ("/d/link", "/", False, "/link"),
    ("/", "/new", False, "/new"),
    ("/", "/", False, f"/{SOURCE}"),
    ("/", "/folder", False, f"/folder/{SOURCE}"),
    ("/a", "/file", True, "/file"),
    ("/d/link", "/file", True, "/file"),
    ("/a", "/other-link", True, "/other-link"),
    ("/a", "/file", False, AlreadyExists),
    ("/d", "/file", True, AlreadyExists),
    ("/d", "/full", True, AlreadyExists),
    ("/a", "/full", True, AlreadyExists),
    ("/nothing", "/new", False, NotFound),
    ("/d/nothing/b", "/new", False, NotFound),
    ("/a/b", "/new", False, InvalidArgument),
    ("/a/", "/new", False, InvalidArgument),
    ("/d/link/b", "/new", False, InvalidArgument),
    ("/a", "/nothing/new", False, NotFound),
    ("/a", "/nothing/", False, InvalidArgument),
    ("/a", "/file/new", False, InvalidArgument),
    ("/a", "/file/more/new", False, InvalidArgument),
    ("/a", "/file/", True, InvalidArgument),
    ("/a", "/other-link/new", False, InvalidArgument),
    ("/a", "/../new", False, InvalidArgument),
    ("/d/../a", "/new", False, InvalidArgument),
    ("/a", "/" + "x" * 256, False, InvalidArgument),
    ("/a", "/" + "x" * 255, False, "/" + "x" * 255),
    ("/a", "/\0", False, InvalidArgument),
    ("/a", "/a/" * 40_000, False, InvalidArgument),
]


@pytest.mark.parametrize(("source_path", "target_path", "replace", "expected"), PLACES)
async def test_places(source_path: str, target_path: str, replace: bool, expected: str | type[RedfsError]) -> None:
    world = World(await some_source(small))
    mount, vfs = world.mount, world.mount.vfs
    for name in (b"folder", b"full"):
        await vfs.mkdir(mount.ctx, 1, name, 0o755)
    full = (await vfs.lookup(1, b"full")).ino
    for name in (b"a", b"d"):
        await vfs.mkdir(mount.ctx, full, name, 0o755)
    await mount.write_file(b"file", b"before")
    await vfs.symlink(mount.ctx, 1, b"other-link", b"folder")
    await vfs.sync()
    before = world.tree
    if isinstance(expected, str):
        reply = await world.copy(source_path, target_path, replace=replace)
        assert reply.path.decode() == expected
        path = f"/{'/'.join(part for part in source_path.split('/') if part)}".rstrip("/")
        assert below(world.tree, expected) == below(world.source_tree, path)
        parent = expected.rpartition("/")[0]
        assert world.shown == [(world.coordinator.tree().get(parent, 1), expected.rpartition("/")[2].encode())]
    else:
        with pytest.raises(expected):
            await world.copy(source_path, target_path, replace=replace)
        assert world.tree == before
        assert not world.shown
    assert not world.coordinator.views


async def test_what_is_replaced_goes_whole_and_its_readers_keep_it() -> None:
    world = World(await some_source(small))
    mount, vfs = world.mount, world.mount.vfs
    ino = await mount.write_file(b"a", b"before")
    handle = await vfs.open(mount.ctx, ino, 0)
    await world.copy("/a", "/a", replace=True)
    assert bytes(await vfs.read(handle, 0, 99)) == b"before"
    await vfs.release(mount.ctx, handle)
    assert await mount.read_file((await vfs.lookup(1, b"a")).ino) == b"a" * 1000
    await vfs.sync()
    assert inode_key(ino) not in world.coordinator.view.records


async def test_a_folder_is_copied_into_itself_as_it_was() -> None:
    world = World(FakeCoordinator(hash_seed=5))
    mount, vfs = world.mount, world.mount.vfs
    folder = (await vfs.mkdir(mount.ctx, 1, b"d", 0o755)).ino
    await mount.write_file(b"f", b"data" * 50_000, folder)
    await vfs.sync()
    before = below(world.tree, "/d")
    await world.copy("/d", "/d/sub", source=VOLUME_NAME)
    await world.copy("/", "/d/all", source=VOLUME_NAME)
    assert below(world.tree, "/d/sub")["/f"] == before["/f"]
    assert sorted(below(world.tree, "/d/all")) == ["", "/d", "/d/f", "/d/sub", "/d/sub/f"]
    world.coordinator.check()


async def test_the_copy_and_its_source_change_apart() -> None:
    world = World(FakeCoordinator(hash_seed=5))
    mount, vfs = world.mount, world.mount.vfs
    ino = await mount.write_file(b"a", b"a" * 300_000)
    await vfs.sync()
    await world.copy("/a", "/b", source=VOLUME_NAME)
    copy = (await vfs.lookup(1, b"b")).ino
    for changed, mark in ((ino, b"source"), (copy, b"copy")):
        handle = await vfs.open(mount.ctx, changed, 2)
        await vfs.write(handle, 200_000, mark)
        await vfs.release(mount.ctx, handle)
    await vfs.setattr(mount.ctx, ino, size=200_006)
    await vfs.sync()
    assert world.coordinator.content(ino) == b"a" * 200_000 + b"source"
    assert world.coordinator.content(copy) == b"a" * 200_000 + b"copy" + b"a" * 99_996
    await vfs.unlink(mount.ctx, 1, b"a")
    await vfs.sync()
    world.coordinator.check()
    assert world.coordinator.content(copy)[:3] == b"aaa"


# ---------------------------------------------------------------- durability of what is copied


async def test_the_source_stays_frozen_until_its_blocks_have_references_here() -> None:
    world = World(await some_source(small))
    session = world.mount.session
    session.gate = asyncio.Event()
    copying = asyncio.ensure_future(world.copy("/", "/copy"))
    log = world.mount.vfs.local.write_log
    await until(lambda: log.in_flight != [] and bool(log.in_flight))
    expected = world.source_tree
    del world.coordinator.nodes[SOURCE]
    world.coordinator.collect()
    await turns(2000)
    assert not copying.done()
    assert world.coordinator.views
    session.gate.set()
    await copying
    assert not world.coordinator.views
    assert below(world.tree, "/copy") == expected
    world.coordinator.check()


@pytest.mark.parametrize("error", [Unavailable("away"), NoSpace("full")])
async def test_a_commit_that_has_to_wait_keeps_the_source_frozen(error: RedfsError) -> None:
    world = World(await some_source(small))
    world.mount.session.errors["commit"] = [error, error, error]
    copying = asyncio.ensure_future(world.copy("/", "/copy"))
    await until(lambda: not world.mount.session.errors["commit"])
    assert world.coordinator.views
    await copying
    assert not world.coordinator.views
    assert below(world.tree, "/copy") == world.source_tree


@pytest.mark.parametrize("call", ["scan_rows", "get_rows", "read_folder"])
async def test_a_copy_that_fails_leaves_nothing(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS_AT_ONCE", 8)
    data = random.Random(1).randbytes(20 * SLOT_BYTES)

    async def build(mount: Mount) -> None:
        await small(mount)
        await mount.write_file(b"long", data)

    world = World(await some_source(build))
    await world.mount.vfs.sync()
    before = world.tree
    plain = world.mount.session.call
    left = 1

    async def failing(**body: Any) -> Any:
        nonlocal left
        request = body.get(call)
        if request is not None and request.volume_id != VOLUME_ID:
            left -= 1
            if left < 0:
                raise Unavailable("away")
        return await plain(**body)

    world.mount.session.call = failing  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await world.copy("/", "/copy")
    await world.mount.vfs.sync()
    after = world.tree
    assert set(after) == set(before)
    assert not world.coordinator.views
    world.coordinator.check()


async def test_after_a_crash_a_copy_is_there_whole_or_goes_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS_AT_ONCE", 2)
    chance = random.Random(4)
    source = await some_source(lambda mount: random_tree(mount, chance))
    config = FsConfig(commit_rows=5, pending_rows=30, commits_in_flight=1)
    halves = 0
    for commits in range(1, 1000):
        world = World(source, config)
        if await copied_before_commit(commits, world):
            break
        world.coordinator.views.clear()
        world.coordinator.collect()
        world.coordinator.check()
        left = [path for path in world.tree if path.count("/") == 1]
        assert left in ([], [f"/{temporary_name(b'copy').decode()}"])
        halves += bool(left)
        again = Mount(world.coordinator)
        await Copier(again.session, again.vfs).copy(asked("/", "/copy"))
        assert [path for path in world.tree if path.count("/") == 1] == ["/copy"]
        assert below(world.tree, "/copy") == world.source_tree
    assert below(world.tree, "/copy") == world.source_tree
    assert halves > 3


async def copied_before_commit(number: int, world: World) -> bool:
    """Copies; the client dies before that commit is sent. Whether all was done before."""
    session, plain = world.mount.session, world.mount.session.call

    async def dying(**body: Any) -> Any:
        if "commit" in body and world.coordinator.calls["commit"] >= number:
            session.dead = True
        return await plain(**body)

    session.call = dying  # type: ignore[method-assign]
    copying = asyncio.ensure_future(world.copy("/", "/copy"))
    await until(lambda: session.dead or copying.done(), 1_000_000)
    if copying.done():
        return True
    for task in [copying, *asyncio.all_tasks() - {asyncio.current_task()}]:
        task.cancel()
    return False


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(("copied", "made"), [("/", "file"), ("/", "folder"), ("/a", "file"), ("/a", "folder")])
async def test_somebody_makes_the_place_while_it_is_copied(copied: str, made: str, replace: bool) -> None:
    world = World(await some_source(small))
    mount, vfs = world.mount, world.mount.vfs
    await vfs.lookup(1, b"..")
    mount.session.yields = 50
    copying = asyncio.ensure_future(world.copy(copied, "/copy", replace=replace))
    await until(lambda: bool(world.copier._under_way))
    if made == "file":
        mine = await mount.write_file(b"copy", b"mine")
    else:
        mine = (await vfs.mkdir(mount.ctx, 1, b"copy", 0o755)).ino
    if (copied, made, replace) == ("/a", "file", True):
        await copying
        assert world.coordinator.tree().keys() == {"/copy"}
        assert world.coordinator.tree()["/copy"] != mine
        return
    with pytest.raises(AlreadyExists):
        await copying
    await vfs.sync()
    assert world.coordinator.tree() == {"/copy": mine}


async def test_somebody_removes_what_is_being_copied() -> None:
    world = World(await some_source(small))
    mount, vfs = world.mount, world.mount.vfs
    folder = (await vfs.mkdir(mount.ctx, 1, b"folder", 0o755)).ino
    mount.session.yields = 50
    copying = asyncio.ensure_future(world.copy("/", "/folder/copy"))
    name = temporary_name(b"copy")
    group = vfs.local.metadata._folders[folder]
    await until(lambda: any(entry.name == name for b in group.buckets.values() if b for entry in b))
    await module._remove(module._Steps(vfs, VOLUME_NAME), 1, b"folder")
    with pytest.raises(NotFound):
        await copying
    await vfs.sync()
    assert world.coordinator.tree() == {}
    world.coordinator.check()


@pytest.mark.parametrize("once", [True, False])
async def test_a_copy_takes_of_the_quota(once: bool) -> None:
    world = World(await some_source(small))
    mount, vfs = world.mount, world.mount.vfs
    needed = 301_000
    world.coordinator.quota_bytes = needed + 50_000 + 7
    await mount.write_file(b"dirty", b"x" * 50_000)
    await vfs.local.space.ask()
    if once:
        await world.copy("/", "/copy")
        assert world.coordinator.logical_bytes() == needed + 50_000
        await vfs.local.space.ask()
        with pytest.raises(NoSpace, match="quota"):
            await mount.write_file(b"more", b"8 bytes.")
        await mount.write_file(b"less", b"7 bytes")
        await vfs.sync()
        assert world.coordinator.logical_bytes() == world.coordinator.quota_bytes
        await vfs.unlink(mount.ctx, 1, b"less")
        with pytest.raises(NoSpace, match="quota"):
            await world.copy("/a", "/a")
        await vfs.unlink(mount.ctx, 1, b"dirty")
        await world.copy("/a", "/a")
        return
    world.coordinator.quota_bytes -= 8
    with pytest.raises(NoSpace, match="quota of 'photos'"):
        await world.copy("/", "/copy")
    await vfs.sync()
    assert sorted(world.coordinator.tree()) == ["/dirty"]
    assert vfs.local.write_log.copied_bytes == 0


async def test_what_is_copied_and_not_committed_counts() -> None:
    world = World(await some_source(small))
    mount, vfs = world.mount, world.mount.vfs
    world.coordinator.quota_bytes = 300_010
    mount.session.gate = asyncio.Event()
    copying = asyncio.ensure_future(world.copy("/d/b", "/b"))
    await until(lambda: bool(vfs.local.write_log.in_flight))
    await vfs.local.space.ask()
    assert vfs.local.space.quota_bytes == 10
    mount.session.gate.set()
    await copying
    await vfs.local.space.ask()
    assert vfs.local.space.quota_bytes == 10
    assert vfs.local.write_log.copied_bytes == 0


# ---------------------------------------------------------------- several, and the end of the mount


async def test_copies_at_once() -> None:
    world = World(await some_source(small))
    same = asyncio.ensure_future(world.copy("/", "/copy"))
    await until(lambda: bool(world.copier._under_way))
    with pytest.raises(Busy, match="another copy to photos:/copy"):
        await world.copy("/d", "/copy")
    others = [asyncio.ensure_future(world.copy("/d", f"/copy-{number}")) for number in range(3)]
    await asyncio.gather(same, *others)
    assert below(world.tree, "/copy") == world.source_tree
    for number in range(3):
        assert below(world.tree, f"/copy-{number}") == below(world.source_tree, "/d")
    world.mount.session.gate = asyncio.Event()
    many = [
        asyncio.ensure_future(world.copy("/a", f"/many-{number}")) for number in range(copier_module.MAX_COPIES + 1)
    ]
    await turns(2000)
    world.mount.session.gate.set()
    results = await asyncio.gather(*many, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 1
    assert not [result for result in results if isinstance(result, Exception) and not isinstance(result, Busy)]


async def test_a_mount_that_ends_ends_its_copies() -> None:
    world = World(await some_source(small))
    world.mount.session.yields = 20
    order = asyncio.ensure_future(world.copier.on_copy(VOLUME_ID, asked("/", "/copy")))
    await until(lambda: bool(world.copier._under_way))
    await world.copier.stop()
    with pytest.raises(Unavailable, match="ended while it copied"):
        await order
    assert world.coordinator.views, "goes with the session, after the last commit"
    assert (await world.copier.on_copy(VOLUME_ID, asked("/a", "/a"))).unattended
    await world.mount.vfs.close()
    assert world.coordinator.tree() == {}
    world.coordinator.check()


async def test_a_mount_that_ends_finishes_what_is_whole() -> None:
    world = World(await some_source(small))
    session, vfs = world.mount.session, world.mount.vfs
    session.gate = asyncio.Event()
    order = asyncio.ensure_future(world.copier.on_copy(VOLUME_ID, asked("/", "/copy")))
    await until(lambda: bool(vfs.local.write_log.in_flight) and bool(world.copier._whole))
    stopping = asyncio.ensure_future(world.copier.stop())
    await turns()
    session.gate.set()
    await stopping
    assert (await order).files == 6
    assert not world.coordinator.views
    assert below(world.tree, "/copy") == world.source_tree


async def test_a_session_without_a_mount_finishes_what_it_began() -> None:
    world = World(await some_source(small))
    order = asyncio.ensure_future(world.copier.on_copy(VOLUME_ID, asked("/", "/copy")))
    await turns(5)
    await world.copier.finish()
    assert order.done()
    assert (await order).files == 6
    assert (await world.copier.on_copy(VOLUME_ID, asked("/a", "/a"))).unattended


async def test_the_end_of_the_session_ends_a_copy() -> None:
    world = World(await some_source(small))
    session, vfs = world.mount.session, world.mount.vfs
    session.gate = asyncio.Event()
    copying = asyncio.ensure_future(world.copy("/", "/copy"))
    await until(lambda: bool(vfs.local.write_log.in_flight))
    session.lapsed = True
    vfs.on_lapsed()
    session.gate.set()
    with pytest.raises(LeaseLapsed):
        await copying


async def test_folders_that_lie_too_deep_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DEPTH", 3)

    async def build(mount: Mount) -> None:
        parent = 1
        for _ in range(3):
            parent = (await mount.vfs.mkdir(mount.ctx, parent, b"d", 0o755)).ino

    world = World(await some_source(build))
    with pytest.raises(InvalidArgument, match="deep"):
        await world.copy("/", "/copy")
    await world.copy("/d", "/copy")
    assert sorted(world.tree) == ["", "/copy", "/copy/d", "/copy/d/d"]


async def test_links_beyond_the_bound_become_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN_LINKS", 1)

    async def build(mount: Mount) -> None:
        for name in (b"a", b"b"):
            ino = await mount.write_file(name, name)
            for number in range(3):
                await mount.vfs.link(mount.ctx, ino, 1, b"%s%d" % (name, number))

    world = World(await some_source(build))
    await world.copy("/", "/copy")
    tree = below(world.tree, "/copy")
    counts = sorted(entry["nlink"] for path, entry in tree.items() if path)
    assert counts == [1, 1, 1, 1, 4, 4, 4, 4]
    assert all(entry["content"] == path[1:2].encode() for path, entry in tree.items() if path)


async def test_keys_are_of_the_volume_that_is_copied_into() -> None:
    async def build(mount: Mount) -> None:
        ino = await mount.write_file(b"a", b"x")
        await mount.vfs.setxattr(mount.ctx, ino, b"user.k", b"v")
        await mount.vfs.setxattr(mount.ctx, ino, b"security.capability", b"c")

    world = World(await some_source(build))
    await world.copy("/a", "/b")
    cold = Mount(world.coordinator)
    vfs = await cold.start()
    ino = (await vfs.lookup(1, b"b")).ino
    assert await vfs.getxattr(ino, b"user.k") == b"v"
    assert sorted(await vfs.listxattr(ino)) == [b"security.capability", b"user.k"]
    assert not vfs.lacks_attribute(ino, b"security.capability")
    assert not [key for key in world.coordinator.view.records if key == Key(Kind.ORPHAN, b"")]


async def test_a_copy_waits_while_the_volume_is_rolled_back_and_is_not_mixed_into_the_other_state() -> None:
    async def build(mount: Mount) -> None:
        for index in range(40):
            await mount.write_file(b"f%d" % index, b"%d" % index)

    world = World(await some_source(build))
    vfs = world.mount.vfs
    await vfs.sync()
    snapshot = world.coordinator.keep()
    copying = asyncio.ensure_future(world.copy("/", "/copy"))
    await until(lambda: len(vfs.local.write_log.queue) > 0)
    vfs.gate.close()
    await vfs.gate.empty()
    await vfs.sync()
    assert vfs.is_clean
    await turns(500)
    assert vfs.is_clean, "nothing more is copied"
    assert not copying.done()
    order = world.coordinator.roll_back(snapshot)
    await vfs.rebase(order.lineage, order.root)
    vfs.gate.open()
    with pytest.raises(Unavailable, match="rolled back while it was copied"):
        await copying
    await vfs.sync()
    assert set(world.coordinator.tree()) == {path for path in described(snapshot, world.coordinator.blocks) if path}
    assert world.coordinator.views == {}
    await world.copy("/", "/copy")
    assert "/copy/f39" in world.coordinator.tree()


@pytest.mark.parametrize("kept_after", [3, 20, 40, 66, 67])
async def test_a_copy_never_goes_on_from_a_half_that_a_snapshot_kept(
    kept_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot was taken in the middle of the copy that is under way, with all its inodes so far. The last step is
    the 69th, the one that gives the copy its name."""

    async def build(mount: Mount) -> None:
        parent = 1
        for number in range(60):
            await mount.write_file(b"f%d" % number, b"%d" % number, parent)
            if number % 20 == 10:
                parent = (await mount.vfs.mkdir(mount.ctx, parent, b"d", 0o755)).ino

    world = World(await some_source(build))
    vfs = world.mount.vfs
    await vfs.sync()
    steps = 0
    kept: MemoryView | None = None
    plain = Gate.passed

    @contextlib.asynccontextmanager
    async def passed(gate: Gate) -> AsyncIterator[None]:
        nonlocal steps, kept
        steps += 1
        if steps == kept_after:
            await vfs.sync()
            kept = world.coordinator.keep()
        if steps == kept_after + 2 and kept is not None:
            await vfs.sync()
            order = world.coordinator.roll_back(kept)
            await vfs.rebase(order.lineage, order.root)
        async with plain(gate):
            yield

    with monkeypatch.context() as patched:
        patched.setattr(Gate, "passed", passed)
        with pytest.raises(Unavailable, match="rolled back while it was copied"):
            await world.copy("/", "/copy")
    assert world.coordinator.lineage == 2
    await vfs.sync()
    assert "/copy" not in world.coordinator.tree()
    await world.copy("/", "/copy")
    assert below(world.tree, "/copy") == world.source_tree
    assert [path for path in world.tree if path.count("/") == 1] == ["/copy"]
