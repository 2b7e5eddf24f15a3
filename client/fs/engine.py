"""Where a mount's operations are run: the one interface of the two engines behind the vfs.

- `LocalEngine`: here, over a cache, with write-sets that are shipped in order. Of a mount that alone changes the
  volume, and of one that only reads.
- `RemoteEngine`: at the coordinator, one round trip each where something changes. Of mounts that share the volume.

Both run the same functions of `core/namespace`. A mount goes from one to the other while programs work: the vfs keeps
the handles, closes the gate, and makes a new engine.

Operations raise FsError for what POSIX defines, the errors of the data path and the session for the rest, and after
`fail` that error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from redfs.client.fs.config import Buffer
from redfs.client.fs.handles import Handle
from redfs.core.errors import RedfsError
from redfs.core.namespace import Context, Entry, Listed, Removed, Renamed
from redfs.core.records import Inode, Slot, Xattr

O_ACCMODE, O_RDONLY, O_WRONLY, O_EXCL, O_TRUNC, O_APPEND, O_NOATIME = 3, 0, 1, 0o200, 0o1000, 0o2000, 0o1000000


class Engine(Protocol):
    """See the module. Inodes that come back are as a user sees them, with data that is not recorded yet."""

    is_shared: bool

    @property
    def is_clean(self) -> bool:
        """Whether all that programs were told is written is committed."""
        ...

    @property
    def uncommitted(self) -> int:
        """Records that were changed here and are not committed."""
        ...

    async def start(self) -> None:
        """Before the first operation."""
        ...

    # -- finding

    async def lookup(self, parent: int, name: bytes) -> Entry: ...

    async def getattr(self, ino: int) -> Inode: ...

    async def readlink(self, ino: int) -> bytes: ...

    async def getxattr(self, ino: int, name: bytes) -> bytes: ...

    async def listxattr(self, ino: int) -> list[bytes]: ...

    def lacks_attribute(self, ino: int, name: bytes) -> bool:
        """Whether it is known without a round trip that an extended attribute is not set."""
        ...

    async def readdir(self, ino: int, after_cookie: int, limit: int) -> list[tuple[Listed, Inode]]:
        """Entries behind a cookie; an empty list is the end."""
        ...

    # -- making, removing, moving

    async def create(self, ctx: Context, parent: int, name: bytes, mode: int, flags: int) -> Entry:
        """Makes a file, and counts it as opened. Where somebody else was faster, opens what is there, as open(2)."""
        ...

    async def mknod(self, ctx: Context, parent: int, name: bytes, mode: int, rdev: int) -> Entry: ...

    async def mkdir(self, ctx: Context, parent: int, name: bytes, mode: int) -> Entry: ...

    async def symlink(self, ctx: Context, parent: int, name: bytes, target: bytes) -> Entry: ...

    async def link(self, ctx: Context, ino: int, new_parent: int, new_name: bytes) -> Entry: ...

    async def unlink(self, ctx: Context, parent: int, name: bytes) -> Removed: ...

    async def rmdir(self, ctx: Context, parent: int, name: bytes) -> Removed: ...

    async def rename(
        self, ctx: Context, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> Renamed: ...

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
        """Makes an inode that is like another one (see `core.namespace.make_copy`)."""
        ...

    async def copy_in_more(self, ino: int, slots: Mapping[int, Slot], size: int) -> None:
        """Adds slots to a file made by `copy_in`. ENOENT where it was removed."""
        ...

    async def leaves_room(self, size: int, *, anew: bool = False) -> bool:
        """Whether the volume's quota is known to leave room for so many logical bytes more, or may. `anew`: asks."""
        ...

    # -- attributes

    async def setattr(self, ctx: Context, ino: int, change: Mapping[str, Any]) -> Inode: ...

    async def setxattr(self, ctx: Context, ino: int, name: bytes, value: bytes, flags: int) -> None: ...

    async def removexattr(self, ctx: Context, ino: int, name: bytes) -> None: ...

    # -- open files

    async def opened(self, ctx: Context, ino: int, flags: int, *, again: bool) -> Inode:
        """A file or folder is being opened; O_TRUNC cuts it. `again`: it is open here already. EISDIR, ENOENT."""
        ...

    async def closed(self, ctx: Context, ino: int) -> None:
        """The last close of an inode."""
        ...

    async def read(self, handle: Handle, offset: int, size: int) -> Buffer: ...

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int: ...

    def error_of(self, ino: int) -> RedfsError | None:
        """Why data of the file could not be stored so far."""
        ...

    async def fsync(self, ino: int) -> None:
        """Returns when the file's data and every operation so far are durable."""
        ...

    async def barrier(self) -> None:
        """Returns when every operation so far is durable."""
        ...

    async def sync(self) -> None:
        """Returns when everything written so far is durable."""
        ...

    # -- the end

    def tick(self) -> None:
        """A few times a second."""
        ...

    def unsure(self) -> tuple[set[int], set[int]]:
        """Inodes with data that programs wrote and that may not be committed, and those with any such change."""
        ...

    def fail(self, error: RedfsError) -> None:
        """Everything raises `error` from now on."""
        ...

    async def abandon(self, error: RedfsError) -> None:
        """Gives up what is not committed; whoever waits for it gets the error."""
        ...

    async def ended(self) -> None:
        """Returns when no commit is under way any more."""
        ...

    async def stop(self) -> None:
        """Ends all background work, whatever is left."""
        ...
