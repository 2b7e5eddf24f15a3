"""The job that cleans: when it begins, what it asks of nodes, and what becomes of it when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from redfs.coordinator import jobs, nodes
from redfs.coordinator.clean_job import clean_job, start_cleaning
from redfs.coordinator.cleaner import MAX_REST_S, REST_S, Cleaning
from redfs.coordinator.job_starts import start_job
from redfs.coordinator.shell import Shell
from redfs.core.errors import Busy, InvalidArgument, NoSpace
from redfs.core.tables import DAMAGE, JobRow, SegmentState
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Client, Pool

WAIT_S = 60.0
Answer = Callable[[pb.PackBlocks], pb.TaskDone | None]
"""None: it says nothing."""


def works(task: pb.PackBlocks) -> pb.TaskDone:
    return pb.TaskDone(task_id=task.task_id, written_bytes=1)


def fails(task: pb.PackBlocks) -> pb.TaskDone:
    failure = pb.Failure(code="unavailable", message="a node does not answer")
    return pb.TaskDone(task_id=task.task_id, failure=failure)


class World:
    """A pool with a cleaning whose looks are a test's, and nodes that answer as it says."""

    def __init__(self, pool: Pool, shell: Shell) -> None:
        self.pool = pool
        self.shell = shell
        self.cleaning = Cleaning(shell)
        self.answer: Answer = works
        self.tasks: list[tuple[int, pb.PackBlocks]] = []
        self.asked = asyncio.Event()
        for node in pool.streams:
            self.attach(node)

    def attach(self, node: int) -> None:
        async def send(order: pb.NodeOrder) -> None:
            if order.WhichOneof("body") == "pack_blocks":
                self.tasks.append((node, order.pack_blocks))
                self.asked.set()
                answer = self.answer(order.pack_blocks)
                if answer is not None:
                    self.shell.node_tasks.done(node, answer)

        self.shell.node_tasks.stream_opened(node, send)

    async def look(self, times: int = 1) -> None:
        """Looks, and waits for what began."""
        for _ in range(times):
            await self.cleaning.look()
            if self.cleaning._packs:
                _, waiting = await asyncio.wait(self.cleaning._packs, timeout=WAIT_S)
                assert not waiting

    async def begin(self) -> asyncio.Task[None]:
        """A look that plans, and one whose packing is with a node that says nothing."""
        self.answer = lambda task: None
        await self.cleaning.look()
        await self.cleaning.look()
        async with asyncio.timeout(WAIT_S):
            await self.asked.wait()
        (task,) = self.cleaning._packs
        return task

    def job(self) -> JobRow | None:
        with self.pool.coordinator.read() as kv:
            return clean_job(kv)

    async def start(self) -> None:
        await self.shell.run(start_cleaning)

    def rest(self, segment_id: int) -> float:
        """How long a segment is left alone from now."""
        rest = self.cleaning.cleaner._resting.get(segment_id)
        return 0.0 if rest is None else rest.until_s - self.pool.clock.now_s

    def open_segments(self) -> list[int]:
        return [s for s, row in self.pool.segment_rows().items() if row.state == SegmentState.OPEN]


@asynccontextmanager
async def a_world(**config: Any) -> AsyncIterator[World]:
    pool = Pool(6, **{"node_down_s": 1e9, "down_out_s": 2e9, "clean_bytes_per_s": 1 << 60, **config})
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    for slot, word in enumerate("abc"):
        client.write({(10, slot): word})
    shell = Shell(pool.coordinator)
    shell.start()
    try:
        world = World(pool, shell)
        yield world
        assert pool.problems() == []
    finally:
        await asyncio.get_running_loop().run_in_executor(None, shell.stop)


async def test_it_begins_by_itself_when_it_pays_and_ends_when_nothing_is_left() -> None:
    async with a_world() as w:
        await w.look()
        w.pool.clock.now_s += w.pool.config.clean_interval_s
        await w.look()
        assert w.job() is None, "what is young waits"
        w.pool.clock.now_s += w.pool.config.clean_fill_s
        await w.cleaning.look()
        row = w.job()
        assert row is not None
        assert row.total_bytes > 0
        await w.look(3)
        assert w.job() is None
        ((_, task),) = w.tasks
        assert [b.stored_bytes for b in task.blocks] == [100, 100, 100]
        assert {s.segment_id for s in task.sources} == {b.segment_id for b in task.blocks}
        assert list(w.pool.segment_rows()) == [task.target.segment_id]
        assert {a.node_id: a.address for a in task.addresses}[1] == "host:0"
        w.pool.clock.now_s += 1e6
        await w.look(3)
        assert w.job() is None
        assert len(w.tasks) == 1


async def test_somebody_asks_and_it_is_done_now() -> None:
    async with a_world(clean_interval_s=0) as w:
        w.pool.clock.now_s += 1e6
        await w.look()
        assert not w.tasks, "it does not begin by itself"
        await w.shell.run(lambda txn: start_job(txn, "clean"))
        await w.look(3)
        assert w.job() is None
        assert len(w.tasks) == 1
        with pytest.raises(InvalidArgument, match="clean"):
            await w.shell.run(lambda txn: start_job(txn, "dust"))


async def test_a_paused_job_begins_nothing_and_a_cancelled_one_ends() -> None:
    async with a_world(clean_interval_s=0) as w:
        await w.start()
        row = w.job()
        assert row is not None
        await w.shell.run(lambda txn: jobs.control_job(txn, row.job_id, "pause"))
        await w.look(2)
        assert not w.tasks
        with pytest.raises(Busy, match="resume"):
            await w.start()
        await w.shell.run(lambda txn: jobs.control_job(txn, row.job_id, "resume"))
        packing = await w.begin()
        await w.shell.run(lambda txn: jobs.control_job(txn, row.job_id, "cancel"))
        w.answer = works
        await w.cleaning.look()
        assert w.job() is None
        node, task = w.tasks[0]
        w.shell.node_tasks.done(node, works(task))
        await packing
        assert list(w.pool.segment_rows()) == [task.target.segment_id], "what was under way is finished"


async def test_a_job_goes_on_after_a_restart() -> None:
    async with a_world(clean_interval_s=0) as w:
        await w.start()
        w.cleaning = Cleaning(w.shell)
        await w.look(3)
        assert w.job() is None
        assert len(w.tasks) == 1


async def test_a_packing_that_fails_is_given_up_and_its_sources_rest_longer_each_time() -> None:
    async with a_world() as w:
        w.answer = fails
        sources = list(w.pool.segment_rows())
        w.pool.clock.now_s += w.pool.config.clean_fill_s
        expected_s = REST_S
        for attempt in range(1, 10):
            await w.look(3)
            assert len(w.tasks) == attempt
            assert w.job() is None, "a job does not wait for what fails"
            assert list(w.pool.segment_rows()) == sources
            assert not w.open_segments()
            assert w.pool.problems() == []
            assert [w.rest(s) for s in sources] == [expected_s] * 3
            w.pool.clock.now_s += expected_s
            expected_s = min(2 * expected_s, MAX_REST_S)
        w.answer = works
        await w.look(3)
        assert list(w.pool.segment_rows()) == [w.tasks[-1][1].target.segment_id]
        assert not w.cleaning.cleaner._resting


async def test_a_node_that_goes_away_while_it_packs_is_not_asked_again_soon() -> None:
    async with a_world(clean_interval_s=0) as w:
        await w.start()
        packing = await w.begin()
        first, _ = w.tasks[0]
        w.attach(first)
        await packing
        assert not w.open_segments()
        w.answer = works
        await w.start()
        await w.look(3)
        assert w.job() is None
        w.pool.clock.now_s += REST_S
        await w.start()
        await w.look(3)
        assert len(w.tasks) == 2
        assert w.tasks[1][0] != first
        assert len(w.pool.segment_rows()) == 1


async def test_bad_shards_are_noted_for_repair_and_the_other_sources_go_on() -> None:
    async with a_world(clean_interval_s=0) as w:
        bad, *others = w.pool.segment_rows()

        def finds(task: pb.PackBlocks) -> pb.TaskDone:
            if bad not in [s.segment_id for s in task.sources]:
                return works(task)
            done = fails(task)
            done.bad.append(pb.BadShard(segment_id=bad, shard=2, reason="flipped"))
            return done

        w.answer = finds
        await w.start()
        await w.look(6)
        assert w.job() is None
        rows = w.pool.segment_rows()
        assert bad in rows
        assert not set(others) & set(rows)
        with w.pool.coordinator.read() as kv:
            assert [key for key, _ in kv.scan(DAMAGE, b"", b"\xff" * 20)] == [bad.to_bytes(8) + b"\0\2"]


async def test_an_answer_that_comes_when_the_target_is_gone_changes_nothing() -> None:
    async with a_world(clean_interval_s=0) as w:
        sources = list(w.pool.segment_rows())
        await w.start()
        packing = await w.begin()
        node, task = w.tasks[0]
        await w.shell.run(lambda txn: txn.doom(task.target.segment_id, txn.segment(task.target.segment_id)))  # type: ignore[arg-type]
        w.shell.node_tasks.done(node, works(task))
        await packing
        assert list(w.pool.segment_rows()) == sources


async def test_a_full_disk_of_the_coordinator_leaves_the_target_to_the_next_look() -> None:
    async with a_world(clean_interval_s=0) as w:
        await w.start()
        packing = await w.begin()

        def full(number: int) -> None:
            raise NoSpace("the disk is full")

        w.pool.store.before_commit = full  # type: ignore[attr-defined]
        node, task = w.tasks[0]
        w.shell.node_tasks.done(node, works(task))
        await packing
        assert w.open_segments() == [task.target.segment_id]
        with pytest.raises(NoSpace):
            await w.look()
        assert len(w.tasks) == 1, "nothing begins before that is settled"
        w.pool.store.before_commit = lambda number: None  # type: ignore[attr-defined]
        await w.look()
        assert not w.open_segments()


async def test_a_full_node_makes_it_wait() -> None:
    async with a_world(clean_interval_s=0) as w:
        for node in w.pool.streams:
            w.pool.report(node, free_bytes=0)
        await w.start()
        await w.look(3)
        assert not w.tasks
        assert w.job() is None
        assert len(w.pool.segment_rows()) == 3


async def test_it_is_no_faster_than_it_may_be() -> None:
    async with a_world(clean_interval_s=0, clean_bytes_per_s=3) as w:
        w.pool.create("w", "mirror:2")
        other = Client(w.pool, "w")
        other.write({(10, 0): "a"})
        other.write({(10, 1): "b"})
        await w.start()
        await w.look(5)
        assert len(w.tasks) == 1
        moved_bytes = sum(b.stored_bytes for b in w.tasks[0][1].blocks)
        w.pool.clock.now_s += moved_bytes / 3 - 1
        await w.look(5)
        assert len(w.tasks) == 1
        w.pool.clock.now_s += 1
        await w.look(5)
        assert len(w.tasks) == 2


async def test_a_loop_ends_with_what_it_began() -> None:
    async with a_world(clean_interval_s=0) as w:
        nodes_there = len(w.pool.streams)
        await w.start()
        w.answer = lambda task: None
        loop = asyncio.create_task(w.cleaning.run_for_ever())
        await w.asked.wait()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        assert not w.cleaning._packs
        assert not w.open_segments()
        with w.pool.coordinator.read() as kv:
            assert len(nodes.stored_nodes(kv)) == nodes_there
