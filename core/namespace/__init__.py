"""The namespace engine: all file-system meaning, as pure functions over a view of one volume's records.

An operation returns an `Outcome` (its result and a bounded write-set to apply as a whole) or raises `FsError` with
the POSIX error, or `Miss` where the view lacks records; see `view`. Permission checks are the kernel's. Caching,
ordering, open files and unrecorded data are the caller's. The engine runs in the client over its cache and in the
coordinator over the version store, with the same code.

Invariants, asserted by tests/core/test_namespace_model.py after every operation: a folder's `size` is the number of
its entries and its `nlink` two more than its subfolders; a file's `nlink` is the number of its names; every entry
names an inode that exists and whose type it repeats; an inode's `parent` and `name_hash` lead to a name of it, those
of a file that lost the name they led to nowhere; every inode is reachable from the root or has an ORPHAN record and
no links; no slot lies at or behind a file's size; every slot that is not under its range's generation is covered by an
ORPHAN record; the attribute flags tell the truth.
"""

from redfs.core.namespace.copies import all_xattrs, make_copy
from redfs.core.namespace.create import create, mkdir, mknod, readlink, symlink
from redfs.core.namespace.data import read_slots, record_data
from redfs.core.namespace.inodes import MAX_LINKS, Entry, getattr, make_root
from redfs.core.namespace.link import link
from redfs.core.namespace.lookup import MAX_READDIR_ENTRIES, Listed, lookup, readdir
from redfs.core.namespace.remove import Removed, release, rmdir, unlink
from redfs.core.namespace.rename import RENAME_EXCHANGE, RENAME_NOREPLACE, Renamed, rename
from redfs.core.namespace.setattr import setattr
from redfs.core.namespace.truncate import slot_is_dead
from redfs.core.namespace.view import Context, FolderPage, MemoryView, Miss, Outcome, PartialView, View, WriteSet
from redfs.core.namespace.xattrs import XATTR_CREATE, XATTR_REPLACE, getxattr, listxattr, removexattr, setxattr

__all__ = [
    "MAX_LINKS",
    "MAX_READDIR_ENTRIES",
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "XATTR_CREATE",
    "XATTR_REPLACE",
    "Context",
    "Entry",
    "FolderPage",
    "Listed",
    "MemoryView",
    "Miss",
    "Outcome",
    "PartialView",
    "Removed",
    "Renamed",
    "View",
    "WriteSet",
    "all_xattrs",
    "create",
    "getattr",
    "getxattr",
    "link",
    "listxattr",
    "lookup",
    "make_copy",
    "make_root",
    "mkdir",
    "mknod",
    "read_slots",
    "readdir",
    "readlink",
    "record_data",
    "release",
    "removexattr",
    "rename",
    "rmdir",
    "setattr",
    "setxattr",
    "slot_is_dead",
    "symlink",
    "unlink",
]
