"""Background work gives way to clients, and a rate is kept; by an injected clock."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Generator

import pytest

from redfs.storage_node.pacing import AVERAGED_S, LEAST_UNDER_WAY, LINGER_S, MAX_REST_S, Courtesy, RateLimit


class Clock:
    """Moves only when somebody waits, or works."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def move(self, seconds: float) -> None:
        self.now_s += seconds


class Workers:
    """Background workers in turns: each begins a piece as soon as it may, which takes `piece_s`."""

    def __init__(self, clock: Clock, piece_s: float) -> None:
        self.clock = clock
        self.piece_s = piece_s
        self.rest_s = 0.0
        self.busy_s = 0.0
        self.pieces = 0
        self.longest_rest_s = 0.0
        self.courtesy = Courtesy(clock, self._note_rest)

    def _note_rest(self, seconds: float) -> None:
        self.rest_s = seconds

    def _worker(self) -> Generator[float, None, None]:
        """Yields how long until its next step."""
        while True:
            self.rest_s = 0.0
            self.courtesy.give_way()
            self.longest_rest_s = max(self.longest_rest_s, self.rest_s)
            if self.rest_s:
                yield self.rest_s
            yield self.piece_s
            self.busy_s += self.piece_s
            self.pieces += 1
            self.courtesy.worked(self.piece_s)

    def run(self, count: int, for_s: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        workers = [self._worker() for _ in range(count)]
        due = [(self.clock.now_s, i) for i in range(count)]
        end_s = self.clock.now_s + for_s
        while due[0][0] < end_s:
            at_s, i = heapq.heappop(due)
            self.clock.now_s = max(self.clock.now_s, at_s)
            meanwhile()
            heapq.heappush(due, (self.clock.now_s + next(workers[i]), i))


@pytest.mark.parametrize("count", [1, 4, 16])
def test_clients_keep_at_least_half(count: int) -> None:
    """Beside a client's request that is always under way, one piece at most is, on average."""
    clock = Clock()
    workers = Workers(clock, piece_s=0.05)
    with workers.courtesy.serving_client():
        clock.move(10 * AVERAGED_S)
        workers.run(count, for_s=100)
    assert workers.busy_s <= 100 * 1.02
    assert workers.busy_s >= 100 * 0.45, "and it is not starved"


@pytest.mark.parametrize(("busy_s", "at_once", "share"), [(0.005, 1, LEAST_UNDER_WAY), (0.07, 1, 0.7), (0.1, 3, 1.0)])
def test_where_clients_have_less_under_way_a_piece_is_paid_for_with_more_rest(
    busy_s: float, at_once: int, share: float
) -> None:
    """So many requests at once, for so long in each tenth of a second."""
    clock = Clock()
    rests: list[float] = []
    courtesy = Courtesy(clock, rests.append)
    for _ in range(round(10 * AVERAGED_S / 0.1)):
        with contextlib.ExitStack() as requests:
            for _ in range(at_once):
                requests.enter_context(courtesy.serving_client())
            clock.move(busy_s)
        clock.move(0.1 - busy_s)
    courtesy.worked(0.5)
    courtesy.give_way()
    assert rests == [pytest.approx(0.5 / share, rel=0.1)]


def test_without_clients_there_is_no_rest() -> None:
    clock = Clock()
    workers = Workers(clock, piece_s=0.05)
    workers.run(4, for_s=100)
    assert workers.longest_rest_s == 0
    assert workers.busy_s == pytest.approx(4 * 100, rel=0.01)


def test_clients_that_come_in_bursts_count_and_those_that_left_do_not() -> None:
    clock = Clock()
    workers = Workers(clock, piece_s=0.05)

    def ask() -> None:
        with workers.courtesy.serving_client():
            pass

    workers.run(1, for_s=10, meanwhile=ask)
    assert workers.busy_s == pytest.approx(10 * LEAST_UNDER_WAY / (1 + LEAST_UNDER_WAY), rel=0.05)
    clock.move(LINGER_S)
    before_s, workers.longest_rest_s = workers.busy_s, 0.0
    workers.run(1, for_s=10)
    assert workers.longest_rest_s == 0
    assert workers.busy_s - before_s == pytest.approx(10, rel=0.05)


def test_no_rest_is_endless() -> None:
    clock = Clock()
    workers = Workers(clock, piece_s=30.0)
    with workers.courtesy.serving_client():
        workers.run(16, for_s=1000)
    assert 0 < workers.longest_rest_s <= MAX_REST_S
    assert workers.pieces > 16


def test_a_rate_is_kept_in_pieces_of_any_size() -> None:
    clock = Clock()
    rate = RateLimit(1000, clock, clock.move)
    began_s = clock.now_s
    taken = 0
    for size in (1, 5000, 10, 0, 999) * 20:
        rate.take(size)
        # A piece may begin when those before it are paid for.
        assert taken <= 1000 * (clock.now_s - began_s) + 1e-6
        taken += size
    assert clock.now_s - began_s == pytest.approx((taken - 999) / 1000)
    clock.move(3600)
    rate.take(500)
    before_s = clock.now_s
    rate.take(1)
    assert clock.now_s - before_s == pytest.approx(0.5), "an hour without work is not saved up"


def test_no_rate_is_no_limit() -> None:
    rate = RateLimit(0, Clock(), lambda seconds: pytest.fail("waited"))
    for _ in range(3):
        rate.take(1 << 40)
