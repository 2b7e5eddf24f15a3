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
    assert (said.code, said.out) == (0, "Cleaning in the background: `redfs jobs` shows how far that is\n")
    assert redfs("clean", "--json").json()["kind"] == "clean"


def test_cleaning_is_waited_for(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    left = ["two", "one"]

    def goes_on() -> None:
        left.pop()

    def ends() -> None:
        left.pop()
        coordinator.status.jobs.pop()

    coordinator.happenings = [goes_on, ends]
    said = redfs("clean", "--wait")
    assert (said.code, said.out, said.err) == (0, "Nothing is left to clean\n", "")
    assert left == []
