"""Schedules on the command line, against a fake coordinator."""

from __future__ import annotations

import pytest

from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator

pytestmark = pytest.mark.usefixtures("coordinator")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("1h", 3600), ("2d", 172_800), ("1w", 604_800), ("90s", 90), ("75", 75)]
)
def test_intervals(redfs: CommandLine, coordinator: FakeCoordinator, text: str, seconds: int) -> None:
    redfs("volume", "create", "photos")
    assert redfs("snapshot", "schedule", "photos", "--every", text, "--keep", "3").code == 0
    assert coordinator.calls[-1] == pb.Schedule(volume="photos", every_s=seconds, keep=3)


def test_what_is_no_interval_says_how_to_write_one(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    for text in ("soon", "1.5h", "-1h", "1y", "h", ""):
        refused = redfs("snapshot", "schedule", "photos", "--every", text, "--keep", "3")
        assert refused.code == 2
        assert "90m" in refused.err
    for words in (("--every", "1h"), ("--keep", "3"), ("--every", "1h", "--keep", "0")):
        assert redfs("snapshot", "schedule", "photos", *words).code == 2
    assert redfs("snapshot", "schedule", "photos@one", "--every", "1h", "--keep", "3").code == 2
    assert coordinator.schedules == []


def test_schedules_are_made_listed_and_ended(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    redfs("volume", "create", "mail")
    assert "snapshot schedule VOLUME" in redfs("snapshot", "schedules").out
    made = redfs("snapshot", "schedule", "photos", "--every", "1h", "--keep", "24")
    assert made.out.startswith("A snapshot photos@hourly-... every 1h, the newest 24 stay; the next at ")
    redfs("snapshot", "schedule", "mail", "--every", "90m", "--keep", "2", "--label", "often")
    assert coordinator.calls[-1].label == "often"
    coordinator.schedules[1].last_error = "'mail' has 4096 snapshots already"
    lines = redfs("snapshot", "schedules").out.splitlines()
    assert lines[0].split() == ["VOLUME", "LABEL", "EVERY", "KEEP", "NEXT", "LAST", "ERROR"]
    assert lines[1].split()[:4] == ["photos", "hourly", "1h", "24"]
    assert lines[2].endswith("'mail' has 4096 snapshots already")
    assert len(redfs("snapshot", "schedules", "mail").out.splitlines()) == 2
    (data,) = redfs("snapshot", "schedules", "mail", "--json").json()
    assert (data["every_s"], data["keep"], data["label"]) == (5400, 2, "often")
    ended = redfs("snapshot", "unschedule", "photos")
    assert ended.out == "No more hourly snapshots of photos; those that there are stay\n"
    assert redfs("snapshot", "unschedule", "photos", "--label", "hourly").code == 3
    assert [s.volume for s in coordinator.schedules] == ["mail"]
    assert redfs("snapshot", "schedule", "nothing", "--every", "1h", "--keep", "2").code == 3
