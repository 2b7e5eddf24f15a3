"""Random programs on a mount against an obvious model, with crashes of the client at any moment.

After a crash: the names are those after some operation, at or behind the last barrier (invariant 5); every file is at
least what it was at its last fsync; and each stretch of it was written at some time since, so no size covers bytes
that were not written.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from redfs.client.fs.config import FsConfig
from redfs.core.errors import FsError, RedfsError, TooFewNodes, Unavailable
from redfs.core.records import SLOT_BYTES, Inode

from .fakes import FakeCoordinator, Mount, turns

T = TypeVar("T")

FOLDERS = st.sampled_from(["", "/d", "/e"])
NAMES = st.sampled_from(["/a", "/b", "/c"])
OFFSETS = st.one_of(st.integers(0, 3000), st.sampled_from([SLOT_BYTES - 5, SLOT_BYTES, 2 * SLOT_BYTES + 7]))
LENGTHS = st.one_of(st.integers(1, 2000), st.sampled_from([SLOT_BYTES, SLOT_BYTES + 9, 3 * SLOT_BYTES]))
BOOLEANS: st.SearchStrategy[Any] = st.booleans()
CONFIG = FsConfig(
    cached_records=4096,
    dirty_bytes=4 << 20,
    batch_bytes=3 * SLOT_BYTES,
    batch_blocks=4,
    commit_rows=6,
    pending_rows=64,
    inode_grant=8,
)


class ModelFile:
    """A file's bytes after each change."""

    def __init__(self) -> None:
        self.versions: list[bytes] = [b""]
        self.edges: set[int] = {0}
        """Offsets where some write began or ended."""
        self.synced = 0
        """Version that is durable at least."""

    @property
    def now(self) -> bytes:
        return self.versions[-1]


def has_files(machine: MountMachine) -> bool:
    """Whether some name stands for a file."""
    return any(ino in machine.files for ino in machine.tree.values())


class MountMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.coordinator = FakeCoordinator()
        self.mount: Mount
        self.files: dict[int, ModelFile] = {}
        self.tree: dict[str, int] = {}
        self.history: list[dict[str, int]] = [{}]
        self.durable = 0
        """Index into `history` of what a barrier promised."""
        self.guards: list[tuple[int, int, int]] = []
        """(history index, inode, version): from that state on the file is that version at least."""
        self.written = 0
        self.steps = 0
        """Since the last crash."""
        self.handles: list[tuple[int, int]] = []
        """(handle, inode) of files held open."""

    def run(self, work: Awaitable[T]) -> T:
        async def go() -> T:
            return await asyncio.wait_for(work, 30)

        return self.loop.run_until_complete(go())

    @initialize(yields=st.integers(0, 6), store_dedupe=st.booleans(), commit_dedupe=st.booleans())
    def begin(self, yields: int, store_dedupe: bool, commit_dedupe: bool) -> None:
        self.settings = (yields, store_dedupe)
        self.coordinator.dedupe_at_commit = commit_dedupe
        self._mount()
        for name in ("/a", "/b"):
            self.create("", name, False)

    def _mount(self) -> None:
        async def go() -> None:
            self.mount = Mount(self.coordinator, CONFIG, yields=self.settings[0])
            self.mount.store.dedupe = self.settings[1]
            self.mount.reader.keeps = False
            await self.mount.start()

        self.run(go())

    def teardown(self) -> None:
        if hasattr(self, "mount"):

            async def end() -> None:
                with contextlib.suppress(RedfsError):
                    await self.mount.vfs.close()

            self.mount.store.errors.clear()
            self.mount.session.errors.clear()
            self.run(end())
            if self.mount.vfs.failure is None:
                assert self.coordinator.tree() == self.tree
                for path, ino in self.tree.items():
                    if ino in self.files:
                        assert self.coordinator.content(ino) == self.files[ino].now, path
        self.loop.close()

    # ------------------------------------------------------------ helpers

    def parent(self, folder: str) -> int | None:
        return 1 if folder == "" else self.tree.get(folder)

    def changed(self) -> None:
        self.history.append(dict(self.tree))

    def errno_of(self, work: Awaitable[Any]) -> int:
        try:
            self.run(work)
        except FsError as error:
            return error.errno
        return 0

    def some_file(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(p for p, ino in self.tree.items() if ino in self.files)))

    # ------------------------------------------------------------ names

    @rule(name=st.sampled_from(["/d", "/e"]))
    def make_or_remove_folder(self, name: str) -> None:
        m = self.mount
        raw = name[1:].encode()
        if name not in self.tree:
            assert self.errno_of(m.vfs.rmdir(m.ctx, 1, raw)) == errno.ENOENT
            self.tree[name] = self.run(m.vfs.mkdir(m.ctx, 1, raw, 0o755)).ino
            self.changed()
            return
        assert self.errno_of(m.vfs.mkdir(m.ctx, 1, raw, 0o755)) == errno.EEXIST
        if any(path.startswith(name + "/") for path in self.tree):
            assert self.errno_of(m.vfs.rmdir(m.ctx, 1, raw)) == errno.ENOTEMPTY
        else:
            self.run(m.vfs.rmdir(m.ctx, 1, raw))
            del self.tree[name]
            self.changed()

    @rule(folder=FOLDERS, name=NAMES, keep=st.booleans())
    def create(self, folder: str, name: str, keep: bool) -> None:
        parent, path, m = self.parent(folder), folder + name, self.mount
        if parent is None:
            return
        if path in self.tree:
            assert self.errno_of(m.vfs.create(m.ctx, parent, name[1:].encode(), 0o644)) == errno.EEXIST
            return
        handle, entry = self.run(m.vfs.create(m.ctx, parent, name[1:].encode(), 0o644))
        assert entry.ino not in self.files, "inode numbers are never used again"
        self.tree[path] = entry.ino
        self.files[entry.ino] = ModelFile()
        self.changed()
        if keep and len(self.handles) < 4:
            self.handles.append((handle, entry.ino))
        else:
            self.run(m.vfs.release(m.ctx, handle))

    @precondition(has_files)
    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        path, m = self.some_file(data), self.mount
        folder, _, name = path.rpartition("/")
        self.run(m.vfs.unlink(m.ctx, self.tree.get(folder, 1), name.encode()))
        assert self.errno_of(m.vfs.lookup(self.tree.get(folder, 1), name.encode())) == errno.ENOENT
        del self.tree[path]
        self.changed()

    @precondition(has_files)
    @rule(data=st.data(), folder=FOLDERS, name=NAMES)
    def rename(self, data: st.DataObject, folder: str, name: str) -> None:
        source, parent, m = self.some_file(data), self.parent(folder), self.mount
        target = folder + name
        if parent is None or (self.mount.store.errors and target in self.tree) or source == target:
            return
        old_folder, _, old = source.rpartition("/")
        self.run(m.vfs.rename(m.ctx, self.tree.get(old_folder, 1), old.encode(), parent, name[1:].encode()))
        ino = self.tree.pop(source)
        replaced = target in self.tree
        self.tree[target] = ino
        self.changed()
        if replaced:
            self.guards.append((len(self.history) - 1, ino, len(self.files[ino].versions) - 1))

    @rule(folder=FOLDERS)
    def listing(self, folder: str) -> None:
        parent, m = self.parent(folder), self.mount
        if parent is None:
            return

        async def names() -> dict[str, Inode]:
            handle = await m.vfs.opendir(parent)
            out: dict[str, Inode] = {}
            after = 0
            while page := await m.vfs.readdir(handle, after, 2):
                out.update({f"{folder}/{listed.name.decode()}": inode for listed, inode in page})
                after = page[-1][0].cookie
            await m.vfs.releasedir(m.ctx, handle)
            return out

        found = self.run(names())
        depth = folder.count("/") + 1
        inside = {p for p in self.tree if p.startswith(folder + "/") and p.count("/") == depth}
        assert set(found) == inside | {f"{folder}/.", f"{folder}/.."}
        for path in inside:
            if self.tree[path] in self.files:
                assert found[path].size == len(self.files[self.tree[path]].now)

    # ------------------------------------------------------------ data

    @precondition(has_files)
    @rule(data=st.data(), offset=OFFSETS, length=LENGTHS)
    def write_more(self, data: st.DataObject, offset: int, length: int) -> None:
        self.write(data, offset, length)
        self.write(data, offset + length, 100)

    @precondition(has_files)
    @rule(data=st.data(), length=LENGTHS, times=st.integers(1, 8))
    def append(self, data: st.DataObject, length: int, times: int) -> None:
        ino = self.tree[self.some_file(data)]
        m = self.mount
        handle = self.run(m.vfs.open(m.ctx, ino, 2))
        for _ in range(times):
            self.write_to(handle, ino, len(self.files[ino].now), length)
        self.run(m.vfs.release(m.ctx, handle))

    @precondition(has_files)
    @rule(data=st.data(), offset=st.integers(0, SLOT_BYTES), length=st.integers(1, 50))
    def write_little(self, data: st.DataObject, offset: int, length: int) -> None:
        self.write(data, offset, length)

    def write(self, data: st.DataObject, offset: int, length: int) -> None:
        m = self.mount
        if self.handles and data.draw(BOOLEANS):
            handle, ino = data.draw(st.sampled_from(self.handles))
            opened = False
        else:
            ino = self.tree[self.some_file(data)]
            handle, opened = self.run(m.vfs.open(m.ctx, ino, 2)), True
        self.write_to(handle, ino, offset, length)
        if opened:
            self.run(m.vfs.release(m.ctx, handle))

    def write_to(self, handle: int, ino: int, offset: int, length: int) -> None:
        self.written += 1
        piece = bytes([self.written % 255 + 1]) * length
        with contextlib.suppress(TooFewNodes, Unavailable):
            self.run(self.mount.vfs.write(handle, offset, piece))
            file = self.files[ino]
            old = file.now
            file.versions.append(old[:offset].ljust(offset, b"\0") + piece + old[offset + length :])
            file.edges |= {offset, offset + length, len(old)}

    @precondition(has_files)
    @rule(data=st.data(), size=OFFSETS)
    def truncate(self, data: st.DataObject, size: int) -> None:
        ino = self.tree[self.some_file(data)]
        if self.mount.store.errors:
            return
        self.run(self.mount.vfs.setattr(self.mount.ctx, ino, size=size))
        file = self.files[ino]
        file.edges |= {size, len(file.now)}
        file.versions.append(file.now[:size].ljust(size, b"\0"))

    @precondition(has_files)
    @rule(data=st.data(), offset=OFFSETS, length=LENGTHS)
    def read(self, data: st.DataObject, offset: int, length: int) -> None:
        m = self.mount
        ino = self.tree[self.some_file(data)]
        assert self.run(m.vfs.getattr(ino)).size == len(self.files[ino].now)

        async def go() -> bytes:
            handle = await m.vfs.open(m.ctx, ino, 0)
            try:
                return bytes(await m.vfs.read(handle, offset, length))
            finally:
                await m.vfs.release(m.ctx, handle)

        assert self.run(go()) == self.files[ino].now[offset : offset + length]

    @precondition(lambda self: bool(self.handles))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        handle, ino = data.draw(st.sampled_from(self.handles))
        self.handles.remove((handle, ino))
        assert bytes(self.run(self.mount.vfs.read(handle, 0, 1 << 24))) == self.files[ino].now
        self.run(self.mount.vfs.release(self.mount.ctx, handle))

    @precondition(has_files)
    @rule(data=st.data())
    def fsync(self, data: st.DataObject) -> None:
        ino = self.tree[self.some_file(data)]
        with contextlib.suppress(TooFewNodes, Unavailable):
            self.run(self.mount.vfs.fsync_inode(ino))
            self.durable = len(self.history) - 1
            self.files[ino].synced = len(self.files[ino].versions) - 1
            assert self.coordinator.content(ino) == self.files[ino].now

    # ------------------------------------------------------------ the machine around it

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]), rounds=st.integers(0, 30))
    def time_goes_by(self, seconds: float, rounds: int) -> None:
        async def go() -> None:
            self.mount.clock.now_s += seconds
            self.mount.vfs.tick()
            await turns(rounds)

        self.run(go())

    @rule()
    def forget(self) -> None:
        self.mount.vfs.local.metadata.forget_clean()

    @rule(what=st.sampled_from(["store", "commit"]))
    def trouble(self, what: str) -> None:
        if what == "store":
            self.mount.store.errors = [TooFewNodes("down")]
        else:
            self.mount.session.errors["commit"] = [Unavailable("away")]

    @rule()
    def flush_order(self) -> None:
        with contextlib.suppress(TooFewNodes, Unavailable):
            self.run(self.mount.vfs.on_flush(self.mount.vfs.volume_id))
            self.durable = len(self.history) - 1
            for path, ino in self.tree.items():
                if ino in self.files:
                    self.files[ino].synced = len(self.files[ino].versions) - 1
                    assert self.coordinator.content(ino) == self.files[ino].now, path

    @invariant()
    def committed_state_is_one_that_a_crash_may_leave(self) -> None:
        self.coordinator.check()
        self.steps += 1
        tree = self.coordinator.tree()
        matching = [i for i in range(self.durable, len(self.history)) if self.history[i] == tree]
        assert matching, "the names are no prefix of the operations"
        synced = {ino: file.synced for ino, file in self.files.items()}
        for index, ino, version in self.guards:
            if matching[0] >= index:
                synced[ino] = max(synced[ino], version)
        for path, ino in tree.items():
            if ino in self.files:
                self.check_content(path, self.coordinator.content(ino), self.files[ino], synced[ino])

    @precondition(lambda self: self.steps > 8)
    @rule()
    def crash(self) -> None:
        """The client dies. What is committed becomes the new beginning."""
        self.steps = 0
        self.mount.session.dead = True
        self.mount.store.gate = asyncio.Event()
        tree = self.coordinator.tree()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run(turns(5))
        self.tree = dict(tree)
        contents = {ino: self.coordinator.content(ino) for ino in tree.values() if ino in self.files}
        for ino, file in self.files.items():
            file.versions, file.synced = [contents.get(ino, b"")], 0
            file.edges = {0, len(file.now)}
        self.history, self.durable, self.guards, self.handles = [dict(tree)], 0, [], []
        self._mount()

    def check_content(self, path: str, content: bytes, file: ModelFile, synced: int) -> None:
        versions = file.versions[synced:]
        assert len(content) >= min(len(v) for v in versions), path
        edges = sorted({e for e in file.edges if e < len(content)} | {0, len(content)})
        for start, end in pairwise(edges):
            # A flush takes whole slots: within one stretch between two edges different slots may differ in age.
            for low in range(start, end, SLOT_BYTES):
                for a, b in split_at_slots(low, min(low + SLOT_BYTES, end)):
                    assert any(len(v) >= b and v[a:b] == content[a:b] for v in versions), (path, a, b)


def split_at_slots(start: int, end: int) -> list[tuple[int, int]]:
    """A stretch of at most a slot's length, cut where it crosses into the next slot."""
    border = (start // SLOT_BYTES + 1) * SLOT_BYTES
    return [(start, end)] if end <= border else [(start, border), (border, end)]


TestMount = MountMachine.TestCase
TestMount.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
