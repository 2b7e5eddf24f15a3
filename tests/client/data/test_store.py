"""The write path over a coordinator and nodes in memory: layout, dedupe, bounds, and every way a node can fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from redfs.client.data import store as store_module
from redfs.client.data.cache import BlockCache
from redfs.client.data.config import MIB, DataConfig
from redfs.client.data.reader import BlockReader
from redfs.client.data.store import BlockStore, SegmentStock, StoredBatch
from redfs.core import erasure
from redfs.core.errors import LeaseLapsed, NoSpace, RedfsError, TooFewNodes, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.data.fakes import FakeNodes, FakeSession

CONFIG = DataConfig(large_opens=2, small_opens=3)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def pieces(data: bytes, size: int = 128 * 1024) -> list[memoryview]:
    return [memoryview(data)[at : at + size] for at in range(0, len(data), size)]


class World:
    def __init__(self, policy: str, nodes: int, compression: str) -> None:
        self.session = FakeSession(policy, nodes)
        self.nodes = FakeNodes(self.session)
        self.volume = pb.Volume(volume_id=5, protection=policy, compression=compression)
        self.now_s = 0.0
        self.on_pause: Callable[[], None] = lambda: None
        self.store = BlockStore(
            self.session,
            self.volume,
            self.nodes,
            BlockCache(MIB),
            CONFIG,
            clock=lambda: self.now_s,
            sleep=self._pause,
        )

    async def _pause(self, seconds: float) -> None:
        self.now_s += seconds
        self.on_pause()

    async def read(self, batch: StoredBatch) -> list[bytes]:
        """What a reader that knows nothing finds."""
        reader = BlockReader(self.session, self.nodes, BlockCache(16 * MIB), CONFIG)
        try:
            return [bytes(block) for block in await reader.read_many([block for block, _ in batch.refs])]
        finally:
            await reader.close()

    def settled(self) -> None:
        """Every shard on the nodes belongs to a segment that is committed, or to one that will be deleted."""
        for _, segment, shard in self.nodes.shards:
            assert segment in self.session.segments or segment in self.session.aborted, (segment, shard)


@asynccontextmanager
async def a_world(policy: str = "ec:4+2", nodes: int = 6, compression: str = "zstd") -> AsyncIterator[World]:
    world = World(policy, nodes, compression)
    yield world
    world.session.errors.clear()
    await world.store.close()
    assert not world.session.open, "segments that were opened ahead are given back"


@pytest.mark.parametrize(
    ("policy", "nodes"), [("ec:4+2", 6), ("ec:4+2", 5), ("ec:4+2", 3), ("mirror:3", 4), ("single", 1)]
)
async def test_large_and_small_batches_come_back(policy: str, nodes: int) -> None:
    async with a_world(policy, nodes) as world:
        for plain in (
            [b"x"],
            [noise(4096), b"y" * 5000],
            pieces(noise(MIB + 77)),
            pieces(bytes(300_000) + noise(50_000)),
        ):
            batch = await world.store.store(plain)
            assert [length for _, length in batch.refs] == [len(block) for block in plain]
            world.session.commit(batch)
            assert await world.read(batch) == [bytes(block) for block in plain]
        world.settled()


async def test_parity_is_that_of_the_code() -> None:
    async with a_world() as world:
        batch = await world.store.store(pieces(noise(MIB)))
        (segment,) = batch.segments
        assert (segment.k, segment.m, segment.shard_bytes) == (4, 2, MIB // 4)
        shards = [world.nodes.place(segment, i) for i in range(6)]
        assert b"".join(shards[:4]) == noise(MIB)
        assert erasure.code(4, 2).rebuild([4, 5], dict(enumerate(shards[:4]))) == shards[4:]
        await world.store.abandon(batch)
        assert world.session.aborted == [segment.segment_id]


async def test_small_batches_are_copies_without_a_question() -> None:
    async with a_world() as world:
        batch = await world.store.store([b"hello"])
        (segment,) = batch.segments
        assert (segment.k, segment.m, segment.shard_bytes) == (1, 2, 64)
        assert len({bytes(world.nodes.place(segment, i)) for i in range(3)}) == 1
        assert world.session.calls["find_blocks"] == 0
        world.session.commit(batch)
        again = await world.store.store([b"hello"])
        assert again.refs != batch.refs, "the commit finds it"
        await world.store.abandon(again)


async def test_what_compresses_to_little_is_a_small_segment() -> None:
    async with a_world() as world:
        batch = await world.store.store(pieces(b"a" * 500_000))
        assert batch.segments[0].k == 1
        world.session.commit(batch)
        assert await world.read(batch) == [bytes(p) for p in pieces(b"a" * 500_000)]


async def test_compression_can_be_off() -> None:
    async with a_world(compression="none") as world:
        batch = await world.store.store(pieces(b"ab" * 100_000))
        assert all(block.codec == 0 for block in batch.blocks)
        assert batch.blocks[0].stored_bytes == 128 * 1024
        await world.store.abandon(batch)


async def test_equal_blocks_are_stored_once() -> None:
    async with a_world() as world:
        a, b, c = noise(100_000, 1), noise(100_000, 2), noise(100_000, 3)
        first = await world.store.store([a, b, a])
        assert len(first.blocks) == 2
        assert first.refs[0] == first.refs[2]
        world.session.commit(first)
        second = await world.store.store([b, c])
        assert second.refs[0] == first.refs[1]
        assert len(second.blocks) == 1
        world.session.commit(second)
        third = await world.store.store([c, a, b])
        assert (third.segments, third.blocks) == ([], [])
        assert await world.read(third) == [c, a, b]
        forced = await world.store.store([a, a], dedupe=False)
        assert len(forced.blocks) == 1
        assert forced.refs[0][0] not in world.session.blocks
        await world.store.abandon(forced)


async def test_sizes_are_checked() -> None:
    async with a_world() as world:
        assert await world.store.store([]) == StoredBatch([])
        for wrong in ([b""], [bytes(128 * 1024 + 1)], [bytes(128 * 1024)] * 65):
            with pytest.raises(ValueError):
                await world.store.store(wrong)
        assert not world.nodes.puts


async def test_the_largest_segment_fits() -> None:
    async with a_world(compression="none") as world:
        data = noise(8 * MIB)
        batch = await world.store.store(pieces(data))
        assert batch.segments[0].shard_bytes == 2 * MIB
        world.session.commit(batch)
        assert b"".join(await world.read(batch)) == data


async def test_no_round_trip_for_a_segment_that_was_opened_ahead() -> None:
    async with a_world() as world:
        for turn in range(12):
            batch = await world.store.store([noise(100, turn)])
            world.session.commit(batch)
        assert world.session.calls["open_segments"] <= 7, "a batch of three each time, asked for in advance"


async def test_takers_at_any_moment_get_a_segment_of_their_own() -> None:
    session = FakeSession()
    stock = SegmentStock(session, 5, small=True, target=2)

    async def taker(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        ident: int = (await stock.take()).segment_id
        return ident

    taken = await asyncio.gather(*(taker(n // 3) for n in range(60)))
    assert len(set(taken)) == 60
    await session.call(abort_segments=pb.AbortSegments(segment_ids=[*taken, *await stock.close()]))
    with pytest.raises(Unavailable, match="closed"):
        await stock.take()
    assert not session.open


async def test_segments_of_a_session_that_ended_are_handed_out_to_nobody() -> None:
    async with a_world() as world:
        for size in (100, 3 * MIB):
            world.session.commit(await world.store.store(pieces(noise(size))))
        old = set(world.session.open)
        assert old, "some are opened ahead"
        await world.store.forsake()
        old |= set(world.session.open)  # what was asked for a moment before
        world.session.open.clear()
        data = noise(3 * MIB, 2)
        for batch in [await world.store.store(pieces(data)), await world.store.store([noise(100, 3)])]:
            assert not old.intersection(segment.segment_id for segment in batch.segments)
            world.session.commit(batch)
        await world.store.forsake()
        old = set(world.session.open)
        world.session.open.clear()
    assert not old.intersection(world.session.aborted), "nor given back"


async def test_segments_that_a_session_was_asked_for_when_it_ended_are_forgotten_too() -> None:
    session = FakeSession()
    stock = SegmentStock(session, 5, small=True, target=2)
    assert stock.take_now() is None, "asks for some"
    await asyncio.sleep(0)
    await stock.forsake()
    assert session.calls["open_segments"] == 1
    await stock.take()
    assert session.calls["open_segments"] == 2, "under the session that follows"


async def test_segments_that_nobody_takes_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "STOCK_AGE_S", 0.0)
    session = FakeSession()
    given_up: list[int] = []
    done = asyncio.Event()

    def give_up(*ids: int) -> None:
        given_up.extend(ids)
        done.set()

    stock = SegmentStock(session, 5, small=True, target=3, give_up=give_up)
    assert stock.take_now() is None, "asks for some"
    await asyncio.wait_for(done.wait(), 20)
    assert len(given_up) == 3
    monkeypatch.setattr(store_module, "STOCK_AGE_S", 60.0)
    taken = (await stock.take()).segment_id
    assert taken not in given_up
    assert len(await stock.close()) == 2
    assert len(given_up) == 3, "young ones are kept"


async def test_segments_in_flight_are_bounded() -> None:
    async with a_world() as world:
        world.nodes.gate = asyncio.Event()
        jobs = [asyncio.create_task(world.store.store(pieces(noise(200_000, n)))) for n in range(7)]
        limit = CONFIG.segments_in_flight * 6
        while world.nodes.busiest < limit:
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.nodes.busiest == limit
        world.nodes.gate.set()
        for job in jobs:
            world.session.commit(await job)
        assert world.nodes.busiest == limit


@pytest.mark.parametrize(
    "error", [Unavailable("connection refused"), Unavailable("no answer"), NoSpace("disk full")], ids=str
)
@pytest.mark.parametrize("size", [1000, 400_000])
async def test_a_failing_node_is_replaced_and_only_its_shard_sent_again(error: RedfsError, size: int) -> None:
    async with a_world(nodes=8) as world:
        world.nodes.put_errors[2] = lambda: error
        world.nodes.put_errors[3] = lambda: error
        batch = await world.store.store(pieces(noise(size)))
        world.session.commit(batch)
        (segment,) = batch.segments
        assert (segment.k + segment.m) == (3 if size < 65536 else 6)
        assert not {2, 3} & set(segment.nodes)
        good = [put for put in world.nodes.puts if put[0] not in (2, 3)]
        assert len(good) == len(segment.nodes), "no shard went to two nodes that work"
        assert await world.read(batch) == [bytes(p) for p in pieces(noise(size))]
        before = len(world.nodes.puts)
        batch = await world.store.store(pieces(noise(size, 2)))
        world.session.commit(batch)
        assert not {2, 3} & {node for node, _, _ in world.nodes.puts[before:]}, "suspected nodes are not tried"


async def test_a_replacement_that_fails_too_is_replaced() -> None:
    async with a_world(nodes=9) as world:
        for node in (1, 2, 7):
            world.nodes.lose(node)
        batch = await world.store.store(pieces(noise(300_000)))
        assert not {1, 2, 7} & set(batch.segments[0].nodes)
        world.session.commit(batch)
        assert await world.read(batch) == [bytes(p) for p in pieces(noise(300_000))]


@pytest.mark.parametrize(("dead", "k"), [(1, 3), (2, 2), (3, 1)])
async def test_without_another_node_k_shrinks_and_m_stays(dead: int, k: int) -> None:
    async with a_world() as world:
        for node in range(1, dead + 1):
            world.nodes.lose(node)
        batch = await world.store.store(pieces(noise(700_000)))
        (segment,) = batch.segments
        assert (segment.k, segment.m) == (k, 2)
        assert not set(range(1, dead + 1)) & set(segment.nodes)
        world.session.commit(batch)
        assert await world.read(batch) == [bytes(p) for p in pieces(noise(700_000))]
        world.settled()


async def test_nodes_that_die_one_after_the_other_while_narrowing() -> None:
    async with a_world() as world:
        turns = {1: 0, 2: 1, 3: 2}

        def after(puts: int) -> Callable[[], RedfsError | None]:
            return lambda: Unavailable("gone") if len({s for _, s, _ in world.nodes.puts}) > puts else None

        for node, puts in turns.items():
            world.nodes.put_errors[node] = after(puts)
        batch = await world.store.store(pieces(noise(700_000)))
        assert (batch.segments[0].k, batch.segments[0].m) == (1, 2)
        world.session.commit(batch)
        assert await world.read(batch) == [bytes(p) for p in pieces(noise(700_000))]


@pytest.mark.parametrize("turn", range(6))
async def test_a_node_that_fails_in_a_narrowed_segment_is_replaced_in_its_own_place(turn: int) -> None:
    async with a_world() as world:
        world.session.next_segment += turn  # so that the failing nodes come in every place
        world.nodes.put_errors[1] = lambda: Unavailable("gone")

        def gone_when_narrow() -> RedfsError | None:
            if len({segment for _, segment, _ in world.nodes.puts}) < 2:
                return None
            if 7 not in world.session.up:
                world.session.up.append(7)
            return Unavailable("gone")

        world.nodes.put_errors[3] = gone_when_narrow
        plain = pieces(noise(700_000))
        batch = await world.store.store(plain)
        assert sorted(batch.segments[0].nodes) == [2, 4, 5, 6, 7]
        world.session.commit(batch)
        assert await world.read(batch) == [bytes(p) for p in plain]


@pytest.mark.parametrize("size", [1000, 400_000])
async def test_too_few_nodes(size: int) -> None:
    async with a_world() as world:
        for node in range(1, 5):
            world.nodes.lose(node)
        with pytest.raises(TooFewNodes, match="ec:4\\+2"):
            await world.store.store(pieces(noise(size)))
        world.nodes.put_errors.clear()
        batch = await world.store.store(pieces(noise(size)))
        world.session.commit(batch)


@pytest.mark.parametrize("size", [1000, 400_000])
@pytest.mark.parametrize("known", [True, False], ids=["the coordinator knows it", "only the client knows it"])
async def test_a_write_waits_for_nodes_that_are_back_soon(size: int, known: bool) -> None:
    async with a_world() as world:

        def back_in_time() -> None:
            if world.now_s > CONFIG.too_few_patience_s / 2:
                world.session.errors.clear()
                world.nodes.put_errors.clear()

        if known:
            world.session.errors["open_segments"] = TooFewNodes("no node is up")
        else:
            for node in range(1, 5):
                world.nodes.put_errors[node] = lambda: Unavailable("gone")
        world.on_pause = back_in_time
        plain = pieces(noise(size))
        batch = await world.store.store(plain)
        world.session.commit(batch)
        assert await world.read(batch) == [bytes(block) for block in plain]
        assert CONFIG.too_few_patience_s / 2 < world.now_s < CONFIG.too_few_patience_s
        world.settled()


@pytest.mark.parametrize("size", [1000, 400_000])
async def test_a_write_waits_for_nodes_no_longer_than_it_may(size: int) -> None:
    async with a_world() as world:
        world.session.errors["open_segments"] = TooFewNodes("no node is up")
        with pytest.raises(TooFewNodes):
            await world.store.store(pieces(noise(size)))
        assert CONFIG.too_few_patience_s <= world.now_s < CONFIG.too_few_patience_s + 1


async def test_nodes_that_come_back_are_tried_before_writing_stops() -> None:
    async with a_world("mirror:3", 3) as world:
        tries = 0

        def once() -> RedfsError | None:
            nonlocal tries
            tries += 1
            return Unavailable("restarting") if tries == 1 else None

        world.nodes.put_errors[2] = once
        batch = await world.store.store(pieces(noise(100_000)))
        assert sorted(batch.segments[0].nodes) == [1, 2, 3]
        world.session.commit(batch)


async def test_full_nodes_are_no_space() -> None:
    async with a_world() as world:
        for node in range(1, 7):
            world.nodes.put_errors[node] = lambda: NoSpace("disk full")
        with pytest.raises(NoSpace, match="full"):
            await world.store.store(pieces(noise(400_000)))


@pytest.mark.parametrize("size", [1000, 400_000])
async def test_errors_of_the_coordinator_come_through(size: int) -> None:
    async with a_world() as world:
        world.session.errors["open_segments"] = TooFewNodes("two nodes")
        with pytest.raises(TooFewNodes, match="two nodes"):
            await world.store.store(pieces(noise(size)))
        world.session.errors["open_segments"] = LeaseLapsed("ended")
        with pytest.raises(LeaseLapsed):
            await world.store.store(pieces(noise(size)))
        del world.session.errors["open_segments"]
        world.nodes.lose(1)
        world.session.errors["replace_shard"] = LeaseLapsed("ended")

        async def until_the_dead_node_is_met() -> None:
            for turn in range(6):
                world.session.commit(await world.store.store(pieces(noise(size, turn))))

        with pytest.raises(LeaseLapsed):
            await until_the_dead_node_is_met()


async def test_a_cancelled_store_leaves_its_buffer_alone() -> None:
    async with a_world() as world:
        world.nodes.gate = asyncio.Event()
        first = asyncio.create_task(world.store.store(pieces(noise(MIB, 1))))
        while len(world.nodes.puts) < 6:
            await asyncio.sleep(0.001)
        first.cancel()
        second = asyncio.create_task(world.store.store(pieces(noise(MIB, 2))))
        while len(world.nodes.puts) < 12:
            await asyncio.sleep(0.001)
        world.nodes.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        world.session.commit(await second)
        lost = world.nodes.puts[0][1]
        kept = {shard: data for (_, segment, shard), data in world.nodes.shards.items() if segment == lost}
        assert len(kept) >= 5
        for shard, data in kept.items():
            if shard < 4:
                expected = noise(MIB, 1)[shard * MIB // 4 : (shard + 1) * MIB // 4]
                assert data == expected, "what was on its way is not overwritten by the next batch"
