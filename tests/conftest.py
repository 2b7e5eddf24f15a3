"""What all tests share: those that mount, or need a browser, are skipped, by name, only where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` makes sure beforehand that mounts and the browser work; a run of pytest by hand may be anywhere."""
    reason = why_no_mounts()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("mount"):
                item.add_marker(pytest.mark.skip(reason=reason))
    in_browser = [item for item in items if item.get_closest_marker("browser")]
    if in_browser and find_browser() is None:
        for item in in_browser:
            item.add_marker(pytest.mark.skip(reason="there is no chromium or chrome"))
