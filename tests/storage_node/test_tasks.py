"""The queue of tasks: bounded, answered on the stream, given up with it; and a heartbeat stream that carries them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redfs.core.errors import Corrupt, NotFound
from redfs.core.segments import plan_layout
from redfs.proto import frames
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import error_of
from redfs.storage_node import tasks as module
from redfs.storage_node.heartbeat import Heartbeat, NodeFacts
from redfs.storage_node.identity import Identity
from redfs.storage_node.tasks import TaskStream
from tests.storage_node.task_rig import POOL, SEGMENT, WAIT_S, Pool, block_of, cut, payload_of, segment_of
from tests.storage_node.test_heartbeat import UUID, FakeCoordinator

PAYLOAD = payload_of(1, 200_000)
NODES = [1, 2, 3, 4]


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool(tmp_path, 5, own=5)
    made.tasks.start()
    yield made
    made.stop()


@pytest.fixture
def stream(pool: Pool) -> TaskStream:
    return pool.tasks.open_stream(pool.reports.put)


class SilentNode:
    """Accepts connections as node 1 does, greets, and then never answers."""

    def __init__(self) -> None:
        self._listener = frames.listen("127.0.0.1:0")
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = threading.Semaphore(0)
        self.hung_up = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            frames.accept_hello(sock, frames.Hello(POOL, 1, 1))
            frames.recv_frame(sock)
            self.asked.release()
            if frames.recv_frame(sock) is None:
                self.hung_up.release()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def silent() -> Iterator[SilentNode]:
    made = SilentNode()
    yield made
    made.stop()


def rebuild_order(pool: Pool, segment: pb.Segment, shard: int, task_id: int, address: str = "") -> pb.NodeOrder:
    task = pb.RebuildShard(task_id=task_id, segment=segment, shard=shard, addresses=pool.addresses())
    if address:
        task.addresses[0].address = address
    return pb.NodeOrder(rebuild_shard=task)


def answer(pool: Pool) -> pb.TaskDone:
    return pool.reports.get(timeout=WAIT_S).task_done


def test_tasks_are_done_and_answered(pool: Pool, stream: TaskStream) -> None:
    segments = [pool.put_segment(SEGMENT + i, 2, 2, PAYLOAD, NODES) for i in range(6)]
    for i, segment in enumerate(segments):
        assert stream.take(rebuild_order(pool, segment, i % 4, task_id=100 + i))
    done = [answer(pool) for _ in segments]
    assert sorted(d.task_id for d in done) == [100 + i for i in range(6)]
    assert not any(d.HasField("failure") for d in done)
    shards = cut(plan_layout(len(PAYLOAD), 2, 2), PAYLOAD)
    for i in range(6):
        assert pool.own.read(SEGMENT + i, i % 4) == shards[i % 4]


def test_a_failed_task_says_why_and_what_is_bad(pool: Pool, stream: TaskStream) -> None:
    segment = pool.put_segment(SEGMENT, 2, 1, PAYLOAD, [1, 2, 3])
    pool.nodes[1].store.delete([(SEGMENT, 0)])
    pool.nodes[2].damage(SEGMENT, 1)
    stream.take(rebuild_order(pool, segment, 0, task_id=7))
    done = answer(pool)
    assert isinstance(error_of(done.failure), Corrupt)
    assert {(b.segment_id, b.shard, b.missing) for b in done.bad} == {(SEGMENT, 0, True), (SEGMENT, 1, False)}


def test_packing_goes_over_the_stream_as_well(pool: Pool, stream: TaskStream) -> None:
    source = pool.put_segment(SEGMENT, 2, 2, PAYLOAD, NODES)
    layout = plan_layout(100_000, 2, 1)
    order = pb.PackBlocks(
        task_id=3,
        target=segment_of(SEGMENT + 1, layout, [5, 1, 2]),
        blocks=[block_of(SEGMENT, PAYLOAD, 50_000, 100_000)],
        sources=[source],
        addresses=pool.addresses(),
    )
    stream.take(pb.NodeOrder(pack_blocks=order))
    done = answer(pool)
    assert (done.task_id, done.HasField("failure")) == (3, False)
    for shard, (node, content) in enumerate(zip([5, 1, 2], cut(layout, PAYLOAD[50_000:150_000]), strict=True)):
        assert pool.nodes[node].read(SEGMENT + 1, shard) == content


def test_a_cancelled_task_ends_at_once_and_is_not_answered(pool: Pool, stream: TaskStream, silent: SilentNode) -> None:
    segment = pool.put_segment(SEGMENT, 1, 1, PAYLOAD, [1, 2])
    stream.take(rebuild_order(pool, segment, 0, task_id=1, address=silent.address))
    assert silent.asked.acquire(timeout=WAIT_S)
    stream.take(pb.NodeOrder(cancel_task=pb.CancelTask(task_id=99)))
    stream.take(pb.NodeOrder(cancel_task=pb.CancelTask(task_id=1)))
    assert silent.hung_up.acquire(timeout=WAIT_S), "what it waits for is closed"
    stream.take(rebuild_order(pool, segment, 1, task_id=2))
    assert answer(pool).task_id == 2
    with pytest.raises(NotFound):
        pool.own.read(SEGMENT, 0)


def test_tasks_end_with_their_stream(pool: Pool, stream: TaskStream, silent: SilentNode) -> None:
    """Those that are worked on and those that wait; a newer stream's go on."""
    segment = pool.put_segment(SEGMENT, 1, 1, PAYLOAD, [1, 2])
    for i in range(module.MAX_AT_ONCE + 3):
        stream.take(rebuild_order(pool, segment, 0, task_id=1 + i, address=silent.address))
    for _ in range(module.MAX_AT_ONCE):
        assert silent.asked.acquire(timeout=WAIT_S)
    newer = pool.tasks.open_stream(pool.reports.put)
    newer.take(rebuild_order(pool, segment, 1, task_id=50))
    stream.end()
    assert answer(pool).task_id == 50
    assert not silent.asked.acquire(blocking=False), "what waited was never begun"
    assert pool.reports.empty()


def test_more_than_may_wait_is_refused(pool: Pool, stream: TaskStream, silent: SilentNode) -> None:
    segment = pool.put_segment(SEGMENT, 1, 1, PAYLOAD, [1, 2])
    for i in range(module.MAX_AT_ONCE):
        stream.take(rebuild_order(pool, segment, 0, task_id=1 + i, address=silent.address))
    for _ in range(module.MAX_AT_ONCE):
        assert silent.asked.acquire(timeout=WAIT_S)
    for i in range(module.MAX_QUEUED):
        stream.take(rebuild_order(pool, segment, 0, task_id=100 + i, address=silent.address))
    assert pool.reports.empty()
    stream.take(rebuild_order(pool, segment, 0, task_id=500, address=silent.address))
    done = answer(pool)
    assert (done.task_id, done.failure.code) == (500, "unavailable")


def test_a_bug_in_a_task_is_answered_and_the_next_one_done(
    pool: Pool, stream: TaskStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = pool.put_segment(SEGMENT, 1, 1, PAYLOAD, [1, 2])

    def fails(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "rebuild_shard", fails)
    for i in range(module.MAX_AT_ONCE + 1):
        stream.take(rebuild_order(pool, segment, 0, task_id=i))
        assert answer(pool).failure.code == "internal"


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def attached(coordinator: FakeCoordinator, pool: Pool) -> Iterator[Callable[[], None]]:
    heartbeat = Heartbeat(
        f"127.0.0.1:{coordinator.port}",
        pool.own.store,
        NodeFacts(pool.own.address, "", "/disk"),
        lambda: Identity(UUID, POOL, 5),
        lambda pool_id, node_id: None,
        lambda error: None,
        pool.tasks,
    )
    heartbeat.start()
    yield heartbeat.stop
    heartbeat.stop()


def test_the_heartbeat_stream_carries_tasks_and_scrubs(
    coordinator: FakeCoordinator, pool: Pool, attached: Callable[[], None]
) -> None:
    segment = pool.put_segment(SEGMENT, 2, 2, PAYLOAD, NODES)
    coordinator.welcome(pool_id=POOL, node_id=5)
    coordinator.orders.put(rebuild_order(pool, segment, 2, task_id=11))
    done = coordinator.next("task_done")
    assert (done.task_id, done.written_bytes) == (11, segment.shard_bytes)
    coordinator.orders.put(pb.NodeOrder(scrub_shards=pb.ScrubShards(scrub_id=12)))
    scrubbed = coordinator.next("scrubbed")
    assert (scrubbed.scrub_id, scrubbed.shards, scrubbed.done, scrubbed.upto_segment) == (12, 1, True, SEGMENT)


def test_a_stream_that_ends_takes_its_tasks_with_it(
    coordinator: FakeCoordinator, pool: Pool, attached: Callable[[], None], silent: SilentNode
) -> None:
    segment = pool.put_segment(SEGMENT, 1, 1, PAYLOAD, [1, 2])
    coordinator.welcome(pool_id=POOL, node_id=5)
    coordinator.orders.put(rebuild_order(pool, segment, 0, task_id=11, address=silent.address))
    assert silent.asked.acquire(timeout=WAIT_S)
    coordinator.stop()
    assert silent.hung_up.acquire(timeout=WAIT_S)
    assert pool.own.held() == []
