"""Where a folder is."""

from __future__ import annotations

from errno import ELOOP, ENOENT
from typing import cast

from redfs.core.errors import FsError
from redfs.core.ids import ROOT_INO
from redfs.core.namespace.inodes import need_inode
from redfs.core.namespace.view import Outcome, View
from redfs.core.records import DirBucket, dirent_key

MAX_DEPTH = 1024
"""Folders in one another that are followed."""


def folder_path(view: View, ino: int) -> Outcome[tuple[bytes, ...]]:
    """The names that lead from the top to a folder, () for the top. ENOENT where it has none, ELOOP for too many."""
    names: list[bytes] = []
    while ino != ROOT_INO:
        if len(names) >= MAX_DEPTH:
            raise FsError(ELOOP)
        inode = need_inode(view, ino)
        bucket = cast("DirBucket | None", view.get(dirent_key(inode.parent, inode.name_hash))) or ()
        found = next((entry.name for entry in bucket if entry.ino == ino), None)
        if found is None:
            raise FsError(ENOENT)
        names.append(found)
        ino = inode.parent
    return Outcome(tuple(reversed(names)), {})
