"""Laying stored blocks over a file as it is now: what a write does to the file's slots.

The bytes of a write are on the storage nodes as parts of blocks, one after another. They are cut at slot boundaries and
laid over the slots; a slot that would list more pieces than may be stored is named as too full, and its bytes must be
merged by whoever can read them. `data.record_data` makes the write-set of what comes out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from redfs.core.namespace.view import View
from redfs.core.records import Inode, Piece, Slot, generation_of, slot_key
from redfs.core.slots import logical_bytes, needs_merge, overlay, slot_range


class Part(NamedTuple):
    """`length` bytes of a block, from `block_offset` on."""

    block: int
    length: int
    block_offset: int


class Laid(NamedTuple):
    """The slots that a write touches."""

    before: dict[int, Slot]
    """As the view shows them; () for a hole."""
    after: dict[int, Slot]

    @property
    def full(self) -> list[int]:
        """Slots that list too many pieces to be stored."""
        return [number for number, slot in self.after.items() if needs_merge(slot)]

    @property
    def growth_bytes(self) -> int:
        """Logical bytes by which the file grows; holes count nothing. Negative where it shrinks."""
        return logical_bytes(self.after) - logical_bytes(self.before)


def cut_parts(offset: int, parts: Iterable[Part]) -> Iterator[tuple[int, Piece]]:
    """(slot, piece) of parts that lie one after another in a file from `offset` on, cut where slots end."""
    for block, length, block_offset in parts:
        for slot, start, bytes_there, at in slot_range(offset, length):
            yield slot, Piece(start, bytes_there, block, block_offset + at - offset)
        offset += length


def lay_parts(
    view: View, ino: int, inode: Inode, offset: int, parts: Iterable[Part], replaced: Container[int] = ()
) -> Laid:
    """The slots that parts from `offset` on touch, before and after; those `replaced` consist of the parts alone."""
    before: dict[int, Slot] = {}
    after: dict[int, Slot] = {}
    for number, piece in cut_parts(offset, parts):
        if number not in before:
            slot = view.get(slot_key(ino, generation_of(inode.generations, number), number))
            before[number] = cast("Slot | None", slot) or ()
            after[number] = () if number in replaced else before[number]
        after[number] = overlay(after[number], piece)
    return Laid(before, after)


def with_blocks(parts: Iterable[Part], stored: Mapping[int, int]) -> list[Part]:
    """The parts with other blocks of the same bytes in the place of some."""
    return [part._replace(block=stored.get(part.block, part.block)) for part in parts]
