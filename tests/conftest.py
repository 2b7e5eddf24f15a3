"""What all tests share: those that mount are skipped, by name, only where nothing can be mounted."""

from __future__ import annotations

import os

import pytest


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` makes sure beforehand that mounts work; a run of pytest by hand may be anywhere."""
    reason = why_no_mounts()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("mount"):
                item.add_marker(pytest.mark.skip(reason=reason))
