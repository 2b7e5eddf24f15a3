"""Changing attributes: mode, owner, size and times."""

from __future__ import annotations

from errno import EFBIG, EINVAL, EISDIR
from stat import S_ISDIR, S_ISGID, S_ISREG, S_ISUID, S_IXGRP

from redfs.core.errors import FsError
from redfs.core.namespace.inodes import need_inode
from redfs.core.namespace.truncate import cut_data
from redfs.core.namespace.view import Context, Outcome, View, WriteSet
from redfs.core.namespace.xattrs import drop_capability, keep_acl
from redfs.core.records import (
    INODE_HAS_CAPABILITY,
    INODE_HAS_XATTRS,
    MAX_FILE_BYTES,
    MAX_TIME_NS,
    MIN_TIME_NS,
    Inode,
    inode_key,
)


def setattr(
    view: View,
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
    kill_priv: bool = False,
) -> Outcome[Inode]:
    """Changes what is given; the change time is now unless given, the modification time of a new size too.

    `mode`: permission bits, a type in it is ignored. `size`: cuts or extends a regular file (EISDIR, EINVAL for
    others, EFBIG above MAX_FILE_BYTES). Times that no record can hold become the nearest that one can. `kill_priv`:
    what a change of owner, a cut or a write by another than the owner entails: set-user-id goes, set-group-id of an
    executable for the group, and security.capability; folders keep theirs. Data that the caller has not recorded yet
    is for the caller to cut.
    """
    inode = need_inode(view, ino)
    writes: WriteSet = {}
    now_ns = ctx.now_ns
    flags, new_size = inode.flags, inode.size
    generations, next_generation = inode.generations, inode.next_generation
    new_mode = inode.mode if mode is None else inode.mode & 0o170000 | mode & 0o7777
    if kill_priv and not S_ISDIR(inode.mode):
        new_mode = without_privileges(new_mode)
        if flags & INODE_HAS_CAPABILITY:
            flags = drop_capability(view, ino, inode, writes)
    if mode is not None and flags & INODE_HAS_XATTRS:
        keep_acl(view, ino, inode, new_mode, writes)
    if size is not None:
        if not S_ISREG(inode.mode):
            raise FsError(EISDIR if S_ISDIR(inode.mode) else EINVAL)
        if size < 0:
            raise FsError(EINVAL)
        if size > MAX_FILE_BYTES:
            raise FsError(EFBIG)
        if size < inode.size:
            generations, next_generation = cut_data(view, ino, inode, size, now_ns, writes)
        new_size = size
        if mtime_ns is None:
            mtime_ns = now_ns
    changed = Inode(
        new_mode,
        inode.uid if uid is None else uid,
        inode.gid if gid is None else gid,
        inode.nlink,
        new_size,
        inode.atime_ns if atime_ns is None else within_bounds(atime_ns),
        inode.mtime_ns if mtime_ns is None else within_bounds(mtime_ns),
        now_ns if ctime_ns is None else within_bounds(ctime_ns),
        inode.btime_ns,
        inode.rdev,
        flags,
        inode.parent,
        inode.name_hash,
        next_generation,
        generations,
        inode.symlink,
    )
    writes[inode_key(ino)] = changed
    return Outcome(changed, writes)


def without_privileges(mode: int) -> int:
    """The mode without set-user-id, and without set-group-id where the group may execute (else it marks locking)."""
    mode &= ~S_ISUID
    return mode & ~S_ISGID if mode & S_IXGRP else mode


def within_bounds(time_ns: int) -> int:
    """The nearest time that a record can hold, as local file systems do it with their own bounds."""
    return min(max(time_ns, MIN_TIME_NS), MAX_TIME_NS)
