"""The hidden folder `.snapshots` at the top of a mount, and what the kernel asks for inside of it.

The folder is in no listing and is found by its name. In it each snapshot of the volume is a folder that can only be
read, its own adapter over its own vfs (`snapshot_views.py`). Nothing can be made, changed or removed in it (EROFS), or
moved or linked between it and the volume (EXDEV). A real entry of that name, from a program that made it elsewhere, is
hidden by it.

Names in the folder are remembered by the kernel for a second, what is inside of a snapshot for as long as the kernel
likes, since it never changes.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from errno import EBADF, EINVAL, EISDIR, ENODATA, EROFS, EXDEV
from typing import Any

import pyfuse3

from redfs.client.fs.config import FsConfig, Reader, Session, Store
from redfs.client.fs.fuse_adapter import FuseAdapter, check_attribute
from redfs.client.fs.kernel_cache import TIMEOUT_S
from redfs.client.fs.snapshot_views import FIRST_NUMBER, FOLDER_INDEX, NUMBER_BITS, Place, Snapshot, SnapshotViews
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import FsError
from redfs.core.ids import ROOT_INO
from redfs.core.records import Inode

FOLDER_INO = FOLDER_INDEX << NUMBER_BITS | ROOT_INO
_LOCAL = FIRST_NUMBER - 1
_DOT, _DOT_DOT = 1, 2
"""Cookies of a listing; entry n has n + 3."""


class ViewAdapter(FuseAdapter):
    """The requests of one snapshot, with the numbers that the kernel knows taken off."""

    def __init__(self, vfs: Vfs, session: Session, place: Place) -> None:
        super().__init__(vfs, session)
        self._base = place.base
        self._generation = place.generation

    def _attributes(self, ino: int, inode: Inode) -> Any:
        entry = super()._attributes(ino, inode)
        entry.st_ino = self._base | ino
        entry.generation = self._generation
        return entry

    def _file_info(self, handle: int, ino: int, flags: int, by_root: bool) -> Any:
        return pyfuse3.FileInfo(fh=self._base | handle, keep_cache=True)

    def _folder_handle(self, handle: int) -> int:
        return self._base | handle

    async def top(self) -> Any:
        """The snapshot's top folder, as an entry of the folder of snapshots."""
        entry = self._attributes(ROOT_INO, await self.vfs.getattr(ROOT_INO))
        entry.entry_timeout = TIMEOUT_S
        return entry


class SnapshotsFolder:
    """See the module. Belongs to the event loop of the mount's requests."""

    def __init__(
        self, session: Session, volume_id: int, created_ns: int, store: Store, reader: Reader, config: FsConfig
    ) -> None:
        def make(vfs: Vfs, place: Place) -> ViewAdapter:
            return ViewAdapter(vfs, vfs.session, place)

        self.views: SnapshotViews[ViewAdapter] = SnapshotViews(session, volume_id, store, reader, config, make)
        self._made_ns = created_ns
        self._listings: dict[int, list[tuple[bytes, Snapshot]]] = {}
        """Handle -> what its listing shows."""
        self._next_handle = 1

    async def answer(self, request: str, number: int, arguments: Sequence[Any]) -> Any:
        """A request whose first number is none of the volume. Raises FsError and what the data path raises."""
        index, local = number >> NUMBER_BITS, number & _LOCAL
        if request in ("rename", "link"):
            other = arguments[1] if request == "rename" else arguments[0]
            raise FsError(EROFS if other >> NUMBER_BITS == index else EXDEV)
        if index == FOLDER_INDEX:
            handler = getattr(self, f"_{request}", None)
            if handler is None:
                raise FsError(EROFS)
            return await handler(local, *arguments)
        async with self.views.using(index) as view:
            return await getattr(view.handler, request)(local, *arguments)

    def attributes(self) -> Any:
        """Of the folder itself."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = FOLDER_INO
        entry.st_mode = stat.S_IFDIR | 0o555
        entry.st_nlink = 2
        entry.st_uid = entry.st_gid = 0
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._made_ns
        entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
        return entry

    # ------------------------------------------------------------ requests for the folder itself

    async def _lookup(self, _: int, name: bytes, __: Any) -> Any:
        if name == b".":
            return self.attributes()
        place = self.views.place(await self.views.find(name))
        async with self.views.using(place.at) as view:
            return await view.handler.top()

    async def _getattr(self, _: int, __: Any) -> Any:
        return self.attributes()

    async def _access(self, *_: Any) -> bool:
        return True

    async def _getxattr(self, _: int, name: bytes, __: Any) -> bytes:
        check_attribute(name)
        raise FsError(ENODATA)

    async def _listxattr(self, *_: Any) -> list[bytes]:
        return []

    async def _readlink(self, *_: Any) -> bytes:
        raise FsError(EINVAL)

    async def _open(self, *_: Any) -> Any:
        raise FsError(EISDIR)

    async def _opendir(self, *_: Any) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._listings[handle] = []
        return FOLDER_INDEX << NUMBER_BITS | handle

    async def _readdir(self, handle: int, after: int, token: Any) -> None:
        if handle not in self._listings:
            raise FsError(EBADF)
        if not after:
            self._listings[handle] = sorted((await self.views.listed(fresh=True)).items())
        listing = self._listings[handle]
        if after < _DOT and not pyfuse3.readdir_reply(token, b".", self.attributes(), _DOT):
            return
        if after < _DOT_DOT and not pyfuse3.readdir_reply(token, b"..", self.attributes(), _DOT_DOT):
            return
        for position in range(max(0, after - _DOT_DOT), len(listing)):
            name, snapshot = listing[position]
            entry = self._listed(snapshot)
            if not pyfuse3.readdir_reply(token, name, entry, position + _DOT_DOT + 1):
                return

    def _listed(self, snapshot: Snapshot) -> Any:
        """An entry whose attributes the kernel must ask for: listing names makes no views."""
        place = self.views.place(snapshot)
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = place.base | ROOT_INO
        entry.generation = place.generation
        entry.st_mode = stat.S_IFDIR
        entry.st_nlink = 2
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = snapshot.created_ns
        entry.entry_timeout, entry.attr_timeout = TIMEOUT_S, 0
        return entry

    async def _releasedir(self, handle: int) -> None:
        self._listings.pop(handle, None)

    async def _fsyncdir(self, *_: Any) -> None:
        """There is nothing to write."""
