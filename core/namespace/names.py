"""Names in folders: what a name may be, where its entry is kept, and how a bucket of entries changes.

The entry of a name is kept under the keyed hash of the name, in a bucket with the other names of that hash (nearly
always none). An entry keeps its position in the bucket, and so its readdir cookie, for its life.
"""

from __future__ import annotations

from errno import EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR
from typing import Any

from redfs.core.errors import FsError
from redfs.core.namespace.inodes import NamePlace
from redfs.core.namespace.view import View
from redfs.core.records import (
    MAX_BUCKET_ENTRIES,
    MAX_NAME_BYTES,
    ROOT_KEY,
    DirBucket,
    DirEntry,
    Inode,
    Key,
    dirent_key,
    inode_key,
    name_hash,
    split_dirent_object,
)

FOLDER_TYPE = 4
"""Folder's DirEntry.file_type: S_IFDIR >> 12."""

Place = tuple[Key, Inode, Key, DirBucket]
"""(key of the folder, its inode, key of the name's bucket, the bucket, empty where there is none)."""


def name_place(bucket_key: Key) -> NamePlace:
    """What an inode with a name in that bucket records about it."""
    return split_dirent_object(bucket_key.obj)


def check_name(name: bytes) -> None:
    """Raises EINVAL for an empty name and one with `/` or NUL, ENAMETOOLONG above 255 bytes."""
    if len(name) > MAX_NAME_BYTES:
        raise FsError(ENAMETOOLONG)
    if not name or b"/" in name or b"\0" in name:
        raise FsError(EINVAL, "a name may be neither empty nor contain / or NUL")


def hash_seed(view: View, *wanted: Key) -> int:
    """The volume's seed for name hashes. `wanted`: keys that are needed anyway, named with a Miss for the root's."""
    root: Any = view.peek(ROOT_KEY)
    if root is None:
        root = view.get_many((ROOT_KEY, *wanted))[0]
        if root is None:
            raise FsError(EIO, "the volume has no root record: the metadata is damaged, run `redfs check`")
    seed: int = root.hash_seed
    return seed


def locate(view: View, parent: int, name: bytes) -> Place:
    """Where `name` is, or would be, in a folder.

    Raises ENOENT where the folder is gone, ENOTDIR where it is none, and `check_name`'s errors.
    """
    if not 0 < len(name) <= MAX_NAME_BYTES or b"/" in name or b"\0" in name:
        check_name(name)
    folder_key = inode_key(parent)
    bucket_key = dirent_key(parent, name_hash(hash_seed(view, folder_key), name))
    records: list[Any] = view.get_many((folder_key, bucket_key))
    folder: Inode | None = records[0]
    if folder is None:
        raise FsError(ENOENT)
    if folder.mode & 0o170000 != 0o040000:
        raise FsError(ENOTDIR)
    return folder_key, folder, bucket_key, records[1] or ()


def find(bucket: DirBucket, name: bytes) -> DirEntry | None:
    """The entry of that name."""
    for entry in bucket:
        if entry.name == name:
            return entry
    return None


def with_entry(bucket: DirBucket, name: bytes, ino: int, file_type: int) -> DirBucket:
    """The bucket with one more entry, at the first free position. ENOSPC where the bucket is full."""
    if not bucket:
        return (DirEntry(name, ino, file_type, 0),)
    position = 0
    for entry in bucket:
        if entry.position != position:
            break
        position += 1
    if position >= MAX_BUCKET_ENTRIES:
        raise FsError(ENOSPC, "too many names of this folder share a hash")
    return (*bucket[:position], DirEntry(name, ino, file_type, position), *bucket[position:])


def without_entry(bucket: DirBucket, gone: DirEntry) -> DirBucket:
    """The bucket without the entry; it may be empty then, and is to be deleted."""
    return tuple([entry for entry in bucket if entry is not gone])


def repointed(bucket: DirBucket, old: DirEntry, ino: int, file_type: int) -> DirBucket:
    """The bucket with the entry naming another inode; it keeps its cookie."""
    new = DirEntry(old.name, ino, file_type, old.position)
    return tuple([new if entry is old else entry for entry in bucket])
