"""Nodes die for good, are replaced, and are taken away, under a load that verifies what it reads.

The tests share a cluster, in which a node that is away for some seconds is given up.
"""

from __future__ import annotations

import itertools

import pytest

from tests.cluster import run
from tests.cluster.faults import Faults
from tests.cluster.rig import Cluster, Running, wait_for
from tests.cluster.run import replace_two

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(500)]

_numbers = itertools.count(1)


def begin(cluster: Cluster) -> Running:
    number = next(_numbers)
    return run.begin(cluster, number, f"files-{number}")


def begin_beside_files_that_stay(cluster: Cluster) -> tuple[Running, Running]:
    """The load's own files come and go so fast that a node would be empty soon, whether they are moved or not."""
    still = begin(cluster)
    still.progress(40)
    still.stop_unharmed()
    return still, begin(cluster)


def test_a_network_that_fails_gives_no_nodes_up(impatient_cluster: Cluster) -> None:
    """The coordinator is cut off from all nodes for longer than a node may be away."""
    cluster = impatient_cluster
    load = begin(cluster)
    faults = Faults(cluster)
    faults.cut("coordinator", *cluster.node_names())
    wait_for(lambda: "too many to be given up" in " ".join(cluster.status().problems), "nodes away for too long")
    assert set(cluster.states().values()) == {"down"}
    faults.connect("coordinator")
    cluster.wait_for_nodes(len(cluster.node_names()))
    load.progress(10)
    load.stop_unharmed()
    load.check()
    cluster.remove_volume(load.volume)


def test_a_node_is_drained_under_load(impatient_cluster: Cluster) -> None:
    cluster = impatient_cluster
    still, load = begin_beside_files_that_stay(cluster)
    cluster.add_node()
    cluster.wait_for_nodes(len(cluster.node_names()))
    client = cluster.client("client")
    number = str(cluster.node_id("node-2"))
    cluster.must(client, "redfs", "node", "drain", number, "--wait")
    cluster.must(client, "redfs", "node", "remove", number, "--yes")
    cluster.take_away("node-2")
    load.progress(10)
    load.stop_unharmed()
    cluster.wait_until_healthy()
    cluster.assert_clean()
    # Nothing depends on it any more: two others may go.
    Faults(cluster).kill("node-0", "node-3")
    still.check()
    load.check()
    Faults(cluster).restart("node-0", "node-3")
    cluster.remove_volume(still.volume)
    cluster.remove_volume(load.volume)


def test_two_nodes_die_for_good_and_are_replaced(impatient_cluster: Cluster) -> None:
    """Two new ones come; what lay on the old ones is made anew, and then any two more may die."""
    cluster = impatient_cluster
    still, load = begin_beside_files_that_stay(cluster)
    dying = cluster.node_names()[:2]
    new = replace_two(cluster, load, dying)
    assert set(cluster.node_names()) >= set(new)
    load.progress(10)
    load.stop_unharmed()
    cluster.assert_clean()
    # Nothing depends on the dead any more: two others may go.
    others = cluster.node_names()[:2]
    Faults(cluster).kill(*others)
    still.check()
    load.check()
    Faults(cluster).restart(*others)
    cluster.remove_volume(still.volume)
    cluster.remove_volume(load.volume)
