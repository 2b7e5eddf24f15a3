"""Blocks that move while everything else goes on: ids and references stay, and every race ends with a sound store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from redfs.coordinator import nodes, packing, segments
from redfs.coordinator.cleaner import REST_S, Chosen, report_bad, task_of
from redfs.coordinator.packing import Pack
from redfs.coordinator.reads import find_blocks, locate, segment_blocks, volume_reader
from redfs.coordinator.store import MemoryStore
from redfs.core.cleaning import EAGER, Thresholds
from redfs.core.errors import NoSpace, NotFound, TooFewNodes, Unavailable
from redfs.core.policy import Layout
from redfs.core.records import SLOT_BYTES, Piece
from redfs.core.tables import (
    DAMAGE,
    DOOMED,
    MOVED,
    OPEN_SEGMENTS,
    SEGMENTS,
    BlockRow,
    NodeState,
    SegmentState,
    StatsRow,
    decode_segment,
    encode_segment,
    pair_key,
    split_doomed_key,
    u64_key,
)
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Client, NewBlock, Pool, fingerprint, slot_record


@pytest.fixture
def pool() -> Pool:
    pool = Pool(6)
    pool.create("v", "ec:4+2")
    return pool


@pytest.fixture
def client(pool: Pool) -> Client:
    """Three segments with a block each: slots 0, 1 and 2 of inode 10."""
    client = Client(pool, "v")
    for slot, word in enumerate("abc"):
        client.write({(10, slot): word})
    return client


def shown(pool: Pool) -> list[str | None]:
    """The words of the slots."""
    marks = {fingerprint(word).hex(): word for word in "abcdefgh"}
    found = [pool.read_slot(pool.volume("v"), 10, slot) for slot in range(3)]
    return [None if marks_of is None else "".join(marks[mark] for mark in marks_of) for marks_of in found]


def begun(pool: Pool) -> tuple[Chosen, Pack]:
    """A packing of everything that pays, which a node works on now."""
    chosen = pool.choose(pool.cleaner())
    assert chosen is not None
    return chosen, pool.open_pack(chosen)


def blocks_in(pool: Pool, segment_id: int) -> list[tuple[int, BlockRow]]:
    with pool.coordinator.read() as kv:
        return segment_blocks(kv, segment_id)


def doomed(pool: Pool) -> set[tuple[int, int, int]]:
    with pool.coordinator.read() as kv:
        return {split_doomed_key(key) for key, _ in kv.scan(DOOMED, b"", b"\xff" * 20)}


def test_blocks_lie_side_by_side_in_one_segment_and_keep_their_names(pool: Pool, client: Client) -> None:
    sources = pool.segment_rows()
    before = [blocks_in(pool, segment) for segment in sources]
    _, pack = begun(pool)
    packed = pool.commit_pack(pack)
    assert (packed.blocks, packed.segments) == (3, 3)
    assert packed.freed_bytes > 0
    ((target, row),) = pool.segment_rows().items()
    assert (target, row.state, row.layout, row.live_bytes) == (pack.target, SegmentState.COMMITTED, Layout(1, 2), 300)
    now = blocks_in(pool, target)
    assert [block for block, _ in now] == [block for rows in before for block, _ in rows]
    assert [row.offset for _, row in now] == [0, 100, 200]
    assert shown(pool) == ["a", "b", "c"]
    assert doomed(pool) == {(node, s, shard) for s, row in sources.items() for shard, node in enumerate(row.nodes)}
    assert pool.problems() == []
    assert pool.totals().segments == 1


def test_what_was_packed_is_found_by_fingerprint_and_freed_like_any_other(pool: Pool, client: Client) -> None:
    pool.clean()
    with pool.coordinator.read() as kv:
        volume = volume_reader(kv, client.session_id, client.volume_id)
        (found,) = find_blocks(kv, volume, [fingerprint("b")], pool.coordinator.cluster.up())
    assert found
    assert client.write({(11, 0): "b"}), "stored already"
    assert pool.problems() == []
    pool.snapshot("v@s")
    client.write({(10, slot): None for slot in range(3)})
    assert pool.problems() == []
    client.close()
    for name in ("v@s", "v"):
        pool.delete(name)
    pool.run_jobs()
    assert pool.totals() == StatsRow()
    assert pool.segment_rows() == {}
    with pool.coordinator.read() as kv:
        assert kv.first(MOVED, b"", b"\xff" * 20) is None


def test_a_pool_at_rest_is_left_alone(pool: Pool, client: Client) -> None:
    assert len(pool.clean()) == 1
    for _ in range(3):
        assert not pool.cleaner().has_plans
        pool.pass_time(100_000)


def test_a_young_segment_is_left_alone_until_it_has_settled(pool: Pool, client: Client) -> None:
    patient = Thresholds(pool.config.clean_settle_s, pool.config.clean_fill_s)
    pool.pass_time(pool.config.clean_settle_s + 1)
    assert not pool.cleaner(patient).has_plans, "it would not fill a segment, and may wait for company"
    pool.pass_time(pool.config.clean_fill_s)
    assert pool.cleaner(patient).has_plans


# ---------------------------------------------------------------- races


def test_a_block_that_was_freed_meanwhile_is_a_hole(pool: Pool, client: Client) -> None:
    _, pack = begun(pool)
    client.write({(10, 1): None})
    assert pool.commit_pack(pack).blocks == 2
    assert pool.segment_rows()[pack.target].live_bytes == 200
    assert shown(pool) == ["a", None, "c"]
    assert pool.problems() == []


def test_where_all_blocks_were_freed_meanwhile_the_new_segment_is_deleted(pool: Pool, client: Client) -> None:
    _, pack = begun(pool)
    client.write({(10, slot): None for slot in range(3)})
    assert pool.commit_pack(pack).blocks == 0
    assert pool.segment_rows() == {}
    assert {(node, pack.target, shard) for shard, node in enumerate(pack.nodes)} <= doomed(pool)
    assert pool.problems() == []


def test_a_block_that_was_moved_meanwhile_stays_where_it_is(pool: Pool, client: Client) -> None:
    _, first = begun(pool)
    _, second = begun(pool)
    assert pool.commit_pack(first).blocks == 3
    assert pool.commit_pack(second).blocks == 0
    assert list(pool.segment_rows()) == [first.target]
    assert pool.problems() == []


def test_a_block_that_moved_twice_is_not_taken_back(pool: Pool, client: Client) -> None:
    """The second packing began from the first one's target; the last, from before both, comes late."""
    _, first = begun(pool)
    _, late = begun(pool)
    pool.commit_pack(first)
    client.write({(10, 0): "d"})
    _, second = begun(pool)
    pool.commit_pack(second)
    pool.commit_pack(late)
    assert shown(pool) == ["d", "b", "c"]
    assert {row.segment_id for _, row in blocks_in(pool, second.target)} == {second.target}
    assert pool.problems() == []


def test_references_that_a_block_gained_meanwhile_are_kept(pool: Pool, client: Client) -> None:
    _, pack = begun(pool)
    block = blocks_in(pool, next(iter(pool.segment_rows())))[0][0]
    request, _ = client.request(records=[slot_record(12, 0, (Piece(0, SLOT_BYTES, block, 0),))])
    client.send(request)
    pool.commit_pack(pack)
    assert dict(blocks_in(pool, pack.target))[block].refs == 2
    assert pool.problems() == []


def test_a_source_with_other_blocks_stays_and_lies_where_its_shards_are_now(pool: Pool) -> None:
    client = Client(pool, "v")
    client.write({(10, 0): "a", (10, 1): "b"})
    chosen, _ = begun(pool)
    half = chosen.prepared._replace(moves=chosen.prepared.moves[:1])
    first = pool.open_pack(chosen._replace(prepared=half))
    assert pool.commit_pack(first).segments == 0
    (source,) = [s for s in pool.segment_rows() if s not in (first.target, *_open(pool))]
    assert pool.segment_rows()[source].live_bytes == 101
    assert pool.problems() == []
    rest = pool.open_pack(chosen)
    seventh = pool.add_node(6)
    row = pool.segment_rows()[source]
    moved = row._replace(nodes=(seventh, *row.nodes[1:]))
    pool.coordinator.execute(lambda txn: txn.kv.put(SEGMENTS, u64_key(source), encode_segment(moved)))
    pool.commit_pack(rest)
    assert {(node, source, shard) for shard, node in enumerate(moved.nodes)} <= doomed(pool)
    assert (row.nodes[0], source, 0) not in doomed(pool), "that is for who moved the shard"
    assert pool.problems() == []


def _open(pool: Pool) -> list[int]:
    return [s for s, row in pool.segment_rows().items() if row.state == SegmentState.OPEN]


def test_damage_of_a_source_is_forgotten_with_it_and_told_to_the_node_before(pool: Pool, client: Client) -> None:
    source = next(iter(pool.segment_rows()))
    pool.coordinator.execute(lambda txn: nodes.report_damage(txn, source, 3, "flipped"))
    pool.lose(pool.segment_rows()[source].nodes[0])
    pool.report_again(pool.segment_rows()[source].nodes[0])
    _, pack = begun(pool)
    assert [(bad.segment_id, bad.shard) for bad in task_of(pack, pool.coordinator.cluster).unusable] == [(source, 3)]
    pool.commit_pack(pack)
    with pool.coordinator.read() as kv:
        assert kv.first(DAMAGE, b"", b"\xff" * 20) is None
    assert pool.problems() == []


def test_a_source_that_cannot_be_read_is_left_out_and_rests(pool: Pool, client: Client) -> None:
    lost, *others = pool.segment_rows()
    for shard in range(3):
        pool.coordinator.execute(lambda txn, shard=shard: nodes.report_damage(txn, lost, shard, "gone"))  # type: ignore[misc]
    cleaner = pool.cleaner()
    chosen = pool.choose(cleaner)
    assert chosen is not None
    assert [s for s, _ in chosen.prepared.sources] == others
    cleaner.ended(chosen)
    for passed_s, found in ((REST_S - 1, others), (1, [lost, *others])):
        pool.pass_time(passed_s)
        with pool.coordinator.read() as kv:
            assert cleaner.survey(kv, EAGER)
            again = cleaner.next_pack(kv)
        assert again is not None
        assert [s.segment_id for s in again.plan.sources] == found
        cleaner.ended(again)
    pool.commit_pack(pool.open_pack(chosen))
    assert pool.problems() == []


def test_damage_is_not_reported_of_a_shard_that_has_moved_meanwhile(pool: Pool, client: Client) -> None:
    _, pack = begun(pool)
    moved, stays, *_ = pool.segment_rows()
    seventh = pool.add_node(6)
    row = pool.segment_rows()[moved]._replace(nodes=(seventh, *pool.segment_rows()[moved].nodes[1:]))
    pool.coordinator.execute(lambda txn: txn.kv.put(SEGMENTS, u64_key(moved), encode_segment(row)))
    bad = [pb.BadShard(segment_id=s, shard=0, reason="not there") for s in (moved, stays, 0xBAD)]
    pool.coordinator.execute(lambda txn: report_bad(txn, pack, bad))
    with pool.coordinator.read() as kv:
        assert [key[:8] for key, _ in kv.scan(DAMAGE, b"", b"\xff" * 20)] == [u64_key(stays)]


# ---------------------------------------------------------------- the target


def test_an_aborted_packing_leaves_shards_to_delete_and_cannot_be_committed(pool: Pool, client: Client) -> None:
    before = pool.segment_rows()
    _, pack = begun(pool)
    assert pool.problems() == []
    pool.abort_pack(pack)
    pool.abort_pack(pack)
    with pytest.raises(NotFound):
        pool.commit_pack(pack)
    assert pool.segment_rows() == before
    assert doomed(pool) == {(node, pack.target, shard) for shard, node in enumerate(pack.nodes)}
    assert pool.problems() == []


@pytest.mark.parametrize("how", ["away", "draining", "failed"])
def test_blocks_do_not_move_to_a_segment_whose_nodes_are_not_all_there(pool: Pool, client: Client, how: str) -> None:
    before = pool.segment_rows()
    _, pack = begun(pool)
    node = pack.nodes[1]
    if how == "away":
        pool.lose(node)
    elif how == "draining":
        pool.coordinator.execute(lambda txn: nodes.set_state(txn, node, NodeState.DRAINING))
    else:
        pool.coordinator.execute(lambda txn: nodes.set_failed(txn, node))
    with pytest.raises(Unavailable, match=f"node {node} "):
        pool.commit_pack(pack)
    pool.abort_pack(pack)
    assert pool.segment_rows() == before
    assert pool.problems() == []


def test_no_session_can_touch_the_target(pool: Pool, client: Client) -> None:
    _, pack = begun(pool)
    with pytest.raises(Exception, match="another session"):
        pool.coordinator.execute(lambda txn: segments.replace_shard(txn, client.session_id, pack.target, 0, []))
    request, _ = client.request([NewBlock("x")], segment=(pack.target, pool.segment_rows()[pack.target]))
    with pytest.raises(Exception, match="another session"):
        client.send(request)
    with pytest.raises(Exception, match="not an open one of this session"):
        pool.coordinator.execute(lambda txn: segments.abort_segments(txn, client.session_id, [pack.target]))


def test_a_start_of_the_coordinator_gives_up_what_was_under_way(pool: Pool, client: Client) -> None:
    before = pool.segment_rows()
    _, pack = begun(pool)
    pool.restart()
    assert pool.segment_rows() == before
    with pool.coordinator.read() as kv:
        assert kv.first(OPEN_SEGMENTS, u64_key(0), u64_key(1)) is None
    assert {s for _, s, _ in doomed(pool)} == {pack.target}
    with pytest.raises(NotFound):
        pool.commit_pack(pack)
    assert pool.problems() == []


def test_packing_goes_into_the_room_that_is_held_back_and_stops_where_there_is_none(pool: Pool, client: Client) -> None:
    chosen = pool.choose(pool.cleaner())
    assert chosen is not None
    before = pool.segment_rows()
    for node in pool.streams:
        pool.report(node, free_bytes=1000)
    with pytest.raises(NoSpace):
        pool.open_pack(chosen)
    assert pool.segment_rows() == before
    for node in pool.streams:
        pool.report(node, free_bytes=1 << 20)
    assert not any(c.free_bytes for c in pool.coordinator.cluster.candidates())
    pool.commit_pack(pool.open_pack(chosen))
    assert pool.problems() == []


def test_a_full_node_gets_nothing(pool: Pool, client: Client) -> None:
    pool.add_node(6)
    full = next(iter(pool.streams))
    pool.report(full, free_bytes=0)
    for _ in range(5):
        chosen = pool.choose(pool.cleaner())
        assert chosen is not None
        assert full not in pool.open_pack(chosen).nodes


def test_nothing_is_packed_while_a_node_is_away_for_the_moment(pool: Pool, client: Client) -> None:
    chosen = pool.choose(pool.cleaner())
    assert chosen is not None
    pool.lose(*list(pool.streams)[:4])
    assert not pool.cleaner().has_plans
    with pytest.raises(TooFewNodes):
        pool.open_pack(chosen)


def test_small_and_narrow_segments_get_the_full_layout(pool: Pool) -> None:
    client = Client(pool, "v")
    for slot in range(3):
        (opened,) = client.open_segments(1, small=True)
        request, ids = client.request([NewBlock(f"s{slot}")], segment=opened)
        big = [(b, row._replace(stored_bytes=60_000)) for b, row in request.blocks]
        record = slot_record(10, slot, (Piece(0, SLOT_BYTES, ids[0], 0),))
        client.send(request._replace(blocks=big, records=[record]))
    rows = pool.segment_rows()
    assert {row.layout for row in rows.values()} == {Layout(1, 2)}
    raw = pool.totals().segment_bytes
    pool.clean()
    ((_, row),) = pool.segment_rows().items()
    assert row.layout == Layout(4, 2)
    assert raw == pytest.approx(3 * 3 * 65_536)
    assert pool.totals().segment_bytes == pytest.approx(1.5 * 3 * 60_000, rel=0.01)
    assert pool.problems() == []


def test_blocks_of_another_domain_stay_apart(pool: Pool, client: Client) -> None:
    pool.create("w", "mirror:2")
    other = Client(pool, "w")
    other.write({(10, 0): "a"})
    other.write({(10, 1): "b"})
    packs = pool.clean()
    assert {pack.prepared.domain[:2] for pack in packs} == {(4, 2), (1, 1)}
    for pack in packs:
        with pool.coordinator.read() as kv:
            row = decode_segment(kv.get(SEGMENTS, u64_key(pack.target)) or b"")
        assert row.domain == pack.prepared.domain
        assert row.layout.m == row.domain.m
    assert pool.problems() == []


def test_a_segment_with_more_blocks_than_one_command_moves_is_emptied_in_steps(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_BLOCKS", 2)
    client = Client(pool, "v")
    client.write({(10, slot): word for slot, word in enumerate("abcde")})
    packs = pool.clean()
    assert max(len(pack.prepared.moves) for pack in packs) == 2
    with pool.coordinator.read() as kv:
        blocks = [b for s in pool.segment_rows() for b, _ in segment_blocks(kv, s)]
        assert len(locate(kv, blocks).blocks) == 5
    assert pool.problems() == []


# ---------------------------------------------------------------- the process dies


class Died(BaseException):
    """Not an error that anybody handles."""


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("point", range(1, 9))
def test_a_death_at_any_commit_point_of_cleaning_loses_and_leaks_nothing(point: int, after: bool) -> None:
    store = MemoryStore()
    pool = Pool(6, store)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    for slot, word in enumerate("abc"):
        client.write({(10, slot): word})
    base = store.transactions

    def die(number: int) -> None:
        if number == base + point + after - 1:
            raise Died

    if after:
        store.after_commit = die
    else:
        store.before_commit = die
    packs: list[Pack] = []
    steps: list[Callable[[], object]] = [
        lambda: packs.append(begun(pool)[1]),
        lambda: client.write({(10, 1): "d"}),
        lambda: pool.commit_pack(packs[0]),
        lambda: packs.append(begun(pool)[1]),
        lambda: pool.abort_pack(packs[1]),
        lambda: packs.append(begun(pool)[1]),
        lambda: pool.commit_pack(packs[2]),
    ]
    with contextlib.suppress(Died):
        for step in steps:
            step()
    store.before_commit = store.after_commit = lambda number: None
    pool.restart()
    assert pool.problems() == []
    assert shown(pool) in (["a", "b", "c"], ["a", "d", "c"])
    committed = {s for s, row in pool.segment_rows().items() if row.state == SegmentState.COMMITTED}
    named = committed | {s for _, s, _ in doomed(pool)}
    assert named.issuperset(pack.target for pack in packs), "shards that nobody deletes"
    pool.clean()
    assert pool.problems() == []
    client.close()
    pool.delete("v")
    pool.run_jobs()
    assert pool.totals() == StatsRow()


def test_a_check_finds_blocks_that_are_not_listed_where_they_lie(pool: Pool, client: Client) -> None:
    (pack,) = pool.clean()
    (first, second, _) = [block for block, _ in blocks_in(pool, pack.target)]
    pool.coordinator.execute(lambda txn: txn.kv.delete(MOVED, pair_key(pack.target, first)))
    pool.coordinator.execute(lambda txn: txn.kv.put(MOVED, pair_key(pack.target + 1, second), b""))
    assert pool.problems() == [
        f"block {first:#x} has moved to segment {pack.target:#x} and is not listed there",
        f"block {second:#x} is listed as moved to segment {pack.target + 1:#x} and is not there",
    ]
