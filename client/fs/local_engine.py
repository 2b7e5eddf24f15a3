"""The namespace engine here, over a cache: what a mount does that alone changes its volume, or only reads it.

Operations run over `metadata` and enter the write log; none of them waits for the network once its records are known.
Data goes through `file_io`. What a user sees of a file merges both: its size and times include what is still dirty.

Order (invariant 5): the write log is shipped in order, so what survives a crash of this client is a prefix of its
namespace operations; a rename onto a name first records the source's data; `fsync` flushes that file's data, then
waits for the log up to there.

Lookup counts of the kernel are not kept: inode numbers are never used again, so an inode that the kernel still holds
without having it open needs nothing from here. An unlinked inode lives until its last close.

An engine knows one lineage: for another one, or after the volume was shared, the vfs makes a new engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import ENOENT
from stat import S_ISDIR, S_ISGID, S_ISREG, S_ISUID
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

from redfs.client.fs.committer import Committer
from redfs.client.fs.config import Buffer, FsConfig, Reader, Session, Store, Stored
from redfs.client.fs.engine import O_TRUNC
from redfs.client.fs.file_io import FileIo
from redfs.client.fs.flusher import Flusher
from redfs.client.fs.handles import Handle
from redfs.client.fs.inode_numbers import InodeNumbers
from redfs.client.fs.metadata import Metadata
from redfs.client.fs.space import SpaceReservation
from redfs.client.fs.write_buffer import WriteBuffer
from redfs.client.fs.write_log import WriteLog
from redfs.core import namespace as engine
from redfs.core.errors import FsError, RedfsError
from redfs.core.namespace import Context, Entry, Listed, Miss, Outcome, Removed, Renamed
from redfs.core.namespace.xattrs import xattr_flag
from redfs.core.records import Inode, Kind, Slot, Xattr, inode_key, object_ino
from redfs.core.slots import logical_bytes

log = logging.getLogger("redfs.fs")
T = TypeVar("T")
P = ParamSpec("P")


class Place(NamedTuple):
    """The volume that an engine works on, and with what."""

    session: Session
    volume_id: int
    lineage: int
    store: Store
    reader: Reader
    config: FsConfig
    clock: Callable[[], float]
    now_ns: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]]
    on_failed: Callable[[RedfsError], None]
    """Called when nothing can be stored any more."""
    on_rolled_back: Callable[[], None]
    """Called when the coordinator refuses a change because the volume was rolled back."""


class LocalEngine:
    """See the module."""

    is_shared = False

    def __init__(
        self,
        place: Place,
        metadata: Metadata,
        *,
        after: int,
        read_only: bool,
        follows: bool,
        opened: Mapping[int, int],
        unlinked: set[int],
        folder_of: Callable[[int], int],
    ) -> None:
        """`after`: the session's last commit. `follows`: somebody else changes the volume. `opened`: inode -> handles,
        kept by the vfs. `unlinked`: open inodes that have no name left."""
        config, clock = place.config, place.clock
        self._place = place
        self._config = config
        self._clock = clock
        self._read_only = read_only
        self.follows = follows
        self._opened = opened
        self._unlinked = unlinked
        self._fetched_at_s = clock()
        self.failure: RedfsError | None = None
        self.metadata = metadata
        self.space = SpaceReservation(place.session, place.volume_id, config, self._uncounted_bytes)
        self.inode_numbers = InodeNumbers(place.session, place.volume_id, config)
        self.buffer = WriteBuffer()
        self.write_log = WriteLog(metadata, config, clock)
        self.committer = Committer(
            place.session,
            place.volume_id,
            place.lineage,
            self.write_log,
            config,
            after=after,
            clock=clock,
            store_again=self._store_again,
            on_failed=place.on_failed,
            on_rolled_back=place.on_rolled_back,
            sleep=place.sleep,
        )
        self.flusher = Flusher(
            metadata,
            self.buffer,
            self.write_log,
            self.committer,
            place.store,
            place.reader,
            config,
            clock=clock,
            on_failed=place.on_failed,
        )
        self.io = FileIo(
            metadata,
            self.buffer,
            self.flusher,
            self.committer,
            self.space,
            place.reader,
            config,
            clock=clock,
            now_ns=place.now_ns,
            folder_of=folder_of,
        )

    async def _store_again(self, plain: Sequence[Buffer]) -> Stored:
        return await self._place.store.store(plain, dedupe=False)

    def _uncounted_bytes(self) -> int:
        """What the coordinator's count of the volume lacks."""
        return self.buffer.charged_bytes + self.write_log.copied_bytes

    async def start(self) -> None:
        """Reserves space and takes inode numbers."""
        if not self._read_only:
            await asyncio.gather(self.space.ask(), self.inode_numbers.fill())

    # ------------------------------------------------------------ finding

    async def lookup(self, parent: int, name: bytes) -> Entry:
        entry = (await self._look(engine.lookup, parent, name)).value
        return Entry(entry.ino, self._shown(entry.ino, entry.inode))

    async def getattr(self, ino: int) -> Inode:
        return self._shown(ino, (await self._look(engine.getattr, ino)).value)

    async def readlink(self, ino: int) -> bytes:
        return (await self._look(engine.readlink, ino)).value

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        return (await self._look(engine.getxattr, ino, name)).value

    async def listxattr(self, ino: int) -> list[bytes]:
        return (await self._look(engine.listxattr, ino)).value

    def lacks_attribute(self, ino: int, name: bytes) -> bool:
        inode = cast("Inode | None", self.metadata.peek(inode_key(ino)))
        return inode is not None and not inode.flags & xattr_flag(name)

    async def readdir(self, ino: int, after_cookie: int, limit: int) -> list[tuple[Listed, Inode]]:
        """Entries that change while a folder is listed appear as they are now; all others exactly once."""
        while True:
            listed = (await self._look(engine.readdir, ino, after_cookie, limit)).value
            unknown = [inode_key(entry.ino) for entry in listed if entry.inode is None]
            unknown = [key for key in unknown if not self.metadata.knows(key)]
            if unknown:
                await self.metadata.fetch(Miss(keys=unknown))
                continue
            sound = [entry for entry in listed if entry.inode is not None]
            if len(sound) < len(listed):
                log.error("folder %d has entries without inodes: run `redfs check`", ino)
            if sound or not listed:
                return [(entry, self._shown(entry.ino, entry.inode)) for entry in sound if entry.inode is not None]
            after_cookie = listed[-1].cookie

    # ------------------------------------------------------------ making, removing, moving

    async def create(self, ctx: Context, parent: int, name: bytes, mode: int, flags: int) -> Entry:
        """The kernel has looked, and nobody else makes names here."""
        return await self._make(engine.create, ctx, parent, name, mode)

    async def mknod(self, ctx: Context, parent: int, name: bytes, mode: int, rdev: int) -> Entry:
        return await self._make(engine.mknod, ctx, parent, name, mode, rdev)

    async def mkdir(self, ctx: Context, parent: int, name: bytes, mode: int) -> Entry:
        entry = await self._make(engine.mkdir, ctx, parent, name, mode)
        self.metadata.folder_is_new(entry.ino)
        return entry

    async def symlink(self, ctx: Context, parent: int, name: bytes, target: bytes) -> Entry:
        return await self._make(engine.symlink, ctx, parent, name, target)

    async def link(self, ctx: Context, ino: int, new_parent: int, new_name: bytes) -> Entry:
        entry = await self._change(engine.link, ctx, ino, new_parent, new_name)
        return Entry(ino, self._shown(ino, entry.inode))

    async def unlink(self, ctx: Context, parent: int, name: bytes) -> Removed:
        return self._removed(await self._change(engine.unlink, ctx, parent, name, self._opened))

    async def rmdir(self, ctx: Context, parent: int, name: bytes) -> Removed:
        return self._removed(await self._change(engine.rmdir, ctx, parent, name, self._opened))

    async def rename(
        self, ctx: Context, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> Renamed:
        """Where it replaces another, the moved file's data is recorded first."""
        source = await self._dirty_replacement(old_parent, old_name, new_parent, new_name)
        if source is not None:
            await self.flusher.flush(source)
        renamed = await self._change(
            engine.rename, ctx, old_parent, old_name, new_parent, new_name, flags, self._opened
        )
        if renamed.replaced is not None:
            self._removed(renamed.replaced)
        return renamed

    async def _dirty_replacement(self, old_parent: int, old_name: bytes, parent: int, name: bytes) -> int | None:
        """The inode that moves, if it has dirty data and will replace another."""
        try:
            source = (await self._look(engine.lookup, old_parent, old_name)).value.ino
            if source not in self.buffer.files:
                return None
            target = (await self._look(engine.lookup, parent, name)).value.ino
        except FsError:
            return None  # the rename itself says what is wrong
        return source if target != source else None

    async def _make(self, operation: Callable[..., Outcome[Entry]], ctx: Context, *args: Any) -> Entry:
        ino = self.inode_numbers.take_now()
        if ino is None:
            ino = await self.inode_numbers.take()
        entry = await self._change(operation, ctx, *args, ino)
        self.metadata.inode_is_new(ino)
        return entry

    def _removed(self, removed: Removed) -> Removed:
        if removed.inode is None:
            self.buffer.drop(removed.ino)
        elif not removed.inode.nlink:
            self._unlinked.add(removed.ino)
        return removed

    # ------------------------------------------------------------ copies of what other nodes of the tree hold

    async def copy_in(
        self,
        ctx: Context,
        parent: int,
        name: bytes,
        like: Inode,
        xattrs: Sequence[Xattr],
        slots: Mapping[int, Slot],
        size: int,
    ) -> Entry:
        """The blocks that the slots name must stay stored until `barrier` has returned."""
        with self._taking_over(slots):
            entry = await self._make(engine.make_copy, ctx, parent, name, like, xattrs, slots, size)
        if S_ISDIR(like.mode):
            self.metadata.folder_is_new(entry.ino)
        return entry

    async def copy_in_more(self, ino: int, slots: Mapping[int, Slot], size: int) -> None:
        with self._taking_over(slots):
            if await self._change(engine.record_data, ino, slots, size, None, None) is None:
                raise FsError(ENOENT, "a file was removed while it was copied")

    async def leaves_room(self, size: int, *, anew: bool = False) -> bool:
        if anew:
            await self.space.ask()
        if size > self.space.quota_bytes:
            await self.sync()  # so that the coordinator counts all that was written, copied and deleted here
            await self.space.ask()
        return size <= self.space.quota_bytes

    @contextmanager
    def _taking_over(self, slots: Mapping[int, Slot]) -> Iterator[None]:
        """Counts slots against the quota until the coordinator does. They must be what is appended last inside."""
        size = logical_bytes(slots)
        self.space.copied(size)
        self.write_log.copied_bytes += size
        try:
            yield
        except BaseException:
            self.write_log.copied_bytes -= size
            raise
        self.write_log.copied(size)

    # ------------------------------------------------------------ attributes

    async def setattr(self, ctx: Context, ino: int, change: Mapping[str, Any]) -> Inode:
        """With `size` cuts or extends the file, in order with its dirty data."""
        if change.get("size") is not None:
            return await self._truncate(ctx, ino, change["size"], change)
        inode = await self._change(engine.setattr, ctx, ino, **change)
        if change.get("mtime_ns") is not None:
            self._times_set(ino)
        return self._shown(ino, inode)

    async def _truncate(self, ctx: Context, ino: int, size: int, change: Mapping[str, Any]) -> Inode:
        while True:
            with self.flusher.held(ino):
                if await self.io.before_cut(ino, size):
                    inode = await self._change(engine.setattr, ctx, ino, **change)
                    self._times_set(ino)
                    return self._shown(ino, inode)
            await self.flusher.flush(ino)

    def _times_set(self, ino: int) -> None:
        file = self.buffer.files.get(ino)
        if file is not None:
            file.mtime_ns = None

    async def setxattr(self, ctx: Context, ino: int, name: bytes, value: bytes, flags: int) -> None:
        await self._change(engine.setxattr, ctx, ino, name, value, flags)

    async def removexattr(self, ctx: Context, ino: int, name: bytes) -> None:
        await self._change(engine.removexattr, ctx, ino, name)

    def _shown(self, ino: int, inode: Inode) -> Inode:
        """The inode with the size and times of data that is not recorded yet."""
        file = self.buffer.files.get(ino)
        if file is None:
            return inode
        times = file.mtime_ns
        if times is None:
            return inode if file.end <= inode.size else inode._replace(size=file.end)
        return inode._replace(size=max(inode.size, file.end), mtime_ns=times, ctime_ns=max(times, inode.ctime_ns))

    def shown_if_known(self, ino: int) -> Inode | None:
        """The inode as it was last shown, where its record happens to be here."""
        inode = cast("Inode | None", self.metadata.peek(inode_key(ino)))
        return None if inode is None else self._shown(ino, inode)

    # ------------------------------------------------------------ open files

    async def opened(self, ctx: Context, ino: int, flags: int, *, again: bool) -> Inode:
        inode = (await self._look(engine.getattr, ino)).value
        if flags & O_TRUNC and S_ISREG(inode.mode):
            change: dict[str, Any] = {"size": 0, "kill_priv": ctx.uid != 0 and bool(inode.mode & (S_ISUID | S_ISGID))}
            return await self._truncate(ctx, ino, 0, change)
        return self._shown(ino, inode)

    async def closed(self, ctx: Context, ino: int) -> None:
        if self._read_only:
            return
        if ino in self._unlinked:
            self._unlinked.discard(ino)
            self.buffer.drop(ino)
            await self._change(engine.release, ctx, ino)
        elif self.buffer.closed(ino):
            self.flusher.kick()

    async def read(self, handle: Handle, offset: int, size: int) -> Buffer:
        return await self.io.read(handle, offset, size)

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Takes bytes, which must not change afterwards."""
        return await self.io.write(handle, offset, data)

    def error_of(self, ino: int) -> RedfsError | None:
        """They are kept, and tried again."""
        file = self.buffer.files.get(ino)
        return None if file is None else file.error

    async def fsync(self, ino: int) -> None:
        await self.flusher.flush(ino)
        await self.committer.barrier()

    async def barrier(self) -> None:
        await self.committer.barrier()

    async def sync(self) -> None:
        await self.flusher.flush_all()
        await self.committer.barrier()

    # ------------------------------------------------------------ the end

    def tick(self) -> None:
        """Writes back what is old, commits what waits; of a mount that only reads: forgets what may be old."""
        if self._read_only:
            if self.follows and self._clock() - self._fetched_at_s >= self._config.volatile_s:
                self._fetched_at_s = self._clock()
                self.metadata.forget_clean()
        elif self.failure is None:
            self.flusher.tick()
            self.committer.tick()

    @property
    def is_clean(self) -> bool:
        return not self.buffer.files and self.write_log.newest() is None

    def unsure(self) -> tuple[set[int], set[int]]:
        data = set(self.buffer.dirty_inodes())
        rows = [key for commit in (*self.write_log.in_flight, *self.write_log.queue) for key in commit.rows]
        data.update(object_ino(key.obj) for key in rows if key.kind == Kind.SLOT)
        return data, data.union(object_ino(key.obj) for key in rows)

    @property
    def uncommitted(self) -> int:
        return self.write_log.pending_rows

    @property
    def acknowledged(self) -> int:
        """The last commit that was applied."""
        return self.committer.acknowledged

    def fail(self, error: RedfsError) -> None:
        self.failure = error
        if not self._read_only:
            self.committer.fail(error)
            self.flusher.fail(error)

    async def abandon(self, error: RedfsError) -> None:
        self.committer.abandon(error)
        self.flusher.fail(error)
        await self.flusher.stop()

    async def ended(self) -> None:
        await self.committer.ended()

    async def stop(self) -> None:
        await self.space.stop()
        await self.inode_numbers.stop()
        await self.flusher.stop()
        await self.committer.stop()

    # ------------------------------------------------------------ helpers

    async def _look(
        self, operation: Callable[Concatenate[Any, P], Outcome[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Outcome[T]:
        if self.failure is not None:
            raise self.failure
        try:
            return operation(self.metadata, *args, **kwargs)
        except Miss as miss:
            await self.metadata.fetch(miss)
        return await self.metadata.run(operation, *args, **kwargs)

    async def _change(
        self, operation: Callable[Concatenate[Any, P], Outcome[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs an operation and puts its write-set into the log."""
        if not self.committer.has_room:
            await self.committer.room()
        outcome = await self._look(operation, *args, **kwargs)
        if outcome.writes:
            self.write_log.append(outcome.writes)
            self.committer.appended()
        return outcome.value
