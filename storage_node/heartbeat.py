"""The node's conversation with its coordinator: joining, heartbeats, deletions, inventories, and the way of tasks.

One thread keeps one `Attach` stream; when that ends it attaches again, for ever, with a bounded pause. The node serves
data meanwhile: nothing on the data plane depends on the coordinator being up. Only an answer that nothing will change
(another pool, an unknown version) is final: `on_refused` is called and the conversation ends.

Orders are carried out one after another. A deletion is reported when it is durable here, and one that the store cannot
carry out is not reported: the coordinator sends it again at the next attach. Tasks are handed over to `tasks.py` and
end with the stream.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import grpc

from redfs.core.errors import InternalError, NoSpace, RedfsError, Unavailable, WrongFormat
from redfs.proto import rpc
from redfs.proto.data_plane import MAX_KEYS, ShardKey, pack_keys, unpack_keys
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from redfs.proto.rpc_errors import error_from_rpc, error_of
from redfs.storage_node.identity import Identity
from redfs.storage_node.shard_store import ShardStore
from redfs.storage_node.tasks import Tasks

log = logging.getLogger(__name__)

INVENTORY_ROW: Final = struct.Struct(">QHI")
"""segment, shard, payload bytes."""
INVENTORY_PAGE: Final = 16384
"""Shards in one Inventory message: 230 KB."""
MAX_REPORTS: Final = 64
"""Reports that wait to be sent; gRPC takes them as fast as the network does, and the order behind them waits."""
DEFAULT_HEARTBEAT_S: Final = 1.0
"""Until the coordinator says how often."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
"""Between attempts: a coordinator that restarts finds its nodes back within this."""
STOP_WAIT_S: Final = 5.0


@dataclass(frozen=True)
class NodeFacts:
    """What the node says of itself when it attaches."""

    address: str
    """HOST:PORT that clients reach the data plane by."""
    domain: str
    data_folder: str
    file_system: str = ""
    """Nodes that say the same share its room; empty: the capacity is the node's own."""


class Heartbeat:
    """Keeps the node attached to its coordinator."""

    def __init__(
        self,
        coordinator: str,
        store: ShardStore,
        facts: NodeFacts,
        identity: Callable[[], Identity],
        on_welcome: Callable[[str, int], None],
        on_refused: Callable[[RedfsError], None],
        tasks: Tasks,
    ) -> None:
        """`on_welcome` gets (pool id, node id) and raises WrongFormat where the disk belongs elsewhere."""
        self._coordinator = coordinator
        self._store = store
        self._facts = facts
        self._identity = identity
        self._on_welcome = on_welcome
        self._on_refused = on_refused
        self._tasks = tasks
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the conversation; the coordinator learns of it at once."""
        self._stop.set()
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()
        self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        finished = False
        try:
            self._stay_attached()
            finished = True
        finally:
            if not finished:  # a node that nobody hears of is of no use: end it, with the reason in the log
                self._on_refused(InternalError("the conversation with the coordinator broke off: see the log"))

    def _stay_attached(self) -> None:
        pause_s = FIRST_PAUSE_S
        told = False
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                with rpc.open_blocking_channel(self._coordinator) as channel:
                    self._attach(channel)
                reason = "the coordinator ended the conversation"
                told = False
            except WrongFormat as error:
                log.error("the coordinator and this node cannot work together: %s", error)
                self._on_refused(error)
                return
            except (Unavailable, OSError) as error:
                reason = str(error)
            if self._stop.is_set():
                return
            if time.monotonic() - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S  # it went well for a while; one that ends at once is not tried without end
            if not told:
                log.warning("not attached to the coordinator at %s, trying on: %s", self._coordinator, reason)
                told = True
            self._stop.wait(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    def _attach(self, channel: grpc.Channel) -> None:
        """One stream, from the hello to its end. Raises Unavailable, WrongFormat (final)."""
        reports: queue.Queue[pb.NodeReport | None] = queue.Queue(MAX_REPORTS)
        ended = threading.Event()
        reports.put(pb.NodeReport(hello=self._hello()))
        stub = cluster_pb2_grpc.NodeServiceStub(channel)
        call = stub.Attach(_until_none(reports, ended))
        with self._lock:
            self._call = call
        ticker: threading.Thread | None = None
        tasks = self._tasks.open_stream(lambda report: _put(reports, report, ended))
        try:
            if self._stop.is_set():
                return
            for order in call:
                if order.HasField("welcome"):
                    period_s = self._welcome(order.welcome)
                    if ticker is None:
                        ticker = threading.Thread(
                            target=self._tick, args=(reports, ended, period_s), name="heartbeat-tick", daemon=True
                        )
                        ticker.start()
                elif order.HasField("refused"):
                    raise refusal(order.refused)
                elif order.HasField("delete"):
                    self._delete(order.delete, reports, ended)
                elif order.HasField("send_inventory"):
                    self._send_inventory(order.send_inventory.inventory_id, reports, ended)
                elif not tasks.take(order):
                    log.warning("the coordinator orders what is not known here: %s", order.WhichOneof("body"))
        except grpc.RpcError as error:
            if self._stop.is_set():
                return
            raise _final_or_not(error, self._coordinator) from error
        finally:
            ended.set()
            tasks.end()
            with self._lock:
                self._call = None
            call.cancel()
            with contextlib.suppress(queue.Full):
                reports.put_nowait(None)
            if ticker is not None:
                ticker.join()

    def _hello(self) -> pb.NodeHello:
        identity = self._identity()
        return pb.NodeHello(
            protocol=pb.ProtocolVersion(version=rpc.PROTOCOL_VERSION),
            pool_id=identity.pool_id,
            node_id=identity.node_id,
            disk_uuid=identity.disk_uuid,
            address=self._facts.address,
            generation=self._store.generation,
            domain=self._facts.domain,
            data_folder=self._facts.data_folder,
        )

    def _welcome(self, welcome: pb.NodeWelcome) -> float:
        """Joins or checks the pool; returns the time between heartbeats."""
        if welcome.protocol.version != rpc.PROTOCOL_VERSION or welcome.protocol.incompatible_features:
            raise WrongFormat(
                f"the coordinator speaks protocol version {welcome.protocol.version} with features "
                f"{welcome.protocol.incompatible_features:#x}, this node {rpc.PROTOCOL_VERSION}: upgrade the older"
            )
        self._on_welcome(welcome.pool_id, welcome.node_id)
        log.info("attached: node %d of pool %s", welcome.node_id, welcome.pool_id)
        return welcome.heartbeat_s or DEFAULT_HEARTBEAT_S

    def _tick(self, reports: queue.Queue[pb.NodeReport | None], ended: threading.Event, period_s: float) -> None:
        while not ended.is_set():
            stat = self._store.stat()
            beat = pb.NodeHeartbeat(
                capacity_bytes=stat.capacity_bytes,
                used_bytes=stat.used_bytes,
                free_bytes=stat.free_bytes,
                shards=stat.shards,
                backing_files=stat.backing_files,
                failed=stat.failed,
                file_system=self._facts.file_system,
            )
            with contextlib.suppress(queue.Full):  # reports wait already: the stream is alive or about to end
                reports.put_nowait(pb.NodeReport(heartbeat=beat))
            ended.wait(period_s)

    def _delete(
        self, order: pb.DeleteShards, reports: queue.Queue[pb.NodeReport | None], ended: threading.Event
    ) -> None:
        keys = unpack_keys(order.packed)
        for start in range(0, len(keys), MAX_KEYS):
            some = keys[start : start + MAX_KEYS]
            try:
                self._store.delete(some)
            except RedfsError as error:
                log.warning("cannot delete %d shards now: %s", len(some), error)
                return
            _put(reports, pb.NodeReport(deleted=pb.ShardsDeleted(packed=pack_keys(some))), ended)

    def _send_inventory(
        self, inventory_id: int, reports: queue.Queue[pb.NodeReport | None], ended: threading.Event
    ) -> None:
        after: ShardKey | None = None
        while not ended.is_set() and not self._stop.is_set():
            page = self._store.list_page(after, INVENTORY_PAGE)
            last = len(page) < INVENTORY_PAGE
            packed = b"".join(INVENTORY_ROW.pack(i.segment, i.shard, i.payload_bytes) for i in page)
            report = pb.NodeReport(inventory=pb.Inventory(inventory_id=inventory_id, packed=packed, last=last))
            _put(reports, report, ended)
            if last:
                return
            after = (page[-1].segment, page[-1].shard)


def _put(
    reports: queue.Queue[pb.NodeReport | None], report: pb.NodeReport, ended: threading.Event, poll_s: float = 0.5
) -> None:
    """Waits for room in the queue, but not for a stream that has ended."""
    while not ended.is_set():
        with contextlib.suppress(queue.Full):
            reports.put(report, timeout=poll_s)
            return


def _until_none(reports: queue.Queue[pb.NodeReport | None], ended: threading.Event) -> Iterator[pb.NodeReport]:
    while not ended.is_set():
        report = reports.get()
        if report is None:
            return
        yield report


def refusal(failure: pb.Failure) -> Unavailable | WrongFormat:
    """What a refusal means: without room on its disk a coordinator cannot let anybody in now; all else is final."""
    error = error_of(failure)
    if isinstance(error, Unavailable | WrongFormat):
        return error
    return Unavailable(str(error)) if isinstance(error, NoSpace) else WrongFormat(str(error))


def _final_or_not(error: grpc.RpcError, coordinator: str) -> Unavailable | WrongFormat:
    found = error_from_rpc(error)
    if isinstance(found, WrongFormat):
        return found
    return Unavailable(str(found) if found is not None else f"the coordinator at {coordinator} does not answer")
