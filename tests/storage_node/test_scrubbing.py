"""Scrubs: everything that is wrong on the disk is found, in order, at the rate that was ordered."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redfs.core.errors import Corrupt
from redfs.proto.gen import cluster_pb2 as pb
from redfs.storage_node import scrubbing as module
from redfs.storage_node.backing_file import file_name
from redfs.storage_node.cancel import Cancel, Cancelled
from redfs.storage_node.disk import PAGE_BYTES
from redfs.storage_node.pacing import Courtesy, RateLimit
from redfs.storage_node.scrubbing import REPORT_S, Scrubbing, scrub_shards
from redfs.storage_node.shard_store import ShardStore, StoreLimits
from tests.storage_node.rig import Rig
from tests.storage_node.task_rig import WAIT_S, Node, payload_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def move(self, seconds: float) -> None:
        self.now_s += seconds


def scrub(
    store: ShardStore, *, after: int = 0, bytes_per_s: int = 0, clock: Clock | None = None, cancel: Cancel | None = None
) -> list[pb.ShardsScrubbed]:
    """All reports of a scrub."""
    clock = clock or Clock()
    reports: list[pb.NodeReport] = []
    order = pb.ScrubShards(scrub_id=5, after_segment=after, bytes_per_s=bytes_per_s)
    rate = RateLimit(bytes_per_s, clock, clock.move)
    scrub_shards(store, order, rate, Courtesy(clock, clock.move), cancel or Cancel(), reports.append, clock)
    return [report.scrubbed for report in reports]


def bad_in(reports: list[pb.ShardsScrubbed]) -> list[tuple[int, int, bool]]:
    return [(b.segment_id, b.shard, b.missing) for report in reports for b in report.bad]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "disk", 3, StoreLimits(capacity_bytes=64 << 20, reserve_bytes=0, file_bytes=96 << 10))
    yield made
    made.stop_serving()
    made.store.close()


def fill(node: Node, count: int = 12) -> None:
    """Shards 0 and 1 of segments 1 to `count`, some four segments in a file."""
    for segment in range(1, count + 1):
        for shard in (0, 1):
            node.put(segment, shard, payload_of(10 * segment + shard, 8000 + segment))


def test_a_disk_on_which_all_is_well(node: Node) -> None:
    fill(node)
    (report,) = scrub(node.store)
    total = sum(2 * (8000 + segment) for segment in range(1, 13))
    assert (report.scrub_id, report.upto_segment, report.shards, report.bytes) == (5, 12, 24, total)
    assert report.done
    assert not report.bad


def test_an_empty_disk_is_scrubbed_at_once(node: Node) -> None:
    (report,) = scrub(node.store, after=7)
    assert (report.done, report.shards, report.upto_segment) == (True, 0, 7)


def test_a_flipped_bit_a_damaged_header_and_a_cut_off_file_are_found(node: Node) -> None:
    fill(node)
    node.damage(2, 1, at=8001)
    node.damage(3, 0, at=-PAGE_BYTES + 60)
    path, offset = node.place(12, 1)
    with path.open("r+b") as file:
        file.truncate(offset + 100)
    assert bad_in(scrub(node.store)) == [(2, 1, False), (3, 0, False), (12, 1, False)]
    for segment, shard in ((2, 1), (3, 0)):
        node.put(segment, shard, payload_of(10 * segment + shard, 8000 + segment))
    assert bad_in(scrub(node.store)) == [(12, 1, False)]


def test_a_removed_backing_file_is_found_though_it_is_open(node: Node) -> None:
    fill(node)
    path, _ = node.place(5, 0)
    inside = [key for key in node.held() if node.place(*key)[0] == path]
    path.unlink()
    assert bad_in(scrub(node.store)) == [(*key, True) for key in inside]
    assert len(inside) > 2


def test_nothing_more_is_written_to_a_file_that_somebody_removed(node: Node) -> None:
    node.put(1, 0, b"x" * 100)
    (node.folder / file_name(1)).unlink()
    assert bad_in(scrub(node.store)) == [(1, 0, True)]
    node.put(2, 0, b"y" * 100)
    assert node.place(2, 0)[0].exists()
    node.put(1, 0, b"x" * 100)
    assert node.place(1, 0)[0].exists()
    assert bad_in(scrub(node.store)) == []


def test_what_is_only_right_in_memory_is_found() -> None:
    """The page cache must not vouch for the disk."""
    rig = Rig()
    rig.start()
    rig.put(1, 0, payload_of(1, 20_000))
    rig.disk.flip_bit(file_name(1), PAGE_BYTES + 9000, in_memory=False)
    rig.store.verify(1, 0)
    assert bad_in(scrub(rig.store)) == [(1, 0, False)]
    with pytest.raises(Corrupt):
        rig.store.verify(1, 0)


def test_it_goes_on_after_any_report(node: Node) -> None:
    """Wherever a scrub is cut off, the next one from there on checks every shard that this one has not told of."""
    fill(node)
    for segment in (1, 4, 5, 12):
        node.damage(segment, 1)
    clock = Clock()
    whole = scrub(node.store, bytes_per_s=10_000, clock=clock)
    assert len(whole) > 5
    everything = {(1, 1, False), (4, 1, False), (5, 1, False), (12, 1, False)}
    for cut_off in range(len(whole)):
        seen = whole[: cut_off + 1]
        rest = scrub(node.store, after=seen[-1].upto_segment)
        assert {*bad_in(seen), *bad_in(rest)} == everything
        expected = 24 - 2 * seen[-1].upto_segment
        assert sum(r.shards for r in rest) == expected
    assert [r.done for r in whole] == [False] * (len(whole) - 1) + [True]
    assert sum(r.shards for r in whole) == 24


def test_the_rate_is_not_passed_and_reports_come_every_few_seconds(node: Node) -> None:
    fill(node)
    clock = Clock()
    began_s = clock.now_s
    reports = scrub(node.store, bytes_per_s=12_288, clock=clock)  # a record of three pages a second
    assert 23 <= clock.now_s - began_s <= 24
    assert len(reports) == int(23 / REPORT_S) + 1
    assert max(r.shards for r in reports) <= REPORT_S + 1


def test_many_bad_ones_are_told_in_messages_of_bounded_size(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BAD", 3)
    fill(node)
    for key in node.held():
        node.damage(*key)
    reports = scrub(node.store)
    assert [len(r.bad) for r in reports] == [3] * 8
    assert len(bad_in(reports)) == 24


def test_a_shard_that_was_deleted_meanwhile_is_not_bad(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(node, count=3)
    real = ShardStore.verify

    def verify(store: ShardStore, segment: int, shard: int, *, fresh: bool = False) -> None:
        if (segment, shard) == (2, 0):
            store.delete([(2, 0)])
        real(store, segment, shard, fresh=fresh)

    monkeypatch.setattr(ShardStore, "verify", verify)
    assert bad_in(scrub(node.store)) == []


def test_a_cancelled_scrub_ends(node: Node) -> None:
    fill(node, count=2)
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(Cancelled):
        scrub(node.store, cancel=cancel)


# ---------------------------------------------------------------- one at a time


@pytest.fixture
def scrubbing(node: Node) -> Iterator[Scrubbing]:
    made = Scrubbing(node.store, Courtesy())
    yield made
    made.stop()


SLOW = 1
"""A byte a second: it goes on until it is given up."""


def test_a_new_scrub_takes_the_place_of_the_one_before(
    node: Node, scrubbing: Scrubbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(node, count=3)
    began = queue.Queue[int]()
    at_once: list[int] = []
    running = threading.Semaphore(1)
    real = module.scrub_shards

    def noting(*args: object) -> tuple[int, int]:
        order = args[1]
        assert isinstance(order, pb.ScrubShards)
        at_once.append(order.scrub_id)
        assert running.acquire(blocking=False), "one at a time"
        began.put(order.scrub_id)
        try:
            return real(*args)  # type: ignore[arg-type]
        finally:
            running.release()

    monkeypatch.setattr(module, "scrub_shards", noting)
    reports: queue.Queue[pb.NodeReport] = queue.Queue()
    owner = object()
    scrubbing.begin(pb.ScrubShards(scrub_id=1, bytes_per_s=SLOW), reports.put, owner)
    assert began.get(timeout=WAIT_S) == 1
    scrubbing.begin(pb.ScrubShards(scrub_id=2), reports.put, owner)
    found = reports.get(timeout=WAIT_S).scrubbed
    assert (found.scrub_id, found.done, found.shards) == (2, True, 6)
    assert reports.empty()


def test_a_scrub_ends_with_its_owner_or_when_it_is_cancelled(node: Node, scrubbing: Scrubbing) -> None:
    fill(node, count=3)
    reports: queue.Queue[pb.NodeReport] = queue.Queue()
    first, second = object(), object()
    scrubbing.begin(pb.ScrubShards(scrub_id=1, bytes_per_s=SLOW), reports.put, first)
    scrub_1 = scrubbing._now
    assert scrub_1 is not None
    scrubbing.give_up(second)
    scrubbing.give_up(first, 9)
    assert scrubbing._now is scrub_1
    scrubbing.give_up(first, 1)
    assert scrub_1.thread is not None
    scrub_1.thread.join(WAIT_S)
    assert not scrub_1.thread.is_alive()
    scrubbing.begin(pb.ScrubShards(scrub_id=2, bytes_per_s=SLOW), reports.put, second)
    scrub_2 = scrubbing._now
    assert scrub_2 is not None
    scrubbing.give_up(second)
    assert scrub_2.thread is not None
    scrub_2.thread.join(WAIT_S)
    assert not scrub_2.thread.is_alive()
    assert reports.empty()
