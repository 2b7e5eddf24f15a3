"""A whole pool in one process under one seed: the coordinator's core, real shard stores on disks that lose power, and
clients that write and read through a network that loses messages.

The coordinator, its commands and its background work are the real ones over a store in memory; the nodes' record
format, recovery and deletion are the real ones over `SimulatedDisk`; segments are cut and coded by the real code. What
is scripted is the client: it writes whole slots, remembers what was acknowledged, and checks what it reads against it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import xxhash

from redfs.coordinator import check, commits, nodes, segments, sessions, volumes
from redfs.coordinator.cluster import Report
from redfs.coordinator.commits import CommitRequest, Record
from redfs.coordinator.coordinator import Coordinator
from redfs.coordinator.environment import CoordinatorConfig
from redfs.coordinator.new_data import SegmentLayout
from redfs.coordinator.reads import locate, reader_of
from redfs.coordinator.store import MemoryStore
from redfs.core.erasure import code
from redfs.core.errors import RedfsError, TooFewNodes, Unavailable
from redfs.core.ids import block_id
from redfs.core.policy import Layout as Code
from redfs.core.records import Piece, decode_slot, encode_slot, slot_key
from redfs.core.segments import Layout, extents, plan_layout
from redfs.core.tables import SEGMENTS, BlockRow, SegmentRow, decode_segment, decode_u64
from redfs.core.volume_tree import ReadTree
from tests.simulation.clock import Simulation
from tests.simulation.disk import PowerLost
from tests.simulation.network import SimulatedNetwork
from tests.storage_node.rig import Rig

COORDINATOR = "coordinator"
GIB = 1 << 30
SLOT_BYTES_USED = 3000
"""Plain bytes written to a slot: small, so that thousands of schedules fit into memory; the code paths are the same."""
ANSWER_TIMEOUT_S = 0.05
"""Ten times the network's longest delay."""
ATTEMPTS = 400
"""Repeats of one request: a fault lasts a fraction of the time that these take."""
REPORT_INTERVAL_S = 0.5
FILES = 3
SLOTS = 4

Place = tuple[int, int]
"""(inode, slot)."""


class Request(NamedTuple):
    number: int
    body: Callable[[Any], Any]
    """Run at the receiver, on its `Coordinator` or its `Rig`."""


class Answer(NamedTuple):
    number: int
    value: Any
    error: BaseException | None


class Call(NamedTuple):
    """What a script yields: it is sent the `Answer`, or None when none came in time."""

    receiver: str
    body: Callable[[Any], Any]


Script = Generator[Call | float, Answer | None, None]
"""Yields calls, or seconds to wait."""


class Tokens:
    """Repeatable randomness for the coordinator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


class SimulatedPool:
    """See the module."""

    def __init__(self, seed: int, node_count: int = 6, *, loss: float = 0.02, repeat: float = 0.02) -> None:
        self.simulation = Simulation(seed)
        self.network = SimulatedNetwork(self.simulation, loss=loss, repeat=repeat)
        self.store = MemoryStore()
        self.config = CoordinatorConfig(
            delete_grace_s=0.2, reclaim_budget_rows=7, heartbeat_s=REPORT_INTERVAL_S, session_keep_s=10.0, lease_s=5.0
        )
        self.coordinator = self._make_coordinator()
        self.rigs = [Rig(seed * 1000 + n) for n in range(node_count)]
        self.node_ids: list[int] = []
        self.streams: dict[int, int] = {}
        self.down: set[int] = set()
        self.renewing: set[int] = set()
        """Sessions whose clients renew their leases."""
        for number, rig in enumerate(self.rigs):
            rig.start()
            hello = nodes.Hello("", 0, f"disk-{number}", f"host:{number}", 1, "", "/disk")
            node_id, _ = self.coordinator.execute(partial(nodes.register, hello=hello))
            self.node_ids.append(node_id)
            self.network.listen(self.name(node_id), self._serve(self.name(node_id), number))
        self._attach_all()
        self.network.listen(COORDINATOR, self._serve(COORDINATOR, None))
        self.simulation.after(REPORT_INTERVAL_S, self._tick)

    # ------------------------------------------------------------ parts

    @staticmethod
    def name(node_id: int) -> str:
        return f"node {node_id}"

    def rig_of(self, node_id: int) -> Rig:
        return self.rigs[self.node_ids.index(node_id)]

    def _make_coordinator(self) -> Coordinator:
        clock = self.simulation.clock
        return Coordinator(self.store, self.config, clock, Tokens(self.simulation.seed))

    def _attach_all(self) -> None:
        with self.coordinator.read() as kv:
            rows = dict(nodes.stored_nodes(kv))
        for node_id, row in rows.items():
            self.streams[node_id] = self.coordinator.cluster.attached(node_id, row)
        self._report()

    def _report(self) -> None:
        for node_id, stream in self.streams.items():
            if node_id not in self.down:
                self.coordinator.cluster.reported(node_id, stream, Report(100 * GIB, 0, 100 * GIB))

    def _tick(self) -> None:
        """Heartbeats, background work and deletions: what threads do in the processes."""
        self._report()
        for session_id in self.renewing:
            self.coordinator.leases.renew(session_id)
        for _ in range(3):
            self.coordinator.background_step()
        if self.coordinator.forgotten_sessions():
            self.coordinator.execute(self.coordinator.end_forgotten)
        for node_id in self.node_ids:
            if node_id not in self.down:
                self._delete_on(node_id)
        self.simulation.after(REPORT_INTERVAL_S, self._tick)

    def _delete_on(self, node_id: int) -> None:
        before_ns = self.simulation.clock.time_ns() - int(self.config.delete_grace_s * 1e9)
        with self.coordinator.read() as kv:
            page = nodes.doomed_page(kv, node_id, before_ns, 16)
        if not page:
            return
        try:
            self.rig_of(node_id).store.delete(page)
        except PowerLost:
            self._power_lost(node_id)
            return
        self.coordinator.execute(lambda txn: nodes.shards_deleted(txn, node_id, page))

    def _serve(self, name: str, rig: int | None) -> Callable[[str, Any], None]:
        def handle(sender: str, request: Any) -> None:
            target = self.coordinator if rig is None else self.rigs[rig]
            try:
                answer = Answer(request.number, request.body(target), None)
            except RedfsError as error:
                answer = Answer(request.number, None, error)
            except PowerLost:
                assert rig is not None
                self._power_lost(self.node_ids[rig])
                return
            self.network.send(name, sender, answer)

        return handle

    # ------------------------------------------------------------ faults

    def crash_coordinator(self) -> None:
        """The process dies and starts again; what was committed is there."""
        self.coordinator = self._make_coordinator()
        self._attach_all()

    def lose_power(self, node_id: int, within_operations: int) -> None:
        """The node's disk loses power in one of its next operations."""
        disk = self.rig_of(node_id).disk
        disk.lose_power_at = disk.operations + 1 + within_operations

    def _power_lost(self, node_id: int) -> None:
        self.down.add(node_id)
        self.network.crash(self.name(node_id))
        self.coordinator.cluster.detached(node_id, self.streams[node_id])
        self.simulation.after(self.simulation.random.uniform(0.1, 2.0), lambda: self.power_on(node_id))

    def power_on(self, node_id: int) -> None:
        """The node starts again from what its disk kept, and is asked for its inventory."""
        rig = self.rig_of(node_id)
        rig.power_cycle()
        self.down.discard(node_id)
        self.network.listen(self.name(node_id), self._serve(self.name(node_id), self.node_ids.index(node_id)))
        with self.coordinator.read() as kv:
            row = dict(nodes.stored_nodes(kv))[node_id]
        self.streams[node_id] = self.coordinator.cluster.attached(node_id, row)
        self._report()
        self._compare_inventory(node_id)

    def _compare_inventory(self, node_id: int) -> None:
        asked_ns = self.simulation.clock.time_ns()
        held = [(i.segment, i.shard, i.payload_bytes) for i in self.rig_of(node_id).store.list_page(None, 10_000)]
        with self.coordinator.read() as kv:
            found = nodes.compare_inventory(kv, node_id, held, 0, 1 << 63, asked_ns)
        assert found.missing == [], f"seed {self.simulation.seed}: node {node_id} lost acknowledged shards"
        self.coordinator.execute(lambda txn: nodes.reconcile(txn, node_id, held, found, 0))

    def settle(self) -> None:
        """Ends all faults and lets everything that is due happen."""
        self.network.heal()
        self.network.loss = 0.0
        for session_id in sorted(self.renewing):
            self.coordinator.execute(partial(sessions.end_session, session_id=session_id))
        self.renewing.clear()
        for rig in self.rigs:
            rig.disk.lose_power_at = None
        self.run_for(5.0)
        assert not self.down
        for node_id in self.node_ids:
            self._compare_inventory(node_id)
        self.run_for(5.0)

    def run_for(self, seconds: float) -> None:
        end_s = self.simulation.clock.monotonic() + seconds
        self.simulation.run(lambda: self.simulation.clock.monotonic() >= end_s)

    # ------------------------------------------------------------ checks

    def check(self) -> None:
        """The metadata is sound; every shard that a row names is on its node, whole, and no other is."""
        seed = self.simulation.seed
        with self.coordinator.read() as kv:
            items = list(check.check(kv))
            problems = [item for item in items if isinstance(item, str)]
            assert problems == [], f"seed {seed}: {problems}"
        named: dict[int, set[tuple[int, int]]] = {}
        with self.coordinator.read() as kv:
            for key, raw in kv.scan(SEGMENTS, b"", b"\xff" * 9):
                for shard, node_id in enumerate(decode_segment(raw).nodes):
                    named.setdefault(node_id, set()).add((decode_u64(key), shard))
        for node_id in self.node_ids:
            held = set(self.rig_of(node_id).held())
            wanted = named.get(node_id, set())
            assert held == wanted, f"seed {seed}: node {node_id}: surplus {held - wanted}, lost {wanted - held}"


class Client:
    """A mount's data path as a script: writes slots, commits, reads back, and never believes what it did not see."""

    def __init__(self, pool: SimulatedPool, name: str, volume: str) -> None:
        self.pool = pool
        self.name = name
        self.volume = volume
        self.acked: dict[Place, bytes] = {}
        self.writes = 0
        self.reads = 0
        self.finished = False
        self._request = 0
        self._waiting: dict[int, Callable[[Answer | None], None]] = {}
        self._random = random.Random(f"{pool.simulation.seed} {name}")
        pool.network.listen(name, self._answered)

    # ------------------------------------------------------------ running scripts

    def start(self, script: Script) -> None:
        """Runs a script until it ends."""
        self.finished = False
        self._go_on(script, None)

    def _go_on(self, script: Script, answer: Answer | None) -> None:
        try:
            step = script.send(answer)
        except StopIteration:
            self.finished = True
            return
        if isinstance(step, float):
            self.pool.simulation.after(step, lambda: self._go_on(script, None))
            return
        self._request += 1
        number = self._request

        def once(found: Answer | None) -> None:
            if self._waiting.pop(number, None) is not None:
                self._go_on(script, found)

        self._waiting[number] = once
        self.pool.network.send(self.name, step.receiver, Request(number, step.body))
        self.pool.simulation.after(ANSWER_TIMEOUT_S, lambda: once(None))

    def _answered(self, _sender: str, answer: Any) -> None:
        waiting = self._waiting.get(answer.number)
        if waiting is not None:
            waiting(answer)

    # ------------------------------------------------------------ calls

    def ask(
        self, command: Callable[[Any], Any], retry: tuple[type[RedfsError], ...] = (Unavailable, TooFewNodes)
    ) -> Generator[Call | float, Answer | None, Any]:
        """One command at the coordinator, repeated until it is answered. Raises what it was refused with."""
        for _ in range(ATTEMPTS):
            answer = yield Call(COORDINATOR, lambda c: c.execute(command))
            if answer is None:
                continue
            if isinstance(answer.error, retry):
                yield ANSWER_TIMEOUT_S
                continue
            if answer.error is not None:
                raise answer.error
            return answer.value
        raise AssertionError(f"seed {self.pool.simulation.seed}: {self.name} was never answered")

    def mount(self) -> Script:
        opened = yield from self.ask(lambda txn: sessions.open_session(txn, self.name))
        self.session = opened.session_id
        self.pool.renewing.add(self.session)
        self.number = 0
        row, _, _ = yield from self.ask(lambda txn: sessions.attach(txn, self.session, self.volume, False))
        self.volume_id, self.lineage = row.volume_id, row.lineage

    # ------------------------------------------------------------ a session's work

    def work(self, operations: int) -> Script:
        yield from self.mount()
        for _ in range(operations):
            if self._random.random() < 0.6:
                yield from self.write()
            else:
                yield from self.read(self._place())
            yield self._random.uniform(0.0, 0.1)

    def _place(self) -> Place:
        return self._random.randint(10, 9 + FILES), self._random.randrange(SLOTS)

    def write(self) -> Script:
        """One to three slots in one segment and one commit."""
        content = {self._place(): self._content() for _ in range(self._random.randint(1, 3))}
        payload = b"".join(content.values())
        while True:
            segment, row = (
                yield from self.ask(lambda txn: segments.open_segments(txn, self.session, self.volume_id, 1, False))
            )[0]
            layout = yield from self._store(segment, row, payload)
            if layout is not None:
                break
            yield from self.ask(partial(segments.abort_segments, session_id=self.session, segment_ids=[segment]))
        blocks, records = [], []
        for index, (place, data) in enumerate(content.items()):
            block = BlockRow(
                segment, index * SLOT_BYTES_USED, len(data), len(data), 0, xxhash.xxh3_64_intdigest(data),
                hashlib.blake2b(data, digest_size=32).digest(), 0,
            )  # fmt: skip
            blocks.append((block_id(segment, index), block))
            slot = encode_slot((Piece(0, len(data), block_id(segment, index), 0),))
            records.append(Record(*slot_key(place[0], 1, place[1]), slot))
        request = CommitRequest(self.volume_id, self.number + 1, [layout], blocks, records, self.lineage)
        yield from self.ask(lambda txn: commits.commit(txn, self.session, request))
        self.number += 1
        self.acked.update(content)
        self.writes += 1

    def _content(self) -> bytes:
        # Few different contents, so that blocks are shared.
        return random.Random(self._random.randrange(40)).randbytes(SLOT_BYTES_USED)

    def _store(
        self, segment: int, row: SegmentRow, payload: bytes
    ) -> Generator[Call | float, Answer | None, SegmentLayout | None]:
        """Stores the shards; None where too many nodes fail."""
        layout = plan_layout(len(payload), row.layout.k, row.layout.m)
        shards = cut(payload, layout)
        homes = list(row.nodes)
        for index, shard in enumerate(shards):
            for attempt in range(6):
                node = homes[index]
                checksum = xxhash.xxh3_64_intdigest(shard)
                answer = yield Call(
                    self.pool.name(node),
                    partial(_put, segment=segment, shard=index, payload=shard, checksum=checksum),
                )
                if answer is not None and answer.error is None:
                    break
                if attempt < 2:
                    continue
                try:
                    homes[index] = yield from self.ask(
                        partial(
                            segments.replace_shard,
                            session_id=self.session,
                            segment_id=segment,
                            shard=index,
                            avoid=[node],
                        ),
                        retry=(Unavailable,),
                    )
                except RedfsError:
                    return None
            else:
                return None
        return SegmentLayout(segment, Code(layout.k, layout.m), layout.shard_bytes, tuple(homes))

    def read(self, place: Place, volume: str = "") -> Generator[Call | float, Answer | None, bytes | None]:
        """Reads a slot through the block table and the nodes, degraded where one is away, and compares."""
        for _ in range(ATTEMPTS):
            found = yield Call(COORDINATOR, lambda c: _look_up(c, volume or self.volume, place))
            if found is None or found.error is not None:
                continue
            if found.value is None:
                data = None
            else:
                data = yield from self._fetch(*found.value)
                if data is None:
                    continue
            if not volume:
                assert data == self.acked.get(place), f"seed {self.pool.simulation.seed}: {place} reads wrong"
            self.reads += 1
            return data
        raise AssertionError(f"seed {self.pool.simulation.seed}: {place} of {self.volume} cannot be read")

    def _fetch(self, block: BlockRow, row: SegmentRow) -> Generator[Call | float, Answer | None, bytes | None]:
        layout = Layout(row.layout.k, row.layout.m, row.shard_bytes)
        data = bytearray()
        for extent in extents(layout, block.offset, block.stored_bytes):
            part = yield from self._range(row, block.segment_id, extent.shard, extent.offset, extent.length)
            if part is None:
                have: dict[int, bytes] = {}
                for other in range(layout.shards):
                    if other != extent.shard and len(have) < layout.k:
                        piece = yield from self._range(row, block.segment_id, other, extent.offset, extent.length)
                        if piece is not None:
                            have[other] = piece
                if len(have) < layout.k:
                    return None
                part = bytes(code(layout.k, layout.m).rebuild([extent.shard], have)[0])
            data += part
        assert xxhash.xxh3_64_intdigest(bytes(data)) == block.checksum, "other bytes came back"
        return bytes(data)

    def _range(
        self, row: SegmentRow, segment: int, shard: int, offset: int, length: int
    ) -> Generator[Call | float, Answer | None, bytes | None]:
        answer = yield Call(
            self.pool.name(row.nodes[shard]), lambda rig: rig.store.read(segment, shard, offset, length)
        )
        return None if answer is None or answer.error is not None else answer.value

    def read_everything(self, volume: str, expected: dict[Place, bytes]) -> Script:
        for ino in range(10, 10 + FILES):
            for slot in range(SLOTS):
                data = yield from self.read((ino, slot), volume)
                seed = self.pool.simulation.seed
                assert data == expected.get((ino, slot)), f"seed {seed}: {(ino, slot)} of {volume} reads wrong"


def cut(payload: bytes, layout: Layout) -> list[bytes]:
    """The shards of a payload."""
    if layout.k == 1:
        return [payload.ljust(layout.shard_bytes, b"\0")] * layout.shards
    padded = payload.ljust(layout.capacity_bytes, b"\0")
    parity = bytearray(layout.m * layout.shard_bytes)
    code(layout.k, layout.m).encode(padded, parity, layout.shard_bytes)
    whole = padded + bytes(parity)
    return [whole[i : i + layout.shard_bytes] for i in range(0, len(whole), layout.shard_bytes)]


def _put(rig: Rig, segment: int, shard: int, payload: bytes, checksum: int) -> None:
    rig.store.put(segment, shard, payload, checksum)


def _look_up(coordinator: Coordinator, volume: str, place: Place) -> tuple[BlockRow, SegmentRow] | None:
    with coordinator.read() as kv:
        value = reader_of(kv, ReadTree(kv).named(volume)).get(*slot_key(place[0], 1, place[1]))
        if value is None:
            return None
        (piece,) = decode_slot(value)
        located = locate(kv, [piece.block])
        row = dict(located.blocks)[piece.block]
        return row, dict(located.segments)[row.segment_id]


def create_volume(pool: SimulatedPool, name: str, protection: str) -> None:
    pool.coordinator.execute(lambda txn: volumes.create_volume(txn, name, protection))
