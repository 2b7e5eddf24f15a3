"""How fast background work goes: it gives way to clients, and a scrub has a rate of its own.

**Giving way.** While clients are being served, each piece of background work (a request of another node's task, a
record written by a task here, a shard read by a scrub) is paid for with rest, in which no other piece begins. Where
clients always have requests under way, what took t is followed by t: so at most one piece is under way on average,
beside the clients' one or more, and they keep at least half of what the disk and the network can do. Where they have
less under way than that, because each program waits for its answers, every piece that is in their way is felt, and the
rest is longer, up to t / LEAST_UNDER_WAY. Nothing is held while a piece runs, so pieces on several nodes that wait for
one another cannot wait in a circle. While no client asks for anything there is no rest at all. No piece waits longer
than `MAX_REST_S`: background work is slow under load, never stuck.

**The rate.** `RateLimit` counts bytes; a piece begins when those before it are paid for.

Clock and waiting are injected. Thread safe.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

LINGER_S: Final = 0.25
"""A client that was answered this short ago counts as being there: programs read and write in bursts."""
LEAST_UNDER_WAY: Final = 0.4
"""Pieces of background work under way on average, however few requests of clients are. With it, where eight nodes share
one disk and two cores, a rebuild and their clients each keep about two thirds of their rates (bench/rebuild.py)."""
AVERAGED_S: Final = 1.0
"""Clients' requests under way are averaged over about this time."""
MAX_REST_S: Final = 10.0
"""Longest rest that is owed, so longest wait of a piece: well below the time after which peers give up (30 s)."""


class Courtesy:
    """Of one node's background work to its clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], Any] = time.sleep) -> None:
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._clients = 0
        self._average = 0.0
        """Of clients' requests under way, until `_averaged_s`."""
        self._averaged_s = clock()
        self._client_seen_s = float("-inf")
        self._not_before_s = float("-inf")

    @contextlib.contextmanager
    def serving_client(self) -> Iterator[None]:
        """Around a client's request."""
        with self._lock:
            self._count_client(1)
        try:
            yield
        finally:
            with self._lock:
                self._client_seen_s = self._count_client(-1)

    def give_way(self) -> None:
        """Before a piece of background work: waits while rest is owed."""
        with self._lock:
            rest_s = self._not_before_s - self._clock() if self._are_clients_here() else 0.0
        if rest_s > 0:
            self._wait(rest_s)

    def worked(self, took_s: float) -> None:
        """After a piece of background work."""
        with self._lock:
            if self._are_clients_here():
                now_s = self._count_client(0)
                rest_s = took_s / min(1.0, max(LEAST_UNDER_WAY, self._average))
                self._not_before_s = min(max(self._not_before_s, now_s) + rest_s, now_s + MAX_REST_S)

    @contextlib.contextmanager
    def background(self) -> Iterator[None]:
        """Around a piece of background work."""
        self.give_way()
        began_s = self._clock()
        try:
            yield
        finally:
            self.worked(self._clock() - began_s)

    def _count_client(self, change: int) -> float:
        """Takes the time since the last change into the average. What time it is."""
        now_s = self._clock()
        kept = math.exp((self._averaged_s - now_s) / AVERAGED_S)
        self._average = self._average * kept + self._clients * (1.0 - kept)
        self._averaged_s = now_s
        self._clients += change
        return now_s

    def _are_clients_here(self) -> bool:
        return self._clients > 0 or self._clock() - self._client_seen_s < LINGER_S


class RateLimit:
    """At most so many bytes a second, in pieces of any size. Used by one thread."""

    def __init__(
        self, bytes_per_s: int, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], Any] = time.sleep
    ) -> None:
        """`bytes_per_s` 0: no limit."""
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._wait = wait
        self._paid_until_s = float("-inf")

    def take(self, count_bytes: int) -> None:
        """Waits until what was taken before is paid for. Time that went by unused is not saved up."""
        if not self._bytes_per_s:
            return
        now_s = self._clock()
        if self._paid_until_s > now_s:
            self._wait(self._paid_until_s - now_s)
        self._paid_until_s = max(self._paid_until_s, now_s) + count_bytes / self._bytes_per_s
