"""Renaming: to a free name, over another, or two names for each other.

The order of the checks is that of Linux's vfs (fs/namei.c, do_renameat2 and vfs_rename), so that a program sees the
same error here as on a local file system.
"""

from __future__ import annotations

from collections.abc import Container
from errno import EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, EMLINK, ENOENT, ENOTDIR, ENOTEMPTY
from stat import S_ISDIR
from typing import NamedTuple

from redfs.core.errors import FsError
from redfs.core.ids import ROOT_INO
from redfs.core.namespace.inodes import MAX_LINKS, changed_folder, moved, named_inode, named_inodes
from redfs.core.namespace.names import Place, find, hash_seed, locate, name_place, repointed, with_entry, without_entry
from redfs.core.namespace.remove import Removed, drop_name
from redfs.core.namespace.view import Context, Miss, Outcome, View, WriteSet
from redfs.core.records import DirEntry, Inode, Key, inode_key

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
MAX_FOLDER_DEPTH = 65536
"""Folders above one another that a check walks up: far above what paths reach, it ends a walk in damaged metadata."""


class Renamed(NamedTuple):
    """The inode that moved, and the one that had the new name."""

    ino: int
    inode: Inode
    replaced: Removed | None
    """After an exchange: the other inode, which has the old name now."""


def rename(
    view: View,
    ctx: Context,
    old_parent: int,
    old_name: bytes,
    new_parent: int,
    new_name: bytes,
    flags: int = 0,
    open_inodes: Container[int] = (),
) -> Outcome[Renamed]:
    """Moves a name. Two names of one inode stay as they are, without an error.

    EINVAL for unknown flags and for a folder into itself, EEXIST with RENAME_NOREPLACE, EBUSY for `.` and `..`,
    EISDIR, ENOTDIR, ENOTEMPTY for what cannot replace each other, EMLINK.
    """
    if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        raise FsError(EINVAL)
    old, new = _locate_both(view, old_parent, old_name, new_parent, new_name)
    if old_name in (b".", b"..") or new_name in (b".", b".."):
        raise FsError(EEXIST if flags == RENAME_NOREPLACE and old_name not in (b".", b"..") else EBUSY)
    source, target = find(old[3], old_name), find(new[3], new_name)
    if source is None:
        raise FsError(ENOENT)
    if target is None:
        if flags == RENAME_EXCHANGE or not new[1].nlink:
            raise FsError(ENOENT)
        inode, other = named_inode(view, source.ino), None
    else:
        if flags == RENAME_NOREPLACE:
            raise FsError(EEXIST)
        inode, other = named_inodes(view, [source.ino, target.ino])
    if old_parent != new_parent:
        if S_ISDIR(inode.mode) and _is_above(view, source.ino, new_parent):
            raise FsError(EINVAL, "a folder cannot move into itself")
        if target and other and S_ISDIR(other.mode) and _is_above(view, target.ino, old_parent):
            raise FsError(EINVAL if flags == RENAME_EXCHANGE else ENOTEMPTY)
    parents = (old_parent, new_parent)
    if target is None or other is None:
        return _move(ctx, old, new, parents, new_name, source, inode)
    if source.ino == target.ino:
        return Outcome(Renamed(source.ino, inode, None), {})
    if flags == RENAME_EXCHANGE:
        return _exchange(ctx, old, new, parents, source, inode, target, other)
    if S_ISDIR(inode.mode):
        if not S_ISDIR(other.mode):
            raise FsError(ENOTDIR)
        if other.size:
            raise FsError(ENOTEMPTY)
    elif S_ISDIR(other.mode):
        raise FsError(EISDIR)
    return _replace(view, ctx, old, new, parents, source, inode, target, other, open_inodes)


def _move(
    ctx: Context,
    old: Place,
    new: Place,
    parents: tuple[int, int],
    new_name: bytes,
    source: DirEntry,
    inode: Inode,
) -> Outcome[Renamed]:
    """To a free name."""
    left = without_entry(old[3], source)
    writes: WriteSet = {old[2]: left or None}
    base = left if old[2] == new[2] else new[3]
    writes[new[2]] = with_entry(base, new_name, source.ino, source.file_type)
    folders = 1 if S_ISDIR(inode.mode) else 0
    _change_folders(ctx, old, new, parents, writes, (-1, -folders), (1, folders))
    after = _moved_to(ctx, new[2], source.ino, inode, writes)
    return Outcome(Renamed(source.ino, after, None), writes)


def _replace(
    view: View,
    ctx: Context,
    old: Place,
    new: Place,
    parents: tuple[int, int],
    source: DirEntry,
    inode: Inode,
    target: DirEntry,
    other: Inode,
    open_inodes: Container[int],
) -> Outcome[Renamed]:
    """Over a name that another inode has, of the same sort."""
    left = without_entry(old[3], source)
    writes: WriteSet = {old[2]: left or None}
    base = left if old[2] == new[2] else new[3]
    writes[new[2]] = repointed(base, target, source.ino, source.file_type)
    folders = 1 if S_ISDIR(inode.mode) else 0
    _change_folders(ctx, old, new, parents, writes, (-1, -folders), (0, 0))
    after = _moved_to(ctx, new[2], source.ino, inode, writes)
    replaced = drop_name(view, ctx, target.ino, other, name_place(new[2]), open_inodes, writes)
    return Outcome(Renamed(source.ino, after, replaced), writes)


def _exchange(
    ctx: Context,
    old: Place,
    new: Place,
    parents: tuple[int, int],
    source: DirEntry,
    inode: Inode,
    target: DirEntry,
    other: Inode,
) -> Outcome[Renamed]:
    swapped = repointed(old[3], source, target.ino, target.file_type)
    writes: WriteSet = {old[2]: swapped}
    base = swapped if old[2] == new[2] else new[3]
    writes[new[2]] = repointed(base, target, source.ino, source.file_type)
    gained = S_ISDIR(inode.mode) - S_ISDIR(other.mode)
    _change_folders(ctx, old, new, parents, writes, (0, -gained), (0, gained))
    after = _moved_to(ctx, new[2], source.ino, inode, writes)
    other_after = _moved_to(ctx, old[2], target.ino, other, writes)
    return Outcome(Renamed(source.ino, after, Removed(target.ino, other_after)), writes)


def _change_folders(
    ctx: Context,
    old: Place,
    new: Place,
    parents: tuple[int, int],
    writes: WriteSet,
    old_change: tuple[int, int],
    new_change: tuple[int, int],
) -> None:
    """Counts names and subfolders, given as (more names, more subfolders)."""
    if parents[0] == parents[1]:
        entries, subfolders = old_change[0] + new_change[0], old_change[1] + new_change[1]
        writes[old[0]] = changed_folder(old[1], ctx.now_ns, entries, subfolders)
        return
    for (key, folder, _, _), (entries, subfolders) in ((old, old_change), (new, new_change)):
        if subfolders > 0 and folder.nlink >= MAX_LINKS:
            raise FsError(EMLINK)
        writes[key] = changed_folder(folder, ctx.now_ns, entries, subfolders)


def _moved_to(ctx: Context, bucket_key: Key, ino: int, inode: Inode, writes: WriteSet) -> Inode:
    after = moved(inode, name_place(bucket_key), ctx.now_ns)
    writes[inode_key(ino)] = after
    return after


def _locate_both(view: View, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes) -> tuple[Place, Place]:
    """Where both names are; one Miss names what lacks of either."""
    hash_seed(view, inode_key(old_parent), inode_key(new_parent))
    try:
        old = locate(view, old_parent, old_name)
    except Miss as miss:
        lacking = [*miss.keys]
        try:
            locate(view, new_parent, new_name)
        except Miss as more:
            lacking += more.keys
        except FsError:
            # The old name's own error, if it has one, comes first: it is known only after the fetch.
            pass
        raise Miss(keys=lacking) from None
    return old, locate(view, new_parent, new_name)


def _is_above(view: View, ino: int, folder: int) -> bool:
    """Whether inode `ino` is the folder itself or one above it."""
    for _ in range(MAX_FOLDER_DEPTH):
        if folder == ino:
            return True
        if folder == ROOT_INO:
            return False
        folder = named_inode(view, folder).parent
    raise FsError(ELOOP, "folders lie too deep in one another")
