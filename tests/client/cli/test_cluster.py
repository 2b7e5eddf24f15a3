"""`redfs cluster` where it cannot work: one line that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from redfs.client.container_pool import Part, _order
from redfs.core.errors import InvalidArgument, Unavailable
from tests.client.cli.conftest import CommandLine


def test_it_says_which_kind_of_cluster(redfs: CommandLine) -> None:
    done = redfs("cluster", "up")
    assert done.code == InvalidArgument.exit_code
    assert "say --containers" in done.err


@pytest.mark.parametrize("words", [("up", "--containers"), ("status",), ("down",)])
def test_without_an_engine_it_says_how_to_get_one(
    redfs: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere")
    done = redfs("cluster", *words)
    assert done.code == Unavailable.exit_code
    assert "the Docker engine does not answer: install it" in done.err
    assert done.err.count("\n") == 1


def test_without_the_sdk_it_says_what_to_install(redfs: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    done = redfs("cluster", "status")
    assert done.code == Unavailable.exit_code
    assert "pip install 'redfs[containers]'" in done.err


def test_parts_come_in_the_order_in_which_they_start() -> None:
    names = ["console", "node-10", "photos", "node-2", "coordinator"]
    parts = [Part(name, f"redfs-{name}", "running", "") for name in names]
    ordered = sorted((part.name for part in parts), key=_order)
    assert ordered == ["coordinator", "node-2", "node-10", "photos", "console"]
