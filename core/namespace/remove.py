"""Removing names, and the end of an inode that has none left.

An inode whose last name goes while it is open stays, with no links, under ORPHAN(inode, 0), until `release`; after a
crash the reaper of orphans runs that same `release`. Otherwise it goes at once with its attributes and data.
"""

from __future__ import annotations

from collections.abc import Container
from errno import EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY
from stat import S_ISDIR
from typing import Any, NamedTuple

from redfs.core.errors import FsError
from redfs.core.namespace.inodes import NO_PLACE, NamePlace, changed_folder, named_inode, relinked
from redfs.core.namespace.names import find, locate, name_place, without_entry
from redfs.core.namespace.truncate import drop_data
from redfs.core.namespace.view import Context, Outcome, View, WriteSet
from redfs.core.records import INODE_HAS_XATTRS, Inode, Orphan, inode_key, orphan_key, xattr_key


class Removed(NamedTuple):
    """What became of an inode that lost a name."""

    ino: int
    inode: Inode | None
    """None: gone, and its data with it. nlink 0: it lives on until `release`."""


def unlink(view: View, ctx: Context, parent: int, name: bytes, open_inodes: Container[int] = ()) -> Outcome[Removed]:
    """Removes a name of a file. EISDIR for a folder. `open_inodes`: inodes that something holds open."""
    folder_key, folder, bucket_key, bucket = locate(view, parent, name)
    if name == b"." or name == b"..":
        raise FsError(EISDIR)
    entry = find(bucket, name)
    if entry is None:
        raise FsError(ENOENT)
    inode = named_inode(view, entry.ino)
    if S_ISDIR(inode.mode):
        raise FsError(EISDIR)
    writes: WriteSet = {
        bucket_key: without_entry(bucket, entry) or None,
        folder_key: changed_folder(folder, ctx.now_ns, -1),
    }
    return Outcome(drop_name(view, ctx, entry.ino, inode, name_place(bucket_key), open_inodes, writes), writes)


def rmdir(view: View, ctx: Context, parent: int, name: bytes, open_inodes: Container[int] = ()) -> Outcome[Removed]:
    """Removes an empty folder. ENOTEMPTY, ENOTDIR; EINVAL for `.`, ENOTEMPTY for `..`."""
    folder_key, folder, bucket_key, bucket = locate(view, parent, name)
    if name == b"." or name == b"..":
        raise FsError(EINVAL if name == b"." else ENOTEMPTY)
    entry = find(bucket, name)
    if entry is None:
        raise FsError(ENOENT)
    inode = named_inode(view, entry.ino)
    if not S_ISDIR(inode.mode):
        raise FsError(ENOTDIR)
    if inode.size:
        raise FsError(ENOTEMPTY)
    writes: WriteSet = {
        bucket_key: without_entry(bucket, entry) or None,
        folder_key: changed_folder(folder, ctx.now_ns, -1, -1),
    }
    return Outcome(drop_name(view, ctx, entry.ino, inode, name_place(bucket_key), open_inodes, writes), writes)


def release(view: View, ctx: Context, ino: int) -> Outcome[bool]:
    """After the last close of an inode: ends it where it has no name left. Says whether it went; safe to repeat."""
    record: Any = view.get(inode_key(ino))
    if record is None or record.nlink:
        return Outcome(False, {})
    writes: WriteSet = {orphan_key(ino, 0): None}
    _discard(view, ctx, ino, record, writes)
    return Outcome(True, writes)


def drop_name(
    view: View,
    ctx: Context,
    ino: int,
    inode: Inode,
    name: NamePlace,
    open_inodes: Container[int],
    writes: WriteSet,
) -> Removed:
    """Adds to `writes` what it means for the inode to lose the name there (its only one, for a folder)."""
    nlink = 0 if S_ISDIR(inode.mode) else inode.nlink - 1
    if nlink <= 0 and ino not in open_inodes:
        _discard(view, ctx, ino, inode, writes)
        return Removed(ino, None)
    known = (inode.parent, inode.name_hash)
    left = relinked(inode, nlink, NO_PLACE if nlink and known == name else known, ctx.now_ns)
    writes[inode_key(ino)] = left
    if nlink <= 0:
        writes[orphan_key(ino, 0)] = Orphan(ctx.now_ns)
    return Removed(ino, left)


def _discard(view: View, ctx: Context, ino: int, inode: Inode, writes: WriteSet) -> None:
    writes[inode_key(ino)] = None
    if inode.flags & INODE_HAS_XATTRS:
        for attr_hash, _ in view.xattrs(ino):
            writes[xattr_key(ino, attr_hash)] = None
    drop_data(ino, inode, ctx.now_ns, writes)
