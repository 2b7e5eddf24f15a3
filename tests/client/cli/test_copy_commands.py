"""`redfs cp`: how places are written, and what is told."""

from __future__ import annotations

import pytest

from redfs.proto.gen import cluster_pb2 as pb

from .conftest import CommandLine
from .fake_coordinator import FakeCoordinator


@pytest.fixture(autouse=True)
def volumes(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    for words in (("volume", "create", "photos"), ("snapshot", "create", "photos@before")):
        assert redfs(*words).code == 0
    coordinator.calls.clear()


def test_places_are_a_node_and_a_path(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    done = redfs("cp", "photos@before:/a:b/c", "photos:new place")
    assert done.code == 0, done.err
    assert done.out == "Copied 1,234 files, 5.6 GiB, without copying data: photos:new place\n"
    request = pb.CopyFiles(
        source="photos@before", source_path=b"/a:b/c", target="photos", target_path=b"new place", replace=False
    )
    assert coordinator.calls == [request]
    assert redfs("cp", "photos@before:", "photos:/taken", "--replace").code == 0
    assert coordinator.calls[1] == pb.CopyFiles(
        source="photos@before", source_path=b"/", target="photos", target_path=b"/taken", replace=True
    )


def test_names_of_any_bytes_go_through(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    odd = b"photos:/\xff b".decode("utf-8", "surrogateescape")
    done = redfs("--json", "cp", odd, odd)
    assert done.json() == {"files": 1234, "bytes": 6_000_000_000, "path": "/%FF%20b", "unattended": False}
    assert coordinator.calls[0].source_path == coordinator.calls[0].target_path == b"/\xff b"
    assert "photos:/\ufffd b" in redfs("cp", odd, odd).out


@pytest.mark.parametrize("place", ["photos", ":/a", "/a", ""])
def test_what_is_no_place_is_said(redfs: CommandLine, coordinator: FakeCoordinator, place: str) -> None:
    for words in ((place, "photos:/a"), ("photos:/a", place)):
        done = redfs("cp", *words)
        assert done.code == 2
        assert "names no place" in done.err
    assert not coordinator.calls


def test_errors_are_those_of_who_copies(redfs: CommandLine) -> None:
    done = redfs("cp", "photos:/a", "photos:/taken")
    assert (done.code, done.err) == (4, "redfs: it exists already\n")
    assert redfs("cp", "nothing:/a", "photos:/b").code == 3
