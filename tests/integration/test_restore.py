"""The coordinator's folder is lost, with everything killed: what was fsynced is there after a restore."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from redfs.client.local_pool import LocalPool
from tests.integration.pools import RunningPool, wait_for
from tests.integration.test_failures import assert_all_there, fill

pytestmark = pytest.mark.mount

FreshPool = Callable[..., RunningPool]
THREE_COPIES = "journal_share_disks = true\njournal_checkpoint_bytes = 20000\n"


def wait_for_journal(pool: RunningPool, copies: int) -> None:
    """Until so many nodes have a checkpoint and the pool says that it is well."""

    def there() -> bool:
        found = list(pool.local.folder.glob("node-*/journal/*.checkpoint"))
        return len({path.parent for path in found}) >= copies and pool.data("status")["health"] == "ok"

    wait_for(there, f"a journal on {copies} nodes")


@pytest.mark.parametrize("lost", [0, 2])
def test_the_coordinators_folder_is_lost(fresh_pool: FreshPool, lost: int) -> None:
    pool = fresh_pool(6, THREE_COPIES)
    pool.redfs("volume", "create", "data", "--protect", "ec:4+2")
    wait_for_journal(pool, 3)
    place = pool.mount("data")
    digests = fill(place, 4, 1 << 20) | fill(place, 20, 3000, seed=2)
    pool.redfs("snapshot", "create", "data@before")
    (place / "folder").mkdir()
    digests |= fill(place / "folder", 10, 20_000, seed=3)
    for path in list(digests)[:3]:
        path.unlink()
        del digests[path]
    folder = os.open(place, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)

    pool.kill_everything()
    shutil.rmtree(pool.local.coordinator().folder)
    keepers = sorted(path.parent.parent.name for path in pool.local.folder.glob("node-*/journal/*.checkpoint"))
    for name in dict.fromkeys(keepers[:lost]):
        shutil.rmtree(pool.local.folder / name)
    code, text = pool.refused("coordinator", "restore")
    assert (code, "--yes" in text) == (2, True)
    done = pool.data("coordinator", "restore", "--yes")
    assert done["is_sure"] is True
    assert done["incarnation"] == 1
    pool.nodes = 6 - lost
    pool.up()

    again = pool.mount("data")
    assert_all_there({again / path.relative_to(place): digest for path, digest in digests.items()})
    more = fill(again, 5, 100_000, seed=4)
    assert_all_there(more)
    pool.umount(again)
    assert "data@before" in pool.redfs("tree") or pool.data("volume", "ls")
    if not lost:
        pool.wait_for_idle()
        pool.assert_clean()
    else:
        report = pool.check()
        assert not report.problems, report.data()
    assert pool.refused("coordinator", "restore", "--yes")[0] == 5, "it runs"


def test_a_mount_lives_through_a_restore_and_the_old_coordinator_is_refused(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3, THREE_COPIES)
    pool.redfs("volume", "create", "data", "--protect", "mirror:2")
    wait_for_journal(pool, 3)
    place = pool.mount("data")
    digests = fill(place, 5, 100_000)
    pool.kill("coordinator")
    stolen = pool.folder / "stolen"
    pool.local.coordinator().folder.rename(stolen)

    assert pool.data("coordinator", "restore", "--yes")["is_sure"] is True
    pool.up()
    digests |= fill(place, 5, 100_000, seed=2)
    assert_all_there(digests)
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()

    # The old one comes back: the nodes refuse it, and it says why.
    pool.redfs("down")
    pool.local.coordinator().folder.rename(pool.folder / "restored")
    stolen.rename(pool.local.coordinator().folder)
    assert LocalPool(pool.local.folder).start_nodes_alone()
    code, text = pool.refused("up", "--no-console")
    assert code == 7
    assert "a restored coordinator has taken over" in text
