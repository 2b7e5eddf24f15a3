"""The conversation with the coordinator: joining, reporting, deleting, coming back; over real gRPC on loopback."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from redfs.core.errors import NoSpace, RedfsError, Unavailable, WrongFormat
from redfs.proto import rpc
from redfs.proto.data_plane import pack_keys, unpack_keys
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from redfs.proto.rpc_errors import failure_of
from redfs.storage_node import heartbeat as module
from redfs.storage_node.heartbeat import INVENTORY_ROW, Heartbeat, NodeFacts
from redfs.storage_node.identity import Identity
from redfs.storage_node.pacing import Courtesy
from redfs.storage_node.peers import Peers
from redfs.storage_node.tasks import Tasks
from tests.storage_node.rig import Rig

UUID = "00112233445566778899aabbccddeeff"
POLL_S = 0.02
"""How often a stream that has nothing to send looks whether it still stands."""
WAIT_S = 60
"""For what must happen; only a failing test waits for it."""


class FakeCoordinator(cluster_pb2_grpc.NodeServiceServicer):
    """Keeps what nodes report and sends what the test says."""

    def __init__(self) -> None:
        self.reports: queue.Queue[pb.NodeReport] = queue.Queue()
        self.orders: queue.Queue[pb.NodeOrder | None] = queue.Queue()
        self.port = 0
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8))
        cluster_pb2_grpc.add_NodeServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self.orders.put(None)
            self._server.stop(grace=None).wait()
            self._server = None
            self.orders = queue.Queue()

    def Attach(self, reports: Iterator[pb.NodeReport], context: Any) -> Iterator[pb.NodeOrder]:  # noqa: N802
        orders = self.orders
        self.reports.put(next(reports))

        def collect() -> None:
            try:
                for report in reports:
                    self.reports.put(report)
            except grpc.RpcError:
                return

        collector = ThreadPoolExecutor(1)
        collector.submit(collect)
        collector.shutdown(wait=False)
        while context.is_active():
            try:
                order = orders.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if order is None:
                return
            yield order

    def next(self, kind: str) -> Any:
        """The next report of a kind."""
        while True:
            report = self.reports.get(timeout=WAIT_S)
            if report.WhichOneof("body") == kind:
                return getattr(report, kind)

    def welcome(self, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "protocol": pb.ProtocolVersion(version=rpc.PROTOCOL_VERSION),
            "pool_id": "pool-1",
            "node_id": 3,
            "heartbeat_s": 0.02,
        }
        self.orders.put(pb.NodeOrder(welcome=pb.NodeWelcome(**{**fields, **changes})))


class Attached:
    """A heartbeat over a store on a simulated disk."""

    def __init__(self, port: int) -> None:
        self.rig = Rig()
        self.rig.start()
        self.identity = Identity(UUID)
        self.welcomed: queue.Queue[tuple[str, int]] = queue.Queue()
        self.refused: queue.Queue[RedfsError] = queue.Queue()
        peers = Peers(lambda: self.identity.pool_id)
        self.tasks = Tasks(lambda: self.identity.node_id, self.rig.store, peers, Courtesy())
        self.heartbeat = Heartbeat(
            f"127.0.0.1:{port}",
            self.rig.store,
            NodeFacts("10.0.0.1:7000", "rack-1", "/disk"),
            lambda: self.identity,
            self._welcome,
            self.refused.put,
            self.tasks,
        )
        self.tasks.start()
        self.heartbeat.start()

    def stop(self) -> None:
        self.heartbeat.stop()
        self.tasks.stop()

    def _welcome(self, pool_id: str, node_id: int) -> None:
        if self.identity.pool_id not in ("", pool_id):
            raise WrongFormat("belongs elsewhere")
        self.identity = Identity(UUID, pool_id, node_id)
        self.welcomed.put((pool_id, node_id))


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def attach(coordinator: FakeCoordinator) -> Iterator[Callable[[], Attached]]:
    made: list[Attached] = []

    def start() -> Attached:
        made.append(Attached(coordinator.port))
        return made[-1]

    yield start
    for attached in made:
        attached.stop()


def test_a_fresh_node_joins_and_reports(coordinator: FakeCoordinator, attach: Callable[[], Attached]) -> None:
    node = attach()
    hello = coordinator.next("hello")
    assert hello == pb.NodeHello(
        protocol=pb.ProtocolVersion(version=rpc.PROTOCOL_VERSION),
        disk_uuid=UUID,
        address="10.0.0.1:7000",
        generation=1,
        domain="rack-1",
        data_folder="/disk",
    )
    coordinator.welcome()
    assert node.welcomed.get(timeout=WAIT_S) == ("pool-1", 3)
    first = coordinator.next("heartbeat")
    assert (first.shards, first.backing_files, first.used_bytes, first.failed) == (0, 0, 0, False)
    assert first.capacity_bytes == 1 << 40
    node.rig.put(1, 0, b"x")
    while coordinator.next("heartbeat").shards != 1:
        pass
    beat = coordinator.next("heartbeat")
    assert (beat.used_bytes, beat.backing_files) == (8192, 1)


def test_ordered_deletions_are_done_and_reported(coordinator: FakeCoordinator, attach: Callable[[], Attached]) -> None:
    node = attach()
    for shard in range(3):
        node.rig.put(1, shard, b"x")
    coordinator.welcome()
    keys = [(1, 0), (1, 2), (8, 8)]
    coordinator.orders.put(pb.NodeOrder(delete=pb.DeleteShards(packed=pack_keys(keys))))
    assert unpack_keys(coordinator.next("deleted").packed) == keys
    assert sorted(node.rig.held()) == [(1, 1)]


def test_a_deletion_that_the_disk_refuses_is_not_reported(
    coordinator: FakeCoordinator, attach: Callable[[], Attached]
) -> None:
    node = attach()
    node.rig.put(1, 0, b"x")
    node.rig.disk.fail_next_sync = True
    coordinator.welcome()
    coordinator.orders.put(pb.NodeOrder(delete=pb.DeleteShards(packed=pack_keys([(1, 0)]))))
    coordinator.orders.put(pb.NodeOrder(send_inventory=pb.SendInventory(inventory_id=1)))
    while True:  # orders are carried out in order: no report of a deletion comes before the inventory
        report = coordinator.reports.get(timeout=WAIT_S)
        assert report.WhichOneof("body") != "deleted"
        if report.WhichOneof("body") == "inventory":
            break
    while not coordinator.next("heartbeat").failed:
        pass


def test_the_inventory_comes_in_pages(
    coordinator: FakeCoordinator, attach: Callable[[], Attached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INVENTORY_PAGE", 2)
    node = attach()
    coordinator.welcome()
    for held in ([], [(1, 0, 5)], [(1, 0, 5), (2, 1, 5000), (9, 3, 1), (9, 4, 2)]):
        for segment, shard, size in held:
            node.rig.put(segment, shard, b"s" * size)
        coordinator.orders.put(pb.NodeOrder(send_inventory=pb.SendInventory(inventory_id=7)))
        found: list[tuple[int, ...]] = []
        while True:
            page = coordinator.next("inventory")
            assert page.inventory_id == 7
            found += INVENTORY_ROW.iter_unpack(page.packed)
            if page.last:
                break
        assert found == held


def test_it_comes_back_when_the_coordinator_does(coordinator: FakeCoordinator, attach: Callable[[], Attached]) -> None:
    node = attach()
    coordinator.welcome()
    assert node.welcomed.get(timeout=WAIT_S) == ("pool-1", 3)
    coordinator.stop()
    node.rig.put(1, 0, b"served meanwhile")
    while not coordinator.reports.empty():
        coordinator.reports.get()
    coordinator.start()
    hello = coordinator.next("hello")
    assert (hello.pool_id, hello.node_id) == ("pool-1", 3)
    coordinator.welcome()
    assert node.welcomed.get(timeout=WAIT_S) == ("pool-1", 3)
    assert coordinator.next("heartbeat").shards == 1
    assert node.refused.empty()


@pytest.mark.parametrize(
    "order",
    [
        pb.NodeOrder(refused=failure_of(WrongFormat("another pool"))),
        pb.NodeOrder(welcome=pb.NodeWelcome(protocol=pb.ProtocolVersion(version=2), pool_id="p", node_id=1)),
        pb.NodeOrder(
            welcome=pb.NodeWelcome(
                protocol=pb.ProtocolVersion(version=rpc.PROTOCOL_VERSION, incompatible_features=1),
                pool_id="p",
                node_id=1,
            )
        ),
    ],
)
def test_a_final_refusal_ends_the_conversation(
    coordinator: FakeCoordinator, attach: Callable[[], Attached], order: pb.NodeOrder
) -> None:
    node = attach()
    coordinator.orders.put(order)
    assert isinstance(node.refused.get(timeout=WAIT_S), WrongFormat)
    assert node.welcomed.empty()


def test_another_pool_is_refused_by_the_node_too(coordinator: FakeCoordinator, attach: Callable[[], Attached]) -> None:
    node = attach()
    coordinator.welcome()
    node.welcomed.get(timeout=WAIT_S)
    coordinator.stop()
    coordinator.start()
    coordinator.welcome(pool_id="pool-2")
    assert isinstance(node.refused.get(timeout=WAIT_S), WrongFormat)


@pytest.mark.parametrize("why", [Unavailable("starting"), NoSpace("the coordinator's disk is full")])
def test_a_refusal_that_may_pass_is_tried_again(
    coordinator: FakeCoordinator, attach: Callable[[], Attached], why: RedfsError
) -> None:
    node = attach()
    coordinator.orders.put(pb.NodeOrder(refused=failure_of(why)))
    coordinator.next("hello")
    coordinator.next("hello")
    assert node.refused.empty()
