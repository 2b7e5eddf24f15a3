"""`redfs clean` against a fake coordinator."""

from __future__ import annotations

import pytest

from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator

pytestmark = pytest.mark.usefixtures("coordinator")


def test_cleaning_begins_in_the_background(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    said = redfs("clean")
    assert coordinator.calls == [pb.JobStart(kind="clean")]
    (job,) = coordinator.status.jobs
    assert (said.code, said.out) == (0, f"Cleaning as job {job.job_id}: `redfs jobs` tells how far it is\n")
    assert redfs("clean", "--json").json()["job_id"] == job.job_id


def test_cleaning_is_waited_for(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    left = ["two", "one"]

    def goes_on() -> None:
        left.pop()

    def ends() -> None:
        left.pop()
        coordinator.status.jobs.pop()

    coordinator.happenings = [goes_on, ends]
    said = redfs("clean", "--wait")
    assert (said.code, said.out, said.err) == (0, "Cleaned: nothing is left that pays to pack\n", "")
    assert left == []
