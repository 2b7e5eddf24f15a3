"""The read path over nodes in memory: one GET where all is well, and every kind of damage."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations

import pytest

from redfs.client.data.cache import BlockCache
from redfs.client.data.config import MIB, DataConfig
from redfs.client.data.reader import BlockReader
from redfs.client.data.store import BlockStore, StoredBatch
from redfs.core.errors import Corrupt, NotFound, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.data.fakes import FakeNodes, FakeSession

CONFIG = DataConfig(large_opens=1, small_opens=1)
BLOCK = 128 * 1024


class World:
    """One committed segment of eight blocks, and a reader that knows nothing yet."""

    def __init__(self, policy: str, nodes: int, config: DataConfig) -> None:
        self.session = FakeSession(policy, nodes)
        self.nodes = FakeNodes(self.session)
        self.config = config
        self.cache = BlockCache(64 * MIB)
        self.reader = BlockReader(self.session, self.nodes, self.cache, config)
        self.plain: list[bytes] = []
        self.batch = StoredBatch([])

    async def write(self, blocks: list[bytes], *, dedupe: bool = True) -> StoredBatch:
        volume = pb.Volume(volume_id=1, protection=str(self.session.policy))
        store = BlockStore(self.session, volume, self.nodes, BlockCache(0), self.config)
        batch = await store.store(blocks, dedupe=dedupe)
        self.session.commit(batch)
        await store.close()
        return batch

    @property
    def ids(self) -> list[int]:
        return [block for block, _ in self.batch.refs]

    @property
    def segment(self) -> pb.Segment:
        return self.batch.segments[0]

    def forget(self) -> None:
        self.cache.clear()


@asynccontextmanager
async def a_world(
    policy: str = "ec:4+2", nodes: int = 6, *, config: DataConfig = CONFIG, size: int = BLOCK, odd: int = 0
) -> AsyncIterator[World]:
    world = World(policy, nodes, config)
    world.plain = [random.Random(n).randbytes(size + (n * odd)) for n in range(8)]
    world.batch = await world.write(world.plain)
    world.nodes.gets.clear()
    world.session.calls.clear()
    yield world
    await world.reader.close()
    assert world.reader._prefetching_bytes == 0
    assert not world.reader._flights


async def test_a_healthy_read_is_one_question_and_one_get() -> None:
    async with a_world() as world:
        assert world.reader.cached(world.ids[3]) is None
        assert await world.reader.read(world.ids[3]) == world.plain[3]
        assert world.session.calls == {"locate_blocks": 1}
        assert [(shard, offset, length) for _, _, shard, offset, length in world.nodes.gets] == [(1, BLOCK, BLOCK)]
        assert world.reader.cached(world.ids[3]) == world.plain[3]
        assert await world.reader.read(world.ids[3]) == world.plain[3]
        assert len(world.nodes.gets) == 1


async def test_what_was_learnt_is_not_asked_again() -> None:
    async with a_world() as world:
        world.reader.learn(world.batch.blocks, world.batch.segments)
        assert await world.reader.read_many(world.ids) == world.plain
        assert not world.session.calls


async def test_concurrent_reads_share_a_fetch() -> None:
    async with a_world() as world:
        results = await asyncio.gather(
            *(world.reader.read(world.ids[0]) for _ in range(5)), world.reader.read_many(world.ids[:2])
        )
        assert results[:5] == [world.plain[0]] * 5
        assert results[5] == world.plain[:2]
        assert len(world.nodes.gets) == 2


async def test_a_cancelled_reader_does_not_spoil_the_others() -> None:
    async with a_world() as world:
        first = asyncio.create_task(world.reader.read(world.ids[0]))
        second = asyncio.create_task(world.reader.read(world.ids[0]))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == world.plain[0]
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_blocks_of_one_shard_come_in_one_get() -> None:
    async with a_world() as world:
        assert await world.reader.read_many([*world.ids, world.ids[0]]) == [*world.plain, world.plain[0]]
        assert sorted(get[2:] for get in world.nodes.gets) == [(shard, 0, 2 * BLOCK) for shard in range(4)]


@pytest.mark.parametrize(("policy", "nodes"), [("ec:4+2", 6), ("ec:4+2", 4), ("mirror:3", 3), ("single", 1)])
async def test_blocks_that_straddle_shards(policy: str, nodes: int) -> None:
    async with a_world(policy, nodes, size=30_000, odd=777) as world:
        for block, plain in zip(world.ids, world.plain, strict=True):
            assert await world.reader.read(block) == plain
        world.forget()
        assert await world.reader.read_many(world.ids) == world.plain
        assert world.reader.degraded_reads == 0


@pytest.mark.parametrize("lost", list(itertools.combinations(range(6), 2)), ids=str)
async def test_any_two_nodes_may_be_gone(lost: tuple[int, int]) -> None:
    async with a_world(odd=-777) as world:
        for shard in lost:
            world.nodes.lose(world.segment.nodes[shard])
        assert await world.reader.read_many(world.ids) == world.plain
        world.forget()
        world.nodes.gets.clear()
        assert await world.reader.read_many(world.ids) == world.plain
        assert not any(get[2] in lost for get in world.nodes.gets), "known to be gone: not asked"
        if min(lost) < 4:
            assert len(world.nodes.gets) == 4, "the ranges read anyway also rebuild the lost ones"
            assert world.reader.degraded_reads > 0
        world.forget()
        for block, plain in zip(world.ids, world.plain, strict=True):
            assert await world.reader.read(block) == plain
        assert world.session.damage == [], "a node that is down is no damage"


async def test_three_nodes_gone_is_unavailable_and_passes() -> None:
    async with a_world() as world:
        for shard in (0, 1, 2):
            world.nodes.lose(world.segment.nodes[shard])
        with pytest.raises(Unavailable, match="too few"):
            await world.reader.read(world.ids[0])
        with pytest.raises(Unavailable):
            await world.reader.read_many(world.ids)
        assert await world.reader.read(world.ids[7]) == world.plain[7]
        world.nodes.get_errors.clear()
        world.nodes.forgive()
        assert await world.reader.read_many(world.ids) == world.plain


@pytest.mark.parametrize("shard", range(4))
async def test_a_damaged_byte_is_read_around_and_reported(shard: int) -> None:
    async with a_world() as world:
        world.nodes.place(world.segment, shard)[5] ^= 0x40
        assert await world.reader.read_many(world.ids) == world.plain
        assert world.session.damage == [(world.segment.segment_id, shard)]
        world.forget()
        assert await world.reader.read(world.ids[2 * shard]) == world.plain[2 * shard]
        assert len(world.session.damage) == 1, "reported once"


async def test_damage_in_either_half_of_a_straddling_block() -> None:
    for half in (0, 1):
        async with a_world(size=30_000, odd=777) as world:
            straddling = next(
                b
                for b in world.batch.blocks
                if b.offset // world.segment.shard_bytes != (b.offset + b.stored_bytes - 1) // world.segment.shard_bytes
            )
            shard = straddling.offset // world.segment.shard_bytes + half
            world.nodes.place(world.segment, shard)[0 if half else -1] ^= 1
            index = world.ids.index(straddling.block_id)
            assert await world.reader.read(straddling.block_id) == world.plain[index]
            assert world.session.damage == [(world.segment.segment_id, shard)]


async def test_damage_beside_damaged_parity_and_a_lost_shard() -> None:
    """One data shard lies, one parity shard lies: only the right choice of four others gives the block."""
    async with a_world() as world:
        world.nodes.place(world.segment, 0)[7] ^= 1
        world.nodes.place(world.segment, 4)[7] ^= 1
        assert await world.reader.read(world.ids[0]) == world.plain[0]
        assert world.session.damage == [(world.segment.segment_id, 0)]


@pytest.mark.parametrize(("one", "other"), list(combinations(range(6), 2)))
async def test_a_block_in_all_data_shards_of_which_any_two_lie(one: int, other: int) -> None:
    """Every shard's part has as many forms as there are choices of others: all of them together are not tried."""
    async with a_world() as world:
        block = random.Random(99).randbytes(BLOCK)
        batch = await world.write([block], dedupe=False)
        (segment,) = batch.segments
        assert segment.shard_bytes == BLOCK // 4
        world.nodes.place(segment, one)[20_000] ^= 0x40
        world.nodes.place(segment, other)[100] ^= 0x02
        world.session.damage.clear()
        assert await world.reader.read(batch.refs[0][0]) == block
        assert set(world.session.damage) == {(segment.segment_id, shard) for shard in (one, other) if shard < 4}


async def test_a_missing_shard_is_reported() -> None:
    async with a_world() as world:
        del world.nodes.shards[world.segment.nodes[1], world.segment.segment_id, 1]
        assert await world.reader.read_many(world.ids) == world.plain
        assert world.session.damage == [(world.segment.segment_id, 1)]


@pytest.mark.parametrize("policy", ["mirror:3", "single"])
async def test_copies(policy: str) -> None:
    async with a_world(policy, 3) as world:
        copies = world.segment.m + 1
        for copy in range(copies - 1):
            world.nodes.place(world.segment, copy)[:] = bytes(world.segment.shard_bytes)
        assert await world.reader.read_many(world.ids) == world.plain
        world.forget()
        world.nodes.place(world.segment, copies - 1)[:] = bytes(world.segment.shard_bytes)
        with pytest.raises(Corrupt, match="beyond repair"):
            await world.reader.read(world.ids[0])


async def test_a_mirror_with_one_node_left() -> None:
    async with a_world("mirror:3", 3) as world:
        for copy in (0, 2):
            world.nodes.lose(world.segment.nodes[copy])
        assert await world.reader.read_many(world.ids) == world.plain
        world.forget()
        world.nodes.gets.clear()
        assert await world.reader.read_many(world.ids) == world.plain
        assert {get[0] for get in world.nodes.gets} == {world.segment.nodes[1]}


async def test_damage_beyond_repair_is_corrupt_and_spoils_no_other_block() -> None:
    async with a_world() as world:
        for shard in (0, 4, 5):
            world.nodes.place(world.segment, shard)[3] ^= 1
        with pytest.raises(Corrupt, match="beyond repair"):
            await world.reader.read(world.ids[0])
        assert await world.reader.read_many(world.ids[1:]) == world.plain[1:]
        with pytest.raises(Corrupt):
            await world.reader.read_many(world.ids)


async def test_a_block_that_moved_is_found_again() -> None:
    async with a_world() as world:
        world.reader.learn(world.batch.blocks, world.batch.segments)
        moved = await world.write([b"other", *world.plain], dedupe=False)
        for old, (new, _) in zip(world.batch.blocks, moved.refs[1:], strict=True):
            there = world.session.blocks[new]
            old.segment_id, old.offset = there.segment_id, there.offset
        world.nodes.shards = {
            key: shard for key, shard in world.nodes.shards.items() if key[1] != world.segment.segment_id
        }
        for block, plain in zip(world.ids, world.plain, strict=True):
            assert await world.reader.read(block) == plain
        assert world.reader.degraded_reads == 0
        assert world.session.damage == []


async def _moved(world: World) -> None:
    """The cleaner packs all blocks into another segment, and the nodes delete what was there."""
    before = world.session.blocks[world.ids[0]].segment_id
    moved = await world.write([b"other", *world.plain], dedupe=False)
    for old, (new, _) in zip(world.ids, moved.refs[1:], strict=True):
        there = world.session.blocks[new]
        world.session.blocks[old].segment_id, world.session.blocks[old].offset = there.segment_id, there.offset
    world.nodes.shards = {key: shard for key, shard in world.nodes.shards.items() if key[1] != before}


async def test_a_segment_that_was_packed_elsewhere_is_asked_for_once() -> None:
    async with a_world() as world:
        world.reader.learn(world.batch.blocks, world.batch.segments)
        world.session.blocks = {b: pb.Block.FromString(r.SerializeToString()) for b, r in world.session.blocks.items()}
        await _moved(world)
        world.session.calls.clear()
        assert await world.reader.read_many(world.ids) == world.plain
        assert world.session.calls == {"locate_blocks": 1}
        assert world.reader.degraded_reads == 0
        assert world.session.damage == []


async def test_a_block_that_moves_while_it_is_looked_for_is_not_called_damaged() -> None:
    async with a_world() as world:
        locate = world.session._locate_blocks

        def locate_and_move(request: pb.LocateBlocks) -> pb.LocateBlocksReply:
            reply = pb.LocateBlocksReply.FromString(locate(request).SerializeToString())
            places.append(reply.blocks[0].segment_id)
            if len(places) < 3:
                moves.append(asyncio.get_running_loop().create_task(_moved(world)))
            return reply

        places: list[int] = []
        moves: list[asyncio.Task[None]] = []
        get = world.nodes.get

        async def get_after_moves(*args: int, **words: float) -> bytearray:
            await asyncio.gather(*moves)
            return await get(*args, **words)  # type: ignore[arg-type]

        world.session._locate_blocks = locate_and_move  # type: ignore[method-assign]
        world.nodes.get = get_after_moves  # type: ignore[method-assign, assignment]
        assert await world.reader.read(world.ids[3]) == world.plain[3]
        assert len(places) == len(set(places)) == 3


async def test_a_block_that_is_gone_is_not_found() -> None:
    async with a_world() as world:
        world.reader.learn(world.batch.blocks, world.batch.segments)
        del world.session.blocks[world.ids[2]]
        assert await world.reader.read(world.ids[2]) == world.plain[2], "still there until it is deleted"
        world.forget()
        world.nodes.shards.clear()
        with pytest.raises(NotFound):
            await world.reader.read(world.ids[2])
        with pytest.raises(NotFound):
            await world.reader.read(12345)


async def test_an_own_block_is_read_around_a_lost_node_before_it_is_committed() -> None:
    """The coordinator, which is asked where the block is, does not know it yet."""
    async with a_world() as world:
        world.reader.learn_stored(world.batch.blocks, world.batch.segments)
        known = dict(world.session.blocks)
        world.session.blocks.clear()
        node = world.segment.nodes[0]
        for shard in [key for key in world.nodes.shards if key[0] == node]:
            del world.nodes.shards[shard]
        for _ in range(2):
            assert await world.reader.read_many(world.ids) == world.plain
            world.forget()
        assert world.reader.degraded_reads
        world.session.blocks.update(known)
        assert await world.reader.read_many(world.ids) == world.plain
        world.forget()
        world.session.blocks.clear()
        world.nodes.shards.clear()
        with pytest.raises(NotFound):
            await world.reader.read(world.ids[0])


async def test_an_own_block_that_was_committed_and_is_gone_is_not_found() -> None:
    async with a_world() as world:
        world.reader.learn_stored(world.batch.blocks, world.batch.segments)
        world.session.blocks.clear()
        world.nodes.shards.clear()
        for _ in range(2):
            with pytest.raises(NotFound):
                await world.reader.read(world.ids[2])


async def test_a_coordinator_that_is_away_is_unavailable() -> None:
    async with a_world() as world:
        world.session.errors["locate_blocks"] = Unavailable("away")
        with pytest.raises(Unavailable, match="away"):
            await world.reader.read(world.ids[0])
        world.session.errors["report_damage"] = Unavailable("away")
        del world.session.errors["locate_blocks"]
        world.nodes.place(world.segment, 0)[0] ^= 1
        assert await world.reader.read(world.ids[0]) == world.plain[0], "a report that fails fails no read"


async def done_reading_ahead(world: World) -> None:
    while world.reader._prefetches:
        await asyncio.wait(world.reader._prefetches)
        await asyncio.sleep(0)


async def test_read_ahead_fills_the_cache() -> None:
    async with a_world() as world:
        world.reader.prefetch(world.ids[:4], whole_segments=False)
        await done_reading_ahead(world)
        assert [world.reader.cached(b) for b in world.ids[:4]] == world.plain[:4]
        assert world.reader.cached(world.ids[4]) is None


async def test_read_ahead_of_neighbours() -> None:
    async with a_world() as world:
        world.reader.prefetch(world.ids[:1], whole_segments=True)
        await done_reading_ahead(world)
        assert [world.reader.cached(b) for b in world.ids] == world.plain
        world.forget()
        world.reader.prefetch(world.ids[:1], whole_segments=True)
        await done_reading_ahead(world)
        assert world.session.calls["segment_blocks"] == 1
        assert world.reader.cached(world.ids[1]) is None, "once is enough"


async def test_read_ahead_is_bounded_and_never_raises() -> None:
    async with a_world(config=DataConfig(large_opens=1, prefetch_bytes=3 * BLOCK)) as world:
        world.reader.prefetch(world.ids, whole_segments=False)
        await done_reading_ahead(world)
        assert sum(world.reader.cached(b) is not None for b in world.ids) == 3
        world.forget()
        world.nodes.gate = asyncio.Event()
        for block in world.ids:
            world.reader.prefetch([block], whole_segments=False)
        await asyncio.sleep(0.01)
        assert len(world.nodes.gets) <= 4 + 3
        world.nodes.gate.set()
        await done_reading_ahead(world)
        world.forget()
        world.nodes.shards.clear()
        world.session.errors["report_damage"] = Unavailable("away")
        world.reader.prefetch(world.ids, whole_segments=True)
        await done_reading_ahead(world)
        world.session.errors["locate_blocks"] = Unavailable("away")
        world.reader.prefetch([77], whole_segments=True)
        await done_reading_ahead(world)


async def test_close_ends_what_is_under_way() -> None:
    async with a_world() as world:
        world.nodes.gate = asyncio.Event()
        reading = asyncio.create_task(world.reader.read(world.ids[0]))
        world.reader.prefetch(world.ids[1:], whole_segments=False)
        while not world.nodes.gets:
            await asyncio.sleep(0)
        await world.reader.close()
        with pytest.raises(Unavailable, match="given up"):
            await reading


async def test_memories_are_bounded() -> None:
    async with a_world(config=DataConfig(large_opens=1, locations=5, segment_locations=1)) as world:
        world.reader.learn(world.batch.blocks, world.batch.segments)
        assert len(world.reader._places) == 5
        assert await world.reader.read(world.ids[0]) == world.plain[0]
        assert len(world.reader._places) == 5
