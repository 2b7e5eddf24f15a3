"""The read path: blocks from the storage nodes, verified, cached, read ahead, and rebuilt where shards are gone.

A healthy read of a block is one ranged GET from one node. Blocks of one segment that are read together share their
GETs. Where a node is known to fail, or does not answer within `hedge_after_s`, the same byte range of k other shards is
fetched and decoded. Every block's stored bytes are checked against their checksum before anybody sees them.

Where bytes do not verify, or a node that answers has no such shard, the coordinator is first asked again where the
block is (the cleaner may have moved it); then every way to put the block together is tried; then the bad shard is
reported for repair. `Corrupt` only when nothing verifies, `Unavailable` when too few nodes answer (a retry may help),
`NotFound` for a block that the pool does not know (any more): its slot has changed, read that again.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from redfs.client.data import codec
from redfs.client.data.cache import BlockCache
from redfs.client.data.config import DataConfig
from redfs.client.data.salvage import Nodes, Place, Salvager, Spread, remember
from redfs.client.data.store import Session
from redfs.core import erasure, segments
from redfs.core.errors import Corrupt, InternalError, NotFound, RedfsError, Unavailable
from redfs.core.segments import Layout
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.reader")

MAX_LOCATE = 1024
"""Blocks asked for in one LocateBlocks: about 100 KiB of answer."""
MAX_GAP_BYTES = 32 * 1024
"""Unwanted bytes read between two wanted ranges rather than asking twice: what a request costs in time."""
COPY_STRIPE_BYTES = 2 * 1024 * 1024
"""Of a mirrored segment, each run of this many bytes is read from another copy, so that all nodes share a long read."""
INLINE_BYTES = 192 * 1024
"""Up to this much is verified on the event loop: a switch to a thread and back costs as much."""
MAX_PREFETCHES = 8
"""Read-ahead tasks at once; more wishes are dropped."""
MAX_MOVES = 4
"""A block that was moved again each time that it was looked up is given up after so many: none moves so often."""
REMEMBERED_WHOLE = 256
"""Segments read ahead as a whole lately, which are not read ahead again."""

Buffer = bytes | bytearray | memoryview
Plain = bytes | memoryview
"""A plain block; not to be changed."""
Result = TypeVar("Result")


class _Wanted(NamedTuple):
    """A block of a segment and the shard ranges that it lies in."""

    block: int
    place: Place
    extents: tuple[segments.Extent, ...]


class _Run(NamedTuple):
    """A byte range of a shard that one GET brings."""

    shard: int
    offset: int
    length: int


class BlockReader:
    """The read path of one mount. Belongs to one event loop."""

    def __init__(self, session: Session, nodes: Nodes, cache: BlockCache, config: DataConfig | None = None) -> None:
        self._session = session
        self._nodes = nodes
        self._cache = cache
        self._config = config or DataConfig()
        self._places: OrderedDict[int, Place] = OrderedDict()
        self._spreads: OrderedDict[int, Spread] = OrderedDict()
        self._uncommitted: OrderedDict[int, None] = OrderedDict()
        """Blocks stored here that the coordinator has not been heard to know."""
        self._flights: dict[int, asyncio.Future[Plain]] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        self._prefetches: set[asyncio.Task[None]] = set()
        self._prefetching_bytes = 0
        self._whole: OrderedDict[int, None] = OrderedDict()
        self._salvager = Salvager(session, nodes)
        self._workers = ThreadPoolExecutor(self._config.workers, thread_name_prefix="redfs-unpack")
        self.degraded_reads = 0
        """Blocks that had to be put together from other shards, since the start."""

    # ------------------------------------------------------------ what owners call

    def learn(self, blocks: Iterable[pb.Block], segments: Iterable[pb.Segment]) -> None:
        """Takes note of where blocks are: from ReadSlots, LocateBlocks, own commits. The latest word counts."""
        for s in segments:
            spread = Spread(Layout(s.k, s.m, s.shard_bytes), tuple(s.nodes))
            remember(self._spreads, s.segment_id, spread, self._config.segment_locations)
        for b in blocks:
            place = Place(b.segment_id, b.offset, b.stored_bytes, b.plain_bytes, b.codec, b.checksum)
            remember(self._places, b.block_id, place, self._config.locations)

    def learn_stored(self, blocks: Iterable[pb.Block], segments: Iterable[pb.Segment]) -> None:
        """Takes note of where blocks are that this client has stored and not committed yet: until it has, only it
        knows."""
        own = list(blocks)
        self.learn(own, segments)
        for b in own:
            remember(self._uncommitted, b.block_id, None, self._config.locations)

    def cached(self, block: int) -> Plain | None:
        """The plain block where it is in memory."""
        return self._cache.get(block)

    async def read(self, block: int) -> Plain:
        """The whole plain block, verified. Concurrent reads of one block share a fetch. A retry is safe."""
        hit = self._cache.get(block)
        if hit is not None:
            return hit
        flight = self._flights.get(block)
        if flight is None:
            (flight,) = self._start([block])
        return await asyncio.shield(flight)

    async def read_many(self, blocks: Sequence[int]) -> list[Plain]:
        """The plain blocks in the order asked for. Raises the first error after all reads have ended."""
        hits: dict[int, Plain] = {}
        missing: list[int] = []
        for block in dict.fromkeys(blocks):
            hit = self._cache.get(block)
            if hit is not None:
                hits[block] = hit
            elif block not in self._flights:
                missing.append(block)
        waiting = {block: self._flights[block] for block in blocks if block in self._flights}
        waiting.update(zip(missing, self._start(missing), strict=True))
        if waiting:
            await asyncio.wait(waiting.values())
            hits.update((block, flight.result()) for block, flight in waiting.items())
        return [hits[block] for block in blocks]

    def prefetch(self, blocks: Sequence[int], *, whole_segments: bool) -> None:
        """Brings blocks into the cache in the background: these, or all that share their segments. Never raises.

        Bounded by `prefetch_bytes` and MAX_PREFETCHES; what would pass them is dropped, and nothing else happens.
        """
        wanted = [b for b in dict.fromkeys(blocks) if b not in self._cache and b not in self._flights]
        if not wanted or len(self._prefetches) >= MAX_PREFETCHES:
            return
        if self._prefetching_bytes + codec.MAX_BLOCK_BYTES > self._config.prefetch_bytes:
            return
        task = asyncio.create_task(self._prefetch(wanted, whole_segments), name="read ahead")
        self._prefetches.add(task)
        task.add_done_callback(self._prefetches.discard)

    async def close(self) -> None:
        """Ends what is under way; waiting readers get Unavailable."""
        tasks = [*self._prefetches, *self._fetches]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers.shutdown(wait=True)

    # ------------------------------------------------------------ read-ahead

    async def _prefetch(self, wanted: list[int], whole_segments: bool) -> None:
        reserved = 0
        try:
            unknown = [block for block in wanted if block not in self._places]
            if unknown:
                await self._locate(unknown)
            if whole_segments:
                wanted = await self._neighbours(wanted)
            chosen = []
            for block in wanted:
                place = self._places.get(block)
                if place is None or block in self._cache or block in self._flights:
                    continue
                if self._prefetching_bytes + place.plain_bytes > self._config.prefetch_bytes:
                    break
                self._prefetching_bytes += place.plain_bytes
                reserved += place.plain_bytes
                chosen.append(block)
            flights = self._start(chosen)
            if flights:
                await asyncio.wait(flights)
        except RedfsError as error:
            log.debug("reading ahead failed: %s", error)
        finally:
            self._prefetching_bytes -= reserved

    async def _neighbours(self, blocks: Sequence[int]) -> list[int]:
        """The blocks, and all others of their segments that were not brought lately."""
        found = dict.fromkeys(blocks)
        new = {self._places[block].segment for block in blocks if block in self._places} - self._whole.keys()
        for segment in new:
            remember(self._whole, segment, None, REMEMBERED_WHOLE)
        asked = (self._session.call(segment_blocks=pb.SegmentBlocks(segment_id=segment)) for segment in new)
        for reply in await asyncio.gather(*asked):
            self.learn(reply.blocks, ())
            found.update(dict.fromkeys(b.block_id for b in reply.blocks))
        return list(found)

    # ------------------------------------------------------------ fetching

    def _start(self, blocks: Sequence[int]) -> list[asyncio.Future[Plain]]:
        """Begins to fetch blocks; each future ends with the block or an error."""
        if not blocks:
            return []
        loop = asyncio.get_running_loop()
        flights: dict[int, asyncio.Future[Plain]] = {}
        for block in blocks:
            flight: asyncio.Future[Plain] = loop.create_future()
            flight.add_done_callback(_look_at)
            self._flights[block] = flights[block] = flight
        task = asyncio.create_task(self._fetch(blocks, flights))
        self._fetches.add(task)
        task.add_done_callback(self._fetches.discard)
        return list(flights.values())

    def _land(self, block: int, result: Plain | RedfsError) -> None:
        """Hands a block, or why there is none, to whoever waits."""
        flight = self._flights.pop(block, None)
        if not isinstance(result, RedfsError):
            self._cache.put(block, result)
            if flight is not None and not flight.done():
                flight.set_result(result)
        elif flight is not None and not flight.done():
            flight.set_exception(result)

    async def _fetch(self, blocks: Sequence[int], flights: dict[int, asyncio.Future[Plain]]) -> None:
        try:
            unknown = [block for block in blocks if self._known(block) is None]
            if unknown:
                await self._locate(unknown)
            by_segment: defaultdict[int, list[int]] = defaultdict(list)
            for block in blocks:
                known = self._known(block)
                if known is None:
                    self._land(block, _gone(block))
                else:
                    by_segment[known[0].segment].append(block)
            if len(by_segment) == 1:
                ((segment, members),) = by_segment.items()
                await self._fetch_segment(segment, members)
            elif by_segment:
                await asyncio.gather(*(self._fetch_segment(s, members) for s, members in by_segment.items()))
        except RedfsError as error:
            self._land_left(flights, error)
        except asyncio.CancelledError:
            self._land_left(flights, Unavailable("the read was given up"))
            raise
        except Exception as error:
            log.exception("reading failed")
            self._land_left(flights, InternalError(f"reading failed ({error!r}): please report this with the log"))
            raise

    def _land_left(self, flights: dict[int, asyncio.Future[Plain]], error: RedfsError) -> None:
        """Ends those of this fetch that have not landed; the same blocks may be on their way anew by now."""
        for block, flight in flights.items():
            if not flight.done():
                self._land(block, error)

    async def _fetch_segment(self, segment: int, blocks: Sequence[int]) -> None:
        """Lands the blocks, all of them in one segment: healthy where possible, else one by one."""
        spread = self._spreads[segment]
        suspects = self._nodes.suspects()
        bad = {shard for shard, node in enumerate(spread.nodes) if node in suspects}
        wanted = [self._wanted(spread, block, bad) for block in blocks]
        wanted.sort(key=_offset)
        if spread.layout.k > 1 and bad and any(e.shard in bad for w in wanted for e in w.extents):
            left = await self._fetch_rebuilding(segment, spread, wanted, bad)
        else:
            left = await self._fetch_healthy(segment, spread, wanted)
        if len(left) == 1:
            await self._recover(left[0])
        elif left:
            # A node failed under us: from now on it is suspected, and the rest is read around it in one go.
            suspects = self._nodes.suspects()
            bad = {shard for shard, node in enumerate(spread.nodes) if node in suspects}
            if spread.layout.k > 1 and bad:
                again = [self._wanted(spread, block, bad) for block in left if block in self._places]
                left = await self._fetch_rebuilding(segment, spread, again, bad)
            if len(left) > 1:
                left = await self._fetch_moved(segment, left)
            for block in left:
                await self._recover(block)

    async def _fetch_moved(self, segment: int, blocks: Sequence[int]) -> list[int]:
        """Lands those blocks that lie in other segments by now, as cleaning moves whole segments; returns the rest."""
        await self._locate(blocks)
        moved: defaultdict[int, list[_Wanted]] = defaultdict(list)
        left = []
        for block in blocks:
            known = self._known(block)
            if known is None or known[0].segment == segment:
                left.append(block)
            else:
                moved[known[0].segment].append(self._wanted(known[1], block, set()))
        for where, wanted in moved.items():
            left += await self._fetch_healthy(where, self._spreads[where], sorted(wanted, key=_offset))
        return left

    def _wanted(self, spread: Spread, block: int, bad: set[int]) -> _Wanted:
        place = self._places[block]
        layout = spread.layout
        copy = 0
        if layout.k == 1:
            copy = (place.segment + place.offset // COPY_STRIPE_BYTES) % layout.shards
            good = [shard for shard in range(layout.shards) if shard not in bad]
            if good and copy in bad:
                copy = good[copy % len(good)]
        return _Wanted(block, place, segments.extents(layout, place.offset, place.stored_bytes, copy))

    async def _fetch_healthy(self, segment: int, spread: Spread, wanted: Sequence[_Wanted]) -> list[int]:
        """One GET for each run of wanted bytes; lands blocks as soon as their run is here. Returns what failed."""
        if len(wanted) == 1 and len(wanted[0].extents) == 1:
            return await self._fetch_one(segment, spread, wanted[0])
        ranges: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for w in wanted:
            for e in w.extents:
                ranges[e.shard].append((e.offset, e.length))
        runs = {shard: segments.merge_ranges(parts, MAX_GAP_BYTES) for shard, parts in ranges.items()}
        by_run: defaultdict[_Run, list[segments.Extent]] = defaultdict(list)
        inside: defaultdict[_Run, list[_Wanted]] = defaultdict(list)
        across: list[_Wanted] = []
        for w in wanted:
            for e in w.extents:
                by_run[_run_of(runs, e)].append(e)
            if len(w.extents) == 1:
                inside[_run_of(runs, w.extents[0])].append(w)
            else:
                across.append(w)
        pieces: dict[segments.Extent, Buffer] = {}
        failed: list[int] = []

        async def bring(run: _Run) -> None:
            try:
                pieces.update(await self._bring_run(segment, spread, run, by_run[run]))
            except RedfsError as error:
                log.debug("shard %d of segment %x: %s", run.shard, segment, error)
                failed.extend(w.block for w in inside[run])
                return
            failed.extend(await self._unpack([(w, pieces[w.extents[0]]) for w in inside[run]]))

        await asyncio.gather(*(bring(run) for run in by_run))
        jobs: list[tuple[_Wanted, Buffer]] = []
        for w in across:
            if all(e in pieces for e in w.extents):
                jobs.append((w, b"".join(pieces[e] for e in w.extents)))
            else:
                failed.append(w.block)
        failed.extend(await self._unpack(jobs))
        return failed

    async def _bring_run(
        self, segment: int, spread: Spread, run: _Run, wanted: Sequence[segments.Extent]
    ) -> dict[segments.Extent, Buffer]:
        """The wanted extents of a run by one GET, each in a buffer of its own, so that a cached block keeps only its
        own bytes alive. Long runs are received into those buffers directly."""
        node = spread.nodes[run.shard]
        timeout_s = self._config.hedge_after_s
        if run.length <= INLINE_BYTES:
            data = await self._nodes.get(node, segment, run.shard, run.offset, run.length, timeout_s)
            if len(wanted) == 1 and wanted[0].length == run.length:
                return {wanted[0]: data}
            return {e: bytes(data[e.offset - run.offset : e.offset - run.offset + e.length]) for e in wanted}
        found: dict[segments.Extent, Buffer] = {}
        views: list[memoryview] = []
        at = run.offset
        for e in sorted(wanted, key=lambda e: e.offset):
            if e.offset > at:
                views.append(memoryview(bytearray(e.offset - at)))
            found[e] = buffer = bytearray(e.length)
            views.append(memoryview(buffer))
            at = e.offset + e.length
        await self._nodes.get_into(node, segment, run.shard, run.offset, views, timeout_s)
        return found

    async def _fetch_one(self, segment: int, spread: Spread, w: _Wanted) -> list[int]:
        """The short way: one block in one shard."""
        (extent,) = w.extents
        try:
            data = await self._nodes.get(
                spread.nodes[extent.shard],
                segment,
                extent.shard,
                extent.offset,
                extent.length,
                self._config.hedge_after_s,
            )
            self._land(w.block, codec.unpack(data, w.place.codec, w.place.plain_bytes, w.place.checksum))
        except RedfsError as error:
            log.debug("block %x: %s", w.block, error)
            return [w.block]
        return []

    async def _fetch_rebuilding(
        self, segment: int, spread: Spread, wanted: Sequence[_Wanted], bad: set[int]
    ) -> list[int]:
        """Around bad shards: the same range of k others, each fetched once, then decoded. Returns what failed."""
        layout = spread.layout
        low = min(e.offset for w in wanted for e in w.extents)
        high = max(e.offset + e.length for w in wanted for e in w.extents)
        needed = {e.shard for w in wanted for e in w.extents}
        here: dict[int, Buffer] = {}
        for _ in range(layout.shards):
            chosen = segments.sources(layout, bad, {*here, *needed})
            if chosen is None:
                return [w.block for w in wanted]
            missing = sorted(({*chosen} | (needed - bad)) - here.keys())
            brought = await asyncio.gather(
                *(
                    self._nodes.get(spread.nodes[i], segment, i, low, high - low, self._config.hedge_after_s)
                    for i in missing
                ),
                return_exceptions=True,
            )
            for shard, data in zip(missing, brought, strict=True):
                if isinstance(data, RedfsError):
                    bad.add(shard)
                elif isinstance(data, BaseException):
                    raise data
                else:
                    here[shard] = data
            if not bad & {*chosen, *(needed - here.keys() - bad)}:
                break
        lost = sorted(needed - here.keys())
        rebuilt = await self._in_thread(erasure.code(layout.k, layout.m).rebuild, lost, here)
        here.update(zip(lost, rebuilt, strict=True))
        self.degraded_reads += sum(any(e.shard in lost for e in w.extents) for w in wanted)
        jobs: list[tuple[_Wanted, Buffer]] = []
        for w in wanted:
            parts = [memoryview(here[e.shard])[e.offset - low : e.offset - low + e.length] for e in w.extents]
            jobs.append((w, b"".join(parts)))
        return await self._unpack(jobs)

    async def _unpack(self, jobs: Sequence[tuple[_Wanted, Buffer]]) -> list[int]:
        """Verifies and lands blocks whose stored bytes are here; returns those that do not verify."""
        if not jobs:
            return []
        if sum(len(stored) for _, stored in jobs) <= INLINE_BYTES:
            results = _unpack_all(jobs)
        else:
            results = await self._in_thread(_unpack_all, jobs)
        failed = []
        for (w, _), plain in zip(jobs, results, strict=True):
            if plain is None:
                failed.append(w.block)
            else:
                self._land(w.block, plain)
        return failed

    # ------------------------------------------------------------ where something is wrong

    async def _recover(self, block: int) -> None:
        """Lands a block whose healthy read failed."""
        before = self._known(block)
        try:
            for attempt in range(MAX_MOVES):
                await self._locate([block])
                now = self._known(block)
                if now is None:
                    self._land(block, _gone(block))
                    return
                if attempt and now == before:
                    break
                place, spread = now
                if now != before and not await self._fetch_healthy(
                    place.segment, spread, [self._wanted(spread, block, set())]
                ):
                    return
                before = now
                try:
                    plain = await self._salvage(block, place, spread)
                except (Corrupt, Unavailable) as error:
                    # It may have been moved again, and its segment deleted, while this was on its way.
                    failure: RedfsError = error
                    continue
                self.degraded_reads += 1
                self._land(block, plain)
                return
            if isinstance(failure, Corrupt) and block in self._uncommitted:
                # It was committed, and is gone since: nobody can know it any more.
                del self._uncommitted[block]
                self._places.pop(block, None)
                failure = _gone(block)
            self._land(block, failure)
        except RedfsError as error:
            self._land(block, error)

    async def _salvage(self, block: int, place: Place, spread: Spread) -> Plain:
        try:
            return await self._salvager.salvage(block, place, spread, self._config.hedge_after_s)
        except Unavailable:
            return await self._salvager.salvage(block, place, spread, self._config.node_timeout_s)

    # ------------------------------------------------------------ helpers

    async def _locate(self, blocks: Sequence[int]) -> None:
        """Asks the coordinator where blocks are; those that it does not know are forgotten here, but for own ones that
        it may not know yet."""
        for at in range(0, len(blocks), MAX_LOCATE):
            asked = blocks[at : at + MAX_LOCATE]
            reply = await self._session.call(locate_blocks=pb.LocateBlocks(block_ids=asked))
            for b in reply.blocks:
                self._uncommitted.pop(b.block_id, None)
            for block in asked:
                if block not in self._uncommitted:
                    self._places.pop(block, None)
            self.learn(reply.blocks, reply.segments)

    def _known(self, block: int) -> tuple[Place, Spread] | None:
        """Where the block is, as far as this client knows."""
        place = self._places.get(block)
        spread = self._spreads.get(place.segment) if place is not None else None
        return None if place is None or spread is None else (place, spread)

    def _in_thread(self, job: Callable[..., Result], *args: Any) -> Awaitable[Result]:
        return asyncio.get_running_loop().run_in_executor(self._workers, job, *args)


def _gone(block: int) -> NotFound:
    return NotFound(f"block {block:#x} is not stored any more: read its slot again")


def _offset(wanted: _Wanted) -> int:
    return wanted.place.offset


def _run_of(runs: dict[int, list[tuple[int, int]]], extent: segments.Extent) -> _Run:
    """The run that the extent lies in; `runs` are (offset, length) by shard, ascending."""
    of_shard = runs[extent.shard]
    offset, length = of_shard[bisect_right(of_shard, extent.offset, key=itemgetter(0)) - 1]
    return _Run(extent.shard, offset, length)


def _unpack_all(jobs: Sequence[tuple[_Wanted, Buffer]]) -> list[Plain | None]:
    results: list[Plain | None] = []
    for w, stored in jobs:
        try:
            results.append(codec.unpack(stored, w.place.codec, w.place.plain_bytes, w.place.checksum))
        except Corrupt:
            results.append(None)
    return results


def _look_at(flight: asyncio.Future[Plain]) -> None:
    """Read-ahead that fails has nobody who waits for the error."""
    if not flight.cancelled():
        flight.exception()
