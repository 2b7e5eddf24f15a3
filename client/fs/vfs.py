"""A mounted volume without FUSE: names, attributes, open files and folders, barriers, and the end of the mount.

Namespace operations run in the engine over `metadata` and enter the write log; none of them waits for the network
once its records are known. Data goes through `file_io`. What a user sees of a file merges both: its size and times
include what is still dirty.

Order (invariant 5): the write log is shipped in order, so what survives a crash of this client is a prefix of its
namespace operations; a rename onto a name first records the source's data; `fsync` flushes that file's data, then
waits for the log up to there.

Lookup counts of the kernel are not kept: inode numbers are never used again, so an inode that the kernel still holds
without having it open needs nothing from here. Open handles are counted, because an unlinked inode lives until its
last close.

Fails with FsError for what POSIX defines, with the errors of the data path and the session for the rest (mapped to
errno by the adapter). After the session lapsed, or a commit failed for good, everything raises `failure`.

A volume that was rolled back goes on as another lineage (`rebase`): with new records, buffers and log, and with the
open handles of inodes that exist there. When that happens is `following.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EBADF, EISDIR, ENOENT, EROFS, ESTALE
from stat import S_ISDIR, S_ISGID, S_ISREG, S_ISUID
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

from redfs.client.fs.committer import TRANSIENT, Committer
from redfs.client.fs.config import Buffer, FsConfig, Reader, Session, Store, Stored
from redfs.client.fs.file_io import FileIo, Handle, MovedEnd
from redfs.client.fs.flusher import Flusher
from redfs.client.fs.gate import Gate
from redfs.client.fs.inode_numbers import InodeNumbers
from redfs.client.fs.metadata import Metadata
from redfs.client.fs.space import SpaceReservation
from redfs.client.fs.write_buffer import WriteBuffer
from redfs.client.fs.write_log import WriteLog
from redfs.core import namespace as engine
from redfs.core.errors import FsError, LeaseLapsed, RedfsError, RolledBack
from redfs.core.ids import ROOT_INO
from redfs.core.namespace import Context, Entry, Listed, Miss, Outcome
from redfs.core.records import INODE_HAS_CAPABILITY, Inode, Slot, Xattr, decode_root, inode_key
from redfs.core.slots import logical_bytes
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")
T = TypeVar("T")
P = ParamSpec("P")

O_ACCMODE, O_RDONLY, O_WRONLY, O_TRUNC, O_APPEND, O_NOATIME = 3, 0, 1, 0o1000, 0o2000, 0o1000000
ACCESS_DAY_NS = 24 * 3600 * 1_000_000_000
"""Under relatime an access time that is older than this is set anew."""
LISTED_LOST_FILES = 100
"""Names of files with lost data that are written to the log; their number is told beyond."""
OPEN_PER_FETCH = 1000
"""Open inodes whose records are asked for at once after a roll-back."""


class Space(NamedTuple):
    """What statfs shows."""

    total_bytes: int
    free_bytes: int


class Vfs:
    """See the module. Belongs to one event loop; made from the reply to Attach."""

    def __init__(
        self,
        session: Session,
        attached: pb.AttachReply,
        store: Store,
        reader: Reader,
        config: FsConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.config = config = config or FsConfig()
        self.volume_id: int = attached.volume.volume_id
        self.volume_name: str = attached.volume.name
        self.is_snapshot = attached.epoch != 0
        self.read_only = not attached.exclusive
        self._keeps_access_times = config.relatime and not self.read_only
        self.failure: RedfsError | None = None
        self.session = session
        self._clock = clock
        self.now_ns = now_ns
        self._sleep = sleep
        self._store = store
        self._reader = reader
        self.lineage: int = attached.lineage
        self.gate = Gate()
        """Every request passes it."""
        self.on_rolled_back: Callable[[], None] = self._nobody_follows
        """Called when the coordinator refuses to commit because the volume was rolled back."""
        self.space = SpaceReservation(session, self.volume_id, config, self._uncounted_bytes)
        self.inode_numbers = InodeNumbers(session, self.volume_id, config)
        self._files: dict[int, Handle] = {}
        self._folders: dict[int, int] = {}
        self._next_handle = 1
        self._open: dict[int, int] = {}
        """Inode -> open handles."""
        self._unlinked: set[int] = set()
        """Open inodes that have no name left."""
        self._stale: dict[int, int] = {}
        """Handle -> inode, of those that were open when the volume was rolled back and are not in it any more."""
        self._names: dict[int, tuple[int, bytes]] = {}
        """Inode -> the folder and name that it was last seen under."""
        self._places: dict[int, tuple[int, bytes, int]] = {}
        """Of folders before a roll-back, until `moved_folders` has compared them; no more than names are remembered."""
        self._statfs: tuple[float, Space] | None = None
        self._fetched_at_s = clock()
        self._begin(Metadata(session, self.volume_id, decode_root(attached.root), config), session.last_commit)

    def _begin(self, metadata: Metadata, last_commit: int) -> None:
        """Everything that knows one lineage, new."""
        config, clock = self.config, self._clock
        self.metadata = metadata
        self.buffer = WriteBuffer()
        self.write_log = WriteLog(metadata, config, clock)
        self.committer = Committer(
            self.session,
            self.volume_id,
            self.lineage,
            self.write_log,
            config,
            after=last_commit,
            clock=clock,
            store_again=self._store_again,
            on_failed=self.fail,
            on_rolled_back=lambda: self.on_rolled_back(),
            sleep=self._sleep,
        )
        self.flusher = Flusher(
            metadata,
            self.buffer,
            self.write_log,
            self.committer,
            self._store,
            self._reader,
            config,
            clock=clock,
            on_failed=self.fail,
        )
        self.io = FileIo(
            metadata,
            self.buffer,
            self.flusher,
            self.committer,
            self.space,
            self._reader,
            config,
            clock=clock,
            now_ns=self.now_ns,
            folder_of=lambda ino: self._names.get(ino, (0, b""))[0],
        )

    def _uncounted_bytes(self) -> int:
        """What the coordinator's count of the volume lacks."""
        return self.buffer.charged_bytes + self.write_log.copied_bytes

    async def start(self) -> None:
        """Before the first request: reserves space and takes inode numbers."""
        if not self.read_only:
            await asyncio.gather(self.space.ask(), self.inode_numbers.fill())

    # ------------------------------------------------------------ finding

    async def lookup(self, parent: int, name: bytes) -> Entry:
        """The inode that a name has. ENOENT."""
        entry = (await self._look(engine.lookup, parent, name)).value
        self._remember(entry.ino, parent, name)
        return Entry(entry.ino, self._shown(entry.ino, entry.inode))

    async def getattr(self, ino: int) -> Inode:
        """The attributes as a user sees them. ENOENT; ESTALE for an open one that a roll-back took away."""
        try:
            return self._shown(ino, (await self._look(engine.getattr, ino)).value)
        except FsError as error:
            raise FsError(ESTALE) if error.errno == ENOENT and ino in self._stale.values() else error from None

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        if self._keeps_access_times:
            await self._accessed(ino, (await self._look(engine.getattr, ino)).value)
        return (await self._look(engine.readlink, ino)).value

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """An attribute's value. ENODATA; for security.capability, which is asked for before every write, at once."""
        return (await self._look(engine.getxattr, ino, name)).value

    async def listxattr(self, ino: int) -> list[bytes]:
        """The names of all attributes."""
        return (await self._look(engine.listxattr, ino)).value

    def lacks_capability(self, ino: int) -> bool:
        """Whether it is known without a fetch that security.capability is not set."""
        inode = cast("Inode | None", self.metadata.peek(inode_key(ino)))
        return inode is not None and not inode.flags & INODE_HAS_CAPABILITY

    async def statfs(self) -> Space:
        """The space of the volume, at most `statfs_s` old."""
        now_s = self._clock()
        if self._statfs is None or now_s - self._statfs[0] > self.config.statfs_s:
            reply = await self.session.call(stat_volume=pb.StatVolume(volume_id=self.volume_id))
            self._statfs = (now_s, Space(reply.total_bytes, reply.free_bytes))
        return self._statfs[1]

    # ------------------------------------------------------------ making, removing, moving

    async def create(self, ctx: Context, parent: int, name: bytes, mode: int, flags: int = 0) -> tuple[int, Entry]:
        """Makes a file and opens it: (handle, entry)."""
        entry = await self._make(engine.create, ctx, parent, name, mode)
        return self._open_file(entry.ino, flags), entry

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

    async def unlink(self, ctx: Context, parent: int, name: bytes) -> None:
        self._removed(await self._change(engine.unlink, ctx, parent, name, self._open))

    async def rmdir(self, ctx: Context, parent: int, name: bytes) -> None:
        self._removed(await self._change(engine.rmdir, ctx, parent, name, self._open))

    async def rename(
        self, ctx: Context, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Moves a name. Where it replaces another, the moved file's data is recorded first."""
        self._writable()
        source = await self._dirty_replacement(old_parent, old_name, new_parent, new_name)
        if source is not None:
            await self.flusher.flush(source)
        renamed = await self._change(engine.rename, ctx, old_parent, old_name, new_parent, new_name, flags, self._open)
        self._remember(renamed.ino, new_parent, new_name)
        if renamed.replaced is not None:
            self._removed(renamed.replaced)

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
        self._writable()
        ino = self.inode_numbers.take_now()
        if ino is None:
            ino = await self.inode_numbers.take()
        entry = await self._change(operation, ctx, *args, ino)
        self.metadata.inode_is_new(ino)
        self._remember(ino, args[0], args[1])
        return entry

    def _removed(self, removed: engine.Removed) -> None:
        if removed.inode is None:
            self.buffer.drop(removed.ino)
            self._names.pop(removed.ino, None)
        elif not removed.inode.nlink:
            self._unlinked.add(removed.ino)

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
    ) -> int:
        """Makes an inode that is like another one, at once with attributes and slots (see `make_copy`); its number.

        The blocks that the slots name must stay stored until `committer.barrier` has returned.
        """
        with self._taking_over(slots):
            entry = await self._make(engine.make_copy, ctx, parent, name, like, xattrs, slots, size)
        if S_ISDIR(like.mode):
            self.metadata.folder_is_new(entry.ino)
        return entry.ino

    async def copy_in_more(self, ino: int, slots: Mapping[int, Slot], size: int) -> None:
        """Adds slots to a file made by `copy_in`, and the size that they reach to. ENOENT where it was removed."""
        with self._taking_over(slots):
            if await self._change(engine.record_data, ino, slots, size, None, None) is None:
                raise FsError(ENOENT, "a file was removed while it was copied")

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

    async def setattr(
        self,
        ctx: Context,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
    ) -> Inode:
        """Changes attributes; with `size` cuts or extends the file, in order with its dirty data."""
        self._writable()
        change: dict[str, Any] = {
            "mode": mode, "uid": uid, "gid": gid, "size": size,
            "atime_ns": atime_ns, "mtime_ns": mtime_ns, "ctime_ns": ctime_ns,
        }  # fmt: skip
        if size is not None:
            return await self._truncate(ctx, ino, size, change)
        inode = await self._change(engine.setattr, ctx, ino, **change)
        if mtime_ns is not None:
            self._times_set(ino)
        return self._shown(ino, inode)

    async def _truncate(self, ctx: Context, ino: int, size: int, change: dict[str, Any]) -> Inode:
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

    async def setxattr(self, ctx: Context, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
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

    # ------------------------------------------------------------ files

    async def open(self, ctx: Context, ino: int, flags: int) -> int:
        """Opens a file; O_TRUNC cuts it. The handle."""
        inode = (await self._look(engine.getattr, ino)).value
        if S_ISDIR(inode.mode):
            raise FsError(EISDIR)
        if flags & O_ACCMODE != O_RDONLY or flags & O_TRUNC:
            self._writable()
        if self._keeps_access_times and flags & O_ACCMODE != O_WRONLY and not flags & O_NOATIME:
            await self._accessed(ino, inode)
        if flags & O_TRUNC and S_ISREG(inode.mode):
            change: dict[str, Any] = {"size": 0, "kill_priv": ctx.uid != 0 and bool(inode.mode & (S_ISUID | S_ISGID))}
            await self._truncate(ctx, ino, 0, change)
        return self._open_file(ino, flags)

    async def _accessed(self, ino: int, inode: Inode) -> None:
        """Sets the access time by the rule of relatime."""
        now_ns = self.now_ns()
        shown = self._shown(ino, inode)
        if max(shown.mtime_ns, shown.ctime_ns, now_ns - ACCESS_DAY_NS) >= shown.atime_ns:
            await self._change(engine.setattr, Context(0, 0, now_ns), ino, atime_ns=now_ns, ctime_ns=inode.ctime_ns)

    def _open_file(self, ino: int, flags: int) -> int:
        number = self._next_handle
        self._next_handle += 1
        self._files[number] = Handle(ino, bool(flags & O_APPEND))
        self._open[ino] = self._open.get(ino, 0) + 1
        return number

    async def read(self, handle: int, offset: int, size: int) -> Buffer:
        """Bytes of the file; fewer at its end. Use them before the next await."""
        return await self.io.read(self._file(handle), offset, size)

    async def write(self, handle: int, offset: int, data: Buffer) -> int:
        """Takes bytes, which must not change afterwards. Their number."""
        self._writable()
        return await self.io.write(self._file(handle), offset, data)

    def flush(self, handle: int) -> None:
        """At each close: raises why data of the file could not be stored, if so. It is kept and tried again."""
        if handle in self._stale:
            return  # all that was written is in the snapshot that was kept
        file = self.buffer.files.get(self._file(handle).ino)
        if self.failure is not None and not self.read_only:
            raise self.failure
        if file is not None and file.error is not None:
            raise file.error

    async def fsync(self, handle: int) -> None:
        """Returns when the file's data and every namespace operation so far are durable."""
        await self.fsync_inode(self._file(handle).ino)

    async def fsync_inode(self, ino: int) -> None:
        """`fsync` by inode; for a folder: the namespace operations."""
        if self.read_only:
            return
        if self.failure is not None:
            raise self.failure
        await self.flusher.flush(ino)
        await self.committer.barrier()

    async def release(self, ctx: Context, handle: int) -> None:
        """The last close of a handle."""
        file = self._files.pop(handle, None)
        if file is not None:
            await self._closed(ctx, file.ino)
        else:
            self._stale.pop(handle, None)

    async def _closed(self, ctx: Context, ino: int) -> None:
        left = self._open[ino] - 1
        if left:
            self._open[ino] = left
            return
        del self._open[ino]
        if self.read_only:
            return
        if ino in self._unlinked:
            self._unlinked.discard(ino)
            self.buffer.drop(ino)
            self._names.pop(ino, None)
            await self._change(engine.release, ctx, ino)
        elif self.buffer.closed(ino):
            self.flusher.kick()

    def _file(self, handle: int) -> Handle:
        file = self._files.get(handle)
        if file is None:
            raise self._not_open(handle)
        return file

    @property
    def has_open(self) -> bool:
        """Whether somebody has a file or folder open."""
        return bool(self._open or self._stale)

    def is_top(self, handle: int) -> bool:
        """Whether an open folder is the top of the volume."""
        return self._folders.get(handle) == ROOT_INO

    def _not_open(self, handle: int) -> FsError:
        return FsError(ESTALE if handle in self._stale else EBADF)

    # ------------------------------------------------------------ folders

    async def opendir(self, ino: int) -> int:
        """Opens a folder. The handle."""
        inode = (await self._look(engine.getattr, ino)).value
        if self._keeps_access_times:
            await self._accessed(ino, inode)
        number = self._next_handle
        self._next_handle += 1
        self._folders[number] = ino
        self._open[ino] = self._open.get(ino, 0) + 1
        return number

    async def readdir(self, handle: int, after_cookie: int, limit: int) -> list[tuple[Listed, Inode]]:
        """Entries behind a cookie with their attributes as shown; an empty list is the end.

        Entries that change while a folder is listed appear as they are now; all others exactly once.
        """
        ino = self._folders.get(handle)
        if ino is None:
            raise self._not_open(handle)
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
                listed = sound
                break
            after_cookie = listed[-1].cookie
        for entry in listed:
            if entry.cookie > 2:
                self._remember(entry.ino, ino, entry.name)
        return [(entry, self._shown(entry.ino, entry.inode)) for entry in listed if entry.inode is not None]

    async def releasedir(self, ctx: Context, handle: int) -> None:
        """Closes a folder."""
        ino = self._folders.pop(handle, None)
        if ino is not None:
            await self._closed(ctx, ino)
        else:
            self._stale.pop(handle, None)

    async def fsyncdir(self, handle: int) -> None:
        """Returns when every namespace operation so far is durable."""
        if not self.read_only:
            if self.failure is not None:
                raise self.failure
            await self.committer.barrier()

    # ------------------------------------------------------------ the whole volume

    async def sync(self) -> None:
        """Returns when everything written so far is durable."""
        if self.read_only:
            return
        if self.failure is not None:
            raise self.failure
        await self.flusher.flush_all()
        await self.committer.barrier()

    async def on_flush(self, volume_id: int) -> None:
        """The coordinator's order before a snapshot."""
        if volume_id == self.volume_id:
            await self.sync()

    def tick(self) -> None:
        """To be called a few times a second: writes back what is old, commits what waits."""
        if self.read_only:
            if not self.is_snapshot and self._clock() - self._fetched_at_s >= self.config.volatile_s:
                self._fetched_at_s = self._clock()
                self.metadata.forget_clean()
            return
        if self.failure is None:
            self.flusher.tick()
            self.committer.tick()

    def fail(self, error: RedfsError) -> None:
        """The mount has come to its end: nothing can be stored any more. Says in the log what is lost."""
        if self.failure is not None:
            return
        self.failure = error
        self.gate.open()  # whoever waits for a roll-back gets the error
        if self.read_only:
            return
        log.error("%s", error)
        self._tell_lost()
        self.committer.fail(error)
        self.flusher.fail(error)

    def _tell_lost(self) -> None:
        """Says in the log what was told to be written and is not committed."""
        lost = [self.path_of(ino) for ino in self.buffer.dirty_inodes()]
        for path in lost[:LISTED_LOST_FILES]:
            log.error("unsaved changes are lost: %s", path)
        if len(lost) > LISTED_LOST_FILES:
            log.error("unsaved changes are lost in %d more files", len(lost) - LISTED_LOST_FILES)
        if self.write_log.pending_rows:
            log.error("%d changed records were not committed", self.write_log.pending_rows)

    def on_gone(self, volume_id: int) -> None:
        """The coordinator says that a volume was deleted."""
        if volume_id == self.volume_id:
            self.fail(LeaseLapsed(f"'{self.volume_name}' was deleted while it was mounted: unmount it"))

    def on_lapsed(self) -> None:
        """The coordinator ended the session."""
        self.fail(
            LeaseLapsed(
                f"the coordinator ended this mount of '{self.volume_name}', because it was silent for too long: "
                "unmount and mount again"
            )
        )

    async def close(self) -> None:
        """Makes everything durable, trying for `give_up_s`. Raises what stood in the way; then data is lost."""
        deadline_s = self._clock() + self.config.give_up_s
        pause_s = self.config.retry_first_s
        try:
            while True:
                try:
                    await self.sync()
                    break
                except TRANSIENT as error:
                    if self._clock() >= deadline_s:
                        self.fail(error)
                        raise
                    log.warning("not everything is safe yet: %s; trying again", error)
                    await self._sleep(pause_s)
                    pause_s = min(2 * pause_s, self.config.retry_max_s)
        finally:
            await self.space.stop()
            await self.inode_numbers.stop()
            await self.flusher.stop()
            await self.committer.stop()

    def path_of(self, ino: int) -> str:
        """Where the inode was last seen, from the top of the volume; its number where that is not known."""
        parts: list[str] = []
        at = ino
        while at != ROOT_INO:
            if at not in self._names or len(parts) > 256:
                return f"<inode {ino}>"
            at, name = self._names[at]
            parts.append(name.decode("utf-8", "backslashreplace"))
        return "/" + "/".join(reversed(parts))

    # ------------------------------------------------------------ rolled back

    @property
    def is_clean(self) -> bool:
        """Whether all that programs were told is written is committed."""
        return not self.buffer.files and self.write_log.newest() is None

    async def rebase(self, lineage: int, root: bytes) -> list[int]:
        """Goes on as another lineage, with the gate closed; the inodes that are open there.

        What is known of the old one is forgotten. What is not committed is lost and named in the log; whoever waits for
        it gets RolledBack: that cannot be where the mount was held before the volume was rolled back. Handles of inodes
        that are not there any more are stale. Raises what the session does, then everything is as before: do it again.
        """
        if not self.is_clean:
            log.error("'%s' was rolled back while this mount had changes that were not committed", self.volume_name)
            self._tell_lost()
            error = RolledBack(f"'{self.volume_name}' was rolled back while this was written")
            self.committer.abandon(error)
            self.flusher.fail(error)
            await self.flusher.stop()
        await self.gate.empty()
        await self.committer.ended()
        metadata = Metadata(self.session, self.volume_id, decode_root(root), self.config)
        there = await self._open_inodes_in(metadata)
        if not self.read_only:
            await self.space.ask()  # what a quota leaves is another amount now
        ends = {ino: self._moved_end(ino, inode) for ino, inode in there.items() if S_ISREG(inode.mode)}
        places = self._folder_places()
        self.lineage = lineage
        self._begin(metadata, max(self.committer.acknowledged, self.session.last_commit))
        self._leave_behind(there)
        for handle in self._files.values():
            handle.moved_end = ends.get(handle.ino)
            handle.ahead = handle.window = 0
        self._places.clear()
        self._places.update(places)
        self._names.clear()
        self._statfs = None
        return list(there)

    def _folder_places(self) -> dict[int, tuple[int, bytes, int]]:
        """Where the kernel may know folders: inode -> (folder above, name, the name's hash)."""
        places = {}
        for ino, (parent, name) in self._names.items():
            inode = cast("Inode | None", self.metadata.peek(inode_key(ino)))
            if inode is not None and S_ISDIR(inode.mode):
                places[ino] = (parent, name, inode.name_hash)
        return places

    async def moved_folders(self) -> list[tuple[int, bytes]]:
        """After a roll-back: names (folder above, name) that folders had before it, which have another place now."""
        moved = []
        while self._places:
            part = [self._places.popitem() for _ in range(min(len(self._places), OPEN_PER_FETCH))]
            await self.metadata.fetch(Miss(keys=[inode_key(ino) for ino, _ in part]))
            for ino, (parent, name, name_hash) in part:
                inode = cast("Inode | None", self.metadata.peek(inode_key(ino)))
                if inode is not None and (inode.parent, inode.name_hash) != (parent, name_hash):
                    moved.append((parent, name))
        return moved

    async def _open_inodes_in(self, metadata: Metadata) -> dict[int, Inode]:
        """The inodes with open handles that exist in these records."""
        there: dict[int, Inode] = {}
        inodes = list(self._open)
        for start in range(0, len(inodes), OPEN_PER_FETCH):
            part = inodes[start : start + OPEN_PER_FETCH]
            await metadata.fetch(Miss(keys=[inode_key(ino) for ino in part]))
            for ino in part:
                inode = cast("Inode | None", metadata.peek(inode_key(ino)))
                if inode is not None:
                    there[ino] = inode
        return there

    def _moved_end(self, ino: int, inode: Inode) -> MovedEnd | None:
        """Where the kernel still thinks that the file ends, unless that is where it does end now."""
        known = cast("Inode | None", self.metadata.peek(inode_key(ino)))
        if known is None or any(handle.ino == ino and handle.moved_end for handle in self._files.values()):
            return MovedEnd(None)
        end = self._shown(ino, known).size
        return None if end == inode.size else MovedEnd(end)

    def _leave_behind(self, there: dict[int, Inode]) -> None:
        """Makes the handles of inodes that are not there stale, and says which ones have no name there."""
        self._unlinked = {ino for ino, inode in there.items() if not inode.nlink}
        for number, handle in list(self._files.items()):
            if handle.ino not in there:
                self._stale[number] = self._files.pop(number).ino
        for number, ino in list(self._folders.items()):
            if ino not in there:
                self._stale[number] = self._folders.pop(number)
        for ino in [ino for ino in self._open if ino not in there]:
            del self._open[ino]

    def _nobody_follows(self) -> None:
        self.fail(RolledBack(f"'{self.volume_name}' was rolled back meanwhile: mount it again, or begin again"))

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
        self._writable()
        if not self.committer.has_room:
            await self.committer.room()
        outcome = await self._look(operation, *args, **kwargs)
        if outcome.writes:
            self.write_log.append(outcome.writes)
            self.committer.appended()
        return outcome.value

    def _writable(self) -> None:
        if self.read_only:
            raise FsError(EROFS)
        if self.failure is not None:
            raise self.failure

    def _remember(self, ino: int, parent: int, name: bytes) -> None:
        names = self._names
        if ino not in names and len(names) >= self.config.remembered_names:
            del names[next(iter(names))]
        names[ino] = (parent, name)

    async def _store_again(self, plain: Sequence[Buffer]) -> Stored:
        return await self._store.store(plain, dedupe=False)
