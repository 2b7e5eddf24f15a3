"""Each fault under a load that verifies what it reads: no request fails, and all that was acknowledged is there.

The rows of docs/faults.md name these tests.
"""

from __future__ import annotations

import itertools

import pytest

from tests.cluster.faults import Faults
from tests.cluster.rig import Client, Cluster, Running

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

_numbers = itertools.count(1)


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return cluster.client("client")


@pytest.fixture
def load(cluster: Cluster, client: Client) -> Running:
    """Files being written to a new volume that survives the loss of two nodes."""
    number = next(_numbers)
    volume = f"volume-{number}"
    with cluster.api() as pool:
        pool.create_volume(volume, protection="ec:4+2")
    cluster.mount(client, volume)
    return cluster.start_load(client, volume, number)


def finish(load: Running) -> None:
    """Nothing failed, everything acknowledged is there; then the volume goes, for the next test's sake."""
    load.stop_unharmed()
    load.check()
    load.cluster.remove_volume(load.volume)


# ---------------------------------------------------------------- processes


def test_two_nodes_are_killed_and_come_back(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.kill("node-0", "node-3")
    load.progress(20)
    cluster.wait_for_nodes(4)
    assert cluster.status().health == "degraded"
    load.progress(10)
    faults.restart("node-0", "node-3")
    cluster.wait_for_nodes(6)
    load.progress(10)
    finish(load)


def test_two_nodes_freeze_and_go_on(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.freeze("node-1", "node-4")
    load.progress(20)
    cluster.wait_for_nodes(4)
    faults.thaw("node-1", "node-4")
    cluster.wait_for_nodes(6)
    load.progress(10)
    finish(load)


def test_the_coordinator_is_killed_and_comes_back(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.kill("coordinator")
    faults.restart("coordinator")
    load.progress(20)
    cluster.wait_for_nodes(6)
    finish(load)
