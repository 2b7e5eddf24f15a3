"""The engine and the image, once for all tests; a cluster that they share, and one in which nodes may go for good.

A shared cluster goes with the first test that fails on it, with all that the test has left running or broken; the next
test gets another one. So one failure is one failure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator

import pytest
from docker import DockerClient

from redfs.core.errors import Unavailable
from tests.cluster.engine import ensure_image, running_engine, why_none
from tests.cluster.faults import Faults
from tests.cluster.rig import Cluster, remove_leftovers

NODES = 6
OUT_S = 8.0
_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures want to know how their test ended."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


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


class Shared:
    """The cluster that tests share; made when one wants it."""

    def __init__(self, make: Callable[[], Cluster]) -> None:
        self._make = make
        self._cluster: Cluster | None = None

    def get(self) -> Cluster:
        """The one that is there, or a new one."""
        if self._cluster is None:
            self._cluster = self._make()
            try:
                self._cluster.up()
            except BaseException:
                self.drop()
                raise
        return self._cluster

    def drop(self) -> None:
        """Takes it away, with everything that runs in it."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.destroy()


@pytest.fixture(scope="session")
def shared(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(lambda: Cluster(engine, tmp_path_factory.mktemp("cluster"), NODES))
    try:
        yield made
    finally:
        made.drop()


@pytest.fixture(scope="module")
def shared_impatient(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(lambda: Cluster(engine, tmp_path_factory.mktemp("impatient"), NODES, [f"down_out_s={OUT_S}"]))
    try:
        yield made
    finally:
        made.drop()


@pytest.fixture
def cluster(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Six nodes. A test has a volume of its own; after it everything runs, and `redfs check --data` is clean."""
    with _lent(shared, request) as cluster:
        yield cluster


@pytest.fixture
def impatient_cluster(shared_impatient: Shared, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The same, where a node that is away for OUT_S is given up. Nodes may go for good, as long as others come."""
    with _lent(shared_impatient, request) as cluster:
        yield cluster


@contextlib.contextmanager
def _lent(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = shared.get()
    good = False
    try:
        yield cluster
        if not request.node.stash.get(_failed, False):
            Faults(cluster).heal()
            cluster.wait_for_nodes(len(cluster.node_names()))
            cluster.wait_until_healthy()
            cluster.assert_clean()
            good = True
    finally:
        if not good:
            shared.drop()


@pytest.fixture
def faults(cluster: Cluster) -> Iterator[Faults]:
    made = Faults(cluster)
    try:
        yield made
    finally:
        made.heal()
