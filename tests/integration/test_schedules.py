"""A schedule in a real pool: snapshots of a mounted volume while it is written to, and over a coordinator's outage."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.pools import RunningPool, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def test_a_schedule_makes_and_prunes_also_after_an_outage(fresh_pool: Callable[..., RunningPool]) -> None:
    pool = fresh_pool(2, "schedule_min_s = 1.0\n")
    pool.redfs("volume", "create", "v", "--protect", "mirror:2")
    where = pool.mount("v")
    pool.redfs("snapshot", "create", "v@mine")
    made = pool.redfs("snapshot", "schedule", "v", "--every", "1s", "--keep", "2")
    assert "v@every-1s-" in made
    (schedule,) = pool.data("snapshot", "schedules", "v")

    def names() -> list[str]:
        with pool.api() as api:
            return [v.name for v in api.volumes() if v.kind == "snapshot" and v.state == "ok"]

    wait_for(lambda: len(names()) == 3, "two snapshots of the schedule")
    (where / "file").write_bytes(b"written, not fsynced")
    before = set(names())
    # The second one from now was certainly begun after the write.
    wait_for(lambda: not before & (set(names()) - {"v@mine"}), "both snapshots pruned")
    newest = names()[-1]
    assert newest.startswith("v@every-1s-")
    assert "v@mine" in names()
    pool.kill("coordinator")
    pool.up()
    wait_for(lambda: newest not in names() and len(names()) == 3, "the schedule goes on")
    pool.redfs("snapshot", "unschedule", "v")
    left = names()
    assert pool.data("snapshot", "schedules") == []
    shown = pool.mount(left[-1])
    assert (shown / "file").read_bytes() == b"written, not fsynced"
    pool.umount(shown)
    pool.umount(where)
    with pool.api() as api:
        assert {v.schedule_id for v in api.volumes() if v.name.startswith("v@every")} == {schedule["schedule_id"]}
    assert names() == left
    pool.wait_for_nodes(2)
    pool.wait_for_idle()
    pool.assert_clean()
