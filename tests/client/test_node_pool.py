"""Requests to storage nodes over real sockets: both kinds of connections, and every way in which a node can fail."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from redfs.client.data.config import DataConfig
from redfs.client.data.quick import QuickConnection
from redfs.client.node_pool import QUICK_GET_BYTES, QUICK_PUT_BYTES, NodePool
from redfs.core.errors import NoSpace, NotFound, RedfsError, Unavailable
from redfs.proto import frames
from redfs.proto.data_plane import get_header, payload_checksum
from redfs.proto.gen import cluster_pb2 as pb

CONFIG = DataConfig(quick_connections=2, bulk_connections=2, node_timeout_s=20.0, connect_timeout_s=5.0)
SMALL = random.Random(1).randbytes(5000)
LARGE = random.Random(2).randbytes(1_500_000)
SIZES = pytest.mark.parametrize("payload", [SMALL, LARGE], ids=["small", "large"])


class Node:
    """A storage node that keeps shards in memory and misbehaves on demand."""

    def __init__(self, node_id: int = 1, pool_id: str = "pool") -> None:
        self.hello = frames.Hello(pool_id=pool_id, node_id=node_id)
        self.shards: dict[tuple[int, int], bytes] = {}
        self.error: RedfsError | None = None
        self.silent = threading.Event()
        """Set while requests are read but not answered."""
        self.go_on = threading.Event()
        self.accepted = 0
        self.requests = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None

    @property
    def address(self) -> str:
        assert self._listener is not None
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        self._listener = frames.listen("127.0.0.1:0")
        self._run(self._accept, self._listener)

    def stop(self) -> None:
        """Ends every connection at once, as the death of the process does."""
        self.go_on.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._sockets.clear()
        self._threads.clear()

    def drop_connections(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def _run(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._sockets.append(sock)
            self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(RedfsError, OSError), sock:
            frames.set_timeouts(sock, 30.0)
            frames.accept_hello(sock, self.hello)
            while (frame := frames.recv_frame(sock)) is not None:
                self.requests += 1
                if self.silent.is_set():
                    self.go_on.wait()
                self._answer(sock, frame)

    def _answer(self, sock: socket.socket, frame: frames.Frame) -> None:
        header = frame.header
        key = (header["s"], header["i"])
        if self.error is not None:
            frames.send_frame(sock, frames.error_header(self.error))
        elif header["op"] == "put":
            assert header["n"] == len(frame.payload)
            assert header["c"] == payload_checksum([frame.payload])
            self.shards[key] = bytes(frame.payload)
            frames.send_frame(sock, {})
        elif key not in self.shards:
            frames.send_frame(sock, frames.error_header(NotFound("no such shard")))
        else:
            frames.send_frame(sock, {}, [self.shards[key][header["o"] : header["o"] + header["n"]]])


class Session:
    """Knows the nodes' addresses."""

    pool_id = "pool"

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.hello.node_id: node for node in nodes}
        self.asked = 0
        self.error: RedfsError | None = None

    async def call(self, **body: Any) -> Any:
        assert list(body) == ["list_nodes"]
        self.asked += 1
        if self.error is not None:
            raise self.error
        return pb.ListNodesReply(
            nodes=[pb.Node(node_id=ident, address=node.address) for ident, node in self.nodes.items()]
        )


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def a_pool(config: DataConfig = CONFIG) -> AsyncIterator[tuple[NodePool, Node, Session, Clock]]:
    node = Node()
    node.start()
    session = Session(node)
    clock = Clock()
    pool = NodePool(session, config, clock=clock)
    try:
        yield pool, node, session, clock
    finally:
        await pool.close()
        node.stop()


@SIZES
async def test_what_is_put_is_got(payload: bytes) -> None:
    async with a_pool() as (pool, node, session, _):
        await pool.start_put(1, 7, 3, [payload[:100], memoryview(payload)[100:]])
        assert node.shards == {(7, 3): payload}
        for offset, length in ((0, len(payload)), (10, 4096), (len(payload) - 1, 1)):
            assert bytes(await pool.get(1, 7, 3, offset, length, 20.0)) == payload[offset : offset + length]
        assert session.asked == 1
        assert not pool.suspects()


async def test_a_long_range_is_received_into_many_buffers() -> None:
    async with a_pool() as (pool, node, _, _):
        await pool.start_put(1, 7, 3, [LARGE])
        views = [memoryview(bytearray(size)) for size in (1, 128 * 1024, 700_000, 3)]
        await pool.get_into(1, 7, 3, 11, views, 20.0)
        assert b"".join(views) == LARGE[11 : 11 + sum(map(len, views))]
        with pytest.raises(Unavailable, match="another length"):
            await pool.get_into(1, 7, 3, len(LARGE) - 5, [memoryview(bytearray(10))], 20.0)
        node.error = NotFound("no such shard")
        with pytest.raises(NotFound):
            await pool.get_into(1, 7, 3, 0, views, 20.0)


def test_the_sizes_take_both_ways() -> None:
    assert len(SMALL) <= min(QUICK_PUT_BYTES, QUICK_GET_BYTES)
    assert len(LARGE) > max(QUICK_PUT_BYTES, QUICK_GET_BYTES)


async def test_many_at_once_over_few_connections() -> None:
    async with a_pool() as (pool, node, _, _):
        payloads = [random.Random(n).randbytes(n * 997 % 150_000 + 1) for n in range(60)]
        await asyncio.gather(*(pool.start_put(1, n, 0, [data]) for n, data in enumerate(payloads)))
        got = await asyncio.gather(*(pool.get(1, n, 0, 0, len(data), 20.0) for n, data in enumerate(payloads)))
        assert [bytes(data) for data in got] == payloads
        assert node.accepted <= 2 + 2 + 2, "two quick ones for each kind, two for long transfers"


@SIZES
async def test_answers_of_errors(payload: bytes) -> None:
    async with a_pool() as (pool, node, _, clock):
        with pytest.raises(NotFound):
            await pool.get(1, 7, 3, 0, len(payload), 20.0)
        node.error = NoSpace("disk full")
        with pytest.raises(NoSpace, match="disk full"):
            await pool.start_put(1, 7, 3, [payload])
        assert pool.unwritable() == {1}
        assert pool.suspects() == set(), "a full node can be read"
        clock.now_s += CONFIG.suspect_s
        assert pool.unwritable() == set()
        node.error = None
        await pool.start_put(1, 7, 3, [payload])
        assert node.accepted <= 2, "an error that was answered breaks no connection"


@SIZES
async def test_a_node_that_is_gone(payload: bytes) -> None:
    async with a_pool() as (pool, node, session, clock):
        await pool.start_put(1, 7, 3, [payload])
        node.stop()
        session.nodes.clear()
        with pytest.raises(Unavailable):
            await pool.start_put(1, 7, 4, [payload])
        assert pool.suspects() == pool.unwritable() == {1}
        clock.now_s += CONFIG.suspect_s
        assert pool.suspects() == set()
        with pytest.raises(Unavailable):
            await pool.get(1, 7, 3, 0, len(payload), 20.0)
        assert pool.suspects() == {1}
        assert pool.unwritable() == set(), "one slow read does not stop writing"
        clock.now_s += CONFIG.suspect_s
        assert pool.suspects() == set()
        with pytest.raises(Unavailable):
            await pool.get(1, 7, 3, 0, len(payload), 20.0)
        clock.now_s += CONFIG.suspect_s
        assert pool.suspects() == {1}, "the second time for longer"
        pool.forgive()
        assert pool.suspects() == set()


@SIZES
async def test_a_connection_that_went_stale_is_replaced_without_a_word(payload: bytes) -> None:
    async with a_pool() as (pool, node, session, _):
        await pool.start_put(1, 7, 3, [payload])
        await pool.get(1, 7, 3, 0, len(payload), 20.0)
        node.drop_connections()
        await pool.start_put(1, 7, 4, [payload])
        assert bytes(await pool.get(1, 7, 3, 0, len(payload), 20.0)) == payload
        assert node.shards == {(7, 3): payload, (7, 4): payload}
        assert not pool.suspects()
        assert session.asked == 1


async def test_all_connections_that_went_stale_unnoticed_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the network was cut: the node has forgotten them, and says so to who uses one."""
    async with a_pool() as (pool, _, _, _):
        await pool.start_put(1, 7, 3, [b"some"])
        lane = pool._node(1).gets
        while len(lane.connections) < CONFIG.quick_connections:
            await asyncio.gather(*(pool.get(1, 7, 3, 0, 4, 20.0) for _ in range(8)))
        await asyncio.gather(
            *(connection.send(get_header(7, 3, 0, 4), (), 0, 4, 20.0) for connection in lane.connections)
        )
        old, send = list(lane.connections), QuickConnection.send

        def reset_or_send(self: QuickConnection, *given: Any) -> Any:
            if self in old:
                asyncio.get_running_loop().call_soon(self.close, "reset by peer")
            return send(self, *given)

        monkeypatch.setattr(QuickConnection, "send", reset_or_send)
        assert bytes(await pool.get(1, 7, 3, 0, 4, 20.0)) == b"some"
        assert not pool.suspects()
        assert not any(connection.alive for connection in old)
        assert len(old) > 1


@SIZES
async def test_a_node_that_came_back_elsewhere_is_found(payload: bytes) -> None:
    async with a_pool() as (pool, node, session, clock):
        await pool.start_put(1, 7, 3, [payload])
        node.stop()
        node.start()
        clock.now_s += 10.0
        assert bytes(await pool.get(1, 7, 3, 0, len(payload), 20.0)) == payload
        await pool.start_put(1, 7, 4, [payload])
        assert session.asked == 2


async def test_another_node_at_the_address() -> None:
    async with a_pool() as (pool, node, _, _):
        node.hello = frames.Hello(pool_id="pool", node_id=2)
        with pytest.raises(Unavailable, match="not 1"):
            await pool.get(1, 7, 3, 0, 10, 20.0)


async def test_an_unknown_node() -> None:
    async with a_pool() as (pool, _, session, _):
        with pytest.raises(Unavailable, match="not known"):
            await pool.get(9, 7, 3, 0, 10, 20.0)
        session.error = Unavailable("away")
        with pytest.raises(Unavailable, match="not known"):
            await pool.start_put(8, 7, 3, [b"x"])


@SIZES
async def test_a_silent_node_is_given_up_for_a_read(payload: bytes) -> None:
    async with a_pool() as (pool, node, _, _):
        await pool.start_put(1, 7, 3, [payload])
        await pool.get(1, 7, 3, 0, len(payload), 20.0)
        node.silent.set()
        with pytest.raises(Unavailable, match="within"):
            await pool.get(1, 7, 3, 0, len(payload), 0.01)
        assert pool.suspects() == {1}
        node.silent.clear()
        node.go_on.set()
        assert bytes(await pool.get(1, 7, 3, 0, len(payload), 20.0)) == payload
        assert pool.suspects() == set(), "it answers again"


@SIZES
async def test_a_silent_node_is_given_up_for_a_write(payload: bytes) -> None:
    config = DataConfig(quick_connections=2, bulk_connections=2, node_timeout_s=0.05)
    async with a_pool(config) as (pool, node, _, _):
        node.silent.set()
        with pytest.raises(Unavailable):
            await pool.start_put(1, 7, 3, [payload])
        assert pool.unwritable() == {1}


async def test_a_late_read_does_not_break_the_others_on_its_connection() -> None:
    config = DataConfig(quick_connections=1)
    async with a_pool(config) as (pool, node, _, _):
        await pool.start_put(1, 7, 3, [SMALL])
        await pool.get(1, 7, 3, 0, 10, 20.0)
        node.silent.set()
        impatient = asyncio.create_task(pool.get(1, 7, 3, 0, 10, 0.01))
        patient = asyncio.create_task(pool.get(1, 7, 3, 10, 10, 20.0))
        with pytest.raises(Unavailable):
            await impatient
        node.silent.clear()
        node.go_on.set()
        assert bytes(await patient) == SMALL[10:20]


@SIZES
async def test_close_ends_what_is_under_way(payload: bytes) -> None:
    async with a_pool() as (pool, node, _, _):
        await pool.start_put(1, 7, 3, [payload])
        node.silent.set()
        before = node.requests
        reading = asyncio.create_task(pool.get(1, 7, 3, 0, len(payload), 20.0))
        writing = pool.start_put(1, 7, 4, [payload])
        while node.requests < before + 2:
            await asyncio.sleep(0.001)
        node_side = asyncio.create_task(pool.close())
        with pytest.raises(Unavailable):
            await reading
        with pytest.raises((Unavailable, asyncio.CancelledError)):
            await writing
        await node_side
        with pytest.raises(Unavailable, match="closed"):
            await pool.get(1, 7, 3, 0, 1, 20.0)


async def test_an_answer_that_is_no_frame_breaks_the_connection() -> None:
    async with a_pool() as (pool, node, _, _):
        await pool.start_put(1, 7, 3, [SMALL])
        node._answer = lambda sock, frame: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="does not speak"):
            await pool.get(1, 7, 3, 0, 10, 20.0)


async def test_a_cancelled_put_ends_quietly() -> None:
    async with a_pool() as (pool, node, _, _):
        await pool.start_put(1, 7, 3, [LARGE])
        node.silent.set()
        before = node.requests
        writing = pool.start_put(1, 7, 4, [LARGE])
        while node.requests == before:
            await asyncio.sleep(0.001)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        node.silent.clear()
        node.go_on.set()
        assert bytes(await pool.get(1, 7, 3, 0, len(LARGE), 20.0)) == LARGE
