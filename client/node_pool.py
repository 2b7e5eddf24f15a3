"""Connections to the storage nodes: who is where, who failed lately, and how requests get there.

Short requests go over connections that the event loop serves itself (`data/quick.py`), long transfers over blocking
connections in threads; each kind is bounded for every node. PUTs and GETs use different connections, so that no read
waits behind a disk's flush.

A node that cannot be reached, breaks off or is silent raises `Unavailable` and is suspected for `suspect_s` (for reads
ever longer while it goes on); callers leave it out where others can stand in. A full node is not written to for as
long. Requests are safe to repeat and a connection that went stale while idle is replaced without a word. Addresses come
from the coordinator and are asked for again when a node is not found at its own. Which node holds what is left to the
callers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from redfs.client.data.config import DataConfig
from redfs.client.data.quick import QuickConnection, open_socket
from redfs.core.errors import NoSpace, RedfsError, Unavailable, WrongFormat
from redfs.proto.data_plane import NodeConnection, get_header, payload_checksum, put_header
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.nodes")

QUICK_PUT_BYTES = 96 * 1024
"""Up to this size a PUT is sent by the event loop: a small flush's copy fits into a socket's buffer."""
QUICK_GET_BYTES = 192 * 1024
"""Up to this size a GET is received by the event loop: any single block."""
MAX_PIPELINED = 16
"""Requests under way on one quick connection; the node answers them one after the other."""
MAX_THREADS = 64
"""Blocking transfers at once over all nodes; started as needed."""
MAX_STRIKES = 8
"""Failures in a row that are counted; the pause has long reached its limit by then."""
ADDRESS_AGE_S = 1.0
"""Addresses younger than this are not asked for again, however many requests fail."""

Buffer = bytes | bytearray | memoryview
Result = TypeVar("Result")


class Session(Protocol):
    """What the pool needs of the `CoordinatorSession`."""

    @property
    def pool_id(self) -> str: ...

    async def call(self, **body: Any) -> Any: ...


class _Lane:
    """The quick connections to one node for one kind of request."""

    def __init__(self, connections: int) -> None:
        self.connections: list[QuickConnection] = []
        self.opening: set[asyncio.Task[None]] = set()
        self.slots = asyncio.Semaphore(connections * MAX_PIPELINED)

    def least_busy(self) -> QuickConnection | None:
        best: QuickConnection | None = None
        for connection in self.connections:
            if best is None or connection.under_way < best.under_way:
                best = connection
        return best


class _Node:
    """Everything about one node."""

    def __init__(self, config: DataConfig) -> None:
        self.puts = _Lane(config.quick_connections)
        self.gets = _Lane(config.quick_connections)
        self.bulk_slots = asyncio.Semaphore(config.bulk_connections)
        self.bulk_idle: list[NodeConnection] = []


class NodePool:
    """See the module. Belongs to one event loop; ended by `close`."""

    def __init__(
        self, session: Session, config: DataConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._config = config or DataConfig()
        self._clock = clock
        self._nodes: dict[int, _Node] = {}
        self._addresses: dict[int, str] = {}
        self._addresses_from_s = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._down: dict[int, float] = {}
        self._slow: dict[int, float] = {}
        self._strikes: dict[int, int] = {}
        self._full: dict[int, float] = {}
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="redfs-node")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bulk_busy: set[NodeConnection] = set()
        self._closed = False

    # ------------------------------------------------------------ who failed

    def suspects(self) -> set[int]:
        """Nodes that failed or were slow lately: not read from where others can stand in."""
        if not self._down and not self._slow:
            return set()
        return self._current(self._down) | self._current(self._slow)

    def unwritable(self) -> set[int]:
        """Nodes that failed or were full lately: not written to where others can stand in."""
        if not self._down and not self._full:
            return set()
        return self._current(self._down) | self._current(self._full)

    def forgive(self) -> None:
        """Every node gets another chance at once."""
        self._down.clear()
        self._slow.clear()
        self._full.clear()

    def _current(self, marks: dict[int, float]) -> set[int]:
        now_s = self._clock()
        for node in [node for node, until_s in marks.items() if until_s <= now_s]:
            del marks[node]
        return set(marks)

    def _note(self, node: int, error: RedfsError, *, put: bool) -> None:
        pause_s = self._config.suspect_s
        if isinstance(error, NoSpace):
            self._full[node] = self._clock() + pause_s
        elif isinstance(error, Unavailable) and put:
            # Not longer each time, as for reads: the coordinator soon stops handing out a node that is gone.
            self._leave_out(self._down, node, pause_s, error)
        elif isinstance(error, Unavailable) and node not in self._current(self._slow):
            pause_s = min(pause_s * 2 ** self._strikes.get(node, 0), self._config.suspect_max_s)
            self._strikes[node] = min(self._strikes.get(node, 0) + 1, MAX_STRIKES)
            self._leave_out(self._slow, node, pause_s, error)

    def _leave_out(self, marks: dict[int, float], node: int, pause_s: float, error: RedfsError) -> None:
        if node not in marks:
            log.info("node %d is left out for %g s: %s", node, pause_s, error)
        marks[node] = self._clock() + pause_s

    # ------------------------------------------------------------ requests

    def start_put(self, node: int, segment: int, shard: int, parts: Sequence[Buffer]) -> asyncio.Future[None]:
        """Sends a shard; the future ends when it is durable on the node, or with the error. The buffers must not
        change until then, nor, where the future is cancelled, ever after.

        NoSpace, Unavailable (also for a node that is not known), or what else the node answers.
        """
        payload_bytes = sum(map(len, parts))
        work: Coroutine[Any, Any, None]
        if payload_bytes > QUICK_PUT_BYTES:
            work = self._put_bulk(node, segment, shard, parts)
        else:
            header = put_header(segment, shard, payload_bytes, payload_checksum(parts))
            work = self._put_quick(node, header, parts, payload_bytes)
        return self._spawn(work)

    async def get(self, node: int, segment: int, shard: int, offset: int, length: int, timeout_s: float) -> memoryview:
        """A byte range of a shard, in a buffer of its own. NotFound, Unavailable, or what else the node answers."""
        if length > QUICK_GET_BYTES:
            return await self._watched(
                node, self._bulk(node, lambda c: c.get(segment, shard, offset, length), timeout_s)
            )
        header = get_header(segment, shard, offset, length)
        return await self._watched(node, self._ask(node, self._node(node).gets, header, (), 0, length, timeout_s))

    async def get_into(
        self, node: int, segment: int, shard: int, offset: int, views: list[memoryview], timeout_s: float
    ) -> None:
        """As `get`, for long ranges: fills the views (none of them empty) one after the other."""
        await self._watched(node, self._bulk(node, lambda c: c.get_into_all(segment, shard, offset, views), timeout_s))

    async def _watched(self, node: int, reading: Coroutine[Any, Any, Result]) -> Result:
        """Takes note of how a read of the node ends."""
        try:
            answer = await reading
        except RedfsError as error:
            self._note(node, error, put=False)
            raise
        if self._strikes:
            self._strikes.pop(node, None)
            self._slow.pop(node, None)
        return answer

    async def _put_quick(self, node: int, header: dict[str, Any], parts: Sequence[Buffer], payload_bytes: int) -> None:
        try:
            await self._ask(node, self._node(node).puts, header, parts, payload_bytes, 0, self._config.node_timeout_s)
        except RedfsError as error:
            self._note(node, error, put=True)
            raise

    async def _put_bulk(self, node: int, segment: int, shard: int, parts: Sequence[Buffer]) -> None:
        try:
            await self._bulk(node, lambda c: c.put(segment, shard, parts), self._config.node_timeout_s)
        except RedfsError as error:
            self._note(node, error, put=True)
            raise

    async def close(self) -> None:
        """Closes all connections; requests under way end with Unavailable."""
        self._closed = True
        for state in self._nodes.values():
            for lane in (state.puts, state.gets):
                for connection in list(lane.connections):
                    connection.close()
            for idle in state.bulk_idle:
                idle.close()
            state.bulk_idle.clear()
        for busy in list(self._bulk_busy):
            busy.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=True)

    # ------------------------------------------------------------ short requests

    async def _ask(
        self,
        node: int,
        lane: _Lane,
        header: dict[str, Any],
        parts: Sequence[Buffer],
        payload_bytes: int,
        expected_bytes: int,
        timeout_s: float,
    ) -> memoryview:
        """One request over a quick connection; over another where an old one turns out to be stale. All of them may be,
        after the network was cut."""
        async with lane.slots:
            connection = lane.least_busy()
            if connection is None or connection.under_way:
                connection = await self._quick(node, lane)
            until_s = asyncio.get_running_loop().time() + timeout_s
            while True:
                reused = connection.answered > 0
                try:
                    return await connection.send(header, parts, payload_bytes, expected_bytes, timeout_s)
                except Unavailable:
                    # One that was closed because nothing came for so long is not stale: the node is silent.
                    if connection.alive or not reused or asyncio.get_running_loop().time() >= until_s:
                        raise
                connection = await self._quick(node, lane)

    async def _quick(self, node: int, lane: _Lane) -> QuickConnection:
        """An idle connection, or the least busy one when all that may be are open."""
        while True:
            best = lane.least_busy()
            if best is not None and best.under_way == 0:
                return best
            if len(lane.connections) + len(lane.opening) < self._config.quick_connections:
                task = self._spawn(self._open_quick(node, lane))
                lane.opening.add(task)
                task.add_done_callback(lane.opening.discard)
                await asyncio.shield(task)
            elif best is not None:
                return best
            else:
                await asyncio.wait(lane.opening, return_when=asyncio.FIRST_COMPLETED)

    async def _open_quick(self, node: int, lane: _Lane) -> None:
        sock = await self._reach(node, open_socket)
        if self._closed:
            sock.close()
            raise _closed_error()
        lane.connections.append(
            QuickConnection(
                sock,
                f"storage node {node}",
                patience_s=self._config.node_timeout_s,
                on_end=lane.connections.remove,
            )
        )

    # ------------------------------------------------------------ long transfers

    async def _bulk(self, node: int, job: Callable[[NodeConnection], Result], timeout_s: float) -> Result:
        """Runs a transfer in a thread, on an idle connection or a new one; once more where an idle one was stale."""
        state = self._node(node)
        async with state.bulk_slots:
            while state.bulk_idle:
                connection = state.bulk_idle.pop()
                try:
                    return await self._transfer(node, state, connection, job, timeout_s)
                except _TooLate as error:
                    raise Unavailable(str(error)) from None
                except Unavailable:
                    continue
            connection = await self._reach(node, self._open_bulk)
            try:
                return await self._transfer(node, state, connection, job, timeout_s)
            except _TooLate as error:
                raise Unavailable(str(error)) from None

    async def _transfer(
        self,
        node: int,
        state: _Node,
        connection: NodeConnection,
        job: Callable[[NodeConnection], Result],
        timeout_s: float,
    ) -> Result:
        if self._closed:
            connection.close()
            raise _closed_error()
        self._bulk_busy.add(connection)
        work = asyncio.get_running_loop().run_in_executor(self._threads, job, connection)
        work.add_done_callback(_look_at)
        try:
            await asyncio.wait([work], timeout=timeout_s)
            if not work.done():
                raise _TooLate(f"storage node {node} did not answer within {timeout_s:g} s")
            return work.result()
        finally:
            self._bulk_busy.discard(connection)
            if work.done() and connection.alive and not self._closed:
                state.bulk_idle.append(connection)
            else:
                connection.close()  # ends the thread, too

    def _open_bulk(self, address: str, pool_id: str, node: int, timeout_s: float) -> NodeConnection:
        return NodeConnection.open(
            address,
            pool_id=pool_id,
            node_id=node,
            connect_timeout_s=timeout_s,
            io_timeout_s=self._config.node_timeout_s,
        )

    # ------------------------------------------------------------ finding nodes

    def _node(self, node: int) -> _Node:
        found = self._nodes.get(node)
        if found is None:
            if self._closed:
                raise _closed_error()
            found = self._nodes[node] = _Node(self._config)
        return found

    async def _reach(self, node: int, opener: Callable[[str, str, int, float], Result]) -> Result:
        """Opens a connection at the node's address; where that fails, at the one that the coordinator has now."""
        address = self._addresses.get(node)
        if address is None:
            await self._refresh()
            address = self._addresses.get(node)
            if address is None:
                raise Unavailable(f"storage node {node} is not known to the coordinator")
        try:
            return await self._open(opener, address, node)
        except (Unavailable, WrongFormat) as error:
            await self._refresh()
            now = self._addresses.get(node, address)
            if now == address:
                raise Unavailable(str(error)) from error
            return await self._open(opener, now, node)

    async def _open(self, opener: Callable[[str, str, int, float], Result], address: str, node: int) -> Result:
        if self._closed:
            raise _closed_error()
        timeout_s = self._config.connect_timeout_s
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, opener, address, self._session.pool_id, node, timeout_s
        )

    async def _refresh(self) -> None:
        """Asks the coordinator for addresses; concurrent wishes share one question, and an answer is good a while.
        While the coordinator is away the old ones stay, and nobody waits long for better ones."""
        if self._refreshing is None:
            if self._clock() - self._addresses_from_s < ADDRESS_AGE_S:
                return
            self._refreshing = self._spawn(self._ask_addresses())
            self._refreshing.add_done_callback(self._refreshed)
        await asyncio.wait([self._refreshing], timeout=self._config.connect_timeout_s)

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None

    async def _ask_addresses(self) -> None:
        reply = await self._session.call(list_nodes=pb.ListNodes())
        self._addresses = {node.node_id: node.address for node in reply.nodes}
        self._addresses_from_s = self._clock()

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_look_at)
        return task


class _TooLate(Exception):
    """A transfer that was not done in time: not tried again, unlike one on a stale connection."""


def _closed_error() -> Unavailable:
    return Unavailable("the connections to the storage nodes are closed")


def _look_at(done: asyncio.Future[Any]) -> None:
    """Takes note of an outcome that perhaps nobody waits for any more."""
    if not done.cancelled():
        done.exception()
