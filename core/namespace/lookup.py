"""Finding names: lookup of one, and listing a folder page by page.

A listing goes by the hashes of the names. Its cookies stay valid while the folder changes: an entry that is there
from the start of a listing to its end is listed exactly once, whatever happens to the others.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, ENOTDIR
from stat import S_ISDIR
from typing import Any, NamedTuple, cast

from redfs.core.errors import FsError
from redfs.core.namespace.inodes import Entry, named_inode, need_inode
from redfs.core.namespace.names import FOLDER_TYPE, find, locate
from redfs.core.namespace.view import Miss, Outcome, View
from redfs.core.records import Inode, dirent_cookie, inode_key, split_cookie

DOT_COOKIE = 1
DOT_DOT_COOKIE = 2
MAX_READDIR_ENTRIES = 1024
"""Entries of one listing, and so of one page that a view fetches: some 200 KiB with inodes."""


class Listed(NamedTuple):
    """An entry of a listing."""

    cookie: int
    """Pass it as `after_cookie` to go on behind this entry."""
    name: bytes
    ino: int
    file_type: int
    """mode >> 12, as in struct dirent's d_type."""
    inode: Inode | None
    """Where the view happened to hold it."""


def lookup(view: View, parent: int, name: bytes) -> Outcome[Entry]:
    """The inode that `name` has in a folder, also for `.` and `..`. ENOENT where there is none."""
    if name == b"." or name == b"..":
        folder = need_inode(view, parent)
        if not S_ISDIR(folder.mode):
            raise FsError(ENOTDIR)
        if name == b".":
            return Outcome(Entry(parent, folder), {})
        return Outcome(Entry(folder.parent, need_inode(view, folder.parent)), {})
    entry = find(locate(view, parent, name)[3], name)
    if entry is None:
        raise FsError(ENOENT)
    return Outcome(Entry(entry.ino, named_inode(view, entry.ino)), {})


def readdir(view: View, ino: int, after_cookie: int, limit: int) -> Outcome[list[Listed]]:
    """Up to `limit` (at most MAX_READDIR_ENTRIES) entries behind a cookie; 0 starts, an empty list is the end.

    `.` and `..` come first. ENOTDIR for what is no folder, ENOENT for a removed one.
    """
    if after_cookie < 0 or limit <= 0:
        raise FsError(EINVAL)
    limit = min(limit, MAX_READDIR_ENTRIES)
    first_hash, after_position = 0, -1
    if after_cookie > DOT_DOT_COOKIE:
        first_hash, after_position = split_cookie(after_cookie)
    after_hash = first_hash - 1 if first_hash else None
    # One bucket more than entries: the first one may hold nothing behind the cookie.
    folder = _folder_inode(view, ino, after_hash, limit + 1)
    out: list[Listed] = []
    if after_cookie < DOT_COOKIE:
        out.append(Listed(DOT_COOKIE, b".", ino, FOLDER_TYPE, folder))
    if after_cookie < DOT_DOT_COOKIE and limit > len(out):
        above = cast("Inode | None", view.peek(inode_key(folder.parent)))
        out.append(Listed(DOT_DOT_COOKIE, b"..", folder.parent, FOLDER_TYPE, above))
    peek: Any = view.peek
    for bucket_hash, bucket in view.folder(ino, after_hash, limit + 1):
        for entry in bucket:
            if len(out) >= limit:
                return Outcome(out, {})
            name, child, file_type, position = entry
            if bucket_hash == first_hash and position <= after_position:
                continue
            cookie = dirent_cookie(bucket_hash, position)
            out.append(Listed(cookie, name, child, file_type, peek(inode_key(child))))
    return Outcome(out, {})


def _folder_inode(view: View, ino: int, after_hash: int | None, limit: int) -> Inode:
    """The folder's inode. One Miss names it and the page where both lack."""
    key = inode_key(ino)
    folder: Any = view.peek(key)
    if folder is None:
        try:
            view.folder(ino, after_hash, limit)
        except Miss as miss:
            raise Miss(keys=(key,), folders=miss.folders) from None
        folder = need_inode(view, ino)
    if not S_ISDIR(folder.mode):
        raise FsError(ENOTDIR)
    if not folder.nlink:
        raise FsError(ENOENT, "the folder was removed")
    inode: Inode = folder
    return inode
