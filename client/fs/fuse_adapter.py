"""FUSE over the vfs: decode a request, call once, map errors. pyfuse3 on asyncio.

What the kernel does and what is answered for it: a getxattr of security.capability before every write, and of ACLs
where it checks permissions (for the top of the mount at every path that a user other than root walks, as it keeps no
answer for that one), are answered from a bit of the inode; entries and attributes may be kept by the kernel for a
second where this mount alone changes the volume, for an hour where nothing changes (a snapshot), and not at all where
others write to it too; pages stay cached across opens for the same reason. The kernel checks permissions
(`default_permissions`) and applies the umask. Its writeback cache is not used, and nothing is invalidated from here
(`kernel_cache.py` does that, after a roll-back).

A request passes the vfs's gate: it waits while that is closed for a roll-back, while the lease is old, or the
coordinator away, and fails with EIO after `give_up_s`. An error that nobody expected is logged with its trace and is
EIO: it never ends the mount.

Numbers of inodes and handles that are none of the volume's belong to its snapshots, and go to `snapshots_folder.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from stat import S_ISGID, S_ISUID, S_IXGRP
from time import perf_counter_ns
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import pyfuse3

from redfs.client.fs.attribute_answers import AttributeAnswers
from redfs.client.fs.config import Session
from redfs.client.fs.figures import MountFigures
from redfs.client.fs.kernel_cache import LOOK_S, TIMEOUT_S, KernelCache
from redfs.client.fs.snapshot_views import FIRST_NUMBER
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import (
    Busy,
    Corrupt,
    FsError,
    InvalidArgument,
    LeaseLapsed,
    NoSpace,
    NotAllowed,
    RedfsError,
    RolledBack,
    TooFewNodes,
    Unavailable,
)
from redfs.core.ids import ROOT_INO
from redfs.core.namespace import Context
from redfs.core.namespace.acls import ACCESS, DEFAULT
from redfs.core.namespace.xattrs import CAPABILITY
from redfs.core.records import Inode

log = logging.getLogger("redfs.fs")
P = ParamSpec("P")
T = TypeVar("T")

ERRNO: dict[type[RedfsError], int] = {
    NoSpace: errno.ENOSPC,
    TooFewNodes: errno.EIO,
    Unavailable: errno.EIO,
    LeaseLapsed: errno.EIO,
    RolledBack: errno.ESTALE,
    Corrupt: errno.EIO,
    InvalidArgument: errno.EINVAL,
    NotAllowed: errno.EPERM,
    Busy: errno.EBUSY,
}
"""Error class -> what the program gets; EIO for all others. FsError carries its own."""

EXCLUSIVE_TIMEOUT_S = TIMEOUT_S
"""A recall of the delegation, and a roll-back, wait this long for what the kernel remembers."""
FROZEN_TIMEOUT_S = 3600.0
"""A snapshot never changes; the kernel drops what it does not use by itself."""
READDIR_ENTRIES = 64
"""Entries looked up at once: about what one reply to the kernel holds, so that few are prepared in vain."""
STATFS_BLOCK_BYTES = 4096
MAX_MET_MOVED = 64
"""Programs of which it is remembered that they met a moved folder."""
SHOWN_INODES = 1 << 32
"""Inode numbers never run out; statfs must show some number."""
PREFERRED_IO_BYTES = 128 * 1024
_ASKED_OFTEN = frozenset((CAPABILITY, ACCESS, DEFAULT))
"""Attributes that the kernel asks for by itself."""
_TRUSTED = b"trusted."
"""Only root sees these; the kernel lets others neither read nor set them."""
_ATTRIBUTE_KINDS = (b"user.", _TRUSTED, b"security.")
"""Extended attributes that there are, besides POSIX ACLs."""
_OF_WHAT_WAS_FOUND = frozenset((
    "getattr", "setattr", "readlink", "open", "opendir", "getxattr", "setxattr", "listxattr", "removexattr", "link",
    "create", "mknod", "mkdir", "symlink",
))  # fmt: skip
"""Requests for which an inode that is gone was found under its name a moment before. Where other hosts write, another
may have taken its place: with ESTALE the kernel looks again; with ENOENT a name would be gone that is always there."""
_NAME_CHANGES = frozenset(("create", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename"))
"""Requests for which the kernel keeps folders locked until they are answered."""
_GROUP_PROGRAM = S_ISGID | S_IXGRP
DATA_REQUESTS = frozenset(("read", "write", "flush", "fsync", "release"))
"""What the kernel may wait for while it drops pages; none of them tells it that its pages are still good."""
SNAPSHOTS = b".snapshots"
"""The folder of snapshots at the top of a volume."""


class Snapshots(Protocol):
    """What is needed of `snapshots_folder.SnapshotsFolder`."""

    async def answer(self, request: str, number: int, arguments: Sequence[Any]) -> Any:
        """A request whose first number is none of the volume's."""
        ...

    def attributes(self) -> Any:
        """Of the folder of snapshots."""
        ...


def errno_of(error: RedfsError) -> int:
    """The errno that a program gets for an error."""
    if isinstance(error, FsError):
        return error.errno
    return ERRNO.get(type(error), errno.EIO)


def check_attribute(name: bytes) -> None:
    """Raises EOPNOTSUPP for an attribute of a kind that there is not, EINVAL for a kind without a name."""
    if not name.startswith(_ATTRIBUTE_KINDS) and name not in (ACCESS, DEFAULT):
        raise FsError(errno.EOPNOTSUPP)
    if name in _ATTRIBUTE_KINDS:
        raise FsError(errno.EINVAL)


def _request(
    method: Callable[Concatenate[FuseAdapter, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[FuseAdapter, P], Coroutine[Any, Any, T]]:
    """Waits for the lease and the gate, calls, maps errors, counts. The first argument numbers an inode or a handle."""

    data = method.__name__ in DATA_REQUESTS
    locks_folders = method.__name__ in _NAME_CHANGES

    async def call(self: FuseAdapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        began_ns = perf_counter_ns()
        gate = self.gate
        try:
            if args[0] >= FIRST_NUMBER:  # type: ignore[operator]  # an int, which ParamSpec cannot say
                return cast("T", await self.in_snapshots(method.__name__, args))
            while not ((gate.is_open or (data and gate.lets_data_pass)) and self.session.is_serving):
                await self.serving(data=data)
            gate.inside += 1
            try:
                if locks_folders and self.vfs.is_shared:
                    with self._locking_folders():
                        return await method(self, *args, **kwargs)
                return await method(self, *args, **kwargs)
            finally:
                gate.inside -= 1
                if not gate.is_open:
                    gate.left()
        except FsError as error:
            number = error.errno
            if number == errno.ENOENT and method.__name__ in _OF_WHAT_WAS_FOUND and self.vfs.is_shared:
                number = errno.ESTALE
            raise pyfuse3.FUSEError(number) from None
        except RedfsError as error:
            log.warning("%s failed: %s", method.__name__, error)
            raise pyfuse3.FUSEError(errno_of(error)) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            log.exception("%s met an error that nobody expected", method.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None
        finally:
            figures = self.figures
            figures.operations += 1
            figures.busy_ns += perf_counter_ns() - began_ns

    return call


class FuseAdapter(pyfuse3.Operations):
    """The requests of one mount. See the module."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = True

    def __init__(
        self,
        vfs: Vfs,
        session: Session,
        kernel: KernelCache | None = None,
        snapshots: Snapshots | None = None,
        maps_direct: Callable[[], bool] = lambda: False,
    ) -> None:
        """`maps_direct`: whether the kernel can map files whose pages it does not keep; asked once it has answered."""
        super().__init__()
        self.vfs = vfs
        self._maps_direct = maps_direct
        self.gate = vfs.gate
        self.kernel = kernel
        self.snapshots = snapshots
        self.session = session
        self.figures = MountFigures()
        self._direct: dict[int, tuple[int, bool]] = {}
        """Handles that do not go through the kernel's pages -> inode, and whether root opened it."""
        self.changed_mode()
        vfs.on_mode = self.changed_mode
        self._waiting = 0
        self._unmounted = asyncio.Event()
        self._met_moved: dict[int, int] = {}
        """Process -> the folder that it met, which another host had moved: its next look may be a second try."""
        self._answers = AttributeAnswers()
        self._folders_locked: set[asyncio.Future[None]] = set()
        """Done with the answers to the requests under way that change names, while others write to the volume too."""

    def changed_mode(self) -> None:
        """What the kernel may remember from now on. To be called when other mounts begin or end to share the volume."""
        vfs = self.vfs
        if vfs.is_shared:
            self._timeout_s, self._keep_cache = 0.0, False
        else:
            self._timeout_s = FROZEN_TIMEOUT_S if vfs.is_snapshot else EXCLUSIVE_TIMEOUT_S
            self._keep_cache = vfs.is_snapshot or not vfs.follows

    async def _served(self, *, data: bool) -> None:
        await self.session.serving()
        await self.gate.admitted(data=data)

    def unmounted(self) -> None:
        """Nobody waits for answers any more: requests that wait end, such as the last closes of files."""
        self._unmounted.set()

    async def serving(self, *, data: bool = False) -> None:
        """Waits for the lease and the gate, with a bound."""
        if not self._waiting:
            why = (
                "the coordinator has not renewed the lease"
                if self.gate.is_open
                else "the volume goes on as another state"
            )
            log.warning("requests wait: %s", why)
        self._waiting += 1
        try:
            async with asyncio.timeout(self.vfs.config.give_up_s):
                served = asyncio.ensure_future(self._served(data=data))
                unmounted = asyncio.ensure_future(self._unmounted.wait())
                try:
                    await asyncio.wait((served, unmounted), return_when=asyncio.FIRST_COMPLETED)
                    if not served.done():
                        raise Unavailable("the volume was unmounted while this waited")
                    served.result()
                finally:
                    served.cancel()
                    unmounted.cancel()
        except TimeoutError:
            raise Unavailable("the coordinator has been away for too long") from None
        finally:
            self._waiting -= 1

    async def in_snapshots(self, request: str, arguments: Sequence[Any]) -> Any:
        """A request for the folder of snapshots or what is in it."""
        if self.snapshots is None:
            raise FsError(errno.ESTALE)
        while self.gate.is_shut or not self.session.is_serving:
            await self.serving()
        answer = await self.snapshots.answer(request, arguments[0], arguments[1:])
        if request == "read":
            self.figures.read_bytes += len(answer)
        return answer

    def _keep_out(self, parent: int, name: bytes, error: int) -> None:
        """Raises FsError with `error` for the name of the folder of snapshots, where there is one."""
        if name == SNAPSHOTS and parent == ROOT_INO and self.snapshots is not None:
            raise FsError(error)

    def _attributes(self, ino: int, inode: Inode) -> Any:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = ino
        entry.entry_timeout = entry.attr_timeout = self._timeout_s
        entry.st_mode = inode.mode
        entry.st_nlink = inode.nlink
        entry.st_uid = inode.uid
        entry.st_gid = inode.gid
        entry.st_rdev = inode.rdev
        size = entry.st_size = inode.size
        entry.st_blksize = PREFERRED_IO_BYTES
        entry.st_blocks = (size + 511) // 512
        entry.st_atime_ns = inode.atime_ns
        entry.st_mtime_ns = inode.mtime_ns
        entry.st_ctime_ns = inode.ctime_ns
        return entry

    def _context(self, ctx: Any) -> Context:
        return Context(ctx.uid, ctx.gid, self.vfs.now_ns())

    def _maker(self, ctx: Any, mode: int) -> Context:
        """The context of who makes a file of that mode, with all groups where they matter."""
        if ctx.uid == 0 or mode & _GROUP_PROGRAM != _GROUP_PROGRAM:
            return self._context(ctx)
        return self._member(ctx)

    def _member(self, ctx: Any) -> Context:
        """The context with all of the caller's groups, as far as they are to be had."""
        groups: frozenset[int] = frozenset()
        with contextlib.suppress(OSError, RuntimeError):  # the process has gone, or lives in another container
            groups = frozenset(pyfuse3.get_sup_groups(ctx.pid))
        return Context(ctx.uid, ctx.gid, self.vfs.now_ns(), groups=groups)

    def _file_info(self, handle: int, ino: int, flags: int, by_root: bool) -> Any:
        keep = self._keep_cache and (self.kernel is None or self.kernel.may_keep_pages(ino))
        # From its pages the kernel would show what another host has written over, where it leaves out the answer that
        # tells it so (`attribute_answers.py`); and an append goes through them in pieces where the last one is not in
        # memory: another host's would come between.
        shares = self.vfs.config.may_share or self.vfs.is_shared
        direct = shares and (self._maps_direct() or bool(flags & os.O_APPEND))
        if direct:
            self._direct[handle] = ino, by_root
        return pyfuse3.FileInfo(fh=handle, keep_cache=keep, direct_io=direct)

    async def _take_privileges(self, ino: int, by_root: bool) -> None:
        """What the kernel does before a write through its pages: set-user-id, set-group-id and capabilities go."""
        ctx = Context(0, 0, self.vfs.now_ns())
        if not by_root:
            mode = (await self.vfs.getattr(ino)).mode & 0o7777
            kept = mode & ~S_ISUID & ~(S_ISGID if mode & _GROUP_PROGRAM == _GROUP_PROGRAM else 0)
            if kept != mode:
                await self.vfs.setattr(ctx, ino, mode=kept)
        if not self.vfs.lacks_attribute(ino, CAPABILITY):
            try:
                await self.vfs.getxattr(ino, CAPABILITY)
                await self.vfs.removexattr(ctx, ino, CAPABILITY)
            except FsError as error:
                if error.errno != errno.ENODATA:
                    raise

    def _folder_handle(self, handle: int) -> int:
        return handle

    # ------------------------------------------------------------ names

    @_request
    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> Any:
        if name == SNAPSHOTS and parent_inode == ROOT_INO and self.snapshots is not None:
            return self.snapshots.attributes()
        kernel = self.kernel
        if kernel is not None and ctx.pid in self._met_moved:
            met = self._met_moved[ctx.pid]
            await kernel.looked(met)
            if not kernel.is_in_doubt(met):
                self._met_moved.pop(ctx.pid, None)
        moved: list[int] = []
        try:
            entry = await self.vfs.lookup(parent_inode, name, moved.append)
        except FsError as error:
            if error.errno != errno.ENOENT:
                raise
            nothing = pyfuse3.EntryAttributes()  # inode 0: the kernel remembers that there is nothing
            nothing.st_ino = 0
            nothing.entry_timeout = self._timeout_s
            return nothing
        if kernel is not None and (moved or kernel.is_in_doubt(entry.ino)):
            await self._meet_moved(kernel, entry.ino, ctx.pid)
        if self.vfs.is_shared:
            await self._answers.given(entry.ino)
        return self._attributes(*entry)

    @contextlib.contextmanager
    def _locking_folders(self) -> Iterator[None]:
        """While a request is under way for which the kernel keeps folders locked."""
        answered = asyncio.get_running_loop().create_future()
        self._folders_locked.add(answered)
        try:
            yield
        finally:
            self._folders_locked.discard(answered)
            answered.set_result(None)

    async def _meet_moved(self, kernel: KernelCache, ino: int, pid: int) -> None:
        """A program meets a folder that another host may have moved.

        The kernel lets a folder have one name. It moves it when it meets it elsewhere, but not while the folder that
        it was in is locked or while it renames something, also for that very request: it tries once more then, and the
        program gets ESTALE. So the answer waits for the changes that are under way, and before the second try the
        folder is looked at from outside of any rename.
        """
        if kernel.looks(pid):
            return
        kernel.moved(ino, self.vfs.names.names_to)
        self._met_moved[pid] = ino
        if len(self._met_moved) > MAX_MET_MOVED:
            del self._met_moved[next(iter(self._met_moved))]
        if self._folders_locked:
            await asyncio.wait(set(self._folders_locked), timeout=LOOK_S)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing is kept for what the kernel merely looked up (see the vfs)."""

    @_request
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> Any:
        if name == SNAPSHOTS:
            self._keep_out(parent_inode, name, errno.EEXIST)
        return self._attributes(*await self.vfs.mknod(self._maker(ctx, mode), parent_inode, name, mode, rdev))

    @_request
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> Any:
        if name == SNAPSHOTS:
            self._keep_out(parent_inode, name, errno.EEXIST)
        return self._attributes(*await self.vfs.mkdir(self._context(ctx), parent_inode, name, mode))

    @_request
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> Any:
        if name == SNAPSHOTS:
            self._keep_out(parent_inode, name, errno.EEXIST)
        return self._attributes(*await self.vfs.symlink(self._context(ctx), parent_inode, name, target))

    @_request
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> Any:
        if new_parent_inode >= FIRST_NUMBER:
            raise FsError(errno.EXDEV)
        self._keep_out(new_parent_inode, new_name, errno.EEXIST)
        return self._attributes(*await self.vfs.link(self._context(ctx), inode, new_parent_inode, new_name))

    @_request
    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        if name == SNAPSHOTS:
            self._keep_out(parent_inode, name, errno.EISDIR)
        await self.vfs.unlink(self._context(ctx), parent_inode, name)

    @_request
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        if name == SNAPSHOTS:
            self._keep_out(parent_inode, name, errno.EPERM)
        await self.vfs.rmdir(self._context(ctx), parent_inode, name)

    @_request
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: Any
    ) -> None:
        if parent_inode_new >= FIRST_NUMBER:
            raise FsError(errno.EXDEV)
        self._keep_out(parent_inode_old, name_old, errno.EPERM)
        self._keep_out(parent_inode_new, name_new, errno.EEXIST)
        await self.vfs.rename(self._context(ctx), parent_inode_old, name_old, parent_inode_new, name_new, flags)

    @_request
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        return await self.vfs.readlink(inode)

    # ------------------------------------------------------------ attributes

    @_request
    async def getattr(self, inode: int, ctx: Any) -> Any:
        vfs = self.vfs
        return self._attributes(
            inode, await (self._answers.newest(inode, vfs.getattr) if vfs.is_shared else vfs.getattr(inode))
        )

    @_request
    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> Any:
        changed = await self.vfs.setattr(
            self._context(ctx),
            inode,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
        )
        shown = self._attributes(inode, changed)
        if self.vfs.is_shared:
            # Here the kernel takes the time over without a look at its pages, which may be older than what another host
            # wrote. So it gets a wrong one: it asks for the time again before it shows it, and drops the pages then.
            shown.st_mtime_ns = changed.mtime_ns ^ 1
            await self._answers.given(inode)
        return shown

    @_request
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        if name in _ASKED_OFTEN and self.vfs.lacks_attribute(inode, name):
            raise FsError(errno.ENODATA)
        check_attribute(name)
        return await self.vfs.getxattr(inode, name)

    @_request
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        check_attribute(name)
        who = self._member(ctx) if name == ACCESS and ctx.uid else self._context(ctx)
        await self.vfs.setxattr(who, inode, name, value)

    @_request
    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        names = await self.vfs.listxattr(inode)
        return names if ctx.uid == 0 else [name for name in names if not name.startswith(_TRUSTED)]

    @_request
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        check_attribute(name)
        await self.vfs.removexattr(self._context(ctx), inode, name)

    @_request
    async def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return True  # the kernel has checked

    # ------------------------------------------------------------ files

    @_request
    async def create(self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any) -> tuple[Any, Any]:
        if name == SNAPSHOTS:
            self._keep_out(parent_inode, name, errno.EEXIST)
        handle, entry = await self.vfs.create(self._maker(ctx, mode), parent_inode, name, mode, flags)
        return self._file_info(handle, entry.ino, flags, ctx.uid == 0), self._attributes(*entry)

    @_request
    async def open(self, inode: int, flags: int, ctx: Any) -> Any:
        return self._file_info(await self.vfs.open(self._context(ctx), inode, flags), inode, flags, ctx.uid == 0)

    @_request
    async def read(self, fh: int, off: int, size: int) -> Any:
        if self.vfs.is_shared:
            with self._answers.reading(self.vfs.inode_of(fh)):
                data = await self.vfs.read(fh, off, size)
        else:
            data = await self.vfs.read(fh, off, size)
        self.figures.read_bytes += len(data)
        return data

    @_request
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if fh in self._direct:
            await self._take_privileges(*self._direct[fh])
        written = await self.vfs.write(fh, off, buf)
        self.figures.written_bytes += written
        if self.vfs.is_shared:
            await self._answers.given(self.vfs.inode_of(fh))
        return written

    @_request
    async def flush(self, fh: int) -> None:
        self.vfs.flush(fh)

    @_request
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self.vfs.fsync(fh)

    @_request
    async def release(self, fh: int) -> None:
        self._direct.pop(fh, None)
        await self.vfs.release(Context(0, 0, self.vfs.now_ns()), fh)

    # ------------------------------------------------------------ folders and the whole

    @_request
    async def opendir(self, inode: int, ctx: Any) -> int:
        return self._folder_handle(await self.vfs.opendir(inode))

    @_request
    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        after = start_id
        hides = self.snapshots is not None and self.vfs.is_top(fh)
        while True:
            entries = await self.vfs.readdir(fh, after, READDIR_ENTRIES)
            if not entries:
                return
            if self.vfs.is_shared:
                for listed, _ in entries:
                    await self._answers.given(listed.ino)
            for listed, inode in entries:
                if hides and listed.name == SNAPSHOTS:
                    continue  # a real one, made elsewhere: it cannot be reached here
                if not pyfuse3.readdir_reply(token, listed.name, self._attributes(listed.ino, inode), listed.cookie):
                    return
            after = entries[-1][0].cookie

    @_request
    async def releasedir(self, fh: int) -> None:
        await self.vfs.releasedir(Context(0, 0, self.vfs.now_ns()), fh)

    @_request
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self.vfs.fsyncdir(fh)

    async def statfs(self, ctx: Any) -> Any:
        """The kernel names no inode for it."""
        return await self._statfs(ROOT_INO)

    @_request
    async def _statfs(self, _: int) -> Any:
        space = await self.vfs.statfs()
        shown = pyfuse3.StatvfsData()
        shown.f_bsize = shown.f_frsize = STATFS_BLOCK_BYTES
        shown.f_blocks = space.total_bytes // STATFS_BLOCK_BYTES
        shown.f_bfree = shown.f_bavail = space.free_bytes // STATFS_BLOCK_BYTES
        shown.f_files = shown.f_ffree = shown.f_favail = SHOWN_INODES
        shown.f_namemax = 255
        return shown
