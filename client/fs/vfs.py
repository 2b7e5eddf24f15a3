"""A mounted volume without FUSE: open files and folders, what programs see of them, barriers, and the end of the mount.

Names, attributes and data are an engine's (`engine.py`): here over a cache, or at the coordinator where several mounts
share the volume. Handles, and how often each inode is open, are kept here, so that they outlive an engine. The volume
goes on with another engine when it was rolled back to another lineage, and when it begins or ends to be shared
(`go_on`); when that happens is `following.py`'s and `sharing.py`'s.

Fails with FsError for what POSIX defines, with the errors of the data path and the session for the rest (mapped to
errno by the adapter). After a commit failed for good, or the volume was deleted, everything raises `failure`.

A mount whose session ended is *cut off*: requests wait at the gate until it has its volume again (`reattaching.py`),
then it goes on. What was not committed is lost: handles of files with such data give EIO until they are closed, and
fsync gives EIO to those that were open and had any change that was not committed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from errno import EBADF, EIO, EISDIR, ENOENT, EROFS, ESTALE
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple, cast

from redfs.client.fs.committer import TRANSIENT
from redfs.client.fs.config import Buffer, FsConfig, Reader, Session, Store
from redfs.client.fs.engine import O_ACCMODE, O_APPEND, O_NOATIME, O_RDONLY, O_TRUNC, O_WRONLY, Engine
from redfs.client.fs.gate import Gate
from redfs.client.fs.handles import Handle, MovedEnd
from redfs.client.fs.local_engine import LocalEngine, Place
from redfs.client.fs.metadata import Metadata
from redfs.client.fs.names import Place as NamedPlace
from redfs.client.fs.names import RememberedNames
from redfs.client.fs.remote_engine import ChangeNumbers, RemoteEngine
from redfs.core.errors import FsError, InternalError, LeaseLapsed, RedfsError, RolledBack
from redfs.core.ids import ROOT_INO
from redfs.core.namespace import RENAME_EXCHANGE, Context, Entry, Listed, Miss, Removed
from redfs.core.records import Inode, Slot, Xattr, decode_root, inode_key, name_hash
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")

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
        self.read_only = attached.read_only or not (attached.exclusive or attached.shared)
        self._keeps_access_times = config.relatime and not self.read_only
        self.failure: RedfsError | None = None
        self.session = session
        self._clock = clock
        self.now_ns = now_ns
        self._sleep = sleep
        self._store = store
        self._reader = reader
        self.gate = Gate()
        """Every request passes it."""
        self.on_mode: Callable[[], None] = lambda: None
        """Called when the volume begins or ends to be shared."""
        self.on_rolled_back: Callable[[], None] = self._nobody_follows
        """Called when the coordinator refuses a change because the volume was rolled back."""
        self._files: dict[int, Handle] = {}
        self._folders: dict[int, int] = {}
        self._next_handle = 1
        self._open: dict[int, int] = {}
        """Inode -> open handles."""
        self._stale: dict[int, int] = {}
        """Handle -> inode, of those whose inode the volume does not have any more after it went on as another state."""
        self._lost: dict[int, bool] = {}
        """Handles of inodes with changes that were lost when the mount was cut off; true: with data."""
        self.is_cut_off = False
        """The session ended, and another one is to follow; `failure` is set meanwhile."""
        self._times_cut_off = 0
        self.lost_something = False
        """What was not committed when the mount was cut off is lost."""
        self.outlives_sessions = False
        """The end of the session cuts the mount off instead of ending it."""
        self.names = RememberedNames(config.remembered_names)
        self._places: dict[int, NamedPlace] = {}
        """Of folders before a roll-back, until `moved_folders` has compared them; no more than names are remembered."""
        self._statfs: tuple[float, Space] | None = None
        self._numbers = ChangeNumbers()
        self._last_commit = session.last_commit
        self._begin(attached)

    def _begin(self, attached: pb.AttachReply, unlinked: set[int] | None = None) -> None:
        """The engine for how the volume is attached, new."""
        self.lineage: int = attached.lineage
        self._root = decode_root(attached.root)
        place = Place(
            self.session,
            self.volume_id,
            attached.lineage,
            self._store,
            self._reader,
            self.config,
            self._clock,
            self.now_ns,
            self._sleep,
            self.fail,
            lambda: self.on_rolled_back(),
        )
        self.engine: Engine
        if attached.shared:
            self.engine = RemoteEngine(place, self._numbers, read_only=self.read_only)
            return
        self.engine = LocalEngine(
            place,
            Metadata(self.session, self.volume_id, self._root, self.config),
            after=self._last_commit,
            read_only=self.read_only,
            follows=not attached.exclusive and not self.is_snapshot,
            opened=self._open,
            unlinked=unlinked or set(),
            folder_of=self.names.folder_of,
        )

    @property
    def local(self) -> LocalEngine:
        """The engine of a volume that is not shared."""
        if not isinstance(self.engine, LocalEngine):
            raise InternalError(f"'{self.volume_name}' is shared: nothing of it is kept here")
        return self.engine

    @property
    def is_shared(self) -> bool:
        """Whether other mounts change the volume at the same time, so that nothing may be remembered."""
        return self.engine.is_shared

    async def start(self) -> None:
        """Before the first request."""
        await self.engine.start()

    # ------------------------------------------------------------ finding

    async def lookup(self, parent: int, name: bytes, moved: Callable[[int], None] | None = None) -> Entry:
        """The inode that a name has. ENOENT. `moved` is called for a folder that was found elsewhere before."""
        entry = await self.engine.lookup(parent, name)
        before = self.names.places.get(entry.ino)
        elsewhere = before is not None and (before.parent, before.name) != (parent, name)
        self.names.saw(entry.ino, parent, name, entry.inode.mode)
        if elsewhere and moved is not None and self.is_shared and S_ISDIR(entry.inode.mode):
            moved(entry.ino)
        return entry

    async def getattr(self, ino: int) -> Inode:
        """The attributes as a user sees them. ENOENT; ESTALE for an open one that the volume has no more."""
        try:
            return await self.engine.getattr(ino)
        except FsError as error:
            raise self._missing(ino) if error.errno == ENOENT and ino in self._stale.values() else error from None

    def _missing(self, ino: int) -> FsError:
        """What the attributes of an open inode give that the volume has no more."""
        handles = [number for number, stale in self._stale.items() if stale == ino]
        return FsError(EIO if any(self._lost.get(number) for number in handles) else ESTALE)

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        if self._keeps_access_times:
            await self._accessed(ino, await self.engine.getattr(ino))
        return await self.engine.readlink(ino)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """An attribute's value. ENODATA."""
        return await self.engine.getxattr(ino, name)

    async def listxattr(self, ino: int) -> list[bytes]:
        """The names of all attributes."""
        return await self.engine.listxattr(ino)

    def lacks_attribute(self, ino: int, name: bytes) -> bool:
        """Whether it is known without a round trip that an extended attribute is not set."""
        return self.engine.lacks_attribute(ino, name)

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
        self._writable()
        entry = await self.engine.create(ctx, parent, name, mode, flags)
        self.names.saw(entry.ino, parent, name, entry.inode.mode)
        return self._open_file(entry.ino, flags), entry

    async def mknod(self, ctx: Context, parent: int, name: bytes, mode: int, rdev: int) -> Entry:
        self._writable()
        return self._made(parent, name, await self.engine.mknod(ctx, parent, name, mode, rdev))

    async def mkdir(self, ctx: Context, parent: int, name: bytes, mode: int) -> Entry:
        self._writable()
        return self._made(parent, name, await self.engine.mkdir(ctx, parent, name, mode))

    async def symlink(self, ctx: Context, parent: int, name: bytes, target: bytes) -> Entry:
        self._writable()
        return self._made(parent, name, await self.engine.symlink(ctx, parent, name, target))

    def _made(self, parent: int, name: bytes, entry: Entry) -> Entry:
        self.names.saw(entry.ino, parent, name, entry.inode.mode)
        return entry

    async def link(self, ctx: Context, ino: int, new_parent: int, new_name: bytes) -> Entry:
        self._writable()
        return await self.engine.link(ctx, ino, new_parent, new_name)

    async def unlink(self, ctx: Context, parent: int, name: bytes) -> None:
        self._writable()
        self._removed(await self.engine.unlink(ctx, parent, name))

    async def rmdir(self, ctx: Context, parent: int, name: bytes) -> None:
        self._writable()
        self._removed(await self.engine.rmdir(ctx, parent, name))

    async def rename(
        self, ctx: Context, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Moves a name. Where it replaces another, the moved file's data is recorded first."""
        self._writable()
        renamed = await self.engine.rename(ctx, old_parent, old_name, new_parent, new_name, flags)
        self.names.saw(renamed.ino, new_parent, new_name, renamed.inode.mode)
        if renamed.replaced is not None:
            self._removed(renamed.replaced)
            if flags & RENAME_EXCHANGE and renamed.replaced.inode is not None:
                self.names.saw(renamed.replaced.ino, old_parent, old_name, renamed.replaced.inode.mode)

    def _removed(self, removed: Removed) -> None:
        if removed.inode is None:
            self.names.forget(removed.ino)

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

        The blocks that the slots name must stay stored until `engine.barrier` has returned.
        """
        self._writable()
        return self._made(parent, name, await self.engine.copy_in(ctx, parent, name, like, xattrs, slots, size)).ino

    async def copy_in_more(self, ino: int, slots: Mapping[int, Slot], size: int) -> None:
        """Adds slots to a file made by `copy_in`, and the size that they reach to. ENOENT where it was removed."""
        self._writable()
        await self.engine.copy_in_more(ino, slots, size)

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
        return await self.engine.setattr(ctx, ino, change)

    async def setxattr(self, ctx: Context, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        self._writable()
        await self.engine.setxattr(ctx, ino, name, value, flags)

    async def removexattr(self, ctx: Context, ino: int, name: bytes) -> None:
        self._writable()
        await self.engine.removexattr(ctx, ino, name)

    # ------------------------------------------------------------ files

    async def open(self, ctx: Context, ino: int, flags: int) -> int:
        """Opens a file; O_TRUNC cuts it. The handle."""
        if flags & O_ACCMODE != O_RDONLY or flags & O_TRUNC:
            self._writable()
        inode = await self._opened(ctx, ino, flags)
        try:
            if S_ISDIR(inode.mode):
                raise FsError(EISDIR)
            if self._keeps_access_times and flags & O_ACCMODE != O_WRONLY and not flags & (O_NOATIME | O_TRUNC):
                await self._accessed(ino, inode)
        except BaseException:
            await self._closed(ctx, ino)
            raise
        return self._new_file(ino, flags)

    async def _opened(self, ctx: Context, ino: int, flags: int) -> Inode:
        """Counts one more open handle of an inode."""
        again = ino in self._open
        self._open[ino] = self._open.get(ino, 0) + 1
        try:
            return await self.engine.opened(ctx, ino, flags, again=again)
        except BaseException:
            await self._closed(ctx, ino)
            raise

    async def _accessed(self, ino: int, shown: Inode) -> None:
        """Sets the access time by the rule of relatime."""
        now_ns = self.now_ns()
        if max(shown.mtime_ns, shown.ctime_ns, now_ns - ACCESS_DAY_NS) >= shown.atime_ns:
            change = {"atime_ns": now_ns, "ctime_ns": shown.ctime_ns}
            await self.engine.setattr(Context(0, 0, now_ns), ino, change)

    def _open_file(self, ino: int, flags: int) -> int:
        """A handle of a file that was just made."""
        self._open[ino] = self._open.get(ino, 0) + 1
        return self._new_file(ino, flags)

    def _new_file(self, ino: int, flags: int) -> int:
        number = self._next_handle
        self._next_handle += 1
        self._files[number] = Handle(ino, bool(flags & O_APPEND))
        return number

    async def read(self, handle: int, offset: int, size: int) -> Buffer:
        """Bytes of the file; fewer at its end. Use them before the next await."""
        return await self.engine.read(self._file(handle), offset, size)

    async def write(self, handle: int, offset: int, data: Buffer) -> int:
        """Takes bytes, which must not change afterwards. Their number."""
        self._writable()
        return await self.engine.write(self._file(handle), offset, data)

    def flush(self, handle: int) -> None:
        """At each close: raises why data of the file could not be stored, if so. It is kept and tried again."""
        if self._lost.get(handle):
            raise FsError(EIO)
        if handle in self._stale:
            return  # all that was written is in the snapshot that was kept
        file = self._file(handle)
        if self.failure is not None and not self.read_only:
            raise self.failure
        error = self.engine.error_of(file.ino)
        if error is not None:
            raise error

    async def fsync(self, handle: int) -> None:
        """Returns when the file's data and every namespace operation so far are durable."""
        if handle in self._lost:
            raise FsError(EIO)
        await self.fsync_inode(self._file(handle).ino)

    async def fsync_inode(self, ino: int) -> None:
        """`fsync` by inode; for a folder: the namespace operations."""
        if not self.read_only:
            self._alive()
            await self.engine.fsync(ino)

    async def release(self, ctx: Context, handle: int) -> None:
        """The last close of a handle."""
        file = self._files.pop(handle, None)
        self._lost.pop(handle, None)
        if file is not None:
            await self._closed(ctx, file.ino)
        else:
            self._stale.pop(handle, None)

    async def _closed(self, ctx: Context, ino: int) -> None:
        left = self._open[ino] - 1
        if left:
            self._open[ino] = left
        else:
            del self._open[ino]
            await self.engine.closed(ctx, ino)

    def _file(self, handle: int) -> Handle:
        if self._lost and self._lost.get(handle):
            raise FsError(EIO)
        file = self._files.get(handle)
        if file is None:
            raise self._not_open(handle)
        return file

    @property
    def has_open(self) -> bool:
        """Whether somebody has a file or folder open."""
        return bool(self._open or self._stale)

    @property
    def open_inodes(self) -> list[int]:
        """Inodes with open handles."""
        return list(self._open)

    def inode_of(self, handle: int) -> int:
        """Of an open file; 0 where it is not open any more."""
        file = self._files.get(handle)
        return 0 if file is None else file.ino

    def is_top(self, handle: int) -> bool:
        """Whether an open folder is the top of the volume."""
        return self._folders.get(handle) == ROOT_INO

    def _not_open(self, handle: int) -> FsError:
        return FsError(ESTALE if handle in self._stale else EBADF)

    # ------------------------------------------------------------ folders

    async def opendir(self, ino: int) -> int:
        """Opens a folder. The handle."""
        ctx = Context(0, 0, self.now_ns())
        inode = await self._opened(ctx, ino, O_RDONLY)
        if self._keeps_access_times:
            try:
                await self._accessed(ino, inode)
            except BaseException:
                await self._closed(ctx, ino)
                raise
        number = self._next_handle
        self._next_handle += 1
        self._folders[number] = ino
        return number

    async def readdir(self, handle: int, after_cookie: int, limit: int) -> list[tuple[Listed, Inode]]:
        """Entries behind a cookie with their attributes as shown; an empty list is the end.

        Entries that change while a folder is listed appear as they are now; all others exactly once.
        """
        ino = self._folders.get(handle)
        if ino is None:
            raise self._not_open(handle)
        listed = await self.engine.readdir(ino, after_cookie, limit)
        for entry, inode in listed:
            # Of a folder that is known elsewhere the kernel may still think so: it is told when it looks (`lookup`).
            if entry.cookie > 2 and not (self.is_shared and S_ISDIR(inode.mode) and entry.ino in self.names.places):
                self.names.saw(entry.ino, ino, entry.name, inode.mode)
        return listed

    async def releasedir(self, ctx: Context, handle: int) -> None:
        """Closes a folder."""
        ino = self._folders.pop(handle, None)
        self._lost.pop(handle, None)
        if ino is not None:
            await self._closed(ctx, ino)
        else:
            self._stale.pop(handle, None)

    async def fsyncdir(self, handle: int) -> None:
        """Returns when every namespace operation so far is durable."""
        if handle in self._lost:
            raise FsError(EIO)
        if not self.read_only:
            self._alive()
            await self.engine.barrier()

    # ------------------------------------------------------------ the whole volume

    async def sync(self) -> None:
        """Returns when everything written so far is durable."""
        if not self.read_only:
            self._alive()
            await self.engine.sync()

    async def on_flush(self, volume_id: int) -> None:
        """The coordinator's order before a snapshot."""
        if volume_id == self.volume_id:
            await self.sync()

    async def on_return_held(self, volume_id: int, inodes: Sequence[int]) -> None:
        """The coordinator's order when another host asks about what this one holds."""
        if volume_id == self.volume_id and isinstance(self.engine, RemoteEngine):
            await self.engine.returned(inodes)

    def on_drop_remembered(self, volume_id: int, inodes: Sequence[int]) -> None:
        """The coordinator's order when another host is about to change these."""
        if volume_id == self.volume_id and isinstance(self.engine, RemoteEngine):
            self.engine.remembered.drop(inodes)

    def forget_remembered(self) -> None:
        """The coordinator may not know any more what was remembered in shared mode."""
        if isinstance(self.engine, RemoteEngine):
            self.engine.remembered.clear()

    @property
    def held_inodes(self) -> list[int]:
        """Inodes that are held in shared mode."""
        return list(self.engine.held.files) if isinstance(self.engine, RemoteEngine) else []

    def tick(self) -> None:
        """To be called a few times a second: writes back what is old, commits what waits."""
        self.engine.tick()

    def fail(self, error: RedfsError) -> None:
        """The mount has come to its end: nothing can be stored any more. Says in the log what is lost."""
        if isinstance(error, LeaseLapsed) and self.outlives_sessions:
            self.cut_off(error)
        else:
            self._end(error)

    def _end(self, error: RedfsError) -> None:
        if self.failure is not None and not self.is_cut_off:
            return
        told, self.is_cut_off = self.is_cut_off, False
        self.failure = error
        self.gate.open(by_force=True)  # whoever waits for a roll-back gets the error
        if not self.read_only:
            log.error("%s", error)
            if not told:
                self._tell_lost()
        self.engine.fail(error)

    def cut_off(self, error: RedfsError) -> None:
        """The session has ended: nothing begins any more, and what is under way fails.

        Says in the log what is lost, and remembers which handles have to be told. It ends with `go_on` under another
        session.
        """
        self._times_cut_off += 1
        if self.failure is not None:
            return
        self.failure, self.is_cut_off = error, True
        self.gate.shut()
        log.error("%s", error)
        self._tell_lost()
        data, anything = self.engine.unsure()
        self.lost_something = self.lost_something or bool(anything)
        numbers = {number: handle.ino for number, handle in self._files.items()} | self._folders
        for number, ino in numbers.items():
            if ino in anything:
                self._lost[number] = self._lost.get(number, False) or ino in data
        self.engine.fail(error)

    def gone(self) -> None:
        """The volume was deleted: the mount ends for good."""
        self._end(LeaseLapsed(f"'{self.volume_name}' was deleted while it was mounted: unmount it"))

    def _tell_lost(self) -> None:
        """Says in the log what was told to be written and is not committed."""
        lost = [self.names.path_of(ino) for ino in sorted(self.engine.unsure()[0])]
        for path in lost[:LISTED_LOST_FILES]:
            log.error("unsaved changes are lost: %s", path)
        if len(lost) > LISTED_LOST_FILES:
            log.error("unsaved changes are lost in %d more files", len(lost) - LISTED_LOST_FILES)
        if rows := self.engine.uncommitted:
            log.error("%d changed records were not committed", rows)

    def on_gone(self, volume_id: int) -> None:
        """The coordinator says that a volume was deleted."""
        if volume_id == self.volume_id:
            self.gone()

    def on_lapsed(self) -> None:
        """The coordinator ended the session."""
        told = f"the coordinator ended this mount of '{self.volume_name}', because it was silent for too long"
        self.fail(LeaseLapsed(told if self.outlives_sessions else f"{told}: unmount and mount again"))

    async def close(self) -> None:
        """Makes everything durable, trying for `give_up_s`. Raises what stood in the way; then data is lost."""
        deadline_s = self._clock() + self.config.give_up_s
        pause_s = self.config.retry_first_s
        try:
            while True:
                try:
                    await self.sync()
                    break
                except LeaseLapsed:
                    if self.is_cut_off and not self.lost_something:
                        return  # nothing was left to be made durable
                    raise
                except TRANSIENT as error:
                    if self._clock() >= deadline_s:
                        self.fail(error)
                        raise
                    log.warning("not everything is safe yet: %s; trying again", error)
                    await self._sleep(pause_s)
                    pause_s = min(2 * pause_s, self.config.retry_max_s)
        finally:
            await self.engine.stop()

    def path_of(self, ino: int) -> str:
        """Where the inode was last seen, from the top of the volume; its number where that is not known."""
        return self.names.path_of(ino)

    # ------------------------------------------------------------ going on as another state, or in another mode

    @property
    def is_clean(self) -> bool:
        """Whether all that programs were told is written is committed."""
        return self.engine.is_clean

    async def rebase(self, lineage: int, root: bytes) -> list[int]:
        """Goes on as another lineage, in the same mode; see `go_on`."""
        attached = pb.AttachReply(
            lineage=lineage, root=root, shared=self.is_shared, exclusive=not (self.is_shared or self.follows)
        )
        return await self.go_on(attached)

    @property
    def follows(self) -> bool:
        """Whether this mount only reads what another one changes, and looks for it now and then."""
        return isinstance(self.engine, LocalEngine) and self.engine.follows

    async def go_on(self, attached: pb.AttachReply) -> list[int]:
        """Goes on with another engine, with the gate closed, as the volume stands now; the open inodes that it has.

        What is known is forgotten. What is not committed is lost and named in the log; whoever waits for it gets
        RolledBack: that cannot be where the mount was held before. Handles of inodes that are not there any more are
        stale. Raises what the session does, then everything is as before: do it again.

        Where the mount was cut off, all that was told then, and commits are numbered as the new session's.
        """
        cut_off, times = self.is_cut_off, self._times_cut_off
        if not self.is_clean and not cut_off:
            log.error("'%s' was rolled back while this mount had changes that were not committed", self.volume_name)
            self._tell_lost()
            await self.engine.abandon(RolledBack(f"'{self.volume_name}' was rolled back while this was written"))
        await self.gate.empty()
        old = self.engine
        await old.ended()
        there = await self._open_inodes_in(
            Metadata(self.session, self.volume_id, decode_root(attached.root), self.config)
        )
        ends = {ino: self._moved_end(ino, inode) for ino, inode in there.items() if S_ISREG(inode.mode)}
        places = {ino: place for ino, place in self.names.places.items() if place.is_folder}
        if cut_off:
            self._last_commit = self.session.last_commit
        elif isinstance(old, LocalEngine):
            self._last_commit = max(old.acknowledged, self.session.last_commit)
        unlinked = {ino for ino, inode in there.items() if not inode.nlink}
        before = self.lineage
        self._begin(attached, unlinked)
        try:
            await self.engine.start()  # what a quota leaves may be another amount now
        except BaseException:
            await self.engine.stop()
            self.engine, self.lineage = old, before
            raise
        await old.stop()
        self._leave_behind(there)
        for handle in self._files.values():
            handle.moved_end = ends.get(handle.ino)
            handle.ahead = handle.window = 0
        self._places = places
        self.names.keep_folders()
        self._statfs = None
        if cut_off and self.is_cut_off and times == self._times_cut_off:
            self.failure, self.is_cut_off = None, False
            self.lost_something = False
        self.on_mode()
        return list(there)

    async def moved_folders(self) -> list[tuple[int, bytes]]:
        """After the volume went on as another state: names (folder above, name) that folders had, which have another
        place now."""
        moved = []
        metadata = Metadata(self.session, self.volume_id, self._root, self.config)
        while self._places:
            part = [self._places.popitem() for _ in range(min(len(self._places), OPEN_PER_FETCH))]
            await metadata.fetch(Miss(keys=[inode_key(ino) for ino, _ in part]))
            for ino, (parent, name, _) in part:
                inode = cast("Inode | None", metadata.peek(inode_key(ino)))
                place = parent, name_hash(self._root.hash_seed, name)
                if inode is not None and (inode.parent, inode.name_hash) != place:
                    moved.append((parent, name))
                    self.names.forget(ino)
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
        known = self.engine.shown_if_known(ino) if isinstance(self.engine, LocalEngine) else None
        if known is None or any(handle.ino == ino and handle.moved_end for handle in self._files.values()):
            return MovedEnd(None)
        return None if known.size == inode.size else MovedEnd(known.size)

    def _leave_behind(self, there: dict[int, Inode]) -> None:
        """Makes the handles of inodes that are not there stale."""
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

    def _writable(self) -> None:
        if self.read_only:
            raise FsError(EROFS)
        if self.failure is not None:
            raise self.failure

    def _alive(self) -> None:
        if self.failure is not None:
            raise self.failure
