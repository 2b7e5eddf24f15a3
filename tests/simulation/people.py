"""What people do with the pool while programs work and faults strike: cleaning, levelling, emptying nodes.

In half of the schedules. None of it may change what programs find. Each call is made once and may get lost, like any
other message; what it began is over when a schedule ends, because jobs must end, and nodes that were drained are used
again then: a pool with just as many nodes as a segment has shards cannot empty one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from redfs.coordinator.nodes import stored_nodes
from redfs.core.errors import RedfsError
from redfs.core.tables import NodeState
from redfs.proto.gen import cluster_pb2 as pb
from tests.simulation.program import admin
from tests.simulation.world import World

SHARE = 0.5
"""Of the schedules that people do something in."""
ACTS = 4
"""The most that they do."""
WITHIN_S = 4.0
"""From the beginning of the work on."""
DRAINED_S = (0.5, 4.0)
LATEST_S = 3.0
"""No message is under way for longer."""


class People:
    """See the module."""

    def __init__(self, world: World, *, may_act: bool) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed} people")
        self._calls: list[asyncio.Task[None]] = []
        self._drained = False
        self._at_work = may_act and self._random.random() < SHARE
        self._over = False

    def begin(self) -> None:
        """Plans what they do, and when."""
        if not self._at_work:
            return
        for _ in range(self._random.randint(1, ACTS)):
            act = self._random.choice((self._clean, self._clean, self._level, self._drain))
            self._world.loop.outside(self._random.uniform(0.1, WITHIN_S), self._act, act)

    def _act(self, act: Callable[[], None]) -> None:
        if not self._over:
            act()

    def _call(self, call: str, request: Any) -> None:
        async def ask() -> None:
            try:
                await admin("people", self._world, self._world.people, call, request)
            except RedfsError as error:
                self._world.note(f"{call}: {error}")

        self._calls.append(self._world.loop.spawn(self._world.people, ask()))

    def _start(self, kind: str) -> None:
        self._world.note(f"somebody starts {kind}")
        self._call("StartJob", pb.JobStart(kind=kind))

    def _clean(self) -> None:
        self._start("clean")

    def _level(self) -> None:
        self._start("rebalance")

    def _drain(self) -> None:
        world = self._world
        node = self._random.choice([node for node in world.nodes if not node.lost_for_good])
        world.note(f"node {node.number} is drained")
        self._drained = True
        self._call("ControlNode", pb.NodeControl(node_id=node.node_id, action="drain"))
        if self._random.random() < 0.5:
            back_s = self._random.uniform(*DRAINED_S)
            world.loop.outside(back_s, self._call, "ControlNode", pb.NodeControl(node_id=node.node_id, action="in"))

    async def end(self) -> None:
        """After the faults: all nodes are used again, and where people were at work the pool is cleaned."""
        self._over = True
        if not self._at_work:
            return
        world = self._world
        if self._drained:
            await world.until(lambda: all(call.done() for call in self._calls), 60.0, "people's calls end")
            await world.sleep(LATEST_S)
        for node_id in self._draining():
            await world.ask_coordinator("ControlNode", pb.NodeControl(node_id=node_id, action="in"))
        await world.ask_coordinator("StartJob", pb.JobStart(kind="clean"))

    def _draining(self) -> list[int]:
        with self._world.coordinator.store.read() as kv:
            return [node_id for node_id, row in stored_nodes(kv) if row.state == NodeState.DRAINING]
