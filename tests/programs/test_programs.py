"""Real programs on a real mount. By hand they do more: `python -m tests.programs --help`.

Each check runs on a mount, which it remounts and kills, and small enough for every run of the tests; REDFS_TEST_SCALE
makes it larger.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool
from tests.programs.__main__ import Mount
from tests.programs.checks import CHECKS
from tests.programs.place import Missing, Place

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(1200)]

SCALE = float(os.environ.get("REDFS_TEST_SCALE", "0.2"))


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    """Three nodes, in a folder that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="redfs-programs-test-") as folder:
        os.chmod(folder, 0o755)
        running = RunningPool(Path(folder), nodes=3)
        try:
            running.up()
            running.redfs("volume", "create", "programs", "--protect", "ec:2+1")
            yield running
        finally:
            running.destroy()


@pytest.fixture(scope="module")
def mount(pool: RunningPool) -> Mount:
    return Mount(pool.mount("programs"), str(pool.local.folder), "programs")


@pytest.mark.parametrize("name", CHECKS)
def test_programs_do_what_they_do_on_a_local_file_system(name: str, mount: Mount, tmp_path: Path) -> None:
    folder = mount.folder / name
    folder.mkdir()
    try:
        CHECKS[name](Place((folder,), tmp_path, SCALE, mount.again, mount.kill))
    except Missing as missing:
        pytest.skip(str(missing))


def test_the_pool_is_clean_after_all_of_them(pool: RunningPool, mount: Mount) -> None:
    pool.umount(mount.folder)
    pool.assert_clean()
