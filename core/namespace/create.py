"""Making inodes: files, special files, folders and symbolic links; and reading a link's target."""

from __future__ import annotations

from errno import EEXIST, EINVAL, EMLINK, ENAMETOOLONG, ENOENT, EPERM
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK, S_ISGID, S_ISLNK, S_IXGRP

from redfs.core.errors import FsError
from redfs.core.namespace.acls import ACCESS, DEFAULT, encode_acl, inherited, mode_of
from redfs.core.namespace.inodes import MAX_LINKS, Entry, changed_folder, need_inode
from redfs.core.namespace.names import FOLDER_TYPE, find, locate, name_place, with_entry
from redfs.core.namespace.view import Context, Outcome, View, WriteSet
from redfs.core.namespace.xattrs import add_xattrs, default_acl
from redfs.core.records import INODE_HAS_XATTRS, MAX_SYMLINK_BYTES, Inode, Xattr, inode_key

_NODE_TYPES = frozenset((S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK))


def create(view: View, ctx: Context, parent: int, name: bytes, mode: int, ino: int) -> Outcome[Entry]:
    """Makes an empty regular file with inode number `ino`. EEXIST where the name is taken."""
    return _make(view, ctx, parent, name, S_IFREG | mode & 0o7777 & ~ctx.umask, ino)


def mknod(view: View, ctx: Context, parent: int, name: bytes, mode: int, rdev: int, ino: int) -> Outcome[Entry]:
    """Makes a regular file (also where `mode` has no type), fifo, socket or device.

    EPERM for a folder's type, EINVAL for another one.
    """
    file_type = mode & 0o170000 or S_IFREG
    if file_type not in _NODE_TYPES:
        raise FsError(EPERM if file_type == S_IFDIR else EINVAL)
    device = rdev if file_type in (S_IFCHR, S_IFBLK) else 0
    return _make(view, ctx, parent, name, file_type | mode & 0o7777 & ~ctx.umask, ino, device)


def mkdir(view: View, ctx: Context, parent: int, name: bytes, mode: int, ino: int) -> Outcome[Entry]:
    """Makes an empty folder. It takes over a default ACL and, in a set-group-id folder, the group and the bit."""
    return _make(view, ctx, parent, name, S_IFDIR | mode & 0o7777 & ~ctx.umask, ino)


def symlink(view: View, ctx: Context, parent: int, name: bytes, target: bytes, ino: int) -> Outcome[Entry]:
    """Makes a symbolic link. ENOENT for an empty target, ENAMETOOLONG above 4095 bytes, EINVAL with NUL in it."""
    if not target:
        raise FsError(ENOENT, "a symbolic link must point somewhere")
    if len(target) > MAX_SYMLINK_BYTES:
        raise FsError(ENAMETOOLONG)
    if b"\0" in target:
        raise FsError(EINVAL)
    return _make(view, ctx, parent, name, S_IFLNK | 0o777, ino, 0, target)


def readlink(view: View, ino: int) -> Outcome[bytes]:
    """The target of a symbolic link. EINVAL for anything else."""
    inode = need_inode(view, ino)
    if not S_ISLNK(inode.mode):
        raise FsError(EINVAL)
    return Outcome(inode.symlink, {})


def _make(
    view: View, ctx: Context, parent: int, name: bytes, mode: int, ino: int, rdev: int = 0, target: bytes = b""
) -> Outcome[Entry]:
    folder_key, folder, bucket_key, bucket = locate(view, parent, name)
    if name == b"." or name == b".." or (bucket and find(bucket, name)):
        raise FsError(EEXIST)
    if not folder.nlink:
        raise FsError(ENOENT, "the folder was removed")
    file_type = mode >> 12
    is_folder = file_type == FOLDER_TYPE
    if is_folder and folder.nlink >= MAX_LINKS:
        raise FsError(EMLINK)
    uid, gid, now_ns, _, groups = ctx
    if folder.mode & S_ISGID:
        if is_folder:
            mode |= S_ISGID
        elif mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP and uid and folder.gid not in (gid, *groups):
            # Else anyone could make programs that run with the folder's group.
            mode &= ~S_ISGID
        gid = folder.gid
    acls: list[Xattr] = []
    if folder.flags & INODE_HAS_XATTRS and not target:
        mode = _inherit(view, parent, folder, mode, acls)
    writes: WriteSet = {}
    flags = add_xattrs(view, ino, acls, writes) if acls else 0
    inode = Inode(
        mode, uid, gid, 2 if is_folder else 1, len(target), now_ns, now_ns, now_ns, now_ns, rdev, flags,
        *name_place(bucket_key), symlink=target,
    )  # fmt: skip
    writes[inode_key(ino)] = inode
    writes[bucket_key] = with_entry(bucket, name, ino, file_type)
    writes[folder_key] = changed_folder(folder, now_ns, 1, 1 if is_folder else 0)
    return Outcome(Entry(ino, inode), writes)


def _inherit(view: View, parent: int, folder: Inode, mode: int, acls: list[Xattr]) -> int:
    """Adds the ACLs that an inode inherits from its folder; returns its mode."""
    default = default_acl(view, parent, folder)
    if not default:
        return mode
    access, mode = inherited(default, mode)
    if not mode_of(access)[1]:
        acls.append(Xattr(ACCESS, encode_acl(access)))
    if mode >> 12 == FOLDER_TYPE:
        acls.append(Xattr(DEFAULT, encode_acl(default)))
    return mode
