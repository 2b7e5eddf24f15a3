"""Tasks of storage nodes: answered once, and lost with their stream."""

import asyncio

import pytest

from redfs.coordinator.node_tasks import NodeTasks, failure_in
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
