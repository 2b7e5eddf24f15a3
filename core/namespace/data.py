"""Recording what a flush has stored, and finding a file's slots to read."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EFBIG, EINVAL
from stat import S_ISREG
from typing import Any, cast

from redfs.core.errors import FsError
from redfs.core.namespace.inodes import need_inode
from redfs.core.namespace.view import Outcome, View, WriteSet
from redfs.core.records import MAX_FILE_BYTES, SLOT_BYTES, Inode, Slot, generation_of, inode_key, slot_key
from redfs.core.slots import check_slot, cut, slot_count


def record_data(
    view: View,
    ino: int,
    slots: Mapping[int, Slot],
    size: int | None,
    mtime_ns: int | None,
    ctime_ns: int | None,
) -> Outcome[Inode | None]:
    """Records the new slots of a file, its size and its times together. None, and no writes, where it is gone.

    `slots`: complete slots by slot number, () for one that is all zeros. `size`: the file is made at least this long;
    None where the data does not extend it. What lies behind the resulting size is cut. Times are kept where None.
    The slots must have been made from what this view shows now. Raises ValueError for a slot that may not be stored,
    EINVAL for what is no regular file, EFBIG above MAX_FILE_BYTES.
    """
    key = inode_key(ino)
    record: Any = view.get(key)
    if record is None:
        return Outcome(None, {})
    inode: Inode = record
    if not S_ISREG(inode.mode):
        raise FsError(EINVAL)
    new_size = inode.size if size is None or size < inode.size else size
    if new_size > MAX_FILE_BYTES:
        raise FsError(EFBIG)
    writes: WriteSet = {}
    generations = inode.generations
    for number, slot in slots.items():
        room = new_size - number * SLOT_BYTES
        if room <= 0:
            continue
        if slot and room < SLOT_BYTES:
            slot = cut(slot, room)
        check_slot(slot)
        writes[slot_key(ino, generation_of(generations, number), number)] = slot or None
    head = (
        new_size,
        inode.atime_ns,
        inode.mtime_ns if mtime_ns is None else mtime_ns,
        inode.ctime_ns if ctime_ns is None else ctime_ns,
    )
    changed: Inode = tuple.__new__(Inode, record[:4] + head + record[8:])
    writes[key] = changed
    return Outcome(changed, writes)


def read_slots(view: View, ino: int, first_slot: int, count: int) -> Outcome[list[Slot]]:
    """The slots from `first_slot` on, () for what is all zeros; fewer than `count` where the file ends."""
    inode = need_inode(view, ino)
    generations = inode.generations
    upto = min(first_slot + count, slot_count(inode.size) if S_ISREG(inode.mode) else 0)
    records = view.get_many([slot_key(ino, generation_of(generations, slot), slot) for slot in range(first_slot, upto)])
    return Outcome([cast(Slot, record or ()) for record in records], {})
