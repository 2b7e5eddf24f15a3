"""Healing, without processes: nodes die, come back, flap and are emptied, and every shard ends where it should be."""

from __future__ import annotations

from functools import partial

import pytest

from redfs.coordinator import job_starts, jobs, node_control, nodes, segments
from redfs.coordinator.cluster import DOWN, DRAINING, OUT, SUSPECT, UP
from redfs.coordinator.healing import commands
from redfs.coordinator.healing.backoff import MAX_BACKOFF_S, MAX_HELD, Backoff
from redfs.coordinator.healing.commands import Bad, Made, Recorded
from redfs.coordinator.healing.healing import REFRESH_S, Answer
from redfs.coordinator.jobs import ShownJob
from redfs.coordinator.status import pool_status
from redfs.core.errors import InvalidArgument, NoSpace, NotAllowed, NotFound, Unavailable, WrongFormat
from redfs.core.healing import Work
from redfs.core.records import SLOT_BYTES, Piece
from redfs.core.tables import DAMAGE, DOOMED, JobKind, NodeState, decode_damage
from tests.coordinator.harness import SHARD_BYTES, NewBlock, slot_record
from tests.coordinator.healed_pool import HealedPool

OUT_S = 600.0
SEGMENTS_THERE = 12


def shown_jobs(pool: HealedPool) -> dict[str, ShownJob]:
    return {job.kind: job for job in pool_status(pool.coordinator).jobs}


def damage(pool: HealedPool) -> int:
    with pool.coordinator.read() as kv:
        return sum(1 for _ in kv.scan(DAMAGE, b"", b"\xff" * 11))


def remove(pool: HealedPool, node_id: int) -> None:
    """As the service does it."""
    cluster = pool.coordinator.cluster
    changes = cluster.state_changes(node_id)
    with pool.coordinator.read() as kv:
        row = node_control.require_not_in(kv, node_id)
    count = node_control.count_segments(pool.coordinator.read, node_id)
    if count:
        raise node_control.refuse_to_remove(node_id, row, count)
    while pool.coordinator.execute(partial(node_control.forget_doomed, node_id=node_id)):
        continue
    pool.coordinator.execute(lambda txn: node_control.remove(txn, node_id, changes))
    pool.streams.pop(node_id)
    pool.disks.pop(node_id, None)
    pool.dead.discard(node_id)


# ---------------------------------------------------------------- a node dies


def test_what_a_dead_node_held_is_made_on_the_others() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    held = pool.shards_on(1)
    assert held
    pool.kill(1)
    pool.run(OUT_S - 10)
    assert pool.given == [], "it may come back"
    status = pool_status(pool.coordinator)
    assert (status.health, status.redundancy.endangered, status.redundancy.critical) == ("degraded", held, 0)
    assert any("lost 1 of their 6 shards: they are made anew in 10 s if node 1 does not" in p for p in status.problems)
    pool.run(15)
    assert pool.state(1) == NodeState.LOST
    pool.run(10)
    assert len(pool.given) == held, "each of them once"
    assert pool.shards_on(1) == 0
    pool.assert_all_there()
    status = pool_status(pool.coordinator)
    assert (status.health, status.problems, status.jobs, status.shards_to_delete) == ("ok", [], [], 0)
    assert max(pool.most_at_once.values()) <= pool.config.heal_tasks_per_node
    remove(pool, 1)
    assert pool.problems() == []
    hello = nodes.Hello("", 1, "disk-0", "host:0", 1, "", "")
    with pytest.raises(WrongFormat, match="was removed"):
        pool.coordinator.execute(lambda txn: nodes.register(txn, hello))


def test_a_node_that_returns_in_time_only_catches_up() -> None:
    pool = HealedPool()
    client = pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    rows = pool.rows()
    pool.kill(1)
    pool.run(OUT_S / 2)
    client.renew()
    client.write({(10, 0): None})
    pool.come_back(1)
    pool.run(OUT_S)
    assert pool.given == []
    assert all(pool.rows()[segment] == rows[segment] for segment in pool.rows())
    assert len(pool.rows()) == len(rows) - 1
    pool.assert_all_there()


def test_a_node_that_flaps_causes_nothing_and_is_away_all_the_while() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    given_up = []
    for round_number in range(120):
        pool.kill(1)
        pool.run(3)
        if 7 * round_number + 3 < OUT_S:
            assert pool.given == []
        pool.come_back(1)
        pool.run(4)
        given_up.append(pool.state(1) == NodeState.LOST)
    assert not any(given_up[: int(OUT_S // 7) - 1])
    assert all(given_up[int(OUT_S // 7) + 1 :]), "up for less than node_down_s each time: it never was well"
    assert not any(task.step.target == 1 for task in pool.given)
    pool.run(10)
    assert pool.state(1) == NodeState.IN, "it stays up: it is in again"
    pool.until(lambda: not pool_status(pool.coordinator).jobs)
    pool.run(20)
    pool.assert_all_there()
    assert pool_status(pool.coordinator).problems == []


def test_a_node_that_was_given_up_comes_back_and_what_was_made_elsewhere_is_deleted_there() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    had = len(pool.disks[1])
    pool.kill(1)
    pool.run(OUT_S + 30)
    assert pool.shards_on(1) == 0
    pool.come_back(1)
    assert pool.shown(1) == OUT
    assert len(pool.disks[1]) == had
    pool.run(20)
    assert pool.state(1) == NodeState.IN
    assert pool.disks[1] == set()
    pool.assert_all_there()


def test_many_nodes_away_at_once_are_not_given_up_by_time_alone() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    pool.kill(1, 2, 3)
    pool.run(3 * OUT_S)
    assert {pool.state(n) for n in (1, 2, 3)} == {NodeState.IN}
    assert pool.given == []
    status = pool_status(pool.coordinator)
    assert status.health == "failed"
    assert status.redundancy.lost
    assert any("3 of 7 nodes are away, too many" in p for p in status.problems)
    assert any("cannot be read" in p and "node 1 or node 2 or node 3" in p for p in status.problems)
    pool.control(1, "out")
    pool.run(10)
    assert {pool.state(n) for n in (2, 3)} == {NodeState.LOST}, "two away at once are what the pool bears"
    lost = pool_status(pool.coordinator).redundancy.lost
    assert lost, "and what has too few shards left waits for them"
    pool.come_back(2)
    pool.come_back(3)
    pool.until(lambda: pool_status(pool.coordinator).redundancy.endangered == 0)
    pool.run(20)
    pool.assert_all_there()
    assert pool_status(pool.coordinator).health == "ok"


def test_the_most_endangered_segments_come_first() -> None:
    pool = HealedPool(9)
    pool.fill("v", "ec:4+2", 40)
    pool.kill(1, 2)
    rows = pool.rows()
    pool.run(OUT_S + 10)
    assert pool.given
    losses = [len({1, 2}.intersection(rows[task.step.segment_id].nodes)) for task in pool.given]
    both = [n for n, row in rows.items() if {1, 2} <= set(row.nodes)]
    first = {task.step.segment_id for task in pool.given[: len(both)]}
    assert losses[: len(both)] == [2] * len(both)
    assert first == set(both), "each of them once before any gets its second"
    pool.run(10)
    pool.assert_all_there()


def test_a_failed_disk_is_replaced_at_once() -> None:
    pool = HealedPool()
    pool.fill("v", "mirror:2", SEGMENTS_THERE)
    pool.coordinator.execute(lambda txn: nodes.set_failed(txn, 1))
    pool.run(10)
    assert pool.shards_on(1) == 0
    pool.run(10)
    pool.assert_all_there()


def test_too_few_nodes_leave_shards_where_they_are_and_say_so() -> None:
    pool = HealedPool(6)
    pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    pool.fill("m", "mirror:3", SEGMENTS_THERE)
    pool.kill(1)
    pool.run(OUT_S + 60)
    rows = pool.rows().values()
    assert all(1 in row.nodes for row in rows if row.layout.width == 6)
    assert not any(1 in row.nodes for row in rows if row.layout.width == 3), "those that find a place have one"
    said = pool_status(pool.coordinator).problems
    assert any("of segments on up to 6 nodes each: add a node" in p for p in said)
    pool.add_node(6)
    pool.run(30)
    pool.assert_all_there()
    assert pool.shards_on(1) == 0


def test_a_restart_in_the_middle_goes_on() -> None:
    pool = HealedPool(heal_tasks_per_node=1)
    pool.fill("v", "ec:4+2", 30)
    pool.kill(1)
    pool.run(OUT_S - 1)
    while pool.state(1) == NodeState.IN:
        pool.run(0.5)
    assert len(pool.give()) > 2, "tasks that are under way when it dies"
    assert pool.shards_on(1)
    pool.restart()
    pool.run(30)
    assert pool.shards_on(1) == 0
    pool.assert_all_there()


# ---------------------------------------------------------------- drain, out, in, remove


def test_a_drained_node_is_emptied_and_can_be_removed() -> None:
    pool = HealedPool()
    client = pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    held = pool.shards_on(1)
    with pytest.raises(NotAllowed, match="redfs node drain 1 --wait"):
        remove(pool, 1)
    pool.control(1, "drain")
    pool.control(1, "drain")
    assert (pool.shown(1), shown_jobs(pool)["drain"].subject) == (DRAINING, "node 1")
    with pytest.raises(NotAllowed, match=f"still has shards of {held} segments, which are being moved away"):
        remove(pool, 1)
    client.renew()
    client.write({(10, 99): "written meanwhile"})
    assert pool.shards_on(1) == held, "nothing new comes there"
    for node, segment, shard in ((n, s, i) for s, row in pool.rows().items() for i, n in enumerate(row.nodes)):
        pool.disks.setdefault(node, set()).add((segment, shard))
    endangered = []
    while pool.shards_on(1):
        pool.run(0.5)
        endangered.append(pool_status(pool.coordinator).redundancy.endangered)
    assert max(endangered) == 0, "full protection all the while"
    assert all(task.step.reads_from == (1,) for task in pool.given)
    pool.run(20)
    assert shown_jobs(pool) == {}
    pool.assert_all_there()
    view = next(n for n in pool.coordinator.cluster.view() if n.node_id == 1)
    assert node_control.allowed_actions(view.row, 0) == ("in", "out", "remove")
    remove(pool, 1)
    assert 1 not in pool.coordinator.cluster.states()
    with pool.coordinator.read() as kv:
        assert kv.first(DOOMED, b"", b"\xff" * 15) is None
    with pytest.raises(NotFound):
        pool.control(1, "in")
    pool.run(5)
    assert pool.problems() == []


def test_a_node_is_not_empty_while_somebody_may_still_write_there() -> None:
    pool = HealedPool()
    client = pool.fill("v", "mirror:2", 2)
    opened = client.open_segments(3)
    node = opened[0][1].nodes[0]
    pool.control(node, "drain")
    for _ in range(4):
        pool.run(8)
        client.renew()
    assert shown_jobs(pool)["drain"].subject == f"node {node}"
    with pytest.raises(NotAllowed, match="still has shards"):
        remove(pool, node)
    pool.coordinator.execute(
        lambda txn: segments.abort_segments(txn, client.session_id, [number for number, _ in opened])
    )
    pool.run(20)
    assert shown_jobs(pool) == {}
    remove(pool, node)
    pool.assert_all_there()


def test_what_is_committed_on_a_node_after_it_was_taken_out_is_made_up_for_at_once() -> None:
    pool = HealedPool()
    client = pool.fill("v", "mirror:2", 2)
    opened = client.open_segments(12)
    out = opened[0][1].nodes[0]
    late, kept = [segment for segment in opened if out in segment[1].nodes][:2]
    others = [number for number, _ in opened if number not in (late[0], kept[0])]
    pool.coordinator.execute(lambda txn: segments.abort_segments(txn, client.session_id, others))
    pool.control(out, "out")
    for _ in range(4):
        pool.run(8)
        client.renew()
    assert pool.shards_on(out) == 2, "both are open"
    book = pool.coordinator.env.redundancy
    last = book.last
    pool.until(lambda: book.last is not last)
    client.renew()
    request, ids = client.request([NewBlock("late")], segment=late)
    client.send(request._replace(records=[slot_record(10, 50, (Piece(0, SLOT_BYTES, ids[0], 0),))]))
    for shard, node in enumerate(late[1].nodes):
        pool.disks.setdefault(node, set()).add((late[0], shard))
    pool.run(2)
    assert pool.shards_on(out) == 1
    assert late[0] in pool.rows()
    # Whoever wants to remove the node sees within seconds that nothing is left there.
    client.renew()
    pool.coordinator.execute(lambda txn: segments.abort_segments(txn, client.session_id, [kept[0]]))
    pool.run(REFRESH_S + 2)
    assert book.segments_on(out) == 0
    pool.assert_all_there()


def test_a_node_that_was_in_use_in_between_is_not_removed() -> None:
    pool = HealedPool()
    pool.fill("v", "mirror:2", 2)
    pool.control(1, "out")
    pool.run(20)
    changes = pool.coordinator.cluster.state_changes(1)
    assert node_control.count_segments(pool.coordinator.read, 1) == 0
    pool.control(1, "in")
    pool.control(1, "out")
    with pytest.raises(NotAllowed, match="in between"):
        pool.coordinator.execute(lambda txn: node_control.remove(txn, 1, changes))
    remove(pool, 1)


def test_a_drain_is_paused_over_a_restart_and_ends_with_cancel() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 30)
    pool.control(1, "drain")
    job = shown_jobs(pool)["drain"]
    pool.coordinator.execute(lambda txn: jobs.control_job(txn, job.job_id, "pause"))
    held = pool.shards_on(1)
    pool.run(30)
    assert pool.shards_on(1) == held
    assert shown_jobs(pool)["drain"].total_bytes == held * SHARD_BYTES
    pool.restart()
    pool.run(30)
    assert (pool.shards_on(1), pool.given) == (held, [])
    assert shown_jobs(pool)["drain"].state == "paused"
    pool.coordinator.execute(lambda txn: jobs.control_job(txn, job.job_id, "resume"))
    pool.until(lambda: pool.shards_on(1) < held)
    now = shown_jobs(pool)["drain"]
    assert now.done == held - pool.shards_on(1)
    assert now.done_bytes == now.done * SHARD_BYTES
    assert now.total_bytes == held * SHARD_BYTES
    pool.coordinator.execute(lambda txn: jobs.control_job(txn, job.job_id, "cancel"))
    assert pool.state(1) == NodeState.IN
    left, given = pool.shards_on(1), len(pool.given)
    pool.run(30)
    assert (pool.shards_on(1), len(pool.given)) == (left, given)
    pool.assert_all_there()


def test_a_rebuild_can_be_paused_and_not_cancelled() -> None:
    pool = HealedPool(heal_tasks_per_node=1)
    pool.fill("v", "ec:4+2", 60)
    pool.control(1, "out")
    pool.until(lambda: "rebuild" in shown_jobs(pool))
    job = shown_jobs(pool)["rebuild"]
    assert job.allowed == ("pause",)
    with pytest.raises(NotAllowed, match="pause it instead"):
        pool.coordinator.execute(lambda txn: jobs.control_job(txn, job.job_id, "cancel"))
    pool.coordinator.execute(lambda txn: jobs.control_job(txn, job.job_id, "pause"))
    given = len(pool.given)
    pool.run(20)
    assert len(pool.given) == given
    said = pool_status(pool.coordinator).problems
    assert any(f"the rebuild is paused, `redfs job resume {job.job_id}` lets it go on" in p for p in said)
    pool.coordinator.execute(lambda txn: jobs.control_job(txn, job.job_id, "resume"))
    pool.until(lambda: pool.shards_on(1) == 0)


def test_what_may_be_asked_of_a_node() -> None:
    pool = HealedPool(3)
    with pytest.raises(InvalidArgument, match="use drain, in, out or remove"):
        pool.control(1, "explode")
    with pytest.raises(NotFound):
        pool.control(9, "drain")
    pool.control(1, "out")
    assert pool.shown(1) == OUT
    with pytest.raises(NotAllowed, match="nothing to drain"):
        pool.control(1, "drain")
    pool.control(1, "in")
    assert pool.shown(1) == UP


def test_a_drained_node_that_dies_is_out_and_stays_out() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", SEGMENTS_THERE)
    pool.fails = lambda given: NoSpace("not now")
    pool.control(1, "drain")
    pool.run(5)
    pool.kill(1)
    pool.fails = lambda given: None
    pool.run(OUT_S + 20)
    assert pool.state(1) == NodeState.OUT
    assert pool.shards_on(1) == 0
    pool.come_back(1)
    pool.run(30)
    assert pool.state(1) == NodeState.OUT
    assert shown_jobs(pool) == {}
    pool.assert_all_there()


# ---------------------------------------------------------------- damage


def test_a_damaged_shard_is_repaired_in_place() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 3)
    segment, row = next(iter(pool.rows().items()))
    pool.coordinator.execute(lambda txn: nodes.report_damage(txn, segment, 1, "checksum"))
    assert damage(pool) == 1
    pool.run(1)
    (given,) = pool.given
    assert (given.step.work, given.step.source, given.step.target) == (Work.REPAIR, row.nodes[1], row.nodes[1])
    assert given.step.unusable == (1,)
    pool.run(2)
    assert damage(pool) == 0
    assert pool.rows()[segment] == row
    assert shown_jobs(pool) == {}
    pool.assert_all_there()


def test_what_cannot_be_repaired_in_place_is_made_elsewhere() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 3)
    segment, row = next(iter(pool.rows().items()))
    bad = row.nodes[1]
    pool.fails = lambda given: NoSpace("full") if given.step.target == bad else None
    pool.coordinator.execute(lambda txn: nodes.report_damage(txn, segment, 1, "checksum"))
    pool.run(12)
    assert [given.step.target == bad for given in pool.given] == [True, False]
    assert damage(pool) == 0
    assert pool.rows()[segment].nodes[1] != bad
    pool.run(20)
    pool.assert_all_there()


def test_a_source_that_is_bad_is_remembered_and_passed_over() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 1)
    ((segment, row),) = pool.rows().items()
    pool.control(row.nodes[0], "out")
    pool.clock.now_s += 1
    pool.beat()
    pool.look()
    (given,) = pool.give()
    bad = Bad(segment, 3, row.nodes[3], "checksum", False)
    assert pool.answer(given, Answer(Unavailable("too few"), (bad,))) is None
    with pool.coordinator.read() as kv:
        (found,) = [decode_damage(raw) for _, raw in kv.scan(DAMAGE, b"", b"\xff" * 11)]
    assert found.node_id == row.nodes[3]
    pool.run(30)
    assert any(3 in task.step.unusable for task in pool.given[1:])
    pool.run(20)
    pool.assert_all_there()
    assert damage(pool) == 0


def test_damage_that_is_told_of_a_place_where_the_shard_was_is_none() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 1)
    ((segment, row),) = pool.rows().items()
    other = next(n for n in pool.streams if n not in row.nodes)
    pool.coordinator.execute(lambda txn: commands.report_bad(txn, [Bad(segment, 0, other, "x", True)]))
    pool.coordinator.execute(lambda txn: commands.report_bad(txn, [Bad(segment + 1, 0, other, "x", True)]))
    assert damage(pool) == 0


def test_failures_are_tried_again_less_and_less_often() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 1)
    ((segment, row),) = pool.rows().items()
    pool.fails = lambda given: Unavailable("broken")
    pool.control(row.nodes[0], "out")
    pool.run(3000)
    assert 8 < len(pool.given) < 20
    pool.fails = lambda given: None
    pool.run(MAX_BACKOFF_S + 30)
    assert row.nodes[0] not in pool.rows()[segment].nodes
    backoff = Backoff()
    for number in range(2 * MAX_HELD):
        backoff.failed((number, 0), 1, 0.0)
    assert len(backoff.segments(1.0)) == MAX_HELD


# ---------------------------------------------------------------- what happens meanwhile


def first_made(pool: HealedPool) -> Made:
    """A task under way: shard 0 of the only segment, from its node to the one that has none."""
    ((segment, row),) = pool.rows().items()
    other = next(n for n in pool.streams if n not in row.nodes)
    pool.disks.setdefault(other, set()).add((segment, 0))
    return Made(Work.REBUILD, segment, 0, row.nodes[0], other)


def record(pool: HealedPool, made: Made) -> Recorded:
    return pool.coordinator.execute(lambda txn: commands.record_made(txn, made))


def test_a_shard_of_a_segment_that_died_meanwhile_is_deleted() -> None:
    pool = HealedPool()
    client = pool.fill("v", "ec:4+2", 1)
    made = first_made(pool)
    client.write({(10, 0): None})
    assert pool.rows() == {}
    assert record(pool, made) is Recorded.GONE
    pool.run(20)
    assert not any(pool.disks.values())


def test_a_shard_that_moved_meanwhile_stays_where_it_is() -> None:
    pool = HealedPool(8)
    pool.fill("v", "ec:4+2", 1)
    made = first_made(pool)
    third = next(n for n in pool.streams if n not in (*pool.rows()[made.segment_id].nodes, made.target))
    pool.disks.setdefault(third, set()).add((made.segment_id, 0))
    assert record(pool, made._replace(target=third)) is Recorded.DONE
    assert record(pool, made) is Recorded.GONE
    assert pool.rows()[made.segment_id].nodes[0] == third
    pool.run(20)
    pool.assert_all_there()


def test_an_answer_that_is_recorded_twice_changes_nothing() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 1)
    made = first_made(pool)
    assert record(pool, made) is Recorded.DONE
    assert record(pool, made) is Recorded.DONE
    pool.run(20)
    pool.assert_all_there()


def test_a_shard_whose_deletion_waits_there_is_not_recorded() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 1)
    made = first_made(pool)
    back = Made(Work.REBUILD, made.segment_id, 0, made.target, made.source)
    assert record(pool, made) is Recorded.DONE
    assert record(pool, back) is Recorded.REFUSED, "the deletion would take it"
    pool.run(20)
    pool.assert_all_there()
    pool.disks[made.source].add((made.segment_id, 0))
    assert record(pool, back) is Recorded.DONE, "it was deleted: now it can be made anew"


def test_a_target_that_was_taken_out_meanwhile_gets_nothing() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 1)
    made = first_made(pool)
    pool.control(made.target, "drain")
    assert record(pool, made) is Recorded.REFUSED
    pool.run(20)
    pool.assert_all_there()


def test_a_node_that_is_back_meanwhile_loses_what_was_made_elsewhere() -> None:
    pool = HealedPool()
    pool.fill("v", "ec:4+2", 1)
    ((segment, row),) = pool.rows().items()
    pool.kill(row.nodes[0])
    pool.run(OUT_S - 5)
    while not (given := pool.healing.under_way):
        pool.clock.now_s += 0.5
        pool.beat()
        with pool.coordinator.read() as kv:
            ticked = pool.healing.tick(kv)
        for command in ticked:
            pool.coordinator.execute(command)
        pool.look()
        pool.give()
    pool.come_back(row.nodes[0])
    for _ in range(20):
        pool.clock.now_s += 0.5
        pool.beat()
        with pool.coordinator.read() as kv:
            ticked = pool.healing.tick(kv)
        for command in ticked:
            pool.coordinator.execute(command)
    assert pool.state(row.nodes[0]) == NodeState.IN
    assert pool.carry_out(given[0]) is Recorded.DONE
    pool.run(20)
    pool.assert_all_there()
    assert pool.rows()[segment].nodes[0] == given[0].step.target


# ---------------------------------------------------------------- rebalance


def test_a_rebalance_fills_a_new_node_and_ends() -> None:
    pool = HealedPool(7)
    pool.fill("v", "ec:4+2", 120)
    new = pool.add_node(7)
    pool.run(10)
    assert pool.given == [], "nobody has asked for it"
    pool.coordinator.execute(lambda txn: job_starts.start_job(txn, "rebalance"))
    pool.coordinator.execute(lambda txn: job_starts.start_job(txn, "rebalance"))
    assert shown_jobs(pool)["rebalance"].allowed == ("pause", "cancel")
    pool.until(lambda: shown_jobs(pool) == {})
    pool.run(20)
    counts = {node: pool.shards_on(node) for node in pool.streams}
    share = 120 * 6 / 8
    assert share * 0.9 < counts[new] <= share + 1
    assert max(counts.values()) < share * 1.1
    assert {task.step.work for task in pool.given} == {Work.REBALANCE}
    pool.assert_all_there()
    given = len(pool.given)
    pool.coordinator.execute(lambda txn: job_starts.start_job(txn, "rebalance"))
    pool.until(lambda: shown_jobs(pool) == {})
    assert len(pool.given) - given <= 2, "it is level"
    with pytest.raises(InvalidArgument, match="rebalance"):
        pool.coordinator.execute(lambda txn: job_starts.start_job(txn, "explode"))


def test_jobs_on_shards_are_never_run_by_the_state_thread() -> None:
    pool = HealedPool()
    pool.coordinator.execute(lambda txn: jobs.ensure_job(txn, JobKind.REBALANCE, 0, "all nodes"))
    assert not pool.coordinator.background_step()
    assert not pool.coordinator.has_jobs


# ---------------------------------------------------------------- states


def test_how_a_node_is_shown() -> None:
    pool = HealedPool(4)
    assert pool.shown(1) == UP
    pool.clock.now_s += 2.4
    assert pool.shown(1) == UP
    pool.clock.now_s += 0.2
    assert pool.shown(1) == SUSPECT, "two reports are missing"
    pool.beat()
    assert pool.shown(1) == UP
    pool.kill(1)
    assert pool.shown(1) == SUSPECT, "its stream is lost"
    pool.clock.now_s += pool.config.node_down_s
    assert pool.shown(1) == DOWN
    pool.beat()
    pool.control(2, "drain")
    assert pool.shown(2) == DRAINING
    pool.control(2, "out")
    pool.control(1, "out")
    assert (pool.shown(1), pool.shown(2)) == (OUT, OUT)


def test_a_node_gets_no_work_before_it_was_compared() -> None:
    pool = HealedPool(4)
    cluster = pool.coordinator.cluster
    stream = pool.streams[1] = cluster.attached(1, cluster.view()[0].row)
    for _ in range(20):
        pool.clock.now_s += 1
        pool.beat()
    assert not cluster.facts()[1].takes
    cluster.compared(1, stream - 1)
    assert not cluster.facts()[1].takes, "that was on another stream"
    cluster.compared(1, stream)
    assert cluster.facts()[1].takes


def test_a_node_gets_no_work_before_it_was_up_for_long_enough() -> None:
    pool = HealedPool(4)
    cluster = pool.coordinator.cluster
    pool.streams[1] = cluster.attached(1, cluster.view()[0].row)
    cluster.compared(1, pool.streams[1])
    pool.beat()
    for _ in range(4):
        pool.clock.now_s += 1
        pool.beat()
        assert cluster.facts()[1].up
        assert not cluster.facts()[1].takes
    pool.clock.now_s += 1
    pool.beat()
    assert cluster.facts()[1].takes
