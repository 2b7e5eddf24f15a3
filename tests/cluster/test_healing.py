"""Nodes die for good, are replaced, and are taken away, under a load that verifies what it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.faults import Faults
from tests.cluster.rig import Cluster, Running
from tests.cluster.run import replace_two

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(500)]

FreshCluster = Callable[..., Cluster]
OUT_S = 8.0


def begin(cluster: Cluster) -> Running:
    client = cluster.client("client")
    with cluster.api() as pool:
        pool.create_volume("files", protection="ec:4+2")
    cluster.mount(client, "files")
    return cluster.start_load(client, "files", 1)


def test_two_nodes_die_for_good_and_are_replaced(fresh_cluster: FreshCluster) -> None:
    """Two new ones come; what lay on the old ones is made anew, and then any two more may die."""
    cluster = fresh_cluster(6, f"down_out_s={OUT_S}")
    load = begin(cluster)
    load.progress(40)
    replace_two(cluster, load, ("node-0", "node-3"))
    load.progress(10)
    load.stop_unharmed()
    load.check()
    cluster.assert_clean()
    # Nothing depends on the dead any more: two others may go.
    Faults(cluster).kill("node-1", "node-2")
    load.check()


def test_a_node_is_drained_under_load(fresh_cluster: FreshCluster) -> None:
    cluster = fresh_cluster(7)
    load = begin(cluster)
    load.progress(40)
    client = cluster.client("client")
    number = str(cluster.node_id("node-2"))
    cluster.must(client, "redfs", "node", "drain", number, "--wait")
    cluster.must(client, "redfs", "node", "remove", number, "--yes")
    cluster.container("node-2").remove(force=True)
    load.progress(10)
    load.stop_unharmed()
    load.check()
    cluster.wait_until_healthy()
    cluster.assert_clean()
