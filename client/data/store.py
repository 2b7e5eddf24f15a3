"""The write path: plain blocks become one durable segment on the storage nodes, ready to be named by a commit.

Blocks are fingerprinted, those that the pool has already are left out, the others compressed and packed into a
segment, which is encoded and sent to k + m nodes in parallel. When `store` returns, every shard is durable on its node
and nothing names it yet: the commit that carries the batch's segments and blocks makes it real, `abandon` (or the end
of the session) gives it back.

Failures: a node that refuses, resets, is silent or full is replaced in that segment and only its shard sent again.
Where the pool has no other node, the payload goes into a new segment with a smaller k (m stays), and the old one is
given back; a segment that was sent in part is never sent again in another shape. When not even that is possible,
NoSpace, or, where nodes do not come back for a while, TooFewNodes; Unavailable and LeaseLapsed come from the session.
After any error nothing of the batch counts and the call may be repeated.

Flushes below 64 KiB take a short way: everything inline, m + 1 copies, no question to the dedupe index (the commit
does that), and segments that were opened ahead. Reading back is left to `reader.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from redfs.client.data import codec
from redfs.client.data.cache import BlockCache
from redfs.client.data.config import DataConfig
from redfs.core import erasure, segments
from redfs.core.errors import NoSpace, NotAllowed, NotFound, RedfsError, TooFewNodes, Unavailable
from redfs.core.ids import MAX_BLOCKS_PER_SEGMENT, block_id
from redfs.core.segments import MAX_PAYLOAD_BYTES, SMALL_FLUSH_BYTES, Layout
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.store")

MAX_REPLACEMENTS = 8
"""Nodes tried for one shard before the segment is written anew."""
MAX_REWRITES = 6
"""Segments tried for one payload: as it is, ever narrower, and once more on nodes that had failed before."""
MAX_FINGERPRINTS = 4096
"""Asked for in one message; the coordinator takes no more."""
TOO_FEW_PAUSE_S = 0.5
"""Between attempts where too few nodes can be written to."""
ZEROS = bytes(segments.SHARD_ALIGN_BYTES)

Buffer = bytes | bytearray | memoryview
Result = TypeVar("Result")


class Session(Protocol):
    """What the data path needs of the `CoordinatorSession`."""

    async def call(self, **body: Any) -> Any: ...


class Nodes(Protocol):
    """What the write path needs of the `NodePool`."""

    def start_put(self, node: int, segment: int, shard: int, parts: Sequence[Buffer]) -> asyncio.Future[None]: ...

    def unwritable(self) -> set[int]: ...

    def forgive(self) -> None: ...


@dataclass
class StoredBatch:
    """What `store` wrote: `segments` and `blocks` go into the commit that names `refs`."""

    refs: list[tuple[int, int]]
    """(block id, plain length), in the order of the input."""
    segments: list[pb.Segment] = field(default_factory=list)
    blocks: list[pb.Block] = field(default_factory=list)


class _NoOtherNode(Exception):
    """A shard found no place: the segment has to be written in another shape."""


STOCK_AGE_S = 60.0
"""A segment that was opened ahead and not taken for this long is given back. It names nodes; one of them may be about
to be emptied and removed, which waits for it."""


class SegmentStock:
    """Segments opened ahead at the coordinator. Taking one costs no round trip while there are some.

    `give_up` is called with the ids of those that nobody took in STOCK_AGE_S.
    """

    def __init__(
        self,
        session: Session,
        volume_id: int,
        *,
        small: bool,
        target: int,
        give_up: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._session = session
        self._volume_id = volume_id
        self._small = small
        self._target = target
        self._give_up = give_up
        self._ready: deque[tuple[float, pb.Segment]] = deque()
        """When each was opened, by the loop's clock; the oldest first."""
        self._ageing: asyncio.TimerHandle | None = None
        self._refill: asyncio.Task[None] | None = None
        self._closed = False

    def take_now(self) -> pb.Segment | None:
        """One that is ready, or None; either way more are fetched when half of them are gone."""
        found = self._ready.popleft()[1] if self._ready else None
        if 2 * len(self._ready) <= self._target and self._refill is None and not self._closed:
            self._refill = asyncio.create_task(self._fill(), name="open segments ahead")
            self._refill.add_done_callback(_look_at)  # whoever waits has the error; else the next taker asks again
        return found

    async def take(self) -> pb.Segment:
        """One segment. Raises what opening raises: TooFewNodes, NoSpace, Unavailable, LeaseLapsed."""
        while True:
            found = self.take_now()
            if found is not None:
                return found
            if self._refill is None:
                raise Unavailable("the volume's data path is closed")
            await asyncio.shield(self._refill)

    async def forsake(self) -> None:
        """The session has ended, and what it had opened with it. Returns when nothing is under way any more."""
        if self._refill is not None:
            await asyncio.wait([self._refill])
        self.drain()

    def drain(self) -> list[int]:
        """Takes out all that are ready, for giving them up."""
        ids = [segment.segment_id for _, segment in self._ready]
        self._ready.clear()
        if self._ageing is not None:
            self._ageing.cancel()
            self._ageing = None
        return ids

    def _age(self) -> None:
        """Gives back what is too old, and looks again when the next one is."""
        loop = asyncio.get_running_loop()
        self._ageing = None
        old = []
        while self._ready and self._ready[0][0] + STOCK_AGE_S <= loop.time():
            old.append(self._ready.popleft()[1].segment_id)
        if old:
            self._give_up(*old)
        if self._ready:
            self._ageing = loop.call_at(self._ready[0][0] + STOCK_AGE_S, self._age)

    async def close(self) -> list[int]:
        """No more are opened; returns the ids of those that nobody took."""
        self._closed = True
        if self._refill is not None:
            await asyncio.wait([self._refill])
        return self.drain()

    async def _fill(self) -> None:
        try:
            count = self._target - len(self._ready)
            reply = await self._session.call(
                open_segments=pb.OpenSegments(volume_id=self._volume_id, count=count, small=self._small)
            )
            opened_s = asyncio.get_running_loop().time()
            self._ready.extend((opened_s, segment) for segment in reply.segments)
            if self._ready and self._ageing is None:
                self._ageing = asyncio.get_running_loop().call_at(self._ready[0][0] + STOCK_AGE_S, self._age)
            if not reply.segments:
                raise Unavailable("the coordinator opened no segment: try again")
        finally:
            # Here and not in a callback of the task: between its end and the callback a taker would wait for nothing.
            self._refill = None


class BlockStore:
    """The write path of one mounted volume. Belongs to one event loop."""

    def __init__(
        self,
        session: Session,
        volume: pb.Volume,
        nodes: Nodes,
        cache: BlockCache,
        config: DataConfig | None = None,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`clock`: monotonic seconds; without it the event loop's."""
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        self._session = session
        self._volume = volume
        self._nodes = nodes
        self._cache = cache
        self._config = config or DataConfig()
        self._compress = volume.compression != "none"
        number, back = volume.volume_id, self._give_up
        self._large = SegmentStock(session, number, small=False, target=self._config.large_opens, give_up=back)
        self._small = SegmentStock(session, number, small=True, target=self._config.small_opens, give_up=back)
        self._large_slots = asyncio.Semaphore(self._config.segments_in_flight)
        self._small_slots = asyncio.Semaphore(self._config.small_in_flight)
        self._buffers: list[bytearray] = []
        self._workers = ThreadPoolExecutor(self._config.workers, thread_name_prefix="redfs-pack")
        self._aborts: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ what owners call

    async def store(self, plain: Sequence[Buffer], *, dedupe: bool = True) -> StoredBatch:
        """Makes the blocks durable: at most one new segment, none where the pool has them all.

        1 to 128 KiB each, 8 MiB together (else ValueError); they must not change until this returns. `dedupe=False`
        stores them even where the index has them.
        """
        total = 0
        for block in plain:
            if not 0 < len(block) <= codec.MAX_BLOCK_BYTES:
                raise ValueError(f"a block of {len(block)} bytes")
            total += len(block)
        if total > MAX_PAYLOAD_BYTES or len(plain) > MAX_BLOCKS_PER_SEGMENT:
            raise ValueError(f"{len(plain)} blocks of {total} bytes do not fit into a segment")
        if total < SMALL_FLUSH_BYTES:
            if not plain:
                return StoredBatch([])
            async with self._small_slots:
                return await self._store_small(plain)
        async with self._large_slots:
            return await self._store_large(plain, dedupe)

    async def abandon(self, batch: StoredBatch) -> None:
        """The commit of this batch will never come: its segments are given back. Never raises a RedfsError."""
        await self._abort([segment.segment_id for segment in batch.segments])

    async def forsake(self) -> None:
        """The session has ended: forgets the segments that it had opened. No store may be under way."""
        await self._large.forsake()
        await self._small.forsake()
        await asyncio.gather(*self._aborts, return_exceptions=True)

    async def close(self) -> None:
        """Gives back the segments that were opened ahead. No store may be under way."""
        unused = await self._large.close() + await self._small.close()
        await asyncio.gather(*self._aborts)
        await self._abort(unused)
        self._workers.shutdown(wait=True)
        self._buffers.clear()

    # ------------------------------------------------------------ small flushes

    async def _store_small(self, plain: Sequence[Buffer]) -> StoredBatch:
        packed, parts, payload_bytes = codec.pack_small(plain, self._compress)
        padding = -payload_bytes % segments.SHARD_ALIGN_BYTES
        if padding:
            parts.append(ZEROS[:padding])
        payload: list[Buffer] = parts if len(parts) == 1 else [b"".join(parts)]
        segment = await self._write(self._small, payload_bytes, lambda layout: [payload] * layout.shards)
        batch = _batch(packed, list(range(len(plain))), segment)
        for (block, _), content in zip(batch.refs, plain, strict=True):
            self._cache.put(block, bytes(content))
        return batch

    # ------------------------------------------------------------ large flushes

    async def _store_large(self, plain: Sequence[Buffer], dedupe: bool) -> StoredBatch:
        prints = await self._work(codec.fingerprints, plain)
        stored = await self._find(prints) if dedupe else {}
        position: dict[bytes, int] = {}
        fresh: list[int] = []
        for index, mark in enumerate(prints):
            if mark not in stored and mark not in position:
                position[mark] = len(fresh)
                fresh.append(index)
        if not fresh:
            return StoredBatch([(stored[mark], len(block)) for mark, block in zip(prints, plain, strict=True)])
        buffer = self._buffers.pop() if self._buffers else bytearray()
        buffer, segment, packed = await self._write_large([plain[i] for i in fresh], [prints[i] for i in fresh], buffer)
        # Only here, where every send has ended: a buffer that a cancelled call leaves behind is still being read.
        if len(self._buffers) < self._config.segments_in_flight:
            self._buffers.append(buffer)
        batch = _batch(packed, [position.get(mark, -1) for mark in prints], segment)
        batch.refs = [
            (stored[mark], len(block)) if mark in stored else ref
            for mark, block, ref in zip(prints, plain, batch.refs, strict=True)
        ]
        return batch

    async def _write_large(
        self, plain: Sequence[Buffer], prints: Sequence[bytes], buffer: bytearray
    ) -> tuple[bytearray, pb.Segment, list[codec.Packed]]:
        def assemble() -> tuple[bytearray, list[codec.Packed], int]:
            space = _grown(buffer, sum(map(len, plain)))
            packed, payload_bytes = codec.pack(plain, prints, self._compress, memoryview(space))
            return space, packed, payload_bytes

        space, packed, payload_bytes = await self._work(assemble)
        parity = bytearray()

        def cut(layout: Layout) -> list[Sequence[Buffer]]:
            nonlocal space, parity
            end = layout.capacity_bytes
            space = _grown(space, end + (layout.m * layout.shard_bytes if layout.k > 1 else 0))
            space[payload_bytes:end] = bytes(end - payload_bytes)
            view = memoryview(space)
            if layout.k == 1:
                return [[view[:end]]] * layout.shards
            total = end + layout.m * layout.shard_bytes
            erasure.code(layout.k, layout.m).encode(view[:end], view[end:total], layout.shard_bytes)
            return [[view[at : at + layout.shard_bytes]] for at in range(0, total, layout.shard_bytes)]

        stock = self._small if payload_bytes < SMALL_FLUSH_BYTES else self._large
        segment = await self._write(stock, payload_bytes, cut, threaded=True)
        return space, segment, packed

    async def _find(self, prints: Sequence[bytes]) -> dict[bytes, int]:
        """Which fingerprints the pool has already: fingerprint -> block id."""
        wanted = list(dict.fromkeys(prints))
        found: dict[bytes, int] = {}
        for at in range(0, len(wanted), MAX_FINGERPRINTS):
            asked = wanted[at : at + MAX_FINGERPRINTS]
            reply = await self._session.call(
                find_blocks=pb.FindBlocks(volume_id=self._volume.volume_id, fingerprints=asked)
            )
            found.update((mark, block) for mark, block in zip(asked, reply.block_ids, strict=True) if block)
        return found

    # ------------------------------------------------------------ one payload onto the nodes

    async def _write(
        self,
        stock: SegmentStock,
        payload_bytes: int,
        cut: Callable[[Layout], list[Sequence[Buffer]]],
        *,
        threaded: bool = False,
    ) -> pb.Segment:
        """Puts the payload on the nodes, as wide as they allow. `cut` makes a layout's shards, each as its parts.

        Too few of them may be enough soon: a switch that starts anew takes all nodes away at once.
        """
        until_s = self._clock() + self._config.too_few_patience_s
        while True:
            try:
                return await self._write_now(stock, payload_bytes, cut, threaded=threaded)
            except TooFewNodes as error:
                if self._clock() >= until_s:
                    raise
                log.warning("a write waits: %s", error)
            await self._sleep(TOO_FEW_PAUSE_S)

    async def _write_now(
        self,
        stock: SegmentStock,
        payload_bytes: int,
        cut: Callable[[Layout], list[Sequence[Buffer]]],
        *,
        threaded: bool,
    ) -> pb.Segment:
        failed: dict[int, RedfsError] = {}
        forgiven = False
        for _ in range(MAX_REWRITES):
            opened = stock.take_now() or await stock.take()
            nodes = [node for node in opened.nodes if node not in failed]
            code: tuple[int, int] | None = (opened.k, opened.m)
            if failed:
                code = segments.narrowed(opened.k, opened.m, len(nodes))
                if code is None and not forgiven:
                    # Before writing stops, one more try on those that failed: they may be back.
                    forgiven = True
                    self._nodes.forgive()
                    failed.clear()
                    nodes, code = list(opened.nodes), (opened.k, opened.m)
            if code is None:
                self._give_up(opened.segment_id)
                break
            nodes = nodes[: sum(code)]
            layout = segments.plan_layout(payload_bytes, *code)
            try:
                shards = await self._work(cut, layout) if threaded else cut(layout)
                await self._send(opened, nodes, shards, failed)
            except _NoOtherNode:
                # The others that are ready may name the same nodes: later ones are opened with what is known by then.
                self._give_up(opened.segment_id, *stock.drain())
                continue
            except BaseException:
                self._give_up(opened.segment_id)
                raise
            return pb.Segment(
                segment_id=opened.segment_id, k=layout.k, m=layout.m, shard_bytes=layout.shard_bytes, nodes=nodes
            )
        raise self._verdict(failed)

    def _verdict(self, failed: dict[int, RedfsError]) -> RedfsError:
        if any(isinstance(error, NoSpace) for error in failed.values()):
            return NoSpace("the storage nodes are full: delete something or add a node")
        why = next(iter(failed.values()), None)
        return TooFewNodes(
            f"too few storage nodes can be written to for {self._volume.protection or 'this volume'}"
            f"{f' ({why})' if why else ''}: see `redfs status`"
        )

    async def _send(
        self, opened: pb.Segment, nodes: list[int], shards: list[Sequence[Buffer]], failed: dict[int, RedfsError]
    ) -> None:
        """Sends every shard, replacing nodes in `nodes` where they fail. Returns when no send is under way any more."""
        segment = opened.segment_id
        # The coordinator counts places as it handed them out; a narrowed segment leaves some of them out.
        places = [list(opened.nodes).index(node) for node in nodes]
        suspects = self._nodes.unwritable()
        sends: list[asyncio.Future[None] | None] = [
            None if node in suspects or node in failed else self._nodes.start_put(node, segment, shard, shards[shard])
            for shard, node in enumerate(nodes)
        ]
        losers: list[tuple[int, RedfsError]] = []
        try:
            for shard, send in enumerate(sends):
                if send is None:
                    losers.append(
                        (shard, failed.get(nodes[shard]) or Unavailable(f"node {nodes[shard]} failed lately"))
                    )
                    continue
                try:
                    await send
                except RedfsError as error:
                    losers.append((shard, error))
        finally:
            for send in sends:
                if send is not None and not send.done():
                    send.add_done_callback(_look_at)  # only when this call was cancelled
        if not losers:
            return
        failed.update((nodes[shard], why) for shard, why in losers)
        results = await asyncio.gather(
            *(self._resend(segment, shard, places[shard], nodes, shards[shard], failed) for shard, _ in losers),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _resend(
        self,
        segment: int,
        shard: int,
        place: int,
        nodes: list[int],
        parts: Sequence[Buffer],
        failed: dict[int, RedfsError],
    ) -> None:
        """Another node for one shard, until one takes it; `place` is the coordinator's. Raises _NoOtherNode."""
        for _ in range(MAX_REPLACEMENTS):
            try:
                reply = await self._session.call(
                    replace_shard=pb.ReplaceShard(
                        segment_id=segment, shard=place, avoid=sorted({*failed, *self._nodes.unwritable()})
                    )
                )
            except (TooFewNodes, NoSpace, NotFound, NotAllowed) as error:
                raise _NoOtherNode from error
            log.info("shard %d of segment %x goes to node %d instead of %d", shard, segment, reply.node, nodes[shard])
            nodes[shard] = reply.node
            try:
                await self._nodes.start_put(reply.node, segment, shard, parts)
            except RedfsError as error:
                failed[reply.node] = error
                continue
            return
        raise _NoOtherNode

    # ------------------------------------------------------------ helpers

    def _give_up(self, *segment_ids: int) -> None:
        task = asyncio.create_task(self._abort(segment_ids))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _abort(self, segment_ids: Iterable[int]) -> None:
        ids = list(segment_ids)
        if not ids:
            return
        # What is not aborted now is when the session ends.
        with contextlib.suppress(RedfsError):
            await self._session.call(abort_segments=pb.AbortSegments(segment_ids=ids))

    def _work(self, job: Callable[..., Result], *args: Any) -> Awaitable[Result]:
        return asyncio.get_running_loop().run_in_executor(self._workers, job, *args)


def _look_at(send: asyncio.Future[None]) -> None:
    """Takes note of an outcome that nobody waits for."""
    if not send.cancelled():
        send.exception()


def _grown(buffer: bytearray, size: int) -> bytearray:
    """A buffer of at least `size` bytes that begins with what `buffer` holds."""
    if len(buffer) >= size:
        return buffer
    larger = bytearray(max(size, MAX_PAYLOAD_BYTES * 3 // 2 + 16 * segments.SHARD_ALIGN_BYTES))
    larger[: len(buffer)] = buffer
    return larger


def _batch(packed: Sequence[codec.Packed], order: Sequence[int], segment: pb.Segment) -> StoredBatch:
    """The batch of the packed blocks; input number i is the packed block `order[i]` (-1: none of them)."""
    birth = segment.segment_id
    blocks = [
        pb.Block(
            block_id=block_id(birth, index),
            segment_id=birth,
            offset=p.offset,
            stored_bytes=p.stored_bytes,
            plain_bytes=p.plain_bytes,
            codec=p.codec,
            checksum=p.checksum,
            fingerprint=p.fingerprint,
        )
        for index, p in enumerate(packed)
    ]
    refs = [(block_id(birth, i), packed[i].plain_bytes) if i >= 0 else (0, 0) for i in order]
    return StoredBatch(refs, [segment], blocks)
