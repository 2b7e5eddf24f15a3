"""Drives the healing in the coordinator's process: looks in a reader thread, tasks to nodes, commands to the state.

Looks at all segments take at most SURVEY_SHARE of a thread, so that on a large pool they do not slow down what people
wait for. A task that fails is the healing's to judge; nothing here tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from redfs.coordinator.cluster import Cluster
from redfs.coordinator.healing.commands import Bad
from redfs.coordinator.healing.healing import Answer, Given, Healing
from redfs.coordinator.node_tasks import failure_in
from redfs.coordinator.shell import Shell, cancel_and_wait
from redfs.core.errors import RedfsError
from redfs.proto.gen import cluster_pb2 as pb

TICK_S = 0.25
"""How often it looks whether there is something to do, where no task has ended."""
SURVEY_SHARE = 0.25
"""Of the time while it looks at all segments; the rest it sleeps."""
TASK_DEADLINE_S = 120.0
"""A shard of a few MiB takes a fraction of a second; on a disk that is full of other work, some seconds."""
FAILED_LOOK_PAUSE_S = 5.0
"""After an error in a look or a command."""

log = logging.getLogger(__name__)


def order_of(given: Given, cluster: Cluster) -> pb.RebuildShard:
    """The task as a node gets it; its number is set by who sends it."""
    step = given.step
    k, m = given.layout
    return pb.RebuildShard(
        segment=pb.Segment(segment_id=step.segment_id, k=k, m=m, shard_bytes=step.shard_bytes, nodes=given.nodes),
        shard=step.shard,
        unusable=step.unusable,
        addresses=[
            pb.NodeAddress(node_id=node_id, address=address) for node_id, address in cluster.addresses(given.nodes)
        ],
        set_aside=step.source == step.target,
    )


def answer_of(given: Given, done: pb.TaskDone) -> Answer:
    """What a node said of a task."""
    bad = tuple(
        Bad(found.segment_id, found.shard, given.nodes[found.shard], found.reason, found.missing)
        for found in done.bad
        if found.segment_id == given.step.segment_id and found.shard < len(given.nodes)
    )
    return Answer(failure_in(done), bad)


class Worker:
    """See the module. Belongs to one event loop."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        coordinator = shell.coordinator
        self._coordinator = coordinator
        env = coordinator.env
        self.healing = Healing(coordinator.cluster, coordinator.config, env.clock, env.redundancy)
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run_for_ever(self) -> None:
        """Heals until it is cancelled."""
        looking = asyncio.create_task(self._look_for_ever(), name="healing looks")
        try:
            while True:
                try:
                    await self._turn()
                except RedfsError as error:
                    log.warning("healing waits: %s", error)
                    await asyncio.sleep(FAILED_LOOK_PAUSE_S)
                except Exception:
                    # A bug must not end all healing; the next turn may do better.
                    log.exception("a turn of the healing failed")
                    await asyncio.sleep(FAILED_LOOK_PAUSE_S)
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()
        finally:
            await cancel_and_wait([looking, *self._tasks])

    async def _turn(self) -> None:
        with self._coordinator.read() as kv:
            commands = self.healing.tick(kv)
        for command in commands:
            changed = await self._shell.run(command)
            if changed:
                log.warning("nodes %s are given up, or in again: see `redfs node ls`", changed)
        with self._coordinator.read() as kv:
            given = self.healing.give(kv)
        for one in given:
            task = asyncio.create_task(self._do(one), name="healing task")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, given: Given) -> None:
        recorded = None
        try:
            order = order_of(given, self._coordinator.cluster)
            answer = answer_of(given, await self._shell.node_tasks.run(given.step.target, order, TASK_DEADLINE_S))
            if answer.failure is not None:
                log.info("node %d could not make a shard: %s", given.step.target, answer.failure)
            command = self.healing.answered(given, answer)
            if command is not None:
                recorded = await self._shell.run(command)
        except RedfsError as error:
            log.info("a shard on node %d was not made: %s", given.step.target, error)
        except Exception:
            log.exception("a healing task failed")
        finally:
            self.healing.finished(given, recorded)
            self._wake.set()

    # -- looking at all segments

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self.healing.wants_survey():
                continue
            try:
                await self._look()
            except RedfsError as error:
                log.warning("the pool's segments could not be looked at: %s", error)
                self.healing.abandon_survey()
                await asyncio.sleep(FAILED_LOOK_PAUSE_S)
            except Exception:
                log.exception("a look at the pool's segments failed")
                self.healing.abandon_survey()
                await asyncio.sleep(FAILED_LOOK_PAUSE_S)

    async def _look(self) -> None:
        with self._coordinator.read() as kv:
            self.healing.begin_survey(kv)
        done = False
        while not done:
            began_s = self._shell.loop.time()
            done = await self._shell.read(self._look_at_a_piece)
            if not done:
                await asyncio.sleep((self._shell.loop.time() - began_s) * (1 / SURVEY_SHARE - 1))
        await self._shell.run(self.healing.end_survey())
        self._wake.set()

    def _look_at_a_piece(self) -> bool:
        with self._coordinator.read() as kv:
            return self.healing.step_survey(kv)
