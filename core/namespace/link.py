"""Hard links."""

from __future__ import annotations

from errno import EEXIST, EMLINK, ENOENT, EPERM
from stat import S_ISDIR

from redfs.core.errors import FsError
from redfs.core.namespace.inodes import MAX_LINKS, Entry, changed_folder, need_inode, relinked
from redfs.core.namespace.names import find, hash_seed, locate, name_place, with_entry
from redfs.core.namespace.view import Context, Miss, Outcome, View
from redfs.core.records import inode_key


def link(view: View, ctx: Context, ino: int, new_parent: int, new_name: bytes) -> Outcome[Entry]:
    """Gives a file one more name.

    EPERM for a folder, EMLINK at the bound, ENOENT for a file that has lost its last name, EEXIST for a taken name.
    """
    key = inode_key(ino)
    hash_seed(view, key, inode_key(new_parent))
    try:
        folder_key, folder, bucket_key, bucket = locate(view, new_parent, new_name)
    except Miss as miss:
        if view.peek(key) is None:
            raise Miss(keys=(key, *miss.keys)) from None
        raise
    inode = need_inode(view, ino)
    if new_name == b"." or new_name == b".." or find(bucket, new_name):
        raise FsError(EEXIST)
    if S_ISDIR(inode.mode):
        raise FsError(EPERM, "a folder cannot have a second name")
    if not inode.nlink or not folder.nlink:
        raise FsError(ENOENT)
    if inode.nlink >= MAX_LINKS:
        raise FsError(EMLINK)
    # The newest name: programs that replace a file by linking and unlinking remove the older one.
    linked = relinked(inode, inode.nlink + 1, name_place(bucket_key), ctx.now_ns)
    return Outcome(
        Entry(ino, linked),
        {
            key: linked,
            bucket_key: with_entry(bucket, new_name, ino, inode.mode >> 12),
            folder_key: changed_folder(folder, ctx.now_ns, 1),
        },
    )
