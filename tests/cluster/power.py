"""What a disk has lost when the power is gone, by the notes of `power.c`: everything that no sync covers."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

RECORD = struct.Struct("=5Q")
WRITTEN, SYNCED = 1, 2


class Note(NamedTuple):
    """One record of the log."""

    position: int
    """In the log."""
    kind: int
    inode: int
    offset: int
    """In the file; of a sync, the log's length when it began."""
    size: int
    """Of the file before it was changed."""
    before: bytes
    """What stood at the offset, as far as the file reached."""


def notes(log: bytes) -> Iterator[Note]:
    """In the order in which they were made. One that was cut off was for a change that was not made any more."""
    position = 0
    while position + RECORD.size <= len(log):
        kind, inode, offset, size, length = RECORD.unpack_from(log, position)
        start = position + RECORD.size
        if start + length > len(log):
            return
        yield Note(position, kind, inode, offset, size, log[start : start + length])
        position = start + length


def take_back(log: Path, disk: Path) -> int:
    """Undoes on the disk what was not synced; returns how many changes. The part must not run."""
    if not log.exists():
        return 0
    found = list(notes(log.read_bytes()))
    synced: dict[int, int] = {}
    for note in found:
        if note.kind == SYNCED:
            synced[note.inode] = max(synced.get(note.inode, 0), note.offset)
    files = {path.stat().st_ino: path for path in disk.rglob("*") if path.is_file() and not path.is_symlink()}
    undone = 0
    for note in reversed(found):
        path = files.get(note.inode)
        if note.kind != WRITTEN or note.position < synced.get(note.inode, 0) or path is None:
            continue
        fd = os.open(path, os.O_WRONLY)
        try:
            if note.before:
                os.pwrite(fd, note.before, note.offset)
            os.ftruncate(fd, note.size)
        finally:
            os.close(fd)
        undone += 1
    log.unlink()
    return undone
