"""Inodes as the operations build and change them, and the records of an empty volume.

Changed inodes are built field by field instead of with `_replace`, which costs five times as much: a program that
unpacks an archive goes through here three times per file.
"""

from __future__ import annotations

from errno import EIO, ENOENT
from stat import S_IFDIR
from typing import Any, NamedTuple

from redfs.core.errors import FsError
from redfs.core.ids import ROOT_INO
from redfs.core.namespace.view import Outcome, View, WriteSet
from redfs.core.records import ROOT_KEY, Inode, VolumeRoot, inode_key

MAX_LINKS = 0x7FFF_FFFF
"""Names of one file, and subfolders of one folder: what a signed 32-bit st_nlink shows."""

_new = tuple.__new__


NamePlace = tuple[int, int]
"""Where an inode has a name: (folder, hash of the name), as in `Inode.parent` and `Inode.name_hash`."""
NO_PLACE: NamePlace = (0, 0)
"""Of the names that an inode has left none is known."""


class Entry(NamedTuple):
    """An inode and its number."""

    ino: int
    inode: Inode


def make_root(now_ns: int, *, hash_seed: int, family: int, mode: int = 0o755, uid: int = 0, gid: int = 0) -> WriteSet:
    """The records of an empty volume: its root record and its top folder.

    `hash_seed` is a fresh secret 64-bit number; `mode` are the permission bits of the top folder.
    """
    top = Inode(S_IFDIR | mode & 0o7777, uid, gid, 2, 0, now_ns, now_ns, now_ns, now_ns, parent=ROOT_INO)
    return {ROOT_KEY: VolumeRoot(hash_seed, family), inode_key(ROOT_INO): top}


def getattr(view: View, ino: int) -> Outcome[Inode]:
    """The inode. ENOENT where there is none."""
    return Outcome(need_inode(view, ino), {})


def need_inode(view: View, ino: int) -> Inode:
    """The inode, which the caller's user may name wrongly. ENOENT where there is none."""
    record: Any = view.get(inode_key(ino))
    if record is None:
        raise FsError(ENOENT)
    inode: Inode = record
    return inode


def named_inode(view: View, ino: int) -> Inode:
    """The inode that an entry names. EIO where there is none: the metadata is damaged."""
    record: Any = view.get(inode_key(ino))
    if record is None:
        raise _dangling(ino)
    inode: Inode = record
    return inode


def named_inodes(view: View, inos: list[int]) -> list[Inode]:
    """`named_inode` for several, with one Miss."""
    records: list[Any] = view.get_many([inode_key(ino) for ino in inos])
    for ino, record in zip(inos, records, strict=True):
        if record is None:
            raise _dangling(ino)
    return records


def _dangling(ino: int) -> FsError:
    return FsError(EIO, f"an entry names inode {ino}, which does not exist: the metadata is damaged, run `redfs check`")


def changed_folder(folder: Inode, now_ns: int, entries: int, subfolders: int = 0) -> Inode:
    """The folder after `entries` more (or fewer) names, `subfolders` of them folders."""
    f: tuple[Any, ...] = folder
    head = (f[0], f[1], f[2], f[3] + subfolders, f[4] + entries, f[5], now_ns, now_ns)
    return _new(Inode, head + f[8:])


def relinked(inode: Inode, nlink: int, name: NamePlace, now_ns: int) -> Inode:
    """The inode with another number of names; `name` is one that it has then."""
    f: tuple[Any, ...] = inode
    return _new(Inode, (*f[:3], nlink, *f[4:7], now_ns, *f[8:11], *name, *f[13:]))


def moved(inode: Inode, name: NamePlace, now_ns: int) -> Inode:
    """The inode after a rename to `name`."""
    f: tuple[Any, ...] = inode
    return _new(Inode, (*f[:7], now_ns, *f[8:11], *name, *f[13:]))
