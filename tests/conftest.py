"""What all tests share.

Those that mount, or need a browser, are skipped, by name, only where there is none. `pytest -n auto --dist loadfile`
runs files of tests beside one another, as `make test` does; each file's tests stay together, in one process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKERS_PER_CORE = 2
"""Tests with real processes wait most of the time, for disks, for each other and for time to pass."""
MAX_WORKERS = 12
"""Each may have a pool, which is eight processes with 50 MiB each."""

NETWORKS = Path(tempfile.gettempdir()) / f"redfs-tests-networks-{os.getuid()}.lock"

if sys.dont_write_bytecode:
    # Somebody wants no files beside the sources. But the tests start some thousand processes, and half of the time that
    # each takes to start would go into compiling the same modules again.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@contextlib.contextmanager
def networks_stay(*, but_for_mine: bool = False) -> Iterator[None]:
    """While one is inside, no other test of this machine makes or removes networks; `but_for_mine`: who does so.

    Chromium gives up all it is loading when an interface comes or goes (ERR_NETWORK_CHANGED), loopback or not.
    """
    with NETWORKS.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if but_for_mine else fcntl.LOCK_SH)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """What `-n auto` is. None: xdist's own number, one for each core; so for `-n logical`."""
    if config.getoption("numprocesses") == "logical":
        return None
    return min(MAX_WORKERS, WORKERS_PER_CORE * (os.cpu_count() or 1))


def long_files_first(items: list[pytest.Item]) -> None:
    """So that no worker begins a file of a minute or two when the others have nothing left to do."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("mount"))
    items.sort(key=lambda item: -slow[item.path])


def why_no_mounts() -> str | None:
    """What is missing for a real mount, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


BROWSERS = ("chromium", "google-chrome-stable", "google-chrome", "chromium-browser")
BROWSER_ANSWER_S = 60.0
"""Its first start on a cold machine takes a while."""


def find_browser() -> str | None:
    """A chromium or chrome that runs; Ubuntu's `chromium-browser` may be a script that only asks for a snap."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path is None:
            continue
        try:
            subprocess.run([path, "--version"], check=True, capture_output=True, timeout=BROWSER_ANSWER_S)
        except (OSError, subprocess.SubprocessError):
            continue
        return path
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`make test` makes sure beforehand that mounts and the browser work; a run of pytest by hand may be anywhere."""
    if hasattr(config, "workerinput"):
        long_files_first(items)
    reason = why_no_mounts()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("mount"):
                item.add_marker(pytest.mark.skip(reason=reason))
    in_browser = [item for item in items if item.get_closest_marker("browser")]
    if in_browser and find_browser() is None:
        for item in in_browser:
            item.add_marker(pytest.mark.skip(reason="there is no chromium or chrome"))
