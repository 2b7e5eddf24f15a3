"""Writes laid over slots, against the same bytes in a plain array; and opening by name."""

from __future__ import annotations

from errno import EEXIST, EISDIR, ENOENT, ESTALE
from stat import S_IFREG, S_ISUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.core.errors import FsError
from redfs.core.ids import ROOT_INO
from redfs.core.namespace import Context, MemoryView, create, make_root, mkdir, read_slots, setattr, symlink
from redfs.core.namespace.data import record_data
from redfs.core.namespace.inodes import need_inode
from redfs.core.namespace.opening import O_EXCL, O_TRUNC, create_or_open, open_inode
from redfs.core.namespace.written import Part, cut_parts, lay_parts, with_blocks
from redfs.core.records import MAX_PIECES, SLOT_BYTES, Inode, Piece, inode_key, slot_key
from redfs.core.slots import merge_plan

CTX = Context(1000, 1000, 1_000)
FILE = 2
MODEL_BYTES = 3 * SLOT_BYTES


def volume() -> MemoryView:
    view = MemoryView(make_root(1, hash_seed=7, family=1))
    view.apply(create(view, CTX, ROOT_INO, b"f", 0o644, FILE).writes)
    return view


class Blocks:
    """Blocks in memory: each holds bytes that no other one has."""

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}

    def add(self, data: bytes) -> int:
        number = len(self.data) + 1
        self.data[number] = data
        return number

    def part(self, data: bytes, lead: int = 0) -> Part:
        """The data as a part of a block that has `lead` other bytes before it."""
        lead = min(lead, SLOT_BYTES - len(data))
        return Part(self.add(b"\xee" * lead + data), len(data), lead)

    def read(self, view: MemoryView) -> bytes:
        """The file's bytes as a reader puts them together."""
        size = need_inode(view, FILE).size
        out = bytearray(size)
        for number, slot in enumerate(read_slots(view, FILE, 0, 1 << 20).value):
            for piece in slot:
                at = number * SLOT_BYTES + piece.offset
                out[at : at + piece.length] = self.data[piece.block][piece.block_offset :][: piece.length]
        assert len(out) == size
        return bytes(out)


def write(view: MemoryView, blocks: Blocks, offset: int, parts: list[Part], now_ns: int) -> int:
    """As the coordinator and a client do it together: full slots are merged and replaced. Slots that were full."""
    inode = need_inode(view, FILE)
    laid = lay_parts(view, FILE, inode, offset, parts)
    full = laid.full
    for number in full:
        plan = merge_plan(laid.after[number])
        merged = b"".join(
            bytes(e.length) if not e.block else blocks.data[e.block][e.block_offset :][: e.length] for e in plan.extents
        )
        laid.after[number] = (Piece(plan.offset, plan.length, blocks.add(merged), 0),)
    assert not laid.full
    view.apply(record_data(view, FILE, laid.after, offset + sum(p.length for p in parts), now_ns, now_ns).writes)
    return len(full)


operations = st.lists(
    st.tuples(
        st.sampled_from(["write", "append", "truncate"]),
        st.one_of(
            st.integers(0, MODEL_BYTES),
            st.sampled_from([0, SLOT_BYTES - 1, SLOT_BYTES, SLOT_BYTES + 1, 2 * SLOT_BYTES]),
            st.integers(0, 400),
        ),
        st.lists(
            st.tuples(st.one_of(st.integers(1, 40), st.sampled_from([SLOT_BYTES, SLOT_BYTES - 7])), st.integers(0, 64)),
            min_size=1,
            max_size=3,
        ),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_what_is_written_is_what_an_array_holds(steps: list[tuple[str, int, list[tuple[int, int]]]]) -> None:
    view, blocks, model = volume(), Blocks(), bytearray()
    for step, (kind, position, lengths) in enumerate(steps):
        if kind == "truncate":
            view.apply(setattr(view, CTX, FILE, size=position).writes)
            model = bytearray(bytes(model)[:position].ljust(position, b"\0"))
            continue
        chunks = [bytes([1 + (step + at) % 200]) * length for at, (length, _) in enumerate(lengths)]
        parts = [blocks.part(chunk, lead) for chunk, (_, lead) in zip(chunks, lengths, strict=True)]
        offset = need_inode(view, FILE).size if kind == "append" else position
        write(view, blocks, offset, parts, step)
        data = b"".join(chunks)
        if offset > len(model):
            model += bytes(offset - len(model))
        model[offset : offset + len(data)] = data
    assert blocks.read(view) == bytes(model)


def test_a_slot_with_too_many_pieces_is_named() -> None:
    view, blocks = volume(), Blocks()
    for at in range(MAX_PIECES):
        assert write(view, blocks, 100 * at, [blocks.part(b"x")], at) == 0
    laid = lay_parts(view, FILE, need_inode(view, FILE), SLOT_BYTES - 1, [blocks.part(b"y" * 3)])
    assert laid.full == [0]
    assert len(laid.after[0]) == MAX_PIECES + 1
    assert list(laid.after[1]) == [Piece(0, 2, laid.after[0][-1].block, 1)]
    assert laid.growth_bytes == 3


def test_a_replaced_slot_has_nothing_of_before() -> None:
    view, blocks = volume(), Blocks()
    write(view, blocks, 0, [blocks.part(b"old" * 100)], 1)
    laid = lay_parts(view, FILE, need_inode(view, FILE), 10, [Part(9, 5, 0)], {0})
    assert laid.after == {0: (Piece(10, 5, 9, 0),)}
    assert laid.growth_bytes == 5 - 300


def test_parts_are_cut_where_slots_end() -> None:
    cut = list(cut_parts(SLOT_BYTES - 2, [Part(1, 5, 10), Part(2, 1, 0)]))
    assert cut == [(0, Piece(SLOT_BYTES - 2, 2, 1, 10)), (1, Piece(0, 3, 1, 12)), (1, Piece(3, 1, 2, 0))]


def test_blocks_are_substituted() -> None:
    assert with_blocks([Part(1, 5, 10), Part(2, 1, 0)], {1: 7}) == [Part(7, 5, 10), Part(2, 1, 0)]


# ---------------------------------------------------------------- opening


def no_number() -> int:
    raise AssertionError("nothing is made, so no number is taken")


def test_a_file_is_made_where_there_is_none_and_opened_where_there_is_one() -> None:
    view = volume()
    made = create_or_open(view, CTX, ROOT_INO, b"new", 0o640, 0, lambda: 9)
    assert (made.value.entry.ino, made.value.existed) == (9, False)
    assert made.value.entry.inode.mode == S_IFREG | 0o640
    view.apply(made.writes)
    again = create_or_open(view, CTX, ROOT_INO, b"new", 0o600, 0, no_number)
    assert again.value == (made.value.entry, True)
    assert again.writes == {}


def test_exclusive_making_fails_where_something_is() -> None:
    for name in (b"f", b"d", b"l"):
        with pytest.raises(FsError) as error:
            create_or_open(with_others(), CTX, ROOT_INO, name, 0o600, O_EXCL, no_number)
        assert error.value.errno == EEXIST


def with_others() -> MemoryView:
    view = volume()
    view.apply(mkdir(view, CTX, ROOT_INO, b"d", 0o755, 3).writes)
    view.apply(symlink(view, CTX, ROOT_INO, b"l", b"f", 4).writes)
    return view


@pytest.mark.parametrize(("name", "errno"), [(b"d", EISDIR), (b"l", ESTALE)])
def test_what_is_no_file_is_not_opened_as_one(name: bytes, errno: int) -> None:
    with pytest.raises(FsError) as error:
        create_or_open(with_others(), CTX, ROOT_INO, name, 0o600, 0, no_number)
    assert error.value.errno == errno


def test_opening_with_truncation_cuts_and_takes_privileges() -> None:
    view, blocks = volume(), Blocks()
    write(view, blocks, 0, [blocks.part(b"data")], 1)
    view.apply(setattr(view, CTX, FILE, mode=0o4755).writes)
    outcome = create_or_open(view, Context(5, 5, 77), ROOT_INO, b"f", 0, O_TRUNC, no_number)
    inode = outcome.value.entry.inode
    assert (inode.size, inode.mtime_ns, inode.mode & S_ISUID) == (0, 77, 0)
    assert outcome.writes[slot_key(FILE, 1, 0)] is None
    as_root = open_inode(view, Context(0, 0, 77), FILE, O_TRUNC)
    assert as_root.value.mode & S_ISUID


def test_opening_by_number() -> None:
    view = with_others()
    for ino in (ROOT_INO, FILE, 3):
        found = view.get(inode_key(ino))
        assert isinstance(found, Inode)
        assert open_inode(view, CTX, ino, 0).value == found
        assert open_inode(view, CTX, ROOT_INO, O_TRUNC).writes == {}
    with pytest.raises(FsError) as error:
        open_inode(view, CTX, 99, 0)
    assert error.value.errno == ENOENT
