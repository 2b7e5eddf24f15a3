"""Scrubs: every shard of the pool read and checked by its node, every `scrub_interval_s` or when somebody asks.

A scrub is one job (`JobKind.SCRUB`). Nodes do the reading, all at the same time, each at most at `scrub_bytes_per_s`;
how far each is lies in the table SCRUBS, so a scrub goes on there after anything. A node reads what it holds; what it
lacks is found by an inventory before: a shard of a segment that was still open at the last one may have got lost then.
What is bad becomes a row of DAMAGE, which healing looks after. The scrub ends when all nodes that can be expected to
come back are done; what it found is kept for people until the next one ends.

| what happens | what it leaves | then |
|---|---|---|
| a node loses its stream, falls silent, restarts | its row | it goes on from there when it is back |
| the coordinator restarts | all rows | all nodes go on from there |
| a node is given up or its disk fails | its row | the scrub ends without it |
| a node joins | no row | it is scrubbed too |
| pause | all rows | nodes stop; they go on when it is resumed |
| cancel | nothing: neither job nor rows; damage that was found | the next one is due as it was |
| the coordinator's disk is full | what was written before | the node's scrub is given again from there |

`Scrubber` belongs to the event loop; the functions are commands and reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from redfs.coordinator.coordinator import Command, Coordinator
from redfs.coordinator.jobs import end_job, ensure_job
from redfs.coordinator.node_tasks import NodeTasks
from redfs.coordinator.nodes import report_bad, stored_nodes
from redfs.coordinator.shell import Shell, cancel_and_wait
from redfs.coordinator.txn import Txn
from redfs.core.errors import Busy, RedfsError, Unavailable
from redfs.core.kv import ReadKv
from redfs.core.tables import (
    ALL_U64,
    JOBS,
    LAST_SCRUB_KEY,
    META,
    SCRUB_DUE_KEY,
    SCRUBS,
    STATS_KEY,
    JobKind,
    JobRow,
    LastScrubRow,
    NodeState,
    ScrubRow,
    StatsRow,
    decode_i64,
    decode_job,
    decode_last_scrub,
    decode_scrub,
    decode_stats,
    encode_i64,
    encode_job,
    encode_last_scrub,
    encode_scrub,
    job_key,
    u64_key,
)
from redfs.proto.gen import cluster_pb2 as pb

LOOK_S: Final = 1.0
"""Between two looks at what is to be done: how soon pausing is felt."""
SILENCE_S: Final = 900.0
"""A node that says nothing of its scrub for this long is asked anew: at the lowest rate a shard takes 4 minutes."""
MAX_BAD_AT_ONCE: Final = 64
"""Bad shards that one command takes in: other commands wait meanwhile."""
AGAIN_S: Final = 10.0
"""A node whose scrub was broken off is left alone for so long."""

KEY: Final = job_key(JobKind.SCRUB, 0)

log = logging.getLogger(__name__)


class Bad(NamedTuple):
    """A shard that is not well."""

    segment: int
    shard: int
    reason: str
    missing: bool


class Step(NamedTuple):
    """What a node has checked since its step before."""

    upto_segment: int
    shards: int
    bytes: int
    bad: int
    found: Sequence[Bad]
    """To be remembered; may be told again."""
    done: bool


# ---------------------------------------------------------------- commands and reads


def find_scrub(kv: ReadKv) -> JobRow | None:
    """The scrub that goes on or is paused."""
    raw = kv.get(JOBS, KEY)
    return None if raw is None else decode_job(raw)


def start_scrub(txn: Txn) -> tuple[bytes, JobRow]:
    """Begins a scrub, or finds the one that goes on: its key and row. Busy where one is paused. Safe to repeat."""
    row = find_scrub(txn.kv)
    if row is not None:
        if row.paused:
            raise Busy(f"a scrub is there and paused: `redfs job resume {row.job_id}` lets it go on")
        return KEY, row
    _forget_rows(txn)
    stats = txn.kv.get(META, STATS_KEY)
    total_bytes = (StatsRow() if stats is None else decode_stats(stats)).segment_bytes
    _set_due(txn)
    return ensure_job(txn, JobKind.SCRUB, 0, "all shards", total_bytes)


def start_due(txn: Txn) -> bool:
    """Begins a scrub where the clock says so. Whether it did."""
    interval_ns = int(txn.env.config.scrub_interval_s * 1e9)
    if not interval_ns or find_scrub(txn.kv) is not None:
        return False
    due = due_ns(txn.kv)
    if due is None or due > txn.now_ns + interval_ns:
        _set_due(txn)  # a new pool, a shorter interval, or a clock that was set back
        return False
    if due > txn.now_ns:
        return False
    start_scrub(txn)
    return True


def due_ns(kv: ReadKv) -> int | None:
    """When the next scrub begins by itself."""
    raw = kv.get(META, SCRUB_DUE_KEY)
    return None if raw is None else decode_i64(raw)


def _set_due(txn: Txn) -> None:
    txn.kv.put(META, SCRUB_DUE_KEY, encode_i64(txn.now_ns + int(txn.env.config.scrub_interval_s * 1e9)))


def progress_on(kv: ReadKv, job_id: int, node_id: int) -> ScrubRow:
    """How far a scrub is on a node."""
    raw = kv.get(SCRUBS, u64_key(node_id))
    row = None if raw is None else decode_scrub(raw)
    return row if row is not None and row.job_id == job_id else ScrubRow(job_id)


def advance(txn: Txn, job_id: int, node_id: int, step: Step) -> bool:
    """Takes in what a node has checked. What is bad is remembered in any case; False where the scrub is no more."""
    for bad in step.found:
        report_bad(txn, node_id, bad.segment, bad.shard, bad.reason, missing=bad.missing)
    job = find_scrub(txn.kv)
    if job is None or job.job_id != job_id:
        return False
    before = progress_on(txn.kv, job_id, node_id)
    row = before._replace(
        upto_segment=max(before.upto_segment, step.upto_segment),
        shards=before.shards + step.shards,
        bytes=before.bytes + step.bytes,
        bad=before.bad + step.bad,
        done=before.done or step.done,
    )
    txn.kv.put(SCRUBS, u64_key(node_id), encode_scrub(row))
    now_bytes = job.done_bytes + step.bytes
    txn.kv.put(JOBS, KEY, encode_job(job._replace(done=job.done + step.shards, done_bytes=now_bytes)))
    txn.after_commit.append(lambda: txn.env.progress.stepped(job_id, job.done_bytes, now_bytes))
    return not job.paused


def left_nodes(kv: ReadKv, job_id: int) -> list[int]:
    """Nodes that the scrub is not done on, up or expected back."""
    return [
        node_id
        for node_id, row in stored_nodes(kv)
        if not row.failed
        and row.state in (NodeState.IN, NodeState.DRAINING)
        and not progress_on(kv, job_id, node_id).done
    ]


def finish(txn: Txn, job_id: int) -> LastScrubRow | None:
    """Ends a scrub that is done on all nodes, and keeps what it found; None where it is not, or is no more."""
    job = find_scrub(txn.kv)
    if job is None or job.job_id != job_id or left_nodes(txn.kv, job_id):
        return None
    rows = [decode_scrub(raw) for _, raw in txn.kv.scan(SCRUBS, b"", ALL_U64)]
    rows = [row for row in rows if row.job_id == job_id]
    result = LastScrubRow(txn.now_ns, sum(r.shards for r in rows), sum(r.bytes for r in rows), sum(r.bad for r in rows))
    txn.kv.put(META, LAST_SCRUB_KEY, encode_last_scrub(result))
    _forget_rows(txn)
    end_job(txn, KEY, job)
    return result


def _forget_rows(txn: Txn) -> None:
    for key, _ in list(txn.kv.scan(SCRUBS, b"", ALL_U64)):
        txn.kv.delete(SCRUBS, key)


def last_scrub(kv: ReadKv) -> LastScrubRow:
    """What the last whole scrub found; zeros where there was none yet."""
    raw = kv.get(META, LAST_SCRUB_KEY)
    return LastScrubRow() if raw is None else decode_last_scrub(raw)


def to_message(row: LastScrubRow) -> pb.Scrub:
    return pb.Scrub(**row._asdict())


# ---------------------------------------------------------------- having it done


RunCommand = Callable[[Command[Any]], Awaitable[Any]]
TakeInventory = Callable[[int], Awaitable[int]]


def scrubber_of(shell: Shell) -> Scrubber:
    """The scrubber of a process."""
    return Scrubber(shell.coordinator, shell.run, shell.node_tasks, shell.take_inventory)


class Scrubber:
    """See the module."""

    def __init__(
        self, coordinator: Coordinator, run: RunCommand, node_tasks: NodeTasks, take_inventory: TakeInventory
    ) -> None:
        self._coordinator = coordinator
        self._run = run
        self._node_tasks = node_tasks
        self._take_inventory = take_inventory
        self._clock = coordinator.env.clock
        self._job_id = 0
        """Of the scrub that nodes work on; 0: none."""
        self._at_work: dict[int, asyncio.Task[None]] = {}
        self._not_before_s: dict[int, float] = {}

    async def run_for_ever(self) -> None:
        """Looks again and again, once the nodes had time to come back after a start."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                if not self._coordinator.cluster.is_settled():
                    continue
                try:
                    await self.look()
                except RedfsError as error:
                    log.warning("the scrub waits: %s", error)
                except Exception:
                    # A bug must not end all scrubs; the next look may do better.
                    log.exception("scrubs could not be looked after")
        finally:
            await self._stop()

    async def look(self) -> None:
        """Does what is to be done now: begins what is due, has nodes work, ends what is done."""
        with self._coordinator.read() as kv:
            job, due = find_scrub(kv), due_ns(kv)
        if job is None:
            await self._stop()
            await self._begin_if_due(due)
            return
        if job.paused or job.job_id != self._job_id:
            await self._stop()
        if job.paused:
            return
        job_id = self._job_id = job.job_id
        with self._coordinator.read() as kv:
            left = left_nodes(kv, job_id)
        if not left:
            result = await self._run(lambda txn: finish(txn, job_id))
            if result is not None:
                log.info("scrubbed %d shards, %d bytes, %d bad", result.shards, result.bytes, result.bad)
            return
        now_s = self._clock.monotonic()
        self._at_work = {node_id: task for node_id, task in self._at_work.items() if not task.done()}
        for node_id in self._coordinator.cluster.up() & set(left):
            if node_id not in self._at_work and self._not_before_s.get(node_id, now_s) <= now_s:
                self._at_work[node_id] = asyncio.create_task(self._scrub(job_id, node_id), name=f"scrub {node_id}")

    async def _begin_if_due(self, due: int | None) -> None:
        interval_s = self._coordinator.config.scrub_interval_s
        now_ns = self._clock.time_ns()
        waits = due is not None and now_ns < due <= now_ns + int(interval_s * 1e9)
        if interval_s and not waits and await self._run(start_due):
            log.info("a scrub is due and begins")

    async def _scrub(self, job_id: int, node_id: int) -> None:
        """Has one node go on, to its end or until it breaks off."""
        with self._coordinator.read() as kv:
            after = progress_on(kv, job_id, node_id).upto_segment
        rate = self._coordinator.config.scrub_bytes_per_s
        try:
            if not await self._look_for_missing(job_id, node_id):
                return
            reports = self._node_tasks.scrub(node_id, after, rate, SILENCE_S)
            async with contextlib.aclosing(reports):
                async for report in reports:
                    for step in _steps_of(report):
                        if not await self._run(partial(advance, job_id=job_id, node_id=node_id, step=step)):
                            return
        except RedfsError as error:
            self._not_before_s[node_id] = self._clock.monotonic() + AGAIN_S
            log.info("the scrub of node %d is broken off and goes on later: %s", node_id, error)

    async def _look_for_missing(self, job_id: int, node_id: int) -> bool:
        """Has all that rows name looked for on the node. False where the scrub is to stop."""
        try:
            async with asyncio.timeout(SILENCE_S):
                missing = await self._take_inventory(node_id)
        except TimeoutError:
            raise Unavailable(f"node {node_id} did not say what it holds within {SILENCE_S:.0f} s") from None
        # They are remembered already; here they are counted.
        step = Step(0, 0, 0, missing, [], done=False)
        return not missing or bool(await self._run(partial(advance, job_id=job_id, node_id=node_id, step=step)))

    async def _stop(self) -> None:
        """Ends the nodes' work; how far they are is in the table."""
        at_work, self._at_work, self._job_id = self._at_work, {}, 0
        self._not_before_s.clear()
        await cancel_and_wait(list(at_work.values()))


def _steps_of(report: pb.ShardsScrubbed) -> list[Step]:
    """One step, after others with what was bad where that is much. They count nothing but that: where the last one is
    not recorded, the node tells all of it again."""
    bad = [Bad(b.segment_id, b.shard, b.reason, b.missing) for b in report.bad]
    cuts = range(0, max(1, len(bad)), MAX_BAD_AT_ONCE)
    first = [Step(0, 0, 0, 0, bad[at : at + MAX_BAD_AT_ONCE], done=False) for at in cuts[:-1]]
    return [*first, Step(report.upto_segment, report.shards, report.bytes, len(bad), bad[cuts[-1] :], report.done)]
