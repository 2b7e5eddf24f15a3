"""One simulated pool with its mounts: everything that a schedule consists of, on one loop, from one seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redfs.core.errors import RedfsError
from redfs.core.tables import SEGMENTS, SegmentState, decode_segment, u64_key
from redfs.proto.gen import cluster_pb2 as pb
from tests.simulation.coordinator import NAME as COORDINATOR
from tests.simulation.coordinator import SimulatedCoordinator
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.model import Found
from tests.simulation.network import SimulatedNetwork
from tests.simulation.node import SimulatedNode
from tests.simulation.program import Program, admin

NODES = 6
TOLERANCE = {"ec:4+2": 2, "ec:3+1": 1, "mirror:3": 2, "mirror:2": 1, "ec:2+2": 2}
POLICIES = tuple(TOLERANCE)

POLL_S = 0.25
"""Between two looks whether something that is waited for has happened."""


class World:
    """See the module. Made inside of the loop."""

    def __init__(self, seed: int, loop: SimulatedLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.network = SimulatedNetwork(loop)
        self.protection = POLICIES[seed % len(POLICIES)]
        self.tolerance = TOLERANCE[self.protection]
        self.coordinator = SimulatedCoordinator(loop, self.network, seed)
        self.nodes: list[SimulatedNode] = []
        for _ in range(NODES):
            self.add_node()
        self.hurt: set[int] = set()
        """Numbers of nodes that have lost what they had acknowledged; never more than the tolerance."""
        self.frozen: dict[str, Found] = {}
        """Snapshots and what they must show."""
        self.programs: list[Program] = []
        self.may_clone = True
        self.log: list[str] = []
        """What was done to it, for who looks at a failed seed."""
        self._numbers = 0
        self._failure: AssertionError | None = None
        self.people = Process("people")

    # ------------------------------------------------------------ what goes wrong

    def failed(self, error: AssertionError) -> None:
        """A process found something wrong."""
        self._failure = self._failure or error

    def check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        assert not self.loop.problems, self.loop.problems

    def note(self, what: str) -> None:
        self.log.append(f"{self.loop.time():8.3f} {what}")

    # ------------------------------------------------------------ parts

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def add_program(self, program: Program) -> None:
        self.programs.append(program)
        program.start()

    def add_node(self) -> SimulatedNode:
        """A fresh disk joins."""
        number = len(self.nodes)
        node = SimulatedNode(self.loop, self.network, number, self.seed * 100 + number)
        node.on_delete = lambda shards: self._check_deletion(node, shards)
        self.nodes.append(node)
        return node

    def _check_deletion(self, node: SimulatedNode, shards: list[tuple[int, int]]) -> None:
        """No shard that a row names is ever deleted, not even where healing would make it anew."""
        with self.coordinator.store.read() as kv:
            for segment, shard in shards:
                raw = kv.get(SEGMENTS, u64_key(segment))
                row = None if raw is None else decode_segment(raw)
                if row is None or row.state != SegmentState.COMMITTED or shard >= len(row.nodes):
                    continue
                if row.nodes[shard] == node.node_id:
                    self.failed(AssertionError(f"shard {shard} of segment {segment:#x} is named and is deleted"))

    def node_called(self, node_id: int) -> SimulatedNode | None:
        return next((node for node in self.nodes if node.node_id == node_id), None)

    # ------------------------------------------------------------ running

    async def sleep(self, seconds: float) -> None:
        """Lets the world go on; raises what was found wrong."""
        until_s = self.loop.time() + seconds
        while (left_s := until_s - self.loop.time()) > 0:
            await asyncio.sleep(min(left_s, 0.25))
            self.check_failure()

    async def until(self, condition: Callable[[], bool], within_s: float, what: str | Callable[[], str]) -> None:
        until_s = self.loop.time() + within_s
        while not condition():
            assert self.loop.time() < until_s, f"not within {within_s:g} s: {what() if callable(what) else what}"
            await self.sleep(POLL_S)

    async def set_up(self, volumes: int, operations: int) -> None:
        """Nodes join, volumes are made, programs begin."""
        cluster = self.coordinator.coordinator.cluster
        await self.until(lambda: len(cluster.up()) == NODES, 10.0, "all nodes join")
        for number in range(volumes):
            name = f"v{number}"
            await self.ask_coordinator("CreateVolume", pb.VolumeCreate(name=name, protection=self.protection))
            self.add_program(Program(self, f"program {number}", name, operations))

    async def ask_coordinator(self, call: str, request: Any) -> Any:
        """A person's call, again and again until it is answered."""
        while True:
            try:
                return await admin("people", self, self.people, call, request)
            except RedfsError as error:
                self.note(f"{call}: {error}")
                await self.sleep(0.3)

    def stop_faults(self) -> None:
        """Everything that is only away comes back."""
        self.network.heal()
        self.network.loss = self.network.repeat = self.network.breaks = 0.0
        self.coordinator.full = False
        self.coordinator.die_in = None
        for process in (self.coordinator.process, *(n.process for n in self.nodes)):
            self.loop.thaw(process, whoever=True)
        for program in self.programs:
            if program.mount is not None:
                self.loop.thaw(program.mount.process, whoever=True)
        for node in self.nodes:
            node.disk.lose_power_at = None
            node.disk.fail_next_sync = False
            node.disk.capacity_bytes = node.capacity_bytes

    def endpoint_names(self) -> list[str]:
        mounts = [p.mount.name for p in self.programs if p.mount is not None and not p.finished]
        return [COORDINATOR, *(n.address for n in self.nodes if not n.lost_for_good), *mounts]
