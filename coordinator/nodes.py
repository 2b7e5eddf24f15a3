"""Commands and comparisons of storage nodes: joining, failing, deletions done, and what a node holds against the rows.

Nothing deletes a shard but a doomed row, and a row becomes doomed in two ways: its segment died or was aborted, or an
inventory lists a shard that no row names. The second never touches segment ids that were not allocated here yet, are of
a newer incarnation, or are of one that a restore ended and newer than what it knew: then these tables are the older
ones, and the shards somebody's data.

A refused node gets a final error that says why; it must not be let in by trying again.

What people or time have made of a node (`NodeState`) stays with it when it attaches. One that was given up because it
was away is let in again by a command of its own, when it has been up for long enough (`healing/`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redfs.coordinator.txn import Txn
from redfs.core.errors import InvalidArgument, NotFound, WrongFormat
from redfs.core.ids import SEGMENT_COUNTER_BITS, segment_incarnation
from redfs.core.kv import ReadKv
from redfs.core.tables import (
    DAMAGE,
    DOOMED,
    INCARNATION_KEY,
    META,
    NEXT_NODE_KEY,
    NEXT_SEGMENT_KEY,
    NODES,
    POOL_ID_KEY,
    SEGMENTS,
    SEGMENTS_KNOWN_PREFIX,
    DamageRow,
    NodeRow,
    NodeState,
    SegmentRow,
    SegmentState,
    decode_damage,
    decode_i64,
    decode_node,
    decode_segment,
    decode_u64,
    doomed_key,
    doomed_range,
    encode_damage,
    encode_node,
    encode_u64,
    shard_key,
    split_doomed_key,
    u64_key,
)

MAX_NODES = 1024
"""One pool; every allocation looks at all of them."""
MAX_TEXT_CHARS = 1024
"""Addresses, folders, reasons."""
MAX_COMPARED_ROWS = 50_000
"""Rows that one comparison reads in one read transaction: a fraction of a second."""
MAX_DAMAGE_ROWS = 100_000
"""Damaged shards that are remembered; beyond it a disk is gone, not damaged."""


class Hello(NamedTuple):
    """What a node says of itself when it attaches."""

    pool_id: str
    node_id: int
    disk_uuid: str
    address: str
    generation: int
    domain: str
    data_folder: str


def stored_nodes(kv: ReadKv) -> list[tuple[int, NodeRow]]:
    """(node id, row) of all nodes that ever joined."""
    return [(decode_u64(key), decode_node(raw)) for key, raw in kv.scan(NODES, b"", b"\xff" * 9)]


def register(txn: Txn, hello: Hello) -> tuple[int, NodeRow]:
    """Lets a node in: a fresh disk joins and gets an id, a known one is recognised. Safe to repeat."""
    pool_id = (txn.kv.get(META, POOL_ID_KEY) or b"").decode()
    if not hello.disk_uuid or not hello.address:
        raise InvalidArgument("a storage node must say its disk's uuid and its address")
    if max(len(hello.disk_uuid), len(hello.address), len(hello.domain), len(hello.data_folder)) > MAX_TEXT_CHARS:
        raise InvalidArgument(f"what a storage node says of itself has at most {MAX_TEXT_CHARS} characters each")
    if hello.pool_id and hello.pool_id != pool_id:
        raise WrongFormat(
            f"this disk belongs to pool {hello.pool_id}, this is pool {pool_id}: start it there, or wipe it"
        )
    known = stored_nodes(txn.kv)
    node_id = hello.node_id or next((n for n, row in known if row.disk_uuid == hello.disk_uuid), 0)
    row = dict(known).get(node_id)
    if row is None:
        if 0 < hello.node_id < decode_u64(txn.kv.get(META, NEXT_NODE_KEY) or encode_u64(1)):
            raise WrongFormat(
                f"node {hello.node_id} was removed from pool {pool_id}: wipe its disk to let it join as a new one"
            )
        if hello.node_id:
            raise NotFound(f"node {hello.node_id} is not known in pool {pool_id}: its metadata is older than the disk")
        if len(known) >= MAX_NODES:
            raise InvalidArgument(f"the pool has {MAX_NODES} nodes already")
        node_id = txn.next_number(NEXT_NODE_KEY)
        row = NodeRow(hello.disk_uuid, "", "", "", 0, txn.now_ns, False)
    if row.disk_uuid != hello.disk_uuid:
        raise WrongFormat(
            f"node {node_id} had disk {row.disk_uuid}, this is disk {hello.disk_uuid}: a copy, or a mix-up"
        )
    if hello.generation < row.generation:
        raise WrongFormat(
            f"node {node_id} was started {row.generation} times and its disk says {hello.generation}: it went back in "
            "time; wipe it and let it join as a new disk"
        )
    row = row._replace(
        address=hello.address,
        domain=hello.domain,
        data_folder=hello.data_folder,
        failed=row.failed and hello.generation == row.generation,
        generation=hello.generation,
    )
    txn.kv.put(NODES, u64_key(node_id), encode_node(row))
    return node_id, row


def find_node(kv: ReadKv, node_id: int) -> NodeRow | None:
    raw = kv.get(NODES, u64_key(node_id))
    return None if raw is None else decode_node(raw)


def require_node(kv: ReadKv, node_id: int) -> NodeRow:
    """NotFound."""
    row = find_node(kv, node_id)
    if row is None:
        raise NotFound(f"no node has the id {node_id}: `redfs node ls` lists those that there are")
    return row


def set_failed(txn: Txn, node_id: int) -> None:
    """The node says that its disk failed: nothing is written to it until it comes back with a new start."""
    row = require_node(txn.kv, node_id)
    if not row.failed:
        _store(txn, node_id, row._replace(failed=True))


def set_state(txn: Txn, node_id: int, state: NodeState) -> NodeRow:
    """What people or time make of a node. NotFound. Safe to repeat."""
    row = require_node(txn.kv, node_id)
    if row.state != state:
        row = row._replace(state=state)
        _store(txn, node_id, row)
    return row


def _store(txn: Txn, node_id: int, row: NodeRow) -> None:
    txn.kv.put(NODES, u64_key(node_id), encode_node(row))
    txn.after_commit.append(lambda: txn.env.cluster.set_row(node_id, row))
    txn.after_commit.append(txn.env.redundancy.is_stale)


# ---------------------------------------------------------------- deletions


def doomed_page(kv: ReadKv, node_id: int, before_ns: int, limit: int, *, now_ns: int) -> list[tuple[int, int]]:
    """Up to `limit` (segment, shard) that the node should delete now: doomed before that time.

    One from the future was doomed before the clock was set back. Nobody knows how long ago: it waits no longer, or its
    space would be held for as long as the clock was wrong.
    """
    page: list[tuple[int, int]] = []
    for key, raw in kv.scan(DOOMED, *doomed_range(node_id)):
        doomed_ns = decode_i64(raw)
        if doomed_ns <= before_ns or doomed_ns > now_ns:
            _, segment, shard = split_doomed_key(key)
            page.append((segment, shard))
            if len(page) >= limit:
                break
    return page


def shards_deleted(txn: Txn, node_id: int, shards: Sequence[tuple[int, int]]) -> None:
    """The node has deleted these durably. Safe to repeat."""
    for segment, shard in shards:
        txn.kv.delete(DOOMED, doomed_key(node_id, segment, shard))


# ---------------------------------------------------------------- inventory


class InventoryFindings(NamedTuple):
    """How a page of an inventory differs from the rows."""

    surplus: list[tuple[int, int]]
    """(segment, shard) that no row names."""
    missing: list[tuple[int, int, str]]
    """(segment, shard, reason) that rows name and the node does not have as they should be."""
    unknown: int
    """Shards of segment ids that were not allocated here: left alone."""
    resume: int
    """First segment that was not compared; `high` when all were."""


def _names(row: SegmentRow | None, node_id: int, shard: int) -> bool:
    """Whether the shard may be data. While a segment is open its client may still move shards among its nodes, so
    all of them count; what its end leaves over, the next inventory shows."""
    if row is None:
        return False
    return row.state == SegmentState.OPEN or (shard < len(row.nodes) and row.nodes[shard] == node_id)


def compare_inventory(
    kv: ReadKv,
    node_id: int,
    held: Sequence[tuple[int, int, int]],
    low: int,
    high: int,
    asked_ns: int,
    *,
    now_ns: int = 1 << 63,
) -> InventoryFindings:
    """Compares what a node holds of segments [low, high) with the rows, up to MAX_COMPARED_ROWS of them.

    `held` lists (segment, shard, bytes) of that range completely. Segments committed after `asked_ns`, when the node
    was asked, are not missed; those from the future were committed before the clock was set back, and are.
    """
    surplus: list[tuple[int, int]] = []
    missing: list[tuple[int, int, str]] = []
    have = {(segment, shard): size for segment, shard, size in held}
    resume = high
    for compared, (key, raw) in enumerate(kv.scan(SEGMENTS, u64_key(low), u64_key(high))):
        segment = decode_u64(key)
        if compared >= MAX_COMPARED_ROWS:
            resume = segment
            break
        row = decode_segment(raw)
        if row.state != SegmentState.COMMITTED or asked_ns <= row.since_ns <= now_ns or node_id not in row.nodes:
            continue
        shard = row.nodes.index(node_id)
        size = have.get((segment, shard))
        if size is None:
            missing.append((segment, shard, "not in the node's inventory"))
        elif size != row.shard_bytes:
            missing.append((segment, shard, f"has {size} bytes instead of {row.shard_bytes}"))
    unknown = 0
    allocated = _allocated(kv)
    for segment, shard, _ in held:
        if segment >= resume:
            continue
        raw_row = kv.get(SEGMENTS, u64_key(segment))
        if _names(None if raw_row is None else decode_segment(raw_row), node_id, shard):
            continue
        if _is_ours(segment, allocated):
            surplus.append((segment, shard))
        else:
            unknown += 1
    return InventoryFindings(surplus, missing, unknown, resume)


def _allocated(kv: ReadKv) -> dict[int, int]:
    """incarnation -> the next segment counter in it; those that no restore ended early are not in it."""
    known = {
        decode_u64(key[len(SEGMENTS_KNOWN_PREFIX) :]): decode_u64(raw)
        for key, raw in kv.scan(META, SEGMENTS_KNOWN_PREFIX, SEGMENTS_KNOWN_PREFIX + b"\xff" * 9)
    }
    incarnation, counter = kv.get(META, INCARNATION_KEY), kv.get(META, NEXT_SEGMENT_KEY)
    now = 0 if incarnation is None else decode_u64(incarnation)
    return known | {now: 1 if counter is None else decode_u64(counter)}


def _is_ours(segment: int, allocated: dict[int, int]) -> bool:
    """Whether the id was allocated by this pool's history, as far as these tables know it."""
    return segment & ((1 << SEGMENT_COUNTER_BITS) - 1) < allocated.get(segment_incarnation(segment), 0)


def reconcile(txn: Txn, node_id: int, held: Sequence[tuple[int, int, int]], found: InventoryFindings, low: int) -> int:
    """Dooms what is surplus, remembers what is missing and forgets what was missing and is there. Safe to repeat.
    Returns how many shards are missing that were not known to be damaged.

    Looks at every row again: much may have changed since the comparison. A surplus shard stays surplus, because ids
    are never used again.
    """
    for segment, shard in found.surplus:
        if not _names(txn.segment(segment), node_id, shard):
            txn.doom_shard(node_id, segment, shard)
    news = 0
    for segment, shard, reason in found.missing:
        if _names(txn.segment(segment), node_id, shard):
            news += _remember_damage(txn, node_id, segment, shard, reason, missing=True)
    gone = {(segment, shard) for segment, shard, _ in found.missing}
    there = {(segment, shard) for segment, shard, _ in held} - gone
    for key, raw in list(txn.kv.scan(DAMAGE, shard_key(low, 0), shard_key(found.resume, 0))):
        damage = decode_damage(raw)
        segment, shard = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        if damage.missing and damage.node_id == node_id and (segment, shard) in there:
            txn.kv.delete(DAMAGE, key)
            txn.after_commit.append(txn.env.redundancy.is_stale)
    return news


def report_damage(txn: Txn, segment: int, shard: int, reason: str) -> bool:
    """A reader found a shard that does not verify or is not there. False where no row names it any more."""
    row = txn.segment(segment)
    if row is None or not 0 <= shard < len(row.nodes):
        return False
    _remember_damage(txn, row.nodes[shard], segment, shard, reason, missing=False)
    return True


def report_bad(txn: Txn, node_id: int, segment: int, shard: int, reason: str, *, missing: bool) -> bool:
    """A storage node found another's (or its own) shard bad. False where the shard does not lie there any more."""
    row = txn.segment(segment)
    if row is None or not 0 <= shard < len(row.nodes) or row.nodes[shard] != node_id:
        return False
    _remember_damage(txn, node_id, segment, shard, reason, missing=missing)
    return True


def _remember_damage(txn: Txn, node_id: int, segment: int, shard: int, reason: str, *, missing: bool) -> bool:
    """Whether it was not known."""
    key = shard_key(segment, shard)
    known = txn.kv.get(DAMAGE, key)
    # What was known of another node, which had the shard before, says nothing about this one.
    if known is not None and decode_damage(known).node_id == node_id:
        return False
    if sum(1 for _ in txn.kv.scan(DAMAGE, b"", b"\xff" * 11)) >= MAX_DAMAGE_ROWS:
        return False
    row = DamageRow(node_id, txn.now_ns, missing, reason[:MAX_TEXT_CHARS])
    txn.kv.put(DAMAGE, key, encode_damage(row))
    txn.after_commit.append(txn.env.redundancy.is_stale)
    return True
