"""A node's journal: what it acknowledged is there after any crash, and only one writer may write.

Power goes at any operation of the disk; a model holds the frames that must be there, and the one that may be.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import pytest
import xxhash

from redfs.core.errors import Busy, Fenced, InvalidArgument, NoSpace, NotFound, Unavailable
from redfs.core.journal import (
    FILE_HEADER_BYTES,
    CheckpointEnd,
    JournalSet,
    Point,
    encode_frame,
    encode_piece,
    piece_checksum,
    read_lists_file,
)
from redfs.storage_node.disk import DiskFailed
from redfs.storage_node.journal import Journal, Writer
from tests.simulation.disk import PowerLost, SimulatedDisk

POOL = "0123456789abcdef"
BASE = Point(10, 100)
SMALL_FILES = 600


class Frame(NamedTuple):
    before: Point
    after: Point
    data: bytes


def frames_behind(point: Point, count: int, term: int = 1, size: int = 100) -> list[Frame]:
    made = []
    for _ in range(count):
        value = term.to_bytes(8) * (size // 8)
        data, after = encode_frame(term, point.chain, [(point.position + 1, [("meta", b"key", value)])])
        made.append(Frame(point, after, data))
        point = after
    return made


class Rig:
    """A journal on a disk through its lives."""

    def __init__(self, seed: int = 0, capacity_bytes: int = 1 << 40) -> None:
        self.disk = SimulatedDisk(seed, capacity_bytes)
        self.failures: list[DiskFailed] = []
        self.journal: Journal
        self.start()

    def start(self) -> Journal:
        self.journal = Journal(self.disk, lambda: POOL, self.failures.append, SMALL_FILES)
        self.journal.open()
        return self.journal

    def power_cycle(self) -> Journal:
        self.disk.restart()
        return self.start()

    def writer(self, term: int = 1) -> Writer:
        return self.journal.open_writer(term, [])[0]

    def begun(self, term: int = 1) -> Writer:
        writer = self.writer(term)
        writer.reset(BASE)
        return writer

    def end(self, term: int, *points: Point) -> Point | None:
        """Where the lists end."""
        return self.journal.open_writer(term, list(points))[1].end

    def checkpoint(self, point: Point, term: int = 1, pieces: int = 2) -> None:
        self.journal.begin_checkpoint(term, point)
        digest = xxhash.xxh3_64()
        for number in range(pieces):
            piece = encode_piece(number, [("meta", bytes([number]), b"v" * 50)])
            self.journal.add_piece(term, piece)
            digest.update(piece_checksum(piece))
        self.journal.end_checkpoint(term, CheckpointEnd(pieces, pieces, digest.intdigest()))

    def names(self) -> list[str]:
        return [name for name in self.disk.list() if not name.endswith(".json")]

    def held(self) -> list[Point]:
        """Points of all lists, oldest first."""
        points = []
        for name in self.names():
            if name.endswith(".lists"):
                raw = self.disk.read(name) or b""
                points += [head.after for _, head in read_lists_file(raw).frames]
        return points


def a_life(rig: Rig, acknowledged: list[Point]) -> None:
    """Lists over several files, a checkpoint between, a cut, and old files dropped."""
    writer = rig.begun()
    frames = frames_behind(BASE, 8)
    for frame in frames[:5]:
        acknowledged.append(writer.append(frame.before, frame.data))
    rig.checkpoint(frames[2].after)
    for frame in frames[5:]:
        acknowledged.append(writer.append(frame.before, frame.data))
    rig.journal.drop(1, frames[2].after.position)
    writer = rig.writer(2)
    for frame in frames_behind(frames[-1].after, 4, term=2):
        acknowledged.append(writer.append(frame.before, frame.data))


def operations_of_a_life() -> int:
    rig = Rig()
    before = rig.disk.operations
    a_life(rig, [])
    return rig.disk.operations - before


@pytest.mark.parametrize("seed", range(4))
def test_power_may_go_at_any_operation(seed: int) -> None:
    count = operations_of_a_life()
    assert count > 50
    whole: list[Point] = []
    a_life(Rig(), whole)
    for at in range(1, count + 1):
        rig, acknowledged = Rig(seed=seed * 1000 + at), list[Point]()
        rig.disk.lose_power_at = rig.disk.operations + at
        with pytest.raises(PowerLost):
            a_life(rig, acknowledged)
        rig.power_cycle()
        held = rig.held()
        wanted = [p for p in acknowledged if not held or p.position >= held[0].position]
        assert held[: len(wanted)] == wanted, "acknowledged and lost"
        assert held[len(wanted) :] in ([], whole[len(acknowledged) : len(acknowledged) + 1])
        if acknowledged:
            assert held, "acknowledged and lost"
        # And it goes on from where it is.
        end = rig.end(9)
        if end is not None:
            (frame,) = frames_behind(end, 1, term=9)
            rig.journal.open_writer(9, [end])[0].append(frame.before, frame.data)
            rig.power_cycle()
            assert rig.held()[-1] == frame.after


def test_a_frame_that_a_crash_cut_short_is_cut_off_before_the_next_one() -> None:
    rig = Rig()
    writer = rig.begun()
    first, second = frames_behind(BASE, 2)
    writer.append(first.before, first.data)
    name = rig.names()[-1]
    rig.disk.open(name).pwritev([second.data[:-3]], FILE_HEADER_BYTES + len(first.data))
    rig.start()
    assert rig.end(2) == first.after
    assert len(rig.disk.read(name) or b"") == FILE_HEADER_BYTES + len(first.data)


def test_a_lower_term_is_refused_also_after_a_crash() -> None:
    rig = Rig()
    old = rig.begun(term=5)
    frame, after = frames_behind(BASE, 2, term=5)
    old.append(frame.before, frame.data)
    rig.journal.fence(6)
    with pytest.raises(Fenced):
        old.append(after.before, after.data)
    rig.power_cycle()
    with pytest.raises(Fenced):
        rig.writer(5)
    with pytest.raises(Fenced):
        rig.journal.note_set(JournalSet(5, 9, (1,), (1,)))
    with pytest.raises(Fenced):
        rig.journal.begin_checkpoint(5, BASE)
    with pytest.raises(Fenced):
        rig.journal.drop(5, 0)
    rig.writer(6)


def test_only_the_newest_writer_of_a_term_writes() -> None:
    rig = Rig()
    first = rig.begun()
    frames = frames_behind(BASE, 2)
    first.append(frames[0].before, frames[0].data)
    second = rig.writer()
    second.append(frames[1].before, frames[1].data)
    with pytest.raises(Busy):  # late on a connection that was given up: it would cut off what followed
        first.append(frames[1].before, frames[1].data)
    assert rig.held() == [frame.after for frame in frames]


def test_a_gap_is_refused_with_where_to_send_from() -> None:
    rig = Rig()
    writer = rig.begun()
    first, second, third = frames_behind(BASE, 3)
    writer.append(first.before, first.data)
    with pytest.raises(InvalidArgument, match="ends with list 11, not with 12"):
        writer.append(third.before, third.data)
    other = frames_behind(Point(11, 5), 1)[0]
    with pytest.raises(InvalidArgument):  # the same number in another history
        writer.append(other.before, other.data)
    writer.append(second.before, second.data)
    writer.append(third.before, third.data)
    assert rig.held() == [first.after, second.after, third.after]


def test_what_nobody_committed_is_cut_off_by_what_follows() -> None:
    rig = Rig()
    writer = rig.begun()
    kept, lost = frames_behind(BASE, 2)
    writer.append(kept.before, kept.data)
    writer.append(lost.before, lost.data)
    new, opened = rig.journal.open_writer(2, [kept.after, BASE])
    assert (opened.match, opened.end) == (kept.after, lost.after)
    (instead,) = frames_behind(kept.after, 1, term=2)
    new.append(instead.before, instead.data)
    rig.power_cycle()
    assert rig.held() == [kept.after, instead.after]


def test_a_frame_that_is_sent_again_changes_nothing() -> None:
    rig = Rig()
    writer = rig.begun()
    first, second = frames_behind(BASE, 2)
    writer.append(first.before, first.data)
    writer.append(second.before, second.data)
    before = rig.disk.operations
    assert writer.append(first.before, first.data) == first.after
    assert rig.disk.operations == before
    assert rig.held() == [first.after, second.after]


def test_old_files_go_only_behind_a_newer_complete_checkpoint() -> None:
    rig = Rig()
    writer = rig.begun()
    rig.checkpoint(BASE)
    frames = frames_behind(BASE, 9)
    for frame in frames:
        writer.append(frame.before, frame.data)
    before = rig.names()
    assert len([name for name in before if name.endswith(".lists")]) >= 3
    rig.journal.drop(1, BASE.position + 5)
    assert rig.names() == before, "no checkpoint holds these lists"
    rig.journal.begin_checkpoint(1, frames[-1].after)
    rig.journal.add_piece(1, encode_piece(0, []))
    rig.journal.drop(1, BASE.position + 5)
    assert set(before) <= set(rig.names()), "a checkpoint that is not complete is none"
    rig.checkpoint(frames[-1].after)
    rig.journal.drop(1, frames[-1].after.position)
    left = rig.names()
    assert len([name for name in left if name.endswith(".checkpoint")]) == 1
    assert len([name for name in left if name.endswith(".lists")]) == 1
    rig.power_cycle()
    opened = rig.journal.open_writer(2, [frames[-1].after])[1]
    assert (opened.whole, opened.match) == (True, frames[-1].after)


def test_a_checkpoint_of_another_run_makes_nothing_whole() -> None:
    rig = Rig()
    writer = rig.begun()
    rig.checkpoint(BASE)
    assert rig.journal.open_writer(1, [BASE])[1].whole
    writer = rig.writer()
    later = Point(50, 500)
    writer.reset(later)
    for restarted in (False, True):
        if restarted:
            rig.power_cycle()
        assert not rig.journal.open_writer(1, [later])[1].whole
        rig.journal.drop(1, 0)
        assert len(rig.names()) == 3, "the old checkpoint and its lists may be all that there is"
    rig.checkpoint(later)
    opened = rig.journal.open_writer(1, [later])[1]
    assert opened.whole
    rig.journal.drop(1, later.position)
    assert len(rig.names()) == 2


def test_a_checkpoint_without_an_end_is_removed() -> None:
    rig = Rig()
    rig.begun()
    rig.journal.begin_checkpoint(1, BASE)
    rig.journal.add_piece(1, encode_piece(0, [("meta", b"a", b"1")]))
    assert len(rig.names()) == 2
    rig.disk.kill()
    rig.start()
    assert [name for name in rig.names() if name.endswith(".checkpoint")] == []
    assert not rig.journal.open_writer(1, [BASE])[1].whole


def test_pieces_are_checked() -> None:
    rig = Rig()
    rig.begun()
    rig.journal.begin_checkpoint(1, BASE)
    rig.journal.add_piece(1, encode_piece(0, []))
    with pytest.raises(InvalidArgument, match="other pieces than were sent"):
        rig.journal.end_checkpoint(1, CheckpointEnd(2, 0, 0))
    with pytest.raises(InvalidArgument, match="begin it again"):
        rig.journal.add_piece(1, encode_piece(1, []))


def test_damage_in_the_middle_is_no_torn_end() -> None:
    rig = Rig()
    writer = rig.begun()
    rig.checkpoint(BASE)
    frames = frames_behind(BASE, 3)
    for frame in frames:
        writer.append(frame.before, frame.data)
    name = rig.names()[0]
    rig.disk.flip_bit(name, FILE_HEADER_BYTES + len(frames[0].data) + 70)
    size = len(rig.disk.read(name) or b"")
    rig.power_cycle()
    assert len(rig.disk.read(name) or b"") == size, "what is behind the damage was acknowledged"
    opened = rig.journal.open_writer(1, [frame.after for frame in frames])[1]
    assert (opened.match, opened.whole) == (None, False)


def test_a_full_disk_refuses_a_frame_and_keeps_the_rest() -> None:
    rig = Rig(capacity_bytes=6 * 4096)
    writer = rig.begun()
    frames = frames_behind(BASE, 40, size=4000)
    done: list[Point] = []

    def fill() -> None:
        for frame in frames:
            done.append(writer.append(frame.before, frame.data))

    with pytest.raises(NoSpace):
        fill()
    assert 0 < len(done) < 6
    rig.power_cycle()
    assert rig.held() == done
    assert rig.failures == []


def test_a_sync_that_fails_ends_the_writing() -> None:
    rig = Rig()
    writer = rig.begun()
    (first,) = frames_behind(BASE, 1)
    rig.disk.fail_next_sync = True
    with pytest.raises(Unavailable):
        writer.append(first.before, first.data)
    assert len(rig.failures) == 1
    with pytest.raises(Unavailable):
        writer.append(first.before, first.data)


def test_the_newest_record_of_a_set_stays() -> None:
    rig = Rig()
    newer, older = JournalSet(2, 2, (1, 2), (1, 2, 3)), JournalSet(2, 1, (1, 2, 3), (1, 2, 3))
    assert rig.journal.note_set(newer) == newer
    assert rig.journal.note_set(older) == newer
    rig.power_cycle()
    assert JournalSet.from_fields(rig.journal.state()["set"]) == newer


def test_files_are_read_and_nothing_else() -> None:
    rig = Rig()
    writer = rig.begun()
    (frame,) = frames_behind(BASE, 1)
    writer.append(frame.before, frame.data)
    ((name, size),) = rig.journal.state()["files"]
    assert rig.journal.read(name, FILE_HEADER_BYTES, size) == frame.data
    for wrong in ("journal.json", "../node.json", "00000099.lists", "0000000a.lists"):
        with pytest.raises(NotFound):
            rig.journal.read(wrong, 0, 10)
    with contextlib.suppress(InvalidArgument):
        rig.journal.read(name, 0, 1 << 30)
        pytest.fail("too much at once")
