"""Decides what is done next about shards, and takes what came of it. No threads, no sockets, no asyncio.

Driven from outside: `tick` now and then for the nodes' states; `begin_survey`, `step_survey` and `end_survey` where
`wants_survey` says so; `give` for tasks whenever a place may be free; `answered` and `finished` for each of them. All
that changes rows comes out as a command for the state thread. A plan lives from one look at all segments to the next,
and only as a list of segments: what is to be done about one is decided again, from its row, when its turn comes.

Belongs to one caller at a time; surveys may run in another thread between `begin_survey` and `end_survey`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redfs.coordinator.cluster import Cluster
from redfs.coordinator.environment import Clock, CoordinatorConfig
from redfs.coordinator.healing import commands
from redfs.coordinator.healing.backoff import Backoff
from redfs.coordinator.healing.commands import Bad, Made, Recorded
from redfs.coordinator.healing.survey import MAX_URGENT, Found, JobOf, Survey, Wanted, damaged_shards, shards_of
from redfs.coordinator.redundancy import RedundancyBook
from redfs.coordinator.txn import Txn
from redfs.core.errors import RedfsError
from redfs.core.healing import Balance, Blocked, Facts, Need, Shards, Step, Work, assess, plan, step_to
from redfs.core.kv import ReadKv
from redfs.core.policy import Layout
from redfs.core.tables import (
    DOOMED,
    JOBS,
    SEGMENTS,
    JobKind,
    NodeState,
    SegmentState,
    decode_segment,
    doomed_key,
    is_paused_job,
    job_key,
    split_job_key,
    u64_key,
)

GIVE_ROWS = 64
"""Segments that one `give` reads: a few milliseconds of the event loop."""
READS_PER_TASK_PLACE = 4
"""A node is read for this many tasks at once for each that it may make: a shard takes k others to make."""
LEAST_PAUSE_S = 0.5
"""Between two looks at all segments, whatever happens."""
REFRESH_S = 10.0
"""Between two looks while there is work: people see how much is left."""
RETRY_S = 5.0
"""Before looking again at what could not be done."""
REFILL = MAX_URGENT // 2
"""Where a look has left segments out, the next one begins when so few are left of it."""
REST_PER_LOOK = 10
"""Looks that nothing new calls for leave so many times their own length between them."""
IDLE_S = 60.0
"""Between two looks while nothing happens: what nobody has told shows then."""
MAX_TARGETS_TRIED = 8
"""Nodes that are passed over for one shard because a deletion of it waits there."""

Command = Callable[[Txn], Any]


class Given(NamedTuple):
    """A task for a node."""

    step: Step
    layout: Layout
    nodes: tuple[int, ...]
    """By shard, as planned."""

    @property
    def key(self) -> tuple[int, int]:
        return self.step.segment_id, self.step.shard


class Answer(NamedTuple):
    """What a node said, or that it said nothing."""

    failure: RedfsError | None
    bad: tuple[Bad, ...] = ()


class Healing:
    """See the module."""

    def __init__(self, cluster: Cluster, config: CoordinatorConfig, clock: Clock, book: RedundancyBook) -> None:
        self._cluster = cluster
        self._config = config
        self._clock = clock
        self._book = book
        self._backoff = Backoff()
        self._running: dict[int, Given] = {}
        """segment -> its task: one at a time for each."""
        self._making: Counter[int] = Counter()
        self._reading: Counter[int] = Counter()
        self._queue: list[int] = []
        self._survey: Survey | None = None
        self._found: Found | None = None
        self._bytes_on: Counter[int] = Counter()
        """node -> bytes by the rows, with what was given since the last look."""
        self._balance: Balance | None = None
        self._seen: dict[int, tuple[object, ...]] = {}
        self._ended_s = float("-inf")
        self._began_s = self._took_s = 0.0
        self._given_since = 0
        self._borne = 0
        self._borne_s = float("-inf")

    # -- states of nodes

    def tick(self, kv: ReadKv) -> list[Command]:
        """Nodes that are away for too long, and those that are back."""
        facts = self._cluster.facts()
        members = [n for n in facts.values() if n.state in (NodeState.IN, NodeState.DRAINING)]
        overdue = [n.node_id for n in members if not n.up and n.away_s >= self._config.down_out_s]
        back = [n.node_id for n in facts.values() if n.state == NodeState.LOST and n.up and n.steady and n.compared]
        found: list[Command] = []
        if overdue and sum(not n.up for n in members) > self._bearable(kv, len(members)):
            self._book.kept_in = tuple(sorted(overdue))
            overdue = []
        else:
            self._book.kept_in = ()
        if overdue:
            found.append(lambda txn: commands.give_up(txn, overdue))
        if back:
            found.append(lambda txn: commands.take_back(txn, back))
        return found

    def _bearable(self, kv: ReadKv, count: int) -> int:
        """How many of so many nodes may be away at once and still be given up by time alone."""
        now_s = self._clock.monotonic()
        if now_s - self._borne_s >= RETRY_S:
            self._borne, self._borne_s = commands.most_borne(kv), now_s
        return max(self._borne, int(count * commands.MAX_GIVEN_UP_SHARE))

    # -- looking

    def wants_survey(self) -> bool:
        """Whether it is time to look at all segments."""
        if self._survey is not None or not self._cluster.is_settled():
            return False
        passed_s = self._clock.monotonic() - self._ended_s
        if passed_s < LEAST_PAUSE_S:
            return False
        if self._found is None or self._book.stale or self._seen != _signature(self._cluster.facts()):
            return True
        if self._given_since and (not self._queue or (not self._found.complete and len(self._queue) < REFILL)):
            return True
        if self._found.left and not self._queue and not self._running:
            return passed_s >= max(RETRY_S, REST_PER_LOOK * self._took_s)
        busy = bool(self._found.left or self._found.redundancy.endangered or self._found.awaited)
        return passed_s >= max(REFRESH_S if busy else IDLE_S, REST_PER_LOOK * self._took_s)

    def begin_survey(self, kv: ReadKv) -> None:
        """Begins to look; nodes are taken as they are now."""
        facts = self._cluster.facts()
        wanted = self._wanted(kv, facts)
        self._began_s = self._clock.monotonic()
        self._book.stale = False
        self._seen = _signature(facts)
        balance = None
        if kv.get(JOBS, job_key(JobKind.REBALANCE, 0)) is not None:
            # Bytes by node are known from the look before: the first one after a start only counts.
            self._book.stale = self._found is None
            balance = None if self._found is None else Balance(facts, self._bytes_on)
        self._survey = Survey(facts, wanted, balance, self._backoff.segments(self._clock.monotonic()))

    def step_survey(self, kv: ReadKv) -> bool:
        """Looks at the next piece. True at the end."""
        return self._survey is None or self._survey.step(kv)

    def end_survey(self) -> Command:
        """Takes over what was found; the command that makes jobs of it."""
        assert self._survey is not None
        found = self._found = self._survey.found()
        self._survey = None
        self._queue = found.urgent
        self._book.looked(found.redundancy)
        self._bytes_on = Counter(found.bytes_on)
        self._balance = Balance(self._cluster.facts(), self._bytes_on)
        for given in self._running.values():
            self._moves(given.step.source, given.step.target, given.step.shard_bytes)
        self._ended_s = self._clock.monotonic()
        self._took_s = self._ended_s - self._began_s
        self._given_since = 0
        under_way: Counter[JobOf] = Counter(_job_of(given.step) for given in self._running.values())
        return lambda txn: commands.settle_jobs(txn, found, under_way)

    def abandon_survey(self) -> None:
        """The look could not be carried on."""
        self._survey = None
        self._ended_s = self._clock.monotonic()

    def _wanted(self, kv: ReadKv, facts: Facts) -> Wanted:
        draining = {n for n, node in facts.items() if node.state == NodeState.DRAINING}
        rebuild = repair = True
        rebalance = False
        for key, raw in kv.scan(JOBS, job_key(JobKind.REBUILD, 0), job_key(JobKind.REBALANCE + 1, 0)):
            kind, first, _ = split_job_key(key)
            paused = is_paused_job(raw)
            if kind == JobKind.REBUILD:
                rebuild = not paused
            elif kind == JobKind.REPAIR:
                repair = not paused
            elif kind == JobKind.DRAIN and paused:
                draining.discard(first)
            elif kind == JobKind.REBALANCE:
                rebalance = not paused
        return Wanted(rebuild, repair, frozenset(draining), rebalance)

    # -- giving

    def give(self, kv: ReadKv) -> list[Given]:
        """Tasks that can begin now, most urgent first. They count as under way from here on, until `finished`."""
        if not self._queue:
            return []
        facts = self._cluster.facts()
        wanted = self._wanted(kv, facts)
        limit = self._config.heal_tasks_per_node
        places = sum(node.takes for node in facts.values()) * limit - self._making.total()
        given: list[Given] = []
        later: list[int] = []
        looked = upto = 0
        for segment_id in self._queue:
            if looked >= GIVE_ROWS or len(given) >= places:
                break
            upto += 1
            if segment_id in self._running:
                later.append(segment_id)
                continue
            looked += 1
            task = self._task(kv, segment_id, facts, wanted)
            if task is Blocked.BUSY:
                later.append(segment_id)
            elif isinstance(task, Given):
                # It stays in the list: it may have another shard to be made.
                later.append(segment_id)
                self._begin(task)
                given.append(task)
        self._queue = later + self._queue[upto:]
        return given

    def _begin(self, given: Given) -> None:
        self._running[given.step.segment_id] = given
        self._making[given.step.target] += 1
        self._reading.update(given.step.reads_from)
        self._given_since += 1
        self._moves(given.step.source, given.step.target, given.step.shard_bytes)

    def _moves(self, source: int, target: int, count: int) -> None:
        self._bytes_on[source] -= count
        self._bytes_on[target] += count
        if self._balance is not None:
            self._balance.moved(source, target, count)

    def _task(self, kv: ReadKv, segment_id: int, facts: Facts, wanted: Wanted) -> Given | Blocked | None:
        """What is to be done about a segment now; None: nothing that can be done."""
        raw = kv.get(SEGMENTS, u64_key(segment_id))
        row = None if raw is None else decode_segment(raw)
        if row is None or row.state != SegmentState.COMMITTED:
            return None
        shards = shards_of(segment_id, row, damaged_shards(kv, segment_id, row))
        found = assess(shards, facts, wanted.draining)
        now_s = self._clock.monotonic()
        busy_found = False
        for need in found.needs:
            paused = (need.work == Work.REBUILD and not wanted.rebuild) or (
                need.work == Work.REPAIR and not wanted.repair
            )
            if paused or self._backoff.holds((segment_id, need.shard), now_s):
                continue
            step = self._step(kv, shards, need, facts)
            if isinstance(step, Step):
                return Given(step, row.layout, row.nodes)
            busy_found = busy_found or step is Blocked.BUSY
        if not found.needs and not found.bad and wanted.rebalance and self._balance is not None:
            return self._rebalance(kv, shards, row.layout, facts)
        return Blocked.BUSY if busy_found else None

    @staticmethod
    def _full(counts: Counter[int], limit: int) -> list[int]:
        return [node for node, count in counts.items() if count >= limit]

    def _step(self, kv: ReadKv, shards: Shards, need: Need, facts: Facts) -> Step | Blocked:
        limit = self._config.heal_tasks_per_node
        avoid = list(self._backoff.avoid((shards.segment_id, need.shard)))
        busy = self._full(self._making, limit)
        busy_sources = self._full(self._reading, limit * READS_PER_TASK_PLACE)
        for _ in range(MAX_TARGETS_TRIED):
            step = plan(shards, need, facts, avoid=avoid, busy=busy, busy_sources=busy_sources)
            if isinstance(step, Blocked) or not _is_doomed_at(kv, step):
                return step
            # The deletion that waits there would take what is made. Busy, because it will be done with soon.
            busy.append(step.target)
        return Blocked.BUSY

    def _rebalance(self, kv: ReadKv, shards: Shards, layout: Layout, facts: Facts) -> Given | Blocked | None:
        assert self._balance is not None
        limit = self._config.heal_tasks_per_node
        if self._balance.move(shards) is None:
            return None
        busy = self._full(self._making, limit)
        move = self._balance.move(shards, busy)
        if move is None:
            return Blocked.BUSY
        shard, target = move
        if self._backoff.holds((shards.segment_id, shard), self._clock.monotonic()):
            return None
        if not facts[target].takes or facts[target].room_bytes < shards.shard_bytes:
            return None
        busy_sources = self._full(self._reading, limit * READS_PER_TASK_PLACE)
        step = step_to(shards, Need(Work.REBALANCE, shard), target, facts, busy_sources)
        if isinstance(step, Blocked):
            return step if step is Blocked.BUSY else None
        return None if _is_doomed_at(kv, step) else Given(step, layout, shards.nodes)

    # -- answers

    def answered(self, given: Given, answer: Answer) -> Command | None:
        """Takes a node's answer; the command that records it. None: there is nothing to record, call `finished`."""
        step = given.step
        made = Made(step.work, step.segment_id, step.shard, step.source, step.target)
        if answer.failure is not None and not answer.bad:
            return None

        def record(txn: Txn) -> Recorded | None:
            recorded = commands.record_made(txn, made) if answer.failure is None else None
            commands.report_bad(txn, answer.bad)
            return recorded

        return record

    def finished(self, given: Given, recorded: Recorded | None) -> None:
        """The task is over: recorded so, or (None) failed."""
        step = given.step
        del self._running[step.segment_id]
        for counts, nodes in ((self._making, (step.target,)), (self._reading, step.reads_from)):
            counts.subtract(nodes)
            for node in nodes:
                if counts[node] <= 0:
                    del counts[node]
        if recorded in (Recorded.DONE, Recorded.GONE):
            self._backoff.made(given.key)
        else:
            self._backoff.failed(given.key, step.target, self._clock.monotonic())
        if recorded is not Recorded.DONE:
            self._moves(step.target, step.source, step.shard_bytes)

    # -- for tests and logs

    @property
    def under_way(self) -> Sequence[Given]:
        """Tasks that have been given and are not finished."""
        return list(self._running.values())


def _job_of(step: Step) -> JobOf:
    return step.work, step.source if step.work == Work.DRAIN else 0


def _is_doomed_at(kv: ReadKv, step: Step) -> bool:
    return kv.get(DOOMED, doomed_key(step.target, step.segment_id, step.shard)) is not None


def _signature(facts: Facts) -> dict[int, tuple[object, ...]]:
    """What of the nodes makes a new look worthwhile where it changes: not how full they are."""
    return {
        n: (node.state, node.attached, node.failed, node.steady, node.compared, node.domain)
        for n, node in facts.items()
    }
