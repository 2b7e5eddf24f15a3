"""Scrubs: one job over all nodes, resumed after anything, paused, cancelled, due by the clock; its result is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from redfs.coordinator import jobs, nodes, scrub
from redfs.coordinator.convert import to_job
from redfs.coordinator.job_starts import start_job
from redfs.coordinator.jobs import ShownJob
from redfs.coordinator.node_tasks import NodeTasks
from redfs.coordinator.scrub import AGAIN_S, Scrubber, find_scrub, last_scrub, progress_on
from redfs.coordinator.status import pool_status
from redfs.core.errors import Busy, InvalidArgument, NoSpace, NotFound, Unavailable
from redfs.core.tables import (
    ALL_U64,
    DAMAGE,
    SEGMENTS,
    DamageRow,
    JobRow,
    LastScrubRow,
    NodeState,
    ScrubRow,
    SegmentState,
    decode_damage,
    decode_segment,
    decode_u64,
)
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Client, Pool

DAY_S = 86400.0


class Node:
    """A node's stream: keeps the orders and answers when told to."""

    def __init__(self, node_id: int, tasks: NodeTasks) -> None:
        self.node_id = node_id
        self.tasks = tasks
        self.orders: list[pb.NodeOrder] = []
        tasks.stream_opened(node_id, self.send)

    async def send(self, order: pb.NodeOrder) -> None:
        self.orders.append(order)

    def taken(self) -> list[pb.NodeOrder]:
        """Orders since the last look."""
        orders, self.orders = self.orders, []
        return orders

    def scrub_order(self) -> pb.ScrubShards:
        (order,) = self.taken()
        assert order.HasField("scrub_shards")
        return order.scrub_shards

    def tell(self, scrub_id: int, upto: int, shards: int = 0, bad: tuple[pb.BadShard, ...] = (), **more: Any) -> None:
        self.tasks.scrubbed(
            self.node_id,
            pb.ShardsScrubbed(scrub_id=scrub_id, upto_segment=upto, shards=shards, bytes=100 * shards, bad=bad, **more),
        )

    def hang_up(self) -> None:
        self.tasks.stream_closed(self.node_id, self.send)


class Rig:
    """A pool, its scrubber, and what passes between it and the nodes."""

    def __init__(self, node_count: int = 2, **settings: Any) -> None:
        self.pool = Pool(node_count, **settings)
        self.fail_next: list[Exception] = []
        self.compared: list[int] = []
        """Nodes whose inventory was taken."""
        self.missing: int | Exception = 0
        """What the next inventories say."""
        self._surround()

    def _surround(self) -> None:
        self.tasks = NodeTasks()
        self.scrubber = Scrubber(self.pool.coordinator, self._run, self.tasks, self._take_inventory)
        self.nodes = {node_id: Node(node_id, self.tasks) for node_id in self.pool.streams}

    async def _run(self, command: Callable[[Any], Any]) -> Any:
        if self.fail_next:
            raise self.fail_next.pop()
        return self.pool.coordinator.execute(command)

    async def _take_inventory(self, node_id: int) -> int:
        self.compared.append(node_id)
        if isinstance(self.missing, Exception):
            raise self.missing
        return self.missing

    def restart(self) -> None:
        self.pool.restart()
        self._surround()

    async def look(self) -> None:
        await self.scrubber.look()
        await settle()

    def start(self) -> JobRow:
        return self.pool.coordinator.execute(lambda txn: start_job(txn, "scrub"))[1]

    def control(self, action: str) -> None:
        job = self.job()
        assert job is not None
        self.pool.coordinator.execute(lambda txn: jobs.control_job(txn, job.job_id, action))

    def job(self) -> JobRow | None:
        with self.pool.coordinator.read() as kv:
            return find_scrub(kv)

    def shown(self) -> ShownJob:
        (found,) = [job for job in pool_status(self.pool.coordinator).jobs if job.kind == "scrub"]
        return found

    def progress(self, node_id: int) -> ScrubRow:
        job = self.job()
        assert job is not None
        with self.pool.coordinator.read() as kv:
            return progress_on(kv, job.job_id, node_id)

    def last(self) -> LastScrubRow:
        with self.pool.coordinator.read() as kv:
            return last_scrub(kv)

    def damage(self) -> dict[tuple[int, int], DamageRow]:
        with self.pool.coordinator.read() as kv:
            rows = kv.scan(DAMAGE, b"", b"\xff" * 11)
            return {
                (int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")): decode_damage(raw)
                for key, raw in rows
            }


async def settle() -> None:
    """Everything that can go on without news has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def end(rig: Rig) -> None:
    await rig.scrubber._stop()


async def test_all_nodes_are_scrubbed_and_the_result_is_kept() -> None:
    rig = Rig(2, scrub_bytes_per_s=1_000_000)
    assert rig.last() == LastScrubRow()
    job = rig.start()
    assert rig.start().job_id == job.job_id, "one at a time"
    await rig.look()
    orders = {node_id: node.scrub_order() for node_id, node in rig.nodes.items()}
    assert all((order.after_segment, order.bytes_per_s) == (0, 1_000_000) for order in orders.values())
    rig.nodes[1].tell(orders[1].scrub_id, upto=7, shards=3)
    rig.nodes[2].tell(orders[2].scrub_id, upto=9, shards=5, done=True)
    await rig.look()
    assert rig.progress(1) == ScrubRow(job.job_id, 7, 3, 300, 0, False)
    assert rig.progress(2) == ScrubRow(job.job_id, 9, 5, 500, 0, True)
    shown = rig.shown()
    assert (shown.state, shown.done, shown.done_bytes, shown.allowed) == ("running", 8, 800, ("pause", "cancel"))
    assert to_job(shown).kind == "scrub"
    rig.nodes[1].tell(orders[1].scrub_id, upto=20, shards=2, done=True)
    await settle()
    rig.pool.pass_time(60)
    await rig.look()
    assert rig.job() is None
    assert rig.last() == LastScrubRow(rig.pool.clock.time_ns(), 10, 1000, 0)
    assert not any(node.taken() for node in rig.nodes.values())


async def test_damage_that_is_found_is_remembered_where_it_is() -> None:
    rig = Rig(6)
    rig.pool.create("v", "ec:4+2")
    client = Client(rig.pool, "v")
    client.create_file("f", 10, 1)
    client.write({(10, 0): "word"})
    with rig.pool.coordinator.read() as kv:
        rows = {decode_u64(key): decode_segment(raw) for key, raw in kv.scan(SEGMENTS, b"", ALL_U64)}
    (segment,) = [number for number, row in rows.items() if row.state == SegmentState.COMMITTED]
    shards = {node_id: rig.pool.shard_on(node_id, segment) for node_id in rig.nodes}
    rig.start()
    await rig.look()
    order = rig.nodes[3].scrub_order()
    bad = (
        pb.BadShard(segment_id=segment, shard=shards[3], reason="flipped", missing=False),
        pb.BadShard(segment_id=segment, shard=shards[4], reason="it is another's by now", missing=False),
        pb.BadShard(segment_id=segment + 100, shard=0, reason="deleted", missing=False),
    )
    rig.nodes[3].tell(order.scrub_id, upto=segment, shards=9, bad=bad)
    order = rig.nodes[5].scrub_order()
    gone = pb.BadShard(segment_id=segment, shard=shards[5], reason="gone", missing=True)
    rig.nodes[5].tell(order.scrub_id, upto=segment, shards=1, bad=(gone,))
    await settle()
    found = rig.damage()
    assert {key: (row.node_id, row.reason, row.missing) for key, row in found.items()} == {
        (segment, shards[3]): (3, "flipped", False),
        (segment, shards[5]): (5, "gone", True),
    }
    await end(rig)


async def test_what_a_node_lacks_is_looked_for_and_counted() -> None:
    """A node reads what it holds, so an inventory finds what it does not."""
    rig = Rig(2)
    rig.start()
    rig.missing = 3
    await rig.look()
    assert sorted(rig.compared) == [1, 2]
    for node in rig.nodes.values():
        node.tell(node.scrub_order().scrub_id, upto=7, shards=5, done=True)
    await settle()
    await rig.look()
    assert rig.job() is None
    assert rig.last()[1:] == (10, 1000, 6)


async def test_a_node_that_does_not_say_what_it_holds_is_asked_again() -> None:
    rig = Rig(1)
    rig.start()
    rig.missing = Unavailable("node 1 lost its stream")
    await rig.look()
    assert rig.nodes[1].taken() == []
    rig.missing = 0
    rig.pool.pass_time(AGAIN_S)
    await rig.look()
    assert rig.nodes[1].scrub_order().after_segment == 0
    assert rig.compared == [1, 1]
    await end(rig)


async def test_many_bad_shards_are_taken_in_a_few_at_a_time_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(1)
    monkeypatch.setattr(scrub, "MAX_BAD_AT_ONCE", 4)
    told: list[int] = []
    real = scrub.advance

    def noting(txn: Any, job_id: int, node_id: int, step: scrub.Step) -> bool:
        told.append(len(step.found))
        return real(txn, job_id, node_id, step)

    monkeypatch.setattr(scrub, "advance", noting)
    rig.start()
    await rig.look()
    order = rig.nodes[1].scrub_order()
    bad = tuple(pb.BadShard(segment_id=i, shard=0) for i in range(10))
    rig.nodes[1].tell(order.scrub_id, upto=5, shards=10, bad=bad)
    await settle()
    assert told == [4, 4, 2]
    row = rig.progress(1)
    assert (row.bad, row.shards, row.upto_segment) == (10, 10, 5)
    await end(rig)


async def test_it_goes_on_from_there_after_a_restart_of_the_coordinator() -> None:
    rig = Rig(2)
    job = rig.start()
    await rig.look()
    one, two = rig.nodes[1].scrub_order(), rig.nodes[2].scrub_order()
    rig.nodes[1].tell(one.scrub_id, upto=7, shards=3)
    rig.nodes[2].tell(two.scrub_id, upto=9, shards=5, done=True)
    await settle()
    await end(rig)
    rig.restart()
    await rig.look()
    again = rig.nodes[1].scrub_order()
    assert again.after_segment == 7
    assert rig.nodes[2].taken() == [], "it is done there"
    rig.nodes[1].tell(again.scrub_id, upto=11, shards=1, done=True)
    await settle()
    await rig.look()
    assert rig.job() is None
    assert rig.last()[1:] == (9, 900, 0)
    assert job.started_ns > 0


async def test_a_node_that_lost_its_stream_goes_on_when_it_is_back() -> None:
    rig = Rig(2)
    rig.start()
    await rig.look()
    order = rig.nodes[1].scrub_order()
    rig.nodes[1].tell(order.scrub_id, upto=7, shards=3)
    await settle()
    rig.nodes[1].hang_up()
    rig.pool.lose(1)
    await settle()
    rig.pool.clock.now_s += AGAIN_S
    await rig.look()
    assert rig.nodes[1].taken() == []
    rig.pool.report_again(1)
    rig.nodes[1] = Node(1, rig.tasks)
    await rig.look()
    assert rig.nodes[1].scrub_order().after_segment == 7
    await end(rig)


async def test_a_scrub_that_was_broken_off_is_not_given_again_at_once() -> None:
    rig = Rig(1)
    rig.start()
    await rig.look()
    rig.nodes[1].scrub_order()
    rig.nodes[1] = Node(1, rig.tasks)  # a newer stream
    await rig.look()
    await rig.look()
    assert rig.nodes[1].taken() == []
    rig.pool.pass_time(AGAIN_S)
    await rig.look()
    assert rig.nodes[1].scrub_order().after_segment == 0
    await end(rig)


async def test_what_could_not_be_written_is_scrubbed_again() -> None:
    """The coordinator's disk is full."""
    rig = Rig(1)
    rig.start()
    await rig.look()
    order = rig.nodes[1].scrub_order()
    rig.nodes[1].tell(order.scrub_id, upto=7, shards=3)
    await settle()
    rig.fail_next.append(NoSpace("the metadata disk is full"))
    rig.nodes[1].tell(order.scrub_id, upto=9, shards=2)
    await settle()
    (cancel,) = rig.nodes[1].taken()
    assert cancel.cancel_task.task_id == order.scrub_id
    rig.pool.pass_time(AGAIN_S)
    await rig.look()
    assert rig.nodes[1].scrub_order().after_segment == 7
    await end(rig)


async def test_pausing_stops_the_nodes_and_resuming_goes_on_from_there() -> None:
    rig = Rig(2)
    rig.start()
    await rig.look()
    order = rig.nodes[1].scrub_order()
    rig.nodes[2].scrub_order()
    rig.nodes[1].tell(order.scrub_id, upto=7, shards=3)
    await settle()
    rig.control("pause")
    await rig.look()
    for node in rig.nodes.values():
        (cancel,) = node.taken()
        assert cancel.HasField("cancel_task")
    assert rig.shown().state == "paused"
    with pytest.raises(Busy, match="resume"):
        rig.start()
    rig.nodes[1].tell(order.scrub_id, upto=8, shards=3)
    await settle()
    await end(rig)
    rig.restart()
    await rig.look()
    assert rig.nodes[1].taken() == []
    rig.control("resume")
    await rig.look()
    assert rig.nodes[1].scrub_order().after_segment == 7
    assert rig.nodes[2].scrub_order().after_segment == 0
    await end(rig)


async def test_cancelling_ends_it_and_the_next_one_begins_anew() -> None:
    rig = Rig(1)
    first = rig.start()
    await rig.look()
    order = rig.nodes[1].scrub_order()
    rig.nodes[1].tell(order.scrub_id, upto=7, shards=3)
    await settle()
    rig.control("cancel")
    assert rig.job() is None
    await rig.look()
    (cancel,) = rig.nodes[1].taken()
    assert cancel.cancel_task.task_id == order.scrub_id
    assert rig.last() == LastScrubRow()
    second = rig.start()
    assert second.job_id != first.job_id
    await rig.look()
    assert rig.nodes[1].scrub_order().after_segment == 0
    await end(rig)


async def test_a_cancelled_scrub_and_a_new_one_between_two_looks() -> None:
    rig = Rig(1)
    rig.start()
    await rig.look()
    order = rig.nodes[1].scrub_order()
    rig.control("cancel")
    rig.start()
    rig.nodes[1].tell(order.scrub_id, upto=7, shards=3, done=True)
    await settle()
    await rig.look()
    assert rig.progress(1) == ScrubRow(rig.progress(1).job_id), "what the old one says counts nothing"
    assert rig.shown().done == 0
    assert rig.nodes[1].scrub_order().after_segment == 0
    await end(rig)


async def test_nodes_that_are_away_are_waited_for_and_given_up_ones_are_not() -> None:
    rig = Rig(4)
    rig.start()
    rig.pool.lose(1, 2, 3)
    await rig.look()
    order = rig.nodes[4].scrub_order()
    rig.nodes[4].tell(order.scrub_id, upto=7, shards=3, done=True)
    await settle()
    await rig.look()
    assert rig.job() is not None
    rig.pool.coordinator.execute(lambda txn: nodes.set_state(txn, 1, NodeState.LOST))
    rig.pool.coordinator.execute(lambda txn: nodes.set_failed(txn, 2))
    await rig.look()
    assert rig.job() is not None
    rig.pool.coordinator.execute(lambda txn: nodes.set_state(txn, 3, NodeState.OUT))
    await rig.look()
    assert rig.job() is None
    assert rig.last().shards == 3


async def test_a_scrub_is_due_by_the_clock_and_once() -> None:
    rig = Rig(1, scrub_interval_s=14 * DAY_S)
    await rig.look()
    assert rig.job() is None, "not on the first day"
    rig.pool.pass_time(14 * DAY_S - 1)
    rig.restart()
    await rig.look()
    assert rig.job() is None
    rig.pool.pass_time(1)
    await rig.look()
    job = rig.job()
    assert job is not None
    await rig.look()
    order = rig.nodes[1].scrub_order()
    rig.pool.pass_time(3 * DAY_S)
    rig.nodes[1].tell(order.scrub_id, upto=1, done=True)
    await settle()
    await rig.look()
    assert rig.job() is None
    rig.pool.pass_time(11 * DAY_S - 1)
    await rig.look()
    assert rig.job() is None, "from beginning to beginning"
    rig.pool.pass_time(1)
    await rig.look()
    assert rig.job() is not None
    await end(rig)


async def test_one_that_somebody_asked_for_counts_for_the_clock() -> None:
    rig = Rig(1, scrub_interval_s=10 * DAY_S)
    await rig.look()
    rig.pool.pass_time(9 * DAY_S)
    rig.start()
    rig.control("cancel")
    rig.pool.pass_time(2 * DAY_S)
    await rig.look()
    assert rig.job() is None


async def test_a_clock_that_was_set_back_does_not_put_it_off_for_ever() -> None:
    rig = Rig(1, scrub_interval_s=10 * DAY_S)
    await rig.look()
    rig.pool.clock.now_s -= 400 * DAY_S
    await rig.look()
    rig.pool.pass_time(10 * DAY_S)
    await rig.look()
    assert rig.job() is not None
    await end(rig)


async def test_no_interval_is_no_scrub_by_itself() -> None:
    rig = Rig(1, scrub_interval_s=0)
    for _ in range(3):
        await rig.look()
        rig.pool.pass_time(100 * DAY_S)
    assert rig.job() is None
    rig.start()
    await rig.look()
    assert rig.nodes[1].scrub_order()
    await end(rig)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="scrub"):
        Pool(1, scrub_interval_s=-1)
    with pytest.raises(InvalidArgument, match="scrub"):
        Pool(1, scrub_bytes_per_s=100)


def test_a_scrub_does_not_take_the_turn_of_jobs_on_the_tables() -> None:
    rig = Rig(3)
    rig.pool.create("v", "mirror:2")
    client = Client(rig.pool, "v")
    client.create_file("f", 10, 3)
    client.write({(10, slot): f"word {slot}" for slot in range(3)})
    client.close()
    rig.start()
    rig.pool.delete("v")
    assert rig.pool.run_jobs() > 0
    assert [job.kind for job in pool_status(rig.pool.coordinator).jobs] == ["scrub"]
    with pytest.raises(NotFound):
        rig.pool.volume("v")
