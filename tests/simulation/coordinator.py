"""The coordinator's process in the simulation: the real state, shell, streams, healing, scrubs, over a store in memory.

What is not the real one: the state thread, which here is a queue that the event loop works off, and gRPC. The process
can die at any commit of the store, before or after it became durable, and starts again over what was committed.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from redfs.coordinator.cleaner import Cleaning
from redfs.coordinator.coordinator import MAX_BATCH, Command, Coordinator
from redfs.coordinator.environment import CoordinatorConfig
from redfs.coordinator.healing.worker import Worker
from redfs.coordinator.node_stream import NodeStream
from redfs.coordinator.requests import Requests
from redfs.coordinator.returning import Returning
from redfs.coordinator.scrub import scrubber_of
from redfs.coordinator.service import CoordinatorServicer
from redfs.coordinator.session_stream import SessionStream
from redfs.coordinator.sharing import Sharing
from redfs.coordinator.shell import Shell
from redfs.coordinator.state import Answer, StateThread
from redfs.coordinator.store import MemoryStore
from redfs.core.errors import NoSpace, RedfsError, Unavailable
from redfs.proto.rpc_errors import ERROR_KEY, rebuild
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Endpoint, Service, SimulatedNetwork

NAME = "coordinator"
TICK_S = 1.0
BATCH_S = 0.002
"""Commands gather for up to so long before they become durable together."""
JOB_STEP_S = 0.02
FULL_PAUSE_S = 1.0
CONFIG = CoordinatorConfig(
    lease_s=6.0,
    session_keep_s=20.0,
    heartbeat_s=1.0,
    node_down_s=2.5,
    delete_grace_s=0.5,
    inventory_interval_s=4.0,
    flush_deadline_s=3.0,
    reclaim_budget_rows=7,
    down_out_s=5.0,
    scrub_interval_s=0.0,
    clean_interval_s=0.0,
    scrub_bytes_per_s=0,
)
"""Shorter times than the real ones, so that a schedule is short. Scrubs and cleaning are asked for."""


class Died(BaseException):
    """The process ends at this point."""


class Tokens:
    """Repeatable randomness for the coordinator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


class InlineState:
    """What the state thread does, on the event loop."""

    def __init__(self, coordinator: Coordinator, loop: SimulatedLoop, on_death: Callable[[], None]) -> None:
        self.fatal: BaseException | None = None
        self.on_fatal: Callable[[], None] = lambda: None
        self._coordinator = coordinator
        self._loop = loop
        self._on_death = on_death
        self._queue: deque[tuple[Command[Any], Answer]] = deque()
        self._due = False
        self._stepping = False

    def start(self) -> None:
        self._plan_step(JOB_STEP_S)

    def submit(self, command: Command[Any], answer: Answer) -> None:
        self._queue.append((command, answer))
        if not self._due:
            self._due = True
            self._loop.call_later(self._loop.random.uniform(0.0, BATCH_S), self._run)

    def _run(self) -> None:
        self._due = False
        batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
        try:
            outcomes = self._coordinator.execute_batch([command for command, _ in batch])
        except Died:
            self._on_death()
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            self._loop.call_soon(answer, outcome)
        if self._queue:
            self._due = True
            self._loop.call_soon(self._run)
        self._plan_step(JOB_STEP_S)

    def _plan_step(self, delay_s: float) -> None:
        if self._coordinator.has_jobs and not self._stepping:
            self._stepping = True
            self._loop.call_later(delay_s, self._step)

    def _step(self) -> None:
        self._stepping = False
        pause_s = JOB_STEP_S
        try:
            self._coordinator.background_step()
        except Died:
            self._on_death()
            return
        except NoSpace:
            pause_s = FULL_PAUSE_S
        self._plan_step(pause_s)


class AdminContext:
    """The context of a person's call."""

    async def abort(self, _code: Any, details: str, metadata: Any = ()) -> None:
        raise rebuild(dict(metadata).get(ERROR_KEY, "error"), details)


class SimulatedCoordinator:
    """See the module."""

    def __init__(self, loop: SimulatedLoop, network: SimulatedNetwork, seed: int) -> None:
        self.loop = loop
        self.network = network
        self.store = MemoryStore()
        self.store.before_commit = self._before_commit
        self.store.after_commit = self._after_commit
        self.full = False
        """The disk takes no more."""
        self.die_in: tuple[int, bool] | None = None
        """Dies in so many commits, before (False) or after (True) it is durable."""
        self.lives = 0
        self._tokens = Tokens(seed)
        self.process = Process(NAME)
        self.coordinator: Coordinator
        self.shell: Shell
        self.servicer: CoordinatorServicer
        self.start()

    def start(self) -> None:
        """A new process over what was committed. Without room on the disk it tries again later."""
        self.lives += 1
        self.die_in = None
        self.process = Process(NAME)
        try:
            self.process.context.run(self._start)
        except NoSpace:
            self.process.kill()
            self.loop.outside(FULL_PAUSE_S, self._start_unless_up)

    def _start_unless_up(self) -> None:
        if not self.process.alive:
            self.start()

    def _start(self) -> None:
        self.coordinator = Coordinator(self.store, CONFIG, self.loop.clock, self._tokens)
        shell = self.shell = Shell(self.coordinator)
        shell.state = cast("StateThread", InlineState(self.coordinator, self.loop, self.die))
        requests = Requests(self.coordinator, shell.order_done, shell.copies.done)
        self.servicer = CoordinatorServicer(shell)
        sharing, returning = Sharing(shell), Returning(shell)
        shell.start()
        self.loop.create_task(self._tick())
        self.loop.create_task(Worker(shell).run_for_ever())
        self.loop.create_task(scrubber_of(shell).run_for_ever())
        self.loop.create_task(Cleaning(shell).run_for_ever())
        services: dict[str, Service] = {
            "Session": lambda end: SessionStream(end, shell, requests, sharing, returning).run(),
            "Attach": lambda end: NodeStream(end, shell).run(),
        }
        self.network.listen(NAME, Endpoint(self.process, self, services))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self.coordinator.forgotten_sessions():
                try:
                    await self.shell.run(self.coordinator.end_forgotten)
                except RedfsError:
                    continue

    # ------------------------------------------------------------ faults

    def _before_commit(self, _number: int) -> None:
        if self.full:
            raise NoSpace("the coordinator's disk is full")
        if self.die_in == (0, False):
            raise Died

    def _after_commit(self, _number: int) -> None:
        if self.die_in is None:
            return
        left, after = self.die_in
        if left == 0:
            raise Died
        self.die_in = (left - 1, after)

    def die(self) -> None:
        """kill -9; it is started again soon."""
        if not self.process.alive:
            return
        self.process.kill()
        self.network.process_gone(self.process, silently=False)
        self.loop.outside(self.loop.random.uniform(0.05, 1.5), self._start_unless_up)

    # ------------------------------------------------------------ people's calls

    async def call(self, name: str, request: Any) -> Any:
        """One call of the servicer, in the coordinator's process."""
        if not self.process.alive:
            raise Unavailable("the coordinator is away")
        return await getattr(self.servicer, name)(request, AdminContext())
