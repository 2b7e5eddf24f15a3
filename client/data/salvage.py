"""The last resort of a read: a block from whatever shards can be had, and the report of those that are bad.

Every shard's range is fetched, every way to put the block together is tried, and the checksum of the stored bytes says
which one is right; so any mixture of lying, missing and unreachable shards is survived while k good ones are left.
Only the shards that the block itself lies in are judged by it: what it proves wrong, or what its node does not have, is
reported to the coordinator for repair, once each.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from redfs.client.data import codec
from redfs.client.data.store import Session
from redfs.core import erasure, segments
from redfs.core.errors import Corrupt, NotFound, RedfsError, Unavailable
from redfs.core.segments import Layout
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.reader")

MAX_VERSIONS = 256
"""Combinations of range versions tried for one damaged block, where no k shards are good in all its ranges."""
REMEMBERED_REPORTS = 1024
"""Damaged shards that were reported already."""

Buffer = bytes | bytearray | memoryview
Name = TypeVar("Name")
Value = TypeVar("Value")


class Nodes(Protocol):
    """What the read path needs of the `NodePool`."""

    async def get(self, node: int, segment: int, shard: int, offset: int, length: int, timeout_s: float) -> Buffer: ...

    async def get_into(
        self, node: int, segment: int, shard: int, offset: int, views: list[memoryview], timeout_s: float
    ) -> None: ...

    def suspects(self) -> set[int]: ...


class Place(NamedTuple):
    """Where a block lies and how it is stored."""

    segment: int
    offset: int
    stored_bytes: int
    plain_bytes: int
    codec: int
    checksum: int


class Spread(NamedTuple):
    """A segment's layout and its nodes by shard."""

    layout: Layout
    nodes: tuple[int, ...]


class Salvager:
    """See the module. Belongs to one event loop."""

    def __init__(self, session: Session, nodes: Nodes) -> None:
        self._session = session
        self._nodes = nodes
        self._reported: OrderedDict[tuple[int, int], None] = OrderedDict()

    async def salvage(self, block: int, place: Place, spread: Spread, timeout_s: float) -> bytes | memoryview:
        """The plain block, after trying every way to put it together; shards that were in the way are reported.

        Raises Unavailable where too few nodes answer within `timeout_s`, Corrupt where all do and nothing verifies.
        """
        layout = spread.layout
        needed = segments.extents(layout, place.offset, place.stored_bytes)
        brought = await asyncio.gather(*(self._bring_all(place.segment, spread, e, timeout_s) for e in needed))
        found = await asyncio.to_thread(_put_together, place, layout, needed, [at_hand for at_hand, _ in brought])
        if found is not None:
            choice, plain = found
            for extent, truth, (at_hand, missing) in zip(needed, choice, brought, strict=True):
                own = range(layout.shards) if layout.k == 1 else (extent.shard,)
                for shard in own:
                    if shard in at_hand and bytes(at_hand[shard]) != truth:
                        await self._report(place.segment, shard, f"block {block:#x} does not match its checksum")
                for shard in missing:
                    await self._report(place.segment, shard, "the node does not have the shard")
            return plain
        if any(len(at_hand) + len(missing) < layout.shards for at_hand, missing in brought):
            raise Unavailable(f"too few storage nodes answer to read block {block:#x}: see `redfs status`")
        for shard in {shard for _, missing in brought for shard in missing}:
            await self._report(place.segment, shard, "the node does not have the shard")
        log.error("block %x in segment %x is damaged on more nodes than its code can make up for", block, place.segment)
        raise Corrupt(f"block {block:#x} is damaged beyond repair: restore the file from a snapshot or a backup")

    async def _bring_all(
        self, segment: int, spread: Spread, extent: segments.Extent, timeout_s: float
    ) -> tuple[dict[int, bytes], set[int]]:
        """The extent's range of every shard that can be had, and the shards that their nodes do not have."""
        results = await asyncio.gather(
            *(
                self._nodes.get(node, segment, shard, extent.offset, extent.length, timeout_s)
                for shard, node in enumerate(spread.nodes)
            ),
            return_exceptions=True,
        )
        here: dict[int, bytes] = {}
        missing = set()
        for shard, data in enumerate(results):
            if isinstance(data, NotFound | Corrupt):
                missing.add(shard)
            elif isinstance(data, RedfsError):
                continue
            elif isinstance(data, BaseException):
                raise data
            else:
                here[shard] = bytes(data)
        return here, missing

    async def _report(self, segment: int, shard: int, reason: str) -> None:
        """Tells the coordinator of a bad shard, once. Reads do not fail because of it."""
        if (segment, shard) in self._reported:
            return
        remember(self._reported, (segment, shard), None, REMEMBERED_REPORTS)
        log.warning("shard %d of segment %x is damaged (%s): reported for repair", shard, segment, reason)
        try:
            await self._session.call(report_damage=pb.ReportDamage(segment_id=segment, shard=shard, reason=reason))
        except RedfsError as error:
            self._reported.pop((segment, shard), None)
            log.warning("the damage could not be reported: %s", error)


def remember(known: OrderedDict[Name, Value], key: Name, value: Value, limit: int) -> None:
    """Puts or renews an entry of a bounded memory."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > limit:
        known.popitem(last=False)


def _put_together(
    place: Place, layout: Layout, needed: Sequence[segments.Extent], brought: Sequence[dict[int, bytes]]
) -> tuple[Sequence[bytes], bytes | memoryview] | None:
    """The extents' bytes that make the block, and the plain block. None where no way to put it together is right.

    First from each set of k shards: one of them is right where k shards are good in all extents, however many of these
    there are. Then, bounded, from what is good in each extent.
    """
    for choice in itertools.chain(_from_sets(layout, needed, brought), _from_versions(layout, needed, brought)):
        try:
            return choice, codec.unpack(b"".join(choice), place.codec, place.plain_bytes, place.checksum)
        except Corrupt:
            continue
    return None


def _from_sets(
    layout: Layout, needed: Sequence[segments.Extent], brought: Sequence[dict[int, bytes]]
) -> Iterator[Sequence[bytes]]:
    if layout.k == 1:
        return
    code = erasure.code(layout.k, layout.m)
    everywhere = set(brought[0]).intersection(*brought[1:])
    for chosen in segments.source_combinations(layout, everywhere):
        choice = []
        for extent, at_hand in zip(needed, brought, strict=True):
            if extent.shard in chosen:
                choice.append(at_hand[extent.shard])
            else:
                (rebuilt,) = code.rebuild([extent.shard], {i: at_hand[i] for i in chosen})
                choice.append(bytes(rebuilt))
        yield choice


def _from_versions(
    layout: Layout, needed: Sequence[segments.Extent], brought: Sequence[dict[int, bytes]]
) -> Iterator[Sequence[bytes]]:
    versions = [_versions(layout, extent, at_hand) for extent, at_hand in zip(needed, brought, strict=True)]
    yield from itertools.islice(itertools.product(*versions), MAX_VERSIONS)


def _versions(layout: Layout, extent: segments.Extent, at_hand: dict[int, bytes]) -> list[bytes]:
    """Every distinct form that the extent's bytes can take: as stored, and rebuilt from each set of k others."""
    if layout.k == 1:
        return list(dict.fromkeys(at_hand.values()))
    found: dict[bytes, None] = {}
    if extent.shard in at_hand:
        found[at_hand[extent.shard]] = None
    code = erasure.code(layout.k, layout.m)
    for chosen in segments.source_combinations(layout, at_hand.keys() - {extent.shard}):
        (rebuilt,) = code.rebuild([extent.shard], {i: at_hand[i] for i in chosen})
        found[bytes(rebuilt)] = None
    return list(found)
