"""Tasks of storage nodes: answered once, and lost with their stream."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from redfs.coordinator.node_tasks import MAX_SCRUB_REPORTS, NodeTasks, failure_in
from redfs.core.errors import Unavailable
from redfs.proto.gen import cluster_pb2 as pb


class Node:
    """A stream that keeps what was sent."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[pb.NodeOrder] = asyncio.Queue()

    async def send(self, order: pb.NodeOrder) -> None:
        self.orders.put_nowait(order)


async def test_a_task_is_answered_by_its_node_only() -> None:
    tasks, node = NodeTasks(), Node()
    tasks.stream_opened(1, node.send)
    work = asyncio.create_task(tasks.run(1, pb.RebuildShard(shard=3), 60))
    order = (await node.orders.get()).rebuild_shard
    assert order.shard == 3
    assert tasks.under_way(1) == 1
    tasks.done(2, pb.TaskDone(task_id=order.task_id, failure=pb.Failure(code="unavailable", message="not mine")))
    tasks.done(1, pb.TaskDone(task_id=order.task_id, written_bytes=5))
    answer = await work
    assert answer.written_bytes == 5
    assert failure_in(answer) is None
    assert tasks.under_way(1) == 0


async def test_a_task_is_lost_with_its_stream() -> None:
    tasks, before, after = NodeTasks(), Node(), Node()
    with pytest.raises(Unavailable, match="not attached"):
        await tasks.run(1, pb.RebuildShard(), 60)
    tasks.stream_opened(1, before.send)
    work = asyncio.create_task(tasks.run(1, pb.PackBlocks(), 60))
    await before.orders.get()
    tasks.stream_opened(1, after.send)
    tasks.stream_closed(1, before.send)
    with pytest.raises(Unavailable, match="lost its stream"):
        await work
    again = asyncio.create_task(tasks.run(1, pb.PackBlocks(), 60))
    assert (await after.orders.get()).HasField("pack_blocks")
    tasks.stream_closed(1, after.send)
    with pytest.raises(Unavailable, match="lost its stream"):
        await again


async def test_a_task_that_nobody_waits_for_is_cancelled() -> None:
    tasks, node = NodeTasks(), Node()
    tasks.stream_opened(1, node.send)
    with pytest.raises(Unavailable, match="did not do"):
        await tasks.run(1, pb.RebuildShard(), 0.01)
    late = (await node.orders.get()).rebuild_shard.task_id
    assert (await node.orders.get()).cancel_task.task_id == late
    work = asyncio.create_task(tasks.run(1, pb.RebuildShard(), 60))
    given = (await node.orders.get()).rebuild_shard.task_id
    work.cancel()
    assert (await node.orders.get()).cancel_task.task_id == given


async def next_of(reports: AsyncGenerator[pb.ShardsScrubbed, None]) -> pb.ShardsScrubbed:
    return await anext(reports)


async def test_a_scrub_tells_until_it_is_done() -> None:
    tasks, node = NodeTasks(), Node()
    tasks.stream_opened(1, node.send)
    reports = tasks.scrub(1, 7, 1000, 60)
    first = asyncio.create_task(next_of(reports))
    order = (await node.orders.get()).scrub_shards
    assert (order.after_segment, order.bytes_per_s) == (7, 1000)
    tasks.scrubbed(2, pb.ShardsScrubbed(scrub_id=order.scrub_id, upto_segment=99))
    for upto in (8, 9):
        tasks.scrubbed(1, pb.ShardsScrubbed(scrub_id=order.scrub_id, upto_segment=upto, done=upto == 9))
    assert (await first).upto_segment == 8
    assert [report.upto_segment async for report in reports] == [9]
    assert node.orders.empty()
    tasks.scrubbed(1, pb.ShardsScrubbed(scrub_id=order.scrub_id))


async def test_a_scrub_is_lost_with_its_stream_or_when_nothing_is_heard() -> None:
    tasks, node = NodeTasks(), Node()
    with pytest.raises(Unavailable, match="not attached"):
        await next_of(tasks.scrub(1, 0, 0, 60))
    tasks.stream_opened(1, node.send)
    work = asyncio.create_task(next_of(tasks.scrub(1, 0, 0, 60)))
    await node.orders.get()
    tasks.stream_closed(1, node.send)
    with pytest.raises(Unavailable, match="lost its stream"):
        await work
    tasks.stream_opened(1, node.send)
    with pytest.raises(Unavailable, match="said nothing"):
        await next_of(tasks.scrub(1, 0, 0, 0.01))
    given = (await node.orders.get()).scrub_shards.scrub_id
    assert (await node.orders.get()).cancel_task.task_id == given


async def test_a_scrub_that_is_closed_is_cancelled_on_the_node() -> None:
    tasks, node = NodeTasks(), Node()
    tasks.stream_opened(1, node.send)
    reports = tasks.scrub(1, 0, 0, 60)
    first = asyncio.create_task(next_of(reports))
    given = (await node.orders.get()).scrub_shards.scrub_id
    tasks.scrubbed(1, pb.ShardsScrubbed(scrub_id=given))
    await first
    await reports.aclose()
    assert (await node.orders.get()).cancel_task.task_id == given


async def test_reports_that_nobody_takes_do_not_pile_up() -> None:
    tasks, node = NodeTasks(), Node()
    tasks.stream_opened(1, node.send)
    reports = tasks.scrub(1, 0, 0, 60)
    first = asyncio.create_task(next_of(reports))
    given = (await node.orders.get()).scrub_shards.scrub_id
    tasks.scrubbed(1, pb.ShardsScrubbed(scrub_id=given))
    await first
    for _ in range(MAX_SCRUB_REPORTS + 1):
        tasks.scrubbed(1, pb.ShardsScrubbed(scrub_id=given))
    with pytest.raises(Unavailable, match="not taken in time"):
        await next_of(reports)
