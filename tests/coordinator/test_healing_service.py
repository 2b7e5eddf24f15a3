"""Healing behind real gRPC: tasks go to nodes that only pretend to have disks, people's calls to the coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from redfs.coordinator.coordinator import Coordinator
from redfs.coordinator.environment import CoordinatorConfig
from redfs.coordinator.healing.worker import Worker
from redfs.coordinator.service import serve
from redfs.coordinator.shell import Shell, cancel_and_wait
from redfs.coordinator.store import MemoryStore
from redfs.core.errors import BY_CODE
from redfs.core.tables import pack_held_shards, pack_shards, unpack_shards
from redfs.proto import rpc
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Clock, SeededRandomness
from tests.coordinator.test_service import Node, World, commit, error_of, until


class WorkingNode(Node):
    """Carries out what it is told, on a list of shards."""

    def __init__(self, channel: Any, number: int) -> None:
        super().__init__(channel, number)
        self.node_id = 0
        self.held: dict[tuple[int, int], int] = {}
        self.tasks: list[pb.RebuildShard] = []
        self.refuse = ""
        """Why it cannot do tasks, if so."""
        self.beats_sent = 0
        self._working: asyncio.Task[None] | None = None

    async def join(self, **hello: Any) -> Any:
        order = await super().join(**hello)
        self.node_id = order.welcome.node_id
        self._working = asyncio.create_task(self._work())
        return order

    async def _work(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while True:
                order = await self._stream.read()
                if order is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs do not name it
                    return
                await self._do(order)

    async def _do(self, order: pb.NodeOrder) -> None:
        if order.HasField("send_inventory"):
            packed = pack_held_shards(sorted((*key, size) for key, size in self.held.items()))
            page = pb.Inventory(inventory_id=order.send_inventory.inventory_id, packed=packed, last=True)
            await self.report(inventory=page)
        elif order.HasField("delete"):
            shards = unpack_shards(order.delete.packed)
            for shard in shards:
                self.held.pop(shard, None)
            await self.report(deleted=pb.ShardsDeleted(packed=pack_shards(shards)))
        elif order.HasField("rebuild_shard"):
            task = order.rebuild_shard
            self.tasks.append(task)
            done = pb.TaskDone(task_id=task.task_id)
            if self.refuse:
                done.failure.CopyFrom(pb.Failure(code="no_space", message=self.refuse))
            else:
                self.held[task.segment.segment_id, task.shard] = task.segment.shard_bytes
            await self.report(task_done=done)

    def close(self) -> None:
        if self._working is not None:
            self._working.cancel()
        super().close()


class HealingWorld(World):
    clock: Clock
    nodes: list[WorkingNode]  # type: ignore[assignment]  # these can do more

    async def pass_time(self, seconds: float) -> None:
        """Time goes by in steps that no node is silent in."""
        for _ in range(int(seconds / 2)):
            self.clock.now_s += 2
            for node in self.nodes:
                await node.beat()
            await until(lambda: all(n.seen_ago_s == 0 for n in self.coordinator.cluster.view() if n.up))

    async def write(self, count: int) -> None:
        """That many segments, whose shards are on their nodes."""
        await self.stub.CreateVolume(pb.VolumeCreate(name="v", protection="ec:2+1"))
        stream = await self.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        for number in range(1, count + 1):
            await (await commit(stream, volume, number, f"word {number}", slot=number))
        slots = pb.ReadSlots(volume_id=volume, ino=10, generation=1, first=0, count=count + 1)
        for segment in (await stream.call(read_slots=slots)).segments:
            for shard, node_id in enumerate(segment.nodes):
                self.node(node_id).held[segment.segment_id, shard] = segment.shard_bytes
        await stream.call(close=pb.Close())
        await stream.ended()

    def node(self, node_id: int) -> WorkingNode:
        return next(node for node in self.nodes if node.node_id == node_id)

    async def shown(self, node_id: int) -> pb.Node:
        nodes: list[pb.Node] = list((await self.stub.GetNodes(pb.Empty())).nodes)
        return next(node for node in nodes if node.node_id == node_id)

    async def until_empty(self, node_id: int) -> pb.Node:
        async with asyncio.timeout(60):
            while (node := await self.shown(node_id)).segments or "remove" not in node.allowed:
                await self.pass_time(2)
                await asyncio.sleep(0.05)
        return node


@asynccontextmanager
async def healing_world(count: int) -> AsyncIterator[HealingWorld]:
    clock = Clock()
    config = CoordinatorConfig(delete_grace_s=0.0)
    coordinator = Coordinator(MemoryStore(), config, clock, SeededRandomness())
    shell = Shell(coordinator)
    server = rpc.make_server()
    port = rpc.listen(server, "127.0.0.1:0")
    await serve(shell, server)
    channel = rpc.open_channel(f"127.0.0.1:{port}")
    made = HealingWorld(channel, shell, f"127.0.0.1:{port}")
    made.clock = clock
    healing = asyncio.create_task(Worker(shell).run_for_ever())
    try:
        for number in range(count):
            node = WorkingNode(channel, number)
            await node.join()
            made.nodes.append(node)
        await until(lambda: len(coordinator.cluster.up()) == count)
        await until(lambda: all(facts.compared for facts in coordinator.cluster.facts().values()))
        await made.pass_time(8)
        yield made
    finally:
        await cancel_and_wait([healing])
        for node in made.nodes:
            node.close()
        await channel.close(None)
        await server.stop(None)
        await asyncio.get_running_loop().run_in_executor(None, shell.stop)


async def test_a_node_is_taken_out_made_up_for_and_removed() -> None:
    async with healing_world(5) as w:
        await w.write(10)
        gone = w.nodes[0]
        held = len(gone.held)
        assert held
        refused = await error_of(w.stub.ControlNode(pb.NodeControl(node_id=gone.node_id, action="remove")))
        assert isinstance(refused, BY_CODE["not_allowed"])
        shown = await w.stub.ControlNode(pb.NodeControl(node_id=gone.node_id, action="out"))
        assert (shown.state, list(shown.allowed)) == ("out", ["in"])
        shown = await w.until_empty(gone.node_id)
        assert list(shown.allowed) == ["in", "remove"]
        tasks = [task for node in w.nodes for task in node.tasks]
        assert len(tasks) == held
        first = tasks[0]
        assert (first.segment.k, first.segment.m, len(first.segment.nodes)) == (2, 1, 3)
        assert {a.node_id for a in first.addresses} == set(first.segment.nodes)
        assert not first.set_aside
        status = await w.stub.GetStatus(pb.Empty())
        assert (status.endangered_segments, status.lost_segments) == (0, 0)
        await until(lambda: gone.held == {})
        await w.stub.ControlNode(pb.NodeControl(node_id=gone.node_id, action="remove"))
        assert gone.node_id not in {node.node_id for node in (await w.stub.GetNodes(pb.Empty())).nodes}


async def test_a_task_that_fails_goes_to_another_node() -> None:
    async with healing_world(5) as w:
        await w.write(4)
        gone = next(node for node in w.nodes if node.held)
        full = next(node for node in w.nodes if node is not gone)
        for node in w.nodes:
            node.refuse = "the disk is full"
        drained = await w.stub.ControlNode(pb.NodeControl(node_id=gone.node_id, action="drain"))
        assert drained.state == "draining"
        refused = await error_of(w.stub.ControlNode(pb.NodeControl(node_id=gone.node_id, action="remove")))
        assert "still has shards of" in str(refused)
        for node in w.nodes:
            node.refuse = "" if node is not full else node.refuse
        shown = await w.until_empty(gone.node_id)
        assert shown.state == "draining"
        async with asyncio.timeout(60):
            while any(job.kind == "drain" for job in (await w.stub.GetStatus(pb.Empty())).jobs):
                await w.pass_time(2)
                await asyncio.sleep(0.05)


async def test_jobs_are_started_and_unknown_ones_refused() -> None:
    async with healing_world(3) as w:
        job = await w.stub.StartJob(pb.JobStart(kind="rebalance"))
        assert (job.kind, job.subject) == ("rebalance", "all nodes")
        assert isinstance(await error_of(w.stub.StartJob(pb.JobStart(kind="x"))), BY_CODE["invalid"])
        async with asyncio.timeout(60):
            while any(j.kind == "rebalance" for j in (await w.stub.GetStatus(pb.Empty())).jobs):
                await w.pass_time(2)
                await asyncio.sleep(0.05)
