"""Pools for the tests of this folder: `pool` is a module's own, `fresh_pool` makes one for a single test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPool]:
    """Six nodes, shared by the tests of a module: each makes a volume of its own and leaves every process running."""
    running = RunningPool(tmp_path_factory.mktemp("pool"), nodes=6)
    try:
        running.up()
        yield running
    finally:
        running.destroy()


@pytest.fixture
def fresh_pool(tmp_path: Path) -> Iterator[Callable[..., RunningPool]]:
    """Makes a pool with so many nodes, and settings of its own, for one test, which may break it."""
    with contextlib.ExitStack() as stack:
        made = 0

        def make(nodes: int, settings: str = "") -> RunningPool:
            nonlocal made
            made += 1
            running = RunningPool(tmp_path / f"pool-{made}", nodes, settings)
            running.folder.mkdir()
            stack.callback(running.destroy)
            running.up()
            return running

        yield make
