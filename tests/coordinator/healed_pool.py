"""A pool that heals itself, driven by the test: its nodes keep lists of shards and do the tasks that they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from redfs.coordinator import node_control, nodes
from redfs.coordinator.healing.commands import Recorded
from redfs.coordinator.healing.healing import Answer, Given, Healing
from redfs.core.errors import RedfsError, Unavailable
from redfs.core.tables import (
    ALL_U64,
    SEGMENTS,
    NodeState,
    SegmentRow,
    decode_segment,
    decode_u64,
)
from tests.coordinator.harness import Client, Pool

Shard = tuple[int, int]
MAX_TURNS = 2000


class HealedPool(Pool):
    """See the module."""

    def __init__(self, node_count: int = 7, **settings: Any) -> None:
        self.disks: dict[int, set[Shard]] = {}
        """node -> shards on its disk."""
        self.dead: set[int] = set()
        self.given: list[Given] = []
        """All tasks that were ever given."""
        self.most_at_once: Counter[int] = Counter()
        self.fails: Callable[[Given], RedfsError | None] = lambda given: None
        super().__init__(node_count, **settings)
        self.healing = self._make_healing()
        self.run(self.config.node_down_s + 1)

    def _make_healing(self) -> Healing:
        c = self.coordinator
        return Healing(c.cluster, c.config, c.env.clock, c.env.redundancy)

    def restart(self) -> None:
        self.coordinator = self._make()
        self.healing = self._make_healing()
        for node_id in list(self.streams):
            if node_id not in self.dead:
                self.come_back(node_id)

    # -- data

    def fill(self, name: str, protection: str, segments: int) -> Client:
        """A volume with so many segments, whose shards are on their nodes."""
        self.create(name, protection)
        client = Client(self, name)
        for number in range(segments):
            client.write({(10, number): f"{name} {number}"})
            client.renew()
        for segment_id, row in self.rows().items():
            for shard, node in enumerate(row.nodes):
                self.disks.setdefault(node, set()).add((segment_id, shard))
        return client

    def rows(self) -> dict[int, SegmentRow]:
        with self.coordinator.read() as kv:
            return {decode_u64(key): decode_segment(raw) for key, raw in kv.scan(SEGMENTS, b"", ALL_U64)}

    def shards_on(self, node_id: int) -> int:
        return sum(node_id in row.nodes for row in self.rows().values())

    def assert_all_there(self) -> None:
        """Every shard lies where its row says, and nowhere else; no two of a segment on one node."""
        expected: dict[int, set[Shard]] = {}
        for segment_id, row in self.rows().items():
            assert len(set(row.nodes)) == row.layout.width
            for shard, node in enumerate(row.nodes):
                expected.setdefault(node, set()).add((segment_id, shard))
        for node_id in set(expected) | set(self.disks):
            if node_id not in self.dead:
                assert self.disks.get(node_id, set()) == expected.get(node_id, set()), f"node {node_id}"
        assert self.problems() == []

    # -- nodes

    def kill(self, *node_ids: int) -> None:
        self.dead.update(node_ids)
        self.lose(*node_ids)

    def come_back(self, node_id: int) -> None:
        """It attaches, is compared, and reports from now on."""
        self.dead.discard(node_id)
        with self.coordinator.read() as kv:
            row = nodes.require_node(kv, node_id)
        hello = nodes.Hello("", node_id, row.disk_uuid, row.address, row.generation, row.domain, row.data_folder)
        _, row = self.coordinator.execute(lambda txn: nodes.register(txn, hello))
        self.streams[node_id] = self.coordinator.cluster.attached(node_id, row)
        self.report(node_id)
        held = [(segment, shard, self.rows().get(segment, _NONE).shard_bytes) for segment, shard in
                sorted(self.disks.get(node_id, set()))]  # fmt: skip
        with self.coordinator.read() as kv:
            found = nodes.compare_inventory(kv, node_id, held, 0, 1 << 63, self.clock.time_ns())
        self.coordinator.execute(lambda txn: nodes.reconcile(txn, node_id, held, found, 0))
        self.coordinator.cluster.compared(node_id, self.streams[node_id])

    def state(self, node_id: int) -> NodeState:
        with self.coordinator.read() as kv:
            return NodeState(nodes.require_node(kv, node_id).state)

    def shown(self, node_id: int) -> str:
        return self.coordinator.cluster.states()[node_id]

    def control(self, node_id: int, action: str) -> None:
        self.coordinator.execute(lambda txn: node_control.control(txn, node_id, action))

    # -- time

    def run(self, seconds: float) -> None:
        """Time goes by, and everything is done that is to be done in it; in larger steps until the last seconds."""
        until_s = self.clock.now_s + seconds
        while self.clock.now_s < until_s:
            self.clock.now_s += 2.0 if until_s - self.clock.now_s > 10 else 0.5
            self.beat()
            self.turn()

    def beat(self) -> None:
        for node_id in self.streams:
            if node_id not in self.dead:
                self.report(node_id)

    def turn(self) -> None:
        """One turn of everything: states, a look, tasks, deletions."""
        with self.coordinator.read() as kv:
            commands = self.healing.tick(kv)
        for command in commands:
            self.coordinator.execute(command)
        self.look()
        for given in self.give():
            self.carry_out(given)
        for node_id in self.streams:
            if node_id not in self.dead:
                self.delete_on(node_id)

    def look(self) -> None:
        if not self.healing.wants_survey():
            return
        with self.coordinator.read() as kv:
            self.healing.begin_survey(kv)
            while not self.healing.step_survey(kv):
                continue
        self.coordinator.execute(self.healing.end_survey())

    def give(self) -> list[Given]:
        with self.coordinator.read() as kv:
            given = self.healing.give(kv)
        self.given += given
        making = Counter(task.step.target for task in self.healing.under_way)
        self.most_at_once |= making
        return given

    def carry_out(self, given: Given) -> Recorded | None:
        """The target makes the shard, from what is really there; it is recorded."""
        step = given.step
        failure = self.fails(given)
        if step.target in self.dead:
            failure = Unavailable("it is dead")
        sources = [
            shard
            for shard, node in enumerate(given.nodes)
            if shard not in step.unusable
            and node not in self.dead
            and (step.segment_id, shard) in self.disks.get(node, set())
        ]
        if failure is None and step.shard not in sources and len(sources) < given.layout.k:
            failure = Unavailable("too few shards can be read")
        if failure is None:
            self.disks.setdefault(step.target, set()).add((step.segment_id, step.shard))
        return self.answer(given, Answer(failure))

    def answer(self, given: Given, answer: Answer) -> Recorded | None:
        command = self.healing.answered(given, answer)
        recorded = None if command is None else self.coordinator.execute(command)
        self.healing.finished(given, recorded)
        found: Recorded | None = recorded
        return found

    def delete_on(self, node_id: int) -> None:
        with self.coordinator.read() as kv:
            before_ns = self.clock.time_ns() - int(self.config.delete_grace_s * 1e9)
            page = nodes.doomed_page(kv, node_id, before_ns, 1000)
        if page:
            self.disks.get(node_id, set()).difference_update(page)
            self.coordinator.execute(lambda txn: nodes.shards_deleted(txn, node_id, page))

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(MAX_TURNS):
            if condition():
                return
            self.run(0.5)
        raise AssertionError("it did not come to pass")


_NONE = SegmentRow(0, (0, 0), (0, 0, 0), 0, 0, 0, 0, 0, ())  # type: ignore[arg-type]


def segments_of(given: Iterable[Given]) -> list[int]:
    return [task.step.segment_id for task in given]
