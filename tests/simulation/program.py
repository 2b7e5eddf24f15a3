"""A program on a mount: random operations, each compared with the model; and how a volume is read as a whole.

One program has its volume alone and does one thing after the other, so all that it sees follows from what it did.
Errors that a program may get while parts are away (`Unavailable` and its like) make it try again: a schedule's end is
told by the clock. `Corrupt`, or an error that POSIX does not want there, is never right.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from copy import deepcopy
from stat import S_ISDIR
from typing import TYPE_CHECKING, TypeVar

from redfs.core.errors import Busy, CommitRefused, FsError, LeaseLapsed, NoSpace, RedfsError, TooFewNodes, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from tests.simulation.coordinator import NAME as COORDINATOR
from tests.simulation.loop import Process
from tests.simulation.model import SLOT_BYTES, Found, Known, Tree, VolumeModel
from tests.simulation.mount import SimulatedMount

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

TRANSIENT = (Unavailable, NoSpace, TooFewNodes)
ENDED = (LeaseLapsed, CommitRefused)
"""The mount has come to its end."""
TRY_AGAIN_S = 0.2
MOUNT_AGAIN_S = 0.8
"""Before a mount that was refused is tried again: a lease that stands in the way takes seconds."""
PAUSE_S = 0.08
"""The longest between two operations."""
ASK_TIMEOUT_S = 8.0
ROOT = 1
NAMES = (b"a", b"b", b"c", b"d")
FOLDERS = (b"x", b"y")
READ_BYTES = 1 << 20
SIZES = (700, 3000, 9000, 30_000)
"""Of what is written at once: copies and stripes (see `schedule.STRIPED_BYTES`), one block and several pieces."""


class Program:
    """See the module."""

    def __init__(self, world: World, name: str, volume: str, operations: int, base: Found | None = None) -> None:
        self.world = world
        self.name = name
        self.model = VolumeModel(volume, base)
        self.left = operations
        self.finished = False
        self.lives = 0
        self.done = 0
        """Operations that returned."""
        self.mount: SimulatedMount | None = None
        self.retired = False
        """Another host has taken its volume over: what it still does must be without effect. It mounts nothing any
        more: what it got when its successor is done would be a mount like any other, and change the volume rightly."""
        self._random = random.Random(f"{world.seed} {name}")
        self._recover_first = base is not None
        self._hung: list[Process] = []
        """Mounts that its volume was taken over from: they wake up when it is mounted."""

    # ------------------------------------------------------------ its lives

    def start(self) -> None:
        """Mounts the volume (again) and works on."""
        self.lives += 1
        mount = self.mount = SimulatedMount(
            self.world.loop, self.world.network, f"{self.name}/{self.lives}", self.model.name
        )
        self.world.loop.spawn(mount.process, self._live(mount, self.lives > 1 or self._recover_first), mount.name)

    def kill(self) -> None:
        """kill -9 of the mount, and of the program with it; another one is started soon."""
        if self.mount is not None and self.mount.process.alive and not self.finished:
            self.mount.kill()
            if self.retired:
                return
            self.world.loop.outside(self.world.loop.random.uniform(0.05, 1.0), self.start)

    def fail_over(self) -> Program | None:
        """The mount hangs, and another host takes the volume over and goes on; then the first one wakes up."""
        if self.mount is None or not self.mount.process.alive or self.finished:
            return None
        old = self.mount
        old.process.freezes += 1
        self.retired = True
        successor = Program(self.world, f"{self.name}'", self.model.name, self.left)
        successor.model = deepcopy(self.model)
        successor._recover_first = True
        successor._hung = [*self._hung, old.process]
        self.world.programs[self.world.programs.index(self)] = successor
        successor.start()
        return successor

    async def _live(self, mount: SimulatedMount, recover: bool) -> None:
        try:
            while not self.retired:
                try:
                    await mount.open()
                    break
                except (*TRANSIENT, Busy):  # Busy: the life before has a lease
                    await asyncio.sleep(MOUNT_AGAIN_S)
            if self.retired:
                mount.kill()
                return
            if recover:
                self.model.recovered(await self._until_done(lambda: read_all(mount)))
            for process in self._hung:
                self.world.loop.outside(self.world.loop.random.uniform(0.0, 1.0), self.world.loop.thaw, process)
            self._hung.clear()
            while self.left:
                self.left -= 1
                await self._step(mount)
                await asyncio.sleep(self._random.uniform(0.0, PAUSE_S))
            point = self.model.point()
            await self._until_done(mount.close)
            self.model.durable(point)
            self.finished = True
            mount.kill()
        except ENDED:
            self.kill()
        except AssertionError as error:
            self._failed(error)
        except RedfsError as error:
            self._failed(AssertionError(f"{self.name} got {error!r}"))

    def _failed(self, error: AssertionError) -> None:
        if not self.retired:
            self.world.failed(error)

    async def _until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await work()
            except TRANSIENT:
                await asyncio.sleep(TRY_AGAIN_S)

    # ------------------------------------------------------------ operations

    async def _step(self, mount: SimulatedMount) -> None:
        files = [(path, known) for path, known in self.model.tree.items() if not S_ISDIR(known.mode)]
        operations: list[tuple[int, Callable[[SimulatedMount], Awaitable[None]]]] = [
            (5, self._make), (2, self._mkdir), (1, self._snapshot)
        ]  # fmt: skip
        if files:
            operations += [
                (9, self._write), (5, self._fsync), (1, self._sync), (5, self._read), (3, self._rename),
                (2, self._unlink), (1, self._chmod), (1, self._truncate),
            ]  # fmt: skip
        weights = [weight for weight, _ in operations]
        ((_, operation),) = self._random.choices(operations, weights)
        await mount.serving()
        await operation(mount)
        self.done += 1

    def _file(self) -> tuple[bytes, Known]:
        return self._random.choice(
            [(path, known) for path, known in self.model.tree.items() if not S_ISDIR(known.mode)]
        )

    def _path(self) -> bytes:
        folders = [path for path, known in self.model.tree.items() if S_ISDIR(known.mode)]
        folder = self._random.choice([b"", *folders])
        return folder + b"/" + self._random.choice(NAMES)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        folder, _, name = path.rpartition(b"/")
        return (self.model.tree[folder].ino if folder else ROOT), name

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        """Runs an operation until it is done. One that fails for what may pass has not happened."""
        while True:
            try:
                return await work()
            except TRANSIENT:
                await asyncio.sleep(TRY_AGAIN_S)
            except FsError as error:
                raise AssertionError(f"{self.name}: unexpected {error!r}") from error

    async def _make(self, mount: SimulatedMount) -> None:
        path = self._path()
        if path in self.model.tree:
            await self._write(mount)
            return
        parent, name = self._parent(path)
        self.model.making = path
        handle, entry = await self._again(lambda: mount.vfs.create(mount.ctx, parent, name, 0o644))
        self.model.making = None
        self.model.written(entry.ino, b"")
        self.model.operation({**self.model.tree, path: Known(entry.ino, entry.inode.mode)})
        await self._put(mount, handle, entry.ino)
        if self._random.random() < 0.3:
            await self._barrier(mount, handle, entry.ino)
        await mount.vfs.release(mount.ctx, handle)

    async def _mkdir(self, mount: SimulatedMount) -> None:
        name = self._random.choice(FOLDERS)
        path = b"/" + name
        tree = self.model.tree
        if path not in tree:
            self.model.making = path
            entry = await self._again(lambda: mount.vfs.mkdir(mount.ctx, ROOT, name, 0o755))
            self.model.making = None
            self.model.operation({**tree, path: Known(entry.ino, entry.inode.mode)})
        elif not any(other.startswith(path + b"/") for other in tree):
            self.model.operation({other: known for other, known in tree.items() if other != path})
            await self._again(lambda: mount.vfs.rmdir(mount.ctx, ROOT, name))

    async def _put(self, mount: SimulatedMount, handle: int, ino: int) -> None:
        before = self.model.content(ino)
        data = self._content()
        offset = self._random.choice((0, len(before), self._random.randint(0, len(before))))
        if self._random.random() < 0.04:
            offset = SLOT_BYTES - len(data) // 2
        after = before[:offset].ljust(offset, b"\0") + data + before[offset + len(data) :]
        self.model.written(ino, after)
        await self._again(lambda: mount.vfs.write(handle, offset, data))

    def _content(self) -> bytes:
        # Few different contents, so that blocks are shared.
        return random.Random(self._random.randrange(60)).randbytes(self._random.choice(SIZES))

    async def _write(self, mount: SimulatedMount) -> None:
        _, known = self._file()
        handle = await self._again(lambda: mount.vfs.open(mount.ctx, known.ino, 2))
        await self._put(mount, handle, known.ino)
        if self._random.random() < 0.3:
            await self._barrier(mount, handle, known.ino)
        await mount.vfs.release(mount.ctx, handle)

    async def _barrier(self, mount: SimulatedMount, handle: int, ino: int) -> None:
        point = self.model.point(ino)
        await self._again(lambda: mount.vfs.fsync(handle))
        self.model.durable(point)

    async def _fsync(self, mount: SimulatedMount) -> None:
        _, known = self._file()
        handle = await self._again(lambda: mount.vfs.open(mount.ctx, known.ino, 0))
        await self._barrier(mount, handle, known.ino)
        await mount.vfs.release(mount.ctx, handle)

    async def _sync(self, mount: SimulatedMount) -> None:
        point = self.model.point()
        await self._again(mount.vfs.sync)
        self.model.durable(point)

    async def _read(self, mount: SimulatedMount) -> None:
        path, known = self._file()
        handle = await self._again(lambda: mount.vfs.open(mount.ctx, known.ino, 0))
        found = bytes(await self._again(lambda: mount.vfs.read(handle, 0, READ_BYTES)))
        assert found == self.model.content(known.ino), f"{self.name}: {path!r} reads wrong"
        await mount.vfs.release(mount.ctx, handle)

    async def _rename(self, mount: SimulatedMount) -> None:
        old, known = self._file()
        new = self._path()
        if new == old:
            return
        tree: Tree = {path: entry for path, entry in self.model.tree.items() if path != old}
        replaced = new in tree
        tree[new] = known
        old_parent, old_name = self._parent(old)
        new_parent, new_name = self._parent(new)
        self.model.operation(tree, moved_onto=known.ino if replaced else 0)
        await self._again(lambda: mount.vfs.rename(mount.ctx, old_parent, old_name, new_parent, new_name))

    async def _unlink(self, mount: SimulatedMount) -> None:
        path, _ = self._file()
        parent, name = self._parent(path)
        self.model.operation({other: known for other, known in self.model.tree.items() if other != path})
        await self._again(lambda: mount.vfs.unlink(mount.ctx, parent, name))

    async def _chmod(self, mount: SimulatedMount) -> None:
        path, known = self._file()
        mode = self._random.choice((0o600, 0o644, 0o755))
        self.model.operation({**self.model.tree, path: Known(known.ino, known.mode & ~0o7777 | mode)})
        await self._again(lambda: mount.vfs.setattr(mount.ctx, known.ino, mode=mode))

    async def _truncate(self, mount: SimulatedMount) -> None:
        _, known = self._file()
        before = self.model.content(known.ino)
        size = self._random.choice((0, len(before) // 2, len(before) + 100))
        self.model.cut(known.ino, size)
        await self._again(lambda: mount.vfs.setattr(mount.ctx, known.ino, size=size))

    # ------------------------------------------------------------ the tree of volumes

    async def _snapshot(self, mount: SimulatedMount) -> None:
        world = self.world
        name = f"{self.model.name}@{world.next_number()}"
        expected = self.model.now()
        try:
            reply = await admin(mount.name, world, mount.process, "CreateSnapshot", pb.SnapshotCreate(name=name))
        except RedfsError:
            return  # it may exist, and hold whatever was committed
        if self.retired:
            return  # whoever has the volume now flushed, and may have changed it before
        if reply.holder_flushed:
            world.frozen[name] = expected
            if world.may_clone and self._random.random() < 0.5:
                world.may_clone = False
                clone = f"clone-{world.next_number()}"
                try:
                    await admin(
                        mount.name, world, mount.process, "CloneVolume", pb.VolumeClone(source=name, name=clone)
                    )
                except RedfsError:
                    return
                world.add_program(Program(world, f"on {clone}", clone, operations=6, base=expected))
        elif self._random.random() < 0.5:
            await admin_until_done(mount.name, world, mount.process, "DeleteVolume", pb.VolumeDelete(name=name))


async def admin(sender: str, world: World, process: Process, call: str, request: object) -> pb.SnapshotCreateReply:
    """A person's call, once."""
    return await world.network.ask(sender, COORDINATOR, lambda c: c.call(call, request), ASK_TIMEOUT_S, process)  # type: ignore[no-any-return]


async def admin_until_done(sender: str, world: World, process: Process, call: str, request: object) -> None:
    """A call that may be repeated, until it is answered, also with a refusal."""
    while True:
        try:
            await admin(sender, world, process, call, request)
            return
        except TRANSIENT:
            await asyncio.sleep(TRY_AGAIN_S)
        except RedfsError:
            return


async def read_all(mount: SimulatedMount) -> Found:
    """The whole volume, through the mount."""
    vfs = mount.vfs
    tree: Tree = {}
    content: dict[int, bytes] = {}
    folders: list[tuple[bytes, int]] = [(b"", ROOT)]
    while folders:
        prefix, ino = folders.pop()
        handle = await vfs.opendir(ino)
        cookie = 2
        while listed := await vfs.readdir(handle, cookie, 100):
            for entry, inode in listed:
                cookie = entry.cookie
                path = prefix + b"/" + entry.name
                tree[path] = Known(entry.ino, inode.mode)
                if S_ISDIR(inode.mode):
                    folders.append((path, entry.ino))
                else:
                    content[entry.ino] = b""
        await vfs.releasedir(mount.ctx, handle)
    for ino in content:
        handle = await vfs.open(mount.ctx, ino, 0)
        content[ino] = bytes(await vfs.read(handle, 0, READ_BYTES))
        await vfs.release(mount.ctx, handle)
    return Found(tree, content)
