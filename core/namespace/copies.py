"""Making an inode that is like another one, also one of another volume: what copying without moving data needs.

An inode is made with everything that it is to have (owner, mode, times, extended attributes, and of a file the first
slots with the size that they reach to), so that none of it is ever seen without the rest. Slots name blocks, which
know nothing of inodes: they are taken over as they are. Names of attributes are hashed anew, since each family of
volumes has a hash seed of its own. More slots of a long file are for `record_data` to add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from errno import EEXIST, EMLINK, ENOENT
from stat import S_ISDIR, S_ISLNK, S_ISREG

from redfs.core.errors import FsError
from redfs.core.namespace.inodes import MAX_LINKS, Entry, changed_folder, need_inode
from redfs.core.namespace.names import find, locate, name_place, with_entry
from redfs.core.namespace.view import Context, Outcome, View, WriteSet
from redfs.core.namespace.xattrs import add_xattrs
from redfs.core.records import (
    INODE_HAS_XATTRS,
    SLOT_BYTES,
    Inode,
    Slot,
    Xattr,
    inode_key,
    slot_key,
)
from redfs.core.slots import check_slot, cut

FIRST_GENERATION = 1
"""Data generation of every slot of a new file."""


def all_xattrs(view: View, ino: int) -> Outcome[list[Xattr]]:
    """The extended attributes, with their values."""
    inode = need_inode(view, ino)
    if not inode.flags & INODE_HAS_XATTRS:
        return Outcome([], {})
    return Outcome([attr for _, bucket in view.xattrs(ino) for attr in bucket], {})


def make_copy(
    view: View,
    ctx: Context,
    parent: int,
    name: bytes,
    like: Inode,
    xattrs: Sequence[Xattr],
    slots: Mapping[int, Slot],
    size: int,
    ino: int,
) -> Outcome[Entry]:
    """Makes inode `ino` under a new name, with type, mode, owner, times and device of `like`, and these attributes.

    `slots` and `size` are those of a regular file; slots behind the size are left out. A folder is empty at first.
    Birth and last change are now. EEXIST where the name is taken. ValueError for a slot that may not be stored.
    """
    folder_key, folder, bucket_key, bucket = locate(view, parent, name)
    if name == b"." or name == b".." or (bucket and find(bucket, name)):
        raise FsError(EEXIST)
    if not folder.nlink:
        raise FsError(ENOENT, "the folder was removed")
    is_folder = S_ISDIR(like.mode)
    if is_folder and folder.nlink >= MAX_LINKS:
        raise FsError(EMLINK)
    if not S_ISREG(like.mode):
        size, slots = (len(like.symlink) if S_ISLNK(like.mode) else 0), {}
    writes: WriteSet = {}
    flags = add_xattrs(view, ino, xattrs, writes)
    for number, slot in slots.items():
        room = size - number * SLOT_BYTES
        kept = cut(slot, min(room, SLOT_BYTES)) if room > 0 else ()
        check_slot(kept)
        if kept:
            writes[slot_key(ino, FIRST_GENERATION, number)] = kept
    inode = Inode(
        like.mode, like.uid, like.gid, 2 if is_folder else 1, size, like.atime_ns, like.mtime_ns,
        ctx.now_ns, ctx.now_ns, like.rdev, flags, *name_place(bucket_key), symlink=like.symlink,
    )  # fmt: skip
    writes[inode_key(ino)] = inode
    writes[bucket_key] = with_entry(bucket, name, ino, like.mode >> 12)
    writes[folder_key] = changed_folder(folder, ctx.now_ns, 1, 1 if is_folder else 0)
    return Outcome(Entry(ino, inode), writes)
