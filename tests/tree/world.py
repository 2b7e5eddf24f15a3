"""A pool in this process: the coordinator behind real gRPC, real sessions, the real file system without FUSE.

Only the data path is replaced: blocks are kept in memory, and one that the coordinator has no row of is gone, so that
data freed too early is noticed. Everything runs on one event loop that the world owns, so that plain tests drive it.
"""

from __future__ import annotations

import asyncio
import stat
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import blake3

from redfs.client.api import Pool
from redfs.client.fs.config import Buffer, FsConfig
from redfs.client.fs.copier import Copier
from redfs.client.fs.following import SLACK_S, Following
from redfs.client.fs.reattaching import Reattaching
from redfs.client.fs.sharing import Sharing
from redfs.client.fs.vfs import Vfs
from redfs.client.session import CoordinatorSession, SessionConfig
from redfs.coordinator import nodes, sessions
from redfs.coordinator.cluster import Report
from redfs.coordinator.coordinator import ALL_TABLES, Coordinator
from redfs.coordinator.environment import CoordinatorConfig, SystemClock, SystemRandomness
from redfs.coordinator.service import serve
from redfs.coordinator.shell import Shell
from redfs.coordinator.store import LmdbStore
from redfs.core.errors import FsError, NotFound
from redfs.core.ids import ROOT_INO, block_id
from redfs.core.namespace import Context
from redfs.core.records import Inode
from redfs.core.tables import BLOCKS, JOBS, u64_key
from redfs.proto import rpc
from redfs.proto.gen import cluster_pb2 as pb

T = TypeVar("T")
GIB = 1 << 30
NODES = 6
WAIT_S = 60.0
"""For a condition that takes milliseconds on an idle machine."""
LOOK_S = 0.002
MEMORY_DISK = Path("/dev/shm")


class File(NamedTuple):
    """What a model remembers of one path."""

    kind: str
    """file, folder or symlink."""
    content: bytes = b""
    """Of a link its target."""


Content = dict[str, File]
"""Path from the top, without a leading slash -> what is there. The top itself is left out."""

FOLDER = File("folder")


@dataclass
class Batch:
    """What a block store hands back."""

    refs: list[tuple[int, int]]
    segments: list[Any]
    blocks: list[Any]


class MemoryBlocks:
    """The blocks of a pool, by id; a block store and reader for every session."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plain: dict[int, bytes] = {}

    async def store(self, session: Any, volume_id: int, plain: Sequence[Buffer], dedupe: bool) -> Batch:
        prints = [blake3.blake3(data).digest() for data in plain]
        found = [0] * len(plain)
        if dedupe:
            reply = await session.call(find_blocks=pb.FindBlocks(volume_id=volume_id, fingerprints=prints))
            found = list(reply.block_ids)
        if all(found):
            return Batch([(number, len(data)) for number, data in zip(found, plain, strict=True)], [], [])
        opened = await session.call(open_segments=pb.OpenSegments(volume_id=volume_id, count=1))
        segment = opened.segments[0]
        refs: list[tuple[int, int]] = []
        blocks: list[Any] = []
        offset = 0
        for at, (data, fingerprint) in enumerate(zip(plain, prints, strict=True)):
            if found[at]:
                refs.append((found[at], len(data)))
                continue
            number = block_id(segment.segment_id, at)
            stored = len(data) // 2 + 1
            blocks.append(
                pb.Block(
                    block_id=number, segment_id=segment.segment_id, offset=offset, stored_bytes=stored,
                    plain_bytes=len(data), codec=1, fingerprint=fingerprint,
                )
            )  # fmt: skip
            offset += stored
            self._plain[number] = bytes(data)
            refs.append((number, len(data)))
        segment.shard_bytes = max(64, -(-offset // segment.k // 64) * 64)
        return Batch(refs, [segment], blocks)

    def read(self, numbers: Sequence[int], own: set[int]) -> list[bytes]:
        """Blocks that were stored by the reader itself may not be committed yet, or stand for equal ones."""
        with self._world.coordinator.read() as kv:
            for number in numbers:
                is_there = number in own or kv.get(BLOCKS, u64_key(number)) is not None
                if not is_there:  # only while others write does that happen, and then the slot is looked up again
                    raise NotFound(f"block {number:#x} is read and was freed")
        return [self._plain[number] for number in numbers]


class Store:
    """`client.fs.config.Store` over `MemoryBlocks`."""

    def __init__(self, blocks: MemoryBlocks, session: Any, volume_id: int) -> None:
        self.stored: set[int] = set()
        self._blocks = blocks
        self._session = session
        self._volume_id = volume_id

    async def store(self, plain: Sequence[Buffer], *, dedupe: bool = True) -> Batch:
        batch = await self._blocks.store(self._session, self._volume_id, plain, dedupe)
        self.stored.update(block.block_id for block in batch.blocks)
        return batch

    async def abandon(self, batch: Any) -> None:
        numbers = [segment.segment_id for segment in batch.segments]
        if numbers:
            await self._session.call(abort_segments=pb.AbortSegments(segment_ids=numbers))


class Reader:
    """`client.fs.config.Reader` over `MemoryBlocks`; keeps nothing."""

    def __init__(self, blocks: MemoryBlocks, own: set[int]) -> None:
        self._blocks = blocks
        self._own = own
        self._last: dict[int, bytes] = {}

    def learn(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None: ...

    def learn_stored(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None: ...

    def cached(self, block: int) -> bytes | None:
        return self._last.get(block)

    async def read_many(self, blocks: Sequence[int]) -> list[bytes]:
        await asyncio.sleep(0)
        found = self._blocks.read(blocks, self._own)
        self._last = dict(zip(blocks, found, strict=True))
        return found

    def prefetch(self, blocks: Sequence[int], *, whole_segments: bool) -> None: ...


class Mount:
    """A volume mounted without FUSE, by paths."""

    def __init__(
        self,
        world: World,
        session: CoordinatorSession,
        vfs: Vfs,
        following: Following,
        reattaching: Reattaching,
        volume: str,
    ) -> None:
        self._world = world
        self.session = session
        self.vfs = vfs
        self._following = following
        self._reattaching = reattaching
        self.volume = volume

    def _context(self) -> Context:
        return Context(0, 0, self.vfs.now_ns())

    async def _ino(self, path: str) -> int:
        ino: int = ROOT_INO
        for name in filter(None, path.split("/")):
            ino = (await self.vfs.lookup(ino, name.encode())).ino
        return ino

    async def _place(self, path: str) -> tuple[int, bytes]:
        folder, _, name = path.rpartition("/")
        return await self._ino(folder), name.encode()

    async def write(self, path: str, content: bytes) -> None:
        """A file of that content, new or in the place of what the file had."""
        folder, name = await self._place(path)
        try:
            handle = await self.vfs.open(self._context(), (await self.vfs.lookup(folder, name)).ino, 0o1001)
        except FsError:
            handle, _ = await self.vfs.create(self._context(), folder, name, 0o644)
        await self._fill(handle, 0, content)

    async def create(self, path: str, flags: int = 0) -> int:
        """A new file, open; the handle."""
        folder, name = await self._place(path)
        return (await self.vfs.create(self._context(), folder, name, 0o644, flags))[0]

    async def append(self, path: str, at: int, content: bytes) -> None:
        await self._fill(await self.vfs.open(self._context(), await self._ino(path), 1), at, content)

    async def _fill(self, handle: int, at: int, content: bytes) -> None:
        if content:
            await self.vfs.write(handle, at, content)
        await self.vfs.release(self._context(), handle)

    async def open(self, path: str, flags: int) -> int:
        return await self.vfs.open(self._context(), await self._ino(path), flags)

    async def release(self, handle: int) -> None:
        await self.vfs.release(self._context(), handle)

    async def truncate(self, path: str, size: int) -> None:
        await self.vfs.setattr(self._context(), await self._ino(path), size=size)

    async def mkdir(self, path: str) -> None:
        await self.vfs.mkdir(self._context(), *await self._place(path), 0o755)

    async def symlink(self, path: str, target: bytes) -> None:
        await self.vfs.symlink(self._context(), *await self._place(path), target)

    async def unlink(self, path: str) -> None:
        await self.vfs.unlink(self._context(), *await self._place(path))

    async def rmdir(self, path: str) -> None:
        await self.vfs.rmdir(self._context(), *await self._place(path))

    async def rename(self, old: str, new: str) -> None:
        await self.vfs.rename(self._context(), *await self._place(old), *await self._place(new))

    async def content(self) -> Content:
        """Everything in it."""
        found: Content = {}
        waiting: list[tuple[int, str]] = [(ROOT_INO, "")]
        while waiting:
            ino, path = waiting.pop()
            for name, child, mode in await self._entries(ino):
                below = f"{path}/{name}" if path else name
                if stat.S_ISDIR(mode):
                    found[below] = FOLDER
                    waiting.append((child, below))
                elif stat.S_ISLNK(mode):
                    found[below] = File("symlink", await self.vfs.readlink(child))
                else:
                    found[below] = File("file", await self._read(child))
        return found

    async def _entries(self, ino: int) -> list[tuple[str, int, int]]:
        handle = await self.vfs.opendir(ino)
        found: list[tuple[str, int, int]] = []
        after = 0
        while entries := await self.vfs.readdir(handle, after, 64):
            found += [(e.name.decode(), e.ino, inode.mode) for e, inode in entries if e.name not in (b".", b"..")]
            after = entries[-1][0].cookie
        await self.vfs.releasedir(self._context(), handle)
        return found

    async def read(self, path: str) -> bytes:
        return await self._read(await self._ino(path))

    async def inode(self, path: str) -> Inode:
        return await self.vfs.getattr(await self._ino(path))

    async def touch(self, path: str, mtime_ns: int) -> None:
        await self.vfs.setattr(self._context(), await self._ino(path), mtime_ns=mtime_ns)

    async def _read(self, ino: int) -> bytes:
        size = (await self.vfs.getattr(ino)).size
        handle = await self.vfs.open(self._context(), ino, 0)
        parts: list[bytes] = []
        while sum(map(len, parts)) < size:
            part = bytes(await self.vfs.read(handle, sum(map(len, parts)), 1 << 20))
            assert part, "a file ends before its size"
            parts.append(part)
        await self.vfs.release(self._context(), handle)
        return b"".join(parts)

    async def sync(self) -> None:
        await self.vfs.sync()

    async def close(self) -> None:
        await self._reattaching.stop()
        await self._following.stop()
        await self.vfs.close()
        await self.session.close()


async def _soon(_: float) -> None:
    await asyncio.sleep(LOOK_S)


class NoKernel:
    """Remembers nothing, so nothing has to be waited for."""

    timeout_s = -SLACK_S

    async def write_back(self) -> None: ...

    def rolled_back(self) -> None: ...

    async def forget(self, inodes: Sequence[int]) -> None: ...

    def moved(self, ino: int, path: Callable[[int], Sequence[bytes] | None]) -> None:
        """Nobody renames across folders here."""

    async def forget_names(self, names: Sequence[tuple[int, bytes]]) -> None: ...


class World:
    """See the module. `close` ends all of it."""

    def __init__(self, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        place = MEMORY_DISK if MEMORY_DISK.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="redfs-tree-", dir=place)
        self._config = CoordinatorConfig.from_mapping(
            {"node_down_s": 3600.0, "down_out_s": 7200.0, "delete_grace_s": 0.0, **settings}
        )
        self.blocks = MemoryBlocks(self)
        self.run(self._start())
        self.pool = Pool.connect(self.address)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _start(self) -> None:
        self._store = LmdbStore(Path(self._folder.name), ALL_TABLES, 1 << 30)
        self.coordinator = Coordinator(self._store, self._config, SystemClock(), SystemRandomness())
        for number in range(NODES):
            hello = nodes.Hello("", 0, f"disk-{number}", f"127.0.0.1:{9000 + number}", 1, "", f"/disk/{number}")
            node_id, row = self.coordinator.execute(partial(nodes.register, hello=hello))
            stream = self.coordinator.cluster.attached(node_id, row)
            self.coordinator.cluster.reported(node_id, stream, Report(100 * GIB, 0, 100 * GIB))
        self._shell = Shell(self.coordinator)
        self._server = rpc.make_server()
        self.address = f"127.0.0.1:{rpc.listen(self._server, '127.0.0.1:0')}"
        await serve(self._shell, self._server)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """One of the API's calls, while the loop goes on."""
        return self.run(asyncio.to_thread(getattr(self.pool, name), *args, **kwargs))

    async def mount(self, name: str, *, view: bool = False, shared: bool = False) -> Mount:
        session = await CoordinatorSession.open(self.address, f"test:{name}", config=SessionConfig(give_up_s=10.0))
        try:
            wanted = pb.Attach(name=name, read_only="@" in name, view=view, shared=shared)
            attached = await session.call(attach=wanted)
        except BaseException:
            await session.close()
            raise
        store = Store(self.blocks, session, attached.volume.volume_id)
        vfs = Vfs(session, attached, store, Reader(self.blocks, store.stored), FsConfig(give_up_s=10.0))
        following = Following(session, vfs, NoKernel())
        session.on_flush = vfs.on_flush
        session.on_hold = following.hold
        session.on_rebase = following.rebase
        sharing = Sharing(session, vfs, NoKernel(), following)
        session.on_recall = sharing.recall
        session.on_alone = sharing.alone
        session.on_forget = sharing.forget
        session.on_return_held = vfs.on_return_held
        session.on_drop_remembered = vfs.on_drop_remembered
        session.on_resumed = sharing.resumed
        vfs.on_rolled_back = following.refused
        reattaching = Reattaching(session, vfs, NoKernel(), following, sharing, wanted, sleep=_soon)
        session.on_lapsed = reattaching.lapsed
        session.on_gone = vfs.on_gone
        session.on_copy = Copier(session, vfs).on_copy
        await vfs.start()
        return Mount(self, session, vfs, following, reattaching, name)

    async def end_session(self, mount: Mount) -> None:
        """The coordinator takes a mount for gone. Returns when the mount knows."""
        await self._shell.run(partial(sessions.end_session, session_id=mount.session.session_id))
        await self.until(lambda: mount.vfs.is_cut_off)

    async def back(self, mount: Mount) -> None:
        """Until requests of a mount that was cut off go on."""
        await self.until(lambda: mount.vfs.gate.is_open)

    async def look(self, name: str) -> Content:
        """What a node of the tree shows, through a view of it."""
        view = await self.mount(name, view=True)
        try:
            return await view.content()
        finally:
            await view.close()

    async def idle(self) -> None:
        """Until no job is left."""

        def done() -> bool:
            with self.coordinator.read() as kv:
                return kv.first(JOBS, b"", b"\xff") is None

        await self.until(done)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(LOOK_S)

    def problems(self) -> list[str]:
        """What `redfs check` finds in the metadata."""
        items: list[Any] = self.run(asyncio.to_thread(lambda: list(self.pool.check())))
        return [item.problem for item in items if item.HasField("problem")]

    def close(self) -> None:
        self.pool.close()
        self.run(self._stop())
        self.loop.close()
        self._folder.cleanup()

    async def _stop(self) -> None:
        await self._server.stop(None)
        await asyncio.to_thread(self._shell.stop)
        self._store.close()
