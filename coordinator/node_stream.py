"""One storage node's gRPC stream: its heartbeats in, deletions, tasks and questions for its inventory out.

Deletions go out a page at a time, the next when the node has acknowledged the one before; what is not acknowledged is
sent again. None goes out before the journal has what doomed it: a restore could name deleted shards otherwise. An
inventory is compared with the rows page by page, in reader threads, and what differs is settled by commands that look
again. It is asked for when the node attaches, from time to time, and when somebody wants one (`take_inventory`).
"""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import Any, NamedTuple

import grpc.aio

from redfs.coordinator import convert, nodes
from redfs.coordinator.shell import Shell, as_redfs_error, cancel_and_wait, start
from redfs.core.errors import InvalidArgument, RedfsError, Unavailable, WrongFormat
from redfs.core.tables import (
    META,
    POSITION_KEY,
    decode_u64,
    encode_u64,
    pack_shards,
    unpack_held_shards,
    unpack_shards,
)
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import failure_of

DELETE_PAGE = 4096
"""Shards in one order: 40 KiB, about a second of a node's work."""
DELETE_AGAIN_S = 30.0
"""Shards whose deletion was not acknowledged are ordered again after this."""
LOOK_INTERVAL_S = 0.5
"""How often the queue is looked at while nothing wakes it: what waits out its grace time becomes due unannounced."""
MAX_INVENTORY_PAGES = 4
"""Pages of an inventory that wait to be compared; beyond them the stream is not read."""
MAX_SEGMENT = 1 << 63

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not name it

log = logging.getLogger(__name__)


class _Page(NamedTuple):
    inventory_id: int
    held: list[tuple[int, int, int]]
    last: bool


class _Waiter(NamedTuple):
    """Somebody who waits for an inventory."""

    inventory_id: int
    """The first one that will do."""
    compared: asyncio.Future[int]


class NodeStream:
    """See the module. Made by the servicer for each stream."""

    def __init__(self, context: Any, shell: Shell) -> None:
        self._context = context
        self._shell = shell
        self._cluster = shell.coordinator.cluster
        self._clock = shell.coordinator.env.clock
        self._config = shell.coordinator.config
        self._node_id = 0
        self._stream = 0
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._unacknowledged: set[tuple[int, int]] = set()
        self._held_back: tuple[int, list[tuple[int, int]]] = (0, [])
        """A page that waits for the journal to have the state that it was read from."""
        self._sent_s = 0.0
        self._pages: asyncio.Queue[_Page] = asyncio.Queue(MAX_INVENTORY_PAGES)
        self._inventory_id = 0
        self._asked_ns = 0
        self._asked_s = float("-inf")
        self._waiters: list[_Waiter] = []

    async def run(self) -> None:
        """Serves the stream until either side ends it or the node opens another."""
        try:
            if not await self._let_in():
                return
        except RedfsError as error:
            log.warning("a storage node was refused: %s", error)
            await self._send(pb.NodeOrder(refused=failure_of(error)))
            return
        self._shell.node_wakers[self._node_id] = self._wake.set
        self._shell.node_inventories[self._node_id] = self.take_inventory
        self._shell.node_tasks.stream_opened(self._node_id, self._send)
        helpers = [
            start(self._read_all(), "node reader"),
            start(self._delete_all(), "node deletions"),
            start(self._compare_all(), "node inventory"),
        ]
        try:
            done, _ = await asyncio.wait(helpers, return_when=asyncio.FIRST_COMPLETED)
            for helper in done:
                failure = helper.exception()
                if failure is not None:
                    log.warning("the stream of node %d ends: %s", self._node_id, as_redfs_error(failure))
        finally:
            self._cluster.detached(self._node_id, self._stream)
            if self._shell.node_wakers.get(self._node_id) == self._wake.set:
                del self._shell.node_wakers[self._node_id]
            if self._shell.node_inventories.get(self._node_id) == self.take_inventory:
                del self._shell.node_inventories[self._node_id]
            self._shell.node_tasks.stream_closed(self._node_id, self._send)
            await cancel_and_wait(helpers)
            self._tell_waiters(Unavailable(f"node {self._node_id} lost its stream"))
            log.info("node %d has left its stream", self._node_id)

    async def _let_in(self) -> bool:
        report = await self._context.read()
        if report is EOF:
            return False
        if report.WhichOneof("body") != "hello":
            raise InvalidArgument("the first message of a storage node must be its hello")
        convert.check_protocol(report.hello.protocol, "storage node")
        hello = convert.from_hello(report.hello)
        self._node_id, row = await self._shell.run(lambda txn: nodes.register(txn, hello))
        self._stream = self._cluster.attached(self._node_id, row)
        log.info(
            "node %d is here: %s, folder %s, start %d", self._node_id, row.address, row.data_folder, row.generation
        )
        await self._send(
            pb.NodeOrder(
                welcome=pb.NodeWelcome(
                    protocol=convert.protocol(),
                    pool_id=self._shell.coordinator.pool_id,
                    node_id=self._node_id,
                    heartbeat_s=self._config.heartbeat_s,
                )
            )
        )
        return True

    async def _send(self, order: pb.NodeOrder) -> None:
        async with self._writing:
            await self._context.write(order)

    # -- reports in

    async def _read_all(self) -> None:
        while True:
            report = await self._context.read()
            if report is EOF:
                return
            body = report.WhichOneof("body")
            if body == "heartbeat":
                if not await self._heartbeat(report.heartbeat):
                    return
            elif body == "deleted":
                await self._deleted(unpack_shards(report.deleted.packed))
            elif body == "inventory":
                page = report.inventory
                await self._pages.put(_Page(page.inventory_id, unpack_held_shards(page.packed), page.last))
            elif body == "task_done":
                self._shell.node_tasks.done(self._node_id, report.task_done)
            elif body == "scrubbed":
                self._shell.node_tasks.scrubbed(self._node_id, report.scrubbed)
            else:
                log.warning("node %d sent something that is not known here: %s", self._node_id, body)

    async def _heartbeat(self, beat: pb.NodeHeartbeat) -> bool:
        if not self._cluster.reported(self._node_id, self._stream, convert.from_heartbeat(beat)):
            log.info("node %d has a newer stream, this one ends", self._node_id)
            return False
        if beat.failed:
            await self._shell.run(lambda txn: nodes.set_failed(txn, self._node_id))
        return True

    async def _deleted(self, shards: list[tuple[int, int]]) -> None:
        await self._shell.run(lambda txn: nodes.shards_deleted(txn, self._node_id, shards))
        self._unacknowledged.difference_update(shards)
        if not self._unacknowledged:
            self._wake.set()

    # -- deletions out

    async def _delete_all(self) -> None:
        while True:
            await self._ask_inventory()
            now_s = self._clock.monotonic()
            if not self._unacknowledged or now_s - self._sent_s >= DELETE_AGAIN_S:
                page = await self._page()
                if page:
                    self._unacknowledged = set(page)
                    self._sent_s = now_s
                    await self._send(pb.NodeOrder(delete=pb.DeleteShards(packed=pack_shards(page))))
            self._wake.clear()
            try:
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _page(self) -> list[tuple[int, int]]:
        """Shards to delete now: none while the journal lacks what doomed them."""
        if not self._held_back[1]:
            self._held_back = await self._shell.read(self._due)
        position, page = self._held_back
        journal = self._shell.coordinator.journal
        if page and journal is not None and journal.durable_position < position:
            return []
        self._held_back = (0, [])
        return page

    def _due(self) -> tuple[int, list[tuple[int, int]]]:
        """(number of the last change list that the state was read at, shards)."""
        now_ns = self._clock.time_ns()
        before_ns = now_ns - int(self._config.delete_grace_s * 1e9)
        with self._shell.coordinator.read() as kv:
            position = decode_u64(kv.get(META, POSITION_KEY) or encode_u64(0))
            return position, nodes.doomed_page(kv, self._node_id, before_ns, DELETE_PAGE, now_ns=now_ns)

    # -- inventory

    async def take_inventory(self) -> int:
        """Has the node list all its shards, from now on, and compares them with the rows; how many are missing that
        were not known to be damaged. Unavailable where the stream ends before."""
        waiter = _Waiter(self._inventory_id + 1, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake.set()
        try:
            return await waiter.compared
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _tell_waiters(self, end: int | Unavailable, inventory_id: int | None = None) -> None:
        """How the inventory ended that they wait for; without a number that no other will be taken."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if inventory_id is not None and waiter.inventory_id > inventory_id:
                self._waiters.append(waiter)
            elif waiter.compared.done():
                continue
            elif isinstance(end, Unavailable):
                waiter.compared.set_exception(end)
            else:
                waiter.compared.set_result(end)

    async def _ask_inventory(self) -> None:
        wanted = any(waiter.inventory_id > self._inventory_id for waiter in self._waiters)
        if not wanted and self._clock.monotonic() - self._asked_s < self._config.inventory_interval_s:
            return
        self._inventory_id += 1
        self._asked_s = self._clock.monotonic()
        self._asked_ns = self._clock.time_ns()
        await self._send(pb.NodeOrder(send_inventory=pb.SendInventory(inventory_id=self._inventory_id)))

    async def _compare_all(self) -> None:
        """Takes pages as they come; all shards of a segment are compared together, also across pages."""
        low = 0
        held: list[tuple[int, int, int]] = []
        current = missing = 0
        while True:
            page = await self._pages.get()
            if page.inventory_id != self._inventory_id:
                continue
            if page.inventory_id != current:
                current, low, held, missing = page.inventory_id, 0, [], 0
            held += page.held
            if any(a >= b for a, b in pairwise(held)):
                raise WrongFormat(f"node {self._node_id} sent an inventory that is not in order")
            high = MAX_SEGMENT if page.last else (held[-1][0] if held else low)
            missing += await self._compare([h for h in held if h[0] < high], low, high)
            held = [h for h in held if h[0] >= high]
            low = high
            if page.last:
                self._cluster.compared(self._node_id, self._stream)
                self._tell_waiters(missing, current)

    async def _compare(self, held: list[tuple[int, int, int]], low: int, high: int) -> int:
        """How many shards of that range are missing that were not known to be damaged."""
        asked_ns = self._asked_ns
        missing = 0

        def compare() -> nodes.InventoryFindings:
            now_ns = self._clock.time_ns()
            with self._shell.coordinator.read() as kv:
                return nodes.compare_inventory(kv, self._node_id, held, low, high, asked_ns, now_ns=now_ns)

        while low < high:
            found = await self._shell.read(compare)
            if found.unknown:
                log.error(
                    "node %d holds %d shards of segments that were never allocated here: they are left alone; was "
                    "older metadata restored?",
                    self._node_id,
                    found.unknown,
                )
            if found.surplus or found.missing:
                log.warning(
                    "node %d holds %d shards that nothing names (they are deleted) and misses %d",
                    self._node_id,
                    len(found.surplus),
                    len(found.missing),
                )
            compared = [h for h in held if h[0] < found.resume]
            missing += await self._settle(compared, found, low)
            held = held[len(compared) :]
            low = found.resume
        return missing

    async def _settle(self, compared: list[tuple[int, int, int]], found: nodes.InventoryFindings, low: int) -> int:
        return await self._shell.run(lambda txn: nodes.reconcile(txn, self._node_id, compared, found, low))
