"""A storage node's process in the simulation: the real shard store on a simulated disk, the real code of its tasks and
scrubs, and the conversation with the coordinator. What is scripted here is only what the real node does in threads:
heartbeats, the queue of tasks, and requests to its peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import xxhash

from redfs.core.errors import RedfsError, Unavailable
from redfs.proto import rpc
from redfs.proto.data_plane import NodeConnection, digest_answer, pack_keys, unpack_keys
from redfs.proto.frames import Frame
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import failure_of
from redfs.storage_node.budget import Budget
from redfs.storage_node.cancel import Cancel
from redfs.storage_node.disk import DiskFailed
from redfs.storage_node.gathering import Findings
from redfs.storage_node.heartbeat import INVENTORY_ROW, refusal
from redfs.storage_node.pacing import Courtesy, RateLimit
from redfs.storage_node.packing import pack_blocks
from redfs.storage_node.peers import Peer
from redfs.storage_node.rebuilding import rebuild_shard
from redfs.storage_node.scrubbing import scrub_shards
from redfs.storage_node.shard_store import StoreLimits
from tests.simulation.disk import PowerLost
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import EOF, Endpoint, SimulatedNetwork, StreamEnd
from tests.storage_node.rig import Rig

CAPACITY_BYTES = 64 << 20
FILE_BYTES = 64 * 1024
"""A backing file: a handful of shards fill one."""
ATTACH_PAUSE_S = 0.3
INVENTORY_PAGE = 64
TASK_S = (0.01, 0.3)
"""What a task takes before it begins, and its answer after it is done."""


class SimulatedNode:
    """One machine with one disk, through all its lives."""

    def __init__(self, loop: SimulatedLoop, network: SimulatedNetwork, number: int, seed: int) -> None:
        self.loop = loop
        self.network = network
        self.number = number
        self.node_id = 0
        self.pool_id = ""
        self.address = f"node:{number}"
        self.capacity_bytes = CAPACITY_BYTES
        self.rig = Rig(seed, StoreLimits(file_bytes=FILE_BYTES, reserve_bytes=0), CAPACITY_BYTES)
        self.disk = self.rig.disk
        self.lost_for_good = False
        self.on_delete: Callable[[list[tuple[int, int]]], None] = lambda _: None
        """Called with the shards that the node is about to delete."""
        self.process = Process(self.address)
        self.start()

    @property
    def is_up(self) -> bool:
        return self.process.alive

    def start(self) -> None:
        """A new process on what the disk holds."""
        if self.lost_for_good:
            return
        self.process = Process(self.address)
        try:
            self.rig.start()
        except PowerLost:
            self.power_lost()
            return
        except (OSError, DiskFailed):
            self.kill()  # it ends, and whoever watches it starts it again
            return
        self.network.listen(self.address, Endpoint(self.process, self))
        self.loop.spawn(self.process, self._stay_attached(), self.address)

    # ------------------------------------------------------------ ends

    def _die(self, *, silently: bool) -> None:
        self.process.kill()
        self.network.process_gone(self.process, silently=silently)

    def kill(self) -> None:
        """kill -9: what was written and not synced stays in memory of the machine."""
        if self.is_up:
            self._die(silently=False)
            self.loop.outside(self.loop.random.uniform(0.05, 2.0), self._restart, False)

    def power_lost(self) -> None:
        """The machine is off: what was not synced is in doubt."""
        if self.is_up:
            self._die(silently=self.loop.random.random() < 0.5)
            self.loop.outside(self.loop.random.uniform(0.2, 3.0), self._restart, True)

    def _restart(self, power_cycle: bool) -> None:
        if self.lost_for_good or self.is_up:
            return
        if power_cycle:
            self.disk.restart()
        else:
            self.disk.kill()
        self.start()

    def lose_for_good(self) -> None:
        """The machine burnt down with its disk."""
        self.lost_for_good = True
        if self.is_up:
            self._die(silently=self.loop.random.random() < 0.5)

    # ------------------------------------------------------------ data plane

    def put(self, segment: int, shard: int, payload: bytes, checksum: int) -> None:
        self._working(lambda: self.rig.store.put(segment, shard, payload, checksum))

    def get(self, segment: int, shard: int, offset: int, length: int) -> bytes:
        found: bytes = self._working(lambda: self.rig.store.read(segment, shard, offset, length))
        if len(found) < length:
            raise Unavailable("the file is shorter than its index says")
        return found

    def _working(self, job: Any) -> Any:
        """Power may go in the middle: then nobody is answered. A disk that failed ends the process."""
        try:
            return job()
        except PowerLost:
            self.power_lost()
        finally:
            if self.rig.failures and self.is_up:
                self.rig.failures.clear()
                self.loop.outside(0.05, self.kill)
        raise Unavailable("the connection broke")

    # ------------------------------------------------------------ the conversation with the coordinator

    async def _stay_attached(self) -> None:
        while True:
            stream = self.network.connect(self.address, "coordinator", "Attach", self.process)
            ticker: asyncio.Task[None] | None = None
            tasks: list[asyncio.Task[None]] = []
            try:
                await stream.write(pb.NodeReport(hello=self._hello()))
                while (order := await stream.read()) is not EOF:
                    if order.HasField("welcome") and ticker is None:
                        self.pool_id, self.node_id = order.welcome.pool_id, order.welcome.node_id
                        ticker = asyncio.create_task(self._tick(stream, order.welcome.heartbeat_s))
                    elif order.WhichOneof("body") in ("rebuild_shard", "pack_blocks", "scrub_shards"):
                        tasks.append(asyncio.create_task(self._work(order, stream)))
                    else:
                        await self._carry_out(order, stream)
            except ConnectionResetError:
                pass
            finally:
                for task in (*tasks, *([ticker] if ticker is not None else [])):
                    task.cancel()
                stream.cancel()
            await asyncio.sleep(self.loop.random.uniform(0.5, 1.0) * ATTACH_PAUSE_S)

    def _hello(self) -> pb.NodeHello:
        return pb.NodeHello(
            protocol=pb.ProtocolVersion(version=rpc.PROTOCOL_VERSION),
            pool_id=self.pool_id,
            node_id=self.node_id,
            disk_uuid=f"disk-{self.number}",
            address=self.address,
            generation=self.rig.store.generation,
            data_folder="/disk",
        )

    async def _tick(self, stream: StreamEnd, period_s: float) -> None:
        while True:
            stat = self.rig.store.stat()
            beat = pb.NodeHeartbeat(
                capacity_bytes=stat.capacity_bytes,
                used_bytes=stat.used_bytes,
                free_bytes=stat.free_bytes,
                shards=stat.shards,
                failed=stat.failed,
            )
            try:
                await stream.write(pb.NodeReport(heartbeat=beat))
            except ConnectionResetError:
                return
            await asyncio.sleep(period_s)

    async def _carry_out(self, order: pb.NodeOrder, stream: StreamEnd) -> None:
        kind = order.WhichOneof("body")
        if kind == "delete":
            keys = unpack_keys(order.delete.packed)
            self.on_delete(keys)
            try:
                self._working(lambda: self.rig.store.delete(keys))
            except RedfsError:
                return
            await stream.write(pb.NodeReport(deleted=pb.ShardsDeleted(packed=pack_keys(keys))))
        elif kind == "send_inventory":
            await self._send_inventory(order.send_inventory.inventory_id, stream)
        elif kind == "refused":
            why = refusal(order.refused)
            assert isinstance(why, Unavailable), f"node {self.number} is refused for good: {why}"
            raise ConnectionResetError

    async def _send_inventory(self, inventory_id: int, stream: StreamEnd) -> None:
        after: tuple[int, int] | None = None
        while True:
            page = self.rig.store.list_page(after, INVENTORY_PAGE)
            last = len(page) < INVENTORY_PAGE
            packed = b"".join(INVENTORY_ROW.pack(i.segment, i.shard, i.payload_bytes) for i in page)
            await stream.write(
                pb.NodeReport(inventory=pb.Inventory(inventory_id=inventory_id, packed=packed, last=last))
            )
            if last:
                return
            after = (page[-1].segment, page[-1].shard)

    # ------------------------------------------------------------ tasks

    async def _work(self, order: pb.NodeOrder, stream: StreamEnd) -> None:
        """A task or a scrub of this stream: done at one moment, answered a little later."""
        await asyncio.sleep(self.loop.random.uniform(*TASK_S))
        reports = self._scrub(order.scrub_shards) if order.HasField("scrub_shards") else [self._do(order)]
        await asyncio.sleep(self.loop.random.uniform(*TASK_S))
        try:
            for report in reports:
                await stream.write(report)
        except ConnectionResetError:
            return

    def _do(self, order: pb.NodeOrder) -> pb.NodeReport:
        findings = Findings()
        failure: RedfsError | None = None
        task = order.rebuild_shard if order.HasField("rebuild_shard") else order.pack_blocks
        work: Callable[..., None] = rebuild_shard if order.HasField("rebuild_shard") else pack_blocks
        store, memory, courtesy = self.rig.store, Budget(1 << 30), self._courtesy()
        peers = SimulatedPeers(self)
        try:
            self._working(lambda: work(task, self.node_id, store, peers, memory, courtesy, findings, Cancel()))
        except RedfsError as error:
            failure = error
        return pb.NodeReport(
            task_done=pb.TaskDone(
                task_id=task.task_id,
                failure=None if failure is None else failure_of(failure),
                bad=findings.bad(),
                read_bytes=findings.read_bytes,
                written_bytes=findings.written_bytes,
            )
        )

    def _scrub(self, order: pb.ScrubShards) -> list[pb.NodeReport]:
        reports: list[pb.NodeReport] = []
        rate = RateLimit(0, self.loop.time, lambda _: None)
        try:
            self._working(
                lambda: scrub_shards(
                    self.rig.store, order, rate, self._courtesy(), Cancel(), reports.append, self.loop.time
                )
            )
        except RedfsError:
            return []
        return reports

    def _courtesy(self) -> Courtesy:
        return Courtesy(self.loop.time, lambda _: None)


class _Answering:
    """What `NodeConnection.get_verified_into` needs of its connection: the node's answer to one request."""

    def __init__(self, node: SimulatedNode) -> None:
        self.node_id = node.node_id
        self._node = node
        self._asked: dict[str, Any] = {}

    def _send(self, header: dict[str, Any]) -> None:
        self._asked = header

    def recv_reply(self, view: memoryview) -> Frame:
        segment, shard = self._asked["s"], self._asked["i"]
        info = self._node.rig.store.find(segment, shard)
        found = self._node.get(segment, shard, self._asked["o"], self._asked["n"])
        view[:] = found
        return Frame({} if info is None else digest_answer(info.payload_bytes, info.checksum), view)

    def _check_length(self, _frame: Frame, _length: int) -> None:
        return None


class SimulatedPeers:
    """What tasks ask of other nodes: answered at once by those that can be reached at that moment."""

    def __init__(self, own: SimulatedNode) -> None:
        self._own = own

    def _reach(self, peer: Peer) -> SimulatedNode:
        network = self._own.network
        endpoint = network.endpoint(peer.address)
        cut = network.is_cut(self._own.address, peer.address) or network.is_cut(peer.address, self._own.address)
        if endpoint is None or endpoint.process.frozen or cut or network.loop.random.random() < network.loss:
            raise Unavailable(f"storage node {peer.node_id} could not be reached")
        return cast(SimulatedNode, endpoint.target)

    def read_shard(self, peer: Peer, segment: int, shard: int, view: memoryview, _cancel: Cancel) -> None:
        node = self._reach(peer)
        try:
            # The real connection's own code decides whether the answer is what was stored.
            NodeConnection.get_verified_into(cast(NodeConnection, _Answering(node)), segment, shard, view)
        except Unavailable:
            if node.is_up:
                node.rig.store.verify(segment, shard)
            raise

    def read_ranges(
        self, peer: Peer, segment: int, shard: int, ranges: Sequence[tuple[int, memoryview]], _cancel: Cancel
    ) -> None:
        node = self._reach(peer)
        for offset, view in ranges:
            view[:] = node.get(segment, shard, offset, len(view))

    def put(self, peer: Peer, segment: int, shard: int, payload: Any, _cancel: Cancel) -> None:
        self._reach(peer).put(segment, shard, bytes(payload), xxhash.xxh3_64_intdigest(payload))

    def all(self, work: Sequence[Callable[[], None]]) -> list[RedfsError | None]:
        ends: list[RedfsError | None] = []
        for piece in work:
            try:
                piece()
            except RedfsError as error:
                ends.append(error)
            else:
                ends.append(None)
        return ends
