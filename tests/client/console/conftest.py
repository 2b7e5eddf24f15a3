"""A console whose pool is a fake coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.client.console.rig import ConsoleCoordinator, Site, site


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A small page in the place of the real one."""
    folder = tmp_path / "page"
    (folder / "js").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>RedFS</title>")
    (tmp_path / "secret.txt").write_text("not for everybody")
    (folder / "js" / "app.js").write_text("export const answer = 42;\n")
    return folder


@pytest.fixture
def coordinator() -> Iterator[ConsoleCoordinator]:
    fake = ConsoleCoordinator()
    yield fake
    fake.stop()


@pytest.fixture
async def console(coordinator: ConsoleCoordinator, page: Path) -> AsyncIterator[Site]:
    async with site(coordinator.address, page) as running:
        yield running
