"""The engine and the image, once for all tests; a cluster that they share, and others for tests that use one up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from redfs.core.errors import Unavailable
from tests.cluster.engine import ensure_image, running_engine, why_none
from tests.cluster.faults import Faults
from tests.cluster.rig import Cluster, remove_leftovers

NODES = 6


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    reason = why_none()
    if reason is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(running_engine())
        except Unavailable as error:
            pytest.skip(str(error))
        remove_leftovers(client)
        ensure_image()
        yield client


@pytest.fixture(scope="session")
def shared_cluster(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(engine, tmp_path_factory.mktemp("cluster"), NODES)
    try:
        made.up()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Six nodes. A test has a volume of its own; after it everything runs, and `redfs check --data` is clean."""
    yield shared_cluster
    faults = Faults(shared_cluster)
    faults.heal()
    shared_cluster.wait_for_nodes(shared_cluster.nodes)
    shared_cluster.assert_clean()


@pytest.fixture
def faults(cluster: Cluster) -> Iterator[Faults]:
    made = Faults(cluster)
    try:
        yield made
    finally:
        made.heal()


@pytest.fixture
def fresh_cluster(engine: DockerClient, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes a cluster for one test, which may use it up."""
    with contextlib.ExitStack() as stack:

        def make(nodes: int, *settings: str, disk_bytes: int | None = None) -> Cluster:
            folder = tmp_path / f"cluster-{nodes}"
            folder.mkdir()
            more = {} if disk_bytes is None else {"disk_bytes": disk_bytes}
            made = Cluster(engine, folder, nodes, settings, **more)
            stack.callback(made.destroy)
            made.up()
            return made

        yield make
