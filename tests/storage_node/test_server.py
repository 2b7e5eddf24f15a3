"""The data plane end to end: real sockets, a real folder, the connection that clients use."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from redfs.core.errors import (
    AlreadyExists,
    Corrupt,
    InternalError,
    InvalidArgument,
    NoSpace,
    NotAllowed,
    NotFound,
    Unavailable,
    WrongFormat,
)
from redfs.proto import frames
from redfs.proto.data_plane import MAX_KEYS, MAX_PIPELINED, NodeConnection, pack_keys
from redfs.proto.frames import Header, Hello
from redfs.storage_node import server as module
from redfs.storage_node.backing_file import file_name
from redfs.storage_node.budget import Budget
from redfs.storage_node.disk import DiskFailed, FolderDisk
from redfs.storage_node.index import MemoryIndex
from redfs.storage_node.recovery import open_store
from redfs.storage_node.server import DataServer
from redfs.storage_node.shard_store import ShardStore, StoreLimits
from tests.storage_node.rig import DISK_UUID, payload_of

HELLO = Hello(pool_id="pool-1", node_id=3, generation=4)
LIMITS = StoreLimits(capacity_bytes=64 << 20, reserve_bytes=1 << 20, file_bytes=24 << 20)


class Serving:
    """A server over a folder."""

    def __init__(self, folder: Path) -> None:
        self.failures: list[DiskFailed] = []
        self.store: ShardStore = open_store(
            FolderDisk(folder), MemoryIndex(), DISK_UUID, 4, None, LIMITS, self.failures.append
        )
        self.server = DataServer(frames.listen("127.0.0.1:0"), self.store, lambda: HELLO)
        self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"

    def connect(self) -> NodeConnection:
        return NodeConnection.open(self.address, pool_id="pool-1", node_id=3)

    def stop(self) -> None:
        self.server.stop()
        assert self.store.close() or self.failures


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(tmp_path / "disk")
    yield made
    made.stop()


@pytest.fixture
def node(serving: Serving) -> Iterator[NodeConnection]:
    with serving.connect() as made:
        yield made


def test_the_connection_knows_its_node(node: NodeConnection) -> None:
    assert (node.pool_id, node.node_id, node.generation, node.read_only) == ("pool-1", 3, 4, False)


@pytest.mark.parametrize("size", [1, 4096, 1_404_928, 8 << 20])
def test_shards_of_any_size_are_put_and_read_back(node: NodeConnection, size: int) -> None:
    payload = payload_of(size, size)
    third = size // 3
    node.put(7, 1, [payload[:third], memoryview(payload)[third:], b""])
    assert node.get(7, 1, 0, size) == payload
    assert node.get(7, 1, third, size - third) == payload[third:]
    buffer = memoryview(bytearray(size + 5))
    node.get_into(7, 1, 0, buffer[5:])
    assert buffer[5:] == payload
    node.verify(7, 1)
    info = node.list_page()[0]
    assert info == (7, 1, size, xxhash.xxh3_64_intdigest(payload))
    node.delete([(7, 1)])
    assert node.list_page() == []


def test_listing_goes_on_after_a_key(node: NodeConnection) -> None:
    keys = [(segment, shard) for segment in (1, 2, 2**48) for shard in (0, 9)]
    for segment, shard in keys:
        node.put(segment, shard, b"x")
    assert [info[:2] for info in node.list_page(limit=4)] == keys[:4]
    assert [info[:2] for info in node.list_page(after=keys[3])] == keys[4:]


def test_errors_arrive_as_their_class_and_leave_the_connection_good(node: NodeConnection) -> None:
    node.put(1, 0, b"first")
    node.put(1, 0, b"first")
    with pytest.raises(AlreadyExists):
        node.put(1, 0, b"other")
    with pytest.raises(Corrupt):
        node.put(1, 1, b"damaged", checksum=1)
    with pytest.raises(InvalidArgument):
        node.put(1, 1, b"")
    with pytest.raises(NotFound):
        node.get(1, 1, 0, 1)
    with pytest.raises(NotFound):
        node.verify(1, 1)
    with pytest.raises(InvalidArgument):
        node.get(1, 0, 3, 3)
    with pytest.raises(InvalidArgument):
        node.delete([(1, shard) for shard in range(MAX_KEYS + 1)])
    assert node.alive
    assert bytes(node.get(1, 0, 0, 5)) == b"first"


def test_a_full_node_says_so(node: NodeConnection) -> None:
    payload = bytes(8 << 20)
    with pytest.raises(NoSpace):
        _fill(node, payload)
    stat = node.stat()
    assert (stat.capacity_bytes, stat.generation, stat.failed) == (64 << 20, 4, False)
    assert stat.shards == 7
    assert stat.used_bytes + stat.free_bytes == (64 << 20) - (1 << 20)
    assert stat.backing_files == 4
    node.delete([(1, shard) for shard in range(8)])
    assert node.stat().used_bytes == 0


def _fill(node: NodeConnection, payload: bytes) -> None:
    for shard in range(100):
        node.put(1, shard, payload)


def test_damage_on_the_disk_is_found(node: NodeConnection, tmp_path: Path) -> None:
    for shard in range(3):
        node.put(1, shard, payload_of(shard, 5000))
    with (tmp_path / "disk" / file_name(1)).open("r+b") as file:
        file.seek(4096 + 100)
        file.write(b"damage")
    assert node.verify_many([(1, 0), (1, 1), (1, 2), (1, 3)]) == {(1, 0): "corrupt", (1, 3): "not_found"}
    with pytest.raises(Corrupt):
        node.verify(1, 0)
    node.put(1, 0, payload_of(0, 5000))
    node.verify(1, 0)


def test_requests_may_be_under_way_together(node: NodeConnection) -> None:
    payloads = [payload_of(number, 60_000) for number in range(MAX_PIPELINED)]
    for number, payload in enumerate(payloads):
        node.put_send(5, number, payload)
    with pytest.raises(InternalError):
        node.put_send(5, 1, b"one too many")
    assert node.unanswered == MAX_PIPELINED
    for _ in payloads:
        node.recv_reply()
    node.get_send(5, 0, 0, 10)
    node.get_send(5, 999, 0, 10)
    node.get_send(5, 1, 0, 10)
    assert node.recv_reply().payload == payloads[0][:10]
    with pytest.raises(NotFound):
        node.recv_reply()
    buffer = memoryview(bytearray(10))
    node.recv_reply(buffer)
    assert buffer == payloads[1][:10]
    with pytest.raises(InternalError):
        node.recv_reply()


def test_many_connections_at_once(serving: Serving) -> None:
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            with serving.connect() as node:
                for number in range(10):
                    payload = payload_of(worker * 10 + number, 30_000)
                    node.put(worker, number, payload)
                    assert node.get(worker, number, 0, 30_000) == payload
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert serving.store.stat().shards == 80


def test_a_client_that_expects_another_node_is_refused(serving: Serving) -> None:
    with pytest.raises(WrongFormat, match="belongs to pool pool-1, not to pool pool-2"):
        NodeConnection.open(serving.address, pool_id="pool-2")
    with pytest.raises(WrongFormat, match="storage node 3, not 4"):
        NodeConnection.open(serving.address, node_id=4)


def raw(serving: Serving, hello: Hello) -> socket.socket:
    sock = frames.connect(serving.address)
    frames.greet(sock, hello)
    return sock


def ask(sock: socket.socket, header: Header, payload: bytes = b"") -> Header:
    frames.send_frame(sock, header, [payload])
    frame = frames.recv_frame(sock)
    assert frame is not None
    return frame.header


def test_a_client_that_does_not_know_all_features_may_only_read(serving: Serving, node: NodeConnection) -> None:
    node.put(1, 0, b"x")
    with raw(serving, Hello(read_only_features=1)) as sock:
        assert "error" not in ask(sock, {"op": "get", "s": 1, "i": 0, "o": 0, "n": 1})
        checksum = xxhash.xxh3_64_intdigest(b"y")
        assert ask(sock, {"op": "put", "s": 1, "i": 1, "n": 1, "c": checksum}, b"y")["error"] == NotAllowed.code
        assert ask(sock, {"op": "delete", "k": pack_keys([(1, 0)])})["error"] == NotAllowed.code
    assert node.list_page() == [(1, 0, 1, xxhash.xxh3_64_intdigest(b"x"))]


@pytest.mark.parametrize(
    "header",
    [
        {"op": "format"},
        {},
        {"op": "get", "s": 1, "i": 0, "o": 0},
        {"op": "get", "s": -1, "i": 0, "o": 0, "n": 1},
        {"op": "get", "s": "1", "i": 0, "o": 0, "n": 1},
        {"op": "get", "s": 1, "i": 0, "o": 0, "n": frames.MAX_PAYLOAD_BYTES + 1},
        {"op": "put", "s": 1, "i": 65536, "n": 0, "c": 0},
        {"op": "put", "s": 1, "i": 0, "n": 5, "c": 0},
        {"op": "delete", "k": "text"},
        {"op": "delete", "k": b"123"},
        {"op": "list", "a": None, "n": 1},
        {"op": "list", "a": b"", "n": None},
        {"op": "verify"},
    ],
)
def test_a_request_that_is_not_understood_is_answered_with_an_error(serving: Serving, header: Header) -> None:
    with raw(serving, Hello()) as sock:
        assert ask(sock, header)["error"] in ("invalid", "wrong_format")
        assert "stat" in ask(sock, {"op": "stat"})


def test_a_stopped_node_ends_its_connections(serving: Serving) -> None:
    node = serving.connect()
    node.put(1, 0, b"x")
    serving.server.stop()
    with pytest.raises(Unavailable):
        node.get(1, 0, 0, 1)
    assert not node.alive
    with pytest.raises(Unavailable):
        node.stat()
    with pytest.raises(Unavailable):
        serving.connect()


def test_connections_over_the_limit_are_told_so(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    with serving.connect(), serving.connect(), pytest.raises(Unavailable):
        serving.connect()


def test_a_failed_disk_refuses_writes_and_goes_on_reading(
    serving: Serving, node: NodeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(1, 0, b"x")

    def fails() -> None:
        raise OSError(5, "broken")

    assert serving.store.active is not None
    monkeypatch.setattr(serving.store.active.sync, "_sync", fails)
    with pytest.raises(Unavailable, match="disk failed"):
        node.put(1, 1, b"y")
    assert len(serving.failures) == 1
    assert node.alive
    assert node.stat().failed
    assert bytes(node.get(1, 0, 0, 1)) == b"x"


def test_a_budget_makes_the_next_one_wait() -> None:
    budget = Budget(100)
    budget.take(60)
    taken = threading.Event()

    def take() -> None:
        budget.take(60)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.02)
    budget.give_back(60)
    assert taken.wait(10)
    thread.join()
    budget.give_back(60)
    budget.take(500)  # alone, although over the limit
