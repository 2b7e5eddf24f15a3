"""What people do with a storage node: drain it, take it out, let it in again, remove it.

`drain` moves what it holds to others, which keeps its full protection all the while. `out` says that it is not coming
back: what it held is made anew elsewhere. `in` takes both back. `remove` forgets a node that holds nothing any more. No
new shard comes to a node that is not in, so once nothing lies there it stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from redfs.coordinator import nodes
from redfs.coordinator.jobs import drop_job, ensure_job
from redfs.coordinator.txn import Txn
from redfs.core.errors import InvalidArgument, NotAllowed
from redfs.core.kv import ReadKv
from redfs.core.tables import (
    ALL_U64,
    DAMAGE,
    DOOMED,
    NODES,
    SEGMENTS,
    JobKind,
    NodeRow,
    NodeState,
    decode_damage,
    decode_segment,
    doomed_range,
    u64_key,
)

DRAIN, IN, OUT, REMOVE = "drain", "in", "out", "remove"
NEXT = {
    NodeState.IN: (DRAIN, OUT),
    NodeState.DRAINING: (IN, OUT),
    NodeState.OUT: (IN,),
    NodeState.LOST: (IN, OUT),
}
"""What may be asked of a node; and REMOVE of one that is not in and holds nothing."""
FORGOTTEN_AT_ONCE = 10_000
"""Doomed shards of a removed node that one command forgets."""
COUNT_ROWS = 10_000
"""Segments in one read transaction."""

Read = Callable[[], AbstractContextManager[ReadKv]]


def allowed_actions(row: NodeRow, segments: int | None) -> tuple[str, ...]:
    """What may be asked of a node now. `segments`: that lie there; None: not known."""
    return NEXT[NodeState(row.state)] + ((REMOVE,) if row.state != NodeState.IN and segments == 0 else ())


def control(txn: Txn, node_id: int, action: str) -> NodeRow:
    """Drains, takes out or lets in. NotFound, InvalidArgument. Safe to repeat."""
    row = nodes.require_node(txn.kv, node_id)
    if action == DRAIN:
        if row.state in (NodeState.OUT, NodeState.LOST):
            raise NotAllowed(
                f"node {node_id} is out, so what it held is made anew elsewhere: there is nothing to drain. Use "
                f"`redfs node in {node_id}` first if it is to be read from"
            )
        row = nodes.set_state(txn, node_id, NodeState.DRAINING)
        ensure_job(txn, JobKind.DRAIN, node_id, f"node {node_id}")
        return row
    if action not in (IN, OUT):
        raise InvalidArgument(f"{action!r} is nothing that a node can do: use drain, in, out or remove")
    drop_job(txn, JobKind.DRAIN, node_id)
    if action == IN:
        txn.after_commit.append(lambda: txn.env.cluster.wait_anew(node_id))
    return nodes.set_state(txn, node_id, NodeState.IN if action == IN else NodeState.OUT)


# ---------------------------------------------------------------- removing


def require_not_in(kv: ReadKv, node_id: int) -> NodeRow:
    """NotAllowed for a node that may still be written to."""
    row = nodes.require_node(kv, node_id)
    if row.state == NodeState.IN:
        raise NotAllowed(
            f"node {node_id} is in use: `redfs node drain {node_id} --wait` empties it, or `redfs node out {node_id}` "
            "where it is not coming back"
        )
    return row


def count_segments(read: Read, node_id: int) -> int:
    """Segments, open ones too, that name the node; a row at a time over many read transactions.

    Exact for a node that is not in all the while: no row comes to name it.
    """
    found = 0
    start = b""
    while True:
        with read() as kv:
            for looked, (key, raw) in enumerate(kv.scan(SEGMENTS, start, ALL_U64)):
                if looked >= COUNT_ROWS:
                    start = key
                    break
                row = decode_segment(raw)
                found += node_id in row.nodes or any(node == node_id for node, _ in row.dropped)
            else:
                return found


def refuse_to_remove(node_id: int, row: NodeRow, segments: int) -> NotAllowed:
    """Why a node that holds something is not removed."""
    what = "1 segment" if segments == 1 else f"{segments:,} segments"
    doing = "moved away" if row.state == NodeState.DRAINING else "made anew elsewhere"
    return NotAllowed(
        f"node {node_id} still has shards of {what}, which are being {doing}: `redfs jobs` shows how far that is"
    )


def forget_doomed(txn: Txn, node_id: int) -> bool:
    """Forgets some of what the node was to delete. True where there is more."""
    require_not_in(txn.kv, node_id)
    for count, (key, _) in enumerate(list(_first(txn.kv, node_id))):
        if count >= FORGOTTEN_AT_ONCE:
            return True
        txn.kv.delete(DOOMED, key)
    return False


def _first(kv: ReadKv, node_id: int) -> list[tuple[bytes, bytes]]:
    found = []
    for row in kv.scan(DOOMED, *doomed_range(node_id)):
        found.append(row)
        if len(found) > FORGOTTEN_AT_ONCE:
            break
    return found


def remove(txn: Txn, node_id: int, state_changes: int) -> NodeRow:
    """Forgets a node that was seen to hold nothing when its state had changed so many times. NotAllowed where it was
    let in meanwhile."""
    row = require_not_in(txn.kv, node_id)
    if txn.env.cluster.state_changes(node_id) != state_changes:
        raise NotAllowed(f"node {node_id} was in use in between: try again")
    forget_doomed(txn, node_id)
    for key, raw in list(txn.kv.scan(DAMAGE, b"", ALL_U64 * 2)):
        if decode_damage(raw).node_id == node_id:
            txn.kv.delete(DAMAGE, key)
    drop_job(txn, JobKind.DRAIN, node_id)
    txn.kv.delete(NODES, u64_key(node_id))
    txn.after_commit.append(lambda: txn.env.cluster.forget(node_id))
    txn.after_commit.append(txn.env.redundancy.is_stale)
    return row
