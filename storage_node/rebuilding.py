"""The task `RebuildShard`: a shard of a segment made here, from its copy elsewhere or from its siblings.

Safe to repeat: a shard that is here already and reads well is left, and nothing is read from others. With `set_aside`
the one that is here is in doubt, whatever its checksum says: it is made anew and compared, and where it differs or does
not read well, set aside until the new one is durable (`ShardStore.replace`). It is not set aside before the new bytes
are at hand: until then its good ranges may be what keeps a block readable.

| what goes wrong | what it leaves | the answer |
|---|---|---|
| too few siblings can be read | what was here before | Unavailable, or Corrupt where too few are left |
| no room | what was here before | NoSpace |
| the disk fails | the node stops | Unavailable |
| the task is cancelled, its stream ends | what was here before, or the new shard | none |
"""

from __future__ import annotations

import xxhash

from redfs.core.errors import Corrupt, InvalidArgument, NotFound
from redfs.proto.gen import cluster_pb2 as pb
from redfs.storage_node.budget import Budget
from redfs.storage_node.cancel import Cancel
from redfs.storage_node.gathering import Findings, Gathering, check_segment, rebuilding_bytes
from redfs.storage_node.pacing import Courtesy
from redfs.storage_node.peers import Peers
from redfs.storage_node.shard_store import ShardStore


def rebuild_shard(
    task: pb.RebuildShard,
    own_node: int,
    store: ShardStore,
    peers: Peers,
    memory: Budget,
    courtesy: Courtesy,
    findings: Findings,
    cancel: Cancel,
) -> None:
    """Returns when the shard is durable here. Errors as in the module; raises Cancelled."""
    layout = check_segment(task.segment)
    segment, shard = task.segment.segment_id, task.shard
    if shard >= layout.shards:
        raise InvalidArgument(f"segment {segment:#x} has {layout.shards} shards: there is no shard {shard}")
    in_doubt = task.set_aside or not _is_here(store, segment, shard, layout.shard_bytes)
    if not in_doubt:
        return
    with memory.holding(rebuilding_bytes(layout)):
        addresses = {where.node_id: where.address for where in task.addresses}
        gathering = Gathering(peers, task.segment, addresses, task.unusable, findings, cancel)
        made = gathering.make_shard(shard, skip_node=own_node)
        cancel.check()
        with courtesy.background():
            store.replace(segment, shard, made, xxhash.xxh3_64_intdigest(made))
        findings.written_bytes += len(made)


def _is_here(store: ShardStore, segment: int, shard: int, shard_bytes: int) -> bool:
    held = store.find(segment, shard)
    if held is None or held.payload_bytes != shard_bytes:
        return False
    try:
        store.verify(segment, shard, fresh=True)
    except (NotFound, Corrupt):
        return False
    return True
