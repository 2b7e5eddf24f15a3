"""Nodes on one file system share its room: it is counted once, however many they are."""

from __future__ import annotations

from redfs.coordinator.cluster import Cluster, Report
from redfs.coordinator.environment import CoordinatorConfig
from redfs.coordinator.nodes import stored_nodes
from redfs.core.placement import usable_plain_bytes
from redfs.core.policy import Policy
from redfs.core.tables import NodeRow
from tests.coordinator.harness import GIB, Clock, Pool

SINGLE = Policy(1, 0)


def report(pool: Pool, node: int, file_system: str, free_bytes: int = 60 * GIB) -> None:
    beat = Report(120 * GIB, 1, free_bytes, file_system=file_system)
    assert pool.coordinator.cluster.reported(node, pool.streams[node], beat)


def free_bytes(pool: Pool) -> int:
    return usable_plain_bytes([candidate.free_bytes for candidate in pool.coordinator.cluster.candidates()], SINGLE)


def test_one_file_system_is_counted_once() -> None:
    pool = Pool(6, hold_back=0.0)
    for node in pool.streams:
        report(pool, node, "host:1")
    cluster = pool.coordinator.cluster
    assert sum(view.report.capacity_bytes for view in cluster.view()) == 120 * GIB
    assert sum(view.report.free_bytes for view in cluster.view()) == 60 * GIB
    assert free_bytes(pool) == 60 * GIB
    assert cluster.total_plain_bytes(SINGLE) == 120 * GIB


def test_file_systems_of_their_own_count_whole() -> None:
    pool = Pool(2, hold_back=0.0)
    first, second = pool.streams
    report(pool, first, "host:1")
    report(pool, second, "host:2")
    assert free_bytes(pool) == 120 * GIB
    report(pool, first, "")
    report(pool, second, "")
    assert free_bytes(pool) == 120 * GIB


def test_what_one_node_writes_is_missing_to_its_neighbours() -> None:
    pool = Pool(2, hold_back=0.0)
    first, second = pool.streams
    for node in (first, second):
        report(pool, node, "host:1")
    pool.coordinator.cluster.written([first], 20 * GIB)
    rooms = {candidate.node_id: candidate.free_bytes for candidate in pool.coordinator.cluster.candidates()}
    assert rooms == {first: 20 * GIB, second: 20 * GIB}


def test_a_node_that_is_down_leaves_its_part_to_the_others() -> None:
    pool = Pool(3, hold_back=0.0)
    for node in pool.streams:
        report(pool, node, "host:1")
    lost = min(pool.streams)
    pool.lose(lost)
    assert free_bytes(pool) == 60 * GIB


def test_after_a_restart_who_is_up_means_nothing_until_all_are_back_or_time_has_gone_by() -> None:
    pool = Pool(3)
    cluster = pool.coordinator.cluster
    assert cluster.is_settled()
    pool.coordinator = pool._make()
    cluster = pool.coordinator.cluster
    assert not cluster.is_settled()
    with pool.coordinator.read() as kv:
        known = stored_nodes(kv)
    for node_id, row in known[:2]:
        pool.streams[node_id] = cluster.attached(node_id, row)
        pool.report(node_id)
    assert not cluster.is_settled(), "one is still on its way"
    pool.clock.now_s += pool.config.node_down_s
    assert cluster.is_settled(), "it is down"


def test_what_is_different_is_told_once() -> None:
    clock = Clock()
    cluster = Cluster(clock, CoordinatorConfig())
    told: list[bool] = []
    cluster.on_change = told.append
    stream = cluster.attached(1, NodeRow("disk", "host:1", "", "", 1, 0, False))
    assert told == [False]
    cluster.reported(1, stream, Report(100, 10, 90))
    assert told == [False, False], "it is up"
    cluster.reported(1, stream, Report(100, 10, 90))
    assert len(told) == 2, "it says the same"
    cluster.reported(1, stream, Report(100, 20, 80))
    assert told[2:] == [True], "only other numbers"
    clock.now_s += 100
    cluster.reported(1, stream, Report(100, 20, 80))
    assert told[3:] == [False], "it was silent for long"
    cluster.detached(1, stream - 1)
    assert len(told) == 4, "an old stream"
    cluster.detached(1, stream)
    assert told[4:] == [False]
