"""The pool's state for people: totals, health, and what is wrong in plain sentences."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from redfs.coordinator import schedules
from redfs.coordinator.cluster import DOWN, OUT, SUSPECT, NodeView
from redfs.coordinator.coordinator import Coordinator
from redfs.coordinator.healing_said import healing_problems
from redfs.coordinator.jobs import ShownJob, shown_jobs
from redfs.coordinator.redundancy import Redundancy
from redfs.core.kv import ReadKv
from redfs.core.policy import Policy
from redfs.core.tables import (
    ALL_U64,
    DAMAGE,
    DOOMED,
    META,
    MOUNTS,
    STATS_KEY,
    StatsRow,
    VolumeKind,
    VolumeState,
    decode_damage,
    decode_stats,
    split_doomed_key,
)
from redfs.core.volume_tree import ReadTree

FULL_FRACTION = 0.95
"""A pool fuller than this is a problem to tell about before writes fail."""
MAX_COUNTED_ROWS = 1_000_000
"""Queued deletions are counted up to here; a status should not take longer."""


class Status(NamedTuple):
    pool_id: str
    health: str
    """ok, degraded or failed."""
    problems: list[str]
    nodes: list[NodeView]
    totals: StatsRow
    volumes: int
    sessions: int
    mounts: int
    jobs: list[ShownJob]
    shards_to_delete: int
    uptime_s: float
    redundancy: Redundancy = Redundancy()


def read_totals(kv: ReadKv) -> StatsRow:
    raw = kv.get(META, STATS_KEY)
    return StatsRow() if raw is None else decode_stats(raw)


def pool_status(coordinator: Coordinator) -> Status:
    """Everything at one committed state."""
    nodes = coordinator.cluster.view()
    book = coordinator.env.redundancy
    redundancy = book.last or Redundancy()
    with coordinator.read() as kv:
        policies: Counter[Policy] = Counter()
        volumes = 0
        for row in ReadTree(kv).all():
            volumes += row.state == VolumeState.OK
            if row.kind != VolumeKind.ZERO and row.state == VolumeState.OK:
                policies[row.policy] += 1
        jobs = shown_jobs(kv, coordinator.env.progress)
        problems, failed = node_problems(_that_matter(nodes, redundancy), list(policies))
        problems += [str(coordinator.full)] if coordinator.full else []
        problems += coordinator.journal_problems()
        problems += healing_problems(redundancy, book.kept_in, nodes, jobs, coordinator.config.down_out_s)
        problems += _damage_problems(kv)
        problems += schedules.problems(schedules.all_schedules(kv, 0, coordinator.env.unwritten_schedule_errors))
        doomed = 0
        gone = {node.node_id for node in nodes if node.state == OUT and not node.up}
        for key, _ in kv.scan(DOOMED, b"", b"\xff" * 15):
            doomed += split_doomed_key(key)[0] not in gone
            if doomed >= MAX_COUNTED_ROWS:
                break
        totals = read_totals(kv)
        mounts = sum(1 for _ in kv.scan(MOUNTS, b"", ALL_U64 * 2))
    health = "failed" if failed or redundancy.lost else "degraded" if problems else "ok"
    uptime_s = coordinator.env.clock.monotonic() - coordinator.started_s
    sessions = coordinator.leases.count()
    return Status(
        coordinator.pool_id, health, problems, nodes, totals, volumes, sessions, mounts, jobs, doomed, uptime_s,
        redundancy,
    )  # fmt: skip


def _that_matter(nodes: list[NodeView], redundancy: Redundancy) -> list[NodeView]:
    """Without those that were given up and hold nothing any more: what they had is elsewhere."""
    return [n for n in nodes if n.state != OUT or n.up or redundancy.segments_on.get(n.node_id)]


_DOWN = {OUT: "given up, away", SUSPECT: "not to be reached", DOWN: "down"}


def node_problems(nodes: list[NodeView], policies: list[Policy]) -> tuple[list[str], bool]:
    """(sentences, whether data may be out of reach) for the nodes as they are and the policies in use."""
    problems: list[str] = []
    lost = [n for n in nodes if not n.up]
    up = len(nodes) - len(lost)
    consequence = _consequence(len(lost), policies)
    for node in lost:
        name = f"node {node.node_id} ({node.row.address})"
        what = "has a failed disk" if node.row.failed else f"is {_DOWN[node.state]} since {_age(node.seen_ago_s)}"
        problems.append(f"{name} {what}: {consequence}")
    if not nodes:
        problems.append("no storage node has joined yet: start some, data cannot be stored")
    for policy in sorted(set(policies)):
        if up < policy.least_nodes <= len(nodes):
            problems.append(
                f"{policy} volumes cannot be written: {up} of the {policy.least_nodes} nodes they need are up"
            )
    capacity = sum(n.report.capacity_bytes for n in nodes if n.up)
    free = sum(n.report.free_bytes for n in nodes if n.up)
    if capacity and free < capacity * (1 - FULL_FRACTION):
        problems.append(f"the pool is {100 * (capacity - free) // capacity}% full: add nodes or delete data")
    failed = bool(lost) and any(len(lost) > policy.m for policy in policies)
    return problems, failed


def _consequence(lost: int, policies: list[Policy]) -> str:
    """What the loss means for the most endangered policy in use."""
    if not policies:
        return "no volume has data on it yet"
    weakest = min(policies, key=lambda policy: policy.m)
    left = weakest.m - lost
    if left < 0:
        return f"some data of {weakest} volumes cannot be read until it is back"
    return f"{weakest} volumes can lose {left} more" if left else f"{weakest} volumes cannot lose another node"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def count_damage(kv: ReadKv) -> Counter[tuple[int, bool]]:
    """(node, whether it misses them) -> shards reported as damaged, or missing."""
    damaged: Counter[tuple[int, bool]] = Counter()
    for _, raw in kv.scan(DAMAGE, b"", b"\xff" * 11):
        row = decode_damage(raw)
        damaged[row.node_id, row.missing] += 1
    return damaged


def _damage_problems(kv: ReadKv) -> list[str]:
    return [
        f"node {node_id} {'misses' if missing else 'has'} {count} {'' if missing else 'damaged '}"
        f"shard{'' if count == 1 else 's'}: their data is read from the other nodes"
        for (node_id, missing), count in sorted(count_damage(kv).items())
    ]
