"""RebuildShard: a shard made here from its copy or its siblings, and never from one that is not what was stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redfs.core.errors import Corrupt, InvalidArgument, NoSpace, Unavailable
from redfs.core.segments import plan_layout
from redfs.storage_node.backing_file import file_name
from redfs.storage_node.shard_store import StoreLimits
from tests.storage_node.task_rig import SEGMENT, Pool, cut, payload_of, segment_of

MakePool = Callable[..., Pool]
PAYLOAD = payload_of(1, 300_000)


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[MakePool]:
    made: list[Pool] = []

    def make(count: int, own: int, own_limits: StoreLimits | None = None) -> Pool:
        made.append(Pool(tmp_path / str(len(made)), count, own, own_limits))
        return made[-1]

    yield make
    for pool in made:
        pool.stop()


@pytest.mark.parametrize("shard", [0, 3, 4, 5], ids=["first data", "last data", "first parity", "last parity"])
def test_a_shard_of_a_lost_node_is_made_from_its_siblings(make_pool: MakePool, shard: int) -> None:
    pool = make_pool(7, own=7)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    pool.nodes[segment.nodes[shard]].stop_serving()
    pool.rebuild(segment, shard, unusable=[shard])
    assert pool.own.read(SEGMENT, shard) == cut(plan_layout(len(PAYLOAD), 4, 2), PAYLOAD)[shard]
    pool.own.store.verify(SEGMENT, shard)
    assert pool.bad() == []
    assert pool.findings.read_bytes == 4 * segment.shard_bytes
    assert pool.findings.written_bytes == segment.shard_bytes


def test_a_shard_whose_node_does_not_answer_is_made_as_well(make_pool: MakePool) -> None:
    pool = make_pool(7, own=7)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    pool.nodes[2].stop_serving()
    pool.nodes[5].stop_serving()
    pool.rebuild(segment, 1)
    assert pool.own.read(SEGMENT, 1) == cut(plan_layout(len(PAYLOAD), 4, 2), PAYLOAD)[1]
    assert pool.bad() == [], "a node that is away has no bad shard"


def test_a_move_copies_the_shard_and_reads_no_sibling(make_pool: MakePool) -> None:
    pool = make_pool(7, own=7)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    pool.rebuild(segment, 5)
    assert pool.own.read(SEGMENT, 5) == pool.nodes[6].read(SEGMENT, 5)
    assert pool.findings.read_bytes == segment.shard_bytes


def test_a_damaged_shard_is_not_moved_but_made_from_siblings_and_told(make_pool: MakePool) -> None:
    pool = make_pool(7, own=7)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    pool.nodes[3].damage(SEGMENT, 2, at=77)
    pool.rebuild(segment, 2)
    assert pool.own.read(SEGMENT, 2) == cut(plan_layout(len(PAYLOAD), 4, 2), PAYLOAD)[2]
    assert pool.bad() == [(SEGMENT, 2, False)]


@pytest.mark.parametrize("shard", [0, 4])
def test_a_silently_damaged_sibling_is_never_used(make_pool: MakePool, shard: int) -> None:
    """Whichever sibling it is: with 4+2 and one shard lost, any set of four of the five others would take it."""
    layout = plan_layout(len(PAYLOAD), 4, 2)
    pool = make_pool(7, own=7)
    found = 0
    for number, damaged in enumerate(i for i in range(6) if i != shard):
        segment_id = SEGMENT + number
        segment = pool.put_segment(segment_id, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
        pool.nodes[1 + damaged].damage(segment_id, damaged, at=layout.shard_bytes - 1)
        pool.rebuild(segment, shard, unusable=[shard])
        assert pool.own.read(segment_id, shard) == cut(layout, PAYLOAD)[shard]
        assert set(pool.bad()) <= {(segment_id, damaged, False)}
        found += len(pool.bad())
    assert found >= 3, "the damaged ones were read"


def test_missing_cut_off_and_damaged_siblings_are_told_and_others_taken(make_pool: MakePool) -> None:
    pool = make_pool(9, own=9)
    segment_id = 8 * SEGMENT  # the first shards are read first
    segment = pool.put_segment(segment_id, 4, 4, PAYLOAD, [1, 2, 3, 4, 5, 6, 7, 8])
    pool.nodes[1].store.delete([(segment_id, 0)])
    path, offset = pool.nodes[2].place(segment_id, 1)
    with path.open("r+b") as file:
        file.truncate(offset + 1000)
    pool.nodes[3].damage(segment_id, 2)
    pool.rebuild(segment, 7, unusable=[7])
    assert pool.own.read(segment_id, 7) == cut(plan_layout(len(PAYLOAD), 4, 4), PAYLOAD)[7]
    assert pool.bad() == [(segment_id, 0, True), (segment_id, 1, False), (segment_id, 2, False)]


def test_copies_are_copied_and_a_damaged_one_is_not(make_pool: MakePool) -> None:
    pool = make_pool(4, own=4)
    layout = plan_layout(5000, 1, 2)
    for number in range(3):
        segment_id = SEGMENT + number
        segment = pool.put_segment(segment_id, 1, 2, PAYLOAD[:5000], [1, 2, 3])
        pool.nodes[2].damage(segment_id, 1, at=4999)
        pool.rebuild(segment, 0, unusable=[0])
        assert pool.own.read(segment_id, 0) == cut(layout, PAYLOAD[:5000])[0]
        assert set(pool.bad()) <= {(segment_id, 1, False)}


def test_too_few_siblings_fail_by_whether_waiting_helps(make_pool: MakePool) -> None:
    pool = make_pool(7, own=7)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    with pytest.raises(Corrupt, match="only 3 of the 4 shards"):
        pool.rebuild(segment, 0, unusable=[0, 1, 2])
    pool.nodes[3].damage(SEGMENT, 2)
    with pytest.raises(Corrupt, match="only 3 of the 4 shards"):
        pool.rebuild(segment, 0, unusable=[0, 1])
    assert pool.bad() == [(SEGMENT, 2, False)]
    pool.nodes[5].stop_serving()
    with pytest.raises(Unavailable, match="only 2 of the 4 shards"):
        pool.rebuild(segment, 0, unusable=[0, 1])
    assert pool.own.held() == []


def test_a_shard_that_is_here_and_reads_well_is_left(make_pool: MakePool) -> None:
    pool = make_pool(7, own=7)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    pool.rebuild(segment, 0)
    for node in range(1, 7):
        pool.nodes[node].stop_serving()
    pool.rebuild(segment, 0)
    assert pool.findings.read_bytes == 0


@pytest.mark.parametrize("set_aside", [False, True])
def test_a_damaged_shard_is_repaired_in_its_place(make_pool: MakePool, set_aside: bool) -> None:
    pool = make_pool(6, own=2)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    used = pool.own.store.stat().used_bytes
    pool.own.damage(SEGMENT, 1)
    pool.rebuild(segment, 1, unusable=[1], set_aside=set_aside)
    assert pool.own.read(SEGMENT, 1) == cut(plan_layout(len(PAYLOAD), 4, 2), PAYLOAD)[1]
    pool.own.store.verify(SEGMENT, 1)
    assert pool.own.store.stat().used_bytes == used, "the old record's space is free again"


def test_a_shard_in_doubt_with_a_right_checksum_of_wrong_bytes_is_replaced(make_pool: MakePool) -> None:
    pool = make_pool(6, own=2)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    good = pool.own.read(SEGMENT, 1)
    pool.own.store.delete([(SEGMENT, 1)])
    pool.own.put(SEGMENT, 1, bytes(len(good)))
    pool.rebuild(segment, 1)
    assert pool.own.read(SEGMENT, 1) == bytes(len(good)), "nobody doubts it"
    pool.rebuild(segment, 1, set_aside=True)
    assert pool.own.read(SEGMENT, 1) == good


def test_a_shard_of_another_length_is_replaced(make_pool: MakePool) -> None:
    pool = make_pool(6, own=2)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    good = pool.own.read(SEGMENT, 1)
    pool.own.store.delete([(SEGMENT, 1)])
    pool.own.put(SEGMENT, 1, good[:-64])
    pool.rebuild(segment, 1)
    assert pool.own.read(SEGMENT, 1) == good


def test_a_shard_whose_backing_file_somebody_removed_is_made_again(make_pool: MakePool) -> None:
    pool = make_pool(6, own=2)
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    (pool.own.folder / file_name(1)).unlink()
    pool.rebuild(segment, 1)
    assert [p.name for p in pool.own.folder.glob("*.shards")] == [file_name(2)]
    assert pool.own.read(SEGMENT, 1) == cut(plan_layout(len(PAYLOAD), 4, 2), PAYLOAD)[1]


def test_a_full_disk_refuses_and_keeps_what_it_has(make_pool: MakePool) -> None:
    pool = make_pool(6, own=2, own_limits=StoreLimits(capacity_bytes=128 << 10, reserve_bytes=0))
    segment = pool.put_segment(SEGMENT, 4, 2, PAYLOAD, [1, 2, 3, 4, 5, 6])
    pool.own.damage(SEGMENT, 1, at=5)
    damaged = pool.own.read(SEGMENT, 1)
    with pytest.raises(NoSpace):
        pool.rebuild(segment, 1, unusable=[1], set_aside=True)
    assert pool.own.read(SEGMENT, 1) == damaged, "its good ranges may still be needed"
    assert pool.own.store.aside() == []


def test_an_order_that_makes_no_sense_is_refused(make_pool: MakePool) -> None:
    pool = make_pool(3, own=1)
    layout = plan_layout(5000, 1, 2)
    with pytest.raises(InvalidArgument, match="there is no shard 3"):
        pool.rebuild(segment_of(SEGMENT, layout, [1, 2, 3]), 3)
    with pytest.raises(InvalidArgument, match="no segment has"):
        pool.rebuild(segment_of(SEGMENT, layout, [1, 2]), 0)
    with pytest.raises(InvalidArgument, match="no segment has"):
        pool.rebuild(segment_of(SEGMENT, layout._replace(shard_bytes=64 << 20), [1, 2, 3]), 0)
