"""A mount's process in the simulation: the real session, data path and file system, without FUSE and without sockets.

What is not the real one: gRPC's channel (a stream of the simulated network), and the connections to the storage nodes
(requests of the simulated network, under the real pool's book of who failed lately).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import grpc.aio

from redfs.client.data.cache import BlockCache
from redfs.client.data.config import DataConfig
from redfs.client.data.reader import BlockReader
from redfs.client.data.store import BlockStore
from redfs.client.fs.config import FsConfig
from redfs.client.fs.vfs import Vfs
from redfs.client.node_pool import NodePool
from redfs.client.session import CoordinatorSession, SessionConfig
from redfs.core.errors import Unavailable
from redfs.core.namespace import Context
from redfs.proto.data_plane import payload_checksum
from redfs.proto.gen import cluster_pb2 as pb
from tests.simulation.coordinator import NAME as COORDINATOR
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import SimulatedNetwork

TICK_S = 0.25
SESSION = SessionConfig(open_timeout_s=3.0, give_up_s=300.0, close_timeout_s=3.0)
DATA = DataConfig(
    large_opens=1,
    small_opens=2,
    cache_bytes=8 * 1024,
    node_timeout_s=2.0,
    hedge_after_s=0.3,
    connect_timeout_s=0.5,
    suspect_s=1.0,
    suspect_max_s=4.0,
)
"""Shorter waits than the real ones, so that a schedule is short; a cache so small that reads go to the nodes."""
FS = FsConfig(
    flush_age_s=1.0,
    commit_delay_s=0.3,
    retry_first_s=0.1,
    retry_max_s=1.0,
    give_up_s=300.0,
    inode_grant=32,
    batch_bytes=512 * 1024,
)


class SimulatedChannel:
    """What the session's stub needs of a channel."""

    def __init__(self, network: SimulatedNetwork, name: str, process: Process) -> None:
        self._network = network
        self._name = name
        self._process = process

    def stream_stream(self, path: str, **_: Any) -> Callable[[], Any]:
        service = path.rpartition("/")[2]
        return lambda: self._network.connect(self._name, COORDINATOR, service, self._process)

    def unary_unary(self, *_: Any, **__: Any) -> None:
        return None

    unary_stream = unary_unary
    stream_unary = unary_unary

    async def close(self, _grace: float | None = None) -> None:
        return None


class DataPlane(Protocol):
    """What bulk transfers ask of a connection."""

    def put(self, segment: int, shard: int, parts: Sequence[Any]) -> Any: ...

    def get(self, segment: int, shard: int, offset: int, length: int) -> Any: ...

    def get_into_all(self, segment: int, shard: int, offset: int, views: list[memoryview]) -> Any: ...


class SimulatedNodePool(NodePool):
    """The real pool with requests of the simulated network in the place of its connections."""

    def __init__(
        self, session: Any, config: DataConfig, network: SimulatedNetwork, name: str, process: Process
    ) -> None:
        super().__init__(session, config, clock=network.loop.time)
        self._network = network
        self._name = name
        self._process = process

    async def _where(self, node: int) -> str:
        address = self._addresses.get(node)
        if address is None:
            await self._refresh()
            address = self._addresses.get(node)
            if address is None:
                raise Unavailable(f"storage node {node} is not known to the coordinator")
        return address

    async def _ask(
        self,
        node: int,
        lane: Any,
        header: dict[str, Any],
        parts: Sequence[Any],
        payload_bytes: int,
        expected_bytes: int,
        timeout_s: float,
    ) -> memoryview:
        address = await self._where(node)
        segment, shard = header["s"], header["i"]
        if header["op"] == "put":
            payload = b"".join(parts)

            def put(target: Any) -> bytes:
                target.put(segment, shard, payload, header["c"])
                return b""

            body = put
        else:

            def get(target: Any) -> bytes:
                return cast(bytes, target.get(segment, shard, header["o"], header["n"]))

            body = get
        answer = await self._network.ask(self._name, address, body, timeout_s, self._process)
        return memoryview(bytearray(answer))

    async def _bulk(self, node: int, job: Callable[[Any], Any], timeout_s: float) -> Any:
        address = await self._where(node)
        recorded = _Recorder()
        job(recorded)
        answer = await self._network.ask(self._name, address, recorded.body, timeout_s, self._process)
        at = 0
        for view in recorded.views:
            view[:] = answer[at : at + len(view)]
            at += len(view)
        return memoryview(bytearray(answer or b""))


class _Recorder:
    """Takes down what a transfer asks of its connection."""

    def __init__(self) -> None:
        self.body: Callable[[Any], Any] = lambda target: None
        self.views: list[memoryview] = []

    def put(self, segment: int, shard: int, parts: Sequence[Any]) -> None:
        payload, checksum = b"".join(parts), payload_checksum(parts)
        self.body = lambda target: target.put(segment, shard, payload, checksum)

    def get(self, segment: int, shard: int, offset: int, length: int) -> None:
        self.body = lambda target: target.get(segment, shard, offset, length)

    def get_into_all(self, segment: int, shard: int, offset: int, views: list[memoryview]) -> None:
        self.views = views
        self.get(segment, shard, offset, sum(map(len, views)))


class SimulatedMount:
    """One life of a mount. `open` and everything after it run inside of its process."""

    def __init__(self, loop: SimulatedLoop, network: SimulatedNetwork, name: str, volume: str) -> None:
        self.loop = loop
        self.network = network
        self.name = name
        self.volume = volume
        self.process = Process(name)
        self.session: CoordinatorSession
        self.vfs: Vfs
        self._ticker: asyncio.Task[None] | None = None

    async def open(self, *, read_only: bool = False) -> None:
        """Mounts. Raises what the real mount would end with, which leaves no session either."""
        self.session = await CoordinatorSession.open(
            "coordinator:1",
            self.name,
            config=SESSION,
            connect=lambda _: cast("grpc.aio.Channel", SimulatedChannel(self.network, self.name, self.process)),
            clock=self.loop.time,
        )
        try:
            await self._attach(read_only or "@" in self.volume)
        except BaseException:
            await self.session.close()
            raise

    async def _attach(self, read_only: bool) -> None:
        attached = await self.session.call(attach=pb.Attach(name=self.volume, read_only=read_only))
        self._nodes = SimulatedNodePool(self.session, DATA, self.network, self.name, self.process)
        cache = BlockCache(DATA.cache_bytes)
        self._store = BlockStore(self.session, attached.volume, self._nodes, cache, DATA)
        self._reader = BlockReader(self.session, self._nodes, cache, DATA)
        clock = self.loop.clock
        self.vfs = Vfs(
            self.session, attached, self._store, self._reader, FS, clock=clock.monotonic, now_ns=clock.time_ns
        )
        self.session.on_flush = self.vfs.on_flush
        self.session.on_lapsed = self.vfs.on_lapsed
        self.session.on_gone = self.vfs.on_gone
        await self.vfs.start()
        self._ticker = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self.session.is_serving:
                self.vfs.tick()

    @property
    def ctx(self) -> Context:
        return Context(0, 0, self.loop.clock.time_ns())

    async def serving(self) -> Vfs:
        """The file system, when requests may be answered, as the adapter asks before each."""
        if not self.session.is_serving:
            await self.session.serving()
        return self.vfs

    async def close(self) -> None:
        """Unmounts: everything is durable when it returns. Raises what was in the way."""
        if self._ticker is not None:
            self._ticker.cancel()
        try:
            await self.vfs.close()
        finally:
            await self._reader.close()
            await self._store.close()
            await self._nodes.close()
            await self.session.close()

    def kill(self) -> None:
        """kill -9."""
        if self.process.alive:
            self.process.kill()
            self.network.process_gone(self.process, silently=self.loop.random.random() < 0.3)
