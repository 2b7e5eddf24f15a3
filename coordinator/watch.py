"""Push: tells watchers within a second what changed, so that they ask again only for that.

The state thread names the tables of each batch (`topics_of`, a set test), storage nodes' streams name the cluster, and
mounts' figures name themselves. A watcher keeps one number, the topics that it was not told of yet: a slow one costs
that number and holds nothing back, however much happens meanwhile. It is told at most every FAST_S; of what changes
all the time under load (usage, nodes' reports, figures) at most every SLOW_S.

A message says that something is different, never what it is now, so none can be stale: what a watcher reads after a
message includes everything that the message stands for.

`changed` may be called from any thread; all else belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from enum import IntFlag

from redfs.core.errors import Busy, Unavailable
from redfs.core.tables import CHILDREN, DAMAGE, JOBS, MOUNTS, NAMES, NODES, SCHEDULES, VOLUMES
from redfs.core.versions.layout import SHOWN, WEIGHTS

FAST_S = 0.2
"""Between two messages to one watcher: quick for eyes, and five answers a second are no load."""
SLOW_S = 1.0
"""Between two messages to one watcher about what changes all the time."""
LOOK_S = 0.25
"""How often it is looked how nodes are shown: that one fell silent is told by nobody."""
ENDS = "the coordinator is stopping: watch again when it is back"
MAX_WATCHERS = 256
"""Consoles and scripts that watch at one time: each is a stream and up to five messages a second."""


class Topic(IntFlag):
    TREE = 1
    NODES = 2
    JOBS = 4
    SCHEDULES = 8
    USAGE = 16
    """Of the tree's nodes: changes with every write."""
    REPORTS = 32
    """Of storage nodes: bytes used and free."""
    FIGURES = 64


SLOW = Topic.USAGE | Topic.REPORTS | Topic.FIGURES
COVERED = {Topic.TREE: Topic.USAGE, Topic.NODES: Topic.REPORTS}
"""Who is told of the first reads the second with it."""
EVERYTHING = ~Topic(0)

TOPICS: dict[str, Topic] = {
    VOLUMES: Topic.TREE,
    NAMES: Topic.TREE,
    CHILDREN: Topic.TREE,
    MOUNTS: Topic.TREE,
    NODES: Topic.NODES,
    DAMAGE: Topic.NODES,
    JOBS: Topic.JOBS,
    SCHEDULES: Topic.SCHEDULES,
    WEIGHTS: Topic.USAGE,
    SHOWN: Topic.USAGE,
}
"""Table -> what it is part of. Tables that are not here change unseen: SESSIONS, say, with every commit."""


def topics_of(tables: Iterable[str]) -> Topic:
    """What changed when these tables did."""
    topics = Topic(0)
    for table in TOPICS.keys() & tables:
        topics |= TOPICS[table]
    return topics


class Watcher:
    """One who is told. Made by `Watchers.join`."""

    def __init__(self, clock: Callable[[], float], on_taken: Callable[[], None]) -> None:
        self._clock = clock
        self._on_taken = on_taken
        self._pending = EVERYTHING
        self._wake = asyncio.Event()
        self._ended = False
        self._told_s = self._told_slow_s = float("-inf")

    def add(self, topics: Topic) -> None:
        if topics & ~self._pending:
            self._pending |= topics
            self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def next(self) -> Topic:
        """Waits for something to tell, and until it may be told. Not to be called twice at a time.

        Raises Unavailable at the end of the coordinator.
        """
        while not (due := self._due()) or self._ended:
            if self._ended:
                raise Unavailable(ENDS)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._wake.wait()
        self._pending &= ~due
        for told, part in COVERED.items():
            if due & told:
                self._pending &= ~part
        # Before anything is read for the message: from here on every change is news again.
        self._on_taken()
        if due & SLOW:
            self._told_slow_s = self._clock()
        self._told_s = self._clock()
        return due

    def _due(self) -> Topic:
        now_s = self._clock()
        if now_s < self._told_s + FAST_S:
            return Topic(0)
        return self._pending if now_s >= self._told_slow_s + SLOW_S else self._pending & ~SLOW

    def _wait_s(self) -> float | None:
        """Seconds until what is pending may be told; None where nothing is."""
        if self._pending & ~SLOW:
            until_s = self._told_s + FAST_S
        elif self._pending:
            until_s = max(self._told_s + FAST_S, self._told_slow_s + SLOW_S)
        else:
            return None
        return max(0.0, until_s - self._clock())


class Watchers:
    """All who watch one coordinator."""

    def __init__(
        self, states: Callable[[], Collection[int]], call_on_loop: Callable[..., None], clock: Callable[[], float]
    ) -> None:
        self._states = states
        self._call_on_loop = call_on_loop
        self._clock = clock
        self._all: set[Watcher] = set()
        self._held = Topic(0)
        """What every watcher has pending: telling it once more would change nothing."""
        self._looking: asyncio.Task[None] | None = None
        self._ended = False

    def changed(self, topics: Topic) -> None:
        """Something changed and is durable. From any thread; returns at once."""
        if self._all and topics & ~self._held:
            self._call_on_loop(self._spread, topics)

    def _spread(self, topics: Topic) -> None:
        for watcher in self._all:
            watcher.add(topics)
        self._held |= topics

    def _taken(self) -> None:
        self._held = Topic(0)

    def join(self) -> Watcher:
        """A new watcher, with everything to be told. Busy beyond the bound, Unavailable after `close`."""
        if self._ended:
            raise Unavailable(ENDS)
        if len(self._all) >= MAX_WATCHERS:
            raise Busy(f"{MAX_WATCHERS} watch this pool already: close a console or a script that does")
        watcher = Watcher(self._clock, self._taken)
        self._all.add(watcher)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="watch for silent nodes")
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._all.discard(watcher)
        if not self._all and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def close(self) -> None:
        """Ends all watchers: their streams would keep the process from stopping."""
        self._ended = True
        for watcher in self._all:
            watcher.end()

    async def _look(self) -> None:
        before = self._states()
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._states()
            if now != before:
                self._spread(Topic.NODES)
            before = now
