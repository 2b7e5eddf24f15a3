"""A bounded run of the exerciser on a real pool. By hand it runs as long as one likes: `python -m tests.exerciser`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exerciser.crew import plans
from tests.exerciser.faults import BETWEEN, DURING, Faults
from tests.exerciser.run import run
from tests.integration.pools import RunningPool
from tests.lengths import examples

pytestmark = [pytest.mark.mount, pytest.mark.slow]

OPERATIONS = examples(1000)
"""Of each program: some five seconds; and as many again for what is looked at between."""
OPERATIONS_WITH_FAULTS = 2000


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[RunningPool]:
    running = RunningPool(tmp_path / "there", nodes=6)
    running.folder.mkdir()
    try:
        running.up()
        running.redfs("volume", "create", "exercised", "--protect", "ec:4+2")
        yield running
    finally:
        running.destroy()


def test_a_mount_is_what_the_models_and_the_machines_file_system_say(pool: RunningPool, tmp_path: Path) -> None:
    mount = pool.mount("exercised")
    outcome = run(plans(1, [mount], tmp_path / "reference", trees=2, files=1), seconds=600, operations=OPERATIONS)
    assert outcome.operations == 4 * OPERATIONS
    pool.umount(mount)
    pool.assert_clean()


def test_it_stays_so_while_nodes_are_killed_and_the_volume_is_remounted_and_rolled_back(
    pool: RunningPool, tmp_path: Path
) -> None:
    mount = pool.mount("exercised")
    faults = Faults(pool.local.folder, "exercised", [mount], seed=2)
    planned = plans(2, [mount], tmp_path / "reference", trees=1, files=1)
    run(planned, seconds=600, operations=OPERATIONS_WITH_FAULTS, faults=faults, round_steps=250)
    assert set(faults.made) == {what for what in (*DURING, *BETWEEN) if what != "nothing"}
    faults.check()
    pool.umount(mount)
