"""`redfs scrub`, and what the status says of scrubs."""

from __future__ import annotations

from redfs.client.cli.scrub_commands import last_scrub_text
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import BORN_NS, FakeCoordinator


def test_a_scrub_is_started_and_goes_on_in_the_background(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    done = redfs("scrub")
    assert (done.code, done.out) == (0, "Scrubbing: job 20, see `redfs jobs`\n")
    assert coordinator.calls == [pb.JobStart(kind="scrub")]
    assert redfs("scrub", "--json").json()["kind"] == "scrub"


def test_waiting_ends_with_the_scrub_and_says_what_it_found(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    coordinator.status.scrub.CopyFrom(pb.Scrub(ended_ns=BORN_NS, shards=1))

    def end() -> None:
        del coordinator.status.jobs[:]
        coordinator.status.scrub.CopyFrom(pb.Scrub(ended_ns=BORN_NS + 1, shards=12_345, bytes=5 << 30, bad=2))

    coordinator.happenings = [lambda: None, end]
    done = redfs("scrub", "--wait")
    assert done.code == 0, done.err
    assert "12,345 shards, 5.0 GiB, 2 bad ones found" in done.out


def test_waiting_for_one_that_is_cancelled_fails(redfs: CommandLine, coordinator: FakeCoordinator) -> None:

    def end() -> None:
        del coordinator.status.jobs[:]

    coordinator.happenings = [end]
    done = redfs("scrub", "--wait")
    assert done.code == 7
    assert "cancelled" in done.err


def test_the_status_says_what_the_last_scrub_found(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    assert "Nothing was scrubbed yet" in redfs("status").out
    coordinator.status.scrub.CopyFrom(pb.Scrub(ended_ns=BORN_NS, shards=7, bytes=1 << 20))
    assert "7 shards, 1.0 MiB, all of them good" in redfs("status").out
    assert redfs("--json", "status").json()["scrub"]["shards"] == 7
    text = last_scrub_text(pb.Scrub(ended_ns=BORN_NS, shards=1, bytes=10, bad=1), BORN_NS / 1e9 + 90)
    assert text == "Last scrub 1 min 30 s ago: 1 shard, 10 B, 1 bad one found"
