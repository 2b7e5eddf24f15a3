"""`redfs jobs`, `redfs job` and `--wait` against a fake coordinator."""

from __future__ import annotations

import pytest

from redfs.client.api import Pool
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator

pytestmark = pytest.mark.usefixtures("coordinator")

MIB = 1 << 20
JOB = pb.Job(
    job_id=7,
    kind="reclaim",
    state="running",
    subject="photos@one",
    done=1234,
    done_bytes=300 * MIB,
    total_bytes=1200 * MIB,
    rate=30 * MIB,
    left_s=30,
    volume_id=9,
    allowed=["pause"],
)


def test_jobs_are_listed_with_what_is_known_of_them(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    assert redfs("jobs").out == "No jobs: nothing is left to do\n"
    coordinator.status.jobs.extend(
        [
            JOB,
            pb.Job(job_id=8, kind="reap", state="waiting", subject="v", done=1, left_s=-1),
            pb.Job(job_id=9, kind="reclaim", state="paused", subject="w", done=5, done_bytes=MIB, left_s=-1),
        ]
    )
    lines = [" ".join(line.split()) for line in redfs("jobs").out.splitlines()]
    assert lines == [
        "ID JOB OF STATE PROGRESS RATE LEFT",
        "7 reclaim photos@one running 25 % of 1.2 GiB 30.0 MiB/s 30 s",
        "8 reap v waiting 1 row done",
        "9 reclaim w paused 1.0 MiB freed",
    ]
    assert "25 % of 1.2 GiB" in redfs("status").out
    data = redfs("jobs", "--json").json()
    assert [(job["job_id"], job["rate"], job["left_s"], job["allowed"]) for job in data] == [
        (7, 30 * MIB, 30, ["pause"]), (8, 0, -1, []), (9, 0, -1, []),
    ]  # fmt: skip


def test_a_job_is_paused_and_resumed(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    coordinator.status.jobs.append(JOB)
    assert redfs("job", "pause", "7").out == "Paused job 7 (photos@one)\n"
    assert coordinator.calls[-1] == pb.JobControl(job_id=7, action="pause")
    coordinator.status.jobs[0].allowed[:] = ["resume"]
    assert redfs("job", "resume", "7", "--json").json()["state"] == "waiting"
    assert coordinator.calls[-1] == pb.JobControl(job_id=7, action="resume")
    refused = redfs("job", "cancel", "7")
    assert (refused.code, refused.err) == (6, "redfs: it has to be done in the end\n")
    assert redfs("job", "pause", "8").code == 3
    assert redfs("job", "pause", "x").code == 2


def test_a_deletion_waits_until_its_space_is_free(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    redfs("volume", "create", "photos")
    number = coordinator.volumes["photos"].volume_id
    done = []

    def went_on() -> None:
        coordinator.status.jobs[0].done_bytes += MIB

    def ends() -> None:
        coordinator.status.jobs.pop()
        done.append("ended")

    job = pb.Job(job_id=1, kind="reclaim", state="running", subject="photos", volume_id=number)
    coordinator.status.jobs.append(job)
    coordinator.happenings = [went_on, went_on, ends]
    deleted = redfs("volume", "rm", "photos", "--yes", "--wait")
    assert (deleted.code, deleted.out) == (0, "Deleted photos; its space is free\n")
    assert done == ["ended"]
    assert deleted.err == "", "no progress where there is no terminal"
    coordinator.happenings = []
    redfs("volume", "create", "photos")
    redfs("snapshot", "create", "photos@one")
    assert redfs("snapshot", "rm", "photos@one", "--yes", "--wait", "--json").json()["state"] == "deleted"
    assert "in the background" in redfs("volume", "rm", "photos", "--yes").out


def test_a_deletion_that_a_status_does_not_name_is_waited_for_in_the_tree(coordinator: FakeCoordinator) -> None:
    coordinator.volumes["gone"] = pb.Volume(volume_id=5, kind="live", name="gone", state="deleting")
    waited = []

    def goes_on() -> None:
        waited.append("on")

    def ends() -> None:
        del coordinator.volumes["gone"]
        waited.append("end")

    coordinator.happenings = [goes_on, ends]
    with Pool.connect(coordinator.address) as pool:
        assert list(pool.follow_deletion(5)) == []
    assert waited == ["on", "end"]


def test_a_deletion_whose_end_nobody_told_is_not_said_to_be_done(
    redfs: CommandLine, coordinator: FakeCoordinator
) -> None:
    redfs("volume", "create", "photos")
    number = coordinator.volumes["photos"].volume_id
    coordinator.status.jobs.append(pb.Job(job_id=1, kind="reclaim", state="running", subject="photos"))
    coordinator.status.jobs[0].volume_id = number
    ended = redfs("volume", "rm", "photos", "--yes", "--wait")
    assert (ended.code, ended.out) == (7, "")
