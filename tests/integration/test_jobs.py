"""Background jobs of a real pool: waiting for a deletion, and a pause that outlives the coordinator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.pools import RunningPool, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow]

FILES = 1500


def test_a_deletion_is_paused_over_a_crash_resumed_and_waited_for(fresh_pool: Callable[..., RunningPool]) -> None:
    pool = fresh_pool(2, "reclaim_budget_rows = 1\n")
    pool.redfs("volume", "create", "v", "--protect", "mirror:2")
    where = pool.mount("v")
    for number in range(FILES):
        (where / f"f{number}").write_bytes(b"x" * 5000)
    pool.umount(where)
    with pool.api() as api:
        wait_for(lambda: not api.jobs(), "what unmounting left behind is reaped")
        api.delete_volume("v")
        (job,) = api.jobs()
        assert (job.kind, job.subject, list(job.allowed)) == ("reclaim", "v", ["pause"])
        paused = api.control_job(job.job_id, "pause")
        assert paused.state == "paused"
    code, said = pool.refused("job", "cancel", str(job.job_id))
    assert (code, "pause it instead" in said) == (6, True)
    pool.kill("coordinator")
    pool.up()
    (held,) = pool.data("jobs")
    assert (held["state"], held["done"], held["done_bytes"]) == ("paused", paused.done, paused.done_bytes)
    assert held["done"] < 2 * FILES
    pool.redfs("job", "resume", str(job.job_id))
    with pool.api() as api:
        assert all(job.job_id == held["job_id"] for job in api.follow_deletion(held["volume_id"]))
        assert [v.name for v in api.volumes()] == ["zero"]
        assert api.status().logical_bytes == 0
    pool.redfs("volume", "create", "w", "--protect", "mirror:2")
    where = pool.mount("w")
    (where / "file").write_bytes(b"x" * 1_000_000)
    pool.umount(where)
    assert pool.redfs("volume", "rm", "w", "--yes", "--wait") == "Deleted w; its space is free\n"
    with pool.api() as api:
        assert not any(job.subject == "w" and job.kind == "reclaim" for job in api.jobs())
    pool.wait_for_nodes(2)
    pool.wait_for_idle()
    pool.assert_clean()
