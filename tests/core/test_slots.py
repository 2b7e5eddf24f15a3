"""The slot algebra against a plain array of bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.core.records import MAX_PIECES, SLOT_BYTES, Piece, Slot
from redfs.core.slots import (
    Extent,
    check_slot,
    cut,
    merge_plan,
    needs_merge,
    overlay,
    punch,
    resolve,
    slot_count,
    slot_range,
)

SMALL = 64
"""The model works on the first bytes of a slot."""

Cell = tuple[int, int]
"""(block, byte of it); (0, 0) for a zero."""


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    offset = draw(st.integers(0, SMALL - 1))
    length = draw(st.integers(1, SMALL - offset))
    return Piece(offset, length, draw(st.integers(1, 3)), draw(st.integers(0, 3)) + offset)


def cells_of(slot: Slot) -> list[Cell]:
    cells: list[Cell] = [(0, 0)] * SMALL
    for offset, length, block, block_offset in slot:
        for i in range(length):
            cells[offset + i] = (block, block_offset + i)
    return cells


def cells_of_extents(extents: list[Extent]) -> list[Cell]:
    return [(e.block, e.block_offset + i if e.block else 0) for e in extents for i in range(e.length)]


def written(steps: list[Piece]) -> tuple[Slot, list[Cell]]:
    slot: Slot = ()
    cells: list[Cell] = [(0, 0)] * SMALL
    for piece in steps:
        slot = overlay(slot, piece)
        for i in range(piece.length):
            cells[piece.offset + i] = (piece.block, piece.block_offset + i)
    return slot, cells


def assert_well_formed(slot: Slot) -> None:
    at = 0
    for piece in slot:
        assert type(piece) is Piece
        assert piece.offset >= at
        assert piece.length > 0
        at = piece.offset + piece.length
    assert at <= SLOT_BYTES


@given(st.lists(pieces(), max_size=30))
def test_overlay_is_writing_over(steps: list[Piece]) -> None:
    slot, cells = written(steps)
    assert_well_formed(slot)
    assert cells_of(slot) == cells


@given(st.lists(pieces(), max_size=30))
def test_the_newest_piece_is_joined_with_what_it_continues(steps: list[Piece]) -> None:
    slot, _ = written(steps)
    if not steps:
        return
    newest = steps[-1]
    for left, right in pairwise(slot):
        touches_newest = newest.offset in (right.offset, left.offset) or right.offset == newest.offset + newest.length
        continues = (
            left.block == right.block
            and left.offset + left.length == right.offset
            and left.block_offset + left.length == right.block_offset
        )
        assert not (touches_newest and continues)


@given(st.lists(pieces(), max_size=20), st.integers(0, SMALL))
def test_cut_keeps_what_lies_before_and_nothing_behind(steps: list[Piece], length: int) -> None:
    slot, cells = written(steps)
    shorter = cut(slot, length)
    assert_well_formed(shorter)
    assert cells_of(shorter) == cells[:length] + [(0, 0)] * (SMALL - length)


@given(st.lists(pieces(), max_size=20), st.integers(0, SMALL), st.integers(0, SMALL))
def test_punch_leaves_zeros(steps: list[Piece], start: int, length: int) -> None:
    slot, cells = written(steps)
    length = min(length, SMALL - start)
    punched = punch(slot, start, length)
    assert_well_formed(punched)
    assert cells_of(punched) == cells[:start] + [(0, 0)] * length + cells[start + length :]


@given(st.lists(pieces(), max_size=20), st.integers(0, SMALL), st.integers(0, SMALL))
def test_resolve_covers_the_range_end_to_end(steps: list[Piece], start: int, length: int) -> None:
    slot, cells = written(steps)
    length = min(length, SMALL - start)
    extents = resolve(slot, start, length)
    at = start
    for extent in extents:
        assert extent.offset == at
        assert extent.length > 0
        at += extent.length
    assert at == start + length
    assert cells_of_extents(extents) == cells[start : start + length]


@given(st.lists(pieces(), max_size=40))
def test_a_merge_plan_rewrites_the_slot_unchanged(steps: list[Piece]) -> None:
    slot, cells = written(steps)
    plan = merge_plan(slot)
    assert cells_of_extents(plan.extents) == cells[plan.offset : plan.offset + plan.length]
    assert all(cell == (0, 0) for cell in cells[: plan.offset] + cells[plan.offset + plan.length :])
    assert needs_merge(slot) == (len(slot) > MAX_PIECES)


@settings(max_examples=50)
@given(st.integers(0, 1 << 61), st.integers(0, 5 * SLOT_BYTES))
def test_a_byte_range_is_split_into_its_slots(offset: int, length: int) -> None:
    at = offset
    for part in slot_range(offset, length):
        assert part.file_offset == at
        assert part.slot * SLOT_BYTES + part.start == at
        assert 0 < part.length <= SLOT_BYTES - part.start
        at += part.length
    assert at == offset + length


def test_appending_to_one_block_stays_one_piece() -> None:
    slot: Slot = ()
    for i in range(100):
        slot = overlay(slot, Piece(i * 10, 10, 7, i * 10))
    assert slot == (Piece(0, 1000, 7, 0),)


def test_a_piece_that_closes_a_gap_joins_both_neighbours() -> None:
    slot = overlay(overlay((), Piece(0, 10, 7, 0)), Piece(20, 10, 7, 20))
    assert overlay(slot, Piece(10, 10, 7, 10)) == (Piece(0, 30, 7, 0),)


def test_neighbours_that_do_not_continue_one_another_stay_apart() -> None:
    slot = overlay((), Piece(0, 10, 7, 0))
    assert len(overlay(slot, Piece(10, 10, 7, 11))) == 2
    assert len(overlay(slot, Piece(10, 10, 8, 10))) == 2
    assert len(overlay(slot, Piece(11, 10, 7, 11))) == 2


def test_writing_nothing_changes_nothing() -> None:
    slot = overlay((), Piece(0, 10, 7, 0))
    assert overlay(slot, Piece(5, 0, 8, 0)) is slot
    assert punch(slot, 5, 0) is slot
    assert cut(slot, 10) is slot


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, SLOT_BYTES + 1), (SLOT_BYTES, 1), (5, -1)])
def test_what_does_not_fit_is_refused(start: int, length: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        overlay((), Piece(start, length, 1, 0))
    with pytest.raises(ValueError, match="do not fit"):
        resolve((), start, length)
    with pytest.raises(ValueError, match="do not fit"):
        punch((), start, length)


@pytest.mark.parametrize(
    "slot",
    [
        tuple(Piece(i * 2, 1, 1, 0) for i in range(MAX_PIECES + 1)),
        (Piece(10, 5, 1, 0), Piece(14, 5, 1, 0)),
        (Piece(0, 0, 1, 0),),
        (Piece(0, 1, 0, 0),),
        (Piece(SLOT_BYTES - 1, 2, 1, 0),),
        (Piece(0, 2, 1, SLOT_BYTES - 1),),
    ],
)
def test_a_slot_that_may_not_be_stored_is_refused(slot: Slot) -> None:
    with pytest.raises(ValueError, match=r"slot|piece"):
        check_slot(slot)


def test_slots_that_a_size_reaches_into() -> None:
    sizes = (0, 1, SLOT_BYTES, SLOT_BYTES + 1)
    assert [slot_count(size) for size in sizes] == [0, 1, 1, 2]
