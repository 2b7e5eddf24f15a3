"""Where a file's slots are kept, and cutting files short in a bounded number of writes.

Slots are kept under a data generation. A cut of few slots deletes their keys. A longer one starts a new generation
from the first slot that goes: what is kept under the old one from there on is dead at once, can never show again, and
is deleted later by the reaper, for which an ORPHAN(inode, old generation) record is left. `slot_is_dead` is all that
the reaper needs to know; it deletes the ORPHAN record with its last slots, and only if the record still has the value
that it started from, because a later cut of the same generation writes it anew.

No slot is ever stored at or behind a file's size: cutting a file removes them, and recording data respects the size.
So growing a file needs no look at its slots.
"""

from __future__ import annotations

from errno import EFBIG
from stat import S_ISREG
from typing import cast

from redfs.core.errors import FsError
from redfs.core.namespace.view import View, WriteSet
from redfs.core.records import (
    MAX_GENERATION_RANGES,
    SLOT_BYTES,
    GenerationRange,
    Inode,
    Orphan,
    Slot,
    generation_of,
    orphan_key,
    slot_key,
)
from redfs.core.slots import cut, slot_count

MAX_EAGER_SLOTS = 64
"""Slot keys that a cut deletes itself (8 MiB of file): more would make it slower than leaving them to the reaper."""
MAX_EAGER_SLOTS_FULL = 8192
"""The same where the inode cannot list another generation: 1 GiB of file, a write-set of some 300 KiB."""
MAX_GENERATION = 0xFFFF_FFFF

Generations = tuple[GenerationRange, ...]


def slot_is_dead(inode: Inode | None, generation: int, slot: int) -> bool:
    """Whether a slot kept under that generation can never be read again; `inode` as it is now, None if it is gone."""
    return inode is None or generation_of(inode.generations, slot) != generation


def drop_data(ino: int, inode: Inode, now_ns: int, writes: WriteSet) -> None:
    """Adds what ends all data of an inode that itself goes."""
    if not S_ISREG(inode.mode):
        return
    slots = slot_count(inode.size)
    if slots <= MAX_EAGER_SLOTS:
        _delete_slots(ino, inode.generations, 0, slots, writes)
    else:
        _leave_orphans(ino, inode.generations, 0, slots, now_ns, writes)


def cut_data(view: View, ino: int, inode: Inode, size: int, now_ns: int, writes: WriteSet) -> tuple[Generations, int]:
    """Adds what cuts a file to `size` bytes, less than it has; returns its new generations and next_generation.

    Reads one slot where the cut goes through it. EFBIG where more than 1 GiB goes from a file that was cut in
    MAX_GENERATION_RANGES places already, each behind the one before; cutting it to nothing always works.
    """
    generations, next_generation = inode.generations, inode.next_generation
    kept, rest = divmod(size, SLOT_BYTES)
    if rest:
        key = slot_key(ino, generation_of(generations, kept), kept)
        slot = cast("Slot | None", view.get(key))
        if slot:
            shorter = cut(slot, rest)
            if shorter != slot:
                writes[key] = shorter or None
        kept += 1
    end = slot_count(inode.size)
    if end - kept <= MAX_EAGER_SLOTS:
        _delete_slots(ino, generations, kept, end, writes)
        return _joined(generations, kept), next_generation
    before = tuple([r for r in generations if r.first_slot < kept])
    if len(before) < MAX_GENERATION_RANGES and next_generation < MAX_GENERATION:
        _leave_orphans(ino, generations, kept, end, now_ns, writes)
        return (*before, GenerationRange(kept, next_generation)), next_generation + 1
    if end - kept <= MAX_EAGER_SLOTS_FULL:
        _delete_slots(ino, generations, kept, end, writes)
        return _joined(generations, kept), next_generation
    raise FsError(EFBIG, "the file was cut in too many places for a cut of this length: cut less at once, or copy it")


def _joined(generations: Generations, first: int) -> Generations:
    """The ranges once no slot from `first` on exists: those behind it are one, under the newest generation.

    The newest generation was never used before its range, so nothing dead can show there. The range that `first` lies
    in stays as it is: behind it there may be dead slots of its generation.
    """
    behind = [r for r in generations if r.first_slot >= first]
    if len(behind) < 2:
        return generations
    return (*generations[: -len(behind)], GenerationRange(behind[0].first_slot, behind[-1].generation))


def _delete_slots(ino: int, generations: Generations, start: int, end: int, writes: WriteSet) -> None:
    for slot in range(start, end):
        writes[slot_key(ino, generation_of(generations, slot), slot)] = None


def _leave_orphans(ino: int, generations: Generations, start: int, end: int, now_ns: int, writes: WriteSet) -> None:
    """For each generation that keeps slots from `start` up to `end`."""
    for index, (first, generation) in enumerate(generations):
        following = generations[index + 1].first_slot if index + 1 < len(generations) else end
        if first < end and following > start:
            writes[orphan_key(ino, generation)] = Orphan(now_ns)
