"""What healing changes in the rows: a shard's new place, what was found damaged, nodes given up and taken back, jobs.

Every command looks at the rows again: between the plan and the answer of a node minutes may have gone by. All are safe
to repeat.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from redfs.coordinator import nodes
from redfs.coordinator.healing.survey import Found, JobOf
from redfs.coordinator.jobs import end_job, ensure_job
from redfs.coordinator.txn import Txn
from redfs.core.healing import Work
from redfs.core.kv import ReadKv
from redfs.core.tables import (
    DAMAGE,
    DOOMED,
    JOBS,
    SEGMENTS,
    JobKind,
    NodeState,
    SegmentRow,
    SegmentState,
    VolumeKind,
    VolumeState,
    decode_damage,
    decode_job,
    doomed_key,
    encode_job,
    encode_segment,
    job_key,
    shard_key,
    split_job_key,
    u64_key,
)
from redfs.core.volume_tree import ReadTree

MAX_GIVEN_UP_SHARE = 0.25
"""Of the nodes that hold data: where more are away at once than this, and than any policy in use bears, time alone
gives none of them up. A switch, a rack's power or a wrong setting is broken then; rebuilding would fill the nodes that
are left, for data that is back when the switch is. Ceph has the same idea (mon_osd_min_in_ratio)."""

JOB_KINDS = {
    Work.REBUILD: JobKind.REBUILD,
    Work.REPAIR: JobKind.REPAIR,
    Work.DRAIN: JobKind.DRAIN,
    Work.REBALANCE: JobKind.REBALANCE,
}


class Made(NamedTuple):
    """A node says that it has made a shard, durably."""

    work: Work
    segment_id: int
    shard: int
    source: int
    """Where the row had it when that was planned."""
    target: int


class Recorded(Enum):
    DONE = "done"
    GONE = "gone"
    """The segment is dead, or the shard lies elsewhere by now: what was made is doomed."""
    REFUSED = "refused"
    """The node may not have it: try again, elsewhere."""


def record_made(txn: Txn, made: Made) -> Recorded:
    """Puts the shard's new place into the row, dooms the old one, and forgets its damage; or dooms what was made."""
    row = txn.segment(made.segment_id)
    if row is None or row.state != SegmentState.COMMITTED or made.shard >= len(row.nodes):
        return _not_needed(txn, made)
    place = row.nodes[made.shard]
    if place == made.target:
        # Repaired in place; or moved here before, and the answer is a repetition.
        if made.source == made.target:
            _forget_damage(txn, made, row)
            _count_done(txn, made, row)
        return Recorded.DONE
    if place != made.source or made.target in row.nodes:
        return _not_needed(txn, made)
    target = nodes.find_node(txn.kv, made.target)
    if target is None:
        return Recorded.REFUSED
    if txn.kv.get(DOOMED, doomed_key(made.target, made.segment_id, made.shard)) is not None:
        return Recorded.REFUSED
    if target.state != NodeState.IN or target.failed:
        txn.doom_shard(made.target, made.segment_id, made.shard)
        return Recorded.REFUSED
    moved = row._replace(nodes=(*row.nodes[: made.shard], made.target, *row.nodes[made.shard + 1 :]))
    txn.kv.put(SEGMENTS, u64_key(made.segment_id), encode_segment(moved))
    if nodes.find_node(txn.kv, place) is not None:
        txn.doom_shard(place, made.segment_id, made.shard)
    _forget_damage(txn, made, row)
    _count_done(txn, made, row)
    txn.after_commit.append(lambda: txn.env.cluster.written([made.target], row.shard_bytes))
    return Recorded.DONE


def _not_needed(txn: Txn, made: Made) -> Recorded:
    if made.source != made.target and nodes.find_node(txn.kv, made.target) is not None:
        row = txn.segment(made.segment_id)
        if row is None or made.shard >= len(row.nodes) or row.nodes[made.shard] != made.target:
            txn.doom_shard(made.target, made.segment_id, made.shard)
    return Recorded.GONE


def _forget_damage(txn: Txn, made: Made, row: SegmentRow) -> None:
    key = shard_key(made.segment_id, made.shard)
    raw = txn.kv.get(DAMAGE, key)
    if raw is not None and decode_damage(raw).node_id == row.nodes[made.shard]:
        txn.kv.delete(DAMAGE, key)


def _count_done(txn: Txn, made: Made, row: SegmentRow) -> None:
    key = job_key(JOB_KINDS[made.work], made.source if made.work == Work.DRAIN else 0)
    raw = txn.kv.get(JOBS, key)
    if raw is None:
        return
    before = decode_job(raw)
    after = before._replace(done=before.done + 1, done_bytes=before.done_bytes + row.shard_bytes)
    txn.kv.put(JOBS, key, encode_job(after))
    txn.after_commit.append(lambda: txn.env.progress.stepped(after.job_id, before.done_bytes, after.done_bytes))


class Bad(NamedTuple):
    """A shard that a node found damaged or missing while it worked."""

    segment_id: int
    shard: int
    node_id: int
    """Where it was looked for."""
    reason: str
    missing: bool


def report_bad(txn: Txn, found: Sequence[Bad]) -> None:
    """Remembers them, where they lie there still."""
    for bad in found:
        nodes.report_bad(txn, bad.node_id, bad.segment_id, bad.shard, bad.reason, missing=bad.missing)


# ---------------------------------------------------------------- nodes


def most_borne(kv: ReadKv) -> int:
    """Losses that the safest policy in use bears."""
    policies = [
        row.policy.m for row in ReadTree(kv).all() if row.kind != VolumeKind.ZERO and row.state == VolumeState.OK
    ]
    return max(policies, default=0)


def give_up(txn: Txn, overdue: Collection[int]) -> list[int]:
    """Gives up nodes that are away for too long and not back meanwhile: those that were given up now.

    One that was drained is out, as somebody wanted it empty: it does not come in again by itself.
    """
    facts = txn.env.cluster.facts()
    done = []
    for node_id in sorted(overdue):
        node, row = facts.get(node_id), nodes.find_node(txn.kv, node_id)
        if node is None or row is None or node.up or node.away_s < txn.env.config.down_out_s:
            continue
        if row.state == NodeState.IN:
            nodes.set_state(txn, node_id, NodeState.LOST)
        elif row.state == NodeState.DRAINING:
            nodes.set_state(txn, node_id, NodeState.OUT)
        else:
            continue
        done.append(node_id)
    return done


def take_back(txn: Txn, back: Collection[int]) -> list[int]:
    """Nodes that had been given up by time and are well are in again."""
    facts = txn.env.cluster.facts()
    done = []
    for node_id in sorted(back):
        node, row = facts.get(node_id), nodes.find_node(txn.kv, node_id)
        if node is None or row is None or row.state != NodeState.LOST:
            continue
        if node.up and node.steady and node.compared:
            nodes.set_state(txn, node_id, NodeState.IN)
            done.append(node_id)
    return done


# ---------------------------------------------------------------- jobs


def settle_jobs(txn: Txn, found: Found, under_way: Mapping[JobOf, int]) -> None:
    """Makes jobs of what a look has found, corrects their totals, and ends those that have nothing left.

    `under_way`: tasks of each job that have not been recorded.
    """
    for work in (Work.REBUILD, Work.REPAIR):
        subject = "shards of lost nodes" if work == Work.REBUILD else "damaged shards"
        _settle(txn, found, under_way, (work, 0), subject, wanted=True)
    for key, _ in list(txn.kv.scan(JOBS, job_key(JobKind.DRAIN, 0), job_key(JobKind.DRAIN + 1, 0))):
        node_id = split_job_key(key)[1]
        row = nodes.find_node(txn.kv, node_id)
        if row is None or row.state != NodeState.DRAINING:
            end_job(txn, key, decode_job(txn.kv.get(JOBS, key) or b""))
    for node_id in found.draining:
        row = nodes.find_node(txn.kv, node_id)
        if row is not None and row.state == NodeState.DRAINING:
            _settle(txn, found, under_way, (Work.DRAIN, node_id), f"node {node_id}", wanted=True)
    if found.balanced:
        # Moving begins only when somebody asks for it.
        _settle(txn, found, under_way, (Work.REBALANCE, 0), "all nodes", wanted=False)


def _settle(
    txn: Txn, found: Found, under_way: Mapping[JobOf, int], about: JobOf, subject: str, *, wanted: bool
) -> None:
    work, node_id = about
    shards, left_bytes = found.left.get(about, (0, 0))
    key = job_key(JOB_KINDS[work], node_id)
    raw = txn.kv.get(JOBS, key)
    if not shards:
        if raw is not None and not under_way.get(about):
            end_job(txn, key, decode_job(raw))
        return
    if raw is None:
        if wanted:
            ensure_job(txn, JOB_KINDS[work], node_id, subject, left_bytes)
        return
    row = decode_job(raw)
    if row.total_bytes != row.done_bytes + left_bytes:
        txn.kv.put(JOBS, key, encode_job(row._replace(total_bytes=row.done_bytes + left_bytes)))
