"""Cleaning: looks for segments that are worth packing, has storage nodes pack them, a few at one time, and records it.

`Cleaner` decides, without clock, threads or sockets of its own, so that a simulation can drive it: `survey` makes
plans from a page of rows after the other, `next_pack` takes the best, `ended` says what became of it. `Cleaning` is its
loop in the coordinator's process. The work is a job like others: it begins by itself when a look finds that it pays, or
when somebody asks, and ends when a whole look finds nothing more.

What is known here beyond the job's row (plans, what is under way, what failed lately) is forgotten at a restart, and
found again by the next look.

| what fails | what it leaves |
|---|---|
| the node that packs, or one that it reads from or writes to | the new segment is doomed; its sources rest |
| shards of a source do not verify | they are reported for repair; that source rests, the others go on |
| a node's disk is full | nothing was begun; the sources rest |
| the coordinator | open targets are doomed at its next start; the job goes on |
| an answer comes twice, or late | nobody waits for it any more |
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from redfs.coordinator import convert, nodes
from redfs.coordinator.clean_job import ASKED_FOR, begin_by_itself, clean_job, expect, finish
from redfs.coordinator.cluster import Cluster
from redfs.coordinator.coordinator import Coordinator
from redfs.coordinator.node_tasks import failure_in
from redfs.coordinator.packing import (
    Pack,
    Packed,
    Prepared,
    abort_packs,
    commit_pack,
    open_target,
    prepare,
    writable,
)
from redfs.coordinator.shell import Shell, cancel_and_wait
from redfs.coordinator.txn import Txn
from redfs.core.cleaning import (
    EAGER,
    MAX_CANDIDATES,
    Plan,
    Source,
    Thresholds,
    full_layout,
    is_candidate,
    plans,
    source_of,
)
from redfs.core.errors import RedfsError, Unavailable
from redfs.core.kv import ReadKv
from redfs.core.policy import Layout
from redfs.core.tables import (
    ALL_U64,
    SEGMENTS,
    Domain,
    JobRow,
    decode_segment,
    decode_u64,
    u64_key,
)
from redfs.proto.gen import cluster_pb2 as pb

LOOK_S = 0.5
"""Between two looks at the job's row, where nothing wakes the loop."""
PAGE_ROWS = 50_000
"""Segments read in one read transaction: a fraction of a second."""
REST_S = 60.0
"""Sources of a packing that failed are left alone for this long, twice as long after each further failure."""
MAX_REST_S = 3600.0
MAX_RESTING = 16_384
"""Segments that rest; beyond them the oldest are tried again early."""
PACK_DEADLINE_S = 120.0
"""For a node to read 8 MiB from others and to write as much."""
LOOK_SHARE = 20
"""Looking takes at most every so many-th second of a reader thread, however large the pool is."""

log = logging.getLogger(__name__)


# ---------------------------------------------------------------- deciding


class Chosen(NamedTuple):
    """A packing that is to begin."""

    plan: Plan
    prepared: Prepared


class _Rest(NamedTuple):
    until_s: float
    length_s: float


class Cleaner:
    """See the module. One caller at a time."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._clock = coordinator.env.clock
        self._config = coordinator.config
        self._plans: list[Plan] = []
        self._busy: set[int] = set()
        """Sources of packings that were chosen and have not ended."""
        self._resting: OrderedDict[int, _Rest] = OrderedDict()
        self._after = 0
        self._found: defaultdict[Domain, list[Source]] = defaultdict(list)
        self._turn_was_barren = True

    def thresholds(self, job: JobRow | None) -> Thresholds:
        if job is not None and job.cursor == ASKED_FOR:
            return EAGER
        return Thresholds(self._config.clean_settle_s, self._config.clean_fill_s)

    @property
    def has_plans(self) -> bool:
        return bool(self._plans)

    @property
    def expected_bytes(self) -> int:
        """What the plans free."""
        return sum(max(0, plan.freed_bytes) for plan in self._plans)

    def start_over(self) -> None:
        """Looks from the first segment on, also at what failed lately."""
        self._plans = []
        self._resting.clear()
        self._found.clear()
        self._after = 0

    def survey(self, kv: ReadKv, thresholds: Thresholds) -> bool:
        """Looks at a page of segments; True where the look is over, with plans, or at the end of the table."""
        if self._after == 0 and not self._found:
            self._turn_was_barren = True
        cluster = self._coordinator.cluster
        now_ns, now_s = self._clock.time_ns(), self._clock.monotonic()
        known, usable = cluster.known(), len(writable(cluster))
        layouts: dict[Domain, Layout | None] = {}
        held = sum(map(len, self._found.values()))
        at_end = True
        for looked_at, (key, raw) in enumerate(kv.scan(SEGMENTS, u64_key(self._after + 1), ALL_U64)):
            if looked_at >= PAGE_ROWS:
                return False
            if held >= MAX_CANDIDATES:
                at_end = False
                break
            self._after = decode_u64(key)
            source = source_of(self._after, decode_segment(raw), now_ns)
            if source is None or self._is_left_alone(source.segment_id, now_s):
                continue
            if source.domain not in layouts:
                layouts[source.domain] = full_layout(source.domain, known, usable)
            full = layouts[source.domain]
            if full is not None and is_candidate(source, full, thresholds):
                self._found[source.domain].append(source)
                held += 1
        if at_end:
            self._after = 0
        made: list[Plan] = []
        for domain, sources in self._found.items():
            layout = layouts[domain] if domain in layouts else full_layout(domain, known, usable)
            if layout is not None:
                made += plans(sources, layout, thresholds)
        self._found.clear()
        self._plans = sorted(made, key=lambda plan: -plan.score)
        self._turn_was_barren = self._turn_was_barren and not made
        return True

    @property
    def is_exhausted(self) -> bool:
        """Whether the last look ended a turn through all segments that gave no plan."""
        return self._after == 0 and not self._plans and self._turn_was_barren

    def _is_left_alone(self, segment_id: int, now_s: float) -> bool:
        rest = self._resting.get(segment_id)
        return segment_id in self._busy or (rest is not None and now_s < rest.until_s)

    def next_pack(self, kv: ReadKv) -> Chosen | None:
        """The best plan with anything left to move. It must be told to `ended`."""
        up = self._coordinator.cluster.up()
        while self._plans:
            plan = self._plans.pop(0)
            prepared, useless = prepare(kv, plan, up)
            self._rest(useless)
            if prepared is not None:
                self._busy.update(source.segment_id for source in plan.sources)
                return Chosen(plan, prepared)
        return None

    def ended(self, chosen: Chosen, failed: Sequence[int] = ()) -> None:
        """A packing is over; `failed` names sources that are to rest. Those that worked need no longer rest."""
        for source in chosen.plan.sources:
            self._busy.discard(source.segment_id)
        if not failed:
            for segment_id, _ in chosen.prepared.sources:
                self._resting.pop(segment_id, None)
        self._rest(failed)

    def _rest(self, segment_ids: Sequence[int]) -> None:
        now_s = self._clock.monotonic()
        for segment_id in segment_ids:
            before = self._resting.pop(segment_id, None)
            length_s = REST_S if before is None else min(2 * before.length_s, MAX_REST_S)
            self._resting[segment_id] = _Rest(now_s + length_s, length_s)
        while len(self._resting) > MAX_RESTING:
            self._resting.popitem(last=False)


def task_of(pack: Pack, cluster: Cluster) -> pb.PackBlocks:
    """What the node is asked to do."""
    prepared = pack.prepared
    involved = {*pack.nodes, *(node for _, row in prepared.sources for node in row.nodes)}
    return pb.PackBlocks(
        target=pb.Segment(
            segment_id=pack.target,
            k=prepared.layout.k,
            m=prepared.layout.m,
            shard_bytes=prepared.shard_bytes,
            nodes=pack.nodes,
        ),
        blocks=[
            pb.PackedBlock(
                segment_id=move.segment_id,
                offset=move.offset,
                stored_bytes=move.stored_bytes,
                checksum=move.checksum,
            )
            for move in prepared.moves
        ],
        sources=[convert.to_segment(segment_id, row) for segment_id, row in prepared.sources],
        addresses=[pb.NodeAddress(node_id=n, address=address) for n, address in cluster.addresses(sorted(involved))],
        unusable=[
            pb.BadShard(segment_id=bad.segment_id, shard=bad.shard, reason=bad.reason, missing=bad.missing)
            for bad in prepared.unusable
        ],
    )


# ---------------------------------------------------------------- the loop


class Cleaning:
    """The cleaner of a process. Belongs to one event loop."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._coordinator = shell.coordinator
        self._clock = shell.coordinator.env.clock
        self._config = shell.coordinator.config
        self.cleaner = Cleaner(shell.coordinator)
        self._packs: set[asyncio.Task[None]] = set()
        self._failed_nodes: dict[int, float] = {}
        """Node -> until when it is not asked to pack."""
        self._woken = asyncio.Event()
        self._next_look_s = self._clock.monotonic() + self._config.clean_interval_s
        self._paid_until_s = 0.0
        self._left_open: set[int] = set()
        """Targets of failed packings whose abort could not be stored yet; nothing begins before that is done."""
        self._job_id = 0
        """That the plans were made for, with its cursor."""
        self._cursor = b""

    async def run_for_ever(self) -> None:
        """Looks again and again, once the nodes had time to come back after a start."""
        try:
            while True:
                self._woken.clear()
                try:
                    if self._coordinator.cluster.is_settled():
                        await self.look()
                except RedfsError as error:
                    log.warning("cleaning waits: %s", error)
                except Exception:
                    # A bug must not end all cleaning; the next look may do better.
                    log.exception("cleaning could not be looked after")
                await self._wait()
        finally:
            await cancel_and_wait(list(self._packs))

    async def _wait(self) -> None:
        owed_s = self._paid_until_s - self._clock.monotonic()
        try:
            async with asyncio.timeout(min(LOOK_S, owed_s) if owed_s > 0 else LOOK_S):
                await self._woken.wait()
        except TimeoutError:
            return

    async def look(self) -> None:
        """Begins what may begin now."""
        if self._left_open:
            await self._abort(*self._left_open)
        with self._coordinator.read() as kv:
            job = clean_job(kv)
        if job is None:
            await self._look_by_itself()
            return
        if job.paused:
            return
        if (job.job_id, job.cursor) != (self._job_id, self._cursor):
            self._job_id, self._cursor = job.job_id, job.cursor
            if job.cursor == ASKED_FOR:
                self.cleaner.start_over()
        while len(self._packs) < self._config.clean_tasks and self._clock.monotonic() >= self._paid_until_s:
            chosen = await self._choose()
            if chosen is None:
                if not self._packs and await self._is_done(job):
                    self._next_look_s = self._clock.monotonic() + self._config.clean_interval_s
                    await self._shell.run(lambda txn: finish(txn, job))
                return
            self._begin(chosen)

    def _begin(self, chosen: Chosen) -> None:
        moved_bytes = sum(move.stored_bytes for move in chosen.prepared.moves)
        now_s = self._clock.monotonic()
        self._paid_until_s = max(self._paid_until_s, now_s) + moved_bytes / self._config.clean_bytes_per_s
        task = asyncio.create_task(self._pack(chosen), name="packing")
        self._packs.add(task)
        task.add_done_callback(self._one_ended)

    def _one_ended(self, task: asyncio.Task[None]) -> None:
        self._packs.discard(task)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a packing broke off", exc_info=error)

    async def _look_by_itself(self) -> None:
        """Begins the job where that pays."""
        now_s = self._clock.monotonic()
        if not self._config.clean_interval_s or now_s < self._next_look_s or self._packs:
            return
        await self._survey(self.cleaner.thresholds(None))
        took_s = self._clock.monotonic() - now_s
        self._next_look_s = now_s + max(self._config.clean_interval_s, LOOK_SHARE * took_s)
        if self.cleaner.has_plans:
            expected = self.cleaner.expected_bytes
            row = await self._shell.run(lambda txn: begin_by_itself(txn, expected))
            self._job_id, self._cursor = row.job_id, row.cursor
            self._woken.set()

    async def _survey(self, thresholds: Thresholds) -> None:
        """One look; a page at a time, so that no read transaction lives long."""

        def page() -> bool:
            with self._coordinator.read() as kv:
                return self.cleaner.survey(kv, thresholds)

        while not await self._shell.read(page):
            pass

    async def _choose(self) -> Chosen | None:
        def choose() -> Chosen | None:
            with self._coordinator.read() as kv:
                return self.cleaner.next_pack(kv)

        return await self._shell.read(choose)

    async def _is_done(self, job: JobRow) -> bool:
        """Makes new plans, with nothing under way; whether there are none, anywhere."""
        await self._survey(self.cleaner.thresholds(job))
        if self.cleaner.has_plans:
            expected = self.cleaner.expected_bytes
            await self._shell.run(lambda txn: expect(txn, job.job_id, expected))
        self._woken.set()
        return self.cleaner.is_exhausted

    async def _pack(self, chosen: Chosen) -> None:
        """Carries out one packing, from the new segment's row to the commit or the abort."""
        failed = [source.segment_id for source in chosen.plan.sources]
        target = 0
        try:
            pack: Pack = await self._shell.run(lambda txn: open_target(txn, chosen.prepared))
            target = pack.target
            answer = await self._ask(pack)
            bad = await self._report(pack, answer)
            failure = failure_in(answer)
            if failure is not None:
                failed = sorted(bad) or failed
                raise failure
            packed: Packed = await self._shell.run(lambda txn: commit_pack(txn, pack))
            failed, target = [], 0
            log.info(
                "segment %x has %d blocks of %d segments now, %d of these are gone",
                pack.target,
                packed.blocks,
                len(chosen.prepared.sources),
                packed.segments,
            )
        except RedfsError as error:
            log.warning("%d segments could not be packed: %s", len(chosen.prepared.sources), error)
        finally:
            self.cleaner.ended(chosen, failed)
            if target:
                await self._give_up(target)

    async def _ask(self, pack: Pack) -> pb.TaskDone:
        now_s = self._clock.monotonic()
        tasks = self._shell.node_tasks
        node = min(pack.nodes, key=lambda n: (self._failed_nodes.get(n, 0.0) > now_s, tasks.under_way(n)))
        try:
            return await tasks.run(node, task_of(pack, self._coordinator.cluster), PACK_DEADLINE_S)
        except Unavailable:
            self._failed_nodes[node] = self._clock.monotonic() + REST_S
            raise

    async def _report(self, pack: Pack, answer: pb.TaskDone) -> set[int]:
        """Notes damaged shards for repair; their segments."""
        if answer.bad:
            await self._shell.run(lambda txn: report_bad(txn, pack, answer.bad))
        return {bad.segment_id for bad in answer.bad}

    async def _give_up(self, target: int) -> None:
        try:
            await self._abort(target)
        except RedfsError as error:
            log.warning("segment %x stays open for now: %s", target, error)

    async def _abort(self, *targets: int) -> None:
        """Gives new segments up. Where not even that can be stored, the next look tries again."""
        self._left_open.update(targets)
        await self._shell.run(lambda txn: abort_packs(txn, targets))
        self._left_open.difference_update(targets)


def report_bad(txn: Txn, pack: Pack, bad: Sequence[pb.BadShard]) -> None:
    """Notes shards that a node found damaged or missing, where they still lie where it was told that they do."""
    told = dict(pack.prepared.sources)
    for shard in bad:
        row = told.get(shard.segment_id)
        if row is not None and shard.shard < len(row.nodes):
            node = row.nodes[shard.shard]
            nodes.report_bad(txn, node, shard.segment_id, shard.shard, shard.reason, missing=shard.missing)
