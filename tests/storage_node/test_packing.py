"""PackBlocks: blocks of several segments written as one new segment, each of them checked, all shards durable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redfs.core.errors import Corrupt, InvalidArgument, NoSpace, NotFound, Unavailable
from redfs.core.segments import Layout, plan_layout
from redfs.proto.gen import cluster_pb2 as pb
from redfs.storage_node.shard_store import StoreLimits
from tests.storage_node.task_rig import SEGMENT, Pool, block_of, cut, payload_of, segment_of

MakePool = Callable[..., Pool]
TARGET = SEGMENT + 1000
NODES = [1, 2, 3, 4, 5, 6]


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[MakePool]:
    made: list[Pool] = []

    def make(count: int = 6, own: int = 1, own_limits: StoreLimits | None = None) -> Pool:
        made.append(Pool(tmp_path / str(len(made)), count, own, own_limits))
        return made[-1]

    yield make
    for pool in made:
        pool.stop()


class Packing:
    """Two erasure-coded segments and a mirrored one, and blocks of all three that go into a new one."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.wide = payload_of(1, 900_000)
        self.other = payload_of(2, 500_000)
        self.small = payload_of(3, 40_000)
        self.sources = [
            pool.put_segment(SEGMENT, 4, 2, self.wide, NODES),
            pool.put_segment(SEGMENT + 1, 3, 2, self.other, [6, 5, 4, 3, 2]),
            pool.put_segment(SEGMENT + 2, 1, 2, self.small, [2, 4, 6]),
        ]
        self.blocks = [
            block_of(SEGMENT, self.wide, 10, 131_000),
            block_of(SEGMENT + 1, self.other, 100_000, 131_072),  # across two shards
            block_of(SEGMENT, self.wide, 131_010, 20_000),  # one run with the first
            block_of(SEGMENT + 2, self.small, 1000, 30_000),
            block_of(SEGMENT, self.wide, 800_000, 100_000),
            block_of(SEGMENT + 2, self.small, 39_999, 1),
        ]
        payloads = {SEGMENT: self.wide, SEGMENT + 1: self.other, SEGMENT + 2: self.small}
        self.payload = b"".join(payloads[b.segment_id][b.offset : b.offset + b.stored_bytes] for b in self.blocks)
        self.layout = plan_layout(len(self.payload), 4, 2)
        self.target = segment_of(TARGET, self.layout, NODES)
        self.unusable: list[pb.BadShard] = []

    def run(self) -> None:
        self.pool.pack(self.target, self.blocks, self.sources, self.unusable)

    def check(self, layout: Layout | None = None) -> None:
        shards = cut(layout or self.layout, self.payload)
        for shard, node_id in enumerate(self.target.nodes):
            assert self.pool.nodes[node_id].read(TARGET, shard) == shards[shard]
            self.pool.nodes[node_id].store.verify(TARGET, shard)


def test_blocks_of_several_segments_become_one(make_pool: MakePool) -> None:
    packing = Packing(make_pool())
    packing.run()
    packing.check()
    assert packing.pool.bad() == []
    assert packing.pool.findings.written_bytes == 6 * packing.layout.shard_bytes
    assert packing.pool.findings.read_bytes < len(packing.payload) + 6 * 64 * 1024
    packing.run()
    packing.check()


@pytest.mark.parametrize("code", [(1, 2), (2, 1)])
def test_the_target_may_be_copies_or_narrow(make_pool: MakePool, code: tuple[int, int]) -> None:
    packing = Packing(make_pool())
    layout = plan_layout(len(packing.payload), *code)
    packing.target = segment_of(TARGET, layout, [4, 1, 6])
    packing.run()
    packing.check(layout)


def test_shards_that_are_away_missing_or_known_to_be_bad_are_made_up_for(make_pool: MakePool) -> None:
    packing = Packing(make_pool())
    packing.pool.nodes[2].store.delete([(SEGMENT, 1), (SEGMENT + 2, 0)])
    packing.pool.nodes[4].store.delete([(SEGMENT, 3)])
    packing.pool.nodes[6].store.delete([(SEGMENT + 1, 0)])
    packing.unusable = [pb.BadShard(segment_id=SEGMENT + 1, shard=0)]
    packing.run()
    packing.check()
    found = set(packing.pool.bad())
    assert (SEGMENT, 3, True) in found
    assert (SEGMENT + 1, 0, True) not in found, "what is known to be bad is not asked for"


def test_a_node_that_is_away_is_made_up_for_and_not_told_as_bad(make_pool: MakePool) -> None:
    packing = Packing(make_pool())
    packing.target = segment_of(TARGET, plan_layout(len(packing.payload), 2, 2), [1, 2, 3, 5])
    for node in (4, 6):
        packing.pool.nodes[node].stop_serving()
    packing.run()
    packing.check(plan_layout(len(packing.payload), 2, 2))
    assert packing.pool.bad() == []


def test_silently_damaged_data_never_gets_into_the_new_segment(make_pool: MakePool) -> None:
    """One shard that is lost and one that is silently damaged: whichever it is, the blocks are right."""
    for damaged in range(6):
        packing = Packing(make_pool())
        lost = 0 if damaged else 3
        packing.pool.nodes[NODES[lost]].store.delete([(SEGMENT, lost)])
        for at in range(0, packing.sources[0].shard_bytes, 5000):  # in every block
            packing.pool.nodes[NODES[damaged]].damage(SEGMENT, damaged, at=at)
        packing.run()
        packing.check()
        assert (SEGMENT, lost, True) in packing.pool.bad()
        assert set(packing.pool.bad()) <= {(SEGMENT, lost, True), (SEGMENT, damaged, False)}


@pytest.mark.parametrize("shard", [0, 3])
def test_wrong_bytes_that_were_stored_with_their_checksum_are_found_out(make_pool: MakePool, shard: int) -> None:
    packing = Packing(make_pool())
    node = packing.pool.nodes[NODES[shard]]
    wrong = bytearray(node.read(SEGMENT, shard))
    node.store.delete([(SEGMENT, shard)])
    for at in range(0, len(wrong), 5000):
        wrong[at] ^= 1
    node.put(SEGMENT, shard, bytes(wrong))
    packing.run()
    packing.check()
    assert packing.pool.bad() == [(SEGMENT, shard, False)]


def test_a_copy_with_wrong_bytes_is_found_out(make_pool: MakePool) -> None:
    packing = Packing(make_pool())
    for node_id, shard in ((2, 0), (4, 1)):
        node = packing.pool.nodes[node_id]
        node.store.delete([(SEGMENT + 2, shard)])
        node.put(SEGMENT + 2, shard, bytes(packing.sources[2].shard_bytes))
    packing.run()
    packing.check()
    assert set(packing.pool.bad()) <= {(SEGMENT + 2, 0, False), (SEGMENT + 2, 1, False)}


def test_a_block_that_cannot_be_had_fails_and_writes_nothing(make_pool: MakePool) -> None:
    packing = Packing(make_pool())
    for shard in (0, 1, 2):
        packing.pool.nodes[NODES[shard]].store.delete([(SEGMENT, shard)])
    with pytest.raises(Corrupt, match="only 3 of the 4"):
        packing.run()
    assert (SEGMENT, 0, True) in packing.pool.bad()
    for node in packing.pool.nodes.values():
        assert not any(segment == TARGET for segment, _ in node.held())


def test_a_block_that_matches_nowhere_is_corrupt(make_pool: MakePool) -> None:
    for segment in range(3):
        packing = Packing(make_pool())
        for block in packing.blocks:
            if block.segment_id == SEGMENT + segment:
                block.checksum ^= 1
        with pytest.raises(Corrupt, match="does not match its checksum on any"):
            packing.run()


def test_too_few_nodes_that_answer_may_pass(make_pool: MakePool) -> None:
    packing = Packing(make_pool())
    for node in (2, 3, 4):
        packing.pool.nodes[node].stop_serving()
    with pytest.raises(Unavailable):
        packing.run()


def test_a_node_that_takes_no_shard_fails_the_task(make_pool: MakePool) -> None:
    packing = Packing(make_pool(own_limits=StoreLimits(capacity_bytes=512 << 10, reserve_bytes=0)))
    packing.pool.own.put(7, 0, payload_of(9, 220_000))
    with pytest.raises(NoSpace, match="storage node 1 did not take its shard"):
        packing.run()
    assert packing.pool.nodes[3].read(TARGET, 2), "shards made so far are left"
    packing.pool.own.store.delete([(7, 0)])
    packing.run()
    packing.check()


def test_orders_that_make_no_sense_are_refused(make_pool: MakePool) -> None:
    packing = Packing(make_pool())
    for blocks, sources, reason in (
        ([], packing.sources, "do not fit"),
        (packing.blocks * 3, packing.sources, "do not fit"),
        (packing.blocks, packing.sources[:1], "not among the sources"),
        ([pb.PackedBlock(segment_id=SEGMENT, offset=899_999, stored_bytes=1000)], packing.sources, "outside"),
    ):
        with pytest.raises(InvalidArgument, match=reason):
            packing.pool.pack(packing.target, blocks, sources)
    with pytest.raises(NotFound):
        packing.pool.own.read(TARGET, 0)
