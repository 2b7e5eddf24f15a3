"""One segment's shards, gathered from the nodes that hold them, for a task of this node.

Whole shards are taken only as they were stored: each is checked against the checksum in its own record, so what a disk
damaged silently is never decoded into a new shard. A shard that is damaged or missing is noted (`Findings`), and
another one is read in its place; a node that is away is only left out.

Memory: `rebuilding_bytes` for one shard made from others. No I/O of this node's own disk; blocking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from redfs.core import erasure
from redfs.core.errors import Corrupt, InvalidArgument, NotFound, RedfsError, Unavailable
from redfs.core.segments import MAX_PAYLOAD_BYTES, SHARD_ALIGN_BYTES, Layout
from redfs.proto.gen import cluster_pb2 as pb
from redfs.storage_node.cancel import Cancel
from redfs.storage_node.peers import Peer, Peers

MAX_REASON_CHARS: Final = 200


class Findings:
    """What a task has found and moved, for its answer. Changed by the task's own thread."""

    def __init__(self) -> None:
        self._bad: dict[tuple[int, int], pb.BadShard] = {}
        self.read_bytes = 0
        self.written_bytes = 0

    def note(self, segment: int, shard: int, error: RedfsError) -> bool:
        """Whether the error says that the shard is bad, and not that its node is away; notes it then."""
        if not isinstance(error, NotFound | Corrupt):
            return False
        self._bad[segment, shard] = pb.BadShard(
            segment_id=segment,
            shard=shard,
            reason=str(error)[:MAX_REASON_CHARS],
            missing=isinstance(error, NotFound),
        )
        return True

    def bad(self) -> list[pb.BadShard]:
        return list(self._bad.values())


def check_segment(segment: pb.Segment) -> Layout:
    """The layout of a segment in an order. Raises InvalidArgument where it is none."""
    layout = Layout(segment.k, segment.m, segment.shard_bytes)
    if not (
        1 <= layout.k <= erasure.MAX_DATA_SHARDS
        and layout.m <= erasure.MAX_PARITY_SHARDS
        and 0 < layout.capacity_bytes <= MAX_PAYLOAD_BYTES + layout.k * SHARD_ALIGN_BYTES
        and len(segment.nodes) == layout.shards
    ):
        raise InvalidArgument(
            f"no segment has {layout.k}+{layout.m} shards of {layout.shard_bytes} bytes on {len(segment.nodes)} nodes"
        )
    return layout


def rebuilding_bytes(layout: Layout) -> int:
    """Memory that making one shard from others takes at most."""
    return layout.shard_bytes * (1 if layout.k == 1 else layout.k + 1)


class Gathering:
    """See the module. For one segment in one task."""

    def __init__(
        self,
        peers: Peers,
        segment: pb.Segment,
        addresses: Mapping[int, str],
        unusable: Sequence[int],
        findings: Findings,
        cancel: Cancel,
    ) -> None:
        self.segment_id = segment.segment_id
        self.layout = check_segment(segment)
        self.nodes = tuple(segment.nodes)
        self._peers = peers
        self._addresses = addresses
        self._findings = findings
        self._cancel = cancel
        self._bad = set(unusable)
        self._away: dict[int, RedfsError] = {}
        """Shards whose nodes did not answer, and what was the matter."""

    def peer(self, shard: int) -> Peer:
        """Where a shard is. Raises Unavailable where that is not known."""
        node_id = self.nodes[shard]
        address = self._addresses.get(node_id, "")
        if not address:
            raise Unavailable(f"storage node {node_id} is not here")
        return Peer(node_id, address)

    def usable(self, but: Sequence[int] = ()) -> list[int]:
        """Shards that nothing is known against, in an order that spreads the load of many segments."""
        shards = self.layout.shards
        first = self.segment_id % shards
        order = [(first + i) % shards for i in range(shards)]
        return [i for i in order if i not in self._bad and i not in self._away and i not in but]

    def failed(self, shard: int, error: RedfsError) -> None:
        """A shard could not be read: it is left out from now on."""
        if self._findings.note(self.segment_id, shard, error):
            self._bad.add(shard)
        else:
            self._away[shard] = error

    def make_shard(self, shard: int, *, skip_node: int = 0) -> bytearray:
        """The bytes of a shard: copied from its node where that has it, else made from others.

        `skip_node`: is not asked for its own copy. Raises Unavailable (too few shards can be read now), Corrupt (too
        few are left).
        """
        if self.nodes[shard] != skip_node and shard in self.usable():
            found = self.read([shard])
            if found:
                return found[shard]
        return self.decode(shard)

    def decode(self, shard: int) -> bytearray:
        """As `make_shard`, from others in any case."""
        k = self.layout.k
        have: dict[int, bytearray] = {}
        while len(have) < k:
            wanted = self.usable(but=[shard, *have])[: k - len(have)]
            if len(have) + len(wanted) < k:
                raise self.too_few(len(have) + len(wanted))
            have.update(self.read(wanted))
        if k == 1:
            return next(iter(have.values()))
        (made,) = erasure.code(k, self.layout.m).rebuild([shard], have)
        return made

    def read(self, shards: Sequence[int]) -> dict[int, bytearray]:
        """Whole shards at once, as they were stored; those that cannot be had are left out, here and later."""
        found: dict[int, bytearray] = {}
        work = []
        for shard in shards:
            try:
                peer = self.peer(shard)
            except Unavailable as error:
                self.failed(shard, error)
                continue
            found[shard] = bytearray(self.layout.shard_bytes)
            view = memoryview(found[shard])
            work.append(partial(self._peers.read_shard, peer, self.segment_id, shard, view, self._cancel))
        for shard, end in zip(list(found), self._peers.all(work), strict=True):
            if end is None:
                self._findings.read_bytes += self.layout.shard_bytes
            else:
                del found[shard]
                self.failed(shard, end)
        return found

    def too_few(self, left: int) -> RedfsError:
        """Why nothing can be made of the segment."""
        what = f"{left} of the {self.layout.k} shards that it takes to read segment {self.segment_id:#x}"
        if self._away:
            why = next(iter(self._away.values()))
            return Unavailable(f"only {what} can be had now: {why}")
        return Corrupt(f"only {what} are left")
