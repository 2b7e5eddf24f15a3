"""Several mounts of one volume, coming and going while files are open, against a plain model.

Each operation is done by one mount and must be seen by all: after many of the steps a mount that is drawn shows exactly
what the model holds. What is written to new files is kept at the mount that made them until another one looks, so not
every step is followed by a look. Mounts join (the first one's delegation is recalled) and leave (the last one becomes
exclusive again); open files go on through all of it, also those without a name.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from redfs.client.fs.engine import O_APPEND
from redfs.core.errors import FsError
from redfs.core.records import SLOT_BYTES, Kind
from redfs.core.versions.reader import VersionReader
from redfs.core.volume_tree import ReadTree
from tests.tree.world import FOLDER, File, Mount, World

VOLUME = "shared"
MOST_MOUNTS = 3
NAMES = ("a", "b", "c", "d")
FOLDERS = ("", "f", "g")
STEPS = 400
LOOKED_AT = 0.4
"""Of the steps."""
O_RDWR = 2


@dataclass(eq=False)
class Data:
    """A file's bytes, with or without a name."""

    content: bytearray = field(default_factory=bytearray)


@dataclass
class Opened:
    """A handle at a mount."""

    mount: Mount
    number: int
    data: Data
    appends: bool


class History:
    """One seeded run."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.mounts: list[Mount] = []
        self.files: dict[str, Data] = {}
        self.folders: set[str] = set()
        self.opened: list[Opened] = []
        self.done: list[str] = []
        world.call("create_volume", VOLUME)

    def run(self, steps: int) -> None:
        self.join()
        operations: list[tuple[Callable[[], None], int]] = [
            (self.join, 3), (self.leave, 3), (self.write, 12), (self.open, 10), (self.write_open, 25),
            (self.make, 12), (self.append_twice, 6), (self.write_and_look, 10), (self.touch, 4),
            (self.read_open, 12), (self.release, 7), (self.truncate, 8), (self.unlink, 8),
            (self.rename, 8), (self.mkdir, 4), (self.rmdir, 3), (self.snapshot_and_roll_back, 1),
        ]  # fmt: skip
        for _ in range(steps):
            operation = self.random.choices([o for o, _ in operations], [w for _, w in operations])[0]
            operation()
            if self.random.random() < LOOKED_AT:
                self.compare()
        while len(self.mounts) > 1:
            self.leave()
        self.compare()
        self.leave(last=True)
        self.world.run(self.world.idle())
        assert self.world.problems() == []
        assert self.orphans() == 0, self.story()

    # ------------------------------------------------------------ mounts

    def join(self) -> None:
        if len(self.mounts) < MOST_MOUNTS:
            self.done.append("join")
            self.mounts.append(self.world.run(self.world.mount(VOLUME, shared=True)))
            assert all(mount.vfs.is_shared == (len(self.mounts) > 1) for mount in self.mounts), self.story()

    def leave(self, *, last: bool = False) -> None:
        if len(self.mounts) > 1 or last:
            self.done.append("leave")
            mount = self.mounts.pop(self.random.randrange(len(self.mounts)))
            self.opened = [opened for opened in self.opened if opened.mount is not mount]
            self.world.run(mount.close())
            if len(self.mounts) == 1:
                vfs = self.mounts[0].vfs
                self.world.run(self.world.until(lambda: not vfs.is_shared and vfs.gate.is_open))

    def mount(self) -> Mount:
        return self.random.choice(self.mounts)

    # ------------------------------------------------------------ files

    def path(self) -> str:
        folder = self.random.choice(FOLDERS)
        return f"{folder}/{self.random.choice(NAMES)}" if folder else self.random.choice(NAMES)

    def content(self) -> bytes:
        size = self.random.choice((1, 10, 700, 4096, 5000, SLOT_BYTES, SLOT_BYTES + 5000))
        return self.random.randbytes(4) * (size // 4) + b"x" * (size % 4)

    def write(self) -> None:
        path, content = self.path(), self.content()
        folder = path.rpartition("/")[0]
        if folder and folder not in self.folders:
            return
        self.done.append(f"write {path} {len(content)}")
        self.world.run(self.mount().write(path, content))
        self.files.setdefault(path, Data()).content[:] = content

    def open(self) -> None:
        if self.files and len(self.opened) < 8:
            path = self.random.choice(sorted(self.files))
            mount, appends = self.mount(), self.random.random() < 0.4
            self.done.append(f"open {path} at {self.mounts.index(mount)} appends={appends}")
            number = self.world.run(mount.open(path, O_RDWR | (O_APPEND if appends else 0)))
            self.opened.append(Opened(mount, number, self.files[path], appends))

    def make(self) -> None:
        """A new file that stays open where it was made, so that the next writes to it are kept there."""
        path = self.path()
        folder = path.rpartition("/")[0]
        if len(self.opened) < 8 and path not in self.files and (not folder or folder in self.folders):
            mount, appends = self.mount(), self.random.random() < 0.3
            self.done.append(f"make {path} at {self.mounts.index(mount)} appends={appends}")
            number = self.world.run(mount.create(path, O_RDWR | (O_APPEND if appends else 0)))
            self.files[path] = Data()
            self.opened.append(Opened(mount, number, self.files[path], appends))
            for _ in range(self.random.randrange(3)):
                self.write_to(self.opened[-1])

    def write_and_look(self) -> None:
        """A write of one mount while another reads that file: it sees all of it, or nothing."""
        names = {id(data): path for path, data in self.files.items()}
        mine = [o for o in self.opened if id(o.data) in names and o.mount.vfs.is_shared and not o.appends]
        if mine:
            opened = self.random.choice(mine)
            other = self.random.choice([mount for mount in self.mounts if mount is not opened.mount])
            path, data = names[id(opened.data)], opened.data.content
            content = self.random.randbytes(5000)
            offset = self.random.choice((0, len(data) // 2, len(data)))
            before = bytes(data)
            data[offset : offset + len(content)] = content
            self.done.append(f"write_and_look {path} at {offset} handle {opened.number}")
            found = self.world.run(self.written_and_read(opened, offset, content, other, path))
            # Its size is asked for first, so what is read may have grown since.
            assert found in (before, bytes(data), bytes(data[: len(before)])), self.story()
            inodes = [self.world.run(mount.inode(path)) for mount in self.mounts]
            assert len(set(inodes)) == 1, f"times differ: {self.story()}"

    async def written_and_read(self, opened: Opened, offset: int, content: bytes, other: Mount, path: str) -> bytes:
        found, _ = await asyncio.gather(other.read(path), opened.mount.vfs.write(opened.number, offset, content))
        return found

    def touch(self) -> None:
        """Sets a file's time at one mount, perhaps the one that holds it."""
        if self.files:
            path, mount = self.random.choice(sorted(self.files)), self.mount()
            self.done.append(f"touch {path} at {self.mounts.index(mount)}")
            self.world.run(mount.touch(path, 1_000_000_000 * len(self.done)))
            found = {self.world.run(other.inode(path)).mtime_ns for other in (mount, self.mount())}
            assert found == {1_000_000_000 * len(self.done)}, self.story()

    def write_open(self) -> None:
        if self.opened:
            self.write_to(self.random.choice(self.opened))

    def write_to(self, opened: Opened) -> None:
        content = self.content()
        data = opened.data.content
        offset = self.random.choice((0, 100, len(data), len(data) + 3000, SLOT_BYTES - 10))
        self.done.append(f"write_open {opened.number} at {offset} {len(content)} appends={opened.appends}")
        if opened.appends and not opened.mount.vfs.is_shared:
            offset = len(data)  # as the kernel says it; of a shared file it may know an old end
        self.world.run(opened.mount.vfs.write(opened.number, offset, content))
        if opened.appends:
            offset = len(data)
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(content)] = content

    def append_twice(self) -> None:
        """Two appends at once."""
        appending = [opened for opened in self.opened if opened.appends and opened.mount.vfs.is_shared]
        if appending:
            one = self.random.choice(appending)
            other = self.random.choice([opened for opened in appending if opened.data is one.data])
            first, second = b"1" * self.random.choice((5, 900)), b"2" * self.random.choice((5, 900))
            self.done.append(f"append_twice {one.number} {other.number}")
            self.world.run(self.together(one, first, other, second))
            data = one.data.content
            tail = self.world.run(one.mount.vfs.read(one.number, len(data), 4096))
            assert bytes(tail) in (first + second, second + first), self.story()
            data.extend(bytes(tail))

    async def together(self, one: Opened, first: bytes, other: Opened, second: bytes) -> None:
        await asyncio.gather(one.mount.vfs.write(one.number, 0, first), other.mount.vfs.write(other.number, 0, second))

    def read_open(self) -> None:
        if self.opened:
            opened = self.random.choice(self.opened)
            data = opened.data.content
            offset = self.random.choice((0, 1, len(data) // 2, SLOT_BYTES - 1))
            got = bytes(self.world.run(opened.mount.vfs.read(opened.number, offset, 1 << 18)))
            assert got == data[offset : offset + (1 << 18)], self.story()

    def release(self) -> None:
        if self.opened:
            opened = self.opened.pop(self.random.randrange(len(self.opened)))
            self.done.append(f"release {opened.number}")
            self.world.run(opened.mount.release(opened.number))

    def truncate(self) -> None:
        if self.files:
            path = self.random.choice(sorted(self.files))
            data = self.files[path].content
            size = self.random.choice((0, 5, len(data) // 2, len(data) + 777))
            self.done.append(f"truncate {path} {size}")
            self.world.run(self.mount().truncate(path, size))
            data.extend(bytes(max(0, size - len(data))))
            del data[size:]

    def unlink(self) -> None:
        path = self.path()
        self.done.append(f"unlink {path}")
        try:
            self.world.run(self.mount().unlink(path))
        except FsError:
            assert path not in self.files, self.story()
        else:
            del self.files[path]

    def rename(self) -> None:
        old, new = self.path(), self.path()
        self.done.append(f"rename {old} {new}")
        folder = new.rpartition("/")[0]
        try:
            self.world.run(self.mount().rename(old, new))
        except FsError:
            assert old not in self.files or (folder and folder not in self.folders), self.story()
        else:
            self.files[new] = self.files.pop(old)

    def mkdir(self) -> None:
        path = self.random.choice(FOLDERS[1:])
        self.done.append(f"mkdir {path}")
        try:
            self.world.run(self.mount().mkdir(path))
        except FsError:
            assert path in self.folders, self.story()
        self.folders.add(path)

    def rmdir(self) -> None:
        path = self.random.choice(FOLDERS[1:])
        self.done.append(f"rmdir {path}")
        try:
            self.world.run(self.mount().rmdir(path))
        except FsError:
            used = any(name.startswith(f"{path}/") for name in self.files)
            assert path not in self.folders or used, self.story()
        else:
            self.folders.discard(path)

    def snapshot_and_roll_back(self) -> None:
        self.done.append("roll back")
        while self.opened:
            self.release()
        snapshot = f"{VOLUME}@s{len(self.done)}"
        self.world.call("create_snapshot", snapshot)
        kept = {path: bytes(data.content) for path, data in self.files.items()}
        self.write()
        self.unlink()
        self.world.call("roll_back", snapshot)
        self.files = {path: Data(bytearray(content)) for path, content in kept.items()}

    # ------------------------------------------------------------ comparing

    def compare(self) -> None:
        found = self.world.run(self.mount().content())
        expected = {path: File("file", bytes(data.content)) for path, data in self.files.items()}
        expected.update(dict.fromkeys(self.folders, FOLDER))
        assert found == expected, self.story()

    def orphans(self) -> int:
        """Inodes without a name that the volume still has."""
        with self.world.coordinator.read() as kv:
            row = ReadTree(kv).named(VOLUME)
            versions = VersionReader(kv)
            return len(versions.scan(row.lineage, versions.head_epoch(row.lineage), Kind.ORPHAN, b"", None, 100))

    def story(self) -> str:
        return "; ".join(self.done[-40:])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_mounts_that_come_and_go_see_one_file_system(seed: int) -> None:
    world = World()
    try:
        History(world, seed).run(STEPS)
    finally:
        world.close()
