"""The journal's formats: bytes that stay, damage that is found, and what half of the nodes can know."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redfs.core.errors import WrongFormat
from redfs.core.journal import (
    END_BYTES,
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    Candidate,
    CheckpointEnd,
    FileHeader,
    FileKind,
    JournalSet,
    Point,
    check_frame,
    choose_keepers,
    decode_end,
    decode_file_header,
    decode_lists,
    decode_piece,
    encode_end,
    encode_file_header,
    encode_frame,
    encode_piece,
    is_last_set,
    is_recorded,
    majority,
    pack_points,
    read_lists_file,
    term_of,
    unpack_points,
)
from redfs.core.kv import Change

POOL = "0123456789abcdef"
BEFORE = Point(7, 77)
LISTS: list[tuple[int, list[Change]]] = [
    (8, [("meta", b"a", b"1"), ("meta", b"b", None), ("blocks", b"\0\1", b"")]),
    (9, [("meta", b"a", b"22")]),
]


def a_file(*frames: list[tuple[int, list[Change]]], base: Point = BEFORE) -> tuple[bytes, list[int]]:
    """A file of lists, and where its frames begin."""
    data = encode_file_header(FileHeader(FileKind.LISTS, POOL, base))
    offsets = []
    for lists in frames:
        frame, base = encode_frame(3, base.chain, lists)
        offsets.append(len(data))
        data += frame
    return data, offsets


def test_the_bytes_of_a_file_header() -> None:
    data = encode_file_header(FileHeader(FileKind.LISTS, POOL, Point(7, 77)))
    assert data.hex() == (
        "52454446534a4e4c000100010000000030313233343536373839616263646566"
        "0000000000000007000000000000004d" + data[-8:].hex()
    )
    assert data[-8:].hex() == "8fa343b8685dd4f0"
    assert len(data) == FILE_HEADER_BYTES
    assert decode_file_header(data) == FileHeader(FileKind.LISTS, POOL, Point(7, 77))
    for wrong in (b"", b"X" + data[1:], data[:-1], data[:9] + b"\2" + data[10:], data[:13] + b"\1" + data[14:]):
        with pytest.raises(WrongFormat):
            decode_file_header(wrong)


def test_the_bytes_of_a_frame() -> None:
    frame, after = encode_frame(3, 77, LISTS)
    assert frame[:FRAME_HEADER_BYTES].hex() == (
        "4a4c535400000051000000000000000300000000000000080000000000000009000000000000004d51637de520e77f96"
        "b5f7e884f9e5b7b8"
    )
    assert frame[FRAME_HEADER_BYTES:].hex() == (
        "0000000000000008000204000000026d6574610001000000026131000100000000620600000001626c6f636b73000200"
        "00000100010000000000000009000104000000016d657461000100000003613232"
    )
    assert after == Point(9, 0x51637DE520E77F96)
    assert list(decode_lists(frame)) == LISTS
    head = check_frame(frame)
    assert (head.before, head.after, head.term) == (Point(7, 77), after, 3)


def test_the_bytes_of_a_piece_and_an_end() -> None:
    piece = encode_piece(2, [("meta", b"a", b"1")])
    assert piece.hex() == "4a5043450000000200000011d80daf72166931af04000000016d6574610001000000026131"
    assert decode_piece(piece, 2) == [("meta", b"a", b"1")]
    end = encode_end(CheckpointEnd(3, 40, 5))
    assert end.hex() == "4a454e440000000300000000000000280000000000000005fdc6270dd1302e1c"
    assert len(end) == END_BYTES
    assert decode_end(end) == CheckpointEnd(3, 40, 5)
    with pytest.raises(WrongFormat):
        decode_piece(piece, 1)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["meta", "x"]), st.binary(max_size=6), st.none() | st.binary(max_size=20)), max_size=6
)


@given(st.lists(CHANGES, min_size=1, max_size=4), st.integers(0, 2**64 - 1), st.integers(1, 2**63))
def test_lists_come_out_as_they_went_in(lists: list[list[Change]], chain: int, first: int) -> None:
    numbered = [(first + at, changes) for at, changes in enumerate(lists)]
    frame, after = encode_frame(term_of(1, 2), chain, numbered)
    assert list(decode_lists(frame)) == numbered
    assert after.position == first + len(lists) - 1
    assert unpack_points(pack_points([after, Point(1, 2)])) == [after, Point(1, 2)]


def test_every_flipped_bit_of_a_frame_is_found() -> None:
    frame, _ = encode_frame(3, 77, LISTS)
    for at in range(len(frame)):
        for bit in range(8):
            damaged = bytearray(frame)
            damaged[at] ^= 1 << bit
            with pytest.raises(WrongFormat):
                check_frame(damaged)


def test_every_flipped_bit_of_a_piece_and_an_end_is_found() -> None:
    piece, end = encode_piece(0, [("meta", b"a", b"1")]), encode_end(CheckpointEnd(1, 1, 7))
    for at in range(len(piece)):
        with pytest.raises(WrongFormat):
            decode_piece(piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :], 0)
    for at in range(len(end)):
        with pytest.raises(WrongFormat):
            decode_end(end[:at] + bytes([end[at] ^ 1]) + end[at + 1 :])


def test_a_file_cut_anywhere_holds_its_whole_frames() -> None:
    data, offsets = a_file(LISTS[:1], LISTS[1:], [(10, [("meta", b"c", b"3")])])
    for end in range(FILE_HEADER_BYTES, len(data) + 1):
        found = read_lists_file(data[:end])
        whole = [at for at, next_at in itertools.pairwise([*offsets, len(data)]) if next_at <= end]
        assert [at for at, _ in found.frames] == whole
        assert not found.damaged


def test_a_frame_behind_a_damaged_one_tells_that_something_is_lost() -> None:
    data, offsets = a_file(LISTS[:1], LISTS[1:], [(10, [("meta", b"c", b"3")])])
    damaged = bytearray(data)
    damaged[offsets[1] + FRAME_HEADER_BYTES] ^= 1
    found = read_lists_file(damaged)
    assert (len(found.frames), found.damaged) == (1, True)
    last = bytearray(data)
    last[offsets[2] + FRAME_HEADER_BYTES] ^= 1
    assert not read_lists_file(last).damaged, "as a write that was cut short"


def test_a_frame_of_another_history_does_not_follow() -> None:
    data, _ = a_file(LISTS[:1])
    stranger, _ = encode_frame(3, 78, LISTS[1:])
    found = read_lists_file(data + stranger)
    assert found.last.position == 8


def test_lists_that_do_not_follow_one_another_are_refused() -> None:
    frame, _ = encode_frame(3, 77, [(8, []), (10, [])])
    with pytest.raises(WrongFormat, match="stands where 9 should"):
        list(decode_lists(frame))


@given(st.integers(1, 9), st.data())
def test_whoever_hears_from_half_hears_of_every_record(count: int, data: st.DataObject) -> None:
    known = tuple(range(count))
    answered = data.draw(st.sets(st.sampled_from(known)))
    heard = data.draw(st.sets(st.sampled_from(known)))
    if is_recorded(answered, known) and is_last_set(heard, JournalSet(1, 1, (0,), known)):
        assert answered & heard
    assert is_last_set(known[: (count + 1) // 2], JournalSet(1, 1, (0,), known)), "half is enough"


def test_a_record_that_changes_who_is_known_is_on_most_of_both() -> None:
    assert not is_recorded({2, 3, 4}, [1], [1, 2, 3, 4])
    assert is_recorded({1, 2, 3}, [1], [1, 2, 3, 4])
    assert is_recorded({1}, [], [1])
    assert majority(4) == 3
    assert JournalSet(2, 1).age > JournalSet(1, 9).age


def test_a_set_comes_out_as_it_went_in() -> None:
    record = JournalSet(7, 3, (1, 2), (1, 2, 5))
    assert JournalSet.from_fields(record.to_fields()) == record
    with pytest.raises(WrongFormat):
        JournalSet.from_fields({"term": 1})


def test_keepers_are_apart_where_they_can_be() -> None:
    one_disk = [Candidate(n, "", "host:1") for n in (1, 2, 3)]
    assert choose_keepers(one_disk, 3) == [1]
    assert choose_keepers(one_disk, 3, share_disks=True) == [1, 2, 3]
    assert choose_keepers(one_disk, 3, keep=[2]) == [2]
    racks = [Candidate(n, "rack-1" if n < 4 else f"rack-{n}", f"host-{n}") for n in (1, 2, 3, 4, 5)]
    assert choose_keepers(racks, 3) == [1, 4, 5]
    assert choose_keepers(racks[:3], 3) == [1, 2, 3], "of one domain rather than too few"
    assert choose_keepers(racks, 0) == []


def test_a_restore_outdoes_every_start() -> None:
    assert term_of(1, 0) > term_of(0, 2**32 - 1)
