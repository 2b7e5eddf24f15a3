"""`redfs node drain, in, out, remove` and `redfs rebalance`: what is asked, waited for and said."""

from __future__ import annotations

import pytest

from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator

pytestmark = pytest.mark.usefixtures("coordinator")


def test_a_node_is_drained_and_waited_for(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    assert "in the background" in redfs("node", "drain", "1").out
    assert coordinator.calls[-1] == pb.NodeControl(node_id=1, action="drain")
    coordinator.status.jobs.clear()
    done = []

    def goes_on() -> None:
        coordinator.status.jobs[0].done_bytes += 1
        done.append("on")

    def ends() -> None:
        coordinator.status.jobs.pop()
        done.append("end")

    coordinator.happenings = [goes_on, ends]
    waited = redfs("node", "drain", "1", "--wait")
    assert waited.out == "Node 1 is empty: `redfs node remove 1` forgets it\n"
    assert done == ["on", "end"]
    assert redfs("node", "in", "1", "--json").json()["state"] == "up"


def test_a_drain_that_somebody_ended_is_not_said_to_be_done(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    def cancelled() -> None:
        coordinator.status.jobs.pop()
        coordinator.nodes[0].state = "up"

    coordinator.happenings = [cancelled]
    ended = redfs("node", "drain", "1", "--wait")
    assert (ended.code, ended.out) == (6, "")
    assert "was let in again" in ended.err


def test_a_node_is_removed_only_when_asked_for_and_empty(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    assert "is out" in redfs("node", "out", "1").out
    coordinator.calls.clear()
    assert redfs("node", "remove", "1").code != 0
    assert coordinator.calls == [], "nobody said yes"
    coordinator.nodes[0].segments = 3
    refused = redfs("node", "remove", "1", "--yes")
    assert (refused.code, refused.err) == (6, "redfs: node 1 still has shards\n")
    coordinator.nodes[0].segments = 0
    assert redfs("node", "remove", "1", "--yes").out == "Node 1 is removed; its disk can be wiped\n"
    assert coordinator.calls[-1] == pb.NodeControl(node_id=1, action="remove")
    assert redfs("node", "out", "9").code == 3


def test_a_rebalance_is_started_and_waited_for(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    assert "in the background" in redfs("rebalance").out
    assert coordinator.calls[-1] == pb.JobStart(kind="rebalance")
    assert redfs("rebalance", "--json").json()["kind"] == "rebalance"
    coordinator.status.jobs.clear()

    def ends() -> None:
        coordinator.status.jobs.pop()

    coordinator.happenings = [ends]
    assert redfs("rebalance", "--wait").out == "The nodes are level\n"


def test_how_nodes_are_shown(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    coordinator.nodes[0].state = "suspect"
    coordinator.nodes[0].last_seen_s = 2.0
    assert "suspect" in redfs("node", "ls").out
    coordinator.nodes[0].state = "out"
    coordinator.nodes[0].last_seen_s = 700.0
    assert "out, seen 11 min 40 s ago" in redfs("node", "ls").out
