"""Opening by number and by name, where nobody knows beforehand what is there: several hosts may make a name at once.

Flags are Linux's for open(2), as they are on the wire. Which inodes are open is for the caller to note.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST, EISDIR, ESTALE
from stat import S_ISDIR, S_ISGID, S_ISREG, S_ISUID
from typing import NamedTuple

from redfs.core.errors import FsError
from redfs.core.namespace.create import create
from redfs.core.namespace.inodes import Entry, named_inode, need_inode
from redfs.core.namespace.names import find, locate
from redfs.core.namespace.setattr import setattr
from redfs.core.namespace.view import Context, Outcome, View
from redfs.core.records import Inode

O_EXCL = 0o200
O_TRUNC = 0o1000


class Opened(NamedTuple):
    """A file that was opened by name, and whether it was there before."""

    entry: Entry
    existed: bool


def create_or_open(
    view: View, ctx: Context, parent: int, name: bytes, mode: int, flags: int, new_ino: Callable[[], int]
) -> Outcome[Opened]:
    """Makes an empty regular file, or opens the one that is there; O_TRUNC cuts that. `new_ino` numbers a new one.

    EEXIST where the name is taken and O_EXCL is given. Without it EISDIR for a folder, and ESTALE for what is neither
    folder nor regular file: the kernel looks at the name again then, and follows a link.
    """
    entry = find(locate(view, parent, name)[3], name)
    if entry is None:
        made = create(view, ctx, parent, name, mode, new_ino())
        return Outcome(Opened(made.value, False), made.writes)
    if flags & O_EXCL:
        raise FsError(EEXIST)
    inode = named_inode(view, entry.ino)
    if not S_ISREG(inode.mode):
        raise FsError(EISDIR if S_ISDIR(inode.mode) else ESTALE)
    opened = open_inode(view, ctx, entry.ino, flags)
    return Outcome(Opened(Entry(entry.ino, opened.value), True), opened.writes)


def open_inode(view: View, ctx: Context, ino: int, flags: int) -> Outcome[Inode]:
    """Opens what is there, folders too. O_TRUNC cuts a regular file, with what that entails. ENOENT."""
    inode = need_inode(view, ino)
    if not flags & O_TRUNC or not S_ISREG(inode.mode):
        return Outcome(inode, {})
    kill_priv = ctx.uid != 0 and bool(inode.mode & (S_ISUID | S_ISGID))
    return setattr(view, ctx, ino, size=0, kill_priv=kill_priv)
