"""The task `PackBlocks`: blocks of several segments written as one new segment, whose shards this node sends out.

Only the ranges that blocks lie in are read, joined where they lie close together. Where a shard cannot be read, the
same ranges of k others stand in. Every block is checked against its checksum; one that does not match is put together
again from whole shards, each checked against its own record, which finds out which one is bad. Nothing is written
before all blocks are right.

Safe to repeat: the same blocks in the same order make the same shards, and a shard that is stored already is
acknowledged.

| what goes wrong | what it leaves | the answer |
|---|---|---|
| a block cannot be had | nothing | Unavailable (too few nodes answer) or Corrupt (too few shards are left) |
| a shard cannot be stored on its node | the shards that could: surplus, which inventories find | its error |
| the task is cancelled, its stream ends | as before | none |

Memory: `packing_bytes`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import xxhash

from redfs.core import erasure
from redfs.core.errors import Corrupt, InvalidArgument, RedfsError, Unavailable
from redfs.core.segments import Extent, Layout, extents, merge_ranges
from redfs.proto.gen import cluster_pb2 as pb
from redfs.storage_node.budget import Budget
from redfs.storage_node.cancel import Cancel
from redfs.storage_node.gathering import Findings, Gathering, check_segment
from redfs.storage_node.pacing import Courtesy
from redfs.storage_node.peers import Peers
from redfs.storage_node.shard_store import ShardStore

MAX_GAP_BYTES: Final = 64 * 1024
"""Ranges so close together are read as one: the gap costs less than another request."""


class _Piece(NamedTuple):
    """A block, and where it goes."""

    position: int
    """In the target's payload."""
    offset: int
    """In its segment's payload."""
    length: int
    checksum: int


class _Run(NamedTuple):
    """A range of a shard that is read as one."""

    offset: int
    length: int


Runs = dict[int, dict[_Run, bytearray]]
"""shard -> its runs with their bytes."""


def packing_bytes(target: Layout, sources: Sequence[Layout]) -> int:
    """Memory that packing takes at most: the target with its parity, and twice the largest source."""
    of_sources = [2 * s.capacity_bytes + (s.m * s.shard_bytes if s.k > 1 else 0) for s in sources]
    return target.capacity_bytes + (target.m * target.shard_bytes if target.k > 1 else 0) + max(of_sources)


def pack_blocks(
    task: pb.PackBlocks,
    own_node: int,
    store: ShardStore,
    peers: Peers,
    memory: Budget,
    courtesy: Courtesy,
    findings: Findings,
    cancel: Cancel,
) -> None:
    """Returns when all shards of the target are durable. Errors as in the module; raises Cancelled."""
    layout = check_segment(task.target)
    payload_bytes = sum(block.stored_bytes for block in task.blocks)
    if not 0 < payload_bytes <= layout.capacity_bytes:
        raise InvalidArgument(f"{payload_bytes} bytes of blocks do not fit into a segment of {layout.capacity_bytes}")
    sources = {source.segment_id: source for source in task.sources}
    pieces: defaultdict[int, list[_Piece]] = defaultdict(list)
    position = 0
    for block in task.blocks:
        if block.segment_id not in sources:
            raise InvalidArgument(f"a block of segment {block.segment_id:#x}, which is not among the sources")
        pieces[block.segment_id].append(_Piece(position, block.offset, block.stored_bytes, block.checksum))
        position += block.stored_bytes
    unusable: defaultdict[int, list[int]] = defaultdict(list)
    for bad in task.unusable:
        unusable[bad.segment_id].append(bad.shard)
    addresses = {where.node_id: where.address for where in task.addresses}
    with memory.holding(packing_bytes(layout, [check_segment(sources[segment]) for segment in pieces])):
        payload = bytearray(layout.capacity_bytes)
        for segment, wanted in pieces.items():
            gathering = Gathering(peers, sources[segment], addresses, unusable[segment], findings, cancel)
            _Source(gathering, peers, findings, cancel).fetch(wanted, memoryview(payload))
        shards = _cut(layout, payload)
        _send(task.target, shards, own_node, addresses, store, peers, courtesy, findings, cancel)


def _cut(layout: Layout, payload: bytearray) -> list[memoryview]:
    """The shards of a payload."""
    view = memoryview(payload)
    if layout.k == 1:
        return [view] * layout.shards
    size = layout.shard_bytes
    parity = memoryview(bytearray(layout.m * size))
    erasure.code(layout.k, layout.m).encode(view, parity, size)
    return [view[i * size : (i + 1) * size] for i in range(layout.k)] + [
        parity[i * size : (i + 1) * size] for i in range(layout.m)
    ]


def _send(
    target: pb.Segment,
    shards: Sequence[memoryview],
    own_node: int,
    addresses: Mapping[int, str],
    store: ShardStore,
    peers: Peers,
    courtesy: Courtesy,
    findings: Findings,
    cancel: Cancel,
) -> None:
    gathering = Gathering(peers, target, addresses, (), findings, cancel)

    def keep(shard: int) -> None:
        cancel.check()
        with courtesy.background():
            store.put(target.segment_id, shard, shards[shard], xxhash.xxh3_64_intdigest(shards[shard]))

    work = []
    for shard, node_id in enumerate(target.nodes):
        if node_id == own_node:
            work.append(partial(keep, shard))
        else:
            peer = gathering.peer(shard)
            work.append(partial(peers.put, peer, target.segment_id, shard, shards[shard], cancel))
    failure: RedfsError | None = None
    for node_id, error in zip(target.nodes, peers.all(work), strict=True):
        if error is None:
            findings.written_bytes += target.shard_bytes
        elif failure is None or isinstance(failure, Unavailable):
            failure = type(error)(f"storage node {node_id} did not take its shard: {error}")
    if failure is not None:
        raise failure


class _Source:
    """One segment that blocks are taken from."""

    def __init__(self, gathering: Gathering, peers: Peers, findings: Findings, cancel: Cancel) -> None:
        self._gathering = gathering
        self._layout = gathering.layout
        self._peers = peers
        self._findings = findings
        self._cancel = cancel

    def fetch(self, pieces: Sequence[_Piece], payload: memoryview) -> None:
        """Fills in the pieces. Raises Unavailable, Corrupt."""
        left = self._fetch_ranges(pieces, payload)
        whole: dict[int, bytearray] = {}
        for piece in left:
            self._fetch_surely(piece, payload, whole)

    # -------------------------------------------------------------------- by ranges

    def _fetch_ranges(self, pieces: Sequence[_Piece], payload: memoryview) -> list[_Piece]:
        """Fills in the pieces from the ranges that they lie in; those that do not match their checksums come back."""
        copy = 0
        if self._layout.k == 1:
            usable = self._gathering.usable()
            if not usable:
                raise self._gathering.too_few(0)
            copy = usable[0]
        wanted: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        places = {piece: self._extents(piece, copy) for piece in pieces}
        for place in places.values():
            for extent in place:
                wanted[extent.shard].append((extent.offset, extent.length))
        needed = {shard: [_Run(*r) for r in merge_ranges(ranges, MAX_GAP_BYTES)] for shard, ranges in wanted.items()}
        runs = self._read_runs(needed, self._gathering.usable())
        lost = [shard for shard in needed if shard not in runs]
        if lost and self._layout.k == 1:
            return self._fetch_ranges(pieces, payload)  # of another copy; ends, as each turn leaves one out
        if lost:
            runs.update(self._decode_runs(lost, needed))
        failed = []
        for piece, place in places.items():
            for extent in place:
                _copy_extent(extent, runs[extent.shard], payload[piece.position :])
            if not _is_good(piece, payload):
                failed.append(piece)
        return failed

    def _extents(self, piece: _Piece, copy: int = 0) -> tuple[Extent, ...]:
        try:
            return extents(self._layout, piece.offset, piece.length, copy)
        except ValueError as error:
            raise InvalidArgument(f"segment {self._gathering.segment_id:#x}: {error}") from error

    def _read_runs(self, needed: Mapping[int, Sequence[_Run]], usable: Sequence[int]) -> Runs:
        """The runs of those shards that can be read."""
        found: Runs = {}
        work = []
        for shard, wanted in needed.items():
            if shard not in usable:
                continue
            try:
                peer = self._gathering.peer(shard)
            except Unavailable as error:
                self._gathering.failed(shard, error)
                continue
            found[shard] = {run: bytearray(run.length) for run in wanted}
            ranges = [(run.offset, memoryview(buffer)) for run, buffer in found[shard].items()]
            work.append(partial(self._peers.read_ranges, peer, self._gathering.segment_id, shard, ranges, self._cancel))
        for shard, end in zip(list(found), self._peers.all(work), strict=True):
            if end is None:
                self._findings.read_bytes += sum(run.length for run in found[shard])
            else:
                del found[shard]
                self._gathering.failed(shard, end)
        return found

    def _decode_runs(self, lost: Sequence[int], needed: Mapping[int, Sequence[_Run]]) -> Runs:
        """The runs of shards that cannot be read, from the same ranges of k others."""
        k = self._layout.k
        merged = [_Run(*r) for r in merge_ranges((run for shard in lost for run in needed[shard]), MAX_GAP_BYTES)]
        have: Runs = {}
        while len(have) < k:
            others = self._gathering.usable(but=[*lost, *have])[: k - len(have)]
            if len(have) + len(others) < k:
                raise self._gathering.too_few(len(have) + len(others))
            have.update(self._read_runs(dict.fromkeys(others, merged), others))
        made: Runs = {shard: {} for shard in lost}
        code = erasure.code(k, self._layout.m)
        for run in merged:
            for shard, rebuilt in zip(lost, code.rebuild(lost, {i: have[i][run] for i in have}), strict=True):
                made[shard][run] = rebuilt
        return made

    # -------------------------------------------------------------------- by whole shards

    def _fetch_surely(self, piece: _Piece, payload: memoryview, whole: dict[int, bytearray]) -> None:
        """Fills in a piece from shards that are as they were stored; where even those do not match, from others."""
        if self._layout.k == 1:
            self._fetch_copy(piece, payload)
            return
        place = self._extents(piece)
        for extent in place:
            if extent.shard not in whole:
                whole[extent.shard] = self._gathering.make_shard(extent.shard)
            self._copy_whole(extent, whole[extent.shard], payload, piece)
        if _is_good(piece, payload):
            return
        # A shard was stored with wrong bytes and the right checksum of them: others know better, one shard at a time.
        for extent in place:
            other = self._gathering.decode(extent.shard)
            self._copy_whole(extent, other, payload, piece)
            if _is_good(piece, payload):
                whole[extent.shard] = other
                self._gathering.failed(extent.shard, _does_not_match(piece))
                return
            self._copy_whole(extent, whole[extent.shard], payload, piece)
        raise self._beyond_repair(piece)

    def _fetch_copy(self, piece: _Piece, payload: memoryview) -> None:
        unlike: list[int] = []
        for shard in self._gathering.usable():
            found = self._gathering.read([shard])
            if not found:
                continue
            (extent,) = self._extents(piece, shard)
            self._copy_whole(extent, found[shard], payload, piece)
            if _is_good(piece, payload):
                for other in unlike:
                    self._gathering.failed(other, _does_not_match(piece))
                return
            unlike.append(shard)
        raise self._beyond_repair(piece) if unlike else self._gathering.too_few(0)

    @staticmethod
    def _copy_whole(extent: Extent, shard: bytearray, payload: memoryview, piece: _Piece) -> None:
        _copy_extent(extent, {_Run(0, len(shard)): shard}, payload[piece.position :])

    def _beyond_repair(self, piece: _Piece) -> Corrupt:
        return Corrupt(
            f"the block at {piece.offset} of segment {self._gathering.segment_id:#x} does not match its checksum on "
            "any shards that are left"
        )


def _does_not_match(piece: _Piece) -> Corrupt:
    return Corrupt(f"the block at {piece.offset} of its segment does not match its checksum")


def _is_good(piece: _Piece, payload: memoryview) -> bool:
    digest: int = xxhash.xxh3_64_intdigest(payload[piece.position : piece.position + piece.length])
    return digest == piece.checksum


def _copy_extent(extent: Extent, runs: Mapping[_Run, bytearray], into: memoryview) -> None:
    """Copies an extent's bytes from the run that it lies in."""
    for run, content in runs.items():
        at = extent.offset - run.offset
        if at >= 0 and at + extent.length <= run.length:
            into[extent.position : extent.position + extent.length] = memoryview(content)[at : at + extent.length]
            return
    raise AssertionError("every extent lies in a run")
