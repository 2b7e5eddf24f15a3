"""A clock that moves only when the simulation says so, and the queue of what is to happen when.

Everything that a simulated run does is an event in one queue, ordered by time and then by the order of scheduling, so a
run is a function of its seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

MAX_EVENTS = 1_000_000
"""One run; a run that needs more has a loop that never ends."""


class SimulatedClock:
    """Seconds since the start of the run; `time_ns` counts from a fixed date."""

    EPOCH_NS = 1_700_000_000_000_000_000

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic(self) -> float:
        return self._now_s

    def time_ns(self) -> int:
        return self.EPOCH_NS + int(self._now_s * 1e9)

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, "time goes forward"
        self._now_s += seconds


class Simulation:
    """The seed, the clock and the event queue of one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = SimulatedClock()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.steps = 0

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Runs `event` when `delay_s` seconds have gone by."""
        heapq.heappush(self._events, (self.clock.monotonic() + delay_s, next(self._order), event))

    def step(self) -> bool:
        """Runs the next event; False where there is none."""
        if not self._events:
            return False
        self.steps += 1
        assert self.steps <= MAX_EVENTS, f"seed {self.seed}: no end after {MAX_EVENTS} events"
        at_s, _, event = heapq.heappop(self._events)
        self.clock.advance(max(0.0, at_s - self.clock.monotonic()))
        event()
        return True

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Runs events until `until()` holds or none is left."""
        while not until() and self.step():
            pass
