"""Connections to other nodes: verified reads, stale and dead connections, bounds, giving up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redfs.core.errors import AlreadyExists, Corrupt, NotFound, RedfsError, Unavailable, WrongFormat
from redfs.proto import frames
from redfs.proto.data_plane import NodeConnection
from redfs.storage_node import peers as module
from redfs.storage_node import server
from redfs.storage_node.cancel import Cancel, Cancelled
from redfs.storage_node.peers import Peer, Peers
from tests.storage_node.task_rig import POOL, Node, payload_of

CONTENT = payload_of(1, 300_000)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "disk", 3)
    made.put(1, 2, CONTENT)
    yield made
    made.stop_serving()
    assert made.store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peers(clock: Clock) -> Iterator[Peers]:
    made = Peers(lambda: POOL, clock)
    yield made
    made.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[NodeConnection]:
    """Every connection that is opened."""
    made: list[NodeConnection] = []
    real = NodeConnection.open.__func__  # type: ignore[attr-defined]

    def opening(*args: object, **more: object) -> NodeConnection:
        made.append(real(NodeConnection, *args, **more))
        return made[-1]

    monkeypatch.setattr(NodeConnection, "open", opening)
    return made


def read(peers: Peers, peer: Peer, size: int = len(CONTENT), cancel: Cancel | None = None) -> bytes:
    buffer = bytearray(size)
    peers.read_shard(peer, 1, 2, memoryview(buffer), cancel or Cancel())
    return bytes(buffer)


def at(node: Node) -> Peer:
    return Peer(node.node_id, node.address)


def test_a_shard_is_read_whole_as_it_was_stored(node: Node, peers: Peers) -> None:
    assert read(peers, at(node)) == CONTENT


@pytest.mark.parametrize("where", [0, 150_000, len(CONTENT) - 1])
def test_silent_damage_is_noticed_wherever_it_is(node: Node, peers: Peers, where: int) -> None:
    node.damage(1, 2, at=where)
    with pytest.raises(Corrupt, match="not what was stored"):
        read(peers, at(node))


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_shard_of_another_length_is_no_shard(node: Node, peers: Peers, size: int) -> None:
    with pytest.raises(Corrupt):
        read(peers, at(node), size)


def test_a_shard_that_is_not_there_is_told_apart(node: Node, peers: Peers) -> None:
    with pytest.raises(NotFound):
        peers.read_shard(at(node), 9, 9, memoryview(bytearray(1)), Cancel())


def test_a_file_that_is_too_short_is_damage_and_not_an_absent_node(node: Node, peers: Peers) -> None:
    path, offset = node.place(1, 2)
    with path.open("r+b") as file:
        file.truncate(offset + 1000)
    with pytest.raises(Corrupt):
        read(peers, at(node))
    with pytest.raises(Corrupt):
        peers.read_ranges(at(node), 1, 2, [(200_000, memoryview(bytearray(100)))], Cancel())


def test_a_node_that_tells_no_checksum_is_not_believed(
    node: Node, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "digest_answer", lambda payload_bytes, checksum: {})
    with pytest.raises(WrongFormat, match="upgrade it"):
        read(peers, at(node))


def test_ranges_are_read_however_many(node: Node, peers: Peers) -> None:
    ranges = [(i * 1500, memoryview(bytearray(1 + i % 7))) for i in range(3 * module.PIPELINED)]
    peers.read_ranges(at(node), 1, 2, ranges, Cancel())
    for offset, view in ranges:
        assert view == CONTENT[offset : offset + len(view)]
    with pytest.raises(Corrupt, match="shorter"):
        peers.read_ranges(at(node), 1, 2, [*ranges, (len(CONTENT), memoryview(bytearray(1)))], Cancel())
    assert read(peers, at(node)) == CONTENT


def test_shards_are_stored(node: Node, peers: Peers) -> None:
    peers.put(at(node), 5, 0, CONTENT[:100], Cancel())
    assert node.read(5, 0) == CONTENT[:100]
    with pytest.raises(AlreadyExists):
        peers.put(at(node), 5, 0, CONTENT[:101], Cancel())


def test_connections_are_kept_and_given_up_when_they_were_idle_for_long(
    node: Node, peers: Peers, clock: Clock, opened: list[NodeConnection]
) -> None:
    for _ in range(3):
        read(peers, at(node))
    assert len(opened) == 1
    clock.now_s += module.IDLE_S + 1
    read(peers, at(node))
    assert [connection.alive for connection in opened] == [False, True]


def test_a_connection_that_went_stale_is_replaced_without_a_word(
    node: Node, peers: Peers, opened: list[NodeConnection], tmp_path: Path
) -> None:
    read(peers, at(node))
    with node.server._lock:
        (sock,) = node.server._connections
    sock.shutdown(2)
    assert read(peers, at(node)) == CONTENT
    assert len(opened) == 2


def test_no_more_connections_are_kept_than_may_be(
    node: Node, peers: Peers, opened: list[NodeConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = threading.Barrier(module.MAX_IDLE_PER_NODE + 2)
    real = NodeConnection.get_verified_into

    def reading(connection: NodeConnection, segment: int, shard: int, view: memoryview) -> None:
        everybody.wait(20)
        real(connection, segment, shard, view)

    monkeypatch.setattr(NodeConnection, "get_verified_into", reading)

    def work() -> None:
        read(peers, at(node))

    ends = peers.all([work] * (module.MAX_IDLE_PER_NODE + 2))
    assert ends == [None] * (module.MAX_IDLE_PER_NODE + 2)
    assert len(opened) == module.MAX_IDLE_PER_NODE + 2
    assert sum(connection.alive for connection in opened) == module.MAX_IDLE_PER_NODE


def test_a_node_that_could_not_be_reached_is_left_alone_for_a_while(node: Node, peers: Peers, clock: Clock) -> None:
    with pytest.raises(Unavailable, match="cannot reach"):
        read(peers, Peer(3, "127.0.0.1:1"))
    with pytest.raises(Unavailable, match="just now"):
        read(peers, at(node))
    clock.now_s += module.DOWN_S
    assert read(peers, at(node)) == CONTENT


def test_another_node_or_pool_at_the_address_is_not_read(node: Node, clock: Clock) -> None:
    for pool, node_id in ((POOL, 4), ("pool-2", 3)):
        peers = Peers(lambda pool=pool: pool, clock)  # type: ignore[misc]
        with pytest.raises(Unavailable, match=r"this (is storage node 3|storage node belongs)"):
            read(peers, Peer(node_id, node.address))
        peers.close()


def test_work_that_was_given_up_is_not_begun(node: Node, peers: Peers, opened: list[NodeConnection]) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(Cancelled):
        read(peers, at(node), cancel=cancel)
    assert opened == []


def test_giving_up_ends_a_wait_at_once(node: Node, peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    go_on = threading.Event()
    real = server.Connection._get

    def slow(connection: server.Connection, frame: frames.Frame) -> None:
        asked.set()
        go_on.wait(20)
        real(connection, frame)

    monkeypatch.setattr(server.Connection, "_get", slow)
    cancel = Cancel()
    ends: list[BaseException] = []

    def work() -> None:
        try:
            read(peers, at(node), cancel=cancel)
        except (RedfsError, Cancelled) as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert asked.wait(20)
    cancel.cancel()
    thread.join(20)
    assert not go_on.is_set()
    assert [type(end) for end in ends] == [Cancelled]
    go_on.set()


def test_requests_of_tasks_are_background_to_the_node_and_those_of_clients_are_not(
    node: Node, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(node.courtesy, "give_way", lambda: told.append("gives way"))
    monkeypatch.setattr(node.courtesy, "worked", lambda took_s: told.append("worked"))
    with NodeConnection.open(node.address) as client:
        client.verify(1, 2)
    assert told == []
    read(peers, at(node))
    peers.put(at(node), 5, 0, b"x", Cancel())
    assert told[:3] == ["gives way", "worked", "gives way"]
