"""A scrub: every shard on this disk is read from the disk itself and checked, in the order of segments, and what is
found is told to the coordinator.

One scrub at a time; a new one takes the place of the one before. It goes at most at the rate that was ordered, and
gives way to clients as tasks do. `upto_segment` of a report is where another scrub may go on: everything before it was
checked. A scrub ends with its stream, or when it is cancelled. Nothing is repaired here: a bad shard is only marked,
so that it may be stored anew.

| what is found | reported as |
|---|---|
| other bytes than were stored, a damaged header, a file that is too short, a read error | bad |
| the backing file is gone from the folder | bad, missing |
| the shard was deleted meanwhile | nothing |
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from redfs.core.errors import Corrupt, NotFound, RedfsError
from redfs.proto.data_plane import ShardInfo
from redfs.proto.gen import cluster_pb2 as pb
from redfs.storage_node.cancel import Cancel, Cancelled
from redfs.storage_node.pacing import Courtesy, RateLimit
from redfs.storage_node.record import record_bytes
from redfs.storage_node.shard_store import ShardStore

log = logging.getLogger(__name__)

REPORT_S: Final = 3.0
"""Between reports: people watch the progress, and what is found is repaired soon."""
MAX_BAD: Final = 512
"""Bad shards in one report: 100 KiB. With more of them it is sent at once."""
PAGE: Final = 1024
"""Shards looked up in the index at once."""
LAST_SHARD: Final = 0xFFFF
STOP_WAIT_S: Final = 5.0

Report = Callable[[pb.NodeReport], None]


class _Scrub:
    def __init__(self, order: pb.ScrubShards, report: Report, owner: object) -> None:
        self.order = order
        self.report = report
        self.owner = owner
        self.cancel = Cancel()
        self.thread: threading.Thread | None = None


class Scrubbing:
    """The one scrub of a node. Thread safe."""

    def __init__(self, store: ShardStore, courtesy: Courtesy, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._courtesy = courtesy
        self._clock = clock
        self._lock = threading.Lock()
        self._now: _Scrub | None = None

    def begin(self, order: pb.ScrubShards, report: Report, owner: object) -> None:
        """Starts a scrub that belongs to `owner`, in place of the one that goes on."""
        scrub = _Scrub(order, report, owner)
        with self._lock:
            before, self._now = self._now, scrub
            if before is not None:
                before.cancel.cancel()
            scrub.thread = threading.Thread(
                target=self._run, args=(scrub, before.thread if before is not None else None), name="scrub", daemon=True
            )
            scrub.thread.start()

    def give_up(self, owner: object, scrub_id: int | None = None) -> None:
        """The scrub that goes on, where it is the owner's and, if a number is given, that one."""
        with self._lock:
            scrub = self._now
            if scrub is None or scrub.owner is not owner or scrub_id not in (None, scrub.order.scrub_id):
                return
            self._now = None
        scrub.cancel.cancel()

    def stop(self) -> None:
        """Ends the scrub that goes on, and waits for it."""
        with self._lock:
            scrub, self._now = self._now, None
        if scrub is not None:
            scrub.cancel.cancel()
            if scrub.thread is not None:
                scrub.thread.join(STOP_WAIT_S)

    def _run(self, scrub: _Scrub, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()  # at most the reading of one shard
        order = scrub.order
        try:
            log.info("scrubbing from segment %#x on, at most %d bytes/s", order.after_segment, order.bytes_per_s)
            rate = RateLimit(order.bytes_per_s, self._clock, scrub.cancel.wait)
            shards, bad = scrub_shards(
                self._store, order, rate, self._courtesy, scrub.cancel, scrub.report, self._clock
            )
            log.info("scrubbed %d shards, %d of them bad", shards, bad)
        except Cancelled:
            log.info("a scrub was given up")
        finally:
            with self._lock:
                if self._now is scrub:
                    self._now = None


def scrub_shards(
    store: ShardStore,
    order: pb.ScrubShards,
    rate: RateLimit,
    courtesy: Courtesy,
    cancel: Cancel,
    report: Report,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, int]:
    """Checks all shards after a segment: (how many, how many bad). Raises Cancelled."""
    message = pb.ShardsScrubbed(scrub_id=order.scrub_id, upto_segment=order.after_segment)
    told_s = clock()
    checked = bad = 0
    after = (order.after_segment, LAST_SHARD)
    current = order.after_segment
    while page := store.list_page(after, PAGE):
        for info in page:
            cancel.check()
            if info.segment != current:
                message.upto_segment = current
                current = info.segment
            if len(message.bad) >= MAX_BAD or clock() - told_s >= REPORT_S:
                report(pb.NodeReport(scrubbed=message))
                message = pb.ShardsScrubbed(scrub_id=order.scrub_id, upto_segment=message.upto_segment)
                told_s = clock()
            rate.take(record_bytes(info.payload_bytes))
            cancel.check()
            with courtesy.background():
                found = _check(store, info)
            checked += 1
            message.shards += 1
            message.bytes += info.payload_bytes
            if found is not None:
                bad += 1
                message.bad.append(found)
        after = (page[-1].segment, page[-1].shard)
    message.upto_segment = current
    message.done = True
    report(pb.NodeReport(scrubbed=message))
    return checked, bad


def _check(store: ShardStore, info: ShardInfo) -> pb.BadShard | None:
    try:
        store.verify(info.segment, info.shard, fresh=True)
    except (NotFound, Corrupt) as error:
        missing = isinstance(error, NotFound)
        if missing and store.find(info.segment, info.shard) is None:
            return None  # deleted meanwhile
        return pb.BadShard(segment_id=info.segment, shard=info.shard, reason=str(error)[:200], missing=missing)
    except RedfsError as error:
        log.warning("shard %d/%d could not be checked: %s", info.segment, info.shard, error)
    return None
